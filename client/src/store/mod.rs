//! What a client keeps on disk: messages that wait or are in flight, and the identifiers of QoS 2
//! messages of the broker that it has not released.
//!
//! - [`Batch`] collects changes; the newest of one thing counts, and what came and went between two
//!   writes is never written.
//! - [`File`] is the database: a batch is there whole or not at all.
//! - [`Keeper`] is the client's end: it takes changes without waiting, and a thread writes what has
//!   come together since the last time, so that many messages share one sync.

mod batch;
mod error;
mod file;
mod keeper;
mod record;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub(crate) use batch::{Batch, Stage};
pub use error::StoreError;
pub(crate) use file::{File, Owner, Recovered};
pub(crate) use keeper::{Keeper, Load, Loaded, Report, Ticket};
pub(crate) use record::{decode, encode};

/// What a message takes on disk beside its topic, payload and properties, in bytes.
pub(crate) const OVERHEAD_BYTES: usize = 32;

/// What a message that [`Client::publish`](crate::Client::publish) has taken survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreSync {
    /// A power cut.
    #[default]
    Fsync,
    /// The end of the process, however sudden. A power cut or a crash of the system may damage the
    /// store; then it must be removed.
    Os,
}

/// Where and how a client keeps messages on disk, for [`Builder::store`](crate::Builder::store).
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) path: PathBuf,
    pub(crate) sync: StoreSync,
    pub(crate) max_bytes: u64,
    pub(crate) keeps_qos0: bool,
}

impl Store {
    /// A store in the file at `path`, which is made if it is not there; its directory must be.
    pub fn new(path: impl Into<PathBuf>) -> Store {
        Store { path: path.into(), sync: StoreSync::Fsync, max_bytes: 1 << 30, keeps_qos0: false }
    }

    /// What a message survives; [`StoreSync::Fsync`] at first.
    pub fn sync(mut self, sync: StoreSync) -> Store {
        self.sync = sync;
        self
    }

    /// Bytes of messages that may be kept, each counted with its topic, its properties and 32 bytes
    /// more; 1 GiB at first. The file takes more room than that, up to twice as much for small
    /// messages.
    pub fn max_bytes(mut self, bytes: u64) -> Store {
        self.max_bytes = bytes;
        self
    }

    /// Whether QoS 0 messages are kept too; at first they wait in memory alone.
    pub fn qos0(mut self, yes: bool) -> Store {
        self.keeps_qos0 = yes;
        self
    }
}

impl From<&str> for Store {
    fn from(path: &str) -> Store {
        Store::new(path)
    }
}

impl From<&Path> for Store {
    fn from(path: &Path) -> Store {
        Store::new(path)
    }
}

impl From<PathBuf> for Store {
    fn from(path: PathBuf) -> Store {
        Store::new(path)
    }
}
