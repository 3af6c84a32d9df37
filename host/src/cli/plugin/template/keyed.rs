//! Flags rows whose `amount` lies far from the mean of its key.
//! Test it with `cargo test`, build it with `tidemill plugin build`.

use tidemill_guest::prelude::*;

/// The step's `config` in the pipeline file.
#[derive(Deserialize)]
struct @TYPE@ {
    /// How many standard deviations are far.
    threshold: f64,
}

/// The columns that it reads.
#[derive(Row)]
struct Input {
    amount: f64,
}

/// The column that it adds to the rows it keeps.
#[derive(Columns)]
struct Score {
    z_score: f64,
}

/// What it remembers of a key: running moments after Welford.
#[derive(State, Default)]
struct Moments {
    count: u64,
    mean: f64,
    m2: f64,
}

impl Keyed for @TYPE@ {
    type Row<'a> = Input;
    type Out = Score;
    type State = Moments;

    fn row(&mut self, Input { amount }: Input, key: &mut Key<Moments>, out: &mut Out<Score>) {
        let Moments { count, mean, m2 } = key.state;
        let deviation = if *count < 2 { 0.0 } else { (*m2 / (*count - 1) as f64).sqrt() };
        if deviation > 0.0 && (amount - *mean).abs() > self.threshold * deviation {
            out.keep(Score { z_score: (amount - *mean) / deviation });
        }
        *count += 1;
        let distance = amount - *mean;
        *mean += distance / *count as f64;
        *m2 += distance * (amount - *mean);
    }
}

plugin!(@TYPE@: Keyed);

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_guest::testing::{self, json};

    #[test]
    fn an_amount_far_from_the_mean_goes_out() {
        let mut test = testing::keyed::<@TYPE@>(json!({ "threshold": 3.0 })).unwrap();
        for amount in [10.0, 11.0, 9.0, 10.0, 50.0, 10.0] {
            test.push("anna", json!({ "amount": amount }));
        }
        let found = test.output("main");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["amount"], 50.0);
    }

    #[test]
    fn each_key_has_its_own_mean() {
        let mut test = testing::keyed::<@TYPE@>(json!({ "threshold": 3.0 })).unwrap();
        for amount in [10.0, 11.0, 9.0, 10.0] {
            test.push("anna", json!({ "amount": amount }));
            test.push("ben", json!({ "amount": 10.0 * amount }));
        }
        assert!(test.output("main").is_empty());
    }
}
