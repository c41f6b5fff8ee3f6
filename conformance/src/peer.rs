//! The scripted peer: a client that does what the script says, and fails when the broker does not.
//!
//! Answers are awaited by packet type, since the standard leaves the order between most types to
//! the server; packets of one type are taken in the order in which they came. A packet that cannot
//! be decoded, or that no server may send, fails the test at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use whimbrel_codec::{
    Ack, Disconnect, EncodeError, Filters, Packet, PacketId, PacketType, Properties, Property,
    Publish, QoS, ReasonCode, Subscribe, Subscription, Topics, Unsubscribe, Version,
};

use crate::bench::Bench;
use crate::outcome::{Outcome, Stop, check, equal, need, one_of};
use crate::packets::{Answer, Message, Raw, Server};
use crate::port::{Connection, Received};

/// A client of the broker under test.
pub struct Client<'t> {
    bench: &'t Bench<'t>,
    link: Box<dyn Connection>,
    /// How packets are encoded and decoded.
    pub version: Version,
    /// The CONNACK, once it was awaited.
    pub connack: Answer,
    /// What the CONNACK announced.
    pub server: Server,
    bytes: Vec<u8>,
    inbox: VecDeque<Raw>,
    closed: bool,
    packet_id: PacketId,
    /// What this client announced; no packet may be larger.
    pub(crate) maximum_packet_size_bytes: usize,
}

/// Sending.
impl<'t> Client<'t> {
    pub(crate) fn new(bench: &'t Bench<'t>, link: Box<dyn Connection>) -> Client<'t> {
        Client {
            bench,
            link,
            version: bench.version,
            connack: Answer::NONE,
            server: Server::new(&Answer::NONE),
            bytes: Vec::new(),
            inbox: VecDeque::new(),
            closed: false,
            packet_id: PacketId::MIN,
            maximum_packet_size_bytes: usize::MAX,
        }
    }

    /// Sends a packet; skips the test if the broker has said that it does not support it.
    pub fn send(&mut self, packet: Packet<'_>) -> Outcome {
        self.need_features(&packet)?;
        if let Packet::Publish(Publish { retain: true, topic, .. }) = packet {
            self.bench.has_retained(topic);
        }
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).map_err(|error: EncodeError| {
            Stop::Failed(format!("the test is wrong: {packet:?} cannot be encoded: {error}"))
        })?;
        self.send_raw(&bytes);
        Ok(())
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.link.send(bytes);
    }

    /// Sends bytes as a WebSocket text frame; false where there are no frames.
    pub fn send_text(&mut self, bytes: &[u8]) -> bool {
        self.link.send_text(bytes)
    }

    /// True where each sending is a WebSocket frame.
    pub fn has_frames(&self) -> bool {
        self.link.has_frames()
    }

    fn need_features(&self, packet: &Packet<'_>) -> Outcome {
        match packet {
            Packet::Publish(publish) => {
                need(publish.qos as u8 <= self.server.maximum_qos, "such QoS")?;
                need(!publish.retain || self.server.retain, "retained messages")
            }
            Packet::Subscribe(subscribe) => {
                for filter in subscribe.filters.iter().map(|subscription| subscription.filter) {
                    let shared = filter.starts_with("$share/");
                    need(!shared || self.server.shared, "shared subscriptions")?;
                    let wildcard = filter.contains(['+', '#']);
                    need(!wildcard || self.server.wildcards, "wildcard subscriptions")?;
                }
                let id = |p| matches!(p, Property::SubscriptionIdentifier(_));
                let has_id = subscribe.properties.iter().any(id);
                need(!has_id || self.server.subscription_ids, "subscription identifiers")
            }
            _ => Ok(()),
        }
    }

    /// A packet identifier that this client has not used yet.
    pub fn next_id(&mut self) -> PacketId {
        let id = self.packet_id;
        self.packet_id = id.next();
        id
    }

    /// Subscribes to one filter, which must be granted as asked.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> Outcome {
        let codes = self.subscribe_with(&[Subscription::new(filter, qos)], &[])?;
        equal("granted QoS", codes, vec![qos as u8])
    }

    /// Sends SUBSCRIBE and returns the codes of the SUBACK.
    pub fn subscribe_with(
        &mut self,
        list: &[Subscription<'_>],
        properties: &[Property<'_>],
    ) -> Outcome<Vec<u8>> {
        let packet_id = self.next_id();
        let filters = Filters::new(list);
        let properties = Properties::new(properties);
        self.send(Packet::Subscribe(Subscribe { packet_id, properties, filters }))?;
        let suback = self.expect_ack(PacketType::SubAck, packet_id)?;
        equal("number of codes in SUBACK", suback.codes.len(), list.len())?;
        Ok(suback.codes)
    }

    /// Sends UNSUBSCRIBE and returns the codes of the UNSUBACK (none before 5.0).
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Outcome<Vec<u8>> {
        let packet_id = self.next_id();
        let list = Topics::new(filters);
        let properties = Properties::NONE;
        self.send(Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: list }))?;
        Ok(self.expect_ack(PacketType::UnsubAck, packet_id)?.codes)
    }

    /// Publishes and completes the flow; the broker must accept the message.
    pub fn publish(&mut self, topic: &str, payload: &str, qos: QoS) -> Outcome {
        let reason =
            self.publish_with(Publish { qos, ..Publish::new(topic, payload.as_bytes()) })?;
        check(!reason.is_error(), "the broker refuses a message")
    }

    /// Publishes, completes the flow and returns the reason code of PUBACK or PUBREC.
    pub fn publish_with(&mut self, publish: Publish<'_>) -> Outcome<ReasonCode> {
        if publish.qos == QoS::AtMostOnce {
            self.send(Packet::Publish(publish))?;
            return Ok(ReasonCode::Success);
        }
        let id = publish.packet_id.unwrap_or_else(|| self.next_id());
        self.send(Packet::Publish(Publish { packet_id: Some(id), ..publish }))?;
        if publish.qos == QoS::AtLeastOnce {
            return Ok(self.expect_ack(PacketType::PubAck, id)?.reason);
        }
        let pubrec = self.expect_ack(PacketType::PubRec, id)?;
        if !pubrec.reason.is_error() {
            self.send(Packet::PubRel(Ack::new(id)))?;
            let pubcomp = self.expect_ack(PacketType::PubComp, id)?;
            equal("reason of PUBCOMP", pubcomp.reason, ReasonCode::Success)?;
        }
        Ok(pubrec.reason)
    }

    /// Sends PINGREQ and awaits PINGRESP.
    pub fn ping(&mut self) -> Outcome {
        self.send(Packet::PingReq)?;
        self.take(&[PacketType::PingResp], "PINGRESP").map(|_| ())
    }

    /// Ends the connection with a normal DISCONNECT.
    pub fn disconnect(mut self) -> Outcome {
        self.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success)))?;
        self.link.close();
        Ok(())
    }

    /// Ends the connection with this DISCONNECT.
    pub fn disconnect_with(mut self, disconnect: Disconnect<'_>) -> Outcome {
        self.send(Packet::Disconnect(disconnect))?;
        self.link.close();
        Ok(())
    }

    /// Loses the connection, without DISCONNECT.
    pub fn lose(mut self) {
        self.link.close();
    }
}

/// Expecting.
impl Client<'_> {
    /// Awaits the CONNACK, which must be the first packet and no error.
    pub fn expect_accepted(&mut self) -> Outcome {
        self.expect_connack()?;
        equal("reason of CONNACK", self.connack.reason, ReasonCode::Success)
    }

    /// Awaits the CONNACK, which must be the first packet.
    pub fn expect_connack(&mut self) -> Outcome {
        let raw = self.take_any("CONNACK")?;
        equal("type of the first packet", raw.packet_type(), PacketType::ConnAck)?;
        self.connack = answer(&raw)?;
        self.server = Server::new(&self.connack);
        Ok(())
    }

    /// Awaits an acknowledgement of this type, which must be for this packet identifier.
    pub fn expect_ack(&mut self, packet_type: PacketType, id: PacketId) -> Outcome<Answer> {
        let what = format!("{packet_type:?} {}", id.get());
        let answer = answer(&self.take(&[packet_type], &what)?)?;
        equal(&format!("packet identifier of {packet_type:?}"), answer.packet_id, id.get())?;
        Ok(answer)
    }

    /// Awaits a packet of this type.
    pub fn expect(&mut self, packet_type: PacketType) -> Outcome<Answer> {
        answer(&self.take(&[packet_type], &format!("{packet_type:?}"))?)
    }

    /// Awaits a PUBLISH and does not acknowledge it.
    pub fn expect_publish(&mut self) -> Outcome<Message> {
        let raw = self.take(&[PacketType::Publish], "PUBLISH")?;
        match raw.packet().map_err(malformed)? {
            Packet::Publish(publish) => Ok(Message::new(&publish, raw.packet_len())),
            packet => Err(Stop::Failed(format!("expected PUBLISH, came {packet:?}"))),
        }
    }

    /// Awaits a PUBLISH and completes its flow.
    pub fn receive(&mut self) -> Outcome<Message> {
        let message = self.expect_publish()?;
        self.acknowledge(&message)?;
        Ok(message)
    }

    /// Awaits a message with this payload and completes its flow.
    pub fn expect_payload(&mut self, payload: &str) -> Outcome<Message> {
        let message = self.receive()?;
        equal("payload", message.text(), payload.to_owned())?;
        Ok(message)
    }

    /// Completes the flow of a message from the broker.
    pub fn acknowledge(&mut self, message: &Message) -> Outcome {
        let Some(id) = message.packet_id else { return Ok(()) };
        if message.qos == QoS::AtLeastOnce {
            return self.send(Packet::PubAck(Ack::new(id)));
        }
        self.send(Packet::PubRec(Ack::new(id)))?;
        self.expect_ack(PacketType::PubRel, id)?;
        self.send(Packet::PubComp(Ack::new(id)))
    }

    /// Fails if anything comes, or has come and was not awaited, or if the connection is closed.
    pub fn expect_nothing(&mut self) -> Outcome {
        let end = Instant::now() + self.bench.broker.silence();
        while self.inbox.is_empty() && !self.closed && self.pump(end)? {}
        check(!self.closed, &format!("expected an open connection, it was closed{}", self.rest()))?;
        check(self.inbox.is_empty(), &format!("expected nothing{}", self.rest()))
    }

    /// True if a packet of this type has come and was not awaited.
    pub fn has(&self, packet_type: PacketType) -> bool {
        self.inbox.iter().any(|raw| raw.packet_type() == packet_type)
    }

    /// Receives and acknowledges messages until none comes for a while.
    pub fn drain(&mut self) -> Outcome<Vec<Message>> {
        let mut messages = Vec::new();
        let end = Instant::now() + self.bench.broker.silence();
        while self.has(PacketType::Publish) || (!self.closed && self.pump(end)?) {
            while self.has(PacketType::Publish) {
                messages.push(self.receive()?);
            }
        }
        Ok(messages)
    }

    /// Awaits that the broker closes the connection, for whatever reason.
    pub fn expect_closed(&mut self) -> Outcome {
        self.wait_closed("a closed connection")
    }

    /// Awaits that the broker closes the connection.
    ///
    /// In 5.0 a DISCONNECT before it must have one of these codes; that it comes at all is only
    /// recommended, so only a strict run demands it.
    pub fn expect_closed_with(&mut self, reasons: &[ReasonCode]) -> Outcome {
        self.wait_closed(&format!("DISCONNECT with one of {reasons:?} and a closed connection"))?;
        let is_disconnect = |raw: &Raw| raw.packet_type() == PacketType::Disconnect;
        let Some(at) = self.inbox.iter().position(is_disconnect) else {
            let silent = self.version.is_v5() && self.bench.strict;
            return check(!silent, "closed without a DISCONNECT that says why");
        };
        // [MQTT-3.14.4-1]
        equal("packets after DISCONNECT", self.inbox.len() - at - 1, 0)?;
        check(self.version.is_v5(), "a server sends no DISCONNECT before 5.0")?;
        let disconnect = self.expect(PacketType::Disconnect)?;
        one_of("reason of DISCONNECT", disconnect.reason, reasons)
    }

    /// Awaits that the broker closes the connection for bytes that are no packet, or break a rule.
    pub fn expect_malformed(&mut self) -> Outcome {
        self.expect_closed_with(&[ReasonCode::MalformedPacket, ReasonCode::ProtocolError])
    }

    /// Awaits that the broker refuses the CONNECT: with a CONNACK that has one of these codes, or
    /// (if there is no strict run, or no code) without.
    pub fn expect_refused(&mut self, reasons: &[ReasonCode]) -> Outcome {
        self.wait_closed(&format!("CONNACK with one of {reasons:?} and a closed connection"))?;
        if self.inbox.is_empty() {
            let silent = self.bench.strict && !reasons.is_empty();
            return check(!silent, "closed without a CONNACK that says why");
        }
        let came = self.rest();
        self.expect_connack()?;
        check(self.inbox.is_empty(), &format!("expected one CONNACK at most{came}"))?;
        one_of("reason of CONNACK", self.connack.reason, reasons)?;
        equal("session present in a refusal", self.connack.session_present, false)
    }

    /// Awaits that the broker refuses a CONNECT that breaks the format: before 5.0 without a
    /// CONNACK, and in 5.0 at least with the right one.
    pub fn expect_malformed_connect(&mut self) -> Outcome {
        if !self.version.is_v5() {
            return self.expect_refused(&[]);
        }
        self.expect_refused(&[ReasonCode::MalformedPacket, ReasonCode::ProtocolError])
    }

    /// Awaits that the broker closes the connection, and returns the bytes that came before.
    pub fn read_to_end(&mut self) -> Outcome<Vec<u8>> {
        let end = Instant::now() + self.bench.broker.patience();
        loop {
            let timeout = end.saturating_duration_since(Instant::now());
            match self.link.receive(timeout, &mut self.bytes) {
                Received::Closed => return Ok(std::mem::take(&mut self.bytes)),
                Received::Nothing if timeout <= Duration::from_millis(1) => {
                    return Err(Stop::Failed("expected a closed connection".to_owned()));
                }
                _ => {}
            }
        }
    }
}

/// Receiving.
impl Client<'_> {
    fn take(&mut self, types: &[PacketType], what: &str) -> Outcome<Raw> {
        let end = Instant::now() + self.bench.broker.patience();
        loop {
            let at = self.inbox.iter().position(|raw| types.contains(&raw.packet_type()));
            if let Some(raw) = at.and_then(|at| self.inbox.remove(at)) {
                return Ok(raw);
            }
            self.more(what, end)?;
        }
    }

    fn take_any(&mut self, what: &str) -> Outcome<Raw> {
        let end = Instant::now() + self.bench.broker.patience();
        loop {
            if let Some(raw) = self.inbox.pop_front() {
                return Ok(raw);
            }
            self.more(what, end)?;
        }
    }

    fn wait_closed(&mut self, what: &str) -> Outcome {
        let end = Instant::now() + self.bench.broker.patience();
        while !self.closed {
            self.more(what, end)?;
        }
        Ok(())
    }

    /// Waits for something new, and fails if the connection is closed or the time is over.
    fn more(&mut self, what: &str, end: Instant) -> Outcome {
        let end_of = if self.closed { "the connection was closed" } else { "nothing came in time" };
        if self.closed || !self.pump(end)? {
            return Err(Stop::Failed(format!("expected {what}, {end_of}{}", self.rest())));
        }
        Ok(())
    }

    /// Takes in what comes until `end`; false if nothing did.
    fn pump(&mut self, end: Instant) -> Outcome<bool> {
        loop {
            let timeout = end.saturating_duration_since(Instant::now());
            match self.link.receive(timeout, &mut self.bytes) {
                Received::Closed => {
                    self.closed = true;
                    return Ok(true);
                }
                Received::Bytes => {}
                Received::Nothing if timeout <= Duration::from_millis(1) => return Ok(false),
                Received::Nothing => continue,
            }
            let before = self.inbox.len();
            while let Some(raw) = Raw::take(self.version, &mut self.bytes).map_err(malformed)? {
                check_sender(&raw)?;
                // [MQTT-3.1.2-24]
                let fits = raw.packet_len() <= self.maximum_packet_size_bytes;
                check(
                    fits,
                    &format!("{} bytes are too large: {}", raw.packet_len(), raw.describe()),
                )?;
                self.inbox.push_back(raw);
            }
            if self.inbox.len() > before {
                return Ok(true);
            }
        }
    }

    fn rest(&self) -> String {
        self.inbox.iter().map(|raw| format!("; also came {}", raw.describe())).collect()
    }
}

fn malformed(error: whimbrel_codec::DecodeError) -> Stop {
    Stop::Failed(format!("the broker sent a packet that is not valid: {error}"))
}

fn answer(raw: &Raw) -> Outcome<Answer> {
    raw.packet().map(|packet| Answer::new(&packet)).map_err(malformed)
}

/// What a server may send, and the rules on it that hold in every state.
fn check_sender(raw: &Raw) -> Outcome {
    let packet = raw.packet().map_err(malformed)?;
    let wrong = match packet {
        Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq => {
            true
        }
        // [MQTT-3.14.2-2]
        Packet::Disconnect(disconnect) => {
            disconnect.properties.iter().any(|p| matches!(p, Property::SessionExpiryIntervalS(_)))
        }
        _ => false,
    };
    check(!wrong, &format!("no server may send {packet:?}"))
}
