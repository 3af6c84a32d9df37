//! A host process that runs until a test has done with it. It ends with the test, and with the test process, however that
//! ends. What it says goes to a file, so that nobody has to listen; a test that fails shows it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::process::spawn_bound;

/// A host that is to end does so within this time, even on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(180);

pub struct Running {
    child: Child,
    said: PathBuf,
}

impl Running {
    /// Starts `command`. What it says is added to the file `said`.
    pub fn start(mut command: Command, said: &Path) -> Self {
        let file = File::options().create(true).append(true).open(said);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file.unwrap_or_else(|e| panic!("{}: {e}", said.display())));
        Self {
            child: spawn_bound(command).expect("the binary starts"),
            said: said.to_owned(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What was said by it, and by those before it with the same file.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child of this process that has not been waited for.
        unsafe { libc::kill(self.id() as i32, signal) };
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it ends by itself.
    pub fn end(&mut self) -> ExitStatus {
        match wait(&mut self.child, ENDS_WITHIN) {
            Some(status) => status,
            None => panic!("it did not end"),
        }
    }

    /// SIGTERM, and a clean end.
    pub fn terminate(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.end();
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let threads = threads(self.id());
            eprintln!("its threads: {threads}; what it said: {}", self.said());
        }
        // One that has ended already is no concern.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's end, if it comes within `patience`.
pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        let left = end.checked_duration_since(Instant::now())?;
        // The process cannot be waited for with a deadline; looking now and then is as good.
        std::thread::sleep(left.min(Duration::from_millis(5)));
    }
}

/// The names of a process's threads: they tell what it still waits for.
fn threads(process: u32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    let names = tasks.into_iter().flatten().flatten().map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.unwrap_or_default().trim().to_owned()
    });
    names.collect::<Vec<_>>().join(", ")
}
