//! The host side of the plugin boundary against real WebAssembly that misbehaves: `tests/guests/hostile`.

mod failing;
mod guests;
mod keyed;
mod loading;
mod returning;
