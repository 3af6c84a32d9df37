//! What this binary is made of.

use super::Findings;
use crate::kafka::doctor::librdkafka;

/// Older ones lose messages (fixed in 1.8.2, 1.9.0, 2.3.0 and 2.5.0).
const LIBRDKAFKA_MIN: u32 = 0x02_05_00_00;

pub(super) fn examine(findings: &mut Findings<'_>) {
    findings.area("versions");
    let (number, text) = librdkafka();
    judge(number, &text, findings);
}

fn judge(librdkafka: u32, text: &str, findings: &mut Findings<'_>) {
    let ours = env!("CARGO_PKG_VERSION");
    if librdkafka < LIBRDKAFKA_MIN {
        findings.failure(
            format!("librdkafka {text} is older than 2.5: it can lose messages"),
            "use a tidemill built with its own librdkafka",
        );
        return;
    }
    findings.ok(format!("tidemill {ours}, librdkafka {text}"));
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, found};
    use super::*;

    #[test]
    fn an_old_librdkafka_is_refused_and_ours_is_not_old() {
        let old = found(|f| judge(0x02_04_00_ff, "2.4.0", f));
        assert_eq!(old[0].verdict, Verdict::Failure);
        assert_eq!(found(examine)[0].verdict, Verdict::Ok);
    }
}
