//! What the log tells whoever keeps the broker's journal of events.

use std::fmt;
use std::io;

/// Something that an operator should know.
#[derive(Debug)]
pub enum Event {
    /// A new store was made.
    Created {
        /// Its identity.
        identity: u64,
    },
    /// A torn end was cut off: a normal thing after a crash.
    Cut {
        /// Which file.
        file: String,
        /// From where on.
        offset: u64,
        /// How much.
        bytes: u64,
    },
    /// What is on disk is not what was written there.
    Damaged {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Nothing can be written: new messages are refused.
    Full {
        /// Of the file system.
        error: io::Error,
    },
    /// Writing works again.
    Resumed,
    /// What was written last may not be on disk; it is written to a new file.
    SyncFailed {
        /// Which file.
        file: String,
        /// Of the file system.
        error: io::Error,
    },
    /// There is no room for the reserve.
    NoReserve {
        /// Of the file system.
        error: io::Error,
    },
    /// A segment could not be packed or removed; it stays as it is.
    Kept {
        /// Which file.
        file: String,
        /// Of the file system.
        error: io::Error,
    },
    /// A message could not be read.
    Unreadable {
        /// Which file, or what should have been there.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A pass has ended, and what it left without use was removed.
    Swept {
        /// Number of the pass.
        pass: u64,
        /// Segments that were removed.
        removed: usize,
        /// Segments that are to be packed.
        packing: usize,
    },
    /// A segment was packed.
    Packed {
        /// Which file.
        file: String,
        /// Its size before.
        before: u64,
        /// Its size now.
        after: u64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Created { identity } => write!(f, "made a new store, id {identity:016x}"),
            Event::Cut { file, offset, bytes } => write!(
                f,
                "the last write before the broker stopped was not finished: cut {bytes} bytes \
                 off {file} at offset {offset}; nothing in them had been acknowledged"
            ),
            Event::Damaged { file, offset, what } => {
                write!(f, "{file} is damaged at offset {offset}: {what}; check the disk")
            }
            Event::Full { error } => write!(
                f,
                "the store cannot be written ({error}): messages are refused until it can; \
                 make room on the disk"
            ),
            Event::Resumed => write!(f, "the store can be written again: messages are accepted"),
            Event::SyncFailed { file, error } => write!(
                f,
                "{file} cannot be synced ({error}): what was not durable is written to a new \
                 file; check the disk"
            ),
            Event::NoReserve { error } => write!(
                f,
                "there is no room for the reserve of the store ({error}): with a full disk \
                 acknowledgements may not be written; make room on the disk"
            ),
            Event::Kept { file, error } => {
                write!(f, "{file} could not be packed or removed ({error}); it stays as it is")
            }
            Event::Unreadable { file, offset, what } => write!(
                f,
                "a message in {file} at offset {offset} cannot be read ({what}) and is not \
                 delivered; stop the broker and see `whimbrel store check`"
            ),
            Event::Swept { pass, removed, packing } => {
                write!(f, "pass {pass} ended: {removed} segments removed, {packing} to be packed")
            }
            Event::Packed { file, before, after } => {
                write!(f, "packed {file}: {before} bytes before, {after} now")
            }
        }
    }
}
