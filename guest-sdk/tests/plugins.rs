//! What the SDK promises authors, shown by small plugins under the test driver.

use tidemill_guest::bindings::{Field, FixedState, State as WireState, ValueType, VarValues};
use tidemill_guest::prelude::*;
use tidemill_guest::testing::{self, json};
use tidemill_guest::{KeyedRuntime, TransformRuntime};

/// Every type of column, in and out, null and not.
#[derive(Deserialize)]
struct Copies {}

#[derive(Row)]
struct Everything<'a> {
    flag: bool,
    count: i64,
    ratio: f64,
    at: Timestamp,
    r#type: &'a str,
    #[column("raw data")]
    raw: &'a [u8],
    maybe: Option<&'a str>,
    maybe_flag: Option<bool>,
}

#[derive(Columns)]
struct Copy<'a> {
    flag_copy: bool,
    count_copy: i64,
    ratio_copy: f64,
    at_copy: Timestamp,
    r#else: &'a str,
    #[column("raw copy")]
    raw_copy: Vec<u8>,
    maybe_copy: Option<String>,
    maybe_flag_copy: Option<bool>,
}

impl Transform for Copies {
    type Row<'a> = Everything<'a>;
    type Out = Copy<'static>;

    fn row(&mut self, row: Everything<'_>, out: &mut Out<Copy<'static>>) {
        if row.count < 0 {
            out.refuse(format!("count is {}", row.count));
        }
        out.keep(Copy {
            flag_copy: row.flag,
            count_copy: row.count,
            ratio_copy: row.ratio,
            at_copy: row.at,
            r#else: row.r#type,
            raw_copy: row.raw.to_vec(),
            maybe_copy: row.maybe.map(str::to_owned),
            maybe_flag_copy: row.maybe_flag,
        });
    }
}

#[test]
fn every_type_goes_in_and_out() {
    for rows_per_call in [1, 3, 8, 100] {
        let mut test = testing::transform::<Copies>(json!({}))
            .unwrap()
            .rows_per_call(rows_per_call);
        for i in 0..30i64 {
            let maybe = if i % 3 == 0 {
                json!(null)
            } else {
                json!("ä".repeat(i as usize))
            };
            let flag = if i % 4 == 0 {
                json!(null)
            } else {
                json!(i % 2 == 0)
            };
            test.push(json!({ "flag": i % 2 == 0, "count": i, "ratio": i as f64 / 3.0, "at": i, "type": "é".repeat(i as usize % 10),
                              "raw data": [i, 255], "maybe": maybe, "maybe_flag": flag }));
        }
        let rows = test.output("main");
        assert_eq!(rows.len(), 30);
        for row in rows {
            for (from, to) in [
                ("flag", "flag_copy"),
                ("count", "count_copy"),
                ("ratio", "ratio_copy"),
                ("at", "at_copy"),
                ("type", "else"),
                ("raw data", "raw copy"),
                ("maybe", "maybe_copy"),
                ("maybe_flag", "maybe_flag_copy"),
            ] {
                assert_eq!(row[from], row[to], "{from} in {row}");
            }
        }
    }
}

#[test]
fn a_refused_row_takes_back_what_it_put_out() {
    let mut test = testing::transform::<Copies>(json!({})).unwrap();
    for count in [1, -5, 2] {
        test.push(json!({ "flag": true, "count": count, "ratio": 1, "at": 0, "type": "", "raw data": [] }));
    }
    assert_eq!(test.output("main").len(), 2);
    let refused = test.refused();
    assert_eq!((refused.len(), refused[0].1.as_str()), (1, "count is -5"));
}

#[test]
fn configure_says_which_column_is_wrong_and_what_to_do() {
    let field = |name: &str, ty, nullable| Field {
        name: name.to_owned(),
        ty,
        nullable,
    };
    let good = || {
        vec![
            field("flag", ValueType::Boolean, false),
            field("count", ValueType::Int64, false),
            field("ratio", ValueType::Float64, false),
            field("at", ValueType::Timestamp, false),
            field("type", ValueType::Utf8, false),
            field("raw data", ValueType::Binary, false),
            field("maybe", ValueType::Utf8, true),
            field("maybe_flag", ValueType::Boolean, false),
        ]
    };
    let configure = |input: &[Field]| TransformRuntime::<Copies>::new().configure("{}", input);
    assert_eq!(
        configure(&good()).unwrap().reads[4..6],
        ["type", "raw data"]
    );

    let mut input = good();
    input.remove(1);
    let error = configure(&input).unwrap_err();
    assert!(
        error.contains("no column `count`")
            && error.contains("i64 (int)")
            && error.contains("ratio"),
        "{error}"
    );

    input = good();
    input[2].ty = ValueType::Utf8;
    let error = configure(&input).unwrap_err();
    assert!(
        error.contains("`ratio` is a string") && error.contains("f64 (float)"),
        "{error}"
    );

    input = good();
    input[4].nullable = true;
    let error = configure(&input).unwrap_err();
    assert!(
        error.contains("`type` may be null") && error.contains("Option<&str>"),
        "{error}"
    );

    let error = TransformRuntime::<Lookups>::new()
        .configure(r#"{"tabel": 1}"#, &[])
        .unwrap_err();
    assert!(
        error.contains("tabel") && error.contains("config"),
        "{error}"
    );
}

/// A lookup whose table is fixed, and whose column is read as a type that it may not have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lookups {}

#[derive(Row)]
struct Order3 {
    #[expect(dead_code, reason = "only the key")]
    id: i64,
    #[lookup(on = "id", table = "goods")]
    good: Good,
}

#[derive(Row)]
struct Good {
    price: Option<f64>,
}

#[derive(Columns)]
struct Price {
    price: Option<f64>,
}

impl Transform for Lookups {
    type Row<'a> = Order3;
    type Out = Extend<Price>;
    fn row(&mut self, row: Order3, out: &mut Out<Extend<Price>>) {
        out.extend(Price {
            price: row.good.price,
        });
    }
}

#[test]
fn a_table_is_asked_for_all_keys_and_checked_before_the_first_row() {
    testing::table("goods", "id", json!([{ "id": 1, "price": 2.5 }]));
    let mut test = testing::transform::<Lookups>(json!({})).unwrap();
    test.push(json!({ "id": 1 }));
    test.push(json!({ "id": 2 }));
    assert_eq!(
        test.output("main"),
        [
            json!({ "id": 1, "price": 2.5 }),
            json!({ "id": 2, "price": null })
        ]
    );

    testing::table("goods", "id", json!([{ "id": 1, "price": "dear" }]));
    let error = testing::transform::<Lookups>(json!({})).err().unwrap();
    assert!(
        error.contains("`price` of table `goods` is a string"),
        "{error}"
    );
    testing::table("goods", "id", json!([{ "id": 1, "cost": 2.5 }]));
    let error = testing::transform::<Lookups>(json!({})).err().unwrap();
    assert!(error.contains("no column `price`"), "{error}");
}

/// Every row must be extended; this one forgets.
#[derive(Deserialize)]
struct Forgets {}

impl Transform for Forgets {
    type Row<'a> = Good;
    type Out = Extend<Price>;
    fn row(&mut self, row: Good, out: &mut Out<Extend<Price>>) {
        match row.price {
            Some(price) if price < 0.0 => {}
            None => out.refuse("no price"),
            price => out.extend(Price { price }),
        }
    }
}

#[test]
fn extend_covers_every_row_that_is_not_refused() {
    let mut test = testing::transform::<Forgets>(json!({})).unwrap();
    test.push(json!({ "price": null }));
    test.push(json!({ "price": 1.0 }));
    assert_eq!(test.output("main"), [json!({ "price": 1.0 })]);
}

#[test]
#[should_panic(expected = "neither extended nor refused")]
fn a_forgotten_row_is_an_error() {
    let mut test = testing::transform::<Forgets>(json!({})).unwrap();
    test.push(json!({ "price": -1.0 }));
    test.output("main");
}

/// Ticks every `every` from a key's first row on, counting rows in between.
#[derive(Deserialize)]
struct Ticks {
    every: Duration,
    #[serde(skip)]
    rows: Counter,
    #[serde(skip)]
    gaps: Histogram,
}

#[derive(Row)]
struct Nothing {}

#[derive(Columns)]
struct Tick {
    at: Timestamp,
    rows: i64,
}

#[derive(State, Default)]
struct Counted {
    rows: i64,
    version: u64,
}

impl Keyed for Ticks {
    type Row<'a> = Nothing;
    type Out = Rows<Tick>;
    type State = Counted;
    const ORDER: Order = Order::EventTime;
    const ALARMS: Alarms = Alarms::EventTime;
    const STATE_VERSION: u32 = 2;

    fn setup(&mut self, setup: &mut Setup<'_>) -> Result<(), String> {
        self.rows = setup.counter("rows");
        self.gaps = setup.histogram("gaps");
        info!("ticks every {}", self.every);
        Ok(())
    }

    fn row(&mut self, _: Nothing, key: &mut Key<'_, Counted>, _: &mut Out<Rows<Tick>>) {
        key.state.rows += 1;
        self.rows.add(1);
        if key.alarm_time().is_none() {
            key.wake_at(key.now() + self.every);
        }
    }

    fn alarm(&mut self, key: &mut Key<'_, Counted>, out: &mut Out<Rows<Tick>>) {
        let at = key.alarm_time().unwrap();
        assert_eq!((key.now(), key.get::<&str>(0)), (at, Ok("a")));
        self.gaps.record(key.state.rows as f64);
        out.emit(Tick {
            at,
            rows: key.state.rows,
        });
        key.state.rows = 0;
        key.wake_at(at + self.every);
    }

    fn migrate(&mut self, from: u32, old: OldState) -> Result<NewState, String> {
        match from {
            0 => old.convert(|rows: i64| Counted { rows, version: 0 }),
            1 => old.convert(|old: Counted1| Counted {
                rows: old.rows,
                version: 1,
            }),
            _ => Err("unknown".to_owned()),
        }
    }
}

#[derive(State, Default)]
struct Counted1 {
    rows: i64,
}

fn ticks(
    times: &[i64],
    watermarks: &[i64],
    rows_per_call: usize,
) -> (Vec<testing::Json>, Vec<i64>) {
    let test = testing::keyed::<Ticks>(json!({ "every": "10us" })).unwrap();
    let mut test = test.rows_per_call(rows_per_call);
    for time in times {
        test.push("a", json!({ "_time": time }));
    }
    for watermark in watermarks {
        test.watermark(*watermark);
    }
    let times = test.times("main");
    (test.output("main"), times)
}

#[test]
fn rows_and_alarms_come_in_one_order_of_time() {
    let tick = |at: i64, rows: i64| json!({ "key": "a", "at": at, "rows": rows });
    // Rows at 0, 3, 10, 35: the alarm at 10 comes before the row at 10.
    let expected = [tick(10, 2), tick(20, 1), tick(30, 0), tick(40, 1)];
    for rows_per_call in [1, 2, 100] {
        for watermarks in [
            &[41i64][..],
            &[1, 41],
            &[11, 12, 36, 41],
            &[5, 10, 20, 21, 40, 41],
        ] {
            let (rows, times) = ticks(&[35, 0, 10, 3], watermarks, rows_per_call);
            assert_eq!(
                (rows.as_slice(), times.as_slice()),
                (&expected[..], &[10, 20, 30, 40][..]),
                "{watermarks:?}"
            );
        }
    }
}

#[test]
fn at_the_end_of_time_an_alarm_set_by_an_alarm_does_not_fire() {
    let mut test = testing::keyed::<Ticks>(json!({ "every": "10us" })).unwrap();
    test.push("a", json!({ "_time": 0 }));
    test.finish();
    assert_eq!(
        test.output("main"),
        [json!({ "key": "a", "at": 10, "rows": 1 })]
    );
    assert_eq!(test.alarm("a"), Some(Timestamp(20)));
}

#[test]
fn late_rows_go_to_their_own_port() {
    let mut test = testing::keyed::<Ticks>(json!({ "every": "10us" })).unwrap();
    test.watermark(100);
    test.push("a", json!({ "_time": 99, "id": 7 }));
    assert_eq!(test.output("late"), [json!({ "id": 7 })]);
}

#[test]
fn metrics_and_log_lines_reach_the_host() {
    ticks(&[0, 1, 2, 15], &[100], 2);
    assert_eq!(testing::counter_value("rows"), 4);
    assert_eq!(testing::histogram_values("gaps")[..2], [3.0, 1.0]);
    assert_eq!(testing::log_lines(), ["info: ticks every 10us"]);
}

#[test]
fn older_state_is_converted_key_by_key() {
    let mut runtime = KeyedRuntime::<Ticks>::new();
    runtime.configure(r#"{"every": "1s"}"#, &[]).unwrap();
    let fixed = FixedState {
        words: vec![7, 0, 9],
        present: Some(vec![0b101]),
    };
    let WireState::Fixed(new) = runtime.migrate_state(1, WireState::Fixed(fixed)).unwrap() else {
        panic!()
    };
    assert_eq!(
        (new.words, new.present),
        (vec![7, 1, 0, 0, 9, 1], Some(vec![0b101]))
    );

    let blob = VarValues {
        offsets: vec![5, 6, 6],
        data: vec![42],
    };
    let WireState::Fixed(new) = runtime.migrate_state(0, WireState::Blob(blob)).unwrap() else {
        panic!()
    };
    assert_eq!(
        (new.words, new.present),
        (vec![42, 0, 0, 0], Some(vec![0b01]))
    );

    assert_eq!(
        runtime.migrate_state(9, WireState::None).err().as_deref(),
        Some("unknown")
    );
}
