//! The e-commerce example that `demo` runs: the repository's, or the copy that the binary carries; with its plugins built.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Failure, carried, terminal};
use crate::pipeline::spec::{Operator, Spec};
use crate::plugin::build;

/// The pipeline file below the root of an example.
const PIPELINE: &str = "examples/ecommerce/pipeline.toml";
/// Where the carried copy is unpacked, below the working directory.
const UNPACKED: &str = "tidemill-demo";
/// Whatever folder the copy is in: its crates are one workspace and have nothing to do with one around it.
const WORKSPACE: &str = "[workspace]\nresolver = \"3\"\nmembers = [\"plugins/*\"]\n";

/// The pipeline file: of `here` or a folder above it, otherwise of the carried copy, unpacked into `here` unless an earlier
/// one is there.
pub fn find(here: &Path) -> Result<PathBuf, Failure> {
    if let Some(root) = here.ancestors().find(|dir| dir.join(PIPELINE).is_file()) {
        return Ok(shorter(root, here).join(PIPELINE));
    }
    let root = here.join(UNPACKED);
    let pipeline = Path::new(UNPACKED).join(PIPELINE);
    if !root.join(PIPELINE).is_file() {
        terminal::progress(&format!("unpacking the example into {UNPACKED}/"));
        let failed = |e| Failure::Failed(format!("{}: {e}", root.display()));
        // The pipeline file comes last: where it is, all is.
        for folder in ["guest-sdk", "wit", "plugins", "rust-toolchain.toml"] {
            carried::unpack(folder, &root).map_err(failed)?;
        }
        fs::write(root.join("Cargo.toml"), WORKSPACE).map_err(failed)?;
        carried::unpack("examples", &root).map_err(failed)?;
    }
    Ok(pipeline)
}

/// `root` as a person in `here`, which is in it, would write it.
fn shorter(root: &Path, here: &Path) -> PathBuf {
    let up = here
        .strip_prefix(root)
        .map_or(0, |below| below.components().count());
    std::iter::repeat_n("..", up).collect()
}

/// Builds the plugins of a pipeline whose source stands beside the file it names, unless they are newer than it.
pub fn build_plugins(spec: &Spec) -> Result<(), Failure> {
    for step in &spec.steps {
        let Some(Operator::Plugin(plugin)) = &step.operator else {
            continue;
        };
        let Some(file) = &plugin.file else { continue };
        let file = spec.dir.join(&file.value);
        let crate_dir = file.parent().filter(|dir| dir.join("Cargo.toml").is_file());
        if let Some(dir) = crate_dir.filter(|dir| !build::is_fresh(dir, &file)) {
            build::build(dir, Some(&file), &mut terminal::progress)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_a_folder_above_is_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("examples/ecommerce")).unwrap();
        fs::write(root.path().join(PIPELINE), "").unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(find(root.path()).unwrap(), Path::new(PIPELINE));
        assert_eq!(find(&deep).unwrap(), Path::new("../..").join(PIPELINE));
    }

    #[test]
    fn elsewhere_the_carried_copy_is_unpacked_once() {
        let here = tempfile::tempdir().unwrap();
        let found = find(here.path()).unwrap();
        assert_eq!(found, Path::new("tidemill-demo").join(PIPELINE));
        let pipeline = here.path().join(&found);
        for file in [
            "Cargo.toml",
            "guest-sdk/Cargo.toml",
            "wit/worlds.wit",
            "plugins/anomaly/src/lib.rs",
        ] {
            assert!(
                here.path().join("tidemill-demo").join(file).is_file(),
                "{file}"
            );
        }
        fs::write(&pipeline, "# mine now").unwrap();
        assert_eq!(find(here.path()).unwrap(), found);
        assert_eq!(fs::read_to_string(pipeline).unwrap(), "# mine now");
    }
}
