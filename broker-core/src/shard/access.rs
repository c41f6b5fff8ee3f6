//! What clients may do: the questions to [`Rights::authorize`], and what follows when the answers
//! change.

use core::net::IpAddr;
use std::sync::Arc;

use whimbrel_auth::{Access, Action, Decision, Method, Principal, Rights};
use whimbrel_codec::{PacketId, QoS};
use whimbrel_protocol::InFlight;
use whimbrel_store::Record;
use whimbrel_topics::{HasTopic, SessionRef};

use super::Shard;
use super::subscribe::split;
use crate::event::Event;
use crate::session::Delivery;
use crate::{ConnId, Millis};

/// Sessions that take up changed rules in one tick.
const PER_TICK: usize = 512;

impl Shard {
    /// [`crate::Shared::set_rules`] was called: connections, subscriptions and what is queued come
    /// under the new rules, within a few ticks.
    pub fn rules_changed(&mut self, now: Millis) {
        self.now = now;
        self.under_new_rules = Some(0);
    }

    /// Whether sessions wait for changed rules.
    pub(super) fn rules_timeout(&self) -> Option<Millis> {
        self.under_new_rules.map(|_| self.now)
    }

    pub(super) fn take_up_rules(&mut self) {
        let Some(from) = self.under_new_rules else { return };
        let end = self.sessions.capacity().min(from + PER_TICK);
        let rules = self.shared.rules();
        for slot in from..end {
            let Some(session) = self.sessions.get(slot) else { continue };
            let rights = match &session.rights {
                Some(rights) => Some(rights.under(&rules)),
                // Nobody asked where it comes from when everything was allowed.
                None => {
                    let anonymous = Arc::new(Principal::new("", Method::Anonymous));
                    Some(Rights::new(&rules, anonymous, &session.client_id, None))
                }
            };
            self.take_rights(slot as u32, rights.filter(is_needed).map(Arc::new), true);
        }
        self.under_new_rules = (end < self.sessions.capacity()).then_some(end);
    }

    /// The rights of a principal; none if everybody may do everything and nobody is known.
    pub(super) fn rights_of(
        &self,
        principal: Arc<Principal>,
        client_id: &str,
        address: Option<IpAddr>,
    ) -> Option<Arc<Rights>> {
        let rights = Rights::new(&self.shared.rules(), principal, client_id, address);
        Some(rights).filter(is_needed).map(Arc::new)
    }

    /// A session's rights from now on. `recheck`: subscriptions and messages may stem from others.
    pub(super) fn take_rights(&mut self, slot: u32, rights: Option<Arc<Rights>>, recheck: bool) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let limited = rights.as_ref().is_some_and(|rights| !rights.is_unlimited());
        let expires = rights.as_ref().and_then(|rights| rights.principal().expires_s);
        let changed = match (&session.rights, &rights) {
            (Some(old), Some(new)) => old.principal() != new.principal(),
            (old, new) => old.is_some() != new.is_some(),
        };
        session.rights = rights;
        let conn = session.conn;
        if let Some(id) = conn
            && let Some(conn) = self.conns.get_mut(id.0 as usize)
        {
            conn.limited = limited;
            conn.recheck = limited && recheck;
            if let Some(extra) = &mut conn.extra {
                extra.allowed = None;
            }
            if let Some(expires_s) = expires {
                let at =
                    self.shared.here_at(whimbrel_store::WallMs(expires_s.saturating_mul(1000)));
                self.conn_timers.arm(id.0, at);
            }
        }
        if changed && self.durable.on {
            self.record_owner(slot);
        }
        if limited && recheck {
            self.recheck_subscriptions(slot);
        }
    }

    /// Whose session it is, for the store.
    fn record_owner(&mut self, slot: u32) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        if let Some(key) = session.key() {
            let principal = session.rights.as_ref().map(|rights| rights.principal().encode());
            let principal = principal.as_deref().unwrap_or_default();
            self.durable.record(&Record::Owner { key, principal });
        }
    }

    /// Takes subscriptions away that are no longer allowed, and lowers those that are with a lower
    /// QoS only.
    fn recheck_subscriptions(&mut self, slot: u32) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        let Some(rights) = session.rights.clone() else { return };
        let who = SessionRef { shard: self.id.0, session: slot };
        let routes = &self.shared.routes;
        let mut changes = Vec::new();
        for subscription in session.subscriptions.iter() {
            let Ok((group, plain)) = split(&subscription.filter) else { continue };
            let Some(options) = routes.options(plain, group, who) else { continue };
            let granted = rights.authorize_subscribe(plain, options.qos);
            if granted != Some(options.qos) {
                changes.push((subscription.filter.clone(), granted, options));
            }
        }
        for (filter, granted, mut options) in changes {
            let Ok((group, plain)) = split(&filter) else { continue };
            let Some(qos) = granted else {
                self.unsubscribe_one(slot, &filter, group, plain);
                self.denied_session(slot, "stay subscribed", &filter);
                continue;
            };
            options.qos = qos;
            options.durable &= qos > 0;
            self.shared.routes.subscribe(plain, group, who, options);
            let key = self.sessions.get(slot as usize).and_then(|session| session.durable_key());
            if let Some(key) = key {
                let routes = &self.shared.routes;
                self.durable.record(&Record::Subscribed {
                    key,
                    filter: &filter,
                    qos: QoS::from_u8(qos).unwrap_or_default(),
                    no_local: options.no_local,
                    retain_as_published: options.retain_as_published,
                    id: options.id,
                    group: group.and_then(|group| routes.group_key(plain, group)),
                });
            }
        }
    }

    // ---- questions

    /// Whether a connection's client may publish this, or get it. Call it only if the connection is
    /// limited.
    pub(super) fn may(&mut self, id: ConnId, access: &Access<'_>) -> bool {
        let hash = self.shared.routes.topic_hash(access.topic);
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return false };
        let session = self.sessions.get(conn.session as usize);
        let Some(rights) = session.and_then(|session| session.rights.as_ref()) else {
            return false;
        };
        conn.extra().allowed.get_or_insert_default().authorize(hash, access, rights)
    }

    /// Whether a message that was queued, retained or in flight may still go to the client. Told if
    /// not.
    pub(super) fn may_get(&mut self, id: ConnId, delivery: &Delivery) -> bool {
        let Some(message) = &delivery.message else { return true };
        let access = Access {
            action: Action::Receive,
            topic: message.topic(),
            qos: delivery.qos as u8,
            retain: delivery.retain,
        };
        let may = self.may(id, &access);
        if !may {
            self.denied(id, "receive", access.topic);
        }
        may
    }

    /// Whether a delivery that an earlier connection left in flight may no longer go to the client.
    pub(super) fn is_withheld(&mut self, id: ConnId, slot: u32, packet_id: PacketId) -> bool {
        if !self.conns.get(id.0 as usize).is_some_and(|conn| conn.recheck) {
            return false;
        }
        let outbound = self.sessions.get(slot as usize).and_then(|s| s.outbound.as_ref());
        let state = outbound.and_then(|outbound| outbound.in_flight.get(packet_id));
        let (topic, qos, retain) = match state {
            Some(InFlight::Published(d) | InFlight::PublishedOnce(d)) => match &d.message {
                Some(message) => (Box::<str>::from(message.topic()), d.qos, d.retain),
                None => return false,
            },
            _ => return false,
        };
        let access = Access { action: Action::Receive, topic: &topic, qos: qos as u8, retain };
        let may = self.may(id, &access);
        if !may {
            self.denied(id, "receive", &topic);
        }
        !may
    }

    /// Whether a session's will may be published.
    pub(super) fn may_publish_will(&self, slot: u32, topic: &str, qos: QoS, retain: bool) -> bool {
        let rights = self.sessions.get(slot as usize).and_then(|session| session.rights.as_ref());
        rights.is_none_or(|rights| may_publish(rights, topic, qos, retain))
    }

    // ---- for the log

    pub(super) fn denied(&mut self, id: ConnId, action: &'static str, topic: &str) {
        if let Some((slot, _)) = self.session_of(id) {
            self.denied_session(slot, action, topic);
        }
    }

    pub(super) fn denied_session(&mut self, slot: u32, action: &'static str, topic: &str) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        let client_id = session.client_id.clone();
        let user = session.owner().into();
        self.event(Event::Denied { client_id, user, action, topic: topic.into() });
    }
}

/// Whether these rights allow a message.
pub(super) fn may_publish(rights: &Rights, topic: &str, qos: QoS, retain: bool) -> bool {
    let access = Access { action: Action::Publish, topic, qos: qos as u8, retain };
    rights.is_unlimited() || rights.authorize(&access) == Decision::Allowed
}

/// Somebody has to be asked, or the session belongs to somebody.
fn is_needed(rights: &Rights) -> bool {
    let principal = rights.principal();
    !rights.is_unlimited() || !principal.name.is_empty() || principal.expires_s.is_some()
}
