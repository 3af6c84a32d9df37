//! `tidemill plugin new`: a plugin crate that tests and builds as it is, with the SDK beside it.

use std::fs;
use std::io;
use std::path::Path;

use clap::Args;

use crate::cli::{Failure, carried, terminal};

/// Start a new plugin crate
///
/// The SDK comes with it: the crate builds wherever this binary works.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidemill plugin new my-plugin --keyed")]
pub struct Arguments {
    /// Name of the crate and of the folder that is made for it
    #[arg(value_parser = name)]
    name: String,
    /// With state for each key; otherwise each row is judged for itself
    #[arg(long)]
    keyed: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { name, keyed } = arguments;
    create(Path::new(name), name, *keyed)?;
    terminal::print(&format!(
        "made {name}/ with src/lib.rs, its tests, and the SDK in sdk/\n\nNext:\n  cd {name}\n  cargo test\n  tidemill plugin build\n  tidemill plugin inspect {name}.wasm\n\nThen name the file in a pipeline; README.md has the step."
    ))
}

/// Writes the crate `name` into `dir`, which must not hold anything yet.
pub fn create(dir: &Path, name: &str, keyed: bool) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::Failed(format!("{}: {e}", dir.display()));
    match fs::read_dir(dir).map(|mut files| files.next().is_some()) {
        Ok(true) => {
            return Err(Failure::Refused(format!(
                "{} is there already and not empty; choose another name or remove it",
                dir.display()
            )));
        }
        Ok(false) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    for (path, template) in files(keyed) {
        let path = dir.join(path);
        let text = template
            .replace("@STEP@", if keyed { STEP_KEYED } else { STEP })
            .replace("@NAME@", name)
            .replace("@TYPE@", &type_name(name));
        fs::create_dir_all(path.parent().expect("a file is in a folder")).map_err(failed)?;
        fs::write(&path, text).map_err(failed)?;
    }
    let sdk = dir.join("sdk");
    carried::unpack("guest-sdk", &sdk).map_err(failed)?;
    carried::unpack("wit", &sdk).map_err(failed)
}

fn files(keyed: bool) -> [(&'static str, &'static str); 4] {
    let lib = match keyed {
        true => include_str!("template/keyed.rs"),
        false => include_str!("template/transform.rs"),
    };
    [
        ("Cargo.toml", include_str!("template/Cargo.toml.in")),
        ("src/lib.rs", lib),
        ("README.md", include_str!("template/README.md")),
        (".gitignore", "/target\n/*.wasm\n"),
    ]
}

const STEP: &str = "[steps.judged]
from = \"transactions\"
plugin = { file = \"@NAME@.wasm\", config = { limit = 100.0 } }";

const STEP_KEYED: &str = "[steps.anomalies]
from = \"transactions\"
key = [\"user_id\"]
plugin = { file = \"@NAME@.wasm\", config = { threshold = 3.0 } }";

/// `my-plugin` as `MyPlugin`.
fn type_name(name: &str) -> String {
    let capitalized = |word: &str| {
        let mut chars = word.chars();
        chars
            .next()
            .map(|c| c.to_ascii_uppercase())
            .into_iter()
            .chain(chars)
            .collect::<String>()
    };
    name.split(['-', '_']).map(capitalized).collect()
}

/// A name that can be a crate's, a file's and, capitalized, a type's of the template.
fn name(text: &str) -> Result<String, String> {
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if !starts || !text.bytes().all(allowed) {
        return Err(
            "a name has lower-case letters, digits, - and _, and begins with a letter".into(),
        );
    }
    // Crate names that cargo refuses or that the SDK has, and types that the templates use.
    const TAKEN: [&str; 13] = [
        "columns",
        "extend",
        "input",
        "judged",
        "key",
        "keyed",
        "moments",
        "out",
        "row",
        "score",
        "test",
        "tidemill-guest",
        "transform",
    ];
    if TAKEN.contains(&text) || is_keyword(text) {
        return Err(format!(
            "`{text}` means something else in Rust or in the SDK"
        ));
    }
    Ok(text.to_owned())
}

fn is_keyword(text: &str) -> bool {
    const KEYWORDS: [&str; 42] = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
        "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
        "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub",
        "ref", "return", "self", "static", "struct", "super", "trait", "true", "try",
    ];
    KEYWORDS.contains(&text)
        || [
            "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
        ]
        .contains(&text)
        || [
            "state",
            "serde",
            "std",
            "core",
            "alloc",
            "proc-macro",
            "string",
            "option",
            "vec",
        ]
        .contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Kind, Runtime, StateLayout, build};

    #[test]
    fn names_that_can_be_everything_they_become() {
        for (text, ok) in [
            ("my-plugin", true),
            ("a", true),
            ("x2_y", true),
            ("", false),
            ("2x", false),
            ("My", false),
            ("../x", false),
            ("a b", false),
            ("fn", false),
            ("state", false),
            ("score", false),
        ] {
            assert_eq!(name(text).is_ok(), ok, "{text:?}");
        }
        assert_eq!(type_name("my-big_plugin2"), "MyBigPlugin2");
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
        let refused = create(dir.path(), "my-plugin", true).unwrap_err();
        assert!(
            matches!(&refused, Failure::Refused(text) if text.contains("not empty")),
            "{refused:?}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// The whole way of a newcomer: new, test, build, load.
    #[test]
    fn what_is_made_passes_its_tests_builds_and_loads() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = Runtime::new(None).unwrap();
        for (keyed, kind, state) in [
            (true, Kind::Keyed, StateLayout::Fixed(3)),
            (false, Kind::Transform, StateLayout::None),
        ] {
            let name = if keyed {
                "fresh-keyed"
            } else {
                "fresh-transform"
            };
            let dir = parent.path().join(name);
            create(&dir, name, keyed).unwrap();
            assert!(build::test(&dir, &["--quiet".into()]).unwrap().success());
            let mut said = Vec::new();
            let built = build::build(&dir, None, &mut |line| said.push(line.to_owned())).unwrap();
            assert_eq!(built.path, dir.join(format!("{name}.wasm")));
            assert!(
                said.last()
                    .unwrap()
                    .contains(&format!("{} bytes", built.bytes)),
                "{said:?}"
            );
            assert!(build::is_fresh(&dir, &built.path));
            let plugin = runtime.load(name, &fs::read(&built.path).unwrap()).unwrap();
            assert_eq!((plugin.kind(), plugin.description().state), (kind, state));
            assert_eq!(plugin.digest(), built.digest);
        }
    }
}
