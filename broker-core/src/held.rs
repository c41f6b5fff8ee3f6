//! What may leave only when it is durable, in the order in which it came.

use std::collections::VecDeque;

use whimbrel_codec::PacketId;
use whimbrel_store::{Position, Ticket};

use crate::ConnId;

/// Something that waits until what was recorded before it is durable.
#[derive(Debug)]
pub(crate) struct Held {
    /// For whom.
    pub(crate) conn: ConnId,
    /// Of the connection, whose slot may be another's by then.
    pub(crate) serial: u32,
    /// It also waits until other shards have recorded the message: the number of
    /// [`HeldQueue::await_receipts`].
    pub(crate) receipt: Option<u64>,
    pub(crate) what: Release,
}

/// What is done when it waits no longer.
#[derive(Debug)]
pub(crate) enum Release {
    /// An acknowledgement of so many bytes is sent.
    Ack(u8, [u8; 5]),
    /// A packet is sent.
    Packet(Box<[u8]>),
    /// A delivery that is in flight is sent.
    Deliver { packet_id: PacketId, dup: bool },
    /// The connection's CONNACK and all behind it is sent.
    Open,
    /// All shards have recorded a message, of a group or of all.
    Routed(Position, Option<u32>),
}

/// First in, first out: nothing overtakes what came before it, so a client gets its
/// acknowledgements in the order of its packets `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`.
#[derive(Default)]
pub(crate) struct HeldQueue {
    queue: VecDeque<Held>,
    /// How many were released.
    released: u64,
    /// So many, counted from the first ever, have a place in `tickets`.
    ticketed: u64,
    /// Those up to this count wait for the ticket.
    tickets: VecDeque<(u64, Ticket)>,
    /// How many shards have yet to record a message; in the order of those who wait for them.
    receipts: VecDeque<u32>,
    /// Number of the first of them.
    first_receipt: u64,
}

impl HeldQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number that the next call of [`HeldQueue::await_receipts`] gives.
    pub(crate) fn next_receipt(&self) -> u64 {
        self.first_receipt + self.receipts.len() as u64
    }

    /// So many shards are to record a message; who waits for it is pushed next.
    pub(crate) fn await_receipts(&mut self, shards: u32) -> u64 {
        self.receipts.push_back(shards);
        self.next_receipt() - 1
    }

    pub(crate) fn push(&mut self, held: Held) {
        self.queue.push_back(held);
    }

    /// The batch of those that came since the last [`HeldQueue::wait_for`] is at `base`.
    pub(crate) fn settle(&mut self, base: Position) {
        let new = (self.ticketed - self.released) as usize;
        for held in self.queue.iter_mut().skip(new) {
            if let Release::Routed(position, _) = &mut held.what {
                *position = position.settled(base);
            }
        }
    }

    /// Those that came since the last call wait for this ticket.
    pub(crate) fn wait_for(&mut self, ticket: Ticket) {
        let next = self.released + self.queue.len() as u64;
        if self.ticketed < next {
            self.ticketed = next;
            self.tickets.push_back((next, ticket));
        }
    }

    /// One shard more has recorded the message with this number.
    pub(crate) fn recorded(&mut self, number: u64) {
        let at = number.checked_sub(self.first_receipt);
        let receipt = at.and_then(|at| self.receipts.get_mut(at as usize));
        debug_assert!(receipt.as_ref().is_some_and(|receipt| **receipt > 0));
        if let Some(receipt) = receipt {
            *receipt = receipt.saturating_sub(1);
        }
    }

    /// The next one that waits no longer.
    pub(crate) fn release(&mut self, synced: Ticket) -> Option<Held> {
        let &(before, ticket) = self.tickets.front()?;
        if ticket > synced {
            return None;
        }
        if self.queue.front()?.receipt.is_some() {
            if self.receipts.front().is_some_and(|receipt| *receipt > 0) {
                return None;
            }
            self.receipts.pop_front();
            self.first_receipt += 1;
        }
        self.released += 1;
        if self.released == before {
            self.tickets.pop_front();
        }
        let held = self.queue.pop_front();
        if self.queue.is_empty() && self.queue.capacity() > 4096 {
            self.queue = VecDeque::new();
        }
        held
    }
}
