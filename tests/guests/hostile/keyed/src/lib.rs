//! A keyed plugin that does what its configuration says, right or wrong. It reads `x` (int64) and keeps the sum of each key's
//! `x`, as one word or, as the package `keyed_blob`, as bytes. A row goes out with the sum so far.

wit_bindgen::generate!({ path: "../../../../wit", world: "keyed-plugin", generate_all });

use std::sync::Mutex;

use exports::tidemill::plugin::keyed::{
    FixedState, Guest as Keyed, KeyedInput, KeyedResult, State,
};
use exports::tidemill::plugin::lifecycle::{
    AlarmClock, Description, Field, Guest as Lifecycle, Plan, Port, RowOrder, StateLayout,
};
use tidemill::plugin::columns::{Batch, Column, ValueType, Values, VarValues};
use tidemill::plugin::host;
use tidemill::plugin::outcome::{NewRows, Output, Refusal};

const BLOB: bool = cfg!(feature = "blob");

struct Hostile;

static MODE: Mutex<String> = Mutex::new(String::new());

impl Lifecycle for Hostile {
    fn describe() -> Description {
        Description {
            name: "hostile-keyed".into(),
            version: "0.0.1".into(),
            config_schema: "{}".into(),
            state: if BLOB {
                StateLayout::Blob
            } else {
                StateLayout::Fixed(1)
            },
            state_version: 3,
            alarms: if BLOB {
                AlarmClock::None
            } else {
                AlarmClock::EventTime
            },
            order: RowOrder::EventTime,
        }
    }

    fn configure(config: String, _input: Vec<Field>) -> Result<Plan, String> {
        *MODE.lock().unwrap() = config;
        let sum = || {
            vec![Field {
                name: "sum".into(),
                ty: ValueType::Int64,
                nullable: false,
            }]
        };
        Ok(Plan {
            reads: vec!["x".into()],
            ports: vec![
                Port {
                    name: "main".into(),
                    adds: sum(),
                    new_rows: false,
                },
                Port {
                    name: "fired".into(),
                    adds: sum(),
                    new_rows: true,
                },
            ],
        })
    }
}

impl Keyed for Hostile {
    /// A row sets its key's alarm to its `x`, unless `x` is 0. A fired alarm gives a row with the sum and forgets the key.
    fn process(input: KeyedInput) -> Result<KeyedResult, String> {
        let mode = MODE.lock().unwrap();
        let Values::Int64(x) = &input.rows.columns[0].values else {
            return Err("x is no int64".into());
        };
        let mut sums = read(&input.state, input.groups as usize);
        let mut alarms = input.alarms;
        let mut dirty = vec![0u8; (input.groups as usize).div_ceil(8)];
        let mut running = Vec::with_capacity(x.len());
        let mut refused = Vec::new();
        for (row, (&group, &x)) in input.group_of_row.iter().zip(x).enumerate() {
            let group = group as usize;
            if x == 13 {
                thirteen(&mode)?;
            }
            if x < 0 {
                refused.push(Refusal {
                    row: row as u32,
                    reason: "negative".into(),
                });
                running.push(0);
                continue;
            }
            sums[group] = Some(sums[group].unwrap_or(0) + x);
            running.push(sums[group].unwrap_or(0));
            dirty[group / 8] |= 1 << (group % 8);
            if x != 0 && !BLOB {
                alarms[group] = x;
            }
        }
        let mut fired = (Vec::new(), Vec::new());
        for &group in &input.due {
            let at = group as usize;
            if alarms[at] > input.now {
                continue;
            }
            if mode.as_str() == "alarm panic on 7" && sums[at] == Some(7) {
                host::log(host::Level::Error, "panicked at the alarm of seven");
                core::arch::wasm32::unreachable();
            }
            fired.0.push(x.len() as u32 + group);
            fired.1.push(sums[at].take().unwrap_or(0));
            alarms[at] = i64::MAX;
            dirty[at / 8] |= 1 << (at % 8);
        }
        let fired = match fired.0.is_empty() {
            true => Output::Nothing,
            false => Output::Rows(NewRows {
                batch: Batch {
                    rows: fired.0.len() as u32,
                    columns: vec![ints(fired.1)],
                },
                origin: fired.0,
                times: None,
            }),
        };
        let mut result = KeyedResult {
            ports: vec![Output::Extend(vec![ints(running)]), fired],
            refused,
            state: write(&sums),
            dirty: Some(dirty),
            alarms,
        };
        lie(&mode, &mut result, x.len() as u32 + input.groups);
        Ok(result)
    }

    fn migrate_state(from_version: u32, _old: State) -> Result<State, String> {
        Err(format!("version {from_version} is not read"))
    }
}

fn thirteen(mode: &str) -> Result<(), String> {
    match mode {
        "panic on 13" => {
            host::log(host::Level::Error, "panicked: thirteen");
            core::arch::wasm32::unreachable()
        }
        "err on 13" => Err("thirteen is not allowed".into()),
        _ => Ok(()),
    }
}

fn lie(mode: &str, result: &mut KeyedResult, beyond: u32) {
    match mode {
        "lie layout" => result.state = State::None,
        "lie state" => match &mut result.state {
            State::Fixed(fixed) => fixed.words.push(0),
            State::Blob(blob) => blob.offsets.push(0),
            State::None => {}
        },
        "lie present" => {
            if let State::Fixed(fixed) = &mut result.state {
                fixed.present = Some(vec![]);
            }
        }
        "lie dirty" => result.dirty = Some(vec![0; 99]),
        "lie alarms" => result.alarms.push(0),
        "lie origin" => {
            result.ports[1] = Output::Rows(NewRows {
                batch: Batch {
                    rows: 1,
                    columns: vec![ints(vec![0])],
                },
                origin: vec![beyond],
                times: None,
            });
        }
        _ => {}
    }
}

fn ints(values: Vec<i64>) -> Column {
    Column {
        values: Values::Int64(values),
        validity: None,
    }
}

fn read(state: &State, groups: usize) -> Vec<Option<i64>> {
    match state {
        State::None => vec![None; groups],
        State::Fixed(FixedState { words, present }) => (0..groups)
            .map(|g| {
                let is_present = present
                    .as_ref()
                    .is_none_or(|p| p[g / 8] >> (g % 8) & 1 == 1);
                is_present.then_some(words[g] as i64)
            })
            .collect(),
        State::Blob(VarValues { offsets, data }) => offsets
            .windows(2)
            .map(|span| {
                let start = (span[0] - offsets[0]) as usize;
                let end = (span[1] - offsets[0]) as usize;
                std::str::from_utf8(&data[start..end])
                    .ok()
                    .and_then(|text| text.parse().ok())
            })
            .collect(),
    }
}

fn write(sums: &[Option<i64>]) -> State {
    if !BLOB {
        let mut present = vec![0; sums.len().div_ceil(8)];
        for (g, _) in sums.iter().enumerate().filter(|(_, sum)| sum.is_some()) {
            present[g / 8] |= 1 << (g % 8);
        }
        let words = sums.iter().map(|sum| sum.unwrap_or(0) as u64).collect();
        return State::Fixed(FixedState {
            words,
            present: Some(present),
        });
    }
    let (mut offsets, mut data) = (vec![0], Vec::new());
    for sum in sums {
        if let Some(sum) = sum {
            data.extend_from_slice(sum.to_string().as_bytes());
        }
        offsets.push(data.len() as i32);
    }
    State::Blob(VarValues { offsets, data })
}

export!(Hostile);
