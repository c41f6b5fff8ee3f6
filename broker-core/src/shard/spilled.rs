//! Queues beyond their share of memory: into the store only, and back from it in parts.

use whimbrel_store::{Entry, Fetch, Fetched, MessageRecord, Stored};

use super::Shard;
use super::shed::Pressure;
use crate::Millis;
use crate::message::{Message, Publication};
use crate::session::{Delivery, NO_GROUP};
use crate::stats::Count;

impl Shard {
    /// Whether another message for this session stays in the store only.
    pub(super) fn spills(&self, slot: u32) -> bool {
        let Some(session) = self.sessions.get(slot as usize) else { return false };
        let Some(outbound) = &session.outbound else { return false };
        self.pressure >= Pressure::Queues
            || outbound.spilled.is_some()
            || outbound.queued_bytes > self.config.max_queue_memory_bytes
    }

    pub(super) fn spill(&mut self, slot: u32, entry: Entry) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let spilled = session.outbound().spilled.get_or_insert_default();
        if spilled.push(entry) {
            self.durable.spilled.push(slot);
        }
    }

    /// The messages that a session leaves in the store and that came through a shared subscription
    /// are other members' now. That is rare, so this waits for the disk.
    pub(super) fn hand_over_spilled(&mut self, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let Some(outbound) = session.outbound.as_mut() else { return };
        if !outbound.spilled.as_ref().is_some_and(|spilled| spilled.has_groups()) {
            return;
        }
        // What came in this tick can be read once it has its place in the log.
        self.end_batch();
        let session = self.sessions.get_mut(slot as usize);
        let spilled = session.and_then(|s| s.outbound.as_mut()).and_then(|o| o.spilled.take());
        let Some(spilled) = spilled else { return };
        self.shared.stats.sub(self.id.0, Count::Queued, spilled.len() as u64);
        for entry in spilled.iter() {
            let Some(group) = entry.group else { continue };
            let Some(body) = self.durable.store.read(entry.stored) else {
                self.count(Count::Dropped, 1);
                continue;
            };
            let message = self.restored_message(&body.record(), entry.stored);
            let mut p = message.publication();
            p.reply_to = self.reply_to_of(slot);
            self.encoder.next_publication(1);
            match self.share_with_any(group, entry.retain, &mut p) {
                true => self.keep_sharing(slot, group, &p),
                false => self.count(Count::Dropped, 1),
            }
        }
    }

    /// Has messages of the session read back, if few are left in memory.
    pub(super) fn load(&mut self, slot: u32) {
        const FEW: usize = 128;
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let Some(outbound) = session.outbound.as_mut() else { return };
        let Some(spilled) = outbound.spilled.as_mut() else { return };
        if spilled.len() == 0 {
            outbound.spilled = None;
            return;
        }
        if session.conn.is_none() || outbound.queue.len() > FEW {
            return;
        }
        let token = self.durable.last_token + 1;
        let Some(wanted) = spilled.load(token) else { return };
        self.durable.last_token = token;
        self.durable.loading.push((token, slot));
        self.durable.store.fetch(Fetch { token, wanted });
    }

    pub(super) fn loaded(&mut self, fetched: Fetched) {
        let loading = &mut self.durable.loading;
        let Some(at) = loading.iter().position(|(token, _)| *token == fetched.token) else {
            return;
        };
        let (token, slot) = loading.swap_remove(at);
        for body in fetched.bodies {
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            let Some(outbound) = session.outbound.as_mut() else { return };
            let spilled = outbound.spilled.as_mut().filter(|spilled| spilled.token == token);
            let Some(entry) = spilled.and_then(|spilled| spilled.loaded()) else { return };
            let message = body.map(|body| self.restored_message(&body.record(), entry.stored));
            let delivery = delivery(message, &entry);
            if let Some(session) = self.sessions.get_mut(slot as usize) {
                session.outbound().push(delivery);
            }
        }
        self.pump(slot);
        self.load(slot);
    }

    /// A message that was read from the store.
    pub(super) fn restored_message(
        &mut self,
        record: &MessageRecord<'_>,
        stored: Stored,
    ) -> Message {
        let expires = record.expires.map_or(Millis::NEVER, |at| self.shared.here_at(at));
        let MessageRecord { topic, properties, payload, qos, .. } = *record;
        let mut p = Publication::new(topic, properties, payload, qos, expires);
        p.stored = stored.position;
        p.keep(&self.shared.account, &mut self.encoder.body)
    }
}

/// What an entry says, with its message; none if that cannot be read any more.
pub(super) fn delivery(message: Option<Message>, entry: &Entry) -> Delivery {
    let group = entry.group.unwrap_or(NO_GROUP);
    let mut delivery = Delivery::new(message, entry.qos, entry.retain, &entry.ids, group);
    delivery.dup = entry.dup;
    delivery
}
