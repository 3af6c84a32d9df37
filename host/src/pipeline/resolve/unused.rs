//! What is written but does nothing: worth a warning, no more.

use std::collections::HashSet;

use super::Resolver;
use crate::pipeline::spec::Operator;

impl Resolver<'_> {
    pub(super) fn unused(&mut self) {
        let spec = self.spec;
        let from_steps = spec.steps.iter().flat_map(|s| &s.from);
        let from_sinks = spec.sinks.iter().flat_map(|s| &s.from);
        let read: HashSet<&str> = from_steps
            .chain(from_sinks)
            .map(|name| name.value.split('.').next().unwrap_or_default())
            .collect();
        let rows = spec
            .sources
            .iter()
            .map(|s| ("source", &s.name))
            .chain(spec.steps.iter().map(|s| ("step", &s.name)));
        for (what, name) in rows {
            if !read.contains(name.value.as_str()) {
                let message = format!("nothing reads {what} `{}`", name.value);
                self.findings.warning(name.span, message);
            }
        }
        self.unused_tables();
    }

    /// A plugin names its table in its config, so a table is used if its name stands anywhere in one.
    fn unused_tables(&mut self) {
        let spec = self.spec;
        for table in &spec.tables {
            let name = &table.name.value;
            let used = spec.steps.iter().any(|step| match &step.operator {
                Some(Operator::Lookup(l)) => l.table.as_ref().is_some_and(|t| t.value == *name),
                Some(Operator::Plugin(plugin)) => names(&plugin.config.value, name),
                Some(_) => false,
                None => true,
            });
            if !used {
                self.findings
                    .warning(table.name.span, format!("no step uses table `{name}`"));
            }
        }
    }
}

/// Whether `text` is one of the strings in `value`.
pub(in crate::pipeline) fn names(value: &serde_json::Value, text: &str) -> bool {
    use serde_json::Value;
    match value {
        Value::String(s) => s == text,
        Value::Array(items) => items.iter().any(|v| names(v, text)),
        Value::Object(members) => members.values().any(|v| names(v, text)),
        _ => false,
    }
}
