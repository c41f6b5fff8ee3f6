//! What the store has kept becomes sessions and retained messages again, before anybody connects.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use whimbrel_auth::{Method, Principal};
use whimbrel_codec::QoS;
use whimbrel_protocol::InFlight;
use whimbrel_store::{
    MessageBody, Record, SessionRecovered, Stored, Unrouted, WallMs, WillRecovered,
};
use whimbrel_topics::{GroupRoute, HasTopic, SessionRef, SubscriptionOptions};

use super::Shard;
use super::retained::Expiry;
use super::spilled::delivery;
use super::subscribe::split;
use crate::message::Publication;
use crate::session::{NO_GROUP, Session, Subscription, Will};
use crate::spill::Spilled;
use crate::stats::Count;
use crate::{Millis, ShardId, Shared};

/// Reads a message that the store has kept; none if it is damaged.
pub type ReadMessage<'a> = dyn FnMut(Stored) -> Option<MessageBody> + 'a;

impl Shared {
    /// The shard in which the client's session is to be restored.
    pub fn home_of(&self, client_id: &str) -> ShardId {
        ShardId(self.home(client_id))
    }

    /// Numbers of retained messages go on behind this one.
    pub fn restore_retained_number(&self, last: u64) {
        self.retained_number.store(last, Ordering::Relaxed);
    }
}

impl Shard {
    /// A message that the store has kept is its topic's retained one.
    pub fn handle_restore_retained(&mut self, now: Millis, stored: Stored, body: &MessageBody) {
        self.now = now;
        let message = self.restored_message(&body.record(), stored);
        let expires = message.expires();
        if expires <= now {
            return;
        }
        let shared = self.shared.clone();
        let mut retained = shared.retained.write().unwrap_or_else(PoisonError::into_inner);
        if expires != Millis::NEVER {
            let expiry = Expiry::new(expires, message.topic());
            self.retained_expiry.push(expiry, &retained);
        }
        retained.insert(message);
    }

    /// Makes a session of what the store has kept; gives where it is. `stopped`: the broker was
    /// stopped in good order, so nothing was sent that is not recorded.
    pub fn handle_restore(
        &mut self,
        now: Millis,
        kept: SessionRecovered,
        stopped: bool,
        read: &mut ReadMessage<'_>,
    ) -> SessionRef {
        self.now = now;
        let slot = self.insert_session(&kept.client_id);
        let who = SessionRef { shard: self.id.0, session: slot };
        // One that was connected to the end loses its connection now. A clock that was set back
        // since must not keep it longer.
        let wall_now = self.shared.wall(now).unwrap_or_default();
        let detached = kept.detached.unwrap_or(wall_now).min(wall_now);
        let will = kept.will.as_ref().map(|will| self.restored_will(will, detached));
        let ends = self.seconds_after(detached, kept.expiry_s);
        let rights = kept.principal.as_deref().and_then(|bytes| {
            // One that cannot be read is nobody's: better lost than somebody else's.
            let principal = Principal::decode(bytes).unwrap_or_else(|| Principal {
                permissions: Some(Vec::new()),
                ..Principal::new("\0", Method::Anonymous)
            });
            self.rights_of(Arc::new(principal), &kept.client_id, None)
        });
        if let Some(session) = self.sessions.get_mut(slot as usize) {
            session.key = std::num::NonZeroU64::new(kept.key.0);
            session.durable = kept.keeps_messages;
            session.expiry_s = kept.expiry_s;
            session.detached = Some(detached);
            session.rights = rights;
            session.ends = if kept.expiry_s == u32::MAX { Millis::NEVER } else { ends };
            session.will = will;
            for packet_id in &kept.received {
                session.incoming.get_or_insert_default().receive(*packet_id);
            }
        }
        let groups = self.restore_subscriptions(slot, &kept);
        let group = |old: Option<u32>| {
            let old = old?;
            groups.iter().find(|(was, _)| *was == old).map(|(_, is)| *is)
        };
        for in_flight in &kept.in_flight {
            let state = match &in_flight.entry {
                None => InFlight::Released,
                Some(entry) => {
                    let body = read(entry.stored);
                    let Some(body) = body else { continue };
                    let message = self.restored_message(&body.record(), entry.stored);
                    let mut entry = entry.clone();
                    entry.group = group(entry.group);
                    let delivery = delivery(Some(message), &entry);
                    match entry.qos {
                        QoS::ExactlyOnce => InFlight::PublishedOnce(delivery),
                        _ => InFlight::Published(delivery),
                    }
                }
            };
            if let Some(session) = self.sessions.get_mut(slot as usize) {
                session.outbound().in_flight.restore(in_flight.packet_id, state);
            }
        }
        // Nothing was sent behind the record that says that the connection was lost.
        let was_connected = kept.detached.is_none();
        self.restore_queue(slot, kept, was_connected && !stopped, &group);
        if was_connected || !groups.is_empty() {
            // Its time begins now, what may have been sent goes on being told apart, and entries
            // that follow name groups by the keys of now; also should the broker be stopped again.
            self.restate_session(slot);
        }
        self.arm_session(slot);
        who
    }

    fn restore_queue(
        &mut self,
        slot: u32,
        kept: SessionRecovered,
        maybe_sent: bool,
        group: &dyn Fn(Option<u32>) -> Option<u32>,
    ) {
        if kept.queue.is_empty() {
            return;
        }
        self.count(Count::Queued, kept.queue.len() as u64);
        let queue = if kept.subscriptions.iter().any(|s| s.group.is_some()) {
            // Groups have other keys now.
            let mut queue = whimbrel_store::EntryQueue::default();
            for mut entry in kept.queue.iter() {
                entry.group = group(entry.group);
                queue.push(&entry);
            }
            queue
        } else {
            kept.queue
        };
        if let Some(session) = self.sessions.get_mut(slot as usize) {
            session.outbound().spilled = Some(Box::new(Spilled::restored(queue, maybe_sent)));
        }
    }

    /// Gives the keys of shared-subscription groups, as they were and as they are.
    fn restore_subscriptions(&mut self, slot: u32, kept: &SessionRecovered) -> Vec<(u32, u32)> {
        let who = SessionRef { shard: self.id.0, session: slot };
        let routes = &self.shared.routes;
        let mut groups = Vec::new();
        let Some(session) = self.sessions.get_mut(slot as usize) else { return groups };
        for subscription in &kept.subscriptions {
            let Ok((group, plain)) = split(&subscription.filter) else { continue };
            let options = SubscriptionOptions {
                qos: subscription.qos as u8,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                id: subscription.id,
                durable: subscription.qos != QoS::AtMostOnce,
            };
            routes.subscribe(plain, group, who, options);
            if let Some(name) = group {
                routes.set_connected(plain, name, who, false);
                groups.extend(subscription.group.zip(routes.group_key(plain, name)));
            }
            let shared = group.is_some();
            let filter = subscription.filter.clone();
            self.buffered += Subscription::memory_bytes(&filter);
            let subscription = Subscription { filter, shared };
            session.subscriptions.add(subscription, |filter| routes.topic_hash(filter));
        }
        groups
    }

    fn seconds_after(&self, at: WallMs, seconds: u32) -> Millis {
        self.shared.here_at(WallMs(at.0.saturating_add(u64::from(seconds) * 1000)))
    }

    fn restored_will(&mut self, will: &WillRecovered, detached: WallMs) -> Box<Will> {
        let (topic, properties) = (&*will.topic, &*will.properties);
        let mut p = Publication::new(topic, properties, &will.payload, will.qos, Millis::NEVER);
        let message = p.keep(&self.shared.account, &mut self.encoder.body);
        let WillRecovered { retain, delay_s, expiry_s, .. } = *will;
        let due = self.seconds_after(detached, delay_s);
        Box::new(Will { message, retain, delay_s, expiry_s, due })
    }

    /// All sessions are restored: what is over by now ends, and wills that are due are published,
    /// before any client can come back and have its will forgotten.
    pub fn handle_restored(&mut self, now: Millis) {
        self.now = now;
        let due =
            |(slot, session): (usize, &Session)| (session.deadline() <= now).then_some(slot as u32);
        let due: Vec<u32> = self.sessions.iter().filter_map(due).collect();
        due.into_iter().for_each(|slot| self.session_due(slot));
    }

    /// Completes the way of a message that was on its way to other shards when the broker was
    /// stopped. Every shard is asked, one after the other, when all sessions are restored;
    /// `reached` are those that have it. Afterwards the shards' batches end, and then one of them
    /// is told that it is done ([`Shard::handle_routed`]).
    pub fn handle_unrouted(
        &mut self,
        now: Millis,
        unrouted: &Unrouted,
        body: &MessageBody,
        reached: &mut Vec<SessionRef>,
    ) {
        self.now = now;
        let message = self.restored_message(&body.record(), unrouted.stored);
        let mut p = message.publication();
        // Some who did not record it may have got it at QoS 1.
        p.dup = true;
        if let Some(filter) = &unrouted.group {
            return self.complete_for_group(filter, reached, &mut p);
        }
        let entry = self.cache.take(&self.shared.routes, self.id.0, p.topic);
        for subscriber in &entry.route.local {
            let who = SessionRef { shard: self.id.0, session: subscriber.session };
            let session = self.sessions.get(subscriber.session as usize);
            let key = session.and_then(|session| session.durable_key());
            let own = key == Some(unrouted.from);
            if key.is_none() || reached.contains(&who) || !subscriber.receives(own) {
                continue;
            }
            let qos = p.qos.min(QoS::from_u8(subscriber.qos()).unwrap_or_default());
            let ids = entry.route.ids_of(subscriber);
            if qos != QoS::AtMostOnce {
                self.enqueue(who.session, qos, false, ids, NO_GROUP, &mut p);
            }
        }
        for group in &entry.route.groups {
            if !reached.iter().any(|who| group.member(*who).is_some()) {
                reached.extend(self.share_here(group, &mut p));
            }
        }
        self.cache.put(entry);
    }

    fn complete_for_group(
        &mut self,
        filter: &str,
        reached: &mut Vec<SessionRef>,
        p: &mut Publication<'_>,
    ) {
        let Ok((Some(name), plain)) = split(filter) else { return };
        let routes = &self.shared.routes;
        let group = routes.group_key(plain, name).and_then(|key| routes.group(key));
        if let Some(group) = group.filter(|_| reached.is_empty()) {
            reached.extend(self.share_here(&group, p));
        }
    }

    /// All shards have in their batches what they must of a message.
    pub fn handle_routed(&mut self, unrouted: &Unrouted) {
        let position = unrouted.stored.position;
        self.durable.record(&Record::Routed { position, group: unrouted.group_key });
    }

    /// Gives the message to a member of the group in this shard, if there is one.
    fn share_here(&mut self, group: &GroupRoute, p: &mut Publication<'_>) -> Option<SessionRef> {
        let first = group.choose()?;
        let mut member = first;
        while member.who.shard != self.id.0 {
            member = group.choose()?;
            if member.who == first.who {
                return None;
            }
        }
        self.deliver_to_member(&member, group.key(), 0, false, p);
        Some(member.who)
    }
}
