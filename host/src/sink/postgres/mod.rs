//! Rows to a table of Postgres, exactly once.
mod columns;
mod connect;

pub use columns::writable;
pub use connect::check_url;
