//! What can go wrong below the store: opening a database, and its disk later on.

use std::path::Path;

/// Reading or writing failed: the disk, or what is on it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Database(Box<redb::Error>),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A row that no version of this code has written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database holds a row that cannot be read ({0})")]
pub(super) struct Malformed(pub &'static str);

/// Why a database does not open, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: another process has this database open; stop that server first")]
    Locked { path: String },
    #[error(
        "{path}: written by a newer version of orchestrator (format {found}, this one reads \
         {known}); start that version or restore a backup"
    )]
    Newer {
        path: String,
        found: u64,
        known: u64,
    },
    #[error(
        "{path}: not a database of orchestrator, or damaged ({detail}); restore a backup, or move \
         the file away to start empty"
    )]
    Corrupt { path: String, detail: String },
    #[error("{path}: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            source,
        }
    }

    pub(super) fn corrupt(path: &Path, detail: impl ToString) -> Self {
        Self::Corrupt {
            path: path.display().to_string(),
            detail: detail.to_string(),
        }
    }

    pub(super) fn database(path: &Path, error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Locked {
                path: path.display().to_string(),
            },
            redb::Error::Io(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::corrupt(path, "it is too short")
            }
            // redb's word for a foreign magic number.
            redb::Error::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
                Self::corrupt(path, source)
            }
            redb::Error::Io(source) => Self::io(path, source),
            other => Self::corrupt(path, other),
        }
    }

    pub(super) fn failure(path: &Path, failure: Failure) -> Self {
        match failure {
            Failure::Database(error) => Self::database(path, *error),
            Failure::Malformed(row) => Self::corrupt(path, row),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}

from_redb!(
    redb::CommitError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);
