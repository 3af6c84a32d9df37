//! Says of every row whether its `amount` is large.
//! Test it with `cargo test`, build it with `tidemill plugin build`.

use tidemill_guest::prelude::*;

/// The step's `config` in the pipeline file.
#[derive(Deserialize)]
struct @TYPE@ {
    /// A greater amount is large.
    limit: f64,
}

/// The columns that it reads.
#[derive(Row)]
struct Input {
    amount: f64,
}

/// The column that it adds.
#[derive(Columns)]
struct Judged {
    large: bool,
}

impl Transform for @TYPE@ {
    type Row<'a> = Input;
    type Out = Extend<Judged>;

    fn row(&mut self, Input { amount }: Input, out: &mut Out<Extend<Judged>>) {
        if amount < 0.0 {
            // A dead letter; the other rows go on.
            out.refuse("the amount is negative");
        } else {
            out.extend(Judged { large: amount > self.limit });
        }
    }
}

plugin!(@TYPE@: Transform);

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_guest::testing::{self, json};

    #[test]
    fn amounts_are_judged() {
        let mut test = testing::transform::<@TYPE@>(json!({ "limit": 100.0 })).unwrap();
        for amount in [99.0, 100.0, 100.5] {
            test.push(json!({ "amount": amount }));
        }
        let large: Vec<_> = test.output("main").iter().map(|row| row["large"].clone()).collect();
        assert_eq!(large, [false, false, true]);
    }

    #[test]
    fn negative_amounts_are_refused() {
        let mut test = testing::transform::<@TYPE@>(json!({ "limit": 100.0 })).unwrap();
        test.push(json!({ "amount": -1.0 }));
        assert_eq!(test.refused().len(), 1);
        assert!(test.output("main").is_empty());
    }
}
