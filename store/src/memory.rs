//! The store of a broker without a data directory.

use crate::{
    Committed, Fetch, Fetched, MessageBody, MessageRecord, Record, SessionKey, Store, Stored,
    Ticket,
};

/// Keeps nothing: every ticket is reached at once, and shards make no records.
#[derive(Debug, Default)]
pub struct MemoryStore;

impl Store for MemoryStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn new_key(&mut self) -> SessionKey {
        SessionKey(0)
    }

    fn message(&mut self, _: &MessageRecord<'_>) -> u32 {
        0
    }

    fn record(&mut self, _: &Record<'_>) {}

    fn commit(&mut self) -> Option<Committed> {
        None
    }

    fn synced(&self) -> Ticket {
        Ticket(u64::MAX)
    }

    fn is_full(&self) -> bool {
        false
    }

    fn backlog_bytes(&self) -> usize {
        0
    }

    fn fetch(&mut self, _: Fetch) {}

    fn poll_fetched(&mut self) -> Option<Fetched> {
        None
    }

    fn read(&self, _: Stored) -> Option<MessageBody> {
        None
    }

    fn restating(&self) -> Option<u64> {
        None
    }

    fn restated(&mut self, _: u64) {}
}
