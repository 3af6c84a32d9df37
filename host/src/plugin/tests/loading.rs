//! What is loaded and configured, and what is refused with which words.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::guests::{RUNTIME, component, module, rows, setup, transform, wasm};
use crate::error::PluginError;
use crate::limits::PLUGIN_BYTES_MAX;
use crate::plugin::{AlarmClock, Kind, RowOrder, Runtime, StateLayout};

#[test]
fn a_plugin_describes_itself() {
    let transform = component("transform");
    assert_eq!(transform.kind(), Kind::Transform);
    assert_eq!(transform.description().name, "hostile");
    assert_eq!(transform.description().version, "1.2.3");
    assert_eq!(transform.imports(), ["tidemill:plugin/host@0.1.0"]);
    assert_eq!(transform.wasm_bytes(), transform.wasm().len());
    assert!(transform.compiled_bytes() > 0);
    assert_eq!(transform.digest().len(), 64);
    let keyed = component("keyed");
    assert_eq!(keyed.kind(), Kind::Keyed);
    let description = keyed.description();
    assert_eq!(description.state, StateLayout::Fixed(1));
    assert_eq!(description.state_version, 3);
    assert_eq!(description.alarms, AlarmClock::EventTime);
    assert_eq!(description.order, RowOrder::EventTime);
    assert_eq!(
        component("keyed_blob").description().state,
        StateLayout::Blob
    );
}

#[test]
fn what_is_no_plugin_is_refused_by_name() {
    let truncated = wasm("transform")[..1_000].to_vec();
    let mut empty_component = b"\0asm".to_vec();
    empty_component.extend([0x0d, 0, 1, 0]);
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        ("nothing", vec![], &["it is empty"]),
        (
            "text",
            b"(component)".to_vec(),
            &["not WebAssembly", "`(compone`"],
        ),
        (
            "too large",
            vec![0; PLUGIN_BYTES_MAX + 1],
            &["33554433 bytes"],
        ),
        (
            "core module",
            module("transform"),
            &["core WebAssembly module", "tidemill plugin build"],
        ),
        ("truncated", truncated, &["not a valid component"]),
        (
            "no exports",
            empty_component,
            &[
                "does not export tidemill:plugin/lifecycle@0.1.0",
                "exports nothing",
            ],
        ),
        (
            "foreign",
            wasm("foreign"),
            &[
                "it imports wasi:clocks/wall-clock@0.2.0;",
                "only tidemill:plugin/host@0.1.0",
                "tidemill plugin build",
            ],
        ),
        (
            "future",
            wasm("future"),
            &["tidemill:plugin@0.2.0", "speaks tidemill:plugin@0.1.0"],
        ),
        (
            "changed",
            wasm("changed"),
            &["tidemill:plugin/lifecycle@0.1.0 has other types", "wit/"],
        ),
    ];
    for (name, wasm, expected) in cases {
        let file = format!("{name}.wasm");
        let refused = RUNTIME.load(&file, &wasm).map(|_| ()).unwrap_err();
        let text = refused.to_string();
        assert!(
            matches!(refused, PluginError::Refused { .. }),
            "{name}: {text}"
        );
        for words in expected {
            assert!(text.contains(words), "{name}: {text} lacks {words:?}");
        }
        assert!(text.starts_with(&file), "{text}");
    }
}

#[test]
fn a_configuration_that_fails_says_why() {
    let cases = [
        (
            "configure err",
            "it refused its configuration: no such threshold",
        ),
        (
            "configure panic",
            "`configure` failed: panicked at src/lib.rs:1:2: boom (wasm trap",
        ),
        ("configure loop", "ran longer than 50 ms"),
        (
            "configure memory",
            "memory limit of 4 MB reached (limits.memory)",
        ),
        (
            "unknown column",
            "reads the column `amuont`, which the input does not have; the input has x",
        ),
        ("clash", "adds the column `x`, which the input already has"),
        ("no port", "it has no output port"),
        ("port late", "reserved for late rows"),
        ("same ports", "two ports named `main`"),
        ("twice", "adds the column `y`, twice"),
        ("bad counter", "the name of a counter is [a-z][a-z0-9_]*"),
        (
            "table",
            "it refused its configuration: the pipeline has no table `products`",
        ),
    ];
    for (mode, expected) in cases {
        let error = transform(mode, &rows([1])).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, PluginError::Configure { .. }),
            "{mode}: {text}"
        );
        assert!(text.contains(expected), "{mode}: {text} lacks {expected:?}");
        assert!(text.contains("hostile"), "{mode}: {text}");
    }
}

#[test]
fn too_little_memory_to_start_is_said_to_be_that() {
    let mut setup = setup("double", &rows([1]));
    setup.memory_bytes = 64 << 10;
    let error = component("transform").instantiate(setup).map(|_| ());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("memory limit of 65536 bytes"), "{text}");
}

#[test]
fn compiled_plugins_are_kept_and_damaged_ones_are_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("deep/compiled");
    let wasm = wasm("transform");
    let load = || -> Arc<_> {
        let runtime = Runtime::new(Some(cache.clone())).unwrap();
        runtime.load("transform.wasm", &wasm).unwrap()
    };
    let first = load();
    let files: Vec<_> = fs::read_dir(&cache)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&cache), mode(&files[0])), (0o700, 0o600));
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(first.digest()), "{name}");

    let written = fs::metadata(&files[0]).unwrap().modified().unwrap();
    assert_eq!(load().compiled_bytes(), first.compiled_bytes());
    assert_eq!(
        fs::metadata(&files[0]).unwrap().modified().unwrap(),
        written
    );

    let whole = fs::read(&files[0]).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    for damaged in [&[][..], &whole[..20], &whole[..whole.len() / 2], &flipped] {
        fs::write(&files[0], damaged).unwrap();
        load();
        assert_eq!(fs::read(&files[0]).unwrap(), whole, "written anew");
    }
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o666)).unwrap();
    load();
    assert_eq!(mode(&files[0]), 0o600, "another user's file is not run");
    let stale = cache.join(format!("{}-{:016x}.cwasm", first.digest(), 0));
    fs::write(&stale, "of another engine").unwrap();
    fs::remove_file(&files[0]).unwrap();
    load();
    assert!(files[0].exists() && !stale.exists());
}
