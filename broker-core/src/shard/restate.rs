//! Stating everything again, so that the store may forget what came before (`format.md`, "Passes").

use std::ops::ControlFlow;
use std::sync::PoisonError;

use whimbrel_codec::{PacketId, QoS};
use whimbrel_protocol::InFlight;
use whimbrel_store::{Entry, EntryQueue, Position, Record, SessionKey};
use whimbrel_topics::{Cursor, SessionRef};

use super::Shard;
use super::durable::record_state;
use super::subscribe::split;
use crate::Millis;
use crate::message::Message;
use crate::session::{Delivery, NO_GROUP};

/// Sessions looked at in one tick.
const SESSIONS: usize = 256;
/// Retained messages stated in one tick.
const RETAINED: usize = 4096;
/// Messages that wait, stated in one tick, beyond those of one session.
const MESSAGES: usize = 16 * 1024;

/// How far a pass has come.
pub(super) struct Restating {
    pass: u64,
    /// The next session.
    slot: usize,
    /// The next retained message; none: all are stated, or it is not this shard's to do.
    retained: Option<Cursor>,
}

impl Shard {
    /// Goes on with a pass, if the store wants one.
    pub(super) fn restate(&mut self) {
        let Some(pass) = self.durable.store.restating() else {
            self.durable.restating = None;
            return;
        };
        let state = self.durable.restating.take().filter(|state| state.pass == pass);
        let mut state = state.unwrap_or_else(|| Restating {
            pass,
            slot: 0,
            retained: (self.id.0 == 0).then(Cursor::default),
        });
        let end = self.sessions.iter().next_back().map_or(0, |(slot, _)| slot + 1);
        let mut messages = 0;
        for _ in 0..SESSIONS {
            if state.slot >= end || messages > MESSAGES {
                break;
            }
            messages += self.restate_session(state.slot as u32);
            state.slot += 1;
        }
        if let Some(mut cursor) = state.retained.take() {
            self.restate_retained(&mut cursor);
            state.retained = (!cursor.is_done()).then_some(cursor);
        }
        if state.slot < end || state.retained.is_some() {
            self.durable.restating = Some(state);
        } else {
            self.durable.store.restated(pass);
            self.durable.note_dirty();
        }
    }

    fn restate_retained(&mut self, cursor: &mut Cursor) {
        let mut found = std::mem::take(&mut self.found);
        {
            let retained = self.shared.retained.read().unwrap_or_else(PoisonError::into_inner);
            retained.visit(cursor, RETAINED, &mut |message: &Message| {
                found.push(message.clone());
                ControlFlow::Continue(())
            });
        }
        for message in found.drain(..) {
            // One without a place is about to be recorded, or is the broker's own.
            if message.position() != Position(0) && message.position().writer().is_none() {
                let stored = message.stored();
                // The number stands in the message's own record.
                self.durable.record(&Record::Retained { stored, number: 0 });
            }
        }
        self.found = found;
    }

    /// States a session with all that belongs to it; gives how many messages that are.
    pub(super) fn restate_session(&mut self, slot: u32) -> usize {
        let Some(key) = self.sessions.get(slot as usize).and_then(|session| session.key()) else {
            return 0;
        };
        self.forget_expired(slot);
        if let Some(session) = self.sessions.get(slot as usize) {
            record_state(&mut self.durable, session);
        }
        self.restate_subscriptions(slot, key);
        if let Some(session) = self.sessions.get(slot as usize) {
            for packet_id in session.incoming.iter().flat_map(|incoming| incoming.iter()) {
                self.durable.record(&Record::Received { key, packet_id });
            }
        }
        self.restate_in_flight(slot, key) + self.restate_queue(slot, key)
    }

    fn restate_subscriptions(&mut self, slot: u32, key: SessionKey) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        if !session.durable {
            return;
        }
        let who = SessionRef { shard: self.id.0, session: slot };
        let routes = &self.shared.routes;
        for subscription in session.subscriptions.iter() {
            let Ok((group, plain)) = split(&subscription.filter) else { continue };
            let Some(options) = routes.options(plain, group, who) else { continue };
            self.durable.record(&Record::Subscribed {
                key,
                filter: &subscription.filter,
                qos: QoS::from_u8(options.qos).unwrap_or_default(),
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                id: options.id,
                group: group.and_then(|group| routes.group_key(plain, group)),
            });
        }
    }

    fn restate_in_flight(&mut self, slot: u32, key: SessionKey) -> usize {
        let Some(session) = self.sessions.get(slot as usize) else { return 0 };
        let Some(outbound) = session.outbound.as_ref().filter(|_| session.durable) else {
            return 0;
        };
        let in_flight = outbound.in_flight.iter().map(|(packet_id, state)| match state {
            InFlight::Published(d) | InFlight::PublishedOnce(d) => (packet_id, Some(d.again())),
            InFlight::Released => (packet_id, None),
        });
        let in_flight: Vec<(PacketId, Option<Again>)> = in_flight.collect();
        let count = in_flight.len();
        for (packet_id, again) in in_flight {
            match again.map(|again| self.entry_again(again)) {
                Some(Some(entry)) => {
                    self.durable.record(&Record::Delivered { key, packet_id, entry });
                }
                // Without a body it could not be repeated.
                Some(None) => {}
                None => self.durable.record(&Record::Released { key, packet_id }),
            }
        }
        count
    }

    fn restate_queue(&mut self, slot: u32, key: SessionKey) -> usize {
        let Some(session) = self.sessions.get(slot as usize) else { return 0 };
        let Some(outbound) = session.outbound.as_ref().filter(|_| session.durable) else {
            return 0;
        };
        let in_memory: Vec<Again> = outbound.queue.iter().map(Delivery::again).collect();
        let mut run = EntryQueue::default();
        let mut count = 0;
        for again in in_memory {
            if let Some(entry) = self.entry_again(again) {
                self.restate_entry(key, entry, &mut run);
                count += 1;
            }
        }
        let session = self.sessions.get_mut(slot as usize);
        let spilled = session.and_then(|s| s.outbound.as_mut()).and_then(|o| o.spilled.take());
        if let Some(spilled) = spilled {
            for entry in spilled.iter() {
                self.restate_entry(key, entry, &mut run);
                count += 1;
            }
            if let Some(session) = self.sessions.get_mut(slot as usize) {
                session.outbound().spilled = Some(spilled);
            }
        }
        if !run.is_empty() {
            self.durable.record(&Record::QueuedMany { key, entries: run });
        }
        count
    }

    /// One after the other, packed as far as their places are known.
    fn restate_entry(&mut self, key: SessionKey, entry: Entry, run: &mut EntryQueue) {
        if entry.stored.position.writer().is_none() {
            return run.push(&entry);
        }
        if !run.is_empty() {
            let entries = std::mem::take(run);
            self.durable.record(&Record::QueuedMany { key, entries });
        }
        self.durable.record(&Record::Queued { key, entry });
    }

    fn entry_again(&mut self, again: Again) -> Option<Entry> {
        let Again { message, qos, retain, dup, group, ids } = again;
        let message = message?;
        // It enters the store again if another shard has just stored it and does not know where.
        let stored = self.store(&mut message.publication(), None);
        let expires = self.shared.wall(message.expires());
        let group = (group != NO_GROUP).then_some(group);
        Some(Entry { stored, qos, retain, dup, expires, group, ids })
    }

    /// What has expired in a queue is not stated again; nobody else would look before the client
    /// comes back.
    fn forget_expired(&mut self, slot: u32) {
        let now = self.now;
        let wall = self.shared.wall(now);
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let Some(outbound) = session.outbound.as_mut() else { return };
        let alive = |d: &Delivery| d.message.as_ref().is_none_or(|m| m.expires() > now);
        let mut lost = 0;
        if !outbound.queue.iter().all(alive) {
            let queue = std::mem::take(&mut outbound.queue);
            outbound.queued_bytes = 0;
            for delivery in queue {
                match alive(&delivery) {
                    true => outbound.push(delivery),
                    false => lost += 1,
                }
            }
        }
        if let Some(spilled) = outbound.spilled.as_mut() {
            lost += spilled.repack(|entry| entry.expires.is_none() || entry.expires > wall);
        }
        if lost > 0 {
            self.count_lost(lost as u64);
        }
    }

    /// Takes the next tick for a pass that goes on.
    pub(super) fn restate_timeout(&self) -> Option<Millis> {
        self.durable.restating.is_some().then_some(self.now)
    }
}

/// What of a delivery stands in its record.
struct Again {
    message: Option<Message>,
    qos: QoS,
    retain: bool,
    dup: bool,
    group: u32,
    ids: Vec<u32>,
}

impl Delivery {
    fn again(&self) -> Again {
        Again {
            message: self.message.clone(),
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
            group: self.group,
            ids: self.ids().to_vec(),
        }
    }
}
