//! The columns of the port `late`, on which rows of both sides come out.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

/// The column of the port `late` that says which side a row is of.
pub const SIDE: &str = "side";
pub(super) const SIDES: [&str; 2] = ["left", "right"];

/// Which side, then the columns of either; a name that both have stands once if its types agree, otherwise the right
/// one's is `right_NAME`.
pub fn late_schema(left: &SchemaRef, right: &SchemaRef) -> SchemaRef {
    let nullable = |f: &FieldRef| f.as_ref().clone().with_nullable(true);
    let mut fields = vec![Field::new(SIDE, DataType::Utf8, false)];
    fields.extend(left.fields().iter().map(nullable));
    for field in right.fields() {
        match left.field_with_name(field.name()) {
            Ok(same) if same.data_type() == field.data_type() => {}
            Ok(_) => fields.push(nullable(field).with_name(format!("right_{}", field.name()))),
            Err(_) => fields.push(nullable(field)),
        }
    }
    Arc::new(Schema::new(fields))
}

/// The column of `side`'s input that a field of the late rows shows.
pub(super) fn own_column(inputs: &[SchemaRef; 2], side: usize, field: &FieldRef) -> Option<usize> {
    let own = &inputs[side];
    let same = |index: usize| own.field(index).data_type() == field.data_type();
    let found = own.index_of(field.name()).ok().filter(|&i| same(i));
    let prefixed = || {
        let name = field.name().strip_prefix("right_").filter(|_| side == 1)?;
        own.index_of(name).ok().filter(|&i| same(i))
    };
    found.or_else(prefixed)
}
