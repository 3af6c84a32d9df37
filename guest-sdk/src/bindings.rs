//! What `wit-bindgen` makes of `../wit`, with one set of Rust types for both worlds.
//!
//! Each exported interface is bound by a world of its own, because two worlds that export the same interface cannot be bound
//! in one crate. A plugin expands two of the export macros; `wit-component` unites them to one of the worlds of `../wit`.
//!
//! Invariant: a component exports one world. `pub_export_macro` keeps exports and their type information out of this crate
//! until a plugin expands a macro; what is embedded here names imports only.
#![allow(missing_docs, clippy::all)]

pub mod base {
    wit_bindgen::generate!({
        inline: "package tidemill:sdk;
            world base { import tidemill:plugin/host@0.1.0; export tidemill:plugin/lifecycle@0.1.0; }",
        path: "../wit",
        world: "tidemill:sdk/base",
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        generate_all,
    });
}

pub mod transform {
    wit_bindgen::generate!({
        inline: "package tidemill:sdk;
            world transform { export tidemill:plugin/transform@0.1.0; }",
        path: "../wit",
        world: "tidemill:sdk/transform",
        pub_export_macro: true,
        export_macro_name: "export_transform",
        with: { "tidemill:plugin/columns@0.1.0": crate::bindings::base::tidemill::plugin::columns },
        generate_all,
    });
}

pub mod keyed {
    wit_bindgen::generate!({
        inline: "package tidemill:sdk;
            world keyed { export tidemill:plugin/keyed@0.1.0; }",
        path: "../wit",
        world: "tidemill:sdk/keyed",
        pub_export_macro: true,
        export_macro_name: "export_keyed",
        with: {
            "tidemill:plugin/columns@0.1.0": crate::bindings::base::tidemill::plugin::columns,
            "tidemill:plugin/outcome@0.1.0": crate::bindings::transform::tidemill::plugin::outcome,
        },
    });
}

pub use base::exports::tidemill::plugin::lifecycle::{
    self, AlarmClock, Description, Plan, Port, RowOrder, StateLayout,
};
pub use base::tidemill::plugin::columns::{Batch, Column, Field, ValueType, Values, VarValues};
pub use base::tidemill::plugin::host as imports;
pub use keyed::exports::tidemill::plugin::keyed::{FixedState, KeyedInput, KeyedResult, State};
pub use transform::exports::tidemill::plugin::transform::Transformed;
pub use transform::tidemill::plugin::outcome::{NewRows, Output, Refusal, Selection};
