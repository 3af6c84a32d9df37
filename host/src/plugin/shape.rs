//! What a file is: a plugin of this host's contract, or what else, and what to do about it.
//!
//! Looks at bytes, imports and exports; runs nothing. Invariant: a component that passes imports nothing but the
//! functions of `tidemill:plugin/host`.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentInstance, ComponentItem};

use super::Kind;
use super::limits::printable;
use super::wire::{COLUMNS, HOST, KEYED, LIFECYCLE, OUTCOME, PACKAGE, TRANSFORM, VERSION};
use crate::limits::PLUGIN_BYTES_MAX;

const BUILD: &str = "build it with `tidemill plugin build`";

/// Refuses what is no component before it is compiled.
pub fn check_bytes(wasm: &[u8]) -> Result<(), String> {
    if wasm.len() > PLUGIN_BYTES_MAX {
        return Err(format!(
            "it has {} bytes, a plugin may have {PLUGIN_BYTES_MAX}; build it in release mode and stripped (`tidemill plugin build` does)",
            wasm.len()
        ));
    }
    match wasm {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => Ok(()),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(format!(
            "it is a core WebAssembly module; a plugin is a component: {BUILD}"
        )),
        [] => Err(format!(
            "it is empty; a plugin is a WebAssembly component: {BUILD}"
        )),
        _ => Err(format!(
            "it is not WebAssembly (it starts with `{}`); a plugin is a component: {BUILD}",
            wasm[..wasm.len().min(8)].escape_ascii()
        )),
    }
}

/// The interfaces with functions that a component imports, or the first that a plugin may not.
pub fn imports(engine: &Engine, component: &Component) -> Result<Vec<String>, String> {
    let mut imported = Vec::new();
    let mut foreign = Vec::new();
    for (name, item) in component.component_type().imports(engine) {
        match &item.ty {
            ComponentItem::ComponentInstance(interface) if is_types_only(engine, interface) => {
                if name != COLUMNS && name != OUTCOME && name != HOST {
                    foreign.push(name.to_string());
                }
            }
            ComponentItem::ComponentInstance(_) if name == HOST => imported.push(name.to_string()),
            _ => foreign.push(name.to_string()),
        }
    }
    if foreign.is_empty() {
        return Ok(imported);
    }
    if let Some(version) = foreign.iter().find_map(|name| other_version(name)) {
        return Err(other_version_text(version));
    }
    Err(format!(
        "it imports {}; a plugin may import only {HOST}: {BUILD}",
        printable(&foreign.join(", "))
    ))
}

/// Such an interface stays an import of a component although there is nothing to call in it.
fn is_types_only(engine: &Engine, interface: &ComponentInstance) -> bool {
    interface
        .exports(engine)
        .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
}

/// Which of the two worlds a component is of, by its exports.
pub fn kind(engine: &Engine, component: &Component) -> Result<Kind, String> {
    let ty = component.component_type();
    let exports: Vec<_> = ty.exports(engine).map(|(name, _)| name).collect();
    if let Some(version) = exports.iter().find_map(|name| other_version(name)) {
        return Err(other_version_text(version));
    }
    let has = |name| exports.contains(&name);
    if !has(LIFECYCLE) {
        return Err(format!(
            "it does not export {LIFECYCLE} ({}); it is no plugin, or its `plugin!(…)` line is missing: {BUILD}",
            match exports.len() {
                0 => "it exports nothing".into(),
                _ => format!("it exports {}", printable(&exports.join(", "))),
            }
        ));
    }
    match (has(TRANSFORM), has(KEYED)) {
        (true, false) => Ok(Kind::Transform),
        (false, true) => Ok(Kind::Keyed),
        (true, true) => Err(format!(
            "it exports both {TRANSFORM} and {KEYED}; a plugin is one of the two"
        )),
        (false, false) => Err(format!(
            "it exports neither {TRANSFORM} nor {KEYED}; a plugin is one of the two"
        )),
    }
}

/// The version of an interface of our package, if it is not ours.
fn other_version(name: &str) -> Option<&str> {
    let (_, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    (version != VERSION).then_some(version)
}

fn other_version_text(version: &str) -> String {
    format!(
        "it was built for tidemill:plugin@{}, this host speaks tidemill:plugin@{VERSION}; {BUILD} of this version, or use a host of that one",
        printable(version)
    )
}
