//! Write plugins for Tidemill.
#![deny(missing_docs)]
#![forbid(unsafe_op_in_unsafe_fn)]

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
pub use tidemill_guest_macros::{Columns, Ports, Row, State};
pub use time::{Duration, Timestamp};
pub use transform::{Transform, TransformRuntime};

pub use serde;

/// What a plugin needs, in one `use`.
pub mod prelude {
    pub use crate::{
        Alarms, Columns, Counter, Duration, Extend, Histogram, Key, Keyed, NewState, OldState, Order,
        Out, Ports, Row, Rows, Select, Setup, State, Timestamp, Transform, debug, error, info,
        plugin, trace, warn,
    };
    pub use serde::{Deserialize, Serialize};
}

/// Makes a type the plugin of this crate: `plugin!(Anomaly: Keyed);` or `plugin!(Enrich: Transform);`. The trait says which
/// of the two worlds the component exports.
#[macro_export]
macro_rules! plugin {
    ($plugin:ident : Keyed) => {
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
