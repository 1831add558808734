//! What can go wrong with a log. A `StorageError` means that the log directory is offline from now on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::protocol::{Error, ErrorCode};
use crate::types::Offset;

/// A failed read or write, or damage that recovery may not touch. The directory is latched offline; never retry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: Arc<io::Error>,
    },
    #[error("{path}: {reason} (offset {offset})", path = path.display())]
    Corrupt {
        path: PathBuf,
        offset: Offset,
        reason: String,
    },
    #[error("log directory {dir} is offline", dir = dir.display())]
    Offline { dir: PathBuf },
    /// The log of a topic that was deleted while the broker was down, and created again under another id.
    #[error("{path}: belongs to another topic of the same name", path = path.display())]
    OtherTopic { path: PathBuf },
    #[error("{path}: {reason}", path = path.display())]
    Unusable { path: PathBuf, reason: String },
}

impl StorageError {
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        Self::new(ErrorCode::KafkaStorageError, error.to_string())
    }
}

/// Why a read has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is outside {log_start_offset}..={next_offset}")]
    OutOfRange {
        offset: Offset,
        log_start_offset: Offset,
        next_offset: Offset,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why replicated or internal bytes were not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Bytes that are not sound batches, or offsets that go back.
    #[error("{0}")]
    Invalid(Error),
    #[error("batch starts at {found}, below the next offset {next_offset}")]
    UnexpectedOffset { found: Offset, next_offset: Offset },
    #[error(transparent)]
    Storage(#[from] StorageError),
}
