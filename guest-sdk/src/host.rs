//! The one place that calls the host. Natively a stand-in of the thread answers, which the `testing` module fills.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::bindings::imports::*;

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::bindings::imports::Level;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::host::*;
