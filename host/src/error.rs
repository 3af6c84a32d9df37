//! Errors by boundary. Each says what, where, what was expected and what to do; they are logged where they are handled.

use std::path::PathBuf;

/// A connector (file, Kafka, generator) could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectorError {
    #[error("{place}: {cause}")]
    Failed { place: String, cause: String },
    #[error("{path}: {cause}")]
    Io {
        path: PathBuf,
        cause: std::io::Error,
    },
    /// A source is not what reading began with. What came since the last checkpoint is dropped, and the source is opened
    /// again, where its rules say what follows.
    #[error("{place}: {cause}")]
    Changed { place: String, cause: String },
    /// The host was asked to stop while a connector waited.
    #[error("stopped while waiting for {place}")]
    Stopped { place: String },
    /// Whether a transaction is committed is not known, or it is not and cannot be: begin again from the last decision.
    #[error("{place}: {cause}")]
    Doubt { place: String, cause: String },
    /// A newer host of the pipeline took over.
    #[error("{place}: {cause}")]
    Fenced { place: String, cause: String },
}

impl ConnectorError {
    pub fn failed(place: impl Into<String>, cause: impl ToString) -> Self {
        Self::Failed {
            place: place.into(),
            cause: cause.to_string(),
        }
    }

    pub fn io(path: impl Into<PathBuf>, cause: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            cause,
        }
    }
}

/// Reading or writing the state directory failed. Fatal to the process: recover by restart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    #[error("state directory {dir}: {cause}")]
    Unusable { dir: PathBuf, cause: String },
    #[error(
        "state directory {dir} is in use by another tidemill process; stop it or give this one another [host] state"
    )]
    InUse { dir: PathBuf },
    #[error("state {dir}: {cause}")]
    Store { dir: PathBuf, cause: String },
    #[error("state {dir} is of format {found}, this version reads {expected}")]
    Format {
        dir: PathBuf,
        found: u32,
        expected: u32,
    },
}

/// A plugin could not be loaded, or was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    #[error("{file}: {cause}")]
    Refused { file: String, cause: String },
    #[error("plugin {name}: {cause}")]
    Configure { name: String, cause: String },
    #[error("{cause}")]
    Build { cause: String },
}

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The pipeline stands still until someone looks at it.
    #[error("paused: {0}")]
    Paused(String),
    /// Rows that wait for event-time order have reached their limit.
    #[error("{0}")]
    Waiting(String),
    /// What was asked cannot be started; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// `bad_records = "stop"`, and there was one.
    #[error("{0}")]
    BadRecord(String),
    #[error("a worker failed: {0}")]
    Worker(String),
    /// The run ended at a checkpoint to be opened again: there is more to read than it began with.
    #[error("{0}")]
    Grown(String),
}

impl RunError {
    /// A new run from the last decided checkpoint can do better, without anybody's help.
    pub fn is_doubt(&self) -> bool {
        use ConnectorError::{Changed, Doubt};
        matches!(
            self,
            Self::Grown(_) | Self::Connector(Changed { .. } | Doubt { .. })
        )
    }

    /// A disk took no more, which ends when somebody makes room. Told by the system's number in the text: on its way here
    /// the error went through libraries that keep nothing else of it.
    pub fn is_disk_full(&self) -> bool {
        let text = self.to_string();
        let full = [libc::ENOSPC, libc::EDQUOT, libc::EFBIG];
        full.iter()
            .any(|number| text.contains(&format!("(os error {number})")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_through_whatever_error() {
        let full = || std::io::Error::from_raw_os_error(libc::ENOSPC);
        let state = StateError::Store {
            dir: "state".into(),
            cause: format!("I/O error: {}", full()),
        };
        assert!(RunError::from(state).is_disk_full());
        assert!(RunError::from(ConnectorError::io("out.jsonl", full())).is_disk_full());
        assert!(RunError::from(ConnectorError::failed("out", full())).is_disk_full());
        let other = std::io::Error::from_raw_os_error(libc::EIO);
        assert!(!RunError::from(ConnectorError::io("out.jsonl", other)).is_disk_full());
    }
}
