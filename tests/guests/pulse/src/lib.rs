//! A key beats once an hour, thirty times after each row: an alarm that sets the next one.

use tidemill_guest::prelude::*;

const HOUR: Duration = Duration(3_600_000_000);
const BEATS: i64 = 30;

#[derive(Deserialize)]
struct Pulse {}

#[derive(Row)]
struct Purchase {
    #[column("_time")]
    time: Timestamp,
}

#[derive(Columns)]
struct Count {
    rows: i64,
    beats: i64,
}

#[derive(State, Default)]
struct Counts {
    rows: i64,
    beats: i64,
    left: i64,
}

impl Keyed for Pulse {
    type Row<'a> = Purchase;
    type Out = Rows<Count>;
    type State = Counts;
    const ORDER: Order = Order::EventTime;
    const ALARMS: Alarms = Alarms::EventTime;

    fn row(&mut self, row: Purchase, key: &mut Key<'_, Counts>, out: &mut Out<Rows<Count>>) {
        key.state.rows += 1;
        key.state.left = BEATS;
        key.wake_at(row.time + HOUR);
        out.emit(Count {
            rows: key.state.rows,
            beats: key.state.beats,
        });
    }

    fn alarm(&mut self, key: &mut Key<'_, Counts>, _: &mut Out<Rows<Count>>) {
        key.state.beats += 1;
        key.state.left -= 1;
        if key.state.left > 0 {
            key.wake_at(key.now() + HOUR);
        }
    }
}

plugin!(Pulse: Keyed);
