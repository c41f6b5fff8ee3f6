//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11).

use whimbrel_codec::{
    Codes, Packet, Properties, Property, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    Subscription as Wanted, UnsubAck, Unsubscribe,
};
use whimbrel_store::Record;
use whimbrel_topics::{
    SessionRef, SubscriptionOptions, TopicError, parse_shared, validate_topic_filter,
};

use super::Shard;
use super::shed::Pressure;
use crate::ConnId;
use crate::conn::RetainedScan;
use crate::session::Subscription;

impl Shard {
    pub(super) fn subscribe(&mut self, id: ConnId, subscribe: &Subscribe<'_>) {
        let subscription_id = subscribe.properties.iter().find_map(|p| match p {
            Property::SubscriptionIdentifier(n) => Some(n),
            _ => None,
        });
        let no_local_shared =
            |wanted: Wanted<'_>| wanted.no_local && wanted.filter.starts_with("$share/");
        // [MQTT-3.8.3-4]
        if subscribe.filters.iter().any(no_local_shared) {
            let what = "no local on a shared subscription";
            return self.disconnect(id, ReasonCode::ProtocolError, what);
        }
        let mark = self.records();
        let mut codes = Vec::new();
        let mut failed = None;
        let mut scans = Vec::new();
        for wanted in subscribe.filters {
            match self.subscribe_one(id, &wanted, subscription_id.unwrap_or(0), &mut scans) {
                Ok(granted) => codes.push(granted as u8),
                Err((reason, what)) => {
                    codes.push(reason as u8);
                    failed = Some(what);
                }
            }
        }
        let text = failed.map(Property::ReasonString);
        let properties = match &text {
            Some(text) => self.reason_string(id, std::slice::from_ref(text)),
            None => Properties::NONE,
        };
        let codes = Codes::new(&codes);
        let packet_id = subscribe.packet_id;
        // [MQTT-3.8.4-1] [MQTT-3.8.4-6]
        let suback = Packet::SubAck(SubAck { packet_id, properties, codes });
        self.acknowledge_when_durable(id, &suback, mark, 0);
        if !scans.is_empty()
            && let Some(conn) = self.conn(id)
        {
            conn.extra().retained.extend(scans);
            self.send_retained(id);
        }
    }

    fn subscribe_one(
        &mut self,
        id: ConnId,
        wanted: &Wanted<'_>,
        subscription_id: u32,
        scans: &mut Vec<RetainedScan>,
    ) -> Result<QoS, (ReasonCode, &'static str)> {
        let (group, filter) = self.check_filter(wanted.filter)?;
        let qos = self.granted(id, wanted, filter)?;
        let routes = &self.shared.routes;
        let hash = |filter: &str| routes.topic_hash(filter);
        let conn = self.conns.get(id.0 as usize);
        let slot = conn.map_or(u32::MAX, |conn| conn.session);
        let Some(session) = self.sessions.get_mut(slot as usize) else {
            return Err((ReasonCode::UnspecifiedError, "no session"));
        };
        let existed = session.subscriptions.contains(wanted.filter, hash);
        let most = session.bounds(&self.config).max_subscriptions as usize;
        if !existed && session.subscriptions.len() >= most {
            return Err((ReasonCode::QuotaExceeded, "the session has its most subscriptions"));
        }
        // The same filter may come again and again, and each time all that is retained is due.
        let waiting = conn.and_then(|conn| conn.extra.as_ref()).map_or(0, |e| e.retained.len());
        if waiting + scans.len() > most {
            return Err((ReasonCode::QuotaExceeded, "too many retained messages are still due"));
        }
        if session.durable && self.durable.on && self.durable.store.is_full() {
            return Err((ReasonCode::QuotaExceeded, "the store has no room"));
        }
        if !existed && self.pressure >= Pressure::Queues {
            return Err((ReasonCode::QuotaExceeded, "the broker is short of memory"));
        }
        let options = SubscriptionOptions {
            qos: qos as u8,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            id: subscription_id,
            durable: session.durable && qos != QoS::AtMostOnce,
        };
        // [MQTT-3.8.4-3] A subscription that is there is replaced.
        routes.subscribe(filter, group, SessionRef { shard: self.id.0, session: slot }, options);
        if !existed {
            let shared = group.is_some();
            self.buffered += Subscription::memory_bytes(wanted.filter);
            let filter = wanted.filter.into();
            session.subscriptions.add(Subscription { filter, shared }, hash);
        }
        if let Some(key) = session.durable_key() {
            self.durable.record(&Record::Subscribed {
                key,
                filter: wanted.filter,
                qos,
                no_local: wanted.no_local,
                retain_as_published: wanted.retain_as_published,
                id: subscription_id,
                group: group.and_then(|group| routes.group_key(filter, group)),
            });
        }
        let send = match wanted.retain_handling {
            // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => !existed,
            RetainHandling::DoNotSend => false,
        };
        // Section 4.8.2: nothing retained for a shared subscription.
        if send && group.is_none() {
            scans.push(RetainedScan::new(filter, qos, subscription_id));
        }
        Ok(qos)
    }

    /// With which QoS the client may have what it wants: all of it, for a filter that is wider than
    /// its rights is refused.
    fn granted(
        &mut self,
        id: ConnId,
        wanted: &Wanted<'_>,
        filter: &str,
    ) -> Result<QoS, (ReasonCode, &'static str)> {
        if !self.conns.get(id.0 as usize).is_some_and(|conn| conn.limited) {
            return Ok(wanted.qos);
        }
        let rights = self.session_of(id).and_then(|(_, session)| session.rights.clone());
        let granted =
            rights.and_then(|rights| rights.authorize_subscribe(filter, wanted.qos as u8));
        granted.and_then(QoS::from_u8).ok_or_else(|| {
            self.denied(id, "subscribe", wanted.filter);
            (ReasonCode::NotAuthorized, "not authorized")
        })
    }

    /// [`split`] for a filter that a client sends.
    fn check_filter<'a>(
        &self,
        filter: &'a str,
    ) -> Result<(Option<&'a str>, &'a str), (ReasonCode, &'static str)> {
        const INVALID: ReasonCode = ReasonCode::TopicFilterInvalid;
        let (group, filter) = split(filter).map_err(|_| (INVALID, "not a shared subscription"))?;
        validate_topic_filter(filter).map_err(|_| (INVALID, "not a topic filter"))?;
        if self.has_too_many_levels(filter) {
            return Err((INVALID, "the topic filter has too many levels"));
        }
        Ok((group, filter))
    }

    pub(super) fn unsubscribe(&mut self, id: ConnId, unsubscribe: &Unsubscribe<'_>) {
        let slot = self.conns.get(id.0 as usize).map_or(u32::MAX, |conn| conn.session);
        let mark = self.records();
        let mut codes = Vec::new();
        for filter in unsubscribe.filters {
            let reason = match self.check_filter(filter) {
                Ok((group, plain)) => self.unsubscribe_one(slot, filter, group, plain),
                Err((reason, _)) => reason,
            };
            codes.push(reason as u8);
        }
        let codes = Codes::new(&codes);
        let (packet_id, properties) = (unsubscribe.packet_id, Properties::NONE);
        // [MQTT-3.10.4-4] [MQTT-3.10.4-5]
        let unsuback = Packet::UnsubAck(UnsubAck { packet_id, properties, codes });
        self.acknowledge_when_durable(id, &unsuback, mark, 0);
    }

    pub(super) fn unsubscribe_one(
        &mut self,
        slot: u32,
        filter: &str,
        group: Option<&str>,
        plain: &str,
    ) -> ReasonCode {
        let routes = &self.shared.routes;
        let Some(session) = self.sessions.get_mut(slot as usize) else {
            return ReasonCode::UnspecifiedError;
        };
        if !session.subscriptions.remove(filter, |filter| routes.topic_hash(filter)) {
            return ReasonCode::NoSubscriptionExisted;
        }
        self.buffered -= Subscription::memory_bytes(filter);
        routes.unsubscribe(plain, group, SessionRef { shard: self.id.0, session: slot });
        if let Some(key) = session.durable_key() {
            self.durable.record(&Record::Unsubscribed { key, filter });
        }
        ReasonCode::Success
    }

    /// Tells the shared-subscription groups of a session whether it is connected.
    pub(super) fn set_groups_connected(&mut self, slot: u32, connected: bool) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        let who = SessionRef { shard: self.id.0, session: slot };
        for subscription in session.subscriptions.iter().filter(|s| s.shared) {
            if let Ok((Some(group), filter)) = split(&subscription.filter) {
                self.shared.routes.set_connected(filter, group, who, connected);
            }
        }
    }

    /// Takes all subscriptions of a session out of the routes.
    pub(super) fn drop_subscriptions(&mut self, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        let who = SessionRef { shard: self.id.0, session: slot };
        let subscriptions = std::mem::take(&mut session.subscriptions);
        for subscription in subscriptions.iter() {
            self.buffered -= Subscription::memory_bytes(&subscription.filter);
            // It was split when it was made.
            if let Ok((group, filter)) = split(&subscription.filter) {
                self.shared.routes.unsubscribe(filter, group, who);
            }
        }
    }
}

/// The share name, if any, and the topic filter behind it.
pub(super) fn split(filter: &str) -> Result<(Option<&str>, &str), TopicError> {
    Ok(match parse_shared(filter)? {
        Some(shared) => (Some(shared.group), shared.filter),
        None => (None, filter),
    })
}
