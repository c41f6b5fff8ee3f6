//! The end of connections and sessions, and wills (sections 3.1.2.5, 3.14, 4.1).

use std::collections::VecDeque;

use whimbrel_codec::{Disconnect, Property, QoS, ReasonCode};
use whimbrel_protocol::InFlight;
use whimbrel_store::{Record, SessionKey};
use whimbrel_topics::{HasTopic, SessionRef};

use super::{Action, Shard};
use crate::conn::{Extra, NO_SESSION, State};
use crate::event::{Event, Why};
use crate::message::Publication;
use crate::session::{Delivery, NO_GROUP, Session, Will};
use crate::stats::Count;
use crate::{ConnId, Millis};

impl Shard {
    /// DISCONNECT of the client.
    pub(super) fn client_disconnect(&mut self, id: ConnId, disconnect: &Disconnect<'_>) {
        let most = self.config.max_session_expiry_s;
        let wanted = disconnect.properties.iter().find_map(|p| match p {
            Property::SessionExpiryIntervalS(s) => Some(s),
            _ => None,
        });
        let Some((_, session)) = self.session_of(id) else { return };
        if let Some(expiry_s) = wanted {
            // [MQTT-3.14.2-2]
            if session.expiry_s == 0 && expiry_s > 0 && most > 0 {
                let what = "DISCONNECT gives a session expiry that CONNECT did not";
                return self.disconnect(id, ReasonCode::ProtocolError, what);
            }
            session.expiry_s = expiry_s.min(most);
        }
        // [MQTT-3.14.4-3] [MQTT-3.1.2-8]
        let withdrawn = disconnect.reason == ReasonCode::Success && session.will.take().is_some();
        if self.durable.on
            && withdrawn
            && let Some((slot, _)) = self.session_of(id)
        {
            self.record_of(slot, |key| Record::WillGone { key });
        }
        self.end_conn(id, Why::Client(disconnect.reason), Some(false));
    }

    /// Ends a connection: its session goes on alone or ends too. `close`: the runtime is to close
    /// the socket, and whether it is to linger; none if the socket is gone already.
    pub(super) fn end_conn(&mut self, id: ConnId, why: Why, close: Option<bool>) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        let before = std::mem::replace(&mut conn.state, State::Ended);
        if before == State::Ended {
            return;
        }
        if before != State::Connected {
            self.settle_pending(id);
        }
        self.release_client(id);
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        self.buffered -= conn.tail.len();
        conn.tail = Vec::new();
        if conn.gated {
            // What its CONNACK says is not durable yet.
            self.buffered -= conn.output.held();
            conn.output = Default::default();
        }
        let extra = conn.extra.take();
        let slot = std::mem::replace(&mut conn.session, NO_SESSION);
        if let Some(linger) = close {
            self.actions.push_back(Action::Close { conn: id, linger });
        }
        if before == State::Connected {
            self.shared.authenticator.ended(self.ticket(id));
            self.count_end(slot, id, why);
            self.detach(slot);
            self.keep_scans(slot, extra);
        }
    }

    /// Retained messages that were still to be sent go on being due to a session that goes on.
    fn keep_scans(&mut self, slot: u32, extra: Option<Box<Extra>>) {
        let (Some(extra), Some(session)) = (extra, self.sessions.get_mut(slot as usize)) else {
            return;
        };
        let due: VecDeque<_> = extra.retained.into_iter().filter(|scan| scan.qos > 0).collect();
        if !due.is_empty() {
            session.retained = Some(Box::new(due));
        }
    }

    fn count_end(&mut self, slot: u32, id: ConnId, why: Why) {
        self.shared.stats.sub(self.id.0, Count::Connections, 1);
        let Some(session) = self.sessions.get(slot as usize) else { return };
        let client_id = session.client_id.clone();
        let user = session.owner().into();
        self.client_state(&client_id, false);
        self.event(Event::Disconnected { conn: id, client_id, user, why });
    }

    /// The session has lost its connection.
    fn detach(&mut self, slot: u32) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        session.conn = None;
        session.detached = self.shared.wall(now);
        session.ends = match session.expiry_s {
            u32::MAX => Millis::NEVER,
            expiry_s => now.plus_s(expiry_s),
        };
        let ends_now = session.expiry_s == 0;
        let mut will_now = false;
        if let Some(will) = &mut session.will {
            will.due = now.plus_s(will.delay_s);
            will_now = will.delay_s == 0;
        }
        self.set_groups_connected(slot, false);
        if ends_now {
            return self.end_session(slot);
        }
        if self.durable.on {
            self.record_detached(slot);
        }
        // [MQTT-3.1.2-8]
        if will_now {
            self.publish_will(slot);
        }
        self.hand_over(slot, true);
        self.arm_session(slot);
    }

    fn record_detached(&mut self, slot: u32) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        if let (Some(at), expiry_s) = (session.detached, session.expiry_s) {
            self.record_of(slot, |key| Record::Detached { key, at, expiry_s });
        }
    }

    pub(super) fn arm_session(&mut self, slot: u32) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        if session.conn.is_none() && session.deadline() != Millis::NEVER {
            self.session_timers.arm(slot, session.deadline());
        }
    }

    /// The session's state is discarded `[MQTT-4.1.0-2]`; its will, if it still waits, is published
    /// now (section 3.1.3.2.2).
    pub(super) fn end_session(&mut self, slot: u32) {
        self.publish_will(slot);
        self.drop_subscriptions(slot);
        self.hand_over(slot, false);
        if self.durable.on {
            self.hand_over_spilled(slot);
            self.record_of(slot, |key| Record::Ended { key });
        }
        let Some(session) = self.sessions.try_remove(slot as usize) else { return };
        let hash = self.shared.routes.topic_hash(&session.client_id);
        if session.key.is_some() {
            self.durable.note_ended(hash);
        }
        if let Ok(entry) = self.by_client.find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
        let queued = session.outbound.as_ref().map_or(0, |outbound| outbound.waiting());
        self.shared.stats.sub(self.id.0, Count::Queued, queued as u64);
        self.shared.stats.sub(self.id.0, Count::Sessions, 1);
    }

    /// What came to this session through shared subscriptions and was not delivered goes to other
    /// members. A QoS 2 message that was sent stays: this client alone may get it
    /// `[MQTT-4.8.2-4]`, `[MQTT-4.8.2-5]`. `keep`: the session goes on, and what nobody else can
    /// take waits for it.
    fn hand_over(&mut self, slot: u32, keep: bool) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let who = SessionRef { shard: self.id.0, session: slot };
        let routes = &self.shared.routes;
        let others = |key| routes.group(key).is_some_and(|g| g.has_connected_except(who));
        let queued = |session: &Session| session.outbound.as_ref().map_or(0, |o| o.queue.len());
        let before = queued(session);
        let shared = take_shared(session, |key| key != NO_GROUP && (!keep || others(key)));
        let taken = before - queued(session);
        self.shared.stats.sub(self.id.0, Count::Queued, taken as u64);
        let changed = !shared.is_empty();
        for delivery in shared {
            let Some(message) = &delivery.message else { continue };
            let mut p = message.publication();
            p.reply_to = self.reply_to_of(slot);
            self.encoder.next_publication(1);
            let (group, retain) = (delivery.group, delivery.retain);
            if self.share_except(who, group, 0, retain, &mut p)
                || (!keep && self.share_with_any(group, retain, &mut p))
            {
                self.keep_sharing(slot, group, &p);
                continue;
            }
            if keep && let Some(session) = self.sessions.get_mut(slot as usize) {
                self.shared.stats.add(self.id.0, Count::Queued, 1);
                session.outbound().push(delivery);
            } else {
                self.count(Count::Dropped, 1);
            }
        }
        if self.durable.on && changed && keep {
            // A queue that lost messages in its middle is stated whole.
            self.restate_session(slot);
        }
    }

    fn publish_will(&mut self, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let Some(will) = session.will.take() else { return };
        let Will { message, retain, expiry_s, .. } = *will;
        let expires = expiry_s.map_or(Millis::NEVER, |s| self.now.plus_s(s));
        let mut p = Publication::new(
            message.topic(),
            message.properties(),
            message.payload(),
            message.qos(),
            expires,
        );
        if self.durable.on {
            self.record_of(slot, |key| Record::WillGone { key });
            p.reply_to = self.reply_to().filter(|_| p.qos != QoS::AtMostOnce);
            p.waits = true;
        }
        if !self.may_publish_will(slot, p.topic, p.qos, retain) {
            self.count(Count::Dropped, 1);
            return self.denied_session(slot, "publish its will to", p.topic);
        }
        // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
        self.publish(slot, retain, &mut p);
        if p.mails > 0 {
            // Every session with a will is in the store.
            let key = self.sessions.get(slot as usize).and_then(|session| session.key());
            self.keep_routing(key.unwrap_or(SessionKey(0)), None, &p);
        }
    }

    /// The session's timer has fired.
    pub(super) fn session_due(&mut self, slot: u32) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        if session.conn.is_some() {
            return;
        }
        if session.ends <= self.now {
            return self.end_session(slot);
        }
        if session.will.as_ref().is_some_and(|will| will.due <= self.now) {
            self.publish_will(slot);
        }
        self.arm_session(slot);
    }
}

/// Takes the deliveries that came through one of these groups and that another member may have.
fn take_shared(session: &mut Session, of: impl Fn(u32) -> bool) -> Vec<Delivery> {
    let Some(outbound) = &mut session.outbound else { return Vec::new() };
    let mut taken = Vec::new();
    let begun = outbound
        .in_flight
        .extract(|delivery| matches!(delivery, InFlight::Published(d) if of(d.group)));
    taken.extend(begun.into_iter().filter_map(|delivery| match delivery {
        InFlight::Published(delivery) => Some(delivery),
        _ => None,
    }));
    if outbound.queue.iter().any(|delivery| of(delivery.group)) {
        let queue = std::mem::take(&mut outbound.queue);
        outbound.queued_bytes = 0;
        for delivery in queue {
            match of(delivery.group) {
                true => taken.push(delivery),
                false => outbound.push(delivery),
            }
        }
    }
    debug_assert!(taken.iter().all(|d| d.qos != QoS::AtMostOnce));
    taken
}
