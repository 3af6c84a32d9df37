//! Findings as a person reads them, or a program.

use serde_json::{Value, json};

use super::{Finding, Verdict};

/// All findings of a pipeline.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings
            .iter()
            .filter(|f| f.verdict == verdict)
            .count()
    }

    /// The gravest of them.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|f| f.verdict);
        verdicts.max().unwrap_or(Verdict::Ok)
    }

    /// `2 failures, 1 warning, 14 ok`
    pub fn summary(&self) -> String {
        let several = |n: usize, word: &str| match n {
            1 => format!("1 {word}"),
            n => format!("{n} {word}s"),
        };
        format!(
            "{}, {}, {} ok",
            several(self.count(Verdict::Failure), "failure"),
            several(self.count(Verdict::Warning), "warning"),
            self.count(Verdict::Ok)
        )
    }

    pub fn to_json(&self, pipeline: &str) -> Value {
        json!({
            "pipeline": pipeline,
            "verdict": self.verdict(),
            "ok": self.count(Verdict::Ok),
            "warnings": self.count(Verdict::Warning),
            "failures": self.count(Verdict::Failure),
            "findings": self.findings,
        })
    }
}

/// The line that stands above the findings of an area.
pub fn heading(area: &str, colour: bool) -> String {
    paint(colour, "1", area)
}

/// A finding in one line, or two with its remedy.
pub fn line(finding: &Finding, colour: bool) -> String {
    let (word, code) = match finding.verdict {
        Verdict::Ok => ("ok     ", "32"),
        Verdict::Warning => ("warning", "1;33"),
        Verdict::Failure => ("FAILURE", "1;31"),
    };
    let remedy = finding.remedy.as_ref();
    let remedy = remedy.map_or(String::new(), |remedy| format!("\n           -> {remedy}"));
    format!("  {}  {}{remedy}", paint(colour, code, word), finding.text)
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    match colour {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::found;
    use super::*;

    #[test]
    fn findings_in_words_colours_and_json() {
        let findings = found(|f| {
            f.area("Kafka at h:1");
            f.ok("reachable");
            f.failure("topic t does not exist", "create it");
        });
        let text: Vec<_> = findings.iter().map(|f| line(f, false)).collect();
        assert_eq!(
            text,
            [
                "  ok       reachable",
                "  FAILURE  topic t does not exist\n           -> create it"
            ]
        );
        assert!(line(&findings[0], true).starts_with("  \x1b[32mok     \x1b[0m  reachable"));
        let report = Report { findings };
        assert_eq!(report.summary(), "1 failure, 0 warnings, 1 ok");
        let json = report.to_json("p");
        assert_eq!(
            (&json["verdict"], &json["failures"]),
            (&json!("failure"), &json!(1))
        );
        assert_eq!(
            json["findings"][0],
            json!({ "area": "Kafka at h:1", "verdict": "ok", "text": "reachable", "remedy": null })
        );
        assert_eq!(Report::default().verdict(), Verdict::Ok);
    }
}
