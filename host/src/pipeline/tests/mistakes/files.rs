//! Wrong sinks that write files.

use super::super::{Overrides, check_text};
use super::{SOURCE, check, with_source};

/// The one mistake of a sink `s` of `clicks` with this connector.
fn sink(connector: &str, expected: &str) {
    check(
        &format!("{SOURCE}[sinks.s]\nfrom = \"clicks\"\n{connector}\n"),
        &[expected],
    );
}

#[test]
fn a_single_file() {
    for (connector, expected) in [
        ("«file = {}", "`path` is missing"),
        ("file = { path = «\"x.parquet\" }", "parquet = { dir"),
        ("file = { path = «\"x.csv.gz\" }", "not supported yet"),
        (
            "file = { path = «\"x.csv\", format = \"json\" }",
            "ends in `.csv`",
        ),
        (
            "file = { path = \"x\", format = «\"cvs\" }",
            "did you mean \"csv\"?",
        ),
        (
            "file = { path = \"x\", «roll = \"1h\" }",
            "`roll` is for a directory",
        ),
        ("file = { path = \"x\", «rol = 1 }", "unknown key `rol`"),
    ] {
        sink(connector, expected);
    }
}

#[test]
fn directories() {
    for (connector, expected) in [
        ("«parquet = {}", "`dir` is missing"),
        ("parquet = { dir = «\"\" }", "`dir` is empty"),
        (
            "parquet = { «path = \"x\", dir = \"x\" }",
            "unknown key `path`",
        ),
        (
            "file = { dir = \"x\", «path = \"y\" }",
            "a `path` and a `dir`",
        ),
        (
            "file = { dir = \"x\", existing = «\"overwrite\" }",
            "expected \"refuse\" or \"append\"",
        ),
        (
            "parquet = { dir = \"x\", roll = «5 }",
            "expected a duration",
        ),
        ("parquet = { dir = \"x\", roll = «\"0s\" }", "`roll` is 0"),
        (
            "parquet = { dir = \"x\", roll_bytes = «\"12B\" }",
            "1 KB to 64 GB",
        ),
        (
            "parquet = { dir = \"x\", partition_by = «\"user\" }",
            "expected a list such as",
        ),
        (
            "parquet = { dir = \"x\", partition_by = [«\"usr\"] }",
            "did you mean `user`?",
        ),
        (
            "parquet = { dir = \"x\", partition_by = [«\"amount\"] }",
            "cannot be partitioned by a float",
        ),
        (
            "parquet = { dir = \"x\", partition_by = [\"user\", «\"user\"] }",
            "named twice",
        ),
    ] {
        sink(connector, expected);
    }
    check(
        &format!(
            "{SOURCE}[steps.a]\nfrom = \"clicks\"\nselect = [\"user\"]\n[sinks.s]\nfrom = \"a\"\n\
             parquet = {{ dir = \"x\", partition_by = [«\"user\"] }}\n"
        ),
        &["no column is left"],
    );
}

#[test]
fn tables_have_one_set_of_columns() {
    const STEPS: &str = "[steps.a]\nfrom = \"clicks\"\nselect = [\"user\", \"n\"]\n\
        [steps.b]\nfrom = \"clicks\"\nselect = [\"user\", \"1 as n\"]\n\
        [steps.c]\nfrom = \"clicks\"\nselect = [\"user\", \"amount\"]\n\
        [steps.d]\nfrom = \"clicks\"\nselect = [\"user\", \"amount as n\"]\n\
        [steps.e]\nfrom = \"clicks\"\nselect = [\"user\"]\n";
    let cases = [
        ("\"a\", \"b\"", None),
        (
            "\"a\", «\"c\"",
            Some("column 2 is `n` in the one and `amount`"),
        ),
        ("\"a\", «\"d\"", Some("`n` is int in the one and float")),
        ("\"a\", «\"e\"", Some("only one of them has `n`")),
    ];
    for connector in [
        "parquet = { dir = \"x\", partition_by = [\"step\"] }",
        "file = { dir = \"x\", format = \"csv\" }",
        "file = { path = \"x.csv\" }",
    ] {
        for (from, expected) in cases {
            let expected: Vec<&str> = expected.into_iter().collect();
            let sink = format!("{SOURCE}{STEPS}[sinks.s]\nfrom = [{from}]\n{connector}\n");
            check(&sink, &expected);
        }
    }
}

#[test]
fn writers_in_each_others_way() {
    let first = "[sinks.s]\nfrom = \"clicks\"\nparquet = { dir = \"out/a\" }\n";
    let second = |connector: &str| format!("{first}[sinks.t]\nfrom = \"clicks\"\n{connector}\n");
    with_source(&[
        (
            &second("parquet = { dir = «\"./out/b/../a\" }"),
            &["sink `t` writes into the directory of sink `s`"],
        ),
        (
            &second("file = { dir = «\"out/a/b\" }"),
            &["sink `t` writes into"],
        ),
        (
            &second("file = { path = «\"out/a/b\" }"),
            &["sink `t` writes into"],
        ),
        (&second("parquet = { dir = \"out/ab\" }"), &[]),
        (
            &second("console = {}\n[dead_letters]\nfile = { path = «\"out/a/dead\" }"),
            &["[dead_letters] writes into"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\nparquet = { dir = «\"out/a\" }\n\
             [sinks.t]\nfrom = \"clicks\"\nfile = { dir = \"out\" }\n",
            &["sink `s` writes into the directory of sink `t`"],
        ),
    ]);
}

#[test]
fn a_directory_that_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("taken"), "").unwrap();
    let text = format!("{SOURCE}[sinks.s]\nfrom = \"clicks\"\nparquet = {{ dir = \"taken\" }}\n");
    let (plan, report) = check_text(dir.path(), &text, &Overrides::default());
    assert!(plan.is_none());
    let message = &report.diagnostics[0].message;
    assert_eq!(message, "`taken` is not a directory");
}
