//! Wrong sources and tables.

use super::{check, with_source};

const FIELDS: &str = "fields = { a = \"string\" }\n";

#[test]
fn connectors_of_sources() {
    let cases: &[(&str, &[&str])] = &[
        ("[sources.«s]\n", &["[sources.s] names no connector"]),
        (
            "[sources.s]\nfile = { path = \"a.csv\" }\n«kafka = { topic = \"t\", brokers = \"b:1\" }\n",
            &["two connectors: `kafka` and `file`"],
        ),
        (
            "[sources.s]\n«file = {}\n",
            &["`path` is missing in `file` of [sources.s]"],
        ),
        (
            "[sources.s]\nfile = { path = «\"a.avro\" }\n",
            &["`.avro` files are not supported yet"],
        ),
        (
            "[sources.s]\nfile = { path = «\"a.parquet.gz\" }\n",
            &["Parquet compresses its columns itself"],
        ),
        (
            "[sources.s]\nfile = { path = «\"a.gz\" }\n",
            &["add format = \"json\", \"csv\", \"text\""],
        ),
        (
            "[sources.s]\nformat = «\"csv\"\nkafka = { topic = \"t\", brokers = \"h:1\" }\n",
            &["no header line"],
        ),
        (
            "[sources.s]\nformat = «\"parquet\"\nkafka = { topic = \"t\", brokers = \"h:1\" }\n",
            &["a format of files"],
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
            "[sources.s]\nkafka = { topics = «[], brokers = \"h:1\" }\n",
            &["`topics` names no topic"],
        ),
        (
            "[sources.s]\nkafka = { topics = [\"a\", «\"b c\", «\"a\"], brokers = \"h:1\" }\n",
            &["is no name of a topic", "names \"a\" twice"],
        ),
        (
            "[sources.s]\nkafka = { topic = \"a\", «pattern = \"a.*\", brokers = \"h:1\" }\n",
            &["`topic` and `pattern` both name topics"],
        ),
        (
            "[sources.s]\nkafka = { pattern = «\"a(\", brokers = \"h:1\" }\n",
            &["unclosed group"],
        ),
        (
            "[sources.s]\nkafka = { pattern = «\"a)|(b\", brokers = \"h:1\" }\n",
            &["is no pattern of topics"],
        ),
        (
            "[sources.s]\nkafka = { pattern = «\"a.*\", brokers = \"embedded\" }\n",
            &["topics = ["],
        ),
        (
            "[sources.s]\n«kafka = { brokers = \"h:1\" }\n",
            &["`topic` is missing"],
        ),
        (
            "[sources.s]\nkafka = { topic = \"t\", start = «\"first\", brokers = \"h:1\" }\n",
            &["expected \"earliest\", \"latest\" or a time, found \"first\""],
        ),
        (
            "[sources.s]\nkafka = { topic = \"t\", on_data_loss = «\"latst\", brokers = \"h:1\" }\n",
            &["`on_data_loss` is \"latst\"; ; did you mean \"latest\"?"],
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
            "fields = { a = «\"decimal\", b = «\"decimal(39,2)\", c = «\"decimal(2,3)?\", d = «\"dat\" }",
            &[
                "\"decimal(10,2)\"",
                "1 to 38 digits",
                "1 to 38 digits",
                "did you mean \"date\"?",
            ],
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
        (
            "fields = { a = { path = \"x.y\", type = \"int\" }, «b = { path = \"x\", type = \"int\" } }",
            &["`x` is read by another field too"],
        ),
        ("fields = { «_thing = \"timestamp\" }", &["reserved"]),
        (
            "fields = { a = \"string\", «_ofset = \"int\" }",
            &["did you mean `_offset`?"],
        ),
        (
            "fields = { a = \"string\", «_key = \"string\" }",
            &["of a file's records `_offset`"],
        ),
        (
            "fields = { a = \"string\", _offset = «\"string\" }",
            &["it is \"int\""],
        ),
        (
            "fields = { a = \"string\", _key = «\"int\" }",
            &["it is \"string\" or \"bytes\""],
        ),
        (
            "fields = { a = \"string\", _key = «{} }",
            &["expected a type"],
        ),
        (
            "format = \"text\"\nfields = { «a = \"int\" }",
            &["text has one field"],
        ),
        (
            "format = \"text\"\nfields = { a = \"string\", «b = \"string\" }",
            &["text has one field"],
        ),
        (
            "format = \"text\"\nfields = { «_offset = \"int\" }",
            &["text has one field"],
        ),
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
            &["[tables.t] names no connector"],
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
            "[tables.t]\nfile = { path = \"t.csv\" }\nkey = «\"a\"\nfields = { a = \"float\" }\n",
            &["a key is string or int"],
        ),
        (
            "[tables.t]\n«kafka = { topic = \"t\" }\nkey = \"a\"\nfields = { a = \"string\" }\n",
            &["no brokers are named"],
        ),
        (
            "[tables.t]\nkafka = { topic = \"t\", brokers = \"h:1\" }\nformat = «\"csv\"\nkey = \"a\"\nfields = { a = \"string\" }\n",
            &["no header line"],
        ),
        (
            "[tables.t]\nfile = { path = \"t.csv\" }\n«kafka = { topic = \"t\", brokers = \"h:1\" }\nkey = \"a\"\nfields = { a = \"string\" }\n",
            &["two connectors"],
        ),
        (
            "[tables.t]\nfile = { path = \"t.csv\" }\nkey = \"a\"\nfields = { a = \"string\", «_key = \"string\" }\n",
            &["there is no `_key` here"],
        ),
    ];
    with_source(cases);
}
