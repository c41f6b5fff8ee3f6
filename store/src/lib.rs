//! The `Store` port: what the broker wants to find again after it was stopped, and when it may
//! acknowledge.
//!
//! A shard hands each change of its durable state to its store as a [`Record`] and gets a
//! [`Ticket`]. An acknowledgement that rests on a record is sent once [`Store::synced`] has reached
//! the ticket. [`MemoryStore`] keeps nothing: with it every ticket is reached at once.
//!
//! So far [`MemoryStore`] is the only store, and with it shards make no records at all
//! ([`Store::is_durable`]); a durable one comes with the shards' side of this contract.

use whimbrel_codec::{PacketId, QoS};

/// A place in the order of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A change of durable state.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A session began, or its expiry changed.
    Session {
        /// Whose session.
        client_id: &'a str,
        /// Seconds; 0xFFFFFFFF: never.
        expiry_s: u32,
    },
    /// A session ended.
    SessionEnded {
        /// Whose session.
        client_id: &'a str,
    },
    /// A subscription was made or changed.
    Subscribed {
        /// Whose session.
        client_id: &'a str,
        /// As the client sent it, `$share/...` included.
        filter: &'a str,
        /// The options byte of SUBSCRIBE.
        options: u8,
        /// The subscription identifier, 0 for none.
        id: u32,
    },
    /// A subscription was removed.
    Unsubscribed {
        /// Whose session.
        client_id: &'a str,
        /// As the client sent it.
        filter: &'a str,
    },
    /// A message waits for a session.
    Queued {
        /// Whose session.
        client_id: &'a str,
        /// The message.
        message: MessageRecord<'a>,
    },
    /// The oldest waiting message of a session was delivered or dropped.
    Dequeued {
        /// Whose session.
        client_id: &'a str,
    },
    /// A QoS 2 message was received from the client.
    Received {
        /// Whose session.
        client_id: &'a str,
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// A QoS 2 message was released by the client.
    Released {
        /// Whose session.
        client_id: &'a str,
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// A topic's retained message changed; an empty payload removes it.
    Retained {
        /// The message.
        message: MessageRecord<'a>,
    },
}

/// An application message as a record carries it.
#[derive(Clone, Copy, Debug)]
pub struct MessageRecord<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Properties to forward, as on the wire.
    pub properties: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// Seconds left to live; none: for ever.
    pub expiry_s: Option<u32>,
}

/// Where a shard's durable state goes.
pub trait Store: Send {
    /// False if records need not even be made.
    fn is_durable(&self) -> bool;

    /// Takes a record; it is synced at some later time.
    fn record(&mut self, record: Record<'_>) -> Ticket;

    /// The last ticket up to which everything is synced.
    fn synced(&self) -> Ticket;
}

/// Keeps nothing: what a broker without a data directory uses.
#[derive(Debug, Default)]
pub struct MemoryStore;

impl Store for MemoryStore {
    fn is_durable(&self) -> bool {
        false
    }

    fn record(&mut self, _: Record<'_>) -> Ticket {
        Ticket::default()
    }

    fn synced(&self) -> Ticket {
        Ticket(u64::MAX)
    }
}
