//! Changes that are written together.

use std::collections::BTreeMap;

use whimbrel_codec::PacketId;

/// How far a message in flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) packet_id: PacketId,
    /// PUBREC has come.
    pub(crate) is_received: bool,
}

/// What is to be different on disk: for each thing its newest state, none if it is to go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// By number, which is the order of publishing.
    pub(crate) messages: BTreeMap<u64, Option<Vec<u8>>>,
    /// By the number of the message.
    pub(crate) stages: BTreeMap<u64, Option<Stage>>,
    /// Identifiers of the broker's are forgotten before those below are noted.
    pub(crate) forgets_arrivals: bool,
    /// Whether a QoS 2 message of the broker has been taken and not released.
    pub(crate) arrivals: BTreeMap<PacketId, bool>,
    /// The broker has a session.
    pub(crate) has_session: bool,
    /// Bytes of all messages on disk after this.
    pub(crate) bytes: u64,
    /// Bytes of messages in this batch.
    pub(crate) new_bytes: usize,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.stages.is_empty()
            && self.arrivals.is_empty()
            && !self.forgets_arrivals
            && !self.has_session
    }

    pub(crate) fn put(&mut self, number: u64, message: Vec<u8>) {
        self.new_bytes += message.len();
        self.messages.insert(number, Some(message));
    }

    pub(crate) fn remove(&mut self, number: u64) {
        match self.messages.remove(&number) {
            // It has never been written.
            Some(Some(message)) => self.new_bytes -= message.len(),
            _ => drop(self.messages.insert(number, None)),
        }
    }

    pub(crate) fn forget_arrivals(&mut self) {
        self.arrivals.clear();
        self.forgets_arrivals = true;
    }

    /// What was to be written and could not be, or perhaps was, and `newer` changes together.
    pub(crate) fn followed_by(mut self, newer: Batch) -> Batch {
        if newer.forgets_arrivals {
            self.forget_arrivals();
        }
        self.messages.extend(newer.messages);
        self.stages.extend(newer.stages);
        self.arrivals.extend(newer.arrivals);
        self.has_session |= newer.has_session;
        self.bytes = newer.bytes;
        self.new_bytes = self.messages.values().flatten().map(Vec::len).sum();
        self
    }
}
