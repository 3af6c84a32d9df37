//! Lists the files that the binary carries (`src/cli/carried.rs`) as Rust source: path in the repository, content.
//!
//! By name rather than whole folders: building plugins leaves files beside their sources that must not be carried.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Files and folders below the repository's root.
const CARRIED: [&str; 17] = [
    "examples/ecommerce/README.md",
    "examples/ecommerce/pipeline.toml",
    "examples/ecommerce/products.csv",
    "guest-sdk/Cargo.toml",
    "guest-sdk/src",
    "guest-sdk/macros/Cargo.toml",
    "guest-sdk/macros/src",
    "plugins/anomaly/Cargo.toml",
    "plugins/anomaly/src",
    "plugins/enrich/Cargo.toml",
    "plugins/enrich/src",
    "plugins/running/Cargo.toml",
    "plugins/running/src",
    "plugins/sessions/Cargo.toml",
    "plugins/sessions/src",
    "rust-toolchain.toml",
    "wit",
];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for path in CARRIED {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
        collect(&root, PathBuf::from(path), &mut files);
    }
    let mut list = String::from("&[\n");
    for path in files {
        let content = root.join(&path).canonicalize().expect("it was just listed");
        writeln!(list, "({path:?}, include_bytes!({content:?})),").expect("a string takes all");
    }
    list.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("carried.rs"), list).expect("OUT_DIR can be written");
}

fn collect(root: &Path, path: PathBuf, files: &mut Vec<PathBuf>) {
    let full = root.join(&path);
    if full.is_file() {
        return files.push(path);
    }
    let entries = fs::read_dir(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()));
    let mut names: Vec<_> = entries
        .map(|e| e.expect("a readable folder").file_name())
        .collect();
    names.sort();
    for name in names {
        collect(root, path.join(name), files);
    }
}
