//! Exports functions of the right names with other types.

wit_bindgen::generate!({
    inline: "
        package tidemill:plugin@0.1.0;
        interface lifecycle { describe: func() -> string; configure: func(config: string) -> string; }
        interface transform { process: func(input: string) -> string; }
        world changed { export lifecycle; export transform; }
    ",
});

struct Changed;

impl exports::tidemill::plugin::lifecycle::Guest for Changed {
    fn describe() -> String {
        "changed".into()
    }

    fn configure(config: String) -> String {
        config
    }
}

impl exports::tidemill::plugin::transform::Guest for Changed {
    fn process(input: String) -> String {
        input
    }
}

export!(Changed);
