//! The Rust installation that builds plugins: cargo, rustc and, where there is one, rustup.
//!
//! Every program runs in the plugin's directory, so that the toolchain asked about is the one that builds it, and without
//! what an outer cargo put into our environment.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::PluginError;

/// What plugins are compiled for.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

const ADD_TARGET: &str = "rustup target add wasm32-unknown-unknown";

#[derive(Debug)]
pub(super) struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    rustup: Option<PathBuf>,
}

impl Toolchain {
    /// The one of this process: `PATH`, then rustup's usual place.
    pub(super) fn of_environment() -> Result<Self, PluginError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let cargo_home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| {
                let home = std::env::var_os("HOME")?;
                Some(Path::new(&home).join(".cargo"))
            });
        let usual = cargo_home.map(|home| home.join("bin"));
        Self::find(std::env::split_paths(&path).chain(usual))
    }

    /// The first of each program in `places`.
    pub(super) fn find(places: impl Iterator<Item = PathBuf>) -> Result<Self, PluginError> {
        let places: Vec<PathBuf> = places.collect();
        let first = |name: &str| places.iter().map(|p| p.join(name)).find(|p| p.is_file());
        let missing = |name: &str| PluginError::Build {
            cause: format!(
                "{name} was not found: plugins are built with Rust; install it from https://rustup.rs and start again in a new shell"
            ),
        };
        Ok(Self {
            cargo: first("cargo").ok_or_else(|| missing("cargo"))?,
            rustc: first("rustc").ok_or_else(|| missing("rustc"))?,
            rustup: first("rustup"),
        })
    }

    /// cargo, about to run in `dir`.
    pub(super) fn cargo(&self, dir: &Path) -> Command {
        command(&self.cargo, dir)
    }

    /// Makes sure that the toolchain of `dir` can compile to Wasm; adds the target through rustup where it is missing.
    pub(super) fn ensure_target(
        &self,
        dir: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), PluginError> {
        if self.has_target(dir)? {
            return Ok(());
        }
        let Some(rustup) = &self.rustup else {
            return Err(self.no_target(dir, "and rustup, which could add it, was not found"));
        };
        progress(&format!(
            "adding the target {TARGET} to this Rust installation with rustup"
        ));
        let added = output(command(rustup, dir).args(["target", "add", TARGET]))?;
        if !added.status.success() {
            let said = text(&added.stderr);
            return Err(self.no_target(dir, &format!("and rustup could not add it:\n{said}")));
        }
        match self.has_target(dir)? {
            true => Ok(()),
            false => Err(self.no_target(
                dir,
                &format!(
                    "although rustup added it: {} is not of rustup",
                    self.rustc.display()
                ),
            )),
        }
    }

    fn has_target(&self, dir: &Path) -> Result<bool, PluginError> {
        let mut rustc = command(&self.rustc, dir);
        let asked = output(rustc.args(["--print", "target-libdir", "--target", TARGET]))?;
        if !asked.status.success() {
            let said = text(&asked.stderr);
            let rustc = self.rustc.display();
            return Err(PluginError::Build {
                cause: format!("{rustc} does not work in {}:\n{said}", dir.display()),
            });
        }
        let libdir = PathBuf::from(text(&asked.stdout));
        Ok(libdir
            .read_dir()
            .is_ok_and(|mut files| files.next().is_some()))
    }

    fn no_target(&self, dir: &Path, why: &str) -> PluginError {
        PluginError::Build {
            cause: format!(
                "the Rust toolchain used in {} ({}) cannot compile to {TARGET}, {why}\nRun there:\n    {ADD_TARGET}\nand build again. A Rust that does not come from rustup has the target in a package of its own.",
                dir.display(),
                self.rustc.display()
            ),
        }
    }
}

fn output(command: &mut Command) -> Result<Output, PluginError> {
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| PluginError::Build {
            cause: format!("{}: {e}", command.get_program().display()),
        })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir);
    for (name, _) in std::env::vars_os() {
        if is_of_outer_build(&name) {
            command.env_remove(name);
        }
    }
    // Set by an outer `cargo run`, it would win over the plugin's own file.
    if std::env::var_os("CARGO").is_some() && names_toolchain(dir) {
        command.env_remove("RUSTUP_TOOLCHAIN");
    }
    command
}

/// What cargo sets for programs it runs, and compiler flags made for this machine rather than for Wasm. The user's own
/// settings (`CARGO_HOME`, `CARGO_TARGET_DIR`, `CARGO_NET_*`, ...) stay.
fn is_of_outer_build(name: &OsStr) -> bool {
    const NAMES: [&str; 11] = [
        "CARGO",
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
        "OUT_DIR",
        "RUSTFLAGS",
    ];
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_BIN_EXE_", "CARGO_MANIFEST_LINKS"];
    let name: OsString = name.to_owned();
    name.to_str()
        .is_some_and(|n| NAMES.contains(&n) || PREFIXES.iter().any(|p| n.starts_with(p)))
}

fn names_toolchain(dir: &Path) -> bool {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    dir.ancestors()
        .any(|d| d.join("rust-toolchain.toml").exists() || d.join("rust-toolchain").exists())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A place with programs that are shell scripts.
    fn place(programs: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, script) in programs {
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir
    }

    fn found(place: &tempfile::TempDir) -> Toolchain {
        Toolchain::find([place.path().to_owned()].into_iter()).unwrap()
    }

    fn ensure(place: &tempfile::TempDir) -> (Result<(), String>, Vec<String>) {
        let mut said = Vec::new();
        let done = found(place).ensure_target(place.path(), &mut |line| said.push(line.to_owned()));
        (done.map_err(|e| e.to_string()), said)
    }

    const NO_LIBDIR: &str = "echo \"$PWD/lib\"";

    #[test]
    fn without_rust_the_error_says_where_to_get_it() {
        let empty = place(&[]);
        let error = Toolchain::find([empty.path().to_owned()].into_iter()).unwrap_err();
        assert!(
            error.to_string().starts_with("cargo was not found"),
            "{error}"
        );
        assert!(error.to_string().contains("https://rustup.rs"), "{error}");
    }

    #[test]
    fn a_missing_target_is_added_and_said() {
        let place = place(&[
            ("cargo", ""),
            ("rustc", NO_LIBDIR),
            (
                "rustup",
                "[ \"$*\" = 'target add wasm32-unknown-unknown' ] && mkdir lib && : > lib/libcore.rlib",
            ),
        ]);
        let (done, said) = ensure(&place);
        assert_eq!(done, Ok(()));
        assert_eq!(
            said,
            ["adding the target wasm32-unknown-unknown to this Rust installation with rustup"]
        );
        let (done, said) = ensure(&place);
        assert_eq!((done, said), (Ok(()), vec![]), "it is there now");
    }

    #[test]
    fn where_rustup_cannot_the_error_has_the_command_and_its_words() {
        let place = place(&[
            ("cargo", ""),
            ("rustc", NO_LIBDIR),
            (
                "rustup",
                "echo 'error: could not download file' >&2; exit 1",
            ),
        ]);
        let error = ensure(&place).0.unwrap_err();
        assert!(error.contains("error: could not download file"), "{error}");
        assert!(
            error.contains("\n    rustup target add wasm32-unknown-unknown\n"),
            "{error}"
        );
    }

    #[test]
    fn without_rustup_the_error_has_the_command() {
        let place = place(&[("cargo", ""), ("rustc", NO_LIBDIR)]);
        let (done, said) = ensure(&place);
        let error = done.unwrap_err();
        assert!(
            error.contains("rustup, which could add it, was not found"),
            "{error}"
        );
        assert!(
            error.contains("\n    rustup target add wasm32-unknown-unknown\n"),
            "{error}"
        );
        assert_eq!(said, Vec::<String>::new());
    }

    #[test]
    fn a_rustup_of_another_rust_is_found_out() {
        let place = place(&[("cargo", ""), ("rustc", NO_LIBDIR), ("rustup", "exit 0")]);
        let error = ensure(&place).0.unwrap_err();
        assert!(error.contains("is not of rustup"), "{error}");
    }

    #[test]
    fn a_rustc_that_fails_is_quoted() {
        let place = place(&[
            ("cargo", ""),
            ("rustc", "echo 'toolchain 1.0 is not installed' >&2; exit 1"),
        ]);
        let error = ensure(&place).0.unwrap_err();
        assert!(error.contains("toolchain 1.0 is not installed"), "{error}");
    }

    #[test]
    fn only_what_an_outer_cargo_set_is_taken_away() {
        for (name, removed) in [
            ("CARGO", true),
            ("CARGO_PKG_NAME", true),
            ("CARGO_BIN_EXE_tidemill", true),
            ("RUSTFLAGS", true),
            ("CARGO_HOME", false),
            ("CARGO_TARGET_DIR", false),
            ("CARGO_NET_OFFLINE", false),
            ("CARGO_INCREMENTAL", false),
            ("PATH", false),
        ] {
            assert_eq!(is_of_outer_build(OsStr::new(name)), removed, "{name}");
        }
    }
}
