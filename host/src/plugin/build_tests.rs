//! Builds with the real cargo; the crates of these tests need no other crate.

use std::time::Duration;

use super::*;

const LIB: &str = "[lib]\ncrate-type = [\"cdylib\"]\n";

/// A crate in `parent/name`; all crates below one parent share a target directory.
fn krate(parent: &Path, folder: &str, package: &str, more: &str, source: &str) -> PathBuf {
    let config = parent.join(".cargo/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let target = parent.join("shared-target");
    fs::write(&config, format!("[build]\ntarget-dir = {target:?}\n")).unwrap();
    let dir = parent.join(folder);
    fs::create_dir_all(dir.join("src")).unwrap();
    let manifest =
        format!("[workspace]\n[package]\nname = \"{package}\"\nedition = \"2024\"\n{more}");
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    fs::write(dir.join("src/lib.rs"), source).unwrap();
    dir
}

fn refusal(dir: &Path) -> String {
    let out = dir.join("out.wasm");
    let error = build(dir, Some(&out), &mut |_| ()).unwrap_err().to_string();
    assert!(!out.exists());
    error
}

#[test]
fn what_is_no_plugin_crate_is_said_to_be_none() {
    let parent = tempfile::tempdir().unwrap();
    let error = refusal(parent.path());
    assert!(
        error.contains("Cargo.toml") && error.contains("tidemill plugin new"),
        "{error}"
    );
    fs::write(parent.path().join("Cargo.toml"), "[workspace]\n").unwrap();
    assert!(refusal(parent.path()).contains("no [package] name"));
    fs::write(parent.path().join("Cargo.toml"), "[package\n").unwrap();
    assert!(refusal(parent.path()).contains("Cargo.toml: TOML parse error at line 1"));
}

#[test]
fn a_crate_that_is_no_cdylib_is_told_what_to_add() {
    let parent = tempfile::tempdir().unwrap();
    let dir = krate(
        parent.path(),
        "a",
        "tidemill-test-rlib",
        "",
        "pub fn f() {}",
    );
    let error = refusal(&dir);
    assert!(
        error.contains("crate-type = [\"cdylib\", \"rlib\"]"),
        "{error}"
    );
}

#[test]
fn a_library_that_exports_no_plugin_is_told_what_to_write() {
    let parent = tempfile::tempdir().unwrap();
    let source = "#[unsafe(no_mangle)]\npub extern \"C\" fn f() -> u32 { 7 }";
    let dir = krate(parent.path(), "a", "tidemill-test-bare", LIB, source);
    let error = refusal(&dir);
    assert!(error.contains("plugin!(YourType);"), "{error}");
}

#[test]
fn a_crate_that_does_not_compile_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let dir = krate(parent.path(), "a", "tidemill-test-broken", LIB, "fn f( {}");
    let error = refusal(&dir);
    assert!(error.contains("does not compile"), "{error}");
}

#[test]
fn crates_of_one_name_do_not_take_each_others_artifact() {
    let parent = tempfile::tempdir().unwrap();
    let source = |word: &str| {
        format!(
            "#[unsafe(no_mangle)]\npub extern \"C\" fn f() -> *const u8 {{ b\"{word}\".as_ptr() }}"
        )
    };
    let make = |folder, word| {
        krate(
            parent.path(),
            folder,
            "tidemill-test-twin",
            LIB,
            &source(word),
        )
    };
    let (red, blue) = (make("a", "red-red-red"), make("b", "blue-blue-blue"));
    let toolchain = Toolchain::of_environment().unwrap();
    toolchain.ensure_target(&red, &mut |_| ()).unwrap();
    for (dir, word) in [
        (&red, "red-red-red"),
        (&blue, "blue-blue-blue"),
        (&red, "red-red-red"),
        (&red, "red-red-red"),
    ] {
        let module = fs::read(compile(&toolchain, dir).unwrap()).unwrap();
        let found = module.windows(word.len()).any(|w| w == word.as_bytes());
        assert!(found, "{} got another's module", dir.display());
    }
}

#[test]
fn fresh_until_a_source_of_it_changes() {
    let parent = tempfile::tempdir().unwrap();
    let more = "[dependencies]\ntidemill-guest = { path = \"../guest-sdk\" }\n";
    let dir = krate(parent.path(), "a", "tidemill-test-fresh", more, "");
    krate(parent.path(), "guest-sdk", "tidemill-guest", "", "");
    let wit = parent.path().join("wit");
    fs::create_dir(&wit).unwrap();
    fs::write(wit.join("columns.wit"), "").unwrap();
    let out = dir.join("out.wasm");
    assert!(!is_fresh(&dir, &out), "it was never built");

    fs::write(&out, "").unwrap();
    let built = SystemTime::now() + Duration::from_secs(60);
    set_modified(&out, built);
    assert!(is_fresh(&dir, &out));
    for source in [
        "a/src/lib.rs",
        "guest-sdk/src/lib.rs",
        "guest-sdk/Cargo.toml",
        "wit/columns.wit",
    ] {
        let source = parent.path().join(source);
        set_modified(&source, built + Duration::from_secs(1));
        assert!(!is_fresh(&dir, &out), "{}", source.display());
        set_modified(&source, built - Duration::from_secs(1));
        assert!(is_fresh(&dir, &out), "{}", source.display());
    }
    fs::create_dir(dir.join("target")).unwrap();
    fs::write(dir.join("target/x"), "").unwrap();
    set_modified(&dir.join("target/x"), built + Duration::from_secs(1));
    assert!(is_fresh(&dir, &out), "what building leaves is no source");
}

fn set_modified(path: &Path, time: SystemTime) {
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}
