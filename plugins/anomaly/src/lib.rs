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
                out.keep(Score { z_score: (amount - *mean) / deviation });
            }
        }
        *count += 1;
        let distance = amount - *mean;
        *mean += distance / *count as f64;
        *m2 += distance * (amount - *mean);
    }
}

plugin!(Anomaly: Keyed);
