//! `tidemill status`: what a running host does, as tables or JSON.

use std::path::PathBuf;

use clap::Args;

use super::table::{self, Align};
use super::{Failure, screen, terminal};
use crate::admin::{Client, ClientError, RunState, Status};
use crate::pipeline::{self, spec::Spec};

/// Show what a running pipeline does
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidemill status examples/ecommerce/pipeline.toml")]
pub struct Arguments {
    /// The pipeline file that the host runs
    #[arg(default_value = "pipeline.toml")]
    pipeline: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let host = Host::of(&arguments.pipeline)?;
    let status = host.ask(Client::status)?;
    if arguments.json {
        return terminal::print_json(&status);
    }
    terminal::print(&describe(&status, terminal::width()))
}

/// The host that runs a pipeline file.
pub struct Host {
    pipeline: PathBuf,
    client: Client,
}

impl Host {
    /// Finds it by the state directory that the file names.
    pub fn of(pipeline: &std::path::Path) -> Result<Self, Failure> {
        let spec =
            pipeline::load(pipeline, &pipeline::Overrides::default()).map_err(Failure::Pipeline)?;
        let client = Client::find(&state_dir(&spec)).map_err(|e| failure(pipeline, e))?;
        Ok(Self {
            pipeline: pipeline.to_owned(),
            client,
        })
    }

    pub fn ask<T>(
        &self,
        question: impl FnOnce(&Client) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        question(&self.client).map_err(|e| failure(&self.pipeline, e))
    }
}

/// Where the host of a pipeline keeps its state.
pub fn state_dir(spec: &Spec) -> PathBuf {
    let name = spec.name.as_ref().map_or("", |name| name.value.as_str());
    match &spec.host.state {
        Some(state) => spec.dir.join(&state.value),
        None => spec.dir.join("state").join(name),
    }
}

fn failure(pipeline: &std::path::Path, e: ClientError) -> Failure {
    let pipeline = pipeline.display();
    match e {
        ClientError::NotRunning { state } => Failure::Failed(format!(
            "no host is running for {pipeline} (state directory {}); start one with `tidemill run {pipeline}`",
            state.display()
        )),
        e => Failure::Failed(e.to_string()),
    }
}

/// A status for a person: a line on the whole, then a table each of sources, steps and sinks.
fn describe(status: &Status, width: Option<usize>) -> String {
    let state = match &status.state {
        RunState::Running => "running".to_owned(),
        RunState::Finished => "finished".to_owned(),
        RunState::Paused(reason) => format!("PAUSED: {}", terminal::escape(reason)),
        RunState::Restarting(reason) => format!("starting again: {}", terminal::escape(reason)),
    };
    let whole = format!(
        "{}: {state}\nup {}, {} workers, checkpoint {} {:.1} s ago (took {:.1} ms), {} dead letters, state {}",
        terminal::escape(&status.pipeline),
        screen::duration(status.uptime_s),
        status.workers,
        status.checkpoint.number,
        status.checkpoint.age_ms as f64 / 1e3,
        status.checkpoint.last_ms,
        table::thousands(status.dead_letters),
        table::bytes(status.state_bytes),
    );
    [
        whole,
        sources(status, width),
        steps(status, width),
        sinks(status, width),
    ]
    .join("\n")
}

fn sources(status: &Status, width: Option<usize>) -> String {
    let head = [
        ("source", Align::Left),
        ("records in", Align::Right),
        ("per second", Align::Right),
        ("lag", Align::Right),
        ("bad", Align::Right),
        ("watermark", Align::Left),
    ];
    let rows = status.sources.iter().map(|s| {
        vec![
            terminal::escape(&s.name),
            table::thousands(s.records_in),
            format!("{:.0}", s.per_second),
            s.lag.map_or("-".into(), table::thousands),
            table::thousands(s.bad),
            s.watermark.map_or("-".into(), screen::time),
        ]
    });
    table::render(&head, &rows.collect::<Vec<_>>(), width) + &troubles(status)
}

/// What a column has no room for: a line for each source that waits or has lost records.
fn troubles(status: &Status) -> String {
    let mut lines = String::new();
    for s in &status.sources {
        let name = terminal::escape(&s.name);
        if let Some(why) = &s.waiting {
            lines += &format!("  {name} waits: {}\n", terminal::escape(why));
        }
        if !s.lost.is_none() {
            lines += &format!("  {name} has lost {}\n", s.lost);
        }
    }
    lines
}

fn steps(status: &Status, width: Option<usize>) -> String {
    let head = [
        ("step", Align::Left),
        ("rows in", Align::Right),
        ("rows out", Align::Right),
        ("late", Align::Right),
        ("dead letters", Align::Right),
        ("keys", Align::Right),
        ("read back", Align::Right),
        ("ns/row", Align::Right),
        ("plugin", Align::Left),
    ];
    let row = |s: &crate::admin::StepStatus| {
        let plugin = s.plugin.as_ref();
        vec![
            terminal::escape(&s.name),
            table::thousands(s.rows_in),
            table::thousands(s.rows_out),
            table::thousands(s.late),
            table::thousands(s.dead_letters),
            s.keys.map_or("-".into(), table::thousands),
            s.keys.map_or("-".into(), |_| table::thousands(s.read_back)),
            plugin.map_or("-".into(), |p| format!("{:.0}", p.ns_per_row)),
            plugin.map_or("-".into(), |p| {
                format!(
                    "{} {}",
                    terminal::escape(&p.version),
                    table::short(&p.digest)
                )
            }),
        ]
    };
    table::render(
        &head,
        &status.steps.iter().map(row).collect::<Vec<_>>(),
        width,
    )
}

fn sinks(status: &Status, width: Option<usize>) -> String {
    let head = [
        ("sink", Align::Left),
        ("records out", Align::Right),
        ("per second", Align::Right),
    ];
    let row = |s: &crate::admin::SinkStatus| {
        vec![
            terminal::escape(&s.name),
            table::thousands(s.records_out),
            format!("{:.1}", s.per_second),
        ]
    };
    table::render(
        &head,
        &status.sinks.iter().map(row).collect::<Vec<_>>(),
        width,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::sample;

    #[test]
    fn a_running_pipeline() {
        insta::assert_snapshot!(describe(&sample::status(), None), @r"
        shop: running
        up 1m 2s, 2 workers, checkpoint 61 0.4 s ago (took 3.2 ms), 4 dead letters, state 3.3 MiB
          source        records in  per second  lag  bad  watermark
          clicks            48,000         812  120    3  2026-01-01T00:00:00Z
          transactions      12,000         203    -    0  -
          clicks has lost 41 records and an unknown number of records, once
          transactions waits: no broker can be reached

          step      rows in  rows out  late  dead letters  keys  read back  ns/row  plugin
          sessions   48,000     5,100     2             1   900         80      22  0.1.0 abab
          valid      48,100    48,000     0             0     -          -       -  -

          sink     records out  per second
          results           77         1.5
        ");
    }

    #[test]
    fn a_pause_says_why_without_moving_the_cursor() {
        let mut status = sample::status();
        status.state = RunState::Paused("step `sessions`: \x1b[2J".into());
        let text = describe(&status, Some(60));
        assert!(
            text.starts_with("shop: PAUSED: step `sessions`: \\u{1b}[2J\n"),
            "{text}"
        );
    }
}
