//! The `tidemill` binary: all it does is call the library.

fn main() -> std::process::ExitCode {
    tidemill::cli::main()
}
