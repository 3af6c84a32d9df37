//! Sources and tables: columns, formats, event time.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::Resolver;
use crate::pipeline::generated;
use crate::pipeline::plan::{self, Format};
use crate::pipeline::spec::{self, FieldType};
use crate::pipeline::text::Spanned;
use crate::pipeline::values;
use crate::table::TableSet;

pub use crate::format::type_name;

/// The Arrow type of a field.
pub fn data_type(ty: FieldType) -> DataType {
    match ty {
        FieldType::String => DataType::Utf8,
        FieldType::Int => DataType::Int64,
        FieldType::Float => DataType::Float64,
        FieldType::Bool => DataType::Boolean,
        FieldType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        FieldType::Bytes => DataType::Binary,
        FieldType::Date => DataType::Date32,
        FieldType::Decimal(precision, scale) => DataType::Decimal128(precision, scale),
    }
}

fn schema(fields: &[spec::Field]) -> SchemaRef {
    let fields: Vec<_> = fields
        .iter()
        .map(|f| Field::new(&f.name.value, data_type(f.ty), f.nullable))
        .collect();
    Arc::new(Schema::new(fields))
}

/// Where each value stands. A column of a CSV file has one name, dots and all.
fn paths(fields: &[spec::Field], format: Format) -> Vec<Vec<String>> {
    let path = |f: &spec::Field| match format {
        Format::Json => f.path.clone(),
        Format::Csv => vec![f.path.join(".")],
    };
    fields.iter().map(path).collect()
}

impl Resolver<'_> {
    pub(super) fn source(&mut self, source: &spec::Source) -> Option<plan::Source> {
        let connector = self.source_connector(source);
        let generate = match &source.connector {
            Some(spec::SourceConnector::Generate { kind, .. }) => Some((*kind)?),
            _ => None,
        };
        if let Some(kind) = generate {
            let (schema, paths, event_time) = generated::columns(kind);
            return Some(plan::Source {
                name: source.name.value.clone(),
                connector: connector?,
                format: Format::Json,
                schema,
                paths,
                event_time: Some(event_time),
                bad_records: source.bad_records,
                limit: source.limit,
            });
        }
        let path = match &source.connector {
            Some(spec::SourceConnector::File { path }) => path.as_ref(),
            _ => None,
        };
        let format = self.format(source.format.as_ref(), path)?;
        let fields = source.fields.as_ref()?;
        let schema = schema(fields);
        let event_time = match &source.event_time {
            Some(written) => Some(self.event_time(written, &schema)?),
            None => None,
        };
        Some(plan::Source {
            name: source.name.value.clone(),
            connector: connector?,
            format,
            paths: paths(fields, format),
            schema,
            event_time,
            bad_records: source.bad_records,
            limit: source.limit,
        })
    }

    fn event_time(
        &mut self,
        written: &spec::EventTime,
        schema: &SchemaRef,
    ) -> Option<plan::EventTime> {
        let field = written.field.as_ref()?;
        let column = self.column(field, schema, "the source")?;
        let found = schema.field(column);
        if !matches!(found.data_type(), DataType::Timestamp(..)) || found.is_nullable() {
            let ty = type_name(found.data_type());
            let null = if found.is_nullable() { "?" } else { "" };
            self.findings
                .error(
                    field.span,
                    format!("event time `{}` is of type \"{ty}{null}\"", field.value),
                )
                .help("every record needs an event time: the field must be a \"timestamp\" without `?`");
            return None;
        }
        Some(plan::EventTime {
            column,
            lateness: written.lateness,
            idle_after: written.idle_after,
            max_ahead: written.max_ahead,
        })
    }

    fn source_connector(&mut self, source: &spec::Source) -> Option<plan::SourceConnector> {
        match source.connector.as_ref()? {
            spec::SourceConnector::Kafka {
                topic,
                start,
                connection,
            } => {
                let cluster = self.cluster(connection);
                Some(plan::SourceConnector::Kafka {
                    cluster: cluster?,
                    topic: topic.as_ref()?.value.clone(),
                    start: *start,
                })
            }
            spec::SourceConnector::File { path } => Some(plan::SourceConnector::File {
                path: self.spec.dir.join(&path.as_ref()?.value),
            }),
            spec::SourceConnector::Generate {
                kind,
                per_second,
                count,
                seed,
                speed,
                start,
                users,
                products,
            } => Some(plan::SourceConnector::Generate(plan::Generate {
                kind: (*kind)?,
                per_second: *per_second,
                count: *count,
                seed: *seed,
                speed: *speed,
                start: *start,
                users: *users,
                products: *products,
            })),
        }
    }

    /// The format written, or the one that the file's extension tells; JSON where there is no file.
    fn format(
        &mut self,
        written: Option<&Spanned<Format>>,
        path: Option<&Spanned<String>>,
    ) -> Option<Format> {
        if let Some(format) = written {
            return Some(format.value);
        }
        let Some(path) = path else {
            return Some(Format::Json);
        };
        match Path::new(&path.value).extension().and_then(|e| e.to_str()) {
            Some("json" | "jsonl" | "ndjson") => Some(Format::Json),
            Some("csv") => Some(Format::Csv),
            _ => {
                self.findings
                    .error(path.span, "the format of this file is unknown")
                    .help("add format = \"json\" or format = \"csv\"");
                None
            }
        }
    }

    pub(super) fn table(&mut self, table: &spec::Table) -> Option<plan::Table> {
        let format = table
            .path
            .as_ref()
            .and_then(|path| self.format(table.format.as_ref(), Some(path)));
        let fields = table.fields.as_ref()?;
        let schema = schema(fields);
        let written = table.key.as_ref()?;
        let key = self.column(written, &schema, "the table")?;
        let planned = plan::Table {
            name: table.name.value.clone(),
            path: self.spec.dir.join(&table.path.as_ref()?.value),
            format: format?,
            key,
            paths: paths(fields, format?),
            schema,
        };
        // Not every type can be a key.
        if let Err(cause) = TableSet::unread([&planned]) {
            self.findings.error(written.span, cause);
            return None;
        }
        Some(planned)
    }

    /// The table `name`; `Some(None)`: there is one, but nothing is known of it.
    pub(super) fn table_named(&mut self, name: &Spanned<String>) -> Option<Option<usize>> {
        let spec = self.spec;
        let index = spec.tables.iter().position(|t| t.name.value == name.value);
        if index.is_none() {
            let names = spec.tables.iter().map(|t| t.name.value.as_str());
            let help = values::suggestion(&name.value, names, "tables");
            self.findings
                .error(name.span, format!("there is no table `{}`", name.value))
                .maybe_help(help);
        }
        index.map(|i| self.tables[i].as_ref().map(|_| i))
    }
}
