//! What each command of the application sends, and what is refused.

use whimbrel_codec::{
    Auth, Connect, Disconnect, Filters, MAX_REMAINING_LENGTH, Packet, PacketId, PacketType,
    Properties, Property, Publish, QoS, ReasonCode, SliceSink, Subscribe, Subscription, Topics,
    Unsubscribe, Version,
};

use crate::Error;
use crate::arena::Block;
use crate::buffer::Buffer;
use crate::connection::{Capacity, Connection, State};
use crate::filter;
use crate::form::{Count, Form};
use crate::machine::{Machine, topic_alias};
use crate::session::Kept;
use crate::time::Millis;

/// The longest packet of the protocol, in bytes.
const MAX_PACKET_SIZE_BYTES: u32 = MAX_REMAINING_LENGTH + 5;
/// What an alias adds to a packet at most: the property, and a longer length before the properties
/// and in the fixed header.
const ALIAS_BYTES: usize = 5;

impl Machine<'_> {
    /// `input` holds nothing; the announced properties are written there on their way.
    pub(crate) fn connect(
        &mut self,
        now: Millis,
        connect: &Connect<'_>,
        input: &mut Buffer<'_>,
    ) -> Result<(), Error> {
        let begins_anew = connect.clean_start || self.connection.session_ends;
        if self.session.is_of_other(connect.version) && !begins_anew {
            return Err(Error::SessionVersion);
        }
        let announced = self.capacity(input.max()).within(connect);
        self.output.clear();
        self.authentication.connect(connect)?;
        let raw = self.announce(connect, announced, input)?;
        let connect = match raw {
            Some(len) => {
                let raw = input.space().get(..len).unwrap_or_default();
                Connect { properties: Properties::from_raw(raw), ..*connect }
            }
            None => *connect,
        };
        let packet = Packet::Connect(connect);
        let len = packet.encoded_len(connect.version)?;
        self.output.put_packet(connect.version, &packet, len)?;
        // [MQTT-3.1.2-4]; [MQTT-3.1.2-6] of 3.1.1. Not only when CONNACK says so: that may be
        // lost, and the next one would show the new session as if it were the old one.
        if begins_anew {
            self.discarded += self.session.discard();
        }
        self.connection = Connection::connecting(now, &connect, &self.limits, announced);
        self.session.reconnect();
        self.arrivals.clear();
        self.incoming_topics.clear();
        self.outgoing_aliases.restart(0);
        Ok(())
    }

    fn capacity(&self, input_bytes: usize) -> Capacity {
        let ids = self.session.max_incoming() - self.session.incoming().len();
        let messages = if self.manual { ids.min(self.arrivals.max()) } else { ids };
        let packet = u32::try_from(input_bytes).unwrap_or(u32::MAX);
        Capacity {
            receive_maximum: u16::try_from(messages).unwrap_or(u16::MAX).max(1),
            maximum_packet_size_bytes: packet.min(self.limits.max_packet_size_bytes),
            topic_alias_maximum: self.incoming_topics.max(),
        }
    }

    /// Writes the properties of CONNECT to `input` where they announce more than there is memory
    /// for, and gives their length.
    fn announce(
        &self,
        connect: &Connect<'_>,
        announced: Capacity,
        input: &mut Buffer<'_>,
    ) -> Result<Option<usize>, Error> {
        if connect.version != Version::V5 || !announced.is_less_than_asked(connect) {
            return Ok(None);
        }
        let ours = [
            Property::ReceiveMaximum(announced.receive_maximum),
            Property::MaximumPacketSizeBytes(announced.maximum_packet_size_bytes),
            Property::TopicAliasMaximum(announced.topic_alias_maximum),
        ];
        let is_other = |p: &Property<'_>| ours.iter().all(|our| our.id() != p.id());
        let is_needed = |p: &Property<'_>| match *p {
            Property::MaximumPacketSizeBytes(max) => max < MAX_PACKET_SIZE_BYTES,
            Property::TopicAliasMaximum(max) => max > 0,
            _ => true,
        };
        let mut count = Count(0);
        connect.properties.write_raw(&mut count, is_other)?;
        Properties::new(&ours).write_raw(&mut count, is_needed)?;
        if !input.reserve(count.0) {
            return Err(Error::PacketTooLarge);
        }
        let mut sink = SliceSink::new(input.space());
        connect.properties.write_raw(&mut sink, is_other)?;
        Properties::new(&ours).write_raw(&mut sink, is_needed)?;
        Ok(Some(count.0))
    }

    pub(crate) fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, Error> {
        self.check_room()?;
        self.check_publish(publish)?;
        if publish.qos != QoS::AtMostOnce {
            return self.publish_kept(publish).map(Some);
        }
        let form = Form::new(self.version(), publish)?;
        self.check_size(form.len())?;
        self.put_aliased(form, publish.topic)?;
        Ok(None)
    }

    fn publish_kept(&mut self, publish: &Publish<'_>) -> Result<PacketId, Error> {
        if self.session.in_flight() >= usize::from(self.limits.max_in_flight) {
            return Err(Error::Full);
        }
        let packet_id = Some(self.session.next_id()?);
        // [MQTT-4.3.2-2] [MQTT-4.3.3-2] A first sending is no duplicate.
        let publish = Publish { packet_id, dup: false, ..*publish };
        let form = Form::lasting(self.version(), &publish)?;
        self.check_size(form.len())?;
        if !self.output.is_large_enough(form.len()) {
            return Err(Error::PacketTooLarge);
        }
        let block = self.session.keep(&form)?;
        let sent = self.session.may_send(self.connection.allowed.receive_maximum)
            && self.put_first(form, &publish, block);
        Ok(self.session.begin_message(publish.qos, block, sent))
    }

    /// The first sending is a copy of what is kept, unless it has an alias. False: it waits.
    fn put_first(&mut self, form: Form<'_>, publish: &Publish<'_>, block: Block) -> bool {
        if !publish.properties.is_empty() && topic_alias(publish).is_some() {
            return Form::new(self.version(), publish)
                .is_ok_and(|form| self.output.put_publish(&form).is_ok());
        }
        if self.outgoing_aliases.maximum > 0 {
            return self.put_aliased(form, publish.topic).is_ok();
        }
        self.output.put_bytes(self.session.packet(block))
    }

    /// With an automatic alias, where there is one to be had.
    fn put_aliased(&mut self, form: Form<'_>, topic: &str) -> Result<(), Error> {
        let most = form.len() + ALIAS_BYTES;
        let may = self.outgoing_aliases.maximum > 0
            && self.check_size(most).is_ok()
            && most <= MAX_REMAINING_LENGTH as usize
            && self.output.reserve(most).is_ok();
        // Chosen is as good as sent, so it must not fail from here on.
        let form = if may { form.with_alias(self.outgoing_aliases.choose(topic))? } else { form };
        self.output.put_publish(&form)
    }

    pub(crate) fn subscribe(
        &mut self,
        subscriptions: &[Subscription<'_>],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        self.check_room()?;
        // [MQTT-3.8.3-2]
        if subscriptions.is_empty() {
            return Err(Error::TopicFilterInvalid);
        }
        let version = self.version();
        let allowed = &self.connection.allowed;
        for subscription in subscriptions {
            filter::check(version, subscription, allowed)?;
        }
        let has_id = |p| matches!(p, Property::SubscriptionIdentifier(_));
        if version.is_v5() && !allowed.subscription_identifiers && properties.iter().any(has_id) {
            return Err(Error::SubscriptionNotSupported);
        }
        let packet_id = self.session.next_id()?;
        let filters = Filters::new(subscriptions);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }))?;
        let codes = Kept::Subscribe(subscriptions.len() as u32);
        Ok(self.session.begin_request(codes))
    }

    pub(crate) fn unsubscribe(
        &mut self,
        filters: &[&str],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        self.check_room()?;
        // [MQTT-3.10.3-2] [MQTT-4.7.3-1]
        if filters.is_empty() || !filters.iter().all(|filter| filter::is_valid(filter)) {
            return Err(Error::TopicFilterInvalid);
        }
        let packet_id = self.session.next_id()?;
        let topics = Topics::new(filters);
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: topics }))?;
        let codes = if self.version().is_v5() { filters.len() } else { 0 };
        Ok(self.session.begin_request(Kept::Unsubscribe(codes as u32)))
    }

    pub(crate) fn acknowledge(&mut self, id: PacketId, reason: ReasonCode) -> Result<(), Error> {
        if !self.is_connected() {
            return Err(Error::NotConnected);
        }
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
        if !reason.belongs_in(PacketType::PubAck) {
            return Err(Error::ReasonInvalid);
        }
        // Before 5.0 a message cannot be refused.
        let reason = if self.version().is_v5() { reason } else { ReasonCode::Success };
        let qos2 = self.arrivals.answer(id, reason).ok_or(Error::PacketIdUnknown)?;
        if qos2 && !reason.is_error() {
            self.session.receive(id);
        }
        self.flush_answers();
        Ok(())
    }

    pub(crate) fn authenticate(&mut self, auth: &Auth<'_>) -> Result<(), Error> {
        if !matches!(self.connection.state, State::Connecting | State::Connected) {
            return Err(Error::NotConnected);
        }
        self.authentication.check(auth, self.is_connected())?;
        self.send(&Packet::Auth(*auth))?;
        self.authentication.handle_sent();
        Ok(())
    }

    /// [MQTT-3.14.4-1] Nothing is sent after DISCONNECT.
    pub(crate) fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Error> {
        if !self.is_connected() {
            return Err(Error::NotConnected);
        }
        let revives = |p| matches!(p, Property::SessionExpiryIntervalS(s) if s > 0);
        // Section 3.14.2.2.2
        if self.connection.session_expiry_interval_s == 0
            && disconnect.properties.iter().any(revives)
        {
            return Err(Error::SessionExpiryInvalid);
        }
        self.send(&Packet::Disconnect(*disconnect))?;
        for property in disconnect.properties {
            if let Property::SessionExpiryIntervalS(s) = property {
                self.connection.session_ends = s == 0;
            }
        }
        self.connection.state = State::Closing;
        Ok(())
    }

    #[inline]
    fn check_room(&self) -> Result<(), Error> {
        if !self.is_connected() {
            return Err(Error::NotConnected);
        }
        if self.output.has_room() { Ok(()) } else { Err(Error::Full) }
    }

    #[inline]
    fn check_publish(&self, publish: &Publish<'_>) -> Result<(), Error> {
        let allowed = &self.connection.allowed;
        // [MQTT-3.3.2-2] [MQTT-4.7.3-1] [MQTT-1.5.4-2]
        let is_forbidden = |byte| matches!(byte, b'+' | b'#' | 0);
        if publish.topic.is_empty() || publish.topic.bytes().any(is_forbidden) {
            return Err(Error::TopicNameInvalid);
        }
        // [MQTT-3.2.2-11]
        if publish.qos > allowed.maximum_qos {
            return Err(Error::QosNotSupported);
        }
        // [MQTT-3.2.2-14]
        if publish.retain && !allowed.retain {
            return Err(Error::RetainNotSupported);
        }
        if publish.properties.is_empty() || !self.version().is_v5() {
            return Ok(());
        }
        // [MQTT-3.2.2-17] [MQTT-3.3.2-8] Automatic ones would be overwritten.
        match topic_alias(publish) {
            Some(alias)
                if alias == 0
                    || alias > allowed.topic_alias_maximum
                    || self.outgoing_aliases.maximum > 0 =>
            {
                Err(Error::TopicAliasInvalid)
            }
            _ => Ok(()),
        }
    }

    /// [MQTT-3.2.2-15] The server's maximum packet size.
    #[inline]
    fn check_size(&self, len: usize) -> Result<(), Error> {
        if len as u64 > u64::from(self.connection.allowed.maximum_packet_size_bytes) {
            return Err(Error::PacketTooLarge);
        }
        Ok(())
    }

    fn send(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        let version = self.version();
        let len = packet.encoded_len(version)?;
        self.check_size(len)?;
        self.output.put_packet(version, packet, len)
    }
}

/// What was in flight before a restart, on a client that has not connected yet.
impl Machine<'_> {
    fn check_restore(&self) -> Result<(), Error> {
        if self.connection.state == State::Closed { Ok(()) } else { Err(Error::AlreadyConnected) }
    }

    pub(crate) fn restore_published(
        &mut self,
        version: Version,
        publish: &Publish<'_>,
    ) -> Result<(), Error> {
        self.check_restore()?;
        let (Some(id), false) = (publish.packet_id, publish.qos == QoS::AtMostOnce) else {
            return Err(Error::RestoreInvalid);
        };
        if self.session.is_of_other(version) {
            return Err(Error::SessionVersion);
        }
        // [MQTT-3.3.1-1] It may have been sent.
        let publish = Publish { dup: true, ..*publish };
        let block = self.session.keep(&Form::lasting(version, &publish)?)?;
        let restored = self.session.restore(id, Some((publish.qos, block)));
        if restored.is_err() {
            self.session.unplace(block);
        } else {
            self.session.version = version;
        }
        restored
    }

    pub(crate) fn restore_released(&mut self, id: PacketId) -> Result<(), Error> {
        self.check_restore()?;
        self.session.restore(id, None)
    }

    pub(crate) fn restore_received(&mut self, id: PacketId) -> Result<(), Error> {
        self.check_restore()?;
        self.session.restore_received(id)
    }
}
