//! A plugin of a contract that this host does not speak.

wit_bindgen::generate!({
    inline: "
        package tidemill:plugin@0.2.0;
        interface lifecycle { describe: func() -> string; }
        world next { export lifecycle; }
    ",
});

struct Future;

impl exports::tidemill::plugin::lifecycle::Guest for Future {
    fn describe() -> String {
        "from the future".into()
    }
}

export!(Future);
