//! An incoming PUBLISH (section 3.3), and the way of a message to all who want it.

use whimbrel_auth::{Access, Action};
use whimbrel_codec::{
    Ack, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Version,
};
use whimbrel_protocol::AliasError;
use whimbrel_store::Record;
use whimbrel_topics::{GroupMember, GroupRoute, SessionRef, SubscriptionOptions};

use super::shed::Pressure;
use super::{Shard, sys};
use crate::cache::Resolved;
use crate::conn::NO_SESSION;
use crate::encode::is_shared;
use crate::mail::To;
use crate::message::Publication;
use crate::session::NO_GROUP;
use crate::stats::Count;
use crate::{ConnId, Millis};

/// What became of a message on its way.
#[derive(Clone, Copy, Default)]
pub(super) struct Routed {
    /// Somebody is subscribed.
    pub(super) matched: bool,
    /// A queue had no room for it.
    pub(super) refused: bool,
}

/// A member that is lost just when a message comes for it passes it on this often at most.
const MAX_HOPS: u8 = 4;

impl Shard {
    #[inline]
    pub(super) fn publish_packet(&mut self, id: ConnId, publish: &Publish<'_>) {
        self.count(Count::PublishesReceived, 1);
        if publish.properties.is_empty() {
            return self.accept_publish(id, publish, publish.topic, &[], Millis::NEVER);
        }
        self.publish_with_properties(id, publish);
    }

    fn publish_with_properties(&mut self, id: ConnId, publish: &Publish<'_>) {
        let mut alias = None;
        let mut expires = Millis::NEVER;
        let mut all_forwarded = true;
        let mut utf8 = false;
        for property in publish.properties {
            all_forwarded &= is_forwarded(&property);
            match property {
                Property::TopicAlias(n) => alias = Some(n),
                Property::MessageExpiryIntervalS(s) => expires = self.now.plus_s(s),
                // [MQTT-3.3.4-6]
                Property::SubscriptionIdentifier(_) => {
                    let what = "a client sent a subscription identifier in PUBLISH";
                    return self.disconnect(id, ReasonCode::ProtocolError, what);
                }
                Property::PayloadFormatIndicator(n) => utf8 = n == 1,
                _ => {}
            }
        }
        if utf8 && std::str::from_utf8(publish.payload).is_err() {
            // The alias holds for packets to come, whatever becomes of this one.
            if let Some(Err(error)) =
                alias.map(|alias| self.resolve_alias(id, alias, publish.topic))
            {
                return self.alias_error(id, error);
            }
            let what = "the payload is not UTF-8";
            return self.refuse_publish(id, publish, ReasonCode::PayloadFormatInvalid, what);
        }
        if all_forwarded && let Some(raw) = publish.properties.raw() {
            return self.accept_publish(id, publish, publish.topic, raw, expires);
        }
        let mut forwarded = std::mem::take(&mut self.forwarded);
        forwarded.clear();
        forwardable(&publish.properties, &mut forwarded);
        match alias {
            None => self.accept_publish(id, publish, publish.topic, &forwarded, expires),
            Some(alias) => match self.resolve_alias(id, alias, publish.topic) {
                Ok(topic) => self.accept_publish(id, publish, &topic, &forwarded, expires),
                Err(error) => self.alias_error(id, error),
            },
        }
        self.forwarded = forwarded;
    }

    fn alias_error(&mut self, id: ConnId, error: AliasError) {
        let (reason, what) = match error {
            AliasError::Invalid => {
                (ReasonCode::TopicAliasInvalid, "the topic alias is above the maximum")
            }
            AliasError::Unknown => (ReasonCode::ProtocolError, "an unknown topic alias"),
        };
        self.disconnect(id, reason, what);
    }

    fn resolve_alias(
        &mut self,
        id: ConnId,
        alias: u16,
        topic: &str,
    ) -> Result<Box<str>, AliasError> {
        let maximum = self.config.topic_alias_maximum;
        let Some(conn) = self.conn(id) else { return Err(AliasError::Unknown) };
        conn.extra().incoming_aliases.resolve(alias, maximum, topic).map(Box::from)
    }

    /// The packet is understood: the flow of its QoS (section 4.3), then its way to subscribers.
    fn accept_publish(
        &mut self,
        id: ConnId,
        publish: &Publish<'_>,
        topic: &str,
        properties: &[u8],
        expires: Millis,
    ) {
        let Some(conn) = self.conns.get(id.0 as usize) else { return };
        let (from, limited) = (conn.session, conn.limited);
        if conn.metered {
            self.meter_message(id);
        }
        if let Err((reason, what)) = self.check_topic(topic) {
            return self.refuse_publish(id, publish, reason, what);
        }
        if limited && !self.may_publish(id, publish, topic) {
            return;
        }
        if self.is_full()
            && publish.qos != QoS::AtMostOnce
            && !self.is_known(from, publish)
            && !self.holds_back(id, publish)
        {
            return;
        }
        let mark = self.records();
        if publish.qos == QoS::ExactlyOnce
            && let Some(packet_id) = publish.packet_id
            && !self.receive_once(id, from, packet_id)
        {
            return;
        }
        let mut p = Publication::new(topic, properties, publish.payload, publish.qos, expires);
        if self.durable.on && publish.qos != QoS::AtMostOnce {
            p.reply_to = self.reply_to();
        }
        let routed = self.publish(from, publish.retain, &mut p);
        if self.pressure >= Pressure::Publishers {
            self.pause(id);
        }
        if publish.qos == QoS::AtMostOnce {
            return;
        }
        if p.mails > 0 && publish.qos == QoS::ExactlyOnce {
            self.complete_routing(from, &mut p);
        }
        let reason = match routed {
            Routed { refused: true, .. } if self.is_v5(id) => ReasonCode::QuotaExceeded,
            Routed { matched: false, .. } if self.is_v5(id) => ReasonCode::NoMatchingSubscribers,
            _ => ReasonCode::Success,
        };
        self.acknowledge(id, from, publish, reason, Properties::NONE, (mark, p.mails));
    }

    /// Whether the client may publish this message; if not, it is refused.
    fn may_publish(&mut self, id: ConnId, publish: &Publish<'_>, topic: &str) -> bool {
        let (qos, retain) = (publish.qos as u8, publish.retain);
        let may = self.may(id, &Access { action: Action::Publish, topic, qos, retain });
        if !may {
            self.denied(id, "publish", topic);
            self.refuse_publish(id, publish, ReasonCode::NotAuthorized, "not authorized");
        }
        may
    }

    /// The store has no room. False if the message is refused; one that cannot be is held back: its
    /// acknowledgement waits, and its client is not read on.
    #[cold]
    fn holds_back(&mut self, id: ConnId, publish: &Publish<'_>) -> bool {
        if self.is_v5(id) {
            let what = "the store has no room";
            self.refuse_publish(id, publish, ReasonCode::QuotaExceeded, what);
            return false;
        }
        self.pause(id);
        true
    }

    /// A repetition of a QoS 2 message would go no further, since its identifier is known: what is
    /// on its way to other shards must get there.
    fn complete_routing(&mut self, from: u32, p: &mut Publication<'_>) {
        let key = self.sessions.get(from as usize).and_then(|session| session.durable_key());
        if let Some(key) = key {
            self.keep_routing(key, None, p);
            p.mails = 0;
        }
    }

    /// A QoS 2 message that was received before and only needs its answer once more: refusing it
    /// would forget that, and the next repetition would be delivered again.
    fn is_known(&self, from: u32, publish: &Publish<'_>) -> bool {
        let incoming = self.sessions.get(from as usize).and_then(|s| s.incoming.as_ref());
        publish.qos == QoS::ExactlyOnce
            && publish.packet_id.zip(incoming).is_some_and(|(id, incoming)| incoming.contains(id))
    }

    /// Method A of section 4.3.3. False if the message has come before or may not come: it is
    /// answered already and goes no further.
    fn receive_once(&mut self, id: ConnId, from: u32, packet_id: PacketId) -> bool {
        let receive_maximum = self.config.receive_maximum;
        let v5 = self.is_v5(id);
        let Some(session) = self.sessions.get_mut(from as usize) else { return false };
        let incoming = session.incoming.get_or_insert_default();
        if incoming.contains(packet_id) {
            // [MQTT-4.3.3-10]
            self.reply_when_durable(id, &Packet::PubRec(Ack::new(packet_id)));
            return false;
        }
        // [MQTT-3.3.4-7]
        if v5 && incoming.len() >= receive_maximum.into() {
            let what = "more QoS 2 messages in flight than the receive maximum";
            self.disconnect(id, ReasonCode::ReceiveMaximumExceeded, what);
            return false;
        }
        let new = incoming.receive(packet_id);
        if self.durable.on && self.sessions.get(from as usize).is_some_and(|s| s.durable) {
            self.record_of(from, |key| Record::Received { key, packet_id });
        }
        new
    }

    /// PUBACK or PUBREC `[MQTT-4.3.2-4]`, `[MQTT-4.3.3-8]`. An error ends a QoS 2 flow. `since`:
    /// where the message's records began, and how many shards are to record it.
    fn acknowledge(
        &mut self,
        id: ConnId,
        from: u32,
        publish: &Publish<'_>,
        reason: ReasonCode,
        properties: Properties<'_>,
        since: (u64, u32),
    ) {
        let (mark, mails) = since;
        let Some(packet_id) = publish.packet_id else { return };
        let ack = Ack { packet_id, reason, properties };
        if publish.qos == QoS::AtLeastOnce {
            let packet = Packet::PubAck(ack);
            return self.acknowledge_when_durable(id, &packet, mark, mails);
        }
        if reason.is_error()
            && let Some(session) = self.sessions.get_mut(from as usize)
            && let Some(incoming) = &mut session.incoming
        {
            let released = incoming.release(packet_id);
            if self.durable.on && released {
                self.record_of(from, |key| Record::ReceivedReleased { key, packet_id });
            }
        }
        self.acknowledge_when_durable(id, &Packet::PubRec(ack), mark, mails);
    }

    /// A message that is not taken: told where the protocol can tell it, else dropped in silence
    /// (3.1.1 has only success).
    fn refuse_publish(
        &mut self,
        id: ConnId,
        publish: &Publish<'_>,
        reason: ReasonCode,
        what: &'static str,
    ) {
        self.count(Count::Dropped, 1);
        let text = [Property::ReasonString(what)];
        let properties = self.reason_string(id, &text);
        let from = self.conn(id).map_or(NO_SESSION, |conn| conn.session);
        if publish.qos == QoS::AtMostOnce {
            // Section 3.3.2.3.2 and 4.13: with QoS 0 there is no packet to say it in.
            if reason != ReasonCode::NotAuthorized && self.is_v5(id) {
                self.disconnect(id, reason, what);
            }
            return;
        }
        let since = (self.records(), 0);
        self.acknowledge(id, from, publish, reason, properties, since);
    }

    fn check_topic(&self, topic: &str) -> Result<(), (ReasonCode, &'static str)> {
        if sys::is_sys(topic) {
            return Err((ReasonCode::NotAuthorized, "$SYS topics are the broker's"));
        }
        if self.has_too_many_levels(topic) {
            return Err((ReasonCode::TopicNameInvalid, "the topic name has too many levels"));
        }
        Ok(())
    }

    fn is_v5(&self, id: ConnId) -> bool {
        self.conns.get(id.0 as usize).is_some_and(|conn| conn.version == Version::V5)
    }

    // ---- the way to the subscribers

    /// Retains the message if it is to be, and delivers it to all who are subscribed. `from` is
    /// the publisher's session.
    pub(super) fn publish(&mut self, from: u32, retain: bool, p: &mut Publication<'_>) -> Routed {
        // Before the routes are read: a subscriber that comes in between finds one of the two.
        if retain {
            self.retain(p);
        }
        let entry = self.cache.take(&self.shared.routes, self.id.0, p.topic);
        let route = &entry.route;
        self.encoder.next_publication(route.local.len());
        let mut routed = Routed { matched: !route.is_empty(), refused: false };
        if self.durable.on && p.qos != QoS::AtMostOnce && route.is_remote_durable() {
            // Once for all shards.
            self.store(p, None);
        }
        let receivers = route.local.len() + usize::from(!route.remote.is_empty());
        if is_shared(p, receivers) {
            self.keep(p);
        }
        for subscriber in &route.local {
            if !subscriber.receives(subscriber.session == from) {
                continue;
            }
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            let retain = retain && subscriber.retain_as_published();
            let qos = p.qos.min(QoS::from_u8(subscriber.qos()).unwrap_or_default());
            let ids = route.ids_of(subscriber);
            routed.refused |= !self.deliver(subscriber.session, qos, retain, ids, NO_GROUP, p);
        }
        if !route.remote.is_empty() {
            self.mail_to_subscribers(&entry, retain, p);
        }
        for group in &route.groups {
            routed.refused |= !self.share(group, retain, p);
        }
        self.cache.put(entry);
        routed
    }

    fn mail_to_subscribers(&mut self, entry: &Resolved, retain: bool, p: &mut Publication<'_>) {
        // Where nobody keeps it, nobody has to tell.
        let reply_to = p.reply_to;
        if !entry.route.is_remote_durable() {
            p.reply_to = None;
        }
        if let Some((SessionRef { shard, session }, options)) = entry.route.only_remote() {
            let (hash, stamp) = (entry.hash, entry.stamp);
            if let Some(mail) = self.mail.get_mut(usize::from(shard)) {
                mail.push(To::Subscriber { session, options, hash, stamp }, retain, p);
            }
        } else {
            for shard in entry.route.remote.iter() {
                if let Some(mail) = self.mail.get_mut(usize::from(shard)) {
                    mail.push(To::Subscribers, retain, p);
                }
            }
        }
        p.reply_to = reply_to;
    }

    /// A message from another shard.
    pub(super) fn receive(&mut self, to: To, retain: bool, p: &mut Publication<'_>) {
        match to {
            To::Subscriber { session, options, hash, stamp }
                if self.shared.routes.is_current(hash, stamp) =>
            {
                self.encoder.next_publication(1);
                self.deliver_with(session, &options, NO_GROUP, retain, p);
            }
            To::Subscribers | To::Subscriber { .. } => {
                let entry = self.cache.take(&self.shared.routes, self.id.0, p.topic);
                let receivers = entry.route.local.len();
                self.encoder.next_publication(receivers);
                if is_shared(p, receivers) {
                    self.keep(p);
                }
                for subscriber in &entry.route.local {
                    if !subscriber.receives(false) {
                        continue;
                    }
                    let retain = retain && subscriber.retain_as_published();
                    let qos = p.qos.min(QoS::from_u8(subscriber.qos()).unwrap_or_default());
                    let ids = entry.route.ids_of(subscriber);
                    self.deliver(subscriber.session, qos, retain, ids, NO_GROUP, p);
                }
                self.cache.put(entry);
            }
            To::Member { session, group, hops } => {
                self.encoder.next_publication(1);
                self.receive_shared(session, group, hops, retain, p)
            }
        }
    }

    /// Gives the message to one member of the group. False if its queue had no room.
    fn share(&mut self, group: &GroupRoute, retain: bool, p: &mut Publication<'_>) -> bool {
        match group.choose() {
            Some(member) => self.deliver_to_member(&member, group.key(), 0, retain, p),
            None => true,
        }
    }

    /// Passes a message of a lost member on. False if there is nobody to pass it to.
    pub(super) fn share_except(
        &mut self,
        not: SessionRef,
        key: u32,
        hops: u8,
        retain: bool,
        p: &mut Publication<'_>,
    ) -> bool {
        let group = self.shared.routes.group(key);
        let Some(member) = group.and_then(|group| group.choose_except(not)) else { return false };
        self.deliver_to_member(&member, key, hops, retain, p)
    }

    /// Gives a message of a session that has left the group to any member, even one that is not
    /// connected. False if there is none.
    pub(super) fn share_with_any(
        &mut self,
        key: u32,
        retain: bool,
        p: &mut Publication<'_>,
    ) -> bool {
        let group = self.shared.routes.group(key);
        let Some(member) = group.and_then(|group| group.choose()) else { return false };
        self.deliver_to_member(&member, key, 0, retain, p)
    }

    pub(super) fn deliver_to_member(
        &mut self,
        member: &GroupMember,
        group: u32,
        hops: u8,
        retain: bool,
        p: &mut Publication<'_>,
    ) -> bool {
        let SessionRef { shard, session } = member.who;
        if shard != self.id.0 {
            if self.durable.on && p.qos != QoS::AtMostOnce && member.options.durable {
                self.store(p, None);
            }
            // Who does not keep it does not have to tell.
            let reply_to = p.reply_to;
            if !member.options.durable {
                p.reply_to = None;
            }
            if let Some(mail) = self.mail.get_mut(usize::from(shard)) {
                mail.push(To::Member { session, group, hops }, retain, p);
            }
            p.reply_to = reply_to;
            return true;
        }
        self.deliver_with(session, &member.options, group, retain, p)
    }

    /// Delivers to the session of one subscription.
    fn deliver_with(
        &mut self,
        session: u32,
        options: &SubscriptionOptions,
        group: u32,
        retain: bool,
        p: &mut Publication<'_>,
    ) -> bool {
        let qos = p.qos.min(QoS::from_u8(options.qos).unwrap_or_default());
        let retain = retain && options.retain_as_published;
        self.deliver(session, qos, retain, ids(&options.id), group, p)
    }

    fn receive_shared(
        &mut self,
        session: u32,
        group: u32,
        hops: u8,
        retain: bool,
        p: &mut Publication<'_>,
    ) {
        let who = SessionRef { shard: self.id.0, session };
        let route = self.shared.routes.group(group);
        // Meanwhile it may have left the group, and its slot may be another session's.
        let member = route.and_then(|route| route.member(who));
        let connected = self.is_connected(session);
        if !connected && hops < MAX_HOPS && self.share_except(who, group, hops + 1, retain, p) {
            return;
        }
        match member {
            Some(member) => {
                self.deliver_to_member(&member, group, hops, retain, p);
            }
            None if hops < MAX_HOPS => {
                if !self.share_except(who, group, hops + 1, retain, p)
                    && !self.share_with_any(group, retain, p)
                {
                    self.count(Count::Dropped, 1);
                }
            }
            None => self.count(Count::Dropped, 1),
        }
    }
}

/// The subscription identifiers of one subscription; 0 is none.
pub(super) fn ids(id: &u32) -> &[u32] {
    if *id == 0 { &[] } else { std::slice::from_ref(id) }
}

/// The properties of a PUBLISH or will that go on to subscribers as they came, in their order
/// `[MQTT-3.3.2-17]`, `[MQTT-3.3.2-18]`, as on the wire.
pub(super) fn forwardable(properties: &Properties<'_>, out: &mut Vec<u8>) {
    let kept = properties.write_raw(out, is_forwarded);
    // They came as properties, so they can be written as properties.
    debug_assert!(kept.is_ok());
}

fn is_forwarded(property: &Property<'_>) -> bool {
    !matches!(
        property,
        Property::TopicAlias(_)
            | Property::MessageExpiryIntervalS(_)
            | Property::SubscriptionIdentifier(_)
            | Property::WillDelayIntervalS(_)
    )
}
