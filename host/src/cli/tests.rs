//! The command line as clap reads it: what is accepted, what is refused, and that every command has help with an example.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("tidemill").chain(line.split_whitespace()))
}

#[test]
fn the_commands_of_the_contract() {
    Arguments::command().debug_assert();
    for line in [
        "demo",
        "demo --for 20s",
        "run p.toml",
        "run p.toml --brokers embedded --until-end --keep-open --set a.b=c --drop-state s --summary s.json",
        "check p.toml",
        "check p.toml --brokers embedded --set host.workers=2 --set a.b=c",
        "check p.toml --diagram",
        "check p.toml --explain --set host.workers=2",
        "reset p.toml",
        "reset p.toml --yes",
        "reset p.toml --to earliest",
        "reset p.toml --to 2026-01-01T00:00:00+02:00 --brokers localhost:9092 --yes",
        "reset p.toml --to offsets.json --set a.b=c",
        "generate --kind clicks --per-second 10 --count 5 --seed 3 --speed 60 --out data",
        "generate --brokers localhost:9092",
        "plugin new my-plugin",
        "plugin new my-plugin --keyed",
        "plugin build",
        "plugin build plugins/anomaly --out x.wasm",
        "plugin inspect x.wasm",
        "plugin inspect x.wasm --pipeline p.toml --step s",
        "plugin test",
        "plugin test plugins/anomaly -- --nocapture",
        "plugin swap p.toml s x.wasm",
        "plugin swap p.toml s x.wasm --json",
        "plugin rollback p.toml s",
        "plugin history p.toml s --json",
        "status",
        "status p.toml --json",
        "snapshot p.toml copy",
        "snapshot p.toml copy --json",
        "restore p.toml copy",
        "restore p.toml copy --replace --abandon 000102030405060708090a0b0c0d0e0f",
        "state list p.toml",
        "state list p.toml s --prefix u --limit 5 --json",
        "state get p.toml s u1",
        "state get p.toml s -5 --json",
    ] {
        if let Err(e) = parse(line) {
            panic!("{line}: {e}");
        }
    }
}

#[test]
fn bad_usage_is_exit_code_2() {
    for line in [
        "unknown",
        "demo --for soon",
        "demo --for 20",
        "run",
        "check",
        "check p.toml --set nonsense",
        "check p.toml --diagram --explain",
        "reset",
        "reset p.toml --to",
        "reset p.toml --to yesterday",
        "plugin",
        "plugin new",
        "plugin new Bad/Name",
        "plugin inspect x.wasm --step s",
        "plugin inspect x.wasm --pipeline p.toml",
        "plugin swap p.toml s",
        "status p.toml extra",
        "generate",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn help_and_version_are_no_failure() {
    for (line, kind) in [
        ("--help", ErrorKind::DisplayHelp),
        ("plugin build --help", ErrorKind::DisplayHelp),
        ("--version", ErrorKind::DisplayVersion),
    ] {
        let shown = parse(line).unwrap_err();
        assert_eq!((shown.kind(), shown.exit_code()), (kind, 0), "{line}");
    }
}

#[test]
fn every_command_says_what_it_does_with_an_example() {
    fn walk(command: &clap::Command) {
        for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
            let name = sub.get_name();
            assert!(sub.get_about().is_some(), "{name}");
            if sub.has_subcommands() {
                walk(sub);
            } else {
                let after = sub
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(after.contains("tidemill "), "{name} has no example");
            }
            for argument in sub.get_arguments().filter(|a| a.get_id() != "help") {
                assert!(
                    argument.get_help().is_some(),
                    "{name} {}",
                    argument.get_id()
                );
            }
        }
    }
    walk(&Arguments::command());
}
