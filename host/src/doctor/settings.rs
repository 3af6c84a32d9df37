//! Settings of the brokers that a pipeline's transactions and positions depend on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Findings, shown};
use crate::limits::CHECKPOINTS_PER_TRANSACTION_TIMEOUT;
use crate::pipeline::plan::Host;

/// An idle pipeline commits once a day: what brokers forget must last for more than one such heartbeat.
const REMEMBERED_MIN: Duration = Duration::from_secs(2 * 86_400);

/// How long transactions may stay open. `broker` are the settings of one broker, if they can be read.
pub(super) fn transactions(
    host: &Host,
    broker: Option<&BTreeMap<String, String>>,
    findings: &mut Findings<'_>,
) {
    let (every, timeout) = (host.checkpoint_every, host.transaction_timeout);
    if every * CHECKPOINTS_PER_TRANSACTION_TIMEOUT > timeout {
        findings.failure(
            format!(
                "checkpoints come every {}, brokers abort transactions after {}",
                shown(every),
                shown(timeout)
            ),
            "set [host] checkpoint_every to at most a third of transaction_timeout",
        );
    }
    let most = broker.and_then(|b| millis(b, "transaction.max.timeout.ms"));
    match most {
        Some(most) if most < timeout => findings.failure(
            format!(
                "the brokers allow transactions of {} (transaction.max.timeout.ms), [host] transaction_timeout is {}",
                shown(most),
                shown(timeout)
            ),
            "lower [host] transaction_timeout, and checkpoint_every to a third of it; or raise the brokers' limit",
        ),
        Some(most) => findings.ok(format!(
            "transactions may stay open for {} (the brokers allow {}), checkpoints come every {}",
            shown(timeout),
            shown(most),
            shown(every)
        )),
        // The probe begins a transaction with this timeout: it shows whether it is allowed.
        None => {}
    }
}

/// How long brokers remember what a pipeline leaves with them.
pub(super) fn memory(broker: &BTreeMap<String, String>, findings: &mut Findings<'_>) {
    let ids = millis(broker, "transactional.id.expiration.ms");
    let offsets = broker
        .get("offsets.retention.minutes")
        .and_then(|m| m.parse().ok());
    let offsets = offsets.map(|minutes: u64| Duration::from_secs(minutes.saturating_mul(60)));
    let short = [
        ("transactional ids", "transactional.id.expiration.ms", ids),
        ("group offsets", "offsets.retention.minutes", offsets),
    ];
    let mut remembered = Vec::new();
    for (what, setting, kept) in short {
        match kept {
            Some(kept) if kept < REMEMBERED_MIN => findings.warning(
                format!("the brokers forget {what} after {} ({setting})", shown(kept)),
                "an idle pipeline commits once a day to be remembered: raise it to two days at least",
            ),
            Some(kept) => remembered.push(format!("{what} for {}", shown(kept))),
            None => {}
        }
    }
    if !remembered.is_empty() {
        findings.ok(format!("the brokers remember {}", remembered.join(" and ")));
    }
}

fn millis(broker: &BTreeMap<String, String>, name: &str) -> Option<Duration> {
    broker.get(name)?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, found};
    use super::*;
    use crate::pipeline::plan::Delivery;

    fn host(every_s: u64, timeout_s: u64) -> Host {
        Host {
            state: "state".into(),
            workers: 1,
            checkpoint_every: Duration::from_secs(every_s),
            transaction_timeout: Duration::from_secs(timeout_s),
            state_memory: 1 << 30,
            key_groups: 128,
            delivery: Delivery::Default,
            admin_port: 0,
            metrics: None,
        }
    }

    fn broker(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pair = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        settings.iter().map(pair).collect()
    }

    #[test]
    fn timeouts_of_host_and_brokers_must_fit() {
        let allows = |ms| broker(&[("transaction.max.timeout.ms", ms)]);
        let said = |host: &Host, broker: &BTreeMap<String, String>| {
            let all = found(|f| transactions(host, Some(broker), f));
            all.into_iter()
                .map(|f| (f.verdict, f.text))
                .collect::<Vec<_>>()
        };
        let fits = said(&host(1, 60), &allows("900000"));
        assert_eq!(
            fits,
            [(
                Verdict::Ok,
                "transactions may stay open for 1m (the brokers allow 15m), checkpoints come every 1s".into()
            )]
        );
        let refused = said(&host(1, 60), &allows("30000"));
        assert_eq!(refused[0].0, Verdict::Failure);
        assert!(
            refused[0].1.contains("allow transactions of 30s"),
            "{refused:?}"
        );
        let rare = said(&host(30, 60), &allows("900000"));
        assert_eq!(rare[0].0, Verdict::Failure);
        assert!(found(|f| transactions(&host(1, 60), None, f)).is_empty());
    }

    #[test]
    fn what_is_forgotten_within_a_day_or_two_is_a_warning() {
        let short = broker(&[
            ("transactional.id.expiration.ms", "3600000"),
            ("offsets.retention.minutes", "10080"),
        ]);
        let said = found(|f| memory(&short, f));
        let verdicts: Vec<_> = said.iter().map(|f| f.verdict).collect();
        assert_eq!(verdicts, [Verdict::Warning, Verdict::Ok]);
        assert!(
            said[0].text.contains("forget transactional ids after 1h"),
            "{said:?}"
        );
        assert_eq!(said[1].text, "the brokers remember group offsets for 7d");
    }
}
