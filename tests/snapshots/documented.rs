//! Every command of `docs/operations.md`, in its order, with the pipeline that stands there.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tempfile::TempDir;

use super::START_MAX;
use crate::support::{binary, root, trial};

pub fn trials() -> Vec<Trial> {
    vec![trial(
        "the_commands_of_the_operations_document_work",
        documented,
    )]
}

/// The text of the blocks of a kind.
fn blocks<'a>(text: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    let begin = format!("```{kind}\n");
    let blocks = text.split("```").collect::<Vec<_>>();
    let of_kind = blocks.into_iter().skip(1).step_by(2);
    of_kind.filter_map(move |block| block.strip_prefix(&begin[3..]))
}

fn documented() {
    let text = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let dir = TempDir::new().unwrap();
    let pipeline = blocks(&text, "toml").next().unwrap();
    std::fs::write(dir.path().join("pipeline.toml"), pipeline).unwrap();
    let lines: Vec<&str> = blocks(&text, "console").flat_map(str::lines).collect();
    assert!(lines.len() > 12, "{lines:?}");
    let mut host: Option<Child> = None;
    for line in lines {
        match line.strip_prefix("$ ") {
            Some(run) if run.starts_with("tidemill run ") => {
                host = Some(shell(&dir, &format!("exec {run}")).spawn().unwrap());
                wait_until_it_answers(&dir);
            }
            Some(command) => {
                let output = shell(&dir, command).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{line}: {said}");
            }
            None => {
                assert_eq!(line, "^C");
                let mut host = host.take().expect("a host runs");
                let pid = host.id().to_string();
                Command::new("kill").args(["-INT", &pid]).status().unwrap();
                assert!(host.wait().unwrap().success());
            }
        }
    }
    assert!(host.is_none(), "the last host was not stopped");
}

fn shell(dir: &TempDir, line: &str) -> Command {
    let bin = std::path::Path::new(binary()).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .current_dir(dir)
        .env("PATH", format!("{}:{path}", bin.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A person would read what it writes; this looks for its second checkpoint with sessions in it.
fn wait_until_it_answers(dir: &TempDir) {
    let started = Instant::now();
    loop {
        let look =
            "tidemill state get pipeline.toml visits u0000000 && tidemill status pipeline.toml";
        if shell(dir, look).status().unwrap().success() {
            return;
        }
        assert!(started.elapsed() < START_MAX, "the host does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
}
