//! `[tables.X]`: reference data and its key.

use super::super::read::Reader;
use super::super::spec::{Table, TableConnector};
use super::super::text::Spanned;
use super::fields::fields;
use super::sources::{FORMATS, FORMATS_LATER, path};
use super::{connection, one_connector, topic};

pub fn table(name: Spanned<String>, r: &mut Reader) -> Table {
    r.later(&["parquet", "postgres", "refresh"]);
    let place = r.place.clone();
    let file = r.nested("file", |r| TableConnector::File {
        path: path(r, "path = \"products.csv\""),
    });
    let kafka = r.nested("kafka", |r| TableConnector::Kafka {
        topic: topic(r),
        connection: connection(r, false),
    });
    if !r.has("parquet") && !r.has("postgres") {
        one_connector(r, &["file", "kafka"], &place);
    }
    r.need(
        "fields",
        "fields = { product_id = \"string\", price = \"float\" }",
    );
    Table {
        name,
        connector: file.or(kafka),
        format: r.word("format", &FORMATS, &FORMATS_LATER),
        key: r.required("key", "key = \"product_id\""),
        fields: fields(r),
    }
}
