//! Tests without Wasm.

pub(crate) mod host;
pub(crate) mod json;
mod table;
