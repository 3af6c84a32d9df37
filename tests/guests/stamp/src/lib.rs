//! Marks every row with the version that processed it. The version is chosen when it is built: `STAMP=two`. The version
//! `panics` does so on every row, the others on a negative amount.

use tidemill_guest::prelude::*;

const VERSION: &str = match option_env!("STAMP") {
    Some(version) => version,
    None => "one",
};

#[derive(Deserialize)]
struct Stamp {}

#[derive(Row)]
struct Purchase {
    amount: f64,
}

#[derive(Columns)]
struct Mark {
    version: &'static str,
    seen: i64,
}

#[derive(State, Default)]
struct Seen {
    rows: i64,
}

impl Keyed for Stamp {
    type Row<'a> = Purchase;
    type Out = Mark;
    type State = Seen;

    fn row(&mut self, purchase: Purchase, key: &mut Key<Seen>, out: &mut Out<Mark>) {
        assert!(VERSION != "panics", "this version panics");
        assert!(purchase.amount >= 0.0, "a negative amount");
        key.state.rows += 1;
        out.keep(Mark {
            version: VERSION,
            seen: key.state.rows,
        });
    }
}

plugin!(Stamp: Keyed);
