//! System calls of a process that fail or take long on purpose, by `strace`.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Whether it can be done here; `Err` says why not and what to do.
pub fn available() -> Result<(), String> {
    let mut probe = Command::new("strace");
    probe.args(["-qq", "-e", "trace=none", "true"]);
    match probe.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "needs strace to be allowed to trace: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(_) => Err("needs strace: apt-get install strace".into()),
    }
}

/// `command` with the `nth` call of `call` in each of its threads failing with `error`, and all later ones if `on`.
pub fn failing(command: &Command, call: &str, error: &str, nth: u32, on: bool) -> Command {
    let plus = if on { "+" } else { "" };
    traced(
        command,
        &[],
        call,
        &format!("error={error}:when={nth}{plus}"),
    )
}

/// `command` with those of the calls of `call` that are about `file` taking so much `longer`, the `which` in each thread.
pub fn slow(
    command: &Command,
    call: &str,
    file: &Path,
    longer: Duration,
    which: RangeInclusive<u32>,
) -> Command {
    let (micros, first, last) = (longer.as_micros(), which.start(), which.end());
    // Without the filter in the kernel every call of the process stops it.
    let of_file = ["--seccomp-bpf", "-P"].map(OsStr::new);
    traced(
        command,
        &[of_file[0], of_file[1], file.as_os_str()],
        call,
        &format!("delay_enter={micros}:when={first}..{last}"),
    )
}

fn traced(command: &Command, options: &[&OsStr], call: &str, how: &str) -> Command {
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qqq", "-o", "/dev/null"])
        .args(options)
        .arg("-e")
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:{how}"))
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    traced
}
