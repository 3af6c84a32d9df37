//! A stateless plugin that does what its configuration says, right or wrong. It reads `x` (int64) unless told otherwise.

wit_bindgen::generate!({ path: "../../../../wit", world: "transform-plugin", generate_all });

use std::sync::Mutex;

use exports::tidemill::plugin::lifecycle::{
    AlarmClock, Description, Field, Guest as Lifecycle, Plan, Port, RowOrder, StateLayout,
};
use exports::tidemill::plugin::transform::{Guest as Transform, Transformed};
use tidemill::plugin::columns::{Batch, Column, ValueType, Values, VarValues};
use tidemill::plugin::host;
use tidemill::plugin::outcome::{NewRows, Output, Refusal, Selection};

struct Hostile;

/// The configuration, and the handles that `configure` made.
static MODE: Mutex<(String, u32, u32)> = Mutex::new((String::new(), 0, 0));

impl Lifecycle for Hostile {
    fn describe() -> Description {
        Description {
            name: "hostile".into(),
            version: "1.2.3".into(),
            config_schema: "{}".into(),
            state: StateLayout::None,
            state_version: 1,
            alarms: AlarmClock::None,
            order: RowOrder::Arrival,
        }
    }

    fn configure(config: String, input: Vec<Field>) -> Result<Plan, String> {
        let y = || field("y", ValueType::Int64);
        let port = |adds, new_rows| Port {
            name: "main".into(),
            adds,
            new_rows,
        };
        let plan = |reads: &str, adds| Plan {
            reads: vec![reads.into()],
            ports: vec![port(adds, false)],
        };
        let mut handles = (0, 0);
        let planned = match config.as_str() {
            "configure err" => return Err("no such threshold".into()),
            "configure panic" => fail("panicked at src/lib.rs:1:2: boom"),
            "configure loop" => spin(),
            "configure memory" => grow(),
            "unknown column" => plan("amuont", vec![]),
            "clash" => plan("x", vec![field("x", ValueType::Int64)]),
            "no port" => Plan {
                reads: vec![],
                ports: vec![],
            },
            "port late" => Plan {
                reads: vec![],
                ports: vec![
                    port(vec![], false),
                    Port {
                        name: "late".into(),
                        adds: vec![],
                        new_rows: false,
                    },
                ],
            },
            "same ports" => Plan {
                reads: vec![],
                ports: vec![port(vec![], false), port(vec![], false)],
            },
            "twice" => plan("x", vec![y(), y()]),
            "bad counter" => {
                host::counter("Rows seen");
                plan("x", vec![])
            }
            "time" => plan("_time", vec![field("t", ValueType::Timestamp)]),
            "echo" => Plan {
                reads: input.iter().map(|f| f.name.clone()).collect(),
                ports: vec![port(
                    input
                        .iter()
                        .map(|f| Field {
                            name: format!("{}_", f.name),
                            ..f.clone()
                        })
                        .collect(),
                    false,
                )],
            },
            "table" => {
                handles.1 = host::table("products")?;
                plan("x", vec![nullable("price", ValueType::Float64)])
            }
            "new rows"
            | "new rows lie origin"
            | "new rows lie origins"
            | "new rows lie times"
            | "new rows lie port" => Plan {
                reads: vec!["x".into()],
                ports: vec![port(vec![y()], true)],
            },
            "text"
            | "lie utf8"
            | "lie utf8 boundary"
            | "lie offsets fall"
            | "lie offsets beyond"
            | "lie offsets count"
            | "lie offsets negative"
            | "offsets from 5" => plan("x", vec![field("s", ValueType::Utf8)]),
            "lie validity" => plan("x", vec![nullable("y", ValueType::Int64)]),
            "lie bits" => plan("x", vec![field("b", ValueType::Boolean)]),
            _ => {
                handles.0 = host::counter("rows");
                plan("x", vec![y()])
            }
        };
        *MODE.lock().unwrap() = (config, handles.0, handles.1);
        Ok(planned)
    }
}

impl Transform for Hostile {
    fn process(input: Batch) -> Result<Transformed, String> {
        let mode = MODE.lock().unwrap();
        let (mode, counter, table) = (mode.0.as_str(), mode.1, mode.2);
        if mode == "echo" || mode == "time" {
            return Ok(out(Output::Extend(input.columns)));
        }
        let Values::Int64(x) = &input.columns[0].values else {
            return Err("x is no int64".into());
        };
        if mode == "table" {
            let keys = &input.columns[0];
            return Ok(out(Output::Extend(host::table_get(
                table,
                keys,
                &["price".into()],
            )?)));
        }
        if mode.starts_with("new rows") {
            return Ok(new_rows(mode, x));
        }
        if mode.starts_with("lie") || mode == "text" || mode == "offsets from 5" {
            return Ok(lie(mode, x));
        }
        if x.contains(&13) {
            thirteen(mode)?;
        }
        match mode {
            "double" => host::counter_add(counter, x.len() as u64),
            "handle" => host::counter_add(99, 1),
            "leak" => std::mem::forget(vec![1u8; 4 << 20]),
            "always panic" => fail("panicked at src/lib.rs:3:4: always"),
            _ => {}
        }
        let doubled = ints(x.iter().map(|x| x * 2).collect());
        Ok(match mode {
            "refuse odd" => Transformed {
                ports: vec![Output::Extend(vec![doubled])],
                refused: odd(x),
            },
            "even" => {
                let rows: Vec<u32> = (0..x.len() as u32)
                    .filter(|&i| x[i as usize] % 2 == 0)
                    .collect();
                let added = ints(rows.iter().map(|&i| x[i as usize] * 2).collect());
                out(Output::Select(Selection {
                    rows,
                    added: vec![added],
                }))
            }
            _ => out(Output::Extend(vec![doubled])),
        })
    }
}

/// What happens to a call that holds the unlucky number.
fn thirteen(mode: &str) -> Result<(), String> {
    match mode {
        "panic on 13" => fail("panicked at src/lib.rs:7:8: thirteen\n\u{1b}[31mred"),
        "loop on 13" => spin(),
        "grow on 13" => grow(),
        "err on 13" => return Err("thirteen is not allowed".into()),
        "recurse on 13" => std::hint::black_box(recurse(1)),
        "flood on 13" => {
            for i in 0..1_000 {
                host::log(host::Level::Info, &format!("line {i}"));
            }
            host::log(host::Level::Error, &"x".repeat(1 << 16));
            fail("panicked after the flood")
        }
        _ => 0,
    };
    Ok(())
}

fn fail(text: &str) -> ! {
    host::log(host::Level::Error, text);
    core::arch::wasm32::unreachable()
}

fn spin() -> ! {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n + 1);
    }
}

fn grow() -> ! {
    loop {
        std::mem::forget(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

#[allow(unconditional_recursion)]
fn recurse(n: i32) -> i32 {
    std::hint::black_box([n; 64]);
    std::hint::black_box(recurse(std::hint::black_box(n + 1))) + 1
}

fn odd(x: &[i64]) -> Vec<Refusal> {
    let odd = (0..x.len()).rev().filter(|&i| x[i] % 2 != 0);
    odd.map(|i| refusal(i as u32)).collect()
}

fn refusal(row: u32) -> Refusal {
    Refusal {
        row,
        reason: "odd".into(),
    }
}

fn field(name: &str, ty: ValueType) -> Field {
    Field {
        name: name.into(),
        ty,
        nullable: false,
    }
}

fn nullable(name: &str, ty: ValueType) -> Field {
    Field {
        nullable: true,
        ..field(name, ty)
    }
}

fn ints(values: Vec<i64>) -> Column {
    Column {
        values: Values::Int64(values),
        validity: None,
    }
}

fn out(output: Output) -> Transformed {
    Transformed {
        ports: vec![output],
        refused: vec![],
    }
}

/// Every row twice; the second time an hour later.
fn new_rows(mode: &str, x: &[i64]) -> Transformed {
    let n = x.len() as u32;
    let mut origin: Vec<u32> = (0..n).flat_map(|i| [i, i]).collect();
    let mut times: Vec<i64> = (0..n)
        .flat_map(|i| [i64::from(i), i64::from(i) + 3_600])
        .collect();
    let doubled = ints(x.iter().flat_map(|&x| [x, x]).collect());
    match mode {
        "new rows lie origin" => origin[1] = n,
        "new rows lie origins" => drop(origin.pop()),
        "new rows lie times" => times.push(0),
        "new rows lie port" => return out(Output::Extend(vec![ints(x.to_vec())])),
        _ => {}
    }
    let batch = Batch {
        rows: n * 2,
        columns: vec![doubled],
    };
    out(Output::Rows(NewRows {
        batch,
        origin,
        times: Some(times),
    }))
}

fn lie(mode: &str, x: &[i64]) -> Transformed {
    let n = x.len() as u32;
    let y = || ints(x.to_vec());
    let extend = |column| out(Output::Extend(vec![column]));
    let select = |rows: Vec<u32>| {
        let added = vec![ints(vec![0; rows.len()])];
        out(Output::Select(Selection { rows, added }))
    };
    let refused = |rows: &[u32]| Transformed {
        ports: vec![Output::Extend(vec![y()])],
        refused: rows.iter().map(|&row| refusal(row)).collect(),
    };
    match mode {
        "lie ports" => Transformed {
            ports: vec![],
            refused: vec![],
        },
        "lie columns" => out(Output::Extend(vec![y(), y()])),
        "lie length" => extend(ints(vec![0; x.len() + 1])),
        "lie type" => extend(Column {
            values: Values::Timestamp(x.to_vec()),
            validity: None,
        }),
        "lie nulls" => extend(Column {
            values: Values::Int64(x.to_vec()),
            validity: Some(vec![0; x.len().div_ceil(8)]),
        }),
        "lie validity" => extend(Column {
            values: Values::Int64(x.to_vec()),
            validity: Some(vec![]),
        }),
        "lie bits" => extend(Column {
            values: Values::Boolean(vec![0xff; x.len().div_ceil(8) + 1]),
            validity: None,
        }),
        "lie index" => select(vec![n]),
        "lie order" => select(vec![1, 0]),
        "lie twice selected" => select(vec![0, 0]),
        "lie refused outside" => refused(&[n]),
        "lie refused twice" => refused(&[0, 0]),
        "lie refused and selected" => Transformed {
            refused: vec![refusal(0)],
            ..select(vec![0])
        },
        "lie rows on input port" => new_rows("", x),
        _ => extend(text(mode, x)),
    }
}

fn text(mode: &str, x: &[i64]) -> Column {
    let mut offsets = vec![0];
    let mut data = Vec::new();
    for x in x {
        data.extend_from_slice(format!("é{x}").as_bytes());
        offsets.push(data.len() as i32);
    }
    let last = offsets.len() - 1;
    match mode {
        "offsets from 5" => offsets.iter_mut().for_each(|o| *o += 5),
        "lie utf8" => data[0] = 0xff,
        "lie utf8 boundary" => offsets[0] = -1,
        "lie offsets fall" => offsets[0] = offsets[last] + 1,
        "lie offsets beyond" => offsets[last] = i32::MAX,
        "lie offsets count" => drop(offsets.pop()),
        "lie offsets negative" => offsets[0] = i32::MIN,
        _ => {}
    }
    if mode == "lie utf8 boundary" {
        // The first value ends in the middle of its first character.
        (offsets[0], offsets[1]) = (0, 1);
    }
    Column {
        values: Values::Utf8(VarValues { offsets, data }),
        validity: None,
    }
}

export!(Hostile);
