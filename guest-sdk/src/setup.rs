//! What happens once, in `configure`: the configuration is read, columns and tables are checked, handles are made.

use crate::bindings::{Batch, Column, Field, Plan, ValueType, Values, VarValues};
use crate::host;
use crate::metrics::{Counter, Histogram};
use crate::out::Ports;
use crate::row::{ColumnSpec, EVENT_TIME, LookupSpec, Row, check, type_name, value_type};
use serde::de::DeserializeOwned;

/// What a plugin can ask for in `setup`.
pub struct Setup<'a> {
    input: &'a [Field],
    lookups: Vec<(&'static LookupSpec, String)>,
}

/// What the runtime keeps between `configure` and the calls.
pub(crate) struct Ready<P> {
    pub plugin: P,
    /// Index of the column with the event time, if it is read.
    pub time: Option<usize>,
    lookups: Vec<Lookup>,
}

struct Lookup {
    table: u32,
    /// Index of the key among the columns read.
    on: usize,
    columns: Vec<String>,
}

impl Setup<'_> {
    /// Names the table behind the field `field` of the row type, as `#[lookup(table = …)]` does for good.
    pub fn lookup(&mut self, field: &str, table: &str) -> Result<(), String> {
        let (_, name) = self
            .lookups
            .iter_mut()
            .find(|(spec, _)| spec.field == field)
            .ok_or_else(|| format!("the row type has no field `{field}` with #[lookup]"))?;
        table.clone_into(name);
        Ok(())
    }

    /// Makes a counter. It shows in the host's metrics under this name, the pipeline's and the step's.
    pub fn counter(&mut self, name: &str) -> Counter {
        Counter::new(name)
    }

    /// Makes a histogram.
    pub fn histogram(&mut self, name: &str) -> Histogram {
        Histogram::new(name)
    }

    /// Whether the input has a column of this name.
    pub fn has_column(&self, name: &str) -> bool {
        self.input.iter().any(|field| field.name == name)
    }
}

/// The part of `configure` that is the same for both kinds of plugin.
pub(crate) fn configure<P: DeserializeOwned, R: Row<'static>, O: Ports>(
    config: &str,
    input: &[Field],
    needs_time: bool,
    setup: impl FnOnce(&mut P, &mut Setup<'_>) -> Result<(), String>,
) -> Result<(Ready<P>, Plan), String> {
    let config = if config.trim().is_empty() {
        "{}"
    } else {
        config
    };
    let mut plugin: P =
        serde_json::from_str(config).map_err(|error| format!("the plugin's config: {error}"))?;
    check(R::COLUMNS, input)?;
    let named = R::LOOKUPS
        .iter()
        .map(|spec| (spec, spec.table.to_owned()))
        .collect();
    let mut hooks = Setup {
        input,
        lookups: named,
    };
    setup(&mut plugin, &mut hooks)?;

    let mut reads: Vec<String> = R::COLUMNS
        .iter()
        .map(|column| column.name.to_owned())
        .collect();
    let mut time = reads.iter().position(|name| name == EVENT_TIME);
    if time.is_none() && needs_time {
        time = Some(reads.len());
        reads.push(EVENT_TIME.to_owned());
    }
    let lookups = hooks.lookups.iter();
    let lookups = lookups
        .map(|(spec, table)| open::<R>(spec, table))
        .collect::<Result<_, _>>()?;
    Ok((
        Ready {
            plugin,
            time,
            lookups,
        },
        Plan {
            reads,
            ports: O::plan(),
        },
    ))
}

/// Opens a table and asks it for no keys at all: the answer has the types of its columns.
fn open<R: Row<'static>>(spec: &LookupSpec, name: &str) -> Result<Lookup, String> {
    if name.is_empty() {
        return Err(format!(
            "no table for the field `{}`: name it in #[lookup(table = \"…\")] or with `setup.lookup`",
            spec.field
        ));
    }
    let on = R::COLUMNS.iter().position(|column| column.name == spec.on);
    let on =
        on.ok_or_else(|| format!("the key `{}` of a lookup is no column of the row", spec.on))?;
    let table = host::table(name)?;
    let columns: Vec<String> = spec
        .columns
        .iter()
        .map(|column| column.name.to_owned())
        .collect();
    let none = Column {
        values: no_values(R::COLUMNS[on].ty),
        validity: None,
    };
    let found = host::table_get(table, &none, &columns)
        .map_err(|reason| format!("table `{name}`: {reason}"))?;
    for (wanted, found) in spec.columns.iter().zip(&found) {
        check_table_column(name, wanted, value_type(&found.values))?;
    }
    Ok(Lookup { table, on, columns })
}

fn check_table_column(table: &str, wanted: &ColumnSpec, found: ValueType) -> Result<(), String> {
    if found != wanted.ty {
        return Err(format!(
            "column `{}` of table `{table}` is a {}, the plugin reads it as a {}",
            wanted.name,
            type_name(found),
            type_name(wanted.ty)
        ));
    }
    if !wanted.nullable {
        return Err(format!(
            "column `{}` of table `{table}` is null where a key is not found: declare the field as Option<..>",
            wanted.name
        ));
    }
    Ok(())
}

fn no_values(ty: ValueType) -> Values {
    let nothing = || VarValues {
        offsets: vec![0],
        data: Vec::new(),
    };
    match ty {
        ValueType::Boolean => Values::Boolean(Vec::new()),
        ValueType::Int64 => Values::Int64(Vec::new()),
        ValueType::Float64 => Values::Float64(Vec::new()),
        ValueType::Timestamp => Values::Timestamp(Vec::new()),
        ValueType::Utf8 => Values::Utf8(nothing()),
        ValueType::Binary => Values::Binary(nothing()),
    }
}

impl<P> Ready<P> {
    /// Asks each table for the keys of a call. The key column crosses as it came.
    pub fn look_up(&self, batch: &Batch) -> Result<Vec<Vec<Column>>, String> {
        let found = self.lookups.iter().map(|lookup| {
            let keys = batch
                .columns
                .get(lookup.on)
                .ok_or("the key column was not sent")?;
            host::table_get(lookup.table, keys, &lookup.columns)
        });
        found.collect()
    }

    /// The event times of a call, if they are read.
    pub fn times<'a>(&self, batch: &'a Batch) -> Result<Option<&'a [i64]>, String> {
        let Some(index) = self.time else {
            return Ok(None);
        };
        match batch.columns.get(index).map(|column| &column.values) {
            Some(Values::Timestamp(times)) if times.len() >= batch.rows as usize => Ok(Some(times)),
            _ => Err(format!("the column `{EVENT_TIME}` was not sent")),
        }
    }
}
