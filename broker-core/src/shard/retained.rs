//! Retained messages (section 3.3.1.3).

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use whimbrel_auth::{Access, Action};
use whimbrel_codec::QoS;
use whimbrel_store::Record;
use whimbrel_topics::{Cursor, HasTopic, Retained};

use super::Shard;
use super::publish::ids;
use super::shed::Pressure;
use crate::conn::{RetainedScan, State};
use crate::message::{Message, Publication};
use crate::session::NO_GROUP;
use crate::stats::Count;
use crate::{ConnId, Millis};

/// Messages looked up under one hold of the lock.
const PER_LOOK: usize = 64;
/// Messages looked at in one tick: a filter that finds few among very many holds up nobody.
const PER_TICK: usize = 32 * 1024;

impl RetainedScan {
    pub(crate) fn new(filter: &str, qos: QoS, id: u32) -> RetainedScan {
        RetainedScan { filter: filter.into(), cursor: Cursor::default(), qos: qos as u8, id }
    }
}

/// When the retained message of a topic ends.
pub(super) struct Expiry {
    when: Millis,
    topic: Box<str>,
}

impl Expiry {
    pub(super) fn new(when: Millis, topic: &str) -> Expiry {
        Expiry { when, topic: topic.into() }
    }

    pub(super) fn when(&self) -> Millis {
        self.when
    }
}

/// The ends to come, the next first.
#[derive(Default)]
pub(super) struct Expiries {
    heap: BinaryHeap<Expiry>,
    /// How many there may be before those of replaced messages are thrown out.
    most: usize,
}

impl Expiries {
    pub(super) fn next(&self) -> Option<Millis> {
        self.heap.peek().map(Expiry::when)
    }

    pub(super) fn push(&mut self, expiry: Expiry, retained: &Retained<Message>) {
        self.heap.push(expiry);
        if self.heap.len() > self.most.max(64) {
            let holds = |expiry: &Expiry| {
                retained.get(&expiry.topic).is_some_and(|there| there.expires() == expiry.when)
            };
            self.heap.retain(holds);
            self.most = 2 * self.heap.len();
        }
    }
}

/// The earliest first, in a heap whose top is the greatest.
impl Ord for Expiry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.when().cmp(&self.when())
    }
}

impl PartialOrd for Expiry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Expiry {
    fn eq(&self, other: &Self) -> bool {
        self.when() == other.when()
    }
}

impl Eq for Expiry {}

impl Shard {
    /// Keeps the message as its topic's retained one `[MQTT-3.3.1-5]`, or removes that one if the
    /// payload is empty `[MQTT-3.3.1-6]`, `[MQTT-3.3.1-7]`.
    pub(super) fn retain(&mut self, p: &mut Publication<'_>) {
        let shared = self.shared.clone();
        if p.payload.is_empty() {
            let (removed, number) = {
                let mut retained = shared.retained.write().unwrap_or_else(PoisonError::into_inner);
                (retained.remove(p.topic), self.next_retained_number())
            };
            // Where nothing is, an earlier removal that is not durable yet may be why: what is
            // acknowledged rests on it.
            let told = removed.is_some() || p.qos != QoS::AtMostOnce;
            if self.is_stored_topic(p.topic) && told {
                self.durable.record(&Record::Unretained { topic: p.topic, number });
            }
            return;
        }
        let message = self.keep(p);
        let mut retained = shared.retained.write().unwrap_or_else(PoisonError::into_inner);
        let full = retained.len() as u64 >= self.config.max_retained_messages;
        let short = self.pressure >= Pressure::Queues;
        let may_stay = |there: &Message| !short || there.payload().len() >= p.payload.len();
        if (full || short) && !retained.get(p.topic).is_some_and(may_stay) {
            // What stands there is no longer the topic's last: better none than a wrong one.
            let replaced = retained.remove(p.topic);
            let number = self.next_retained_number();
            drop(retained);
            if self.is_stored_topic(p.topic) && replaced.is_some() {
                self.durable.record(&Record::Unretained { topic: p.topic, number });
            }
            self.count(Count::Dropped, 1);
            return;
        }
        let replaced = retained.insert(message);
        let number = self.next_retained_number();
        if p.expires != Millis::NEVER {
            let expiry = Expiry::new(p.expires, p.topic);
            self.retained_expiry.push(expiry, &retained);
        }
        drop(retained);
        drop(replaced);
        if self.is_stored_topic(p.topic) {
            self.store(p, Some(number));
        }
    }

    /// Called under the lock of the retained messages, so that numbers have their order.
    fn next_retained_number(&self) -> u64 {
        self.shared.retained_number.fetch_add(1, Relaxed) + 1
    }

    /// Goes on with the searches that an earlier tick broke off.
    pub(super) fn search_on(&mut self) {
        for id in std::mem::take(&mut self.searching) {
            if let Some(extra) = self.conn(id).and_then(|conn| conn.extra.as_mut()) {
                extra.searching = false;
                self.send_retained(id);
            }
        }
        // The first has had its turn.
        let first = 1.min(self.searching.len());
        self.searching.rotate_left(first);
    }

    /// Sends retained messages to new subscriptions as far as the output allows; goes on when it
    /// has drained.
    pub(super) fn send_retained(&mut self, id: ConnId) {
        loop {
            let low_water = self.low_water();
            let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
            let Some(extra) = &mut conn.extra else { return };
            let Some(scan) = extra.retained.front_mut() else {
                // Most connections need what is extra only while they subscribe.
                if extra.is_empty() {
                    conn.extra = None;
                }
                return;
            };
            if self.looked >= PER_TICK {
                if !std::mem::replace(&mut extra.searching, true) {
                    self.searching.push(id);
                }
                return;
            }
            // One that only names a topic costs a look-up.
            let wildcard = scan.filter.contains(['+', '#']);
            self.looked += if wildcard { PER_LOOK } else { 4 };
            let slot = conn.session;
            let Some(session) = self.sessions.get(slot as usize) else { return };
            let routes = &self.shared.routes;
            // [MQTT-3.10.4-2]
            if !session.subscriptions.contains(&scan.filter, |filter| routes.topic_hash(filter)) {
                extra.retained.pop_front();
                continue;
            }
            let queued = session.outbound.as_ref().map_or(0, |outbound| outbound.waiting());
            if conn.state != State::Connected || conn.output.len() >= low_water || queued > PER_LOOK
            {
                return;
            }
            let mut found = std::mem::take(&mut self.found);
            let mut bytes = 0;
            {
                let shared = &self.shared.retained;
                let retained = shared.read().unwrap_or_else(PoisonError::into_inner);
                retained.scan(
                    &scan.filter,
                    &mut scan.cursor,
                    PER_LOOK,
                    &mut |message: &Message| {
                        found.push(message.clone());
                        bytes += message.len();
                        match bytes < low_water {
                            true => ControlFlow::Continue(()),
                            false => ControlFlow::Break(()),
                        }
                    },
                );
            }
            let (qos, subscription_id, done) = (scan.qos, scan.id, scan.cursor.is_done());
            if done {
                extra.retained.pop_front();
            }
            for message in found.drain(..) {
                self.deliver_retained(slot, qos, subscription_id, &message);
            }
            self.found = found;
        }
    }

    fn deliver_retained(&mut self, slot: u32, qos: u8, id: u32, message: &Message) {
        if message.expires() <= self.now {
            return;
        }
        let mut p = message.publication();
        let qos = p.qos.min(QoS::from_u8(qos).unwrap_or_default());
        if !self.may_get_retained(slot, qos, message) {
            return;
        }
        self.encoder.next_publication(1);
        // [MQTT-3.3.1-8]
        self.deliver(slot, qos, true, ids(&id), NO_GROUP, &mut p);
    }

    fn may_get_retained(&mut self, slot: u32, qos: QoS, message: &Message) -> bool {
        let Some(id) = self.sessions.get(slot as usize).and_then(|session| session.conn) else {
            return true;
        };
        if !self.conns.get(id.0 as usize).is_some_and(|conn| conn.limited) {
            return true;
        }
        let (action, topic) = (Action::Receive, message.topic());
        let may = self.may(id, &Access { action, topic, qos: qos as u8, retain: true });
        if !may {
            self.denied(id, "receive", topic);
        }
        may
    }

    /// Removes retained messages whose time is over.
    pub(super) fn expire_retained(&mut self) {
        while self.retained_expiry.next().is_some_and(|when| when <= self.now) {
            let Some(Expiry { topic, .. }) = self.retained_expiry.heap.pop() else { return };
            let shared = self.shared.clone();
            let mut retained = shared.retained.write().unwrap_or_else(PoisonError::into_inner);
            // Another message may stand there by now.
            if retained.get(&topic).is_some_and(|there| there.expires() <= self.now) {
                retained.remove(&topic);
            }
        }
    }
}
