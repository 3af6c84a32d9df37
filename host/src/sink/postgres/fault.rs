//! What an error of Postgres means: wait, look at the rows, or give up.
//!
//! Knows no rows. Invariant: what may pass by itself is never a failure of the run.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

/// Why a try did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server is away, overloaded or moving: the same try may succeed later.
    Away(String),
    /// Some row among those just sent; the server is well.
    Rows(String),
    /// No other try will succeed.
    Failed(String),
}

impl Fault {
    pub fn failed(cause: impl ToString) -> Self {
        Self::Failed(cause.to_string())
    }

    /// `was_up`: a connection has worked before, so that a failed handshake is a server going down, not a wrong setting.
    pub fn of(error: &Error, was_up: bool) -> Self {
        let cause = describe(error);
        match error.as_db_error() {
            Some(error) => Self::of_state(error.code().code(), cause),
            None if is_network(error) || (was_up && is_tls(error)) => Self::Away(cause),
            None => Self::Failed(cause),
        }
    }

    /// By the class of the SQLSTATE: its first two characters.
    fn of_state(state: &str, cause: String) -> Self {
        match state.get(..2).unwrap_or_default() {
            // Connection, transaction rolled back (deadlock), resources, operator intervention, system.
            "08" | "40" | "53" | "57" | "58" => Self::Away(cause),
            // A server that became a standby.
            _ if state == "25006" || state == "55P03" => Self::Away(cause),
            // A row met twice in one statement, data, constraints, a view's check, what a trigger raises.
            "21" | "22" | "23" | "44" | "P0" => Self::Rows(cause),
            _ => Self::Failed(cause),
        }
    }
}

/// An error with all that the server says, on one line. Passwords are in none of it.
pub fn describe(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        return describe_db(error);
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn describe_db(error: &DbError) -> String {
    let mut text = format!("{} (SQLSTATE {})", error.message(), error.code().code());
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        text += &format!("; {more}");
    }
    text.replace('\n', " ")
}

/// The network or the operating system is in the way, not a setting.
fn is_network(error: &Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(cause) = source {
        if cause.is::<std::io::Error>() {
            return true;
        }
        source = cause.source();
    }
    error.is_closed() || error.to_string().starts_with("timeout")
}

fn is_tls(error: &Error) -> bool {
    error.to_string().contains("TLS handshake")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        let fault = |state: &str| Fault::of_state(state, String::new());
        for away in [
            "57P01", "57P03", "53300", "08006", "40P01", "25006", "55P03", "58030",
        ] {
            assert_eq!(fault(away), Fault::Away(String::new()), "{away}");
        }
        for rows in ["23505", "23502", "22003", "22P02", "21000", "P0001"] {
            assert_eq!(fault(rows), Fault::Rows(String::new()), "{rows}");
        }
        for failed in ["42501", "42P01", "28P01", "3D000", "XX000", ""] {
            assert_eq!(fault(failed), Fault::Failed(String::new()), "{failed}");
        }
    }
}
