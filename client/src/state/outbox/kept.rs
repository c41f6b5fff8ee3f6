//! The outbox's part on disk: which messages are there alone, and what waits for the disk.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tokio::sync::broadcast;
use whimbrel_codec::QoS;

use crate::store::{Keeper, Load, Loaded, Recovered, Ticket};
use crate::{Message, PublishError, Status};

/// What of a message is on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnDisk {
    /// It is safe when this is durable.
    pub(super) ticket: Ticket,
    pub(super) len_bytes: usize,
}

pub(crate) struct Kept {
    pub(super) keeper: Keeper,
    keeps_qos0: bool,
    /// Messages that are not in memory: those with numbers above `after`.
    pub(super) waiting: u64,
    pub(super) after: u64,
    is_loading: bool,
    /// The last answer held nothing: no other question before something new is on disk.
    is_dry: bool,
    /// Slots of messages that are not in memory, by number.
    pub(super) watched: HashMap<u64, usize, RandomState>,
    /// Whoever waits until a message is safe: ticket, slot and number.
    unsaved: VecDeque<(Ticket, usize, u64)>,
    gate: Gate,
    status: broadcast::Sender<Status>,
}

impl Kept {
    pub(crate) fn new(
        keeper: Keeper,
        keeps_qos0: bool,
        recovered: &Recovered,
        status: broadcast::Sender<Status>,
    ) -> Kept {
        Kept {
            keeper,
            keeps_qos0,
            waiting: recovered.waiting,
            after: recovered.after,
            is_loading: false,
            is_dry: false,
            watched: HashMap::default(),
            unsaved: VecDeque::new(),
            gate: Gate::default(),
            status,
        }
    }

    /// Whether such a message is kept on disk.
    pub(super) fn keeps(&self, message: &Message) -> bool {
        self.keeps_qos0 || message.qos > QoS::AtMostOnce
    }

    /// Takes a message, of which `key` is the slot.
    pub(super) fn put(&mut self, number: u64, key: usize, message: Vec<u8>) -> OnDisk {
        let len_bytes = message.len();
        self.is_dry = false;
        let ticket = self.keeper.put(number, message);
        self.unsaved.push_back((ticket, key, number));
        OnDisk { ticket, len_bytes }
    }

    /// The next slot, with its number, that became safe.
    pub(super) fn next_saved(&mut self) -> Option<(usize, u64)> {
        let &(ticket, key, number) = self.unsaved.front()?;
        if !self.keeper.is_durable(ticket) {
            return None;
        }
        self.unsaved.pop_front();
        Some((key, number))
    }

    /// Whether a new message must wait on disk alone: others do, or may be on their way from there.
    pub(super) const fn is_behind(&self) -> bool {
        self.waiting > 0 || self.is_loading
    }

    /// Asks for messages that are not in memory, if there are some.
    pub(super) fn load(&mut self, max_messages: usize, max_bytes: usize) {
        if self.waiting == 0 || self.is_loading || self.is_dry {
            return;
        }
        self.is_loading = true;
        self.keeper.load(Load { after: self.after, max_messages, max_bytes });
    }

    /// What was asked for, without what was taken back meanwhile.
    pub(super) fn handle_loaded(&mut self, mut loaded: Loaded) -> Loaded {
        self.is_loading = false;
        self.is_dry = loaded.is_empty();
        if let Some((last, _)) = loaded.last() {
            self.after = *last;
        }
        loaded.retain(|(number, _)| !self.keeper.is_removed(*number));
        self.waiting = self.waiting.saturating_sub(loaded.len() as u64);
        loaded
    }

    /// How far the core's output may go to the socket, whose end is at `end` of this connection.
    pub(super) fn allowed(&mut self, end: u64) -> u64 {
        let Kept { gate, keeper, .. } = self;
        gate.allowed(end, keeper.needed(), |ticket| keeper.is_durable(ticket))
    }

    /// A new connection, whose output begins at 0.
    pub(super) fn handle_lost(&mut self) {
        self.gate = Gate::default();
        self.is_dry = false;
    }

    /// Nobody watches a message that was not delivered. Nobody may be listening either.
    pub(super) fn tell(&self, status: Status) {
        let _ = self.status.send(status);
    }

    pub(super) fn tell_undelivered(&self, topic: Arc<str>, why: PublishError) {
        self.tell(Status::Undelivered { topic, why });
    }
}

/// Lets output pass as far as what it rests on is durable.
#[derive(Default)]
struct Gate {
    /// Output up to here may pass.
    open: u64,
    /// Where output ends that rests on a ticket; both go up.
    marks: VecDeque<(u64, Ticket)>,
}

impl Gate {
    /// Everything up to `end` rests on `needed` at the most.
    fn allowed(&mut self, end: u64, needed: Ticket, is_durable: impl Fn(Ticket) -> bool) -> u64 {
        match self.marks.back_mut() {
            Some((at, ticket)) if *ticket == needed => *at = end,
            _ => self.marks.push_back((end, needed)),
        }
        while let Some(&(at, ticket)) = self.marks.front()
            && is_durable(ticket)
        {
            self.open = at;
            self.marks.pop_front();
        }
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_passes_as_far_as_it_rests_on_durable_batches() {
        let durable = |most| move |ticket| ticket <= Ticket(most);
        let mut gate = Gate::default();
        assert_eq!(gate.allowed(10, Ticket(0), durable(0)), 10);
        assert_eq!(gate.allowed(20, Ticket(1), durable(0)), 10);
        // What comes later may rest on the same batch.
        assert_eq!(gate.allowed(25, Ticket(1), durable(0)), 10);
        assert_eq!(gate.allowed(40, Ticket(2), durable(0)), 10);
        assert_eq!(gate.allowed(50, Ticket(3), durable(1)), 25);
        assert_eq!(gate.allowed(50, Ticket(3), durable(2)), 40);
        assert_eq!(gate.allowed(60, Ticket(3), durable(3)), 60);
        assert_eq!(gate.allowed(70, Ticket(3), durable(3)), 70);
    }
}
