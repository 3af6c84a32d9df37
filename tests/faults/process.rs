//! Rows 4, 43 and 45: a thread that panics, a process that the system ends, and one that is asked to end.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::{PATIENCE, Subject, ended, needing, signal};
use crate::pauses::until;
use crate::support::process::spawn_bound;
use crate::support::running::wait;
use crate::support::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "row_4_panic_in_a_worker_ends_the_process_and_a_restart_is_clean",
            || panics_at("epoch", &[2, 40, 120]),
        ),
        trial(
            "row_4_panic_in_a_checkpoint_ends_the_process_and_a_restart_is_clean",
            || panics_at("frozen", &[1, 3, 9]),
        ),
        needing(
            "TIDEMILL_CGROUP",
            Group::available(),
            trial(
                "row_43_killed_for_its_memory_restarts_clean",
                killed_for_its_memory,
            ),
        ),
        trial(
            "row_43_memory_that_is_refused_restarts_clean",
            refused_memory,
        ),
        trial(
            "row_45_sigterm_under_load_decides_the_last_epoch_and_exits_0",
            terminated,
        ),
        trial(
            "row_45_sigterm_twice_exits_at_once_and_restarts_clean",
            terminated_twice,
        ),
    ]
}

/// A bug is no reason to go round in circles: the process ends, and says where to look.
fn panics_at(point: &str, passes: &[u32]) {
    let subject = Subject::new(8_000, 3_000, 4);
    for pass in passes {
        let drill = format!("{point}:{pass}");
        let mut command = subject.to_the_end();
        command.env("TIDEMILL_PANIC_AT", &drill);
        let (code, said) = ended(command.spawn().unwrap(), &drill);
        assert_eq!(code, Some(1), "{drill}: {said}");
        assert!(said.contains("a panic at"), "{drill}: {said}");
        assert!(said.contains("panicked; "), "{drill}: {said}");
    }
    subject.assert_clean(&format!("after panics at {point}"));
}

/// Runs until something has come out, so that whatever comes then meets a host under load.
pub fn under_load(subject: &Subject) -> Child {
    loaded(subject, subject.endless())
}

fn loaded(subject: &Subject, command: Command) -> Child {
    let child = spawn_bound(command).unwrap();
    until(&subject.run, |status| {
        status["checkpoint"]["number"].as_u64() > Some(3)
            && status["sinks"][0]["records_out"].as_u64() > Some(0)
    });
    child
}

fn terminated() {
    let subject = Subject::new(40_000, 3_000, 45);
    for round in 0..3 {
        let child = under_load(&subject);
        let asked = Instant::now();
        signal(&child, libc::SIGTERM);
        let (code, said) = ended(child, "SIGTERM");
        assert_eq!(code, Some(0), "round {round}: {said}");
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(30), "it took {took:?} to stop");
    }
    subject.assert_clean("after three clean stops");
}

fn terminated_twice() {
    let subject = Subject::new(40_000, 3_000, 46);
    for _ in 0..3 {
        let child = under_load(&subject);
        signal(&child, libc::SIGTERM);
        signal(&child, libc::SIGTERM);
        let (code, said) = ended(child, "SIGTERM twice");
        // Two signals in a row may be one to the process, or the last epoch faster than the second.
        assert!(matches!(code, Some(0 | 130)), "{code:?}: {said}");
    }
    subject.assert_clean("after being told twice");
}

/// The system's way to end a process that takes too much: SIGKILL in the middle of anything.
fn killed_for_its_memory() {
    let subject = Subject::new(40_000, 3_000, 43);
    for round in 0..2 {
        let group = Group::new(&format!("tidemill-test-{}-{round}", std::process::id()));
        let mut child = loaded(&subject, group.within(&subject.endless(), 1_000));
        group.limit(16 << 20);
        // Somebody else who takes all there is; the host is the first to be ended for it.
        let mut greedy = Command::new("tail");
        greedy.arg("/dev/zero");
        let mut greedy = spawn_bound(group.within(&greedy, 0)).unwrap();
        let status = wait(&mut child, PATIENCE);
        greedy.kill().unwrap();
        greedy.wait().unwrap();
        let status = status.expect("it is killed");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    }
    subject.assert_clean("after two kills for memory");
}

/// A process whose allocations fail ends itself.
fn refused_memory() {
    let subject = Subject::new(40_000, 3_000, 44);
    let mut ends = 0;
    for _ in 0..2 {
        let mut child = under_load(&subject);
        let limit = libc::rlimit {
            rlim_cur: 1 << 20,
            rlim_max: 1 << 20,
        };
        // SAFETY: a valid limit for a child of this process; no old one is asked for.
        let set = unsafe {
            libc::prlimit(
                child.id() as i32,
                libc::RLIMIT_AS,
                &raw const limit,
                std::ptr::null_mut(),
            )
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        // It may live on with the memory that it has; then it is as well killed.
        match wait(&mut child, Duration::from_secs(5)) {
            Some(status) => {
                assert!(!status.success(), "{status}");
                ends += 1;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }
    println!("{ends} of 2 ended for want of memory");
    subject.assert_clean("after memory was refused");
}

/// A control group of the kernel with a limit on memory, of either version.
struct Group {
    dir: PathBuf,
}

const ROOTS: [&str; 2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];
const LIMITS: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];
const USED: [&str; 2] = ["memory.usage_in_bytes", "memory.current"];

impl Group {
    /// Whether there can be one; `Err` says why not and what to do.
    fn available() -> Result<(), String> {
        let probe = format!("tidemill-probe-{}", std::process::id());
        match Self::try_new(&probe) {
            Some(_) => Ok(()),
            None => Err("needs a memory control group that it may make: run as root".into()),
        }
    }

    fn new(name: &str) -> Self {
        Self::try_new(name).expect("a control group")
    }

    fn try_new(name: &str) -> Option<Self> {
        ROOTS.iter().find_map(|root| {
            let group = Self {
                dir: Path::new(root).join(name),
            };
            fs::create_dir(&group.dir).ok()?;
            group.limit_file().map(|_| group)
        })
    }

    fn limit_file(&self) -> Option<PathBuf> {
        let files = LIMITS.iter().map(|file| self.dir.join(file));
        files.into_iter().find(|file| file.exists())
    }

    /// The command, started as a member; the one with the highest `score` is ended first.
    fn within(&self, command: &Command, score: u32) -> Command {
        let join =
            format!("echo {score} > /proc/self/oom_score_adj && echo $$ > \"$0\" && exec \"$@\"");
        let mut member = Command::new("sh");
        member
            .args(["-c", &join])
            .arg(self.dir.join("cgroup.procs"))
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        member
    }

    /// Leaves its members so many bytes more than they have now.
    fn limit(&self, more: u64) {
        let used = USED
            .iter()
            .find_map(|file| fs::read_to_string(self.dir.join(file)).ok());
        let used: u64 = used.expect("a count").trim().parse().unwrap();
        let file = self.limit_file().expect("it was there");
        fs::write(&file, (used + more).to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that was just killed leaves a moment later.
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.dir).is_err() && self.dir.exists() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
