//! Servers that tests start: they end with the test process, however that ends.

use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};

/// Starts a process that the system kills when this one ends, even by `kill -9`.
pub fn spawn_bound(mut command: Command) -> std::io::Result<Child> {
    // The system watches the thread that starts the child, so one is kept for that.
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        // SAFETY: between fork and exec only one async-signal-safe system call is made.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            );
        }
    }
    let (reply, answer) = mpsc::channel();
    let orders = keeper
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    orders
        .send((command, reply))
        .expect("the keeper lives as long as the process");
    answer.recv().expect("the keeper answers")
}
