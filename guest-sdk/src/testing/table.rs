//! A reference table made of JSON rows.

use super::json;
use crate::bindings::{Column, ValueType};
use serde_json::Value;
use std::collections::HashMap;

#[derive(Default)]
pub(crate) struct Table {
    /// Rows by the JSON text of their key.
    rows: HashMap<String, Value>,
    columns: Vec<(String, ValueType)>,
}

impl Table {
    /// A table of these rows. The type of a column is that of its first value.
    pub fn new(key: &str, rows: &Value) -> Result<Self, String> {
        let mut table = Table::default();
        for row in rows
            .as_array()
            .ok_or("the rows of a table are a JSON array")?
        {
            let object = row
                .as_object()
                .ok_or_else(|| format!("{row} is no JSON object"))?;
            for (name, value) in object {
                if !value.is_null() && !table.columns.iter().any(|(known, _)| known == name) {
                    table.columns.push((name.clone(), type_of(value)?));
                }
            }
            let key = object
                .get(key)
                .ok_or_else(|| format!("{row} has no key `{key}`"))?;
            table.rows.insert(key.to_string(), row.clone());
        }
        Ok(table)
    }

    pub fn get(&self, keys: &Column, columns: &[String]) -> Result<Vec<Column>, String> {
        let found: Vec<_> = (0..json::capacity(keys))
            .map(|row| match json::value(keys, row) {
                Value::Null => None,
                key => self.rows.get(&key.to_string()),
            })
            .collect();
        let column = |name: &String| {
            let (_, ty) = self
                .columns
                .iter()
                .find(|(known, _)| known == name)
                .ok_or_else(|| format!("it has no column `{name}`"))?;
            let values: Vec<_> = found
                .iter()
                .map(|row| row.map_or(&Value::Null, |row| &row[name.as_str()]))
                .collect();
            json::column(*ty, &values)
        };
        columns.iter().map(column).collect()
    }
}

fn type_of(value: &Value) -> Result<ValueType, String> {
    Ok(match value {
        Value::Bool(_) => ValueType::Boolean,
        Value::Number(number) if number.is_f64() => ValueType::Float64,
        Value::Number(_) => ValueType::Int64,
        Value::String(_) => ValueType::Utf8,
        other => return Err(format!("{other} has no column type")),
    })
}
