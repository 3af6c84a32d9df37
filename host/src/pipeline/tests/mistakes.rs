//! A table of wrong files: `«` marks where each mistake is to be shown, in the order of the file.

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

const FIELDS: &str = "fields = { a = \"string\" }\n";

#[test]
fn the_file_itself() {
    check("««", &["no source", "`name` is missing"]);
    check("«name = \"p\"\n", &["no source"]);
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
fn connectors_of_sources() {
    let cases: &[(&str, &[&str])] = &[
        ("[sources.«s]\n", &["[sources.s] names no connector"]),
        (
            "[sources.s]\nfile = { path = \"a.csv\" }\n«kafka = { topic = \"t\" }\n",
            &["two connectors: `kafka` and `file`"],
        ),
        (
            "[sources.s]\n«file = {}\n",
            &["`path` is missing in `file` of [sources.s]"],
        ),
        (
            "[sources.s]\nfile = { path = «\"a.parquet\" }\n",
            &["`.parquet` files are not supported yet"],
        ),
        (
            "[sources.s]\nfile = { path = «\"a.log\" }\n",
            &["add format ="],
        ),
        (
            "[sources.s]\nformat = «\"avro\"\nfile = { path = \"a.jsonl\" }\n",
            &["is not supported yet"],
        ),
        (
            "[sources.s]\nfile = { path = \"a.csv\", «pth = 1 }\n",
            &["did you mean `path`?"],
        ),
        (
            "[sources.s]\n«parquet = { dir = \"a\" }\n",
            &["`parquet` in [sources.s] is not supported yet"],
        ),
        (
            "[sources.s]\n«kafka = { topic = \"t\" }\n",
            &["no brokers are named"],
        ),
        (
            "[sources.s]\nkafka = { topic = «\"a b\", brokers = \"h:1\" }\n",
            &["is no name of a topic"],
        ),
        (
            "[sources.s]\nkafka = { «topics = [\"a\"], brokers = \"h:1\" }\n",
            &["`topics` in `kafka` of [sources.s] is not supported yet"],
        ),
        (
            "[sources.s]\nkafka = { «pattern = \"a.*\", brokers = \"h:1\" }\n",
            &["not supported yet"],
        ),
        (
            "[sources.s]\nkafka = { topic = \"t\", start = «\"first\", brokers = \"h:1\" }\n",
            &["expected \"earliest\", \"latest\" or a time, found \"first\""],
        ),
        (
            "[sources.s]\nkafka = { topic = \"t\", on_data_loss = «\"latest\", brokers = \"h:1\" }\n",
            &["expected \"stop\""],
        ),
        (
            "[sources.s]\nkafka = { topic = \"t\", brokers = «\"localhost\" }\n",
            &["\"localhost\" is no address"],
        ),
        (
            "[sources.s]\nbad_records = «\"drop\"\nfile = { path = \"a.csv\" }\n",
            &["expected \"dead-letter\""],
        ),
        (
            "[sources.s]\nlimit = { per_second = «0, per_epoch = «1.5 }\nfile = { path = \"a.csv\" }\n",
            &["a number above 0", "expected a whole number, found a float"],
        ),
        (
            "[sources.«Clicks]\nfile = { path = \"a.csv\" }\n",
            &["such as `clicks`"],
        ),
        (
            "[sources.«\"a b\"]\nfile = { path = \"a.csv\" }\n",
            &["`a b` is no id"],
        ),
    ];
    for (marked, expected) in cases {
        check(&format!("name = \"p\"\n{marked}{FIELDS}"), expected);
    }
}

#[test]
fn generators() {
    let cases: &[(&str, &[&str])] = &[
        ("«generate = {}", &["`kind` is missing"]),
        (
            "generate = { kind = «\"click\" }",
            &["did you mean \"clicks\"?"],
        ),
        (
            "generate = { kind = \"clicks\", per_second = «-5 }",
            &["above 0"],
        ),
        (
            "generate = { kind = \"clicks\", count = «-1 }",
            &["`count` is -1"],
        ),
        (
            "generate = { kind = \"clicks\", start = «\"now\" }",
            &["a time looks like"],
        ),
        (
            "generate = { kind = \"clicks\" }\n«fields = { a = \"string\" }",
            &["brings its own `fields`"],
        ),
        (
            "generate = { kind = \"clicks\" }\n«format = \"json\"",
            &["brings its own `format`"],
        ),
    ];
    for (marked, expected) in cases {
        check(&format!("name = \"p\"\n[sources.s]\n{marked}\n"), expected);
    }
}

#[test]
fn fields_and_event_time() {
    let head = "name = \"p\"\n[sources.s]\nfile = { path = \"s.jsonl\" }\n";
    let cases: &[(&str, &[&str])] = &[
        ("fields = { a = «\"integer\" }", &["did you mean \"int\"?"]),
        (
            "fields = { a = «\"strin?\" }",
            &["did you mean \"string\"?"],
        ),
        (
            "fields = { a = «\"decimal(10,2)\", b = «\"date\" }",
            &["not supported yet", "not supported yet"],
        ),
        ("fields = { a = «7 }", &["expected a type"]),
        ("«fields = {}", &["names no column"]),
        (
            "fields = { «a = { «pth = \"x\", type = \"int\" } }",
            &["`path` is missing", "did you mean `path`?"],
        ),
        (
            "fields = { a = { path = «\"x..y\", type = \"int\" } }",
            &["is no path"],
        ),
        (
            "fields = { «a = { path = \"x\" } }",
            &["`type` is missing in field `a`"],
        ),
        ("fields = { «_time = \"timestamp\" }", &["reserved"]),
        (
            "fields = { a = \"string\" }\nevent_time = { field = «\"b\" }",
            &["has no column `b`"],
        ),
        (
            "fields = { a = \"string\" }\nevent_time = { field = «\"a\" }",
            &["is of type \"string\""],
        ),
        (
            "fields = { a = \"timestamp?\" }\nevent_time = { field = «\"a\" }",
            &["\"timestamp?\""],
        ),
        (
            "fields = { a = \"timestamp\" }\nevent_time = { field = \"a\", lateness = «300 }",
            &["expected a duration such as \"5m\", found an integer"],
        ),
        (
            "fields = { a = \"timestamp\" }\nevent_time = { field = \"a\", «latenes = \"5m\" }",
            &["did you mean `lateness`?"],
        ),
        (
            "fields = { a = \"timestamp\" }\n«event_time = {}",
            &["`field` is missing"],
        ),
    ];
    for (marked, expected) in cases {
        check(&format!("{head}{marked}\n"), expected);
    }
    check(
        "name = \"p\"\n[sources.«s]\nfile = { path = \"s.csv\" }\n",
        &["`fields` is missing"],
    );
}

#[test]
fn tables() {
    let cases: &[(&str, &[&str])] = &[
        (
            "[tables.«t]\nkey = \"a\"\nfields = { a = \"string\" }\n",
            &["`file` is missing"],
        ),
        (
            "[tables.«t]\nfile = { path = \"t.csv\" }\nfields = { a = \"string\" }\n",
            &["`key` is missing"],
        ),
        (
            "[tables.t]\nfile = { path = \"t.csv\" }\nkey = «\"b\"\nfields = { a = \"string\" }\n",
            &["the table has no column `b`"],
        ),
        (
            "[tables.t]\n«kafka = { topic = \"t\" }\nkey = \"a\"\nfields = { a = \"string\" }\n",
            &["`kafka` in [tables.t] is not supported yet"],
        ),
    ];
    with_source(cases);
}

#[test]
fn names_of_rows() {
    with_source(&[
        ("[steps.«a]\n", &["`from` is missing"]),
        (
            "[steps.a]\nfrom = «\"click\"\n",
            &["did you mean `clicks`?"],
        ),
        ("[steps.a]\nfrom = «\"clicks.late\"\n", &["it has no ports"]),
        (
            "[steps.a]\nfrom = «\"b.late\"\n[steps.b]\nfrom = \"clicks\"\n",
            &["step `b` has no port `late`"],
        ),
        (
            "[steps.a]\nfrom = «\"b\"\n[steps.b]\nfrom = \"a\"\n",
            &["a -> b -> a"],
        ),
        (
            "[steps.x]\nfrom = \"c\"\n[steps.a]\nfrom = «\"b\"\n[steps.b]\nfrom = \"c\"\n[steps.c]\nfrom = \"a\"\n",
            &["a -> c -> b -> a"],
        ),
        ("[steps.a]\nfrom = «\"a\"\n", &["a -> a"]),
        (
            "[steps.«clicks]\nfrom = \"clicks\"\n",
            &["names a source and a step"],
        ),
        (
            "[steps.a]\nfrom = «\"out\"\n[sinks.out]\nfrom = [\"clicks\"]\nconsole = {}\n",
            &["nothing reads from a sink"],
        ),
    ]);
    with_table(&[(
        "[steps.a]\nfrom = «\"products\"\n",
        &["a table is read with `lookup`"],
    )]);
}

#[test]
fn operators_of_later_versions_are_refused_by_name() {
    with_source(&[
        (
            "[steps.a]\nfrom = \"clicks\"\n«window = { tumbling = \"1m\" }\n«aggregate = { n = \"count(*)\" }\nkey = [\"user\"]\n",
            &[
                "`window` in [steps.a] is not supported yet",
                "`aggregate` in [steps.a] is not supported yet",
            ],
        ),
        (
            "[steps.a]\n«join = { left = \"clicks\" }\n",
            &["`join` in [steps.a] is not supported yet"],
        ),
        (
            "[steps.a]\nfrom = «[\"clicks\", \"b\"]\n[steps.b]\nfrom = \"clicks\"\n",
            &["a union) is not supported yet"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\n«deduplicate = { on = [\"user\"] }\n",
            &["`deduplicate`"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\n«top = { n = 3 }\n",
            &["`top`"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\n«allowed_lateness = \"1m\"\n",
            &["`allowed_lateness`"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\n«state_ttl = \"30d\"\n",
            &["`state_ttl`"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\n«parquet = { dir = \"x\" }\n",
            &["`parquet` in [sinks.s] is not supported yet"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\n«postgres = {}\n",
            &["not supported yet"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\n«http = {}\n",
            &["not supported yet"],
        ),
    ]);
}

#[test]
fn steps() {
    with_source(&[
        (
            "[steps.a]\nfrom = \"clicks\"\n«wher = \"n > 1\"\n",
            &["did you mean `where`?"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nwhere = «1\n",
            &["`where`: expected a string"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nselect = «[]\n",
            &["names no column"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nselect = [\"user\", «5]\n",
            &["expected a string, found an integer"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\n«key = [\"user\"]\n",
            &["a filter step has no `key`"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nwhere = \"«amout > 1\"\n",
            &["amout"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nselect = [\"user\", \"n + «nn\"]\n",
            &["nn"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nwhere = \"user = \\\"x\\\" and «amout > 1\"\n",
            &["amout"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nwhere = '''\nn > 1 and\n  «amout > 1'''\n",
            &["amout"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nwhere = \"«amout > 1\"\nselect = [\"«usr\", \"«m\"]\n",
            &["amout", "usr", "m"],
        ),
        // What reads from a step that is wrong is not blamed.
        (
            "[steps.a]\nfrom = \"clicks\"\nselect = [\"«usr\"]\n[steps.b]\nfrom = \"a\"\nwhere = \"zzz > 1\"\n",
            &["usr"],
        ),
    ]);
}

#[test]
fn lookups() {
    let step = "[steps.a]\nfrom = \"clicks\"\n";
    let cases: &[(&str, &[&str])] = &[
        (
            "lookup = { table = «\"product\", on = \"user\", add = [\"price\"] }",
            &["did you mean `products`?"],
        ),
        (
            "lookup = { table = \"products\", on = «\"usr\", add = [\"price\"] }",
            &["did you mean `user`?"],
        ),
        (
            "lookup = { table = \"products\", on = \"user\", add = [«\"prize\"] }",
            &["did you mean `price`?"],
        ),
        (
            "lookup = { table = \"products\", on = \"user\", add = [«\"amount\"] }",
            &["already has it"],
        ),
        (
            "lookup = { table = \"products\", on = \"user\", add = [\"price\", «\"price\"] }",
            &["added twice"],
        ),
        (
            "lookup = { table = \"products\", on = «\"amount\", add = [\"price\"] }",
            &["of type float, the key `id` of table `products` of type string"],
        ),
        (
            "«lookup = { table = \"products\", on = \"user\" }",
            &["`add` is missing"],
        ),
        (
            "lookup = { table = \"products\", on = \"user\", add = [\"price\"] }\n«where = \"n > 1\"",
            &["a lookup step has no `where`"],
        ),
    ];
    for (marked, expected) in cases {
        check(&format!("{SOURCE}{TABLE}{step}{marked}\n"), expected);
    }
}

#[test]
fn plugins() {
    let step = "[steps.a]\nfrom = \"clicks\"\n";
    let cases: &[(&str, &[&str])] = &[
        (
            "plugin = { file = «\"no.wasm\" }",
            &["tidemill plugin build"],
        ),
        (
            "«plugin = {}",
            &["`file` is missing in `plugin` of [steps.a]"],
        ),
        (
            "plugin = { file = «\"no.wasm\", config = «5 }",
            &["no such file", "`config`: expected a table"],
        ),
        (
            "plugin = { file = «\"no.wasm\", config = { x = «nan } }",
            &["no such file", "JSON"],
        ),
        (
            "plugin = { file = «\"no.wasm\", sha256 = «\"abc\" }",
            &["no such file", "is no SHA-256 digest"],
        ),
        (
            "plugin = { file = «\"no.wasm\" }\nkey = [«\"usr\"]",
            &["no such file", "the input has no column `usr`"],
        ),
        (
            "plugin = { file = «\"no.wasm\" }\nkey = [\"user\", «\"user\"]",
            &["no such file", "names column `user` twice"],
        ),
        (
            "plugin = { file = «\"no.wasm\" }\nkey = «[]",
            &["no such file", "`key` names no column"],
        ),
        (
            "plugin = { file = «\"no.wasm\" }\norder = «\"time\"",
            &["no such file", "expected \"arrival\" or \"event-time\""],
        ),
        (
            "plugin = { file = «\"no.wasm\" }\nlimits = { memory = «\"64\" }",
            &["no such file", "a size needs a unit"],
        ),
        (
            "plugin = { file = «\"no.wasm\" }\nlimits = { failed = «\"110%\" }",
            &["no such file", "at most 100%"],
        ),
        (
            "plugin = { file = «\"no.wasm\" }\nlimits = { call = «\"1us\", memory = «\"1KB\" }",
            &["no such file", "shorter than 1ms", "below 1MB"],
        ),
        (
            "plugin = { file = «\"no.wasm\" }\n«select = [\"user\"]",
            &["no such file", "a plugin step has no `select`"],
        ),
        (
            "lookup = { table = \"products\", on = \"user\", add = [\"price\"] }\n«plugin = { file = \"no.wasm\" }",
            &["has both `lookup` and `plugin`"],
        ),
    ];
    for (marked, expected) in cases {
        check(&format!("{SOURCE}{TABLE}{step}{marked}\n"), expected);
    }
}

#[test]
fn sinks() {
    with_source(&[
        ("[sinks.«s]\nconsole = {}\n", &["`from` is missing"]),
        ("[sinks.s]\nfrom = «[]\nconsole = {}\n", &["names nothing"]),
        (
            "[sinks.s]\nfrom = [\"clicks\", «\"clicks\"]\nconsole = {}\n",
            &["named twice"],
        ),
        (
            "[sinks.s]\nfrom = [«\"click\"]\nconsole = {}\n",
            &["did you mean `clicks`?"],
        ),
        ("[sinks.«s]\nfrom = [\"clicks\"]\n", &["names no connector"]),
        (
            "[sinks.s]\nfrom = \"clicks\"\nconsole = {}\n«file = { path = \"x\" }\n",
            &["two connectors"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\nfile = { path = «\"x.csv\" }\n",
            &["writes JSON lines"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\nfile = { path = \"x\", existing = «\"replace\" }\n",
            &["\"overwrite\""],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\nfile = { path = «\"./a/../clicks.jsonl\" }\n",
            &["writes to the file of source `clicks`"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\nfile = { path = \"x\" }\n[sinks.t]\nfrom = \"clicks\"\nfile = { path = «\"x\" }\n",
            &["writes to the file of sink `s`"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\nfile = { path = \"x\" }\n[dead_letters]\nfile = { path = «\"x\" }\n",
            &["[dead_letters] writes to the file of sink `s`"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\nkafka = { topic = \"t\", key = [«\"id\"], brokers = \"h:1\" }\n",
            &["input `clicks` has no column `id`"],
        ),
        (
            "[sinks.s]\nfrom = \"clicks\"\n«kafka = { topic = \"t\" }\n",
            &["no brokers are named"],
        ),
        (
            "[sinks.s]\nfrom = [\"clicks\", «\"a\"]\nconsole = {}\n[steps.a]\nfrom = \"clicks\"\nselect = [\"user as step\"]\n",
            &["a column `step`"],
        ),
    ]);
    check(
        &format!("{SOURCE}[«dead_letters]\n«fil = {{}}\n"),
        &["[dead_letters] names no connector", "did you mean `file`?"],
    );
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
            "[host]\ndelivery = «\"exactly-once\"\n[kafka]\nbrokers = \"h:1\"\n[sinks.s]\nfrom = \"clicks\"\nkafka = { topic = \"t\" }\n",
            &["with output to Kafka is not supported yet"],
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
