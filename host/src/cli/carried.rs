//! The files that the binary carries, so that it works where this repository is not: the guest SDK, its WIT, and the
//! e-commerce example with its plugins. `host/build.rs` says which.

use std::fs;
use std::io;
use std::path::Path;

/// Path in the repository, content.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/carried.rs"));

/// Writes every carried file below `folder` (a path in the repository) to the same place below `into`; an empty `folder`
/// means all. Files that are there already are replaced.
pub fn unpack(folder: &str, into: &Path) -> io::Result<()> {
    for (path, content) in FILES
        .iter()
        .filter(|(path, _)| Path::new(path).starts_with(folder))
    {
        let to = into.join(path);
        fs::create_dir_all(to.parent().expect("a carried file is in a folder"))?;
        fs::write(&to, content)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", to.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sdk_wit_and_example_are_carried_and_nothing_that_building_leaves() {
        for path in [
            "guest-sdk/Cargo.toml",
            "guest-sdk/src/lib.rs",
            "guest-sdk/macros/Cargo.toml",
            "guest-sdk/macros/src/lib.rs",
            "wit/worlds.wit",
            "examples/ecommerce/pipeline.toml",
            "plugins/sessions/src/lib.rs",
        ] {
            assert!(FILES.iter().any(|(p, _)| *p == path), "{path}");
        }
        for (path, _) in FILES {
            assert!(
                !path.ends_with(".wasm") && !path.split('/').any(|part| part == "target"),
                "{path}"
            );
        }
    }

    #[test]
    fn unpacked_are_the_files_of_one_folder() {
        let into = tempfile::tempdir().unwrap();
        unpack("wit", into.path()).unwrap();
        let folders: Vec<_> = fs::read_dir(into.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(folders, ["wit"]);
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/worlds.wit");
        let carried = fs::read(into.path().join("wit/worlds.wit")).unwrap();
        assert_eq!(carried, fs::read(own).unwrap());
    }
}
