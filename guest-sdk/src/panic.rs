//! A panic ends in a trap, which carries no text: the hook sends it to the host's log first.

/// Makes panics reach the host's log with their text and line.
#[doc(hidden)]
pub fn report_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| {
        crate::metrics::log(crate::metrics::LogLevel::Error, format_args!("{panic}"));
    }));
}
