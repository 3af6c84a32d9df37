//! Flags purchases that lie more than `threshold` standard deviations from the key's own mean.
//! Build it with `tidemill plugin build plugins/anomaly`, test it with `cargo test -p anomaly`.

use tidemill_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Anomaly {
    threshold: f64,
    /// Earlier purchases needed before one is judged.
    min_count: u64,
}

#[derive(Row)]
struct Purchase {
    amount: f64,
}

#[derive(Columns)]
struct Score {
    z_score: f64,
}

/// Running moments after Welford; `m2` is the sum of squared distances from the mean.
#[derive(State, Default)]
struct Moments {
    count: u64,
    mean: f64,
    m2: f64,
}

impl Keyed for Anomaly {
    type Row<'a> = Purchase;
    type Out = Score;
    type State = Moments;

    fn row(&mut self, Purchase { amount }: Purchase, key: &mut Key<Moments>, out: &mut Out<Score>) {
        let Moments { count, mean, m2 } = key.state;
        if *count >= self.min_count.max(2) {
            let deviation = (*m2 / (*count - 1) as f64).sqrt();
            if deviation > 0.0 && (amount - *mean).abs() > self.threshold * deviation {
                out.keep(Score {
                    z_score: (amount - *mean) / deviation,
                });
            }
        }
        *count += 1;
        let distance = amount - *mean;
        *mean += distance / *count as f64;
        *m2 += distance * (amount - *mean);
    }
}

plugin!(Anomaly: Keyed);

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_guest::testing::{self, Json, json};

    /// What goes out of purchases of two users who take turns, at most `rows_per_call` a call.
    fn flagged(amounts: &[f64], rows_per_call: usize) -> Vec<Json> {
        let config = json!({ "threshold": 3.0, "min_count": 5 });
        let test = testing::keyed::<Anomaly>(config).unwrap();
        let mut test = test.rows_per_call(rows_per_call);
        for amount in amounts {
            test.push("anna", json!({ "user": "anna", "amount": amount }));
            test.push("ben", json!({ "user": "ben", "amount": 7.0 }));
        }
        test.output("main")
    }

    #[test]
    fn a_purchase_far_from_the_mean_goes_out_with_its_score() {
        let found = flagged(&[10.0, 12.0, 8.0, 11.0, 9.0, 100.0, 10.0], usize::MAX);
        // Mean 10, sample deviation of 10, 12, 8, 11, 9: sqrt(10 / 4).
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&found[0]["user"], &found[0]["amount"]),
            (&json!("anna"), &json!(100.0))
        );
        assert!((found[0]["z_score"].as_f64().unwrap() - 90.0 / 2.5f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn fewer_than_min_count_and_equal_amounts_judge_nothing() {
        assert!(flagged(&[10.0, 12.0, 8.0, 11.0, 100.0], usize::MAX).is_empty());
        assert!(flagged(&[7.0, 7.0, 7.0, 7.0, 7.0, 100.0], usize::MAX).is_empty());
    }

    #[test]
    fn the_result_does_not_depend_on_the_cut() {
        let amounts: Vec<f64> = (0..60)
            .map(|i| {
                if i % 13 == 12 {
                    500.0
                } else {
                    f64::from(i % 7)
                }
            })
            .collect();
        let whole = flagged(&amounts, usize::MAX);
        assert!(whole.len() > 1);
        for rows_per_call in [1, 2, 3, 50] {
            assert_eq!(flagged(&amounts, rows_per_call), whole);
        }
    }

    #[test]
    fn the_state_is_count_mean_and_spread() {
        let mut test =
            testing::keyed::<Anomaly>(json!({ "threshold": 3.0, "min_count": 5 })).unwrap();
        for amount in [1.0, 2.0, 3.0] {
            test.push("anna", json!({ "amount": amount }));
        }
        let moments = test.state("anna").unwrap();
        assert_eq!((moments.count, moments.mean, moments.m2), (3, 2.0, 2.0));
    }
}
