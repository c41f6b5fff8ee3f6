//! What stands between a shard and its store: it tells the simulator which batch was the last, and
//! makes the mutations that concern records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use whimbrel_codec::QoS;
use whimbrel_store::{
    Committed, Fetch, Fetched, MessageBody, MessageRecord, Record, SessionKey, Store, Stored,
    Ticket,
};

use crate::Mutation;

/// The last ticket of each shard.
#[derive(Default)]
pub struct Tickets(Vec<AtomicU64>);

impl Tickets {
    /// For so many shards.
    pub fn new(shards: u16) -> Arc<Tickets> {
        Arc::new(Tickets((0..shards).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Of the last batch of the shard.
    pub fn last(&self, shard: u16) -> Ticket {
        Ticket(self.0.get(usize::from(shard)).map_or(0, |ticket| ticket.load(Relaxed)))
    }
}

/// A store with a listener.
pub struct Tap<S> {
    store: S,
    shard: u16,
    tickets: Arc<Tickets>,
    mutation: Option<Mutation>,
    /// Records that a mutation might have changed.
    seen: u64,
    /// The session that a pass is about to state is not stated.
    forgets: Option<SessionKey>,
    /// A delivery of QoS 2 is in this batch.
    once: bool,
    /// Up to here a mutation says that all is durable.
    ahead: Ticket,
}

impl<S: Store> Tap<S> {
    /// Between `shard` and `store`.
    pub fn new(store: S, shard: u16, tickets: Arc<Tickets>, mutation: Option<Mutation>) -> Tap<S> {
        let (forgets, ahead) = (None, Ticket(0));
        Tap { store, shard, tickets, mutation, seen: 0, forgets, once: false, ahead }
    }

    /// Whether it is the turn of a mutation that strikes once in `n` times.
    fn strikes(&mut self, n: u64) -> bool {
        self.seen += 1;
        self.seen.is_multiple_of(n)
    }

    /// Whether a mutation swallows the record.
    fn swallows(&mut self, record: &Record<'_>) -> bool {
        let Some(mutation) = self.mutation else { return false };
        let n = match (mutation, record) {
            (Mutation::LoseQueued, Record::Queued { .. }) => 3,
            (Mutation::LoseDelivered, Record::Delivered { .. }) => 3,
            (Mutation::LoseAcknowledged, Record::Acknowledged { .. }) => 1,
            (Mutation::LoseReleased, Record::Released { .. }) => 1,
            (Mutation::ForgetReceived, Record::Received { .. }) => 1,
            (Mutation::LoseSubscription, Record::Subscribed { .. }) => 2,
            (Mutation::LoseUnsubscription, Record::Unsubscribed { .. }) => 1,
            (Mutation::ResurrectSession, Record::Ended { .. }) => 1,
            (Mutation::RepeatWill, Record::WillGone { .. }) => 1,
            (Mutation::LoseRouting, Record::Routing { .. }) => 1,
            (Mutation::OldRetained, Record::Unretained { .. }) => 1,
            (Mutation::PassForgetsSession, _) => return self.pass_forgets(record),
            _ => return false,
        };
        self.strikes(n)
    }

    fn pass_forgets(&mut self, record: &Record<'_>) -> bool {
        if self.store.restating().is_none() {
            self.forgets = None;
            return false;
        }
        if let Record::Session { key, .. } = record {
            self.forgets = self.strikes(2).then_some(*key);
        }
        let of = match record {
            Record::Session { key, .. }
            | Record::Subscribed { key, .. }
            | Record::Received { key, .. }
            | Record::Delivered { key, .. }
            | Record::Released { key, .. }
            | Record::Queued { key, .. }
            | Record::QueuedMany { key, .. } => Some(*key),
            _ => None,
        };
        of.is_some() && of == self.forgets
    }
}

impl<S: Store> Store for Tap<S> {
    fn is_durable(&self) -> bool {
        self.store.is_durable()
    }

    fn new_key(&mut self) -> SessionKey {
        self.store.new_key()
    }

    fn message(&mut self, message: &MessageRecord<'_>) -> u32 {
        let forgets = self.mutation == Some(Mutation::OldRetained) && message.retained.is_some();
        if forgets && self.strikes(2) {
            return self.store.message(&MessageRecord { retained: None, ..*message });
        }
        self.store.message(message)
    }

    fn record(&mut self, record: &Record<'_>) {
        if self.swallows(record) {
            return;
        }
        self.once |=
            matches!(record, Record::Delivered { entry, .. } if entry.qos == QoS::ExactlyOnce);
        if self.mutation == Some(Mutation::LoseWill) {
            match record {
                Record::Session { key, client_id, expiry_s, detached, keeps_messages, .. } => {
                    return self.store.record(&Record::Session {
                        key: *key,
                        client_id,
                        expiry_s: *expiry_s,
                        detached: *detached,
                        keeps_messages: *keeps_messages,
                        will: None,
                    });
                }
                Record::Connected { key, expiry_s, .. } => {
                    let (key, expiry_s) = (*key, *expiry_s);
                    return self.store.record(&Record::Connected { key, expiry_s, will: None });
                }
                _ => {}
            }
        }
        self.store.record(record);
    }

    fn commit(&mut self) -> Option<Committed> {
        let committed = self.store.commit();
        let once = std::mem::take(&mut self.once);
        if let Some(committed) = committed {
            if let Some(last) = self.tickets.0.get(usize::from(self.shard)) {
                last.store(committed.ticket.0, Relaxed);
            }
            if once && self.mutation == Some(Mutation::Qos2BeforeDurable) {
                self.ahead = committed.ticket;
            }
        }
        committed
    }

    fn synced(&self) -> Ticket {
        let synced = self.store.synced();
        match self.mutation {
            Some(Mutation::AckBeforeSync) if synced != Ticket(u64::MAX) => Ticket(u64::MAX - 1),
            Some(Mutation::Qos2BeforeDurable) => synced.max(self.ahead),
            _ => synced,
        }
    }

    fn is_full(&self) -> bool {
        self.store.is_full()
    }

    fn backlog_bytes(&self) -> usize {
        self.store.backlog_bytes()
    }

    fn fetch(&mut self, fetch: Fetch) {
        self.store.fetch(fetch);
    }

    fn poll_fetched(&mut self) -> Option<Fetched> {
        self.store.poll_fetched()
    }

    fn read(&self, stored: Stored) -> Option<MessageBody> {
        self.store.read(stored)
    }

    fn restating(&self) -> Option<u64> {
        self.store.restating()
    }

    fn restated(&mut self, pass: u64) {
        self.store.restated(pass);
    }
}
