//! `tidemill state list`: the steps that keep something, or the keys and segments of one of them.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;

use super::{answer, cell, kept, key_words};
use crate::admin::Client;
use crate::cli::table::{self, Align};
use crate::cli::{Failure, terminal};
use crate::engine::inspect::{self, Listing, Query, StateSteps};

/// List the steps that keep something, or what one of them keeps
///
/// Of the last decided checkpoint. A running host is asked and goes on meanwhile; of a stopped pipeline the state is read.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidemill state list pipeline.toml\n  tidemill state list pipeline.toml sessions --prefix u1 --limit 20"
)]
pub struct Arguments {
    /// The pipeline file
    pipeline: PathBuf,
    /// The step whose keys are listed
    step: Option<String>,
    /// Only keys whose first column begins so
    #[arg(long, value_name = "TEXT", requires = "step")]
    prefix: Option<String>,
    /// Keys at most [default: 100]
    #[arg(long, value_name = "KEYS", requires = "step")]
    limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Some(step) = &arguments.step else {
        let steps = answer(&arguments.pipeline, Client::state_steps, inspect::steps)?;
        return match arguments.json {
            true => terminal::print_json(&steps),
            false => terminal::print(&describe_steps(&steps, terminal::width())),
        };
    };
    let query = Query {
        prefix: arguments.prefix.clone(),
        limit: arguments.limit,
    };
    let listing = answer(
        &arguments.pipeline,
        |client| client.state_list(step, &query),
        |view| inspect::list(view, step, &query),
    )?;
    match arguments.json {
        true => terminal::print_json(&listing),
        false => terminal::print(&describe(&listing, terminal::width())),
    }
}

fn describe_steps(state: &StateSteps, width: Option<usize>) -> String {
    let head = [
        ("step", Align::Left),
        ("", Align::Left),
        ("keeps", Align::Left),
        ("key", Align::Left),
        ("keys", Align::Right),
        ("bytes", Align::Right),
        ("segments", Align::Right),
        ("bytes", Align::Right),
    ];
    let rows: Vec<_> = (state.steps.iter())
        .map(|s| {
            vec![
                terminal::escape(&s.name),
                terminal::escape(&s.operator),
                s.keeps.clone(),
                key_words(&s.key),
                table::thousands(s.keys),
                table::bytes(s.key_bytes),
                table::thousands(s.segments),
                table::bytes(s.segment_bytes),
            ]
        })
        .collect();
    let name = terminal::escape(&state.pipeline);
    let head_line = format!("{name}, checkpoint {}\n", state.checkpoint);
    match rows.is_empty() {
        true => head_line + "  no step keeps anything\n",
        false => head_line + &table::render(&head, &rows, width),
    }
}

fn describe(listing: &Listing, width: Option<usize>) -> String {
    let mut out = format!(
        "{} ({}), checkpoint {}: {}\n",
        terminal::escape(&listing.step),
        terminal::escape(&listing.operator),
        listing.checkpoint,
        listing.keeps
    );
    if listing.entries.is_empty() && listing.segments.is_empty() {
        out += "  nothing\n";
    }
    if !listing.entries.is_empty() {
        out += &keys(listing, width);
    }
    if listing.more_entries {
        let _ = writeln!(
            out,
            "  … more keys: the first {} are shown, --limit shows more, --prefix picks",
            listing.entries.len()
        );
    }
    if !listing.segments.is_empty() {
        out += &segments(listing, width);
    }
    if listing.more_segments {
        let shown = listing.segments.len();
        let _ = writeln!(
            out,
            "  … more segments: the first {shown} are shown, --limit shows more"
        );
    }
    out
}

fn keys(listing: &Listing, width: Option<usize>) -> String {
    let mut head: Vec<(String, Align)> = (listing.key.iter())
        .map(|column| (terminal::escape(&column.name), Align::Left))
        .collect();
    // A key that could not be told is a single text.
    let columns = listing
        .entries
        .iter()
        .map(|e| e.key.len())
        .max()
        .unwrap_or(0);
    head.resize_with(head.len().max(columns), || ("key".into(), Align::Left));
    let columns = head.len();
    head.extend([("alarm".into(), Align::Left), ("state".into(), Align::Left)]);
    let rows = listing.entries.iter().map(|entry| {
        let mut row: Vec<String> = entry.key.iter().map(cell).collect();
        row.resize(columns, String::new());
        row.push(entry.kept.alarm.clone().unwrap_or_else(|| "-".into()));
        row.push(kept(&entry.kept));
        row
    });
    let head: Vec<(&str, Align)> = head
        .iter()
        .map(|(name, align)| (name.as_str(), *align))
        .collect();
    table::render(&head, &rows.collect::<Vec<_>>(), width)
}

fn segments(listing: &Listing, width: Option<usize>) -> String {
    let head = [
        ("segment of", Align::Left),
        ("since checkpoint", Align::Right),
        ("key groups", Align::Right),
        ("bytes", Align::Right),
    ];
    let rows = listing.segments.iter().map(|segment| {
        vec![
            segment.time.clone(),
            segment.checkpoint.to_string(),
            format!("{}-{}", segment.key_groups.0, segment.key_groups.1),
            table::bytes(segment.bytes),
        ]
    });
    table::render(&head, &rows.collect::<Vec<_>>(), width)
}
