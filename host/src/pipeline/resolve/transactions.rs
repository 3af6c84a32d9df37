//! How long a Kafka transaction may stay open, and whether checkpoints end it in time.
//!
//! Says nothing where no transaction is opened: output elsewhere, or delivered at least once.

use std::time::Duration;

use super::Resolver;
use crate::limits::{
    CHECKPOINTS_PER_TRANSACTION_TIMEOUT, TRANSACTION_TIMEOUT_DEFAULT, TRANSACTION_TIMEOUT_MAX,
};
use crate::pipeline::plan::{self, Brokers, Cluster, Delivery, SinkConnector};
use crate::pipeline::spec;
use crate::pipeline::values::show_duration;
use crate::time::Micros;

/// What is written, or the default.
pub(super) fn checkpoint_every(host: &spec::Host) -> Duration {
    let written = host.checkpoint_every.as_ref();
    written.map_or(Duration::from_secs(1), |every| every.value)
}

/// What is written, or the default.
pub(super) fn timeout(host: &spec::Host) -> Duration {
    let written = host.transaction_timeout.as_ref();
    written.map_or(TRANSACTION_TIMEOUT_DEFAULT, |timeout| timeout.value)
}

impl Resolver<'_> {
    /// Refuses checkpoints so far apart that the brokers could abort their transaction before they are made.
    pub(super) fn transactions(&mut self) {
        let host = &self.spec.host;
        let exactly = !matches!(&host.delivery, Some(d) if d.value == Delivery::AtLeastOnce);
        if !exactly || !self.writes_to_kafka() || self.brokers_embedded() {
            return;
        }
        let (every, timeout) = (checkpoint_every(host), timeout(host));
        if every * CHECKPOINTS_PER_TRANSACTION_TIMEOUT <= timeout {
            return;
        }
        let written = host.checkpoint_every.as_ref().map(|every| every.span);
        let span = written.or(host.transaction_timeout.as_ref().map(|t| t.span));
        let message = format!(
            "`checkpoint_every` ({}) is more than a third of `transaction_timeout` ({})",
            shown(every),
            shown(timeout)
        );
        self.findings
            .error(span.unwrap_or_default(), message)
            .help(remedy(every, timeout));
    }

    /// Refuses exactly-once sinks on several clusters: no transaction spans two.
    pub(super) fn one_cluster(&mut self, sinks: &[Option<plan::Sink>]) {
        if matches!(&self.spec.host.delivery, Some(d) if d.value == Delivery::AtLeastOnce) {
            return;
        }
        let mut first: Option<(&spec::Sink, &Cluster)> = None;
        for (written, sink) in self.spec.sinks.iter().zip(sinks) {
            let Some(SinkConnector::Kafka { cluster, .. }) = sink.as_ref().map(|s| &s.connector)
            else {
                continue;
            };
            if cluster.brokers == Brokers::Embedded {
                continue;
            }
            let Some((other, same)) = first else {
                first = Some((written, cluster));
                continue;
            };
            if same == cluster {
                continue;
            }
            let what = match same.brokers == cluster.brokers {
                true => "other properties than",
                false => "another Kafka cluster than",
            };
            let message = format!(
                "sink `{}` has {what} sink `{}`, and one transaction writes to both",
                written.name.value, other.name.value
            );
            self.findings
                .error(written.name.span, message)
                .first(other.name.span)
                .help("write the connection once, under [kafka], or set delivery = \"at-least-once\" under [host]");
            return;
        }
    }
}

/// The values that would do, in the words of the file.
fn remedy(every: Duration, timeout: Duration) -> String {
    // Whole seconds, where there are any, read better than thirds.
    let third = timeout / CHECKPOINTS_PER_TRANSACTION_TIMEOUT;
    let third = match third.as_secs() {
        0 => Duration::from_millis(third.as_millis() as u64),
        seconds => Duration::from_secs(seconds),
    };
    let needed = every.saturating_mul(CHECKPOINTS_PER_TRANSACTION_TIMEOUT);
    let needed = Duration::from_secs(needed.as_secs() + u64::from(needed.subsec_nanos() > 0));
    let longer = match needed <= TRANSACTION_TIMEOUT_MAX {
        true => format!(", or transaction_timeout = \"{}\"", shown(needed)),
        false => String::new(),
    };
    format!(
        "brokers abort a transaction that is open for too long, and a checkpoint needs time to be made: write \
         checkpoint_every = \"{}\"{longer}",
        shown(third)
    )
}

fn shown(time: Duration) -> String {
    show_duration(Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX))
}
