//! Why a store cannot be opened, or a message not read.

use std::fmt;
use std::io;

/// Why a store was not opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another broker uses it.
    InUse,
    /// The file system failed.
    Io {
        /// Which file; empty: the directory.
        file: String,
        /// What was to be done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// It was made by a later version.
    LaterFormat {
        /// Which file says so.
        file: String,
        /// Its format.
        format: u32,
    },
    /// There are segments, but no file STORE.
    NoStore,
    /// There is a file STORE, but no segment.
    NoSegments,
    /// What was once whole is not what was written.
    Damaged {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A segment is missing.
    Missing {
        /// The position from which on the log is missing.
        from: u64,
        /// The position at which it is there again.
        to: u64,
    },
    /// Something that is alive refers to a message in a place that is missing.
    MissingMessage {
        /// Its position.
        position: u64,
    },
}

const WAY_OUT: &str = "`whimbrel store check DIR` shows all that is wrong, \
                       `whimbrel store repair DIR` saves the rest";

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse => write!(
                f,
                "another broker uses this data directory (it has locked the file lock in it); \
                 stop it, or give this one a directory of its own"
            ),
            OpenError::Io { file, doing, error } if file.is_empty() => {
                write!(f, "cannot {doing} the data directory: {error}")
            }
            OpenError::Io { file, doing, error } => write!(f, "cannot {doing} {file}: {error}"),
            OpenError::LaterFormat { file, format } => write!(
                f,
                "{file} has format {format}, which a later version of Whimbrel wrote; this one \
                 reads formats 1 and 2; use that version, or another data directory"
            ),
            OpenError::NoStore => write!(
                f,
                "there are segments (log-*), but the file STORE is missing: something was taken \
                 away; bring it back, or: {WAY_OUT}"
            ),
            OpenError::NoSegments => write!(
                f,
                "there is a file STORE, but all segments (log-*) are missing: something was \
                 taken away; bring them back, or: {WAY_OUT}"
            ),
            OpenError::Damaged { file, offset, what } => {
                write!(f, "{file} is damaged at offset {offset}: {what}; {WAY_OUT}")
            }
            OpenError::Missing { from, to } => write!(
                f,
                "the log is missing from position {from:#x} to {to:#x}: a file (log-*) was taken \
                 away or cut; bring it back, or: {WAY_OUT}"
            ),
            OpenError::MissingMessage { position } => write!(
                f,
                "a message at position {position:#x} is still wanted, but the file with it is \
                 missing or cut; bring it back, or: {WAY_OUT}"
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Why a message cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// There is no such place in the log, or not any more.
    Missing,
    /// It has not been written yet.
    NotYet,
    /// What is there is not the message.
    Damaged {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The file system failed.
    Io {
        /// Which file.
        file: String,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Missing => write!(f, "there is nothing at this place of the log"),
            ReadError::NotYet => write!(f, "it has not been written yet"),
            ReadError::Damaged { file, offset, what } => {
                write!(f, "{file} is damaged at offset {offset}: {what}")
            }
            ReadError::Io { file, error } => write!(f, "cannot read {file}: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}
