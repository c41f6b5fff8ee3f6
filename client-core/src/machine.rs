//! What each packet of the server leads to, and the passing of time.

use whimbrel_codec::{
    Ack, Auth, ConnAck, DecodeError, Disconnect, Packet, PacketId, PacketType, Property, Publish,
    QoS, ReasonCode, SubAck, UnsubAck, Version,
};

use crate::arrivals::Arrivals;
use crate::auth::Authentication;
use crate::connection::{Connection, Due, State};
use crate::output::Output;
use crate::session::{Acked, Kept, Session};
use crate::topics::{OutgoingAliases, Topics};
use crate::{Event, Failure, Limits, Millis};

/// Everything of a client but its input buffer, so that events can borrow that.
pub(crate) struct Machine<'m> {
    pub(crate) limits: Limits,
    pub(crate) session: Session<'m>,
    pub(crate) connection: Connection,
    pub(crate) output: Output<'m>,
    pub(crate) arrivals: Arrivals<'m>,
    /// What the server's aliases stand for.
    pub(crate) incoming_topics: Topics<'m>,
    pub(crate) outgoing_aliases: OutgoingAliases<'m>,
    /// The most aliases that the application wants to be used by themselves.
    pub(crate) automatic_aliases: u16,
    pub(crate) authentication: Authentication<'m>,
    /// The application acknowledges.
    pub(crate) manual: bool,
    /// Messages forgotten since the application was told last.
    pub(crate) discarded: usize,
}

pub(crate) type Handled<'a> = Result<Option<Event<'a>>, DecodeError>;

impl Machine<'_> {
    pub(crate) fn version(&self) -> Version {
        self.connection.version
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.state == State::Connected
    }

    /// Sends what waited for room or for acknowledgements.
    #[inline]
    pub(crate) fn transmit(&mut self) {
        if self.is_connected() {
            self.flush_answers();
            self.session.transmit(self.connection.allowed.receive_maximum, &mut self.output);
        }
    }

    /// True if a ping was due, which is a time to give memory back.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> Result<bool, Failure> {
        let failure = match self.connection.handle_timeout(now) {
            Due::Nothing => return Ok(false),
            Due::Ping => {
                self.shrink();
                // What waits to be written will do as well.
                if self.output.has_room() {
                    self.output.put_answer(&[0xc0, 0]);
                }
                return Ok(true);
            }
            Due::ConnectTimeout => Failure::ConnectTimeout,
            Due::KeepAliveTimeout => Failure::KeepAliveTimeout,
        };
        self.close();
        Err(failure)
    }

    /// Gives memory back that holds nothing.
    pub(crate) fn shrink(&mut self) {
        self.session.shrink();
        self.arrivals.shrink();
        self.output.shrink();
    }

    pub(crate) fn close(&mut self) {
        self.connection.state = State::Closed;
        self.output.clear();
    }

    /// The server broke the protocol: tell it why and end the connection (section 4.13).
    pub(crate) fn fail(&mut self, mut error: DecodeError) -> Event<'static> {
        // [MQTT-3.14.2-1] What is wrong with a CONNECT, which no server sends, is not said.
        if !error.reason.belongs_in(PacketType::Disconnect) {
            error.reason = ReasonCode::ProtocolError;
        }
        if self.is_connected() && self.version().is_v5() {
            self.output.put_answer(&[0xe0, 1, error.reason as u8]);
        }
        self.connection.state = State::Closing;
        Event::Failed(Failure::ServerMisbehaved(error))
    }

    fn put_ack(&mut self, packet_type: PacketType, id: PacketId, reason: ReasonCode) {
        let reason = if self.version().is_v5() { reason } else { ReasonCode::Success };
        self.output.put_ack(packet_type, id, reason);
    }

    pub(crate) fn handle_packet<'a>(&mut self, packet: Packet<'a>) -> Handled<'a> {
        if self.connection.state == State::Connecting {
            return match packet {
                Packet::ConnAck(ack) => self.handle_connack(ack),
                Packet::Auth(auth) => self.handle_auth(auth),
                // [MQTT-3.2.0-1] [MQTT-3.14.0-1]
                _ => Err(DecodeError::protocol("a packet before CONNACK")),
            };
        }
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubAck(ack) => {
                let acked = self.session.handle_puback(ack.packet_id)?;
                self.handle_acked(ack, acked)
            }
            Packet::PubRec(ack) => {
                let acked = self.session.handle_pubrec(&ack)?;
                self.handle_acked(ack, acked)
            }
            Packet::PubComp(ack) => {
                let acked = self.session.handle_pubcomp(ack.packet_id)?;
                self.handle_acked(ack, acked)
            }
            Packet::PubRel(ack) => self.handle_pubrel(ack),
            Packet::SubAck(ack) => self.handle_suback(ack),
            Packet::UnsubAck(ack) => self.handle_unsuback(ack),
            Packet::PingResp => Ok(None),
            Packet::Auth(auth) => self.handle_auth(auth),
            Packet::Disconnect(disconnect) => self.handle_disconnect(disconnect),
            // [MQTT-3.2.0-2] A second CONNACK is among them.
            Packet::ConnAck(_)
            | Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq => Err(DecodeError::protocol("a packet that no server sends")),
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
        self.authentication.handle_connack(&ack)?;
        self.connection.handle_connack(&ack);
        // 3.1 cannot say whether it knows the session.
        let resumed = ack.session_present
            || (self.version() == Version::V3_1 && !self.connection.clean_start);
        // [MQTT-3.2.2-5]
        if !resumed {
            self.discarded += self.session.discard();
        }
        let discarded = core::mem::take(&mut self.discarded);
        self.session.version = self.version();
        let allowed = self.connection.allowed.topic_alias_maximum;
        self.outgoing_aliases.restart(self.automatic_aliases.min(allowed));
        // [MQTT-4.4.0-1]
        self.transmit();
        Ok(Some(Event::Connected { ack, discarded }))
    }

    fn handle_auth<'a>(&mut self, auth: Auth<'a>) -> Handled<'a> {
        let connected = self.is_connected();
        self.authentication.handle_auth(&auth, connected)?;
        Ok(Some(Event::Auth(auth)))
    }

    fn handle_disconnect<'a>(&mut self, disconnect: Disconnect<'a>) -> Handled<'a> {
        if !self.version().is_v5() {
            return Err(DecodeError::protocol("a packet that no server sends"));
        }
        // [MQTT-3.14.2-2]
        let expiry = |p| matches!(p, Property::SessionExpiryIntervalS(_));
        if disconnect.properties.iter().any(expiry) {
            return Err(DecodeError::protocol("a session expiry interval of the server"));
        }
        self.close();
        Ok(Some(Event::Disconnected(disconnect)))
    }

    /// A topic alias is learnt or checked, and left for the caller to resolve.
    #[inline]
    pub(crate) fn handle_publish<'a>(&mut self, publish: Publish<'a>) -> Handled<'a> {
        if !publish.properties.is_empty() {
            self.learn_alias(&publish)?;
        }
        let Some(id) = publish.packet_id else { return Ok(Some(Event::Message(publish))) };
        let qos2 = publish.qos == QoS::ExactlyOnce;
        if qos2 && self.session.incoming().contains(id) {
            // [MQTT-4.3.3-10]
            self.acknowledge_now(id, true)?;
            return Ok(None);
        }
        if self.manual {
            if qos2 && publish.dup && self.arrivals.contains_qos2(id) {
                return Ok(None);
            }
            self.check_quota()?;
            self.arrive(id, qos2, None)?;
        } else {
            if qos2 {
                self.check_quota()?;
            }
            self.acknowledge_now(id, qos2)?;
        }
        Ok(Some(Event::Message(publish)))
    }

    /// [MQTT-3.3.4-9]
    fn check_quota(&self) -> Result<(), DecodeError> {
        let used = self.arrivals.len() + usize::from(self.connection.unreleased);
        if used >= usize::from(self.connection.announced.receive_maximum) {
            return Err(QUOTA);
        }
        Ok(())
    }

    /// [MQTT-4.3.2-4] [MQTT-4.3.3-8] Behind what waits for the application, if something does.
    #[inline]
    fn acknowledge_now(&mut self, id: PacketId, qos2: bool) -> Result<(), DecodeError> {
        if self.arrivals.len() > 0 {
            self.arrive(id, qos2, Some(ReasonCode::Success))?;
            self.flush_answers();
            return Ok(());
        }
        if !qos2 {
            self.output.put_ack(PacketType::PubAck, id, ReasonCode::Success);
            return Ok(());
        }
        if !self.session.incoming().contains(id) {
            self.check_memory()?;
            self.session.receive(id);
            self.connection.unreleased += 1;
        }
        self.output.put_ack(PacketType::PubRec, id, ReasonCode::Success);
        Ok(())
    }

    fn arrive(
        &mut self,
        id: PacketId,
        qos2: bool,
        answer: Option<ReasonCode>,
    ) -> Result<(), DecodeError> {
        if qos2 && !self.session.incoming().contains(id) {
            self.check_memory()?;
            if answer.is_some() {
                self.session.receive(id);
            }
        }
        if self.arrivals.push(id, qos2, answer) { Ok(()) } else { Err(QUOTA) }
    }

    /// Whether the identifiers of all QoS 2 messages can be kept.
    fn check_memory(&self) -> Result<(), DecodeError> {
        let ids = self.session.incoming();
        if ids.len() + self.arrivals.unanswered_qos2() < self.session.max_incoming() {
            Ok(())
        } else {
            Err(QUOTA)
        }
    }

    /// Acknowledgements go out in the order of the messages' arrival `[MQTT-4.6.0-2]`,
    /// `[MQTT-4.6.0-3]`.
    pub(crate) fn flush_answers(&mut self) {
        while self.arrivals.len() > 0 && self.output.has_answer_room() {
            let Some(answer) = self.arrivals.pop_answered() else { return };
            if answer.packet_type == PacketType::PubRec && !answer.reason.is_error() {
                self.connection.unreleased += 1;
            }
            self.put_ack(answer.packet_type, answer.id, answer.reason);
        }
    }

    fn handle_pubrel<'a>(&mut self, release: Ack<'_>) -> Handled<'a> {
        let id = release.packet_id;
        let known = self.session.handle_pubrel(id);
        // [MQTT-4.3.3-11]
        if !known {
            self.put_ack(PacketType::PubComp, id, ReasonCode::PacketIdNotFound);
            return Ok(None);
        }
        self.connection.unreleased = self.connection.unreleased.saturating_sub(1);
        self.output.put_ack(PacketType::PubComp, id, ReasonCode::Success);
        Ok(Some(Event::Released(id)))
    }

    #[inline]
    fn handle_acked<'a>(&mut self, ack: Ack<'a>, acked: Acked) -> Handled<'a> {
        match acked {
            Acked::Ignored => Ok(None),
            Acked::Release => {
                // [MQTT-4.3.3-4]
                self.output.put_ack(PacketType::PubRel, ack.packet_id, ReasonCode::Success);
                Ok(Some(Event::Received(ack.packet_id)))
            }
            Acked::ReleaseAgain(reason) => {
                self.put_ack(PacketType::PubRel, ack.packet_id, reason);
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
        let answer = Kept::Subscribe(ack.codes.bytes().len() as u32);
        self.session.handle_answer(ack.packet_id, answer)?;
        Ok(Some(Event::Subscribed(ack)))
    }

    /// [MQTT-3.10.4-4]
    fn handle_unsuback<'a>(&mut self, ack: UnsubAck<'a>) -> Handled<'a> {
        let answer = Kept::Unsubscribe(ack.codes.bytes().len() as u32);
        self.session.handle_answer(ack.packet_id, answer)?;
        Ok(Some(Event::Unsubscribed(ack)))
    }

    /// Learns the alias of a PUBLISH, or checks that it is known (section 3.3.2.3.4).
    fn learn_alias(&mut self, publish: &Publish<'_>) -> Result<(), DecodeError> {
        let invalid = |what| DecodeError { reason: ReasonCode::TopicAliasInvalid, what };
        let Some(alias) = topic_alias(publish) else { return Ok(()) };
        // [MQTT-3.1.2-26] [MQTT-3.3.2-8]
        if alias == 0 || alias > self.connection.announced.topic_alias_maximum {
            return Err(invalid("a topic alias is above what was announced"));
        }
        let at = usize::from(alias) - 1;
        if publish.topic.is_empty() {
            let known = self.incoming_topics.get(at).is_some();
            return if known { Ok(()) } else { Err(invalid("an unknown topic alias")) };
        }
        if self.incoming_topics.set(at, publish.topic) {
            return Ok(());
        }
        Err(DecodeError {
            reason: ReasonCode::QuotaExceeded,
            what: "the topics of the aliases need more memory than there is",
        })
    }

    /// The topic name of a PUBLISH that was learnt from.
    #[inline]
    pub(crate) fn topic<'a>(&'a self, publish: &Publish<'a>) -> &'a str {
        if publish.topic.is_empty()
            && let Some(alias) = topic_alias(publish)
            && let Some(topic) = self.incoming_topics.get(usize::from(alias).wrapping_sub(1))
        {
            return topic;
        }
        publish.topic
    }
}

const QUOTA: DecodeError = DecodeError {
    reason: ReasonCode::ReceiveMaximumExceeded,
    what: "more unacknowledged messages than the receive maximum",
};

pub(crate) fn topic_alias(publish: &Publish<'_>) -> Option<u16> {
    publish.properties.iter().find_map(|property| match property {
        Property::TopicAlias(alias) => Some(alias),
        _ => None,
    })
}
