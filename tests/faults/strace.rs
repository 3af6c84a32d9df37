//! System calls of a process that fail on purpose, by `strace`.

use std::process::{Command, Stdio};

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
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qqq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:error={error}:when={nth}{plus}"))
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    traced
}
