//! A table of wrong files: `«` marks where each mistake is to be shown, in the order of the file.

mod files;
mod inputs;
mod remote;
mod rows;
mod transactions;
mod windows;

use super::mistakes;

/// What the cases with [`with_source`] stand behind.
const SOURCE: &str = r#"name = "p"
[sources.clicks]
file = { path = "clicks.jsonl" }
fields = { user = "string", amount = "float", n = "int?", at = "timestamp" }
event_time = { field = "at" }
"#;
const TABLE: &str = r#"[tables.products]
file = { path = "products.csv" }
key = "id"
fields = { id = "string", price = "float", amount = "float" }
"#;

/// Checks that exactly `expected` is found, each at its mark; a part of the message or of the help will do.
fn check(marked: &str, expected: &[&str]) {
    let mut text = String::new();
    let mut places = Vec::new();
    let (mut line, mut column) = (1, 1);
    for c in marked.chars() {
        if c == '«' {
            places.push((line, column));
            continue;
        }
        text.push(c);
        (line, column) = if c == '\n' {
            (line + 1, 1)
        } else {
            (line, column + 1)
        };
    }
    let report = mistakes(&text);
    let found: Vec<_> = report
        .diagnostics
        .iter()
        .map(|d| (d.place.line, d.place.column))
        .collect();
    assert_eq!(found, places, "places of\n{report}\nin\n{text}");
    for (diagnostic, part) in report.diagnostics.iter().zip(expected) {
        let help = diagnostic.help.as_deref().unwrap_or_default();
        let said = format!("{}; {}; {help}", diagnostic.message, diagnostic.label);
        assert!(said.contains(part), "no `{part}` in `{said}`");
    }
    assert_eq!(found.len(), expected.len(), "{report}");
}

fn with_source(cases: &[(&str, &[&str])]) {
    for (marked, expected) in cases {
        check(&format!("{SOURCE}{marked}"), expected);
    }
}

fn with_table(cases: &[(&str, &[&str])]) {
    for (marked, expected) in cases {
        check(&format!("{SOURCE}{TABLE}{marked}"), expected);
    }
}

#[test]
fn the_file_itself() {
    check("««", &["`name` is missing", "no source"]);
    check("«name = \"p\"\n", &["no source"]);
    check("name = \"p\"\n[«sources]\n", &["no source"]);
}

#[test]
fn name_and_host() {
    let rest = "\n[sources.s]\nfile = { path = \"s.csv\" }\nfields = { a = \"string\" }\n";
    let cases: &[(&str, &[&str])] = &[
        ("name = «\"My Pipeline\"", &["is no pipeline name"]),
        ("name = «\"\"", &["`name` is empty"]),
        (
            "name = «5",
            &["`name`: expected a string, found an integer"],
        ),
        (
            "««nam = \"p\"",
            &["`name` is missing", "did you mean `name`?"],
        ),
        ("name = \"p\"\n[«hosts]", &["did you mean `host`?"]),
        (
            "name = \"p\"\nhost = «3",
            &["`host`: expected a table, found an integer"],
        ),
        (
            "name = \"p\"\n[[«host]]",
            &["`host`: expected a table, found an array of tables"],
        ),
        (
            "name = \"p\"\n[host]\nworkers = «0",
            &["`workers` is 0, expected 1 to 256"],
        ),
        (
            "name = \"p\"\n[host]\nworkers = «\"2\"",
            &["expected a whole number, found a string"],
        ),
        (
            "name = \"p\"\n[host]\n«worker = 2",
            &["did you mean `workers`?"],
        ),
        (
            "name = \"p\"\n[host]\n«checkpoint_every = \"1ms\"",
            &["shorter than 10ms"],
        ),
        (
            "name = \"p\"\n[host]\ncheckpoint_every = «5",
            &["expected a duration such as \"5m\", found an integer"],
        ),
        (
            "name = \"p\"\n[host]\ncheckpoint_every = «\"5 weeks\"",
            &["`weeks` is no unit of time"],
        ),
        (
            "name = \"p\"\n[host]\ndelivery = «\"exactly_once\"",
            &["did you mean \"exactly-once\"?"],
        ),
        ("name = \"p\"\n[host]\nkey_groups = «99999", &["1 to 32768"]),
        (
            "name = \"p\"\n[host]\nstate_memory = «\"10KB\"",
            &["`state_memory` is below 64KB"],
        ),
        (
            "name = \"p\"\n[host]\nstate_memory = «1000000",
            &["expected a size such as"],
        ),
        (
            "name = \"p\"\n[host]\nadmin = { port = «70000 }",
            &["0 to 65535"],
        ),
        (
            "name = \"p\"\n[host]\nadmin = { «prt = 1 }",
            &["did you mean `port`?"],
        ),
        (
            "name = \"p\"\n[host]\nstate = «[1]",
            &["expected a string, found an array"],
        ),
        (
            "name = \"p\"\n[host]\nmetrics = «5",
            &["expected a string, found an integer"],
        ),
        (
            "name = \"p\"\n[host]\nmetrics = «\"output/\"",
            &["\"output/\" names no file"],
        ),
        (
            "name = \"p\"\n[host]\n«metric = \"m.json\"",
            &["did you mean `metrics`?"],
        ),
    ];
    for (marked, expected) in cases {
        check(&format!("{marked}{rest}"), expected);
    }
}

#[test]
fn syntax_and_duplicates() {
    with_source(&[
        (
            "[steps.a]\nfrom = \"clicks\"\n«from = \"clicks\"\n",
            &["duplicate key `from`"],
        ),
        ("[sources.«clicks]\n", &["first on line 2"]),
        (
            "[steps.a]\nfrom = \"clicks\"\n[steps.«a]\nwhere = \"n > 1\"\n",
            &["duplicate key `a`"],
        ),
        (
            "[steps]\na = { from = \"clicks\", «from = \"x\" }\n",
            &["duplicate key `from`"],
        ),
        (
            "[steps]\na = { from = \"clicks\" }\n[steps.«a.b]\n",
            &["duplicate key `a`"],
        ),
        ("[«name.x]\n", &["duplicate key `name`"]),
        // What follows a mistake in the notation is checked all the same.
        (
            "[steps.a]\nfrom = «clicks\n[steps.b]\nfrom = «\"clik\"\n",
            &["not TOML", "there is no source or step `clik`"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\n[host]\nworkers = «99999999999999999999\n",
            &["64 bits"],
        ),
    ]);
}

#[test]
fn kafka() {
    with_source(&[
        ("[«kafka]\n", &["`brokers` is missing in [kafka]"]),
        (
            "[kafka]\nbrokers = \"h:1\"\nproperties = { «security.protocol = \"SSL\" }\n",
            &["put the name in quotes"],
        ),
        (
            "[kafka]\nbrokers = \"h:1\"\n[sinks.a]\nfrom = \"clicks\"\nkafka = { topic = \"t\" }\n[sinks.«b]\nfrom = \"clicks\"\nkafka = { topic = \"u\", brokers = \"i:1\" }\n",
            &["sink `b` has another Kafka cluster than sink `a`"],
        ),
        (
            "[kafka]\nbrokers = \"h:1\"\n[sinks.a]\nfrom = \"clicks\"\nkafka = { topic = \"t\" }\n[sinks.«b]\nfrom = \"clicks\"\nkafka = { topic = \"u\", properties = { \"linger.ms\" = \"9\" } }\n",
            &["sink `b` has other properties than sink `a`"],
        ),
        (
            "[host]\ndelivery = «\"exactly-once\"\n[kafka]\nbrokers = \"embedded\"\n",
            &["the embedded broker has no exactly-once delivery"],
        ),
        (
            "[kafka]\nbrokers = \"h:1\"\nproperties = { «\"plugin.library.paths\" = \"x\" }\n[sinks.s]\nfrom = \"clicks\"\nkafka = { topic = \"t\" }\n",
            &["plugin.library.paths"],
        ),
        (
            "[kafka]\nbrokers = \"h:1\"\nproperties = { \"sasl.password\" = «\"${env:TIDEMILL_NO_SUCH_VARIABLE}\" }\n[sinks.s]\nfrom = \"clicks\"\nkafka = { topic = \"t\" }\n",
            &["`sasl.password`: the environment variable TIDEMILL_NO_SUCH_VARIABLE is not set"],
        ),
        (
            "[kafka]\nbrokers = \"h:1\"\nproperties = { \"security.protocol\" = \"SSL\", \"ssl.ca.location\" = «\"no-such.pem\" }\n[sinks.s]\nfrom = \"clicks\"\nkafka = { topic = \"t\" }\n",
            &["`ssl.ca.location`: /nowhere/no-such.pem: No such file"],
        ),
        (
            "[kafka]\nbrokers = \"h:1\"\nproperties = { «\"ssl.ca.pem\" = \"x\" }\n[sinks.s]\nfrom = \"clicks\"\nkafka = { topic = \"t\" }\n",
            &["ssl.ca.pem has no effect: security.protocol is PLAINTEXT"],
        ),
        (
            "[kafka]\nbrokers = \"h:1\"\nproperties = { \"sasl.password\" = «\"hunter2\" }\n",
            &["the secret `sasl.password` is written out"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nwhere = «\"user = '${env:HOME}'\"\n",
            &["references are not resolved here"],
        ),
    ]);
}

#[test]
fn mistakes_of_all_kinds_are_found_at_once() {
    check(
        "name = «\"P\"
[host]
workers = «-1
«hots = 1
[sources.clicks]
file = { path = \"c.jsonl\" }
fields = { a = «\"strng\" }
[sources.buys]
file = { path = \"b.jsonl\" }
fields = { a = \"string\" }
[steps.x]
from = «\"byus\"
[steps.y]
from = \"buys\"
where = \"a = 'x' and «b > 1\"
[steps.z]
from = \"clicks\"
where = \"anything = 1\"
[sinks.out]
from = [\"z\", «\"w\"]
file = { path = \"out.jsonl\" }
",
        &[
            "no pipeline name",
            "`workers` is -1",
            "unknown key `hots`",
            "did you mean \"string\"?",
            "did you mean `buys`?",
            "b",
            "there is no source or step `w`",
        ],
    );
}

#[test]
fn a_secret_is_in_no_report() {
    let text = format!(
        "{SOURCE}[kafka]\nbrokers = \"h:1\"\nproperties = {{ \"sasl.password\" = \"hunter2\", \"ssl.key.password\" = \"hunter2\", \"no.such\" = 1 }}\n"
    );
    for text in [
        text.clone(),
        text.replace("\" }", " }"),
        text.replace('}', ""),
    ] {
        let report = mistakes(&text);
        assert!(!report.diagnostics.is_empty());
        assert!(!report.to_string().contains("hunter2"), "{report}");
        assert!(!format!("{report:?}").contains("hunter2"));
    }
}
