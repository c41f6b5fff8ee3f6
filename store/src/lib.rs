//! What the broker wants to find again after it was stopped, and when it may acknowledge.
//!
//! A shard tells its [`Store`] each change of durable state as a [`Record`]. All records of one
//! tick are one batch: [`Store::commit`] ends it, and after a crash a batch is there whole or not
//! at all. An acknowledgement that rests on a batch is sent once [`Store::synced`] has reached the
//! batch's [`Ticket`].
//!
//! - [`MemoryStore`] keeps nothing: with it shards make no records at all.
//! - [`Journal`] is a shard's end of a [`Log`], which all shards of a broker share. `format.md`
//!   describes its files. [`Log::open`] reads them and gives what was there.
//!
//! The log does no more than bytes in files; **the broker itself is the index** of what is alive.
//! Now and then shards are asked to state again all that they hold ([`Store::restating`]); what
//! stands before such a pass and is referred to by nothing in it is garbage. So nothing is counted
//! or looked up while messages flow.
//!
//! Files are reached through [`Disk`], so the same code runs on a real directory and on the
//! simulator's, which crashes, fills up and forgets what was not synced.

mod collect;
mod disk;
mod entry;
mod error;
mod event;
mod fields;
mod journal;
mod layout;
mod log;
mod memory;
mod message;
mod pack;
mod pass;
mod passes;
mod reads;
mod record;
mod recovered;
mod recovery;
mod replay;
mod restate;
mod room;
mod scan;
mod segments;
pub mod sim_disk;
mod survey;
mod threads;
pub mod tool;
mod write;

pub use disk::{Directory, Disk, DiskFile};
pub use entry::{Entry, EntryQueue};
pub use error::{OpenError, ReadError};
pub use event::Event;
pub use journal::Journal;
pub use log::{Durability, Log, Options, Work};
pub use memory::MemoryStore;
pub use message::{MESSAGE_HEADER_BYTES, MessageBody, MessageRecord, Stored};
pub use record::{Record, RecordError, Records, WillRecord};
pub use recovered::{
    InFlightRecovered, Recovered, SessionRecovered, SubscriptionRecovered, Unrouted, WillRecovered,
};
pub use restate::restate;
pub use threads::Threads;

/// A place in the log: bytes since the store was made. Never 0; 0 stands for "not stored".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// The end of a batch in the log; reached when all before it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names a session in the records, for as long as it lives; never used again, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// Milliseconds since 1970 (UTC), for what must be understood after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMs(pub u64);

/// A batch that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where the batch's records begin: what [`Store::message`] gave counts from here.
    pub base: Position,
    /// Reached when the batch is durable.
    pub ticket: Ticket,
}

/// Bodies that are wanted back; answered by one [`Fetched`].
#[derive(Clone, Debug, Default)]
pub struct Fetch {
    /// Whatever the caller wants to recognize the answer by.
    pub token: u64,
    /// Which messages, in the order of the answer.
    pub wanted: Vec<Stored>,
}

/// The answer to a [`Fetch`].
#[derive(Debug, Default)]
pub struct Fetched {
    /// As asked.
    pub token: u64,
    /// In the order asked for. None: it cannot be read or is damaged, which the store has logged.
    pub bodies: Vec<Option<MessageBody>>,
}

/// A shard's way to durability. But for [`Store::read`], none of its methods waits for a disk.
pub trait Store: Send {
    /// False: records need not even be made.
    fn is_durable(&self) -> bool;

    /// A number for a new session.
    fn new_key(&mut self) -> SessionKey;

    /// Appends a message's body to the batch and gives its offset there.
    fn message(&mut self, message: &MessageRecord<'_>) -> u32;

    /// Appends a record to the batch.
    fn record(&mut self, record: &Record<'_>);

    /// Ends the batch. None if there is nothing in it. To be called at the end of each tick, also
    /// of one that made no records: so the log knows that what came from other shards is noted.
    fn commit(&mut self) -> Option<Committed>;

    /// Everything before this is durable, or as durable as was asked for.
    fn synced(&self) -> Ticket;

    /// Whether the disk is full or fails: new messages are to be refused until it is not.
    fn is_full(&self) -> bool;

    /// Bytes that wait to be written, of all shards: beyond a limit nothing more is to be read
    /// from clients.
    fn backlog_bytes(&self) -> usize;

    /// Asks for bodies.
    fn fetch(&mut self, fetch: Fetch);

    /// The next answer.
    fn poll_fetched(&mut self) -> Option<Fetched>;

    /// Reads a body at once, waiting for the disk: for what happens rarely.
    fn read(&self, stored: Stored) -> Option<MessageBody>;

    /// The pass in which this shard is to state all that it holds again; none: there is none, or
    /// it has done so.
    fn restating(&self) -> Option<u64>;

    /// Everything that this shard held when the pass began has been recorded again.
    fn restated(&mut self, pass: u64);
}
