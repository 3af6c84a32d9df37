//! Running statistics: at the end of each `every` in which a key had purchases, how many it had so far and how large they were.
//! Build it with `tidemill plugin build plugins/running`, test it with `cargo test -p running`.

use tidemill_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Running {
    every: Duration,
}

#[derive(Row)]
struct Purchase {
    amount: f64,
    #[column("_time")]
    time: Timestamp,
}

#[derive(Columns)]
struct Statistics {
    until: Timestamp,
    purchases: i64,
    mean: f64,
    /// Null for a single purchase.
    deviation: Option<f64>,
    smallest: f64,
    largest: f64,
}

/// Running moments after Welford; `m2` is the sum of squared distances from the mean.
#[derive(State, Default)]
struct Moments {
    count: u64,
    mean: f64,
    m2: f64,
    smallest: f64,
    largest: f64,
}

impl Keyed for Running {
    type Row<'a> = Purchase;
    type Out = Rows<Statistics>;
    type State = Moments;
    const ORDER: Order = Order::EventTime;
    const ALARMS: Alarms = Alarms::EventTime;

    fn setup(&mut self, _setup: &mut Setup<'_>) -> Result<(), String> {
        if self.every == Duration::default() {
            return Err("every must be longer than 0s".to_owned());
        }
        Ok(())
    }

    fn row(&mut self, row: Purchase, key: &mut Key<'_, Moments>, _: &mut Out<Rows<Statistics>>) {
        let m = &mut *key.state;
        let first = m.count == 0;
        m.count += 1;
        let distance = row.amount - m.mean;
        m.mean += distance / m.count as f64;
        m.m2 += distance * (row.amount - m.mean);
        m.smallest = if first {
            row.amount
        } else {
            m.smallest.min(row.amount)
        };
        m.largest = if first {
            row.amount
        } else {
            m.largest.max(row.amount)
        };
        let since = row.time.micros().rem_euclid(self.every.micros());
        key.wake_at(row.time + Duration(self.every.micros() - since));
    }

    /// The state stays: the next purchase goes on from it.
    fn alarm(&mut self, key: &mut Key<'_, Moments>, out: &mut Out<Rows<Statistics>>) {
        let m = &*key.state;
        out.emit(Statistics {
            until: key.now(),
            purchases: m.count as i64,
            mean: m.mean,
            deviation: (m.count > 1).then(|| (m.m2 / (m.count - 1) as f64).sqrt()),
            smallest: m.smallest,
            largest: m.largest,
        });
    }
}

plugin!(Running: Keyed);

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_guest::testing::{self, Json, json};

    const MINUTE: i64 = 60_000_000;

    /// What goes out of purchases of one key, given as (seconds, amount).
    fn statistics(purchases: &[(i64, f64)], rows_per_call: usize) -> Vec<Json> {
        let mut test = testing::keyed::<Running>(json!({ "every": "1m" }))
            .unwrap()
            .rows_per_call(rows_per_call);
        for (seconds, amount) in purchases {
            test.push(
                "toys",
                json!({ "_time": seconds * 1_000_000, "amount": amount }),
            );
        }
        test.finish();
        test.output("main")
    }

    fn row(minute: i64, purchases: i64, mean: f64, deviation: Json, ends: [f64; 2]) -> Json {
        json!({ "key": "toys", "until": minute * MINUTE, "purchases": purchases, "mean": mean,
                "deviation": deviation, "smallest": ends[0], "largest": ends[1] })
    }

    #[test]
    fn each_minute_with_purchases_gives_all_until_its_end() {
        let purchases = [(0, 4.0), (59, 8.0), (60, 6.0), (200, 6.0)];
        let expected = [
            row(1, 2, 6.0, json!(8f64.sqrt()), [4.0, 8.0]),
            row(2, 3, 6.0, json!(2.0), [4.0, 8.0]),
            row(4, 4, 6.0, json!((8f64 / 3.0).sqrt()), [4.0, 8.0]),
        ];
        for rows_per_call in [1, 2, 9] {
            assert_eq!(statistics(&purchases, rows_per_call), expected);
        }
    }

    #[test]
    fn one_purchase_has_no_deviation_and_may_be_below_nothing() {
        let expected = [row(1, 1, -5.0, json!(null), [-5.0, -5.0])];
        assert_eq!(statistics(&[(30, -5.0)], 9), expected);
    }

    #[test]
    fn minutes_before_1970_end_like_others() {
        let expected = [row(0, 1, 5.0, json!(null), [5.0, 5.0])];
        assert_eq!(statistics(&[(-1, 5.0)], 9), expected);
    }

    #[test]
    fn purchases_may_arrive_in_any_order() {
        let mut purchases = [(70, 1.0), (10, 2.0), (65, 4.0), (0, 8.0)];
        let shuffled = statistics(&purchases, 9);
        purchases.sort_by_key(|(seconds, _)| *seconds);
        assert_eq!(shuffled, statistics(&purchases, 9));
    }

    #[test]
    fn the_state_outlives_its_alarm() {
        let mut test = testing::keyed::<Running>(json!({ "every": "1m" })).unwrap();
        test.push("toys", json!({ "_time": 0, "amount": 3.0 }));
        test.watermark(MINUTE);
        assert_eq!(test.times("main"), [MINUTE]);
        assert_eq!(test.state("toys").unwrap().count, 1);
    }

    #[test]
    fn an_interval_of_nothing_is_refused() {
        let refused = testing::keyed::<Running>(json!({ "every": "0s" })).err();
        assert!(refused.unwrap().contains("longer"));
    }
}
