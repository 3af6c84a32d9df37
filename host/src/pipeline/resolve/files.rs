//! Sinks that write files: their columns, and directories that are in each other's way.

use std::path::PathBuf;

use arrow::datatypes::{DataType, SchemaRef};

use super::Resolver;
use super::sinks::lexical;
use super::type_name;
use crate::pipeline::plan::{self, LineFormat, SinkConnector};
use crate::pipeline::spec;
use crate::pipeline::text::{Span, Spanned};

type Inputs = [Option<plan::SinkInput>];

impl Resolver<'_> {
    /// A connector to files; `None` for any other, or if there is a mistake in it.
    pub(super) fn file_connector(
        &mut self,
        sink: &spec::Sink,
        connector: &spec::SinkConnector,
        inputs: &Inputs,
    ) -> Option<SinkConnector> {
        Some(match connector {
            spec::SinkConnector::File {
                path,
                existing,
                format,
            } => {
                let format = format.unwrap_or(LineFormat::Json);
                self.table_of_lines(sink, format, inputs);
                SinkConnector::File {
                    path: self.spec.dir.join(&path.as_ref()?.value),
                    existing: *existing,
                    format,
                }
            }
            spec::SinkConnector::Files {
                dir,
                existing,
                format,
                roll,
            } => {
                self.table_of_lines(sink, *format, inputs);
                SinkConnector::Files {
                    dir: self.directory(dir.as_ref()?),
                    existing: *existing,
                    format: *format,
                    roll: *roll,
                }
            }
            spec::SinkConnector::Parquet {
                dir,
                existing,
                roll,
                partition_by,
            } => {
                if self.equal_columns(sink, "a Parquet file", inputs) {
                    self.partition_columns(sink, partition_by, inputs);
                }
                SinkConnector::Parquet {
                    dir: self.directory(dir.as_ref()?),
                    existing: *existing,
                    roll: *roll,
                    partition_by: partition_by.iter().map(|p| p.value.clone()).collect(),
                }
            }
            _ => return None,
        })
    }

    /// A directory, which may not exist yet.
    fn directory(&mut self, dir: &Spanned<String>) -> PathBuf {
        let path = self.spec.dir.join(&dir.value);
        if path.exists() && !path.is_dir() {
            self.findings
                .error(dir.span, format!("`{}` is not a directory", dir.value))
                .help("`dir` names a directory that the sink fills with files");
        }
        path
    }

    fn table_of_lines(&mut self, sink: &spec::Sink, format: LineFormat, inputs: &Inputs) {
        if format == LineFormat::Csv {
            self.equal_columns(sink, "a CSV file", inputs);
        }
    }

    /// All rows of a table have the same columns. `true` if they do as far as they are known.
    fn equal_columns(&mut self, sink: &spec::Sink, what: &str, inputs: &Inputs) -> bool {
        let mut known = inputs.iter().flatten();
        let Some(first) = known.next() else {
            return true;
        };
        let mut equal = true;
        for other in known {
            let Some(difference) = difference(&first.schema, &other.schema) else {
                continue;
            };
            equal = false;
            let span = sink.from.iter().find(|f| f.value == other.label);
            let message = format!(
                "{what} has one set of columns, but `{}` and `{}` differ: {difference}",
                first.label, other.label
            );
            self.findings
                .error(span.map_or(sink.name.span, |f| f.span), message)
                .help("give each input a sink of its own, or make them alike with `select`");
        }
        equal
    }

    /// Columns whose values can name directories, and at least one that is left for the file.
    fn partition_columns(
        &mut self,
        sink: &spec::Sink,
        partition_by: &[Spanned<String>],
        inputs: &Inputs,
    ) {
        let inputs: Option<Vec<_>> = inputs.iter().cloned().collect();
        let Some(inputs) = inputs.filter(|i| !i.is_empty()) else {
            return;
        };
        let rows = plan::Sink {
            name: sink.name.value.clone(),
            inputs,
            connector: SinkConnector::Console { rows: 0 },
        };
        let schema = rows.schema();
        let of = format!("sink `{}`", sink.name.value);
        for name in partition_by {
            let Some(at) = self.column(name, &schema, &of) else {
                continue;
            };
            let ty = schema.field(at).data_type();
            if !names_directories(ty) {
                let message = format!("rows cannot be partitioned by a {}", type_name(ty));
                self.findings
                    .error(name.span, format!("`{}`: {message}", name.value))
                    .help(
                        "partition by a string, int, bool or date, made with `select` if need be",
                    );
            }
        }
        if let Some(last) = partition_by.last()
            && partition_by.len() >= schema.fields().len()
        {
            self.findings
                .error(last.span, "no column is left for the files")
                .help("columns named in `partition_by` stand in the directory names only");
        }
    }

    /// Refuses two sinks that fill one directory, and one that writes into another's.
    pub(super) fn directory_clashes(&mut self, files: &[(Spanned<String>, String)]) {
        let full = |path: &Spanned<String>| lexical(&self.spec.dir.join(&path.value));
        let files = files
            .iter()
            .map(|(path, what)| (path.span, full(path), what.clone()));
        let dirs = self.spec.sinks.iter().filter_map(|s| {
            let dir = match s.connector.as_ref()? {
                spec::SinkConnector::Files { dir, .. } => dir.as_ref()?,
                spec::SinkConnector::Parquet { dir, .. } => dir.as_ref()?,
                _ => return None,
            };
            Some((dir.span, full(dir), format!("sink `{}`", s.name.value)))
        });
        let dirs: Vec<(Span, PathBuf, String)> = dirs.collect();
        let mut clashes = Vec::new();
        for (at, (span, dir, what)) in dirs.iter().enumerate() {
            let before = dirs[..at].iter();
            if let Some(other) = before.clone().find(|d| dir.starts_with(&d.1)) {
                clashes.push((*span, what.clone(), other.2.clone(), other.0));
            } else if let Some(other) = before.clone().find(|d| d.1.starts_with(dir)) {
                clashes.push((other.0, other.2.clone(), what.clone(), *span));
            }
        }
        for (span, file, what) in files {
            if let Some(other) = dirs.iter().find(|d| file.starts_with(&d.1)) {
                clashes.push((span, what, other.2.clone(), other.0));
            }
        }
        for (span, what, other, first) in clashes {
            let message = format!("{what} writes into the directory of {other}");
            self.findings
                .error(span, message)
                .first(first)
                .help("whoever reads the directory takes all files in it: give each its own");
        }
    }
}

/// What tells two sets of columns apart, whether null or not.
fn difference(a: &SchemaRef, b: &SchemaRef) -> Option<String> {
    let (a, b) = (a.fields(), b.fields());
    for (at, (x, y)) in a.iter().zip(b).enumerate() {
        if x.name() != y.name() {
            let place = at + 1;
            return Some(format!(
                "column {place} is `{}` in the one and `{}` in the other",
                x.name(),
                y.name()
            ));
        }
        if x.data_type() != y.data_type() {
            let (x_type, y_type) = (type_name(x.data_type()), type_name(y.data_type()));
            return Some(format!(
                "`{}` is {x_type} in the one and {y_type} in the other",
                x.name()
            ));
        }
    }
    let (short, long) = (a.len().min(b.len()), a.len().max(b.len()));
    let more = if a.len() > b.len() { a } else { b };
    (short < long).then(|| format!("only one of them has `{}`", more[short].name()))
}

fn names_directories(ty: &DataType) -> bool {
    ty.is_string()
        || ty.is_integer()
        || matches!(ty, DataType::Boolean | DataType::Date32 | DataType::Date64)
}
