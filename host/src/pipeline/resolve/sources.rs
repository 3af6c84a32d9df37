//! Sources and tables: columns, formats, event time.

use arrow::datatypes::{DataType, SchemaRef};

use super::Resolver;
use super::formats::{Place, schema};
use crate::pipeline::generated;
use crate::pipeline::plan::{self, Format, RecordPart};
use crate::pipeline::spec;
use crate::pipeline::text::Spanned;
use crate::pipeline::values;
use crate::table::TableSet;

pub use crate::format::type_name;

/// Where each value stands. A column of a CSV file has one name, dots and all.
fn paths(fields: &[spec::Field], format: Format) -> Vec<Vec<String>> {
    let path = |f: &spec::Field| match format {
        Format::Csv => vec![f.path.join(".")],
        _ => f.path.clone(),
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
                parts: vec![None; paths.len()],
                schema,
                paths,
                event_time: Some(event_time),
                bad_records: source.bad_records,
                limit: source.limit,
            });
        }
        let place = match source.connector.as_ref()? {
            spec::SourceConnector::File { path } => Place::File(path.as_ref()?),
            _ => Place::Kafka,
        };
        let format = self.format(source.format.as_ref(), place)?;
        let fields = source.fields.as_ref()?;
        let known: &[RecordPart] = match place {
            Place::File(_) => &[RecordPart::Offset],
            Place::Kafka => &RecordPart::ALL.map(|(_, part)| part),
        };
        self.parts_known(fields, known, place)?;
        self.fields_fit(fields, format, place)?;
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
            parts: fields.iter().map(|f| f.part).collect(),
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
                topics,
                start,
                on_data_loss,
                connection,
            } => {
                let cluster = self.cluster(connection);
                let written = topics.as_ref()?;
                let topics = match written {
                    spec::Topics::Named(names) => {
                        plan::Topics::Named(names.iter().map(|t| t.value.clone()).collect())
                    }
                    spec::Topics::Pattern(pattern) => plan::Topics::Pattern(pattern.value.clone()),
                };
                let cluster = cluster?;
                if let (spec::Topics::Pattern(pattern), plan::Brokers::Embedded) =
                    (written, &cluster.brokers)
                {
                    self.findings
                        .error(
                            pattern.span,
                            "the embedded broker has no topics but those that the file names",
                        )
                        .help("name them: topics = [\"orders\", \"returns\"]");
                    return None;
                }
                Some(plan::SourceConnector::Kafka {
                    cluster,
                    topics,
                    start: *start,
                    on_data_loss: *on_data_loss,
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

    pub(super) fn table(&mut self, table: &spec::Table) -> Option<plan::Table> {
        let place = match table.connector.as_ref()? {
            spec::TableConnector::File { path } => Place::File(path.as_ref()?),
            spec::TableConnector::Kafka { .. } => Place::Kafka,
        };
        let format = self.format(table.format.as_ref(), place);
        let connector = self.table_connector(table);
        let fields = table.fields.as_ref()?;
        self.parts_known(fields, &[], place)?;
        let schema = schema(fields);
        let written = table.key.as_ref()?;
        let key = self.column(written, &schema, "the table")?;
        let format = format?;
        self.fields_fit(fields, format, place)?;
        let planned = plan::Table {
            name: table.name.value.clone(),
            connector: connector?,
            format,
            key,
            paths: paths(fields, format),
            schema,
        };
        // Not every type can be a key.
        if let Err(cause) = TableSet::unread([&planned]) {
            self.findings.error(written.span, cause);
            return None;
        }
        Some(planned)
    }

    fn table_connector(&mut self, table: &spec::Table) -> Option<plan::TableConnector> {
        Some(match table.connector.as_ref()? {
            spec::TableConnector::File { path } => plan::TableConnector::File {
                path: self.spec.dir.join(&path.as_ref()?.value),
            },
            spec::TableConnector::Kafka { topic, connection } => {
                let cluster = self.cluster(connection);
                plan::TableConnector::Kafka {
                    cluster: cluster?,
                    topic: topic.as_ref()?.value.clone(),
                }
            }
        })
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
