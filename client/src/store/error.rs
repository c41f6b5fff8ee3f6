//! Why messages cannot be kept on disk.

use std::fmt;
use std::path::PathBuf;

/// Why a store cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Another client, perhaps of another process, is using the file.
    InUse(PathBuf),
    /// The file was made for another client, broker or version of MQTT.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whom it was made for.
        made_for: String,
        /// Who asks for it.
        wanted_by: String,
    },
    /// The file is no store, was made by a later version, or is damaged; and what is wrong with it.
    Damaged(PathBuf, String),
    /// The file cannot be read or written; the disk may be full.
    Failed(PathBuf, String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::InUse(path) => write!(
                f,
                "the store {} is in use by another client: give each client a file of its own",
                path.display()
            ),
            StoreError::Foreign { path, made_for, wanted_by } => write!(
                f,
                "the store {} belongs to {made_for}, and is not for {wanted_by}: give another \
                 file, or remove this one and the messages in it",
                path.display()
            ),
            StoreError::Damaged(path, what) => write!(
                f,
                "the store {} cannot be understood ({what}): restore it, or remove it and the \
                 messages in it",
                path.display()
            ),
            StoreError::Failed(path, what) => {
                write!(f, "the store {} cannot be used: {what}", path.display())
            }
        }
    }
}

impl std::error::Error for StoreError {}
