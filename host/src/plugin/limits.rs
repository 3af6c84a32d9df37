//! What a plugin may use, and when its failures become too many: memory, time, log lines, failing rows.
//!
//! Pure but for [`Deadline`], which reads the CPU clock of its thread. The numbers are in `crate::limits`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiter, format_err};

use crate::limits::{
    BISECT_MS_PER_EPOCH_MAX, FAILED_ROWS_MIN, FAILED_WINDOW_ROWS, PLUGIN_INSTANCES_MAX,
    PLUGIN_LOG_LINES_PER_SECOND_MAX, PLUGIN_TABLE_ELEMENTS_MAX, PLUGIN_TEXT_BYTES_MAX,
    PLUGIN_TICK_MS,
};

/// Linear memory of all memories of an instance together.
#[derive(Debug)]
pub struct MemoryLimit {
    bytes_max: usize,
    bytes: usize,
    elements: usize,
}

impl MemoryLimit {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            elements: 0,
        }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = (self.bytes - current.min(self.bytes)).saturating_add(desired);
        if total > self.bytes_max {
            // An error instead of `false`: the guest would only abort, without a word of the cause.
            return Err(format_err!(
                "memory limit of {} reached (limits.memory): it asked for {}",
                bytes(self.bytes_max),
                bytes(total)
            ));
        }
        self.bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = (self.elements - current.min(self.elements)).saturating_add(desired);
        if total > PLUGIN_TABLE_ELEMENTS_MAX {
            return Err(format_err!(
                "a plugin may have {PLUGIN_TABLE_ELEMENTS_MAX} table elements, it asked for {total}"
            ));
        }
        self.elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        PLUGIN_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        PLUGIN_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        PLUGIN_INSTANCES_MAX
    }
}

fn bytes(n: usize) -> String {
    const MB: usize = 1 << 20;
    match n {
        _ if n >= MB => format!("{} MB", n.div_ceil(MB)),
        _ => format!("{n} bytes"),
    }
}

/// Until when the running call may compute.
///
/// Counted in CPU time of the calling thread: on a busy machine a call that waits for its turn must not cost a good row.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    limit: Duration,
    end: Duration,
}

impl Deadline {
    pub fn start(limit: Duration) -> Self {
        Self {
            limit,
            end: thread_cpu_time() + limit,
        }
    }

    /// Engine ticks until it is worth looking again, or the cause of the call's end.
    pub fn ticks_left(&self) -> Result<u64, String> {
        let left = self.end.saturating_sub(thread_cpu_time());
        if left.is_zero() {
            return Err(format!(
                "it ran longer than {} ms (its share of limits.call)",
                self.limit.as_millis()
            ));
        }
        Ok(ticks(left))
    }

    pub fn ticks(&self) -> u64 {
        ticks(self.limit)
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_millis() as u64).div_ceil(PLUGIN_TICK_MS).max(1)
}

fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a valid timespec, which is all that clock_gettime asks for.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(done, 0, "every supported system has a CPU clock a thread");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Time spent in an epoch on finding the rows at which a plugin fails.
#[derive(Debug, Default)]
pub struct PartsBudget {
    spent: Duration,
}

impl PartsBudget {
    pub fn begin_epoch(&mut self) {
        self.spent = Duration::ZERO;
    }

    pub fn spend(&mut self, time: Duration) {
        self.spent += time;
    }

    pub fn is_exhausted(&self) -> bool {
        self.spent > Duration::from_millis(BISECT_MS_PER_EPOCH_MAX)
    }
}

/// Says when a plugin has failed on too large a share of the last rows to go on.
///
/// ```
/// # use tidemill::plugin::FailureRate;
/// let mut rate = FailureRate::new(0.10);
/// rate.record(1_000, 0..100); // 10 %: not more than the limit
/// assert!(!rate.is_exceeded());
/// rate.record(1, 0..1);
/// assert!(rate.is_exceeded());
/// ```
#[derive(Debug)]
pub struct FailureRate {
    share_max: f64,
    rows: u64,
    /// Positions of the failed rows among the last `FAILED_WINDOW_ROWS`.
    failed: VecDeque<u64>,
}

impl FailureRate {
    /// `share_max`: `limits.failed`, 0 to 1.
    pub fn new(share_max: f64) -> Self {
        Self {
            share_max,
            rows: 0,
            failed: VecDeque::new(),
        }
    }

    /// Adds a call of `rows` rows of which those at `failed` (ascending) failed; deliberate refusals are not among them.
    pub fn record(&mut self, rows: usize, failed: impl IntoIterator<Item = u32>) {
        let base = self.rows;
        self.rows += rows as u64;
        let oldest = self.rows.saturating_sub(FAILED_WINDOW_ROWS);
        self.failed
            .extend(failed.into_iter().map(|row| base + u64::from(row)));
        while self.failed.front().is_some_and(|&at| at < oldest) {
            self.failed.pop_front();
        }
    }

    /// Failed rows among the last rows looked at.
    pub fn failed(&self) -> u64 {
        self.failed.len() as u64
    }

    /// How many of the last rows are looked at.
    pub fn rows(&self) -> u64 {
        self.rows.min(FAILED_WINDOW_ROWS)
    }

    pub fn is_exceeded(&self) -> bool {
        self.failed() >= FAILED_ROWS_MIN
            && self.failed() as f64 > self.share_max * self.rows() as f64
    }
}

/// Lets so many log lines a second through and counts the rest.
#[derive(Debug, Default)]
pub struct LineRate {
    second: Option<Instant>,
    lines: u32,
    dropped: u64,
}

/// What to do with a log line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Write it, after saying that so many before it were left out.
    Write {
        dropped: u64,
    },
    Drop,
}

impl LineRate {
    pub fn line(&mut self, now: Instant) -> Line {
        let is_new = self
            .second
            .is_none_or(|start| now.duration_since(start) >= Duration::from_secs(1));
        if is_new {
            self.second = Some(now);
            self.lines = 0;
        }
        if self.lines >= PLUGIN_LOG_LINES_PER_SECOND_MAX {
            self.dropped += 1;
            return Line::Drop;
        }
        self.lines += 1;
        Line::Write {
            dropped: std::mem::take(&mut self.dropped),
        }
    }

    /// Lines that were left out before they came here.
    pub fn add_dropped(&mut self, lines: u64) {
        self.dropped += lines;
    }
}

/// A plugin's text as one printable line of bounded length: it may end in a terminal, a log file or a dead letter.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(PLUGIN_TEXT_BYTES_MAX));
    for (at, c) in text.char_indices() {
        if line.len() + c.len_utf8() > PLUGIN_TEXT_BYTES_MAX {
            line.push_str(&format!("… ({} bytes more)", text.len() - at));
            break;
        }
        if c.is_control() || is_reordering(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Characters that let a terminal show another text than was written.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
#[path = "tests/limits.rs"]
mod tests;
