//! A [`Status`] as Prometheus text. Pure: no registry, no clock; the numbers are those of `status`.

use std::fmt::Write;

use crate::engine::control::{RunState, Status};
use crate::time::MICROS_PER_SECOND;

/// The exposition format, version 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a status, each with its help and type, labels escaped.
pub fn render(status: &Status) -> String {
    let mut text = Exposition::new(&status.pipeline);
    host(&mut text, status);
    sources(&mut text, status);
    steps(&mut text, status);
    text.family(
        "sink_records_out_total",
        "counter",
        "Records written to a sink.",
    );
    for s in &status.sinks {
        text.sample(&[("sink", &s.name)], s.records_out as f64);
    }
    tables(&mut text, status);
    text.out
}

fn tables(text: &mut Exposition, status: &Status) {
    text.family("table_rows", "gauge", "Rows of a reference table.");
    for t in &status.tables {
        text.sample(&[("table", &t.name)], t.rows as f64);
    }
    text.family(
        "table_broken_records_total",
        "counter",
        "Records of a table's topic that could not be read and changed nothing.",
    );
    for t in &status.tables {
        text.sample(&[("table", &t.name)], t.broken as f64);
    }
}

fn host(text: &mut Exposition, status: &Status) {
    let running = f64::from(u8::from(status.state == RunState::Running));
    let checkpoint = &status.checkpoint;
    for (name, kind, help, value) in [
        (
            "running",
            "gauge",
            "1 while the pipeline runs, 0 while it is paused or finished.",
            running,
        ),
        (
            "uptime_seconds",
            "gauge",
            "Time since the run began.",
            status.uptime_s,
        ),
        ("workers", "gauge", "Worker threads.", status.workers as f64),
        (
            "epochs_total",
            "counter",
            "Turns of the engine.",
            status.epoch as f64,
        ),
        (
            "checkpoint_number",
            "gauge",
            "The last decided checkpoint.",
            checkpoint.number as f64,
        ),
        (
            "checkpoint_age_seconds",
            "gauge",
            "Time since it was decided.",
            checkpoint.age_ms as f64 / 1e3,
        ),
        (
            "checkpoint_duration_seconds",
            "gauge",
            "From its cut until it was decided.",
            checkpoint.last_ms / 1e3,
        ),
        (
            "dead_letters_total",
            "counter",
            "Records and rows sent to the dead letters.",
            status.dead_letters as f64,
        ),
        (
            "state_bytes",
            "gauge",
            "Keyed state held in memory.",
            status.state_bytes as f64,
        ),
    ] {
        text.family(name, kind, help);
        text.sample(&[], value);
    }
}

fn sources(text: &mut Exposition, status: &Status) {
    text.family(
        "source_records_in_total",
        "counter",
        "Records read from a source.",
    );
    for s in &status.sources {
        text.sample(&[("source", &s.name)], s.records_in as f64);
    }
    text.family(
        "source_bad_records_total",
        "counter",
        "Records of a source that were refused.",
    );
    for s in &status.sources {
        text.sample(&[("source", &s.name)], s.bad as f64);
    }
    text.family(
        "source_lost_records_total",
        "counter",
        "Records of a source that were gone before they could be read, since the state was made.",
    );
    for s in &status.sources {
        text.sample(&[("source", &s.name)], s.lost.records as f64);
    }
    text.family(
        "source_lost_unknown_total",
        "counter",
        "How often more of a source was lost than can be known, since the state was made.",
    );
    for s in &status.sources {
        text.sample(&[("source", &s.name)], s.lost.unknown as f64);
    }
    text.family(
        "source_waiting",
        "gauge",
        "1 while a source is not read (broker away, not authorised, state written slowly).",
    );
    for s in &status.sources {
        let waiting = u8::from(s.waiting.is_some());
        text.sample(&[("source", &s.name)], f64::from(waiting));
    }
    text.family(
        "source_lag",
        "gauge",
        "Records (files: bytes) not read yet.",
    );
    for s in &status.sources {
        if let Some(lag) = s.lag {
            text.sample(&[("source", &s.name)], lag as f64);
        }
    }
    text.family(
        "source_watermark_seconds",
        "gauge",
        "Watermark, seconds since 1970.",
    );
    for s in &status.sources {
        if let Some(watermark) = s.watermark {
            text.sample(
                &[("source", &s.name)],
                watermark as f64 / MICROS_PER_SECOND as f64,
            );
        }
    }
}

fn steps(text: &mut Exposition, status: &Status) {
    type Count = fn(&crate::engine::control::StepStatus) -> Option<f64>;
    let families: [(&str, &str, &str, Count); 9] = [
        ("step_rows_in_total", "counter", "Rows into a step.", |s| {
            Some(s.rows_in as f64)
        }),
        (
            "step_rows_out_total",
            "counter",
            "Rows out of a step.",
            |s| Some(s.rows_out as f64),
        ),
        (
            "step_late_rows_total",
            "counter",
            "Rows too late for a step.",
            |s| Some(s.late as f64),
        ),
        (
            "step_dead_letters_total",
            "counter",
            "Rows a step could not process.",
            |s| Some(s.dead_letters as f64),
        ),
        (
            "step_keys",
            "gauge",
            "Keys with state; an estimate where not all are in memory.",
            |s| s.keys.map(|k| k as f64),
        ),
        (
            "step_keys_evicted_total",
            "counter",
            "Keys evicted from memory.",
            |s| s.keys.map(|_| s.evicted as f64),
        ),
        (
            "step_keys_read_back_total",
            "counter",
            "Keys asked for on disk.",
            |s| s.keys.map(|_| s.read_back as f64),
        ),
        (
            "step_keys_forgotten_total",
            "counter",
            "Keys forgotten after state_ttl.",
            |s| s.keys.map(|_| s.forgotten as f64),
        ),
        (
            "step_plugin_ns_per_row",
            "gauge",
            "Mean time in the plugin, crossing included.",
            |s| s.plugin.as_ref().map(|p| p.ns_per_row),
        ),
    ];
    for (name, kind, help, count) in families {
        text.family(name, kind, help);
        for s in &status.steps {
            if let Some(value) = count(s) {
                text.sample(&[("step", &s.name)], value);
            }
        }
    }
    text.family(
        "step_plugin_info",
        "gauge",
        "The plugin in force; always 1.",
    );
    for s in &status.steps {
        if let Some(p) = &s.plugin {
            text.sample(
                &[
                    ("step", &s.name),
                    ("digest", &p.digest),
                    ("version", &p.version),
                ],
                1.0,
            );
        }
    }
}

struct Exposition {
    out: String,
    pipeline: String,
    family: &'static str,
}

impl Exposition {
    fn new(pipeline: &str) -> Self {
        Self {
            out: String::new(),
            pipeline: escape(pipeline),
            family: "",
        }
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        let _ = writeln!(
            self.out,
            "# HELP tidemill_{name} {help}\n# TYPE tidemill_{name} {kind}"
        );
    }

    /// One line of the family last begun.
    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let _ = write!(
            self.out,
            "tidemill_{}{{pipeline=\"{}\"",
            self.family, self.pipeline
        );
        for (name, label) in labels {
            let _ = write!(self.out, ",{name}=\"{}\"", escape(label));
        }
        let _ = writeln!(self.out, "}} {value}");
    }
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::sample;

    #[test]
    fn every_sample_belongs_to_a_family_announced_before_it() {
        let text = render(&sample::status());
        let mut family = String::new();
        let mut samples = 0;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().to_owned();
            } else if !line.starts_with('#') {
                let (name, rest) = line.split_once('{').unwrap();
                assert_eq!(name, family);
                let value = rest.rsplit_once("} ").unwrap().1;
                assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
                samples += 1;
            }
        }
        assert!(samples > 20, "{text}");
    }

    #[test]
    fn numbers_of_the_status_with_their_labels() {
        let text = render(&sample::status());
        for line in [
            r#"tidemill_running{pipeline="shop"} 1"#,
            r#"tidemill_checkpoint_age_seconds{pipeline="shop"} 0.4"#,
            r#"tidemill_source_lag{pipeline="shop",source="clicks"} 120"#,
            r#"tidemill_source_watermark_seconds{pipeline="shop",source="clicks"} 1767225600"#,
            r#"tidemill_step_keys{pipeline="shop",step="sessions"} 900"#,
            r#"tidemill_step_plugin_info{pipeline="shop",step="sessions",digest="abab",version="0.1.0"} 1"#,
            r#"tidemill_sink_records_out_total{pipeline="shop",sink="results"} 77"#,
            r#"tidemill_table_rows{pipeline="shop",table="products"} 1200"#,
            r#"tidemill_table_broken_records_total{pipeline="shop",table="products"} 3"#,
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut status = sample::status();
        status.steps[0].name = "a\"b\\c\nd".into();
        assert!(render(&status).contains(r#"step="a\"b\\c\nd""#));
    }
}
