//! Wrong steps and sinks, and names that lead nowhere.

use super::{SOURCE, TABLE, check, with_source, with_table};

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
fn only_keyed_plugins_forget() {
    with_source(&[
        (
            "[steps.a]\nfrom = \"clicks\"\n«state_ttl = \"30d\"\n",
            &["a filter step has no `state_ttl`"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nplugin = { file = «\"a.wasm\" }\nstate_ttl = «\"30d\"\n",
            &["a.wasm", "a plugin without `key` keeps no state"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nkey = [\"user\"]\nplugin = { file = «\"a.wasm\" }\nstate_ttl = «\"10ms\"\n",
            &["a.wasm", "`state_ttl` is shorter than 1s"],
        ),
        (
            "[steps.a]\nfrom = \"clicks\"\nkey = [\"user\"]\nplugin = { file = «\"a.wasm\" }\nstate_ttl = «30\n",
            &["a.wasm", "`state_ttl`: expected a duration"],
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
            "[steps.a]\nfrom = \"clicks\"\nwhere = \"\\\"user\\\" = 'x' and «amout > 1\"\n",
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
            "lookup = { table = \"products\", on = \"user\", add = [\"price\"], kind = «\"outer\" }",
            &["expected \"left\" or \"inner\""],
        ),
        (
            "lookup = { table = \"products\", on = \"user\", kind = \"left\", add = «[] }",
            &["names no column"],
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
