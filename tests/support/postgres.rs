//! A PostgreSQL of the tests' own: Debian's programs, a data directory, socket and log in a temporary folder, a port that
//! the system chooses.
//!
//! Where the programs are missing the tests that need them are shown as ignored, unless `TIDEMILL_POSTGRES=required`.
//! Invariant: a server started here ends with the test process, and no other is ever touched.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::process::spawn_bound;

static SHARED: OnceLock<Server> = OnceLock::new();
const START_WITHIN: Duration = Duration::from_secs(60);

/// Whether a server can be had here; `Err` says why not and what to do. Starts nothing.
pub fn available() -> Result<(), String> {
    programs().map(drop)?;
    account().map(drop)
}

/// Whether tests that need a server must fail rather than be ignored where none can be had.
pub fn required() -> bool {
    std::env::var("TIDEMILL_POSTGRES").is_ok_and(|value| value == "required")
}

/// The directory of `initdb` and `postgres`, of the newest version.
fn programs() -> Result<PathBuf, String> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin"))).filter(|(_, bin)| bin.join("initdb").is_file())
        })
        .collect();
    found.sort();
    let newest = found.pop().map(|(_, bin)| bin);
    newest.ok_or_else(|| "needs a PostgreSQL: apt-get install postgresql".into())
}

/// User and group that the server runs as: it refuses to run as root.
fn account() -> Result<Option<(u32, u32)>, String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = status.lines().any(|line| {
        line.strip_prefix("Uid:")
            .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
    });
    if !is_root {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let parts: Vec<_> = line.split(':').collect();
        (parts[0] == "postgres")
            .then(|| Some((parts.get(2)?.parse().ok()?, parts.get(3)?.parse().ok()?)))?
    });
    match found {
        Some(ids) => Ok(Some(ids)),
        None => Err("needs the user `postgres`: the server does not run as root".into()),
    }
}

/// One server, its databases, and its process while it runs.
pub struct Server {
    bin: PathBuf,
    account: Option<(u32, u32)>,
    dir: TempDir,
    port: u16,
    process: Mutex<Option<Child>>,
}

impl Server {
    /// The server that all tests of this process share, started at the first call. Each takes a [`database`](Self::database)
    /// of its own.
    pub fn get() -> &'static Server {
        SHARED.get_or_init(|| {
            let server = Server::prepare();
            server.up();
            server
        })
    }

    /// A server of the test's own, which does not run yet: [`up`](Self::up).
    pub fn prepare() -> Server {
        let bin = programs().unwrap_or_else(|reason| panic!("{reason}"));
        let account = account().unwrap_or_else(|reason| panic!("{reason}"));
        let dir = TempDir::new().expect("a temporary folder");
        if let Some((user, group)) = account {
            chown(dir.path(), Some(user), Some(group)).expect("root may give folders away");
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let server = Server {
            bin,
            account,
            dir,
            port: port.expect("a free port").port(),
            process: Mutex::new(None),
        };
        let mut initdb = server.command("initdb");
        initdb.args([
            "-U",
            "app",
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ]);
        let output = initdb.arg(server.data()).output().expect("initdb starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb: {said}");
        server.certify();
        server
    }

    /// A key for the server, and a certificate for `localhost` that nobody has signed but itself.
    fn certify(&self) {
        let mut openssl = self.as_account(Command::new("openssl"));
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ]);
        openssl.args([
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ]);
        openssl.args(["-keyout", "server.key", "-out", "server.crt"]);
        let output = openssl
            .current_dir(self.data())
            .output()
            .expect("openssl starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn certificate(&self) -> PathBuf {
        self.data().join("server.crt")
    }

    /// Starts the process and returns when the server answers. Panics with its log if it does not.
    pub fn up(&self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("a log file");
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(self.data());
        let settings = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            format!("unix_socket_directories={}", self.dir.path().display()),
            "ssl=on".into(),
            // A server that is killed loses nothing without it: only a machine that crashes would.
            "fsync=off".into(),
        ];
        settings.iter().for_each(|setting| {
            postgres.args(["-c", setting]);
        });
        postgres
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let before = self
            .lock()
            .replace(spawn_bound(postgres).expect("postgres starts"));
        assert!(before.is_none(), "the server runs already");
        let until = Instant::now() + START_WITHIN;
        while let Err(error) = self.try_query("postgres", "SELECT 1") {
            let log = || fs::read_to_string(self.log()).unwrap_or_default();
            assert!(Instant::now() < until, "{error}\n{}", log());
            // It tells nobody when it is ready.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash does: no connection is waited for, and the next start recovers from the log.
    pub fn crash(&self) {
        let Some(mut child) = self.lock().take() else {
            return;
        };
        let mut stop = self.command("pg_ctl");
        stop.args(["stop", "-m", "immediate", "-D"])
            .arg(self.data());
        // Should it fail, the kill below does not.
        let _ = stop.output();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// A new, empty database; its connection string.
    pub fn database(&self) -> Database<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.query("postgres", &format!("CREATE DATABASE {name}"));
        Database { server: self, name }
    }

    fn query(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        self.try_query(database, sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn try_query(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let url = self.url(database);
        let answer = runtime.expect("a runtime").block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            tokio::spawn(connection);
            client.simple_query(sql).await
        });
        let text = |error: tokio_postgres::Error| match error.as_db_error() {
            Some(error) => error.message().to_owned(),
            None => error.to_string(),
        };
        let rows = answer
            .map_err(text)?
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    (0..row.len())
                        .map(|i| row.get(i).unwrap_or("null").to_owned())
                        .collect(),
                ),
                _ => None,
            });
        Ok(rows.collect())
    }

    fn url(&self, database: &str) -> String {
        format!(
            "postgres://app@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }

    fn command(&self, program: &str) -> Command {
        self.as_account(Command::new(self.bin.join(program)))
    }

    fn as_account(&self, mut command: Command) -> Command {
        command.current_dir(self.dir.path());
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Ends the shared server and removes its folder: nobody drops a static.
pub fn end() {
    if let Some(server) = SHARED.get() {
        server.crash();
        // What is left behind harms no test.
        let _ = fs::remove_dir_all(server.dir.path());
    }
}

/// A database of one test.
pub struct Database<'s> {
    server: &'s Server,
    name: String,
}

impl Database<'_> {
    /// Without TLS.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// With the options given, to the host name that the server's certificate has.
    pub fn url_by_name(&self, host: &str, options: &str) -> String {
        format!(
            "postgres://app@{host}:{}/{}?{options}",
            self.server.port, self.name
        )
    }

    /// The rows of a query, every value as text; null as "null".
    pub fn query(&self, sql: &str) -> Vec<Vec<String>> {
        self.server.query(&self.name, sql)
    }

    /// A column of a query's rows.
    pub fn column(&self, sql: &str) -> Vec<String> {
        self.query(sql)
            .into_iter()
            .map(|mut row| row.remove(0))
            .collect()
    }
}

/// `Path` in a pipeline file.
pub fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}
