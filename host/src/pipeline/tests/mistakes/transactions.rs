//! Checkpoints too far apart for the transactions that they end.

use super::check;
use crate::pipeline::tests::planned;

const OUTPUT: &str =
    "[kafka]\nbrokers = \"h:1\"\n[sinks.s]\nfrom = \"clicks\"\nkafka = { topic = \"t\" }\n";
const LETTERS: &str = "[dead_letters]\nkafka = { topic = \"t\", brokers = \"h:1\" }\n";

fn file(host: &str, output: &str) -> String {
    format!("{}[host]\n{host}\n{output}", super::SOURCE)
}

#[test]
fn a_timeout_has_bounds_that_are_told() {
    for (host, expected) in [
        ("transaction_timeout = «\"500ms\"", "not within 1s to 15m"),
        ("transaction_timeout = «\"16m\"", "not within 1s to 15m"),
        (
            "transaction_timeout = «60",
            "a duration such as \"5m\", found an integer",
        ),
        (
            "«transaction_timout = \"60s\"",
            "did you mean `transaction_timeout`?",
        ),
    ] {
        check(&file(host, ""), &[expected]);
    }
}

#[test]
fn checkpoints_are_at_most_a_third_of_the_timeout_apart() {
    for (host, output, expected) in [
        (
            "checkpoint_every = «\"21s\"",
            OUTPUT,
            "write checkpoint_every = \"20s\", or transaction_timeout = \"63s\"",
        ),
        (
            "transaction_timeout = «\"2s\"",
            OUTPUT,
            "write checkpoint_every = \"666ms\", or transaction_timeout = \"3s\"",
        ),
        (
            "checkpoint_every = «\"400ms\"\ntransaction_timeout = \"1s\"",
            LETTERS,
            "(400ms) is more than a third of `transaction_timeout` (1s)",
        ),
        (
            "transaction_timeout = \"15m\"\ncheckpoint_every = «\"6m\"",
            OUTPUT,
            "write checkpoint_every = \"5m\"",
        ),
    ] {
        check(&file(host, output), &[expected]);
    }
}

#[test]
fn where_no_transaction_is_opened_checkpoints_may_be_rare() {
    let rare = "checkpoint_every = \"1h\"";
    planned(&file(
        rare,
        "[sinks.s]\nfrom = \"clicks\"\nfile = { path = \"out\" }\n",
    ));
    planned(&file(
        &format!("{rare}\ndelivery = \"at-least-once\""),
        OUTPUT,
    ));
    planned(&file(rare, &OUTPUT.replace("h:1", "embedded")));
    planned(&file("checkpoint_every = \"20s\"", OUTPUT));
}
