//! Sinks and dead letters, and where two of them would write to one place.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::Resolver;
use crate::pipeline::plan::{self, DeadLetters, STEP_COLUMN, SinkConnector, topic_pattern};
use crate::pipeline::spec;
use crate::pipeline::text::{Span, Spanned};

impl Resolver<'_> {
    pub(super) fn sink(&mut self, sink: &spec::Sink) -> Option<plan::Sink> {
        let inputs = self.sink_inputs(sink);
        let connector = match sink.connector.as_ref()? {
            spec::SinkConnector::Kafka {
                topic,
                key,
                connection,
            } => {
                let cluster = self.cluster(connection);
                let keys = self.sink_keys(key, &inputs);
                SinkConnector::Kafka {
                    cluster: cluster?,
                    topic: topic.as_ref()?.value.clone(),
                    key: keys?,
                }
            }
            spec::SinkConnector::Console { rows } => SinkConnector::Console { rows: *rows },
            spec::SinkConnector::Webhook(webhook) => {
                SinkConnector::Webhook(self.webhook(sink, webhook, &inputs)?)
            }
            spec::SinkConnector::Postgres(postgres) => {
                SinkConnector::Postgres(self.postgres(sink, postgres, &inputs)?)
            }
            files => self.file_connector(sink, files, &inputs)?,
        };
        let inputs: Vec<_> = inputs.into_iter().collect::<Option<_>>()?;
        (!inputs.is_empty()).then(|| plan::Sink {
            name: sink.name.value.clone(),
            inputs,
            connector,
        })
    }

    fn sink_inputs(&mut self, sink: &spec::Sink) -> Vec<Option<plan::SinkInput>> {
        let mut inputs = Vec::new();
        for (i, from) in sink.from.iter().enumerate() {
            let twice = sink.from[..i].iter().find(|f| f.value == from.value);
            if let Some(first) = twice {
                let message = format!("`{}` is named twice in `from`", from.value);
                self.findings.error(from.span, message).first(first.span);
                continue;
            }
            let rows = self.rows(from);
            if let Some(rows) = &rows
                && sink.from.len() > 1
                && rows.schema.index_of(STEP_COLUMN).is_ok()
            {
                let message = format!(
                    "`{}` has a column `{STEP_COLUMN}`, which a sink with several inputs adds itself",
                    from.value
                );
                self.findings
                    .error(from.span, message)
                    .help("rename the column with `select`, or give the input a sink of its own");
            }
            inputs.push(rows.map(|rows| plan::SinkInput {
                label: from.value.clone(),
                input: rows.inputs[0],
                schema: rows.schema,
            }));
        }
        inputs
    }

    /// The key columns in each input.
    fn sink_keys(
        &mut self,
        key: &[Spanned<String>],
        inputs: &[Option<plan::SinkInput>],
    ) -> Option<Vec<Vec<usize>>> {
        let mut keys = Vec::new();
        for input in inputs {
            let input = input.as_ref()?;
            let of = format!("input `{}`", input.label);
            let columns: Vec<_> = key
                .iter()
                .map(|name| self.column(name, &input.schema, &of))
                .collect();
            keys.push(columns.into_iter().collect::<Option<Vec<_>>>());
        }
        keys.into_iter().collect()
    }

    pub(super) fn dead_letters(&mut self) -> Option<DeadLetters> {
        match &self.spec.dead_letters {
            Some(spec::DeadLetters::Kafka { topic, connection }) => {
                let cluster = self.cluster(connection);
                Some(DeadLetters::Kafka {
                    cluster: cluster?,
                    topic: topic.as_ref()?.value.clone(),
                })
            }
            Some(spec::DeadLetters::File { path }) => Some(DeadLetters::File {
                path: self.spec.dir.join(&path.as_ref()?.value),
            }),
            None => Some(DeadLetters::File {
                path: self.host()?.state.join("dead-letters.jsonl"),
            }),
        }
    }

    /// Refuses two writers of one file and a file that is read and written; warns of topics that are.
    pub(super) fn clashes(&mut self) {
        let mut files: HashMap<PathBuf, (Span, String)> = HashMap::new();
        for (path, what) in self.files_read() {
            files
                .entry(lexical(&self.spec.dir.join(&path.value)))
                .or_insert((path.span, what));
        }
        for (path, what) in self.files_written() {
            let full = lexical(&self.spec.dir.join(&path.value));
            if let Some((first, other)) = files.get(&full) {
                let message = format!("{what} writes to the file of {other}");
                self.findings
                    .error(path.span, message)
                    .first(*first)
                    .help("give each its own file");
            } else {
                files.insert(full, (path.span, what));
            }
        }
        self.directory_clashes(&self.files_written());
        self.loops();
    }

    fn files_read(&self) -> Vec<(Spanned<String>, String)> {
        let sources = self.spec.sources.iter().filter_map(|s| match &s.connector {
            Some(spec::SourceConnector::File { path: Some(path) }) => {
                Some((path.clone(), format!("source `{}`", s.name.value)))
            }
            _ => None,
        });
        let tables = self.spec.tables.iter().filter_map(|t| {
            let Some(spec::TableConnector::File { path }) = &t.connector else {
                return None;
            };
            Some((path.clone()?, format!("table `{}`", t.name.value)))
        });
        sources.chain(tables).collect()
    }

    fn files_written(&self) -> Vec<(Spanned<String>, String)> {
        let sinks = self.spec.sinks.iter().filter_map(|s| match &s.connector {
            Some(spec::SinkConnector::File {
                path: Some(path), ..
            }) => Some((path.clone(), format!("sink `{}`", s.name.value))),
            _ => None,
        });
        let dead = match &self.spec.dead_letters {
            Some(spec::DeadLetters::File { path: Some(path) }) => {
                Some((path.clone(), "[dead_letters]".to_string()))
            }
            _ => None,
        };
        let metrics = self.spec.host.metrics.clone();
        let metrics = metrics.map(|path| (path, "[host] `metrics`".to_string()));
        sinks.chain(dead).chain(metrics).collect()
    }

    /// Warns of topics that are both read and written: rows may go round for ever.
    fn loops(&mut self) {
        let spec = self.spec;
        let read: Vec<_> = spec
            .sources
            .iter()
            .filter_map(|s| match &s.connector {
                Some(spec::SourceConnector::Kafka {
                    topics, connection, ..
                }) => Some((self.brokers_of(connection)?, topics.as_ref()?)),
                _ => None,
            })
            .collect();
        let sinks = spec.sinks.iter().filter_map(|s| match &s.connector {
            Some(spec::SinkConnector::Kafka {
                topic, connection, ..
            }) => Some((topic.as_ref()?, connection)),
            _ => None,
        });
        let dead = match &spec.dead_letters {
            Some(spec::DeadLetters::Kafka { topic, connection }) => {
                topic.as_ref().map(|t| (t, connection))
            }
            _ => None,
        };
        for (topic, connection) in sinks.chain(dead) {
            let brokers = self.brokers_of(connection);
            let is_read = |&(at, topics): &(&str, &spec::Topics)| {
                Some(at) == brokers && reads(topics, &topic.value)
            };
            if read.iter().any(is_read) {
                let message = format!("topic `{}` is both read and written", topic.value);
                self.findings
                    .warning(topic.span, message)
                    .help("what is written is read again: rows may go round for ever");
            }
        }
    }
}

fn reads(topics: &spec::Topics, topic: &str) -> bool {
    match topics {
        spec::Topics::Named(names) => names.iter().any(|name| name.value == topic),
        spec::Topics::Pattern(pattern) => {
            topic_pattern(&pattern.value).is_ok_and(|pattern| pattern.is_match(topic))
        }
    }
}

/// The path without `.` and `..`, so that two spellings of one file are found; links are not followed.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
