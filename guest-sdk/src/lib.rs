//! Write plugins for Tidemill: a row type, an output type, a state type and one function.
//!
//! A plugin is a WebAssembly component that runs in one step of a pipeline. It gets batches of rows and says what goes out. You
//! write what happens to *one* row; this crate derives the rest: which columns cross, how they are read without allocation,
//! how state and alarms travel.
//!
//! # A plugin
//!
//! ```
//! //! Flags purchases that lie more than `threshold` standard deviations from the user's own mean.
//! use tidemill_guest::prelude::*;
//!
//! #[derive(Row)]
//! struct Purchase { amount: f64 }
//!
//! #[derive(Columns)]
//! struct Score { z_score: f64 }
//!
//! #[derive(State, Default)]
//! struct Stats { count: u64, mean: f64, m2: f64 }
//!
//! #[derive(Deserialize)]
//! struct Anomaly { threshold: f64 }
//!
//! impl Keyed for Anomaly {
//!     type Row<'a> = Purchase;
//!     type Out = Score;
//!     type State = Stats;
//!
//!     fn row(&mut self, row: Purchase, key: &mut Key<Stats>, out: &mut Out<Score>) {
//!         let Stats { count, mean, m2 } = key.state;
//!         let deviation = if *count < 2 { 0.0 } else { (*m2 / (*count - 1) as f64).sqrt() };
//!         if deviation > 0.0 && (row.amount - *mean).abs() > self.threshold * deviation {
//!             out.keep(Score { z_score: (row.amount - *mean) / deviation });
//!         }
//!         *count += 1;
//!         let distance = row.amount - *mean;
//!         *mean += distance / *count as f64;
//!         *m2 += distance * (row.amount - *mean);
//!     }
//! }
//! plugin!(Anomaly: Keyed);
//!
//! // The same code in a native test.
//! # fn main() {
//! use tidemill_guest::testing::{self, json};
//! let mut test = testing::keyed::<Anomaly>(json!({ "threshold": 3.0 })).unwrap();
//! for amount in [10.0, 11.0, 9.0, 10.0, 50.0] {
//!     test.push("anna", json!({ "amount": amount }));
//! }
//! assert_eq!(test.output("main").len(), 1);
//! # }
//! ```
//!
//! `Cargo.toml` needs `crate-type = ["cdylib", "rlib"]` under `[lib]` and the dependencies `tidemill-guest` and `serde` (with
//! `derive`). `tidemill plugin build` makes the component; `tidemill plugin new` writes all of this for you.
//!
//! # The parts
//!
//! **The plugin type** is its configuration: the table `config` of the pipeline file, read by serde. [`Duration`] reads
//! `"30m"`. `setup` runs once, before any row, and may refuse the configuration.
//!
//! **The row type** derives [`Row`](macro@Row). Its fields are `bool`, `i64`, `f64`, [`Timestamp`], `&'a str`, `&'a [u8]`,
//! or `Option` of these where the column may be null. `#[column("name")]` reads a column under another name;
//! `#[column("_time")]` is the row's event time. A column that is missing, of another type or unexpectedly nullable is an
//! error before the first row. Only the columns named here cross to the plugin. A field with `#[lookup(on = "column",
//! table = "table")]` is read from a reference table; its type is a row type whose fields are all `Option`, null where the
//! key is null or unknown. [`Setup::lookup`] names the table from the configuration instead. A call asks each table once.
//!
//! **What goes out** derives [`Columns`](macro@Columns): fields as above, and `String` or `Vec<u8>`. `type Out` says what a
//! port does with it:
//!
//! | `type Out` | a row goes out by | with |
//! |---|---|---|
//! | `Score` or [`Select<Score>`](Select) | `out.keep(Score { … })`, or not at all | the input's columns and those of `Score` |
//! | `()` | `out.keep(())`: a filter | the input's columns |
//! | [`Extend<Score>`](Extend) | `out.extend(Score { … })`, every row | the input's columns and those of `Score` |
//! | [`Rows<Score>`](Rows) | `out.emit(Score { … })`, any number | the key and the columns of `Score` |
//!
//! Several ports are a struct that derives [`Ports`](macro@Ports), the main one first; `step.alerts` in the pipeline reads
//! this one:
//!
//! ```
//! # use tidemill_guest::prelude::*;
//! #[derive(Columns, Clone, Copy)]
//! struct Tax<'a> { rate: f64, country: Option<&'a str> }
//!
//! #[derive(Ports)]
//! struct Taxed { main: Extend<Tax<'static>>, alerts: Select<Tax<'static>> }
//! // … type Out = Taxed; … out.main.extend(tax); if tax.rate > 0.3 { out.alerts.keep(tax) }
//! ```
//!
//! A row that cannot be handled is refused: [`out.refuse("why")`](Out::refuse) makes it a dead letter. A panic does so too, its
//! text reaches the log, but it costs the host a search for the row.
//!
//! **State** belongs to a key. `#[derive(State, Default)]` on a struct of 8-byte fields (`u64`, `i64`, `f64`, [`Timestamp`],
//! [`Duration`]) has a fixed layout and is not decoded: 20 ns a row. `#[derive(Serialize, Deserialize, Default)]` on any type
//! is kept as MessagePack: 44 ns a row, and more for large state; a [`StringSet`] is read as one piece. [`Key::forget`] drops it. When its layout or meaning
//! changes, raise [`Keyed::STATE_VERSION`] and convert older state in [`Keyed::migrate`].
//!
//! **Alarms.** Each key has one. [`Key::wake_at`] sets it, [`Keyed::alarm`] is called when the clock named by
//! [`Keyed::ALARMS`] reaches it. With [`Order::EventTime`] rows and alarms of a key come in one order of time; an alarm at the
//! time of a row comes before it.
//!
//! ```
//! //! Says when a sensor has been silent for a minute.
//! use tidemill_guest::prelude::*;
//!
//! #[derive(Row)]
//! struct Reading { #[column("_time")] time: Timestamp }
//! #[derive(Columns)]
//! struct Silent { since: Timestamp }
//! #[derive(Deserialize)]
//! struct Watch { patience: Duration }
//! #[derive(State, Default)]
//! struct Last { reading: Timestamp }
//!
//! impl Keyed for Watch {
//!     type Row<'a> = Reading;
//!     type Out = Rows<Silent>;
//!     type State = Last;
//!     const ORDER: Order = Order::EventTime;
//!     const ALARMS: Alarms = Alarms::EventTime;
//!
//!     fn row(&mut self, row: Reading, key: &mut Key<Last>, _: &mut Out<Rows<Silent>>) {
//!         key.state.reading = row.time;
//!         key.wake_at(row.time + self.patience);
//!     }
//!     fn alarm(&mut self, key: &mut Key<Last>, out: &mut Out<Rows<Silent>>) {
//!         out.emit(Silent { since: key.state.reading });
//!     }
//! }
//! plugin!(Watch: Keyed);
//! # fn main() {
//! # use tidemill_guest::testing::{self, json};
//! let mut test = testing::keyed::<Watch>(json!({ "patience": "1m" })).unwrap();
//! test.push("boiler", json!({ "_time": 0 }));
//! test.push("boiler", json!({ "_time": 70_000_000 }));
//! test.watermark(71_000_000);
//! assert_eq!(test.output("main"), [json!({ "key": "boiler", "since": 0 })]);
//! # }
//! ```
//!
//! **Log and metrics.** [`info!`], [`warn!`] and the other levels write to the host's log; [`Setup::counter`] and
//! [`Setup::histogram`] make metrics.
//!
//! # The one rule
//!
//! The host cuts the stream into calls as it likes, repeats a call that failed, and moves keys between workers. **A result must
//! not depend on how rows are cut into calls.** So keep nothing in the plugin type but configuration; what is remembered is
//! state of a key. There is no clock, no random number, no file and no network to read.
#![deny(missing_docs)]

extern crate self as tidemill_guest;

#[doc(hidden)]
pub mod bindings;
mod bits;
#[doc(hidden)]
pub mod columns;
mod host;
mod keyed;
#[doc(hidden)]
pub mod metrics;
mod out;
mod panic;
#[doc(hidden)]
pub mod row;
mod setup;
#[doc(hidden)]
pub mod state;
mod string_set;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod time;
mod transform;

pub use columns::{Columns, Value};
pub use keyed::{Alarms, Key, Keyed, KeyedRuntime, Order};
pub use metrics::{Counter, Histogram};
pub use out::{Extend, Origin, Out, Outcome, Port, Ports, Rows, Select};
pub use panic::report_panics;
pub use row::{ColumnSpec, EVENT_TIME, Field, LookupSpec, Row};
pub use setup::Setup;
pub use state::{NewState, OldState, State};
pub use string_set::StringSet;
pub use tidemill_guest_macros::{Columns, Ports, Row, State};
pub use time::{Duration, Timestamp};
pub use transform::{Transform, TransformRuntime};

pub use serde;

/// The plugin of the repository's first page compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// What a plugin needs, in one `use`.
pub mod prelude {
    pub use crate::{
        Alarms, Columns, Counter, Duration, Extend, Histogram, Key, Keyed, NewState, OldState,
        Order, Out, Ports, Row, Rows, Select, Setup, State, StringSet, Timestamp, Transform, debug,
        error, info, plugin, trace, warn,
    };
    pub use serde::{Deserialize, Serialize};
}

/// Makes a type the plugin of this crate: `plugin!(Anomaly: Keyed);` or `plugin!(Enrich: Transform);`. The trait says which
/// of the two worlds the component exports.
#[macro_export]
macro_rules! plugin {
    ($plugin:ident : Keyed) => {
        // Natively the tests call the same functions through the `testing` module.
        const _: fn() -> $crate::KeyedRuntime<$plugin> = $crate::KeyedRuntime::new;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::{self, keyed};
            $crate::__exports!($crate::KeyedRuntime<$plugin>);
            impl keyed::exports::tidemill::plugin::keyed::Guest for Exports {
                fn process(input: bindings::KeyedInput) -> Result<bindings::KeyedResult, String> {
                    RUNTIME.with_borrow_mut(|runtime| runtime.process(input))
                }
                fn migrate_state(
                    from: u32,
                    old: bindings::State,
                ) -> Result<bindings::State, String> {
                    RUNTIME.with_borrow_mut(|runtime| runtime.migrate_state(from, old))
                }
            }
            $crate::bindings::keyed::export_keyed!(Exports with_types_in $crate::bindings::keyed);
        };
    };
    ($plugin:ident : Transform) => {
        // Natively the tests call the same functions through the `testing` module.
        const _: fn() -> $crate::TransformRuntime<$plugin> = $crate::TransformRuntime::new;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::{self, transform};
            $crate::__exports!($crate::TransformRuntime<$plugin>);
            impl transform::exports::tidemill::plugin::transform::Guest for Exports {
                fn process(input: bindings::Batch) -> Result<bindings::Transformed, String> {
                    RUNTIME.with_borrow_mut(|runtime| runtime.process(&input))
                }
            }
            $crate::bindings::transform::export_transform!(Exports with_types_in $crate::bindings::transform);
        };
    };
    ($($other:tt)*) => {
        compile_error!("say which kind of plugin it is: plugin!(Type: Keyed) or plugin!(Type: Transform)");
    };
}

/// The instance behind the exports, and the exports that both worlds have.
#[doc(hidden)]
#[macro_export]
macro_rules! __exports {
    ($runtime:ty) => {
        struct Exports;
        $crate::bindings::base::export_lifecycle!(Exports with_types_in $crate::bindings::base);
        ::std::thread_local! {
            static RUNTIME: ::std::cell::RefCell<$runtime> =
                const { ::std::cell::RefCell::new(<$runtime>::new()) };
        }
        impl $crate::bindings::lifecycle::Guest for Exports {
            fn describe() -> $crate::bindings::Description {
                <$runtime>::describe(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            }
            fn configure(
                config: String,
                input: Vec<$crate::bindings::Field>,
            ) -> Result<$crate::bindings::Plan, String> {
                $crate::report_panics();
                RUNTIME.with_borrow_mut(|runtime| runtime.configure(&config, &input))
            }
        }
    };
}
