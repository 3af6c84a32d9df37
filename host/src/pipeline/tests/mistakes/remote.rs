//! Wrong webhooks and Postgres tables, and secrets in them.

use super::{SOURCE, check, mistakes, with_source};

/// Checks sinks of which each case is the connector.
fn sinks(cases: &[(&str, &[&str])]) {
    for (marked, expected) in cases {
        let sink = format!("[sinks.s]\nfrom = \"clicks\"\n{marked}\n");
        check(&format!("{SOURCE}{sink}"), expected);
    }
}

#[test]
fn webhooks() {
    sinks(&[
        ("«webhook = {}", &["`url` is missing"]),
        ("webhook = { url = «5 }", &["expected a string"]),
        (
            "webhook = { url = «\"example.com\" }",
            &["neither http:// nor https://"],
        ),
        (
            "webhook = { url = «\"ftp://example.com\" }",
            &["neither http:// nor https://"],
        ),
        ("webhook = { url = «\"https://a b\" }", &["not a URL"]),
        (
            "webhook = { url = «\"https://app@h/\" }",
            &["give them as a header"],
        ),
        (
            "webhook = { url = «\"${env:TIDEMILL_NO_SUCH_VARIABLE}\" }",
            &["TIDEMILL_NO_SUCH_VARIABLE is not set"],
        ),
        (
            "webhook = { url = \"https://h/\", batch = «0, in_flight = «65 }",
            &["expected 1 to 10000", "expected 1 to 64"],
        ),
        (
            "webhook = { url = \"https://h/\", «timeout = \"0s\" }",
            &["no time at all"],
        ),
        (
            "webhook = { url = \"https://h/\", «header = {} }",
            &["did you mean `headers`?"],
        ),
        (
            "webhook = { url = \"https://h/\", headers = { «\"a b\" = \"x\" } }",
            &["no name of a header"],
        ),
        (
            "webhook = { url = \"https://h/\", headers = { «Host = \"x\" } }",
            &["set by the host itself"],
        ),
        (
            "webhook = { url = \"https://h/\", headers = { a = «5 } }",
            &["expected a string"],
        ),
        (
            "webhook = { url = \"https://h/\", headers = { Authorization = «\"Bearer x\" } }",
            &["the secret `Authorization` is written out"],
        ),
        (
            "webhook = { url = \"https://h/\", headers = { a = «\"x\\ny\" } }",
            &["characters that a header"],
        ),
        (
            "webhook = { url = \"https://h/\", ca = «\"no.pem\" }",
            &["no such file /nowhere/no.pem"],
        ),
        (
            "webhook = { url = \"https://h/\", on_reject = «\"skip\" }",
            &["\"stop\" or \"dead-letter\""],
        ),
        (
            "webhook = { url = \"https://h/\", format = «\"csv\" }",
            &["not supported yet"],
        ),
        (
            "webhook = { url = \"https://h/\" }\n«console = {}",
            &["two connectors"],
        ),
    ]);
    with_source(&[(
        "[steps.a]\nfrom = \"clicks\"\nselect = [\"n as _id\"]\n[sinks.s]\nfrom = [«\"a\"]\nwebhook = { url = \"https://h/\" }\n",
        &["a column `_id`, which a webhook adds itself"],
    )]);
}

#[test]
fn a_webhook_is_not_exactly_once() {
    let sink = "[sinks.s]\nfrom = \"clicks\"\nwebhook = { url = \"https://h/\" }\n";
    let host = "[host]\ndelivery = «\"exactly-once\"\n";
    check(&format!("{SOURCE}{host}{sink}"), &["sink `s` is a webhook"]);
}

#[test]
fn postgres_tables() {
    sinks(&[
        (
            "««postgres = {}",
            &["`table` is missing", "`url` is missing"],
        ),
        (
            "postgres = { url = «\"db\", table = \"t\" }",
            &["not a connection URL"],
        ),
        (
            "postgres = { url = «\"postgres://u@h/d?sslmode=on\", table = \"t\" }",
            &["`sslmode` is one of"],
        ),
        (
            "postgres = { url = «\"postgres://u@h/d?sslrootcert=x\", table = \"t\" }",
            &["`ca`"],
        ),
        (
            "postgres = { url = \"postgres://u@h/d\", table = «\"a.b.c\" }",
            &["no name of a table"],
        ),
        (
            "postgres = { url = \"postgres://u@h/d\", table = «\"\" }",
            &["`table` is empty"],
        ),
        (
            "postgres = { url = \"postgres://u@h/d\", table = \"t\", key = [«\"usr\"] }",
            &["did you mean `user`?"],
        ),
        (
            "postgres = { url = \"postgres://u@h/d\", table = \"t\", key = [\"user\", «\"user\"] }",
            &["twice"],
        ),
        (
            "postgres = { url = \"postgres://u@h/d\", table = \"t\", mode = «\"upsert\" }",
            &["needs a `key`"],
        ),
        (
            "postgres = { url = \"postgres://u@h/d\", table = \"t\", mode = «\"update\" }",
            &["expected \"upsert\" or \"insert\""],
        ),
        (
            "postgres = { url = \"postgres://u@h/d\", table = \"t\", create = «1 }",
            &["expected true or false"],
        ),
        (
            "postgres = { url = \"postgres://u@h/d\", table = \"t\", «keys = [] }",
            &["did you mean `key`?"],
        ),
        (
            "postgres = { url = «\"postgres://u:hunter2@h/d\", table = \"t\" }",
            &["a password is written out"],
        ),
        (
            "postgres = { url = «\"host=h user=u password=hunter2\", table = \"t\" }",
            &["a password is written out"],
        ),
    ]);
}

#[test]
fn references_stand_in_urls_and_headers_only() {
    sinks(&[(
        "webhook = { url = «\"https://${env:TIDEMILL_NO_SUCH_VARIABLE}/\", ca = ««\"${env:HOME}\" }",
        &[
            "is not set",
            "no such file",
            "references are not resolved here",
        ],
    )]);
}

#[test]
fn a_secret_of_a_remote_sink_is_in_no_report() {
    for sink in [
        "webhook = { url = \"https://u:hunter2@h/\", no = 1 }",
        "webhook = { url = \"https://h/\", headers = { Authorization = \"hunter2\", \"X-Api-Key\" = \"hunter2\" } }",
        "webhook = { url = \"https://h/\", headers = { Authorization = \"hunter2\" ",
        "postgres = { url = \"postgres://u:hunter2@h/d?x=y\", tabel = \"t\" }",
        "postgres = { url = \"host=h password=hunter2 user=u\", table = \"t\" }",
        "postgres = { url = \"postgres://u:hun@ter2/hunter2@h/d\", table = \"t\" }",
    ] {
        let report = mistakes(&format!("{SOURCE}[sinks.s]\nfrom = \"clicks\"\n{sink}\n"));
        assert!(!report.diagnostics.is_empty());
        assert!(!report.to_string().contains("hunter2"), "{report}");
        assert!(!format!("{report:?}").contains("hunter2"));
    }
}
