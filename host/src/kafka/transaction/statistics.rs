//! What librdkafka's statistics tell of requests that were repeated, timed out or lost with their connection.

use std::collections::HashMap;

use serde::Deserialize;

/// Sums over all brokers since the instance was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    pub number: u64,
    pub end_txn: u64,
    pub retries: u64,
    pub timeouts: u64,
    pub disconnects: u64,
}

impl Statistics {
    /// Of the JSON that librdkafka tells; what cannot be read is zeros, which agree with no commit.
    pub fn read(json: &[u8]) -> Self {
        serde_json::from_slice::<Reported>(json)
            .unwrap_or_default()
            .sum()
    }
}

/// What is read of librdkafka's statistics.
#[derive(Debug, Default, Deserialize)]
struct Reported {
    brokers: HashMap<String, Broker>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Broker {
    txretries: u64,
    req_timeouts: u64,
    disconnects: u64,
    req: HashMap<String, u64>,
}

impl Reported {
    fn sum(&self) -> Statistics {
        let mut sum = Statistics::default();
        for broker in self.brokers.values() {
            sum.end_txn += broker.req.get("EndTxn").copied().unwrap_or(0);
            sum.retries += broker.txretries;
            sum.timeouts += broker.req_timeouts;
            sum.disconnects += broker.disconnects;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_summed_over_brokers() {
        let text = br#"{"name":"x","brokers":{
            "a:1/1":{"name":"a","txretries":1,"req_timeouts":2,"disconnects":3,"req":{"Produce":7,"EndTxn":4}},
            "TxnCoordinator":{"txretries":1,"req":{"EndTxn":1}}},"topics":{}}"#;
        let sum = Statistics::read(text);
        let expected = Statistics {
            number: 0,
            end_txn: 5,
            retries: 2,
            timeouts: 2,
            disconnects: 3,
        };
        assert_eq!(sum, expected);
    }
}
