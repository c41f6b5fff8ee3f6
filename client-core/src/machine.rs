//! What each packet of the server leads to, and what each command sends.

use alloc::vec::Vec;

use whimbrel_codec::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, Filters, Packet, PacketId, Properties,
    Publish, QoS, ReasonCode, SubAck, Subscribe, Subscription, Topics, UnsubAck, Unsubscribe,
    Version,
};

use crate::connection::{Connection, Due, State, topic_alias};
use crate::session::{Acked, Request, Session, put_ack};
use crate::{Error, Event, Failure, Limits, Millis};

/// Everything of a client but its input buffer, so that events can borrow that.
pub(crate) struct Machine {
    pub(crate) limits: Limits,
    pub(crate) session: Session,
    pub(crate) connection: Connection,
    pub(crate) output: Vec<u8>,
}

type Handled<'a> = Result<Option<Event<'a>>, DecodeError>;

/// Commands.
impl Machine {
    pub(crate) fn connect(&mut self, now: Millis, connect: &Connect<'_>) -> Result<(), Error> {
        let mut packet = Vec::new();
        Packet::Connect(*connect).encode(connect.version, &mut packet)?;
        self.connection = Connection::connecting(now, connect, &self.limits);
        self.session.reconnect();
        self.output = packet;
        Ok(())
    }

    pub(crate) fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, Error> {
        self.check_room()?;
        self.check_publish(publish)?;
        if publish.qos == QoS::AtMostOnce {
            self.send(&Packet::Publish(*publish))?;
            return Ok(None);
        }
        if self.session.in_flight() >= usize::from(self.limits.max_in_flight) {
            return Err(Error::Full);
        }
        let packet_id = self.session.new_packet_id().ok_or(Error::Full)?;
        // [MQTT-4.3.2-2] [MQTT-4.3.3-2] A first sending is no duplicate.
        let publish = Publish { packet_id: Some(packet_id), dup: false, ..*publish };
        let packet = self.encode(&Packet::Publish(publish))?;
        self.session.push(packet_id, publish.qos, packet);
        self.transmit();
        Ok(Some(packet_id))
    }

    pub(crate) fn subscribe(
        &mut self,
        subscriptions: &[Subscription<'_>],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        self.check_room()?;
        // [MQTT-3.8.3-2] [MQTT-4.7.3-1]
        if subscriptions.is_empty() || subscriptions.iter().any(|s| s.filter.is_empty()) {
            return Err(Error::TopicFilterInvalid);
        }
        let packet_id = self.session.new_packet_id().ok_or(Error::Full)?;
        let filters = Filters::new(subscriptions);
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }))?;
        self.session.request(packet_id, Request::Subscribe(subscriptions.len()));
        Ok(packet_id)
    }

    pub(crate) fn unsubscribe(
        &mut self,
        filters: &[&str],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        self.check_room()?;
        // [MQTT-3.10.3-2] [MQTT-4.7.3-1]
        if filters.is_empty() || filters.iter().any(|filter| filter.is_empty()) {
            return Err(Error::TopicFilterInvalid);
        }
        let packet_id = self.session.new_packet_id().ok_or(Error::Full)?;
        let topics = Topics::new(filters);
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: topics }))?;
        let codes = if self.version().is_v5() { filters.len() } else { 0 };
        self.session.request(packet_id, Request::Unsubscribe(codes));
        Ok(packet_id)
    }

    pub(crate) fn authenticate(&mut self, auth: &Auth<'_>) -> Result<(), Error> {
        if !matches!(self.connection.state, State::Connecting | State::Connected) {
            return Err(Error::NotConnected);
        }
        self.send(&Packet::Auth(*auth))
    }

    /// [MQTT-3.14.4-1] Nothing is sent after DISCONNECT.
    pub(crate) fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Error> {
        if self.connection.state != State::Connected {
            return Err(Error::NotConnected);
        }
        self.send(&Packet::Disconnect(*disconnect))?;
        self.connection.state = State::Closing;
        Ok(())
    }

    fn check_room(&self) -> Result<(), Error> {
        if self.connection.state != State::Connected {
            return Err(Error::NotConnected);
        }
        if self.output.len() >= self.limits.max_output_bytes { Err(Error::Full) } else { Ok(()) }
    }

    fn check_publish(&self, publish: &Publish<'_>) -> Result<(), Error> {
        let allowed = &self.connection.allowed;
        // [MQTT-3.3.2-2] [MQTT-4.7.3-1]
        if publish.topic.is_empty() || publish.topic.contains(['+', '#', '\0']) {
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
        // [MQTT-3.2.2-17] [MQTT-3.3.2-8]
        match topic_alias(publish) {
            Some(alias) if alias == 0 || alias > allowed.topic_alias_maximum => {
                Err(Error::TopicAliasInvalid)
            }
            _ => Ok(()),
        }
    }

    /// [MQTT-3.2.2-15] The server's maximum packet size.
    fn check_size(&self, packet: &Packet<'_>) -> Result<usize, Error> {
        let len = packet.encoded_len(self.version())?;
        if len as u64 > u64::from(self.connection.allowed.maximum_packet_size_bytes) {
            return Err(Error::PacketTooLarge);
        }
        Ok(len)
    }

    fn encode(&self, packet: &Packet<'_>) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(self.check_size(packet)?);
        packet.encode(self.version(), &mut bytes)?;
        Ok(bytes)
    }

    fn send(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        self.check_size(packet)?;
        Ok(packet.encode(self.connection.version, &mut self.output)?)
    }

    fn transmit(&mut self) {
        let Connection { version, allowed, .. } = &self.connection;
        self.session.transmit(*version, allowed.receive_maximum, &mut self.output);
    }

    fn version(&self) -> Version {
        self.connection.version
    }
}

/// Inputs.
impl Machine {
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> Option<Failure> {
        let failure = match self.connection.handle_timeout(now) {
            Due::Nothing => return None,
            Due::Ping => {
                put_ack(&mut self.output, self.connection.version, Packet::PingReq);
                return None;
            }
            Due::ConnectTimeout => Failure::ConnectTimeout,
            Due::KeepAliveTimeout => Failure::KeepAliveTimeout,
        };
        self.close();
        Some(failure)
    }

    pub(crate) fn close(&mut self) {
        self.connection.state = State::Closed;
        self.output.clear();
    }

    /// The server broke the protocol: tell it why and end the connection (section 4.13).
    pub(crate) fn fail(&mut self, error: DecodeError) -> Event<'static> {
        if self.connection.state == State::Connected && self.version().is_v5() {
            let disconnect = Disconnect::new(error.reason);
            put_ack(&mut self.output, self.connection.version, Packet::Disconnect(disconnect));
        }
        self.connection.state = State::Closing;
        Event::Failed(Failure::ServerMisbehaved(error))
    }

    /// A topic alias in a message is checked, and left for the caller to resolve.
    pub(crate) fn handle_packet<'a>(&mut self, packet: Packet<'a>) -> Handled<'a> {
        if self.connection.state == State::Connecting {
            return match packet {
                Packet::ConnAck(ack) => self.handle_connack(ack),
                Packet::Auth(auth) => Ok(Some(Event::Auth(auth))),
                // [MQTT-3.2.0-1]
                _ => Err(DecodeError::protocol("a packet before CONNACK")),
            };
        }
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubAck(ack) => {
                let acked = self.session.handle_puback(&ack)?;
                self.handle_acked(ack, acked)
            }
            Packet::PubRec(ack) => {
                let acked = self.session.handle_pubrec(&ack)?;
                self.handle_acked(ack, acked)
            }
            Packet::PubComp(ack) => {
                let acked = self.session.handle_pubcomp(&ack)?;
                self.handle_acked(ack, acked)
            }
            Packet::PubRel(ack) => self.handle_pubrel(ack),
            Packet::SubAck(ack) => self.handle_suback(ack),
            Packet::UnsubAck(ack) => self.handle_unsuback(ack),
            Packet::PingResp => Ok(None),
            Packet::Auth(auth) => Ok(Some(Event::Auth(auth))),
            Packet::Disconnect(disconnect) if self.version().is_v5() => {
                self.close();
                Ok(Some(Event::Disconnected(disconnect)))
            }
            _ => Err(DecodeError::protocol("a packet that no server sends")),
        }
    }

    fn handle_connack<'a>(&mut self, ack: ConnAck<'a>) -> Handled<'a> {
        if ack.reason.is_error() {
            self.close();
            return Ok(Some(Event::Refused(ack)));
        }
        // [MQTT-3.2.2-2]
        if ack.session_present && self.connection.clean_start {
            return Err(DecodeError::protocol("a session is present after a clean start"));
        }
        self.connection.handle_connack(&ack);
        // 3.1 cannot say whether it knows the session.
        let resumed = ack.session_present
            || (self.version() == Version::V3_1 && !self.connection.clean_start);
        // [MQTT-3.2.2-5]
        let discarded = if resumed { 0 } else { self.session.discard() };
        // [MQTT-4.4.0-1]
        self.transmit();
        Ok(Some(Event::Connected { ack, discarded }))
    }

    fn handle_publish<'a>(&mut self, publish: Publish<'a>) -> Handled<'a> {
        self.connection.learn_alias(&publish)?;
        let Some(id) = publish.packet_id else { return Ok(Some(Event::Message(publish))) };
        if publish.qos == QoS::AtLeastOnce {
            // [MQTT-4.3.2-4]
            put_ack(&mut self.output, self.connection.version, Packet::PubAck(Ack::new(id)));
            return Ok(Some(Event::Message(publish)));
        }
        let new = self.session.handle_publish_qos2(id);
        if new {
            // [MQTT-3.3.4-9]
            if self.connection.unreleased >= self.connection.receive_maximum {
                return Err(DecodeError {
                    reason: ReasonCode::ReceiveMaximumExceeded,
                    what: "more QoS 2 messages than the receive maximum",
                });
            }
            self.connection.unreleased += 1;
        }
        // [MQTT-4.3.3-8]
        put_ack(&mut self.output, self.connection.version, Packet::PubRec(Ack::new(id)));
        Ok(new.then_some(Event::Message(publish)))
    }

    fn handle_pubrel<'a>(&mut self, release: Ack<'_>) -> Handled<'a> {
        let id = release.packet_id;
        let mut ack = Ack::new(id);
        if self.session.handle_pubrel(id) {
            self.connection.unreleased = self.connection.unreleased.saturating_sub(1);
        } else {
            ack.reason = ReasonCode::PacketIdNotFound;
        }
        // [MQTT-4.3.3-11]
        put_ack(&mut self.output, self.connection.version, Packet::PubComp(ack));
        Ok(None)
    }

    fn handle_acked<'a>(&mut self, ack: Ack<'a>, acked: Acked) -> Handled<'a> {
        match acked {
            Acked::Ignored => Ok(None),
            Acked::Release(reason) => {
                let release = Ack { reason, ..Ack::new(ack.packet_id) };
                // [MQTT-4.3.3-4]
                put_ack(&mut self.output, self.connection.version, Packet::PubRel(release));
                Ok(None)
            }
            Acked::Done => {
                self.transmit();
                Ok(Some(Event::Published(ack)))
            }
        }
    }

    /// [MQTT-3.8.4-2] [MQTT-3.8.4-6]
    fn handle_suback<'a>(&mut self, ack: SubAck<'a>) -> Handled<'a> {
        let answer = Request::Subscribe(ack.codes.bytes().len());
        self.session.handle_answer(ack.packet_id, answer)?;
        Ok(Some(Event::Subscribed(ack)))
    }

    /// [MQTT-3.10.4-4]
    fn handle_unsuback<'a>(&mut self, ack: UnsubAck<'a>) -> Handled<'a> {
        let answer = Request::Unsubscribe(ack.codes.bytes().len());
        self.session.handle_answer(ack.packet_id, answer)?;
        Ok(Some(Event::Unsubscribed(ack)))
    }
}
