//! From a plugin's source to a component: cargo for Wasm, then the component encoding.
//!
//! Not a build system: cargo decides what to compile. Invariant: the file that is written comes from the directory that
//! was asked for and appears whole or not at all.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use wit_component::ComponentEncoder;

use super::toolchain::{TARGET, Toolchain};
use crate::error::PluginError;

/// A component that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    pub path: PathBuf,
    pub bytes: u64,
    /// SHA-256, hex.
    pub digest: String,
}

/// A release build of its own name, so that it does not depend on the profiles of the crate around it.
const PROFILE: [&str; 6] = [
    r#"profile.plugin.inherits="release""#,
    "profile.plugin.opt-level=3",
    "profile.plugin.lto=true",
    "profile.plugin.codegen-units=1",
    r#"profile.plugin.panic="abort""#,
    "profile.plugin.strip=true",
];

/// One build at a time: crates of the same name in a shared target directory have one artifact.
static BUILDING: Mutex<()> = Mutex::new(());

/// Compiles the plugin crate in `dir` to a component at `out` (default: [`default_out`]). `progress` gets a line now and
/// then; cargo writes to our stderr itself.
pub fn build(
    dir: &Path,
    out: Option<&Path>,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, PluginError> {
    let name = package_name(dir)?;
    let out = out.map_or_else(|| dir.join(format!("{name}.wasm")), Path::to_owned);
    let toolchain = Toolchain::of_environment()?;
    toolchain.ensure_target(dir, progress)?;
    let start = Instant::now();
    progress(&format!("compiling the plugin {name} in {}", dir.display()));
    let module = {
        let _one = BUILDING
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let artifact = compile(&toolchain, dir)?;
        fs::read(&artifact).map_err(|e| failed(format!("{}: {e}", artifact.display())))?
    };
    let component = componentize(dir, &module)?;
    write(&out, &component)?;
    let built = Built {
        bytes: component.len() as u64,
        digest: Sha256::digest(&component)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect(),
        path: out,
    };
    progress(&format!(
        "built {} in {:.1} s: {} bytes, sha256 {}",
        built.path.display(),
        start.elapsed().as_secs_f64(),
        built.bytes,
        &built.digest[..12]
    ));
    Ok(built)
}

/// Where [`build`] writes by default: `DIR/PACKAGE.wasm`.
pub fn default_out(dir: &Path) -> Result<PathBuf, PluginError> {
    Ok(dir.join(format!("{}.wasm", package_name(dir)?)))
}

/// Runs the native tests of the plugin crate in `dir`, on our terminal.
pub fn test(dir: &Path, arguments: &[String]) -> Result<ExitStatus, PluginError> {
    package_name(dir)?;
    Toolchain::of_environment()?
        .cargo(dir)
        .arg("test")
        .args(arguments)
        .status()
        .map_err(|e| failed(format!("cargo: {e}")))
}

/// Whether the component at `out` is newer than every source of the plugin in `dir` and of the crates it takes from this
/// machine, the SDK and its WIT among them. Anything unreadable counts as not fresh.
pub fn is_fresh(dir: &Path, out: &Path) -> bool {
    let built = fs::metadata(out).and_then(|m| m.modified());
    match (built, newest_source(dir)) {
        (Ok(built), Some(newest)) => newest < built,
        _ => false,
    }
}

fn failed(cause: impl Into<String>) -> PluginError {
    PluginError::Build {
        cause: cause.into(),
    }
}

fn manifest(dir: &Path) -> Result<toml_edit::DocumentMut, PluginError> {
    let path = dir.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|e| {
        failed(format!(
            "{}: {e}; name the directory of a plugin crate (`tidemill plugin new NAME` makes one)",
            path.display()
        ))
    })?;
    text.parse()
        .map_err(|e| failed(format!("{}: {e}", path.display())))
}

fn package_name(dir: &Path) -> Result<String, PluginError> {
    let manifest = manifest(dir)?;
    let name = manifest
        .get("package")
        .and_then(|p| p.get("name"))
        .and_then(|n| n.as_str());
    name.map(str::to_owned).ok_or_else(|| {
        let path = dir.join("Cargo.toml");
        failed(format!(
            "{} has no [package] name: it is no plugin crate",
            path.display()
        ))
    })
}

/// What cargo says of one thing it made.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    target: Option<MessageTarget>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    #[serde(default)]
    fresh: bool,
}

#[derive(Deserialize)]
struct MessageTarget {
    crate_types: Vec<String>,
}

/// The core module that cargo makes of `dir`.
fn compile(toolchain: &Toolchain, dir: &Path) -> Result<PathBuf, PluginError> {
    let here = dir
        .canonicalize()
        .map_err(|e| failed(format!("{}: {e}", dir.display())))?;
    let (artifact, fresh) = run_cargo(toolchain, &here)?;
    if !fresh || made_from(&artifact).is_some_and(|from| from == here) {
        return note_made_from(&artifact, &here);
    }
    // Wasm artifacts have no hash in their names: in a shared target directory cargo takes the one that another crate of
    // this name left for its own. Without it, it makes it again.
    for stale in [artifact.clone(), in_deps(&artifact)] {
        let _ = fs::remove_file(stale);
    }
    let (artifact, _) = run_cargo(toolchain, &here)?;
    note_made_from(&artifact, &here)
}

fn in_deps(artifact: &Path) -> PathBuf {
    artifact
        .with_file_name("deps")
        .join(artifact.file_name().unwrap_or_default())
}

fn made_from(artifact: &Path) -> Option<PathBuf> {
    fs::read_to_string(artifact.with_extension("made-from"))
        .ok()
        .map(PathBuf::from)
}

fn note_made_from(artifact: &Path, dir: &Path) -> Result<PathBuf, PluginError> {
    let note = artifact.with_extension("made-from");
    fs::write(&note, dir.as_os_str().as_encoded_bytes())
        .map_err(|e| failed(format!("{}: {e}", note.display())))?;
    Ok(artifact.to_owned())
}

/// The artifact and whether cargo found it up to date.
fn run_cargo(toolchain: &Toolchain, dir: &Path) -> Result<(PathBuf, bool), PluginError> {
    let mut cargo = toolchain.cargo(dir);
    cargo.args(["build", "--profile", "plugin", "--target", TARGET]);
    cargo.arg("--message-format=json-render-diagnostics");
    for setting in PROFILE {
        cargo.args(["--config", setting]);
    }
    let mut child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("{}: {e}", cargo.get_program().display())))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let manifest = dir.join("Cargo.toml");
    let mut artifact = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|e| failed(format!("cargo: {e}")))?;
        // Macros and build scripts may print lines of their own.
        if let Ok(message) = serde_json::from_str::<Message>(&line) {
            artifact = cdylib(message, &manifest).or(artifact);
        }
    }
    let status = child.wait().map_err(|e| failed(format!("cargo: {e}")))?;
    if !status.success() {
        return Err(failed(format!(
            "the plugin in {} does not compile ({status}); cargo's messages are above",
            dir.display()
        )));
    }
    artifact.ok_or_else(|| {
        failed(format!(
            "{} builds no cdylib, which a plugin must be; add to it:\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]",
            manifest.display()
        ))
    })
}

fn cdylib(message: Message, manifest: &Path) -> Option<(PathBuf, bool)> {
    let is_cdylib = message.target?.crate_types.iter().any(|t| t == "cdylib");
    let ours = message.reason == "compiler-artifact"
        && is_cdylib
        && message
            .manifest_path
            .canonicalize()
            .is_ok_and(|path| path == manifest);
    let wasm = |p: &PathBuf| p.extension().is_some_and(|e| e == "wasm");
    let artifact = message.filenames.into_iter().find(wasm)?;
    ours.then_some((artifact, message.fresh))
}

fn componentize(dir: &Path, module: &[u8]) -> Result<Vec<u8>, PluginError> {
    let cannot = |cause: String| {
        failed(format!(
            "{}: the module cannot be made a component: {cause}",
            dir.display()
        ))
    };
    let (_, bindings) =
        wit_component::metadata::decode(module).map_err(|e| cannot(format!("{e:#}")))?;
    let world = &bindings.resolve.worlds[bindings.world];
    if world.exports.is_empty() {
        return Err(failed(format!(
            "{}: the library exports no plugin; implement `Transform` or `Keyed` of tidemill_guest and end with `plugin!(YourType);`",
            dir.display()
        )));
    }
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.encode())
        .map_err(|e| cannot(format!("{e:#}")))
}

fn write(out: &Path, component: &[u8]) -> Result<(), PluginError> {
    let place = out
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let write = || {
        let mut draft = tempfile::Builder::new()
            .prefix(".plugin-")
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(place)?;
        draft.write_all(component)?;
        draft.as_file().sync_all()?;
        draft.persist(out).map_err(|e| e.error)
    };
    write()
        .map(drop)
        .map_err(|e| failed(format!("{}: {e}", out.display())))
}

/// The last change to the sources of a crate and of the crates on this machine that it depends on.
fn newest_source(dir: &Path) -> Option<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut seen = Vec::new();
    let mut next = vec![dir.to_owned()];
    while let Some(krate) = next.pop() {
        let krate = krate.canonicalize().ok()?;
        if seen.contains(&krate) {
            continue;
        }
        newest = newest.max(newest_file(&krate)?);
        // The SDK's contract stands beside it.
        let wit = krate.with_file_name("wit");
        if krate.ends_with("guest-sdk") && wit.is_dir() {
            newest = newest.max(newest_file(&wit)?);
        }
        next.extend(path_dependencies(&krate)?);
        seen.push(krate);
    }
    Some(newest)
}

fn path_dependencies(krate: &Path) -> Option<Vec<PathBuf>> {
    let manifest = manifest(krate).ok()?;
    let dependencies = manifest.get("dependencies").and_then(|d| d.as_table_like());
    let paths = dependencies
        .into_iter()
        .flat_map(|d| d.iter())
        .filter_map(|(_, spec)| {
            let path = spec.as_table_like()?.get("path")?.as_str()?;
            Some(krate.join(path))
        });
    Some(paths.collect())
}

/// The newest file below `dir`, but for what building leaves there.
fn newest_file(dir: &Path) -> Option<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(dir).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let path = entry.path();
        if name == "target" || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path.extension().is_some_and(|e| e == "wasm" || e == "lock") {
            continue;
        }
        let meta = entry.metadata().ok()?;
        newest = newest.max(if meta.is_dir() {
            newest_file(&path)?
        } else {
            meta.modified().ok()?
        });
    }
    Some(newest)
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
