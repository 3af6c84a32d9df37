//! Plugins from bytes: the engine they are compiled for, the checks a file must pass, the compile cache.
//!
//! Invariant: a [`Component`] was compiled by this engine, imports nothing foreign, exports the functions of its kind
//! with the types of `wit/`, and has described itself.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tracing::warn;
use wasmtime::component::{Component as Compiled, ComponentExportIndex, InstancePre, Linker};
use wasmtime::{Config, Engine, PoolingAllocationConfig};

use super::cache::Cache;
use super::guest::{Guest, link};
use super::live::Live;
use super::plan::description;
use super::{Description, Instance, Kind, NoTables, Setup, shape, wire};
use crate::error::PluginError;
use crate::limits::{
    PLUGIN_CALL_MS_DEFAULT, PLUGIN_INSTANCES_MAX, PLUGIN_MEMORY_BYTES_DEFAULT,
    PLUGIN_POOL_INSTANCES, PLUGIN_TABLE_ELEMENTS_MAX, PLUGIN_TICK_MS,
};

/// The engine that all plugins of a process run in.
pub struct Runtime {
    engine: Engine,
    linker: Linker<Guest>,
    cache: Option<Cache>,
}

impl Runtime {
    /// `cache`: a directory for compiled plugins that only this host writes; without it each load compiles.
    pub fn new(cache: Option<PathBuf>) -> Result<Arc<Self>, PluginError> {
        let engine = engine()?;
        let mut linker = Linker::new(&engine);
        link(&mut linker).map_err(|e| PluginError::Build {
            cause: format!("the plugin interface cannot be set up: {e}"),
        })?;
        let cache = cache.and_then(|dir| {
            Cache::open(dir.clone(), &engine)
                .inspect_err(|cause| {
                    warn!(target: "plugin", "{}: {cause}; compiled plugins are not kept", dir.display());
                })
                .ok()
        });
        tick(&engine)?;
        Ok(Arc::new(Self {
            engine,
            linker,
            cache,
        }))
    }

    /// Checks, compiles and describes a plugin. `file` is its name in errors.
    pub fn load(self: &Arc<Self>, file: &str, wasm: &[u8]) -> Result<Arc<Component>, PluginError> {
        self.load_checked(file, wasm)
            .map(Arc::new)
            .map_err(|cause| PluginError::Refused {
                file: file.to_string(),
                cause,
            })
    }

    fn load_checked(self: &Arc<Self>, file: &str, wasm: &[u8]) -> Result<Component, String> {
        shape::check_bytes(wasm)?;
        let digest = hex(&Sha256::digest(wasm));
        let (compiled, compiled_bytes) = self.compile(&digest, wasm)?;
        let imports = shape::imports(&self.engine, &compiled)?;
        let kind = shape::kind(&self.engine, &compiled)?;
        let pre = self
            .linker
            .instantiate_pre(&compiled)
            .map_err(|e| other_types(wire::HOST, &e))?;
        let exports = Exports::find(&compiled, kind)?;
        let mut live = Live::start(
            &pre,
            &exports,
            Arc::new(NoTables),
            PLUGIN_MEMORY_BYTES_DEFAULT,
            Duration::from_millis(PLUGIN_CALL_MS_DEFAULT),
        )?;
        let said = live
            .describe(Duration::from_millis(PLUGIN_CALL_MS_DEFAULT))
            .map_err(|cause| format!("its `describe` failed: {cause}"))?;
        Ok(Component {
            runtime: self.clone(),
            file: file.to_string(),
            digest,
            wasm: wasm.into(),
            compiled_bytes,
            kind,
            description: description(said, kind)?,
            imports,
            pre,
            exports,
        })
    }

    fn compile(&self, digest: &str, wasm: &[u8]) -> Result<(Compiled, usize), String> {
        if let Some(found) = self
            .cache
            .as_ref()
            .and_then(|c| c.get(&self.engine, digest))
        {
            return Ok(found);
        }
        let compiled = Compiled::from_binary(&self.engine, wasm)
            .map_err(|e| format!("it is not a valid component: {e:#}"))?;
        let code = compiled
            .serialize()
            .map_err(|e| format!("its compiled code cannot be kept: {e:#}"))?;
        if let Some(cache) = &self.cache {
            cache.put(digest, &code);
        }
        Ok((compiled, code.len()))
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

/// Settings by measurement (DESIGN 6): epochs on, fuel off, memory reserved at 4 GiB so that no bounds are checked.
fn engine() -> Result<Engine, PluginError> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .memory_reservation(4 << 30)
        .wasm_component_model(true)
        // A plugin's result must be the same on every machine.
        .wasm_relaxed_simd(false)
        // Frames would be numbers only, and cost 20 us a trap: the panic's text says where.
        .wasm_backtrace_max_frames(None);
    let mut pooled = config.clone();
    pooled.allocation_strategy(pool());
    Engine::new(&pooled)
        .or_else(|cause| {
            // A limit on address space (ulimit -v) leaves no room for the pool; plugins then start some us later.
            warn!(target: "plugin", "no pool of plugin memories: {cause:#}; they are allocated one by one");
            Engine::new(&config)
        })
        .map_err(|e| PluginError::Build {
            cause: format!("WebAssembly cannot be run on this machine: {e:#}"),
        })
}

fn pool() -> PoolingAllocationConfig {
    let inside = PLUGIN_INSTANCES_MAX as u32;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(PLUGIN_POOL_INSTANCES)
        .total_core_instances(PLUGIN_POOL_INSTANCES * 4)
        .total_memories(PLUGIN_POOL_INSTANCES)
        .total_tables(PLUGIN_POOL_INSTANCES * 4)
        .table_elements(PLUGIN_TABLE_ELEMENTS_MAX)
        .max_core_instances_per_component(inside)
        .max_memories_per_component(inside)
        .max_tables_per_component(inside);
    pool
}

/// Counts the engine's epochs until the engine is gone; the deadlines of calls are looked at when it does.
fn tick(engine: &Engine) -> Result<(), PluginError> {
    let engine = engine.weak();
    let run = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(Duration::from_millis(PLUGIN_TICK_MS));
        }
    };
    std::thread::Builder::new()
        .name("plugin-ticks".into())
        .spawn(run)
        .map(drop)
        .map_err(|cause| PluginError::Build {
            cause: format!("no thread for plugin deadlines: {cause}"),
        })
}

/// A loaded plugin: compiled, imports checked, described.
pub struct Component {
    runtime: Arc<Runtime>,
    file: String,
    digest: String,
    wasm: Arc<[u8]>,
    compiled_bytes: usize,
    kind: Kind,
    description: Description,
    imports: Vec<String>,
    pre: InstancePre<Guest>,
    exports: Exports,
}

/// Where the functions of a plugin's kind are in its component.
pub(super) struct Exports {
    pub describe: ComponentExportIndex,
    pub configure: ComponentExportIndex,
    pub process: ComponentExportIndex,
    /// Keyed plugins only.
    pub migrate_state: Option<ComponentExportIndex>,
}

impl Exports {
    fn find(compiled: &Compiled, kind: Kind) -> Result<Self, String> {
        let at = |interface: &str, function: &str| {
            compiled
                .get_export_index(None, interface)
                .and_then(|i| compiled.get_export_index(Some(&i), function))
                .ok_or_else(|| format!("its {interface} has no function `{function}`"))
        };
        let (interface, migrate_state) = match kind {
            Kind::Transform => (wire::TRANSFORM, None),
            Kind::Keyed => (wire::KEYED, Some(at(wire::KEYED, "migrate-state")?)),
        };
        Ok(Self {
            describe: at(wire::LIFECYCLE, "describe")?,
            configure: at(wire::LIFECYCLE, "configure")?,
            process: at(interface, "process")?,
            migrate_state,
        })
    }
}

/// The text for an interface whose functions have other types than `wit/` gives them.
pub(super) fn other_types(interface: &str, cause: &wasmtime::Error) -> String {
    format!(
        "its {interface} has other types than this host's: {cause:#}; build it against the `wit/` of this version (`tidemill plugin build`)"
    )
}

impl Component {
    /// Configures an instance. The plan it returns is checked against `setup.input`.
    pub fn instantiate(self: &Arc<Self>, setup: Setup) -> Result<Instance, PluginError> {
        Instance::new(self.clone(), setup)
    }

    /// The file's name as given to [`Runtime::load`].
    pub fn file(&self) -> &str {
        &self.file
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The interfaces with functions that it imports.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    pub fn wasm(&self) -> &Arc<[u8]> {
        &self.wasm
    }

    pub fn wasm_bytes(&self) -> usize {
        self.wasm.len()
    }

    pub fn compiled_bytes(&self) -> usize {
        self.compiled_bytes
    }

    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    pub(super) fn parts(&self) -> (&InstancePre<Guest>, &Exports) {
        (&self.pre, &self.exports)
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("file", &self.file)
            .field("digest", &self.digest)
            .field("kind", &self.kind)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
