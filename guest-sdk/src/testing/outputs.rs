//! Rows of a test on their way in and out, checked as the host checks them.

use super::{Json, json};
use crate::bindings::{Batch, Column, Field, Output, Plan, Port, Refusal};
use crate::row::{ColumnSpec, EVENT_TIME};
use serde_json::{Map, Value};

/// A row that was pushed.
#[derive(Clone)]
pub(super) struct Input {
    pub row: Map<String, Value>,
    pub time: i64,
    /// Index of its key; 0 without keys.
    pub key: usize,
}

/// What goes in and what came out.
pub(super) struct Rows {
    plan: Plan,
    reads: Vec<ColumnSpec>,
    ports: Vec<(String, Vec<Emitted>)>,
    refused: Vec<(Json, String)>,
}

struct Emitted {
    row: Map<String, Value>,
    time: i64,
}

/// The input columns of a test: exactly those that the plugin reads.
pub(super) fn schema(reads: &[ColumnSpec]) -> Vec<Field> {
    let read = reads.iter().filter(|column| column.name != EVENT_TIME);
    read.map(|c| Field {
        name: c.name.to_owned(),
        ty: c.ty,
        nullable: c.nullable,
    })
    .collect()
}

impl Rows {
    pub fn new(plan: Plan, reads: &[ColumnSpec]) -> Self {
        let ports = plan
            .ports
            .iter()
            .map(|port| (port.name.clone(), Vec::new()))
            .collect();
        Rows {
            plan,
            reads: reads.to_vec(),
            ports,
            refused: Vec::new(),
        }
    }

    /// Takes a row in.
    pub fn input(&self, row: Json, key: usize) -> Input {
        let Value::Object(mut row) = row else {
            panic!("a row is a JSON object, not {row}")
        };
        let time = row.remove(EVENT_TIME).map_or(0, |time| {
            time.as_i64()
                .unwrap_or_else(|| panic!("{EVENT_TIME} is in microseconds, not {time}"))
        });
        for column in self
            .reads
            .iter()
            .filter(|column| !column.nullable && column.name != EVENT_TIME)
        {
            let value = row.get(column.name).unwrap_or(&Value::Null);
            assert!(
                !value.is_null(),
                "column `{}` is null, and the plugin reads no nulls there",
                column.name
            );
        }
        Input { row, time, key }
    }

    /// The columns that the host would send.
    pub fn batch(&self, rows: &[Input]) -> Batch {
        let column = |name: &String| {
            let spec = self.reads.iter().find(|column| column.name == name);
            let ty = spec.map_or(crate::bindings::ValueType::Timestamp, |column| column.ty);
            let times: Vec<Value> = rows.iter().map(|row| row.time.into()).collect();
            let values: Vec<&Value> = if name == EVENT_TIME {
                times.iter().collect()
            } else {
                rows.iter()
                    .map(|row| row.row.get(name).unwrap_or(&Value::Null))
                    .collect()
            };
            json::column(ty, &values).unwrap_or_else(|error| panic!("column `{name}`: {error}"))
        };
        Batch {
            rows: rows.len() as u32,
            columns: self.plan.reads.iter().map(column).collect(),
        }
    }

    /// Takes the answer to a call. `alarms` are the groups behind origins from `rows.len()` up: key column and alarm time.
    pub fn collect(
        &mut self,
        rows: &[Input],
        keys: &[Option<String>],
        alarms: &[i64],
        ports: Vec<Output>,
        refused: Vec<Refusal>,
    ) {
        assert_eq!(ports.len(), self.plan.ports.len(), "one output a port");
        let is_refused = |row: usize| refused.iter().any(|refusal| refusal.row as usize == row);
        for ((port, output), (_, emitted)) in self.plan.ports.iter().zip(ports).zip(&mut self.ports)
        {
            match output {
                Output::Nothing => {}
                Output::Extend(added) => {
                    check(port, &added, rows.len());
                    let kept = (0..rows.len()).filter(|row| !is_refused(*row));
                    emitted.extend(kept.map(|row| with(&rows[row], port, &added, row)));
                }
                Output::Select(selection) => {
                    check(port, &selection.added, selection.rows.len());
                    assert!(
                        selection.rows.is_sorted_by(|a, b| a < b),
                        "selected rows ascend"
                    );
                    for (i, row) in selection.rows.iter().map(|row| *row as usize).enumerate() {
                        assert!(!is_refused(row), "a row both refused and selected");
                        emitted.push(with(&rows[row], port, &selection.added, i));
                    }
                }
                Output::Rows(new) => {
                    let len = new.batch.rows as usize;
                    check(port, &new.batch.columns, len);
                    assert!(
                        new.origin.len() == len
                            && new.times.as_ref().is_none_or(|times| times.len() == len)
                    );
                    for i in 0..len {
                        let origin = new.origin[i] as usize;
                        let group = origin.checked_sub(rows.len());
                        let (key, time) = match group {
                            None => (rows[origin].key_name(keys), rows[origin].time),
                            Some(group) => (keys[group].clone(), alarms[group]),
                        };
                        let mut row = Map::new();
                        row.extend(key.map(|key| ("key".to_owned(), key.into())));
                        add(&mut row, port, &new.batch.columns, i);
                        let time = new.times.as_ref().map_or(time, |times| times[i]);
                        emitted.push(Emitted { row, time });
                    }
                }
            }
        }
        for refusal in refused {
            let row = rows[refusal.row as usize].row.clone();
            self.refused.push((Value::Object(row), refusal.reason));
        }
    }

    /// Sets a late row aside, as the host does in event-time order.
    pub fn late(&mut self, input: Input) {
        if !self.ports.iter().any(|(name, _)| name == "late") {
            self.ports.push(("late".to_owned(), Vec::new()));
        }
        self.port("late").push(Emitted {
            row: input.row,
            time: input.time,
        });
    }

    fn port(&mut self, name: &str) -> &mut Vec<Emitted> {
        let names: Vec<_> = self.ports.iter().map(|(name, _)| name.clone()).collect();
        match self.ports.iter_mut().find(|(known, _)| known == name) {
            Some((_, rows)) => rows,
            None => panic!("there is no port `{name}`, only {}", names.join(", ")),
        }
    }

    pub fn take(&mut self, port: &str) -> Vec<Json> {
        self.port(port)
            .drain(..)
            .map(|emitted| Value::Object(emitted.row))
            .collect()
    }

    pub fn times(&mut self, port: &str) -> Vec<i64> {
        self.port(port).iter().map(|emitted| emitted.time).collect()
    }

    pub fn take_refused(&mut self) -> Vec<(Json, String)> {
        std::mem::take(&mut self.refused)
    }
}

impl Input {
    /// The key column of a row of the call; keys are numbered there by group.
    fn key_name(&self, keys: &[Option<String>]) -> Option<String> {
        keys.get(self.key).cloned().flatten()
    }
}

fn check(port: &Port, columns: &[Column], rows: usize) {
    assert_eq!(
        columns.len(),
        port.adds.len(),
        "port `{}`: one column a field",
        port.name
    );
    for (field, column) in port.adds.iter().zip(columns) {
        assert_eq!(
            crate::row::value_type(&column.values),
            field.ty,
            "port `{}`: type of `{}`",
            port.name,
            field.name
        );
        assert!(
            json::capacity(column) >= rows,
            "port `{}`: `{}` is short",
            port.name,
            field.name
        );
    }
}

fn with(input: &Input, port: &Port, added: &[Column], index: usize) -> Emitted {
    let mut row = input.row.clone();
    add(&mut row, port, added, index);
    Emitted {
        row,
        time: input.time,
    }
}

fn add(row: &mut Map<String, Value>, port: &Port, columns: &[Column], index: usize) {
    for (field, column) in port.adds.iter().zip(columns) {
        let value = json::value(column, index);
        assert!(
            field.nullable || !value.is_null(),
            "`{}` is null, which it says it never is",
            field.name
        );
        row.insert(field.name.clone(), value);
    }
}
