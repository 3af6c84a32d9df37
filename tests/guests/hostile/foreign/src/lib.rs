//! Asks for a clock, which no plugin may have.

wit_bindgen::generate!({
    inline: "
        package test:foreign;
        world foreign {
            import wasi:clocks/wall-clock@0.2.0;
            import tidemill:plugin/host@0.1.0;
            export now: func() -> u64;
        }
        package wasi:clocks@0.2.0 { interface wall-clock { now: func() -> u64; } }
    ",
    path: "../../../../wit",
    world: "test:foreign/foreign",
    generate_all,
});

struct Foreign;

impl Guest for Foreign {
    fn now() -> u64 {
        tidemill::plugin::host::log(tidemill::plugin::host::Level::Info, "asked for the time");
        wasi::clocks::wall_clock::now()
    }
}

export!(Foreign);
