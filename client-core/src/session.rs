//! What survives the network connection (section 4.1): identifiers and messages in flight.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use whimbrel_codec::{Ack, DecodeError, Packet, PacketId, QoS, ReasonCode, Version};
use whimbrel_protocol::IncomingIds;

/// Which acknowledgement an outgoing message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// PUBACK.
    Ack,
    /// PUBREC.
    Rec,
    /// PUBCOMP.
    Comp,
}

/// A QoS 1 or 2 message of the application that the server has not finished acknowledging.
struct Outgoing {
    packet_id: PacketId,
    stage: Stage,
    /// The PUBLISH as sent; empty once PUBREC has come.
    packet: Vec<u8>,
}

/// What a SUBSCRIBE or UNSUBSCRIBE waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// SUBACK with so many reason codes.
    Subscribe(usize),
    /// UNSUBACK with so many reason codes.
    Unsubscribe(usize),
}

/// What an acknowledgement leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Acked {
    /// The message is finished.
    Done,
    /// PUBREL is to be sent, with this reason.
    Release(ReasonCode),
    /// Nothing.
    Ignored,
}

/// The client's session state.
pub(crate) struct Session {
    next_id: PacketId,
    /// In the order of the application, which is the order of sending again `[MQTT-4.6.0-1]`.
    outgoing: VecDeque<Outgoing>,
    /// How many of `outgoing`, from the front, have been sent on this network connection.
    sent: usize,
    /// QoS 2 messages taken and not yet released: their repetitions are not new messages.
    incoming: IncomingIds,
    /// They end with the network connection; here because they share the identifiers.
    requests: BTreeMap<PacketId, Request>,
}

impl Session {
    pub(crate) const fn new() -> Session {
        Session {
            next_id: PacketId::MIN,
            outgoing: VecDeque::new(),
            sent: 0,
            incoming: IncomingIds::new(),
            requests: BTreeMap::new(),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.outgoing.len()
    }

    pub(crate) fn awaits_answers(&self) -> bool {
        !self.outgoing.is_empty() || !self.requests.is_empty()
    }

    /// A new network connection: nothing has been sent on it and no request survived.
    pub(crate) fn reconnect(&mut self) {
        self.sent = 0;
        self.requests.clear();
    }

    /// Forgets everything but the identifiers' position; how many messages were in flight.
    pub(crate) fn discard(&mut self) -> usize {
        let discarded = self.outgoing.len();
        self.outgoing.clear();
        self.incoming = IncomingIds::new();
        self.reconnect();
        discarded
    }

    /// An identifier that nothing in flight uses `[MQTT-2.2.1-3]`; none if all are used.
    pub(crate) fn new_packet_id(&mut self) -> Option<PacketId> {
        let in_use = self.outgoing.len() + self.requests.len();
        if in_use >= usize::from(u16::MAX) {
            return None;
        }
        let mut id = self.next_id;
        while self.requests.contains_key(&id) || self.outgoing.iter().any(|o| o.packet_id == id) {
            id = id.next();
        }
        self.next_id = id.next();
        Some(id)
    }

    pub(crate) fn push(&mut self, packet_id: PacketId, qos: QoS, packet: Vec<u8>) {
        let stage = if qos == QoS::ExactlyOnce { Stage::Rec } else { Stage::Ack };
        self.outgoing.push_back(Outgoing { packet_id, stage, packet });
    }

    /// Sends what may be sent: in order, at most `receive_maximum` unacknowledged
    /// `[MQTT-3.3.4-7]`. Nothing that is sent already is sent twice.
    pub(crate) fn transmit(&mut self, version: Version, receive_maximum: u16, out: &mut Vec<u8>) {
        while self.sent < usize::from(receive_maximum) {
            let Some(message) = self.outgoing.get_mut(self.sent) else { return };
            self.sent += 1;
            if message.stage == Stage::Comp {
                put_ack(out, version, Packet::PubRel(Ack::new(message.packet_id)));
                continue;
            }
            out.extend_from_slice(&message.packet);
            // [MQTT-3.3.1-1] DUP stands in every repetition, so in what the next sending copies.
            if let Some(first) = message.packet.first_mut() {
                *first |= 0x08;
            }
        }
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        self.outgoing.iter().take(self.sent).position(|o| o.packet_id == id)
    }

    fn finish(&mut self, index: usize) -> Acked {
        self.outgoing.remove(index);
        self.sent -= 1;
        Acked::Done
    }

    pub(crate) fn handle_puback(&mut self, ack: &Ack<'_>) -> Result<Acked, DecodeError> {
        match self.position(ack.packet_id).map(|i| (i, self.outgoing.get(i).map(|o| o.stage))) {
            Some((index, Some(Stage::Ack))) => Ok(self.finish(index)),
            Some(_) => Err(DecodeError::protocol("PUBACK for a QoS 2 message")),
            None => Ok(Acked::Ignored),
        }
    }

    pub(crate) fn handle_pubrec(&mut self, ack: &Ack<'_>) -> Result<Acked, DecodeError> {
        let Some(index) = self.position(ack.packet_id) else {
            if ack.reason.is_error() {
                return Ok(Acked::Ignored);
            }
            return Ok(Acked::Release(ReasonCode::PacketIdNotFound));
        };
        let Some(message) = self.outgoing.get_mut(index) else { return Ok(Acked::Ignored) };
        if message.stage == Stage::Ack {
            return Err(DecodeError::protocol("PUBREC for a QoS 1 message"));
        }
        // [MQTT-4.3.3-4] A refused message is not released.
        if ack.reason.is_error() {
            return Ok(self.finish(index));
        }
        message.stage = Stage::Comp;
        message.packet = Vec::new();
        Ok(Acked::Release(ReasonCode::Success))
    }

    pub(crate) fn handle_pubcomp(&mut self, ack: &Ack<'_>) -> Result<Acked, DecodeError> {
        match self.position(ack.packet_id).map(|i| (i, self.outgoing.get(i).map(|o| o.stage))) {
            Some((index, Some(Stage::Comp))) => Ok(self.finish(index)),
            Some(_) => Err(DecodeError::protocol("PUBCOMP for a message that was not released")),
            None => Ok(Acked::Ignored),
        }
    }

    /// True if the QoS 2 message is new `[MQTT-4.3.3-10]`.
    pub(crate) fn handle_publish_qos2(&mut self, id: PacketId) -> bool {
        self.incoming.receive(id)
    }

    /// True if the identifier was known `[MQTT-4.3.3-11]`.
    pub(crate) fn handle_pubrel(&mut self, id: PacketId) -> bool {
        self.incoming.release(id)
    }

    pub(crate) fn request(&mut self, id: PacketId, request: Request) {
        self.requests.insert(id, request);
    }

    /// Whether `answer` is what the identifier waits for.
    pub(crate) fn handle_answer(
        &mut self,
        id: PacketId,
        answer: Request,
    ) -> Result<(), DecodeError> {
        if self.requests.remove(&id) == Some(answer) {
            Ok(())
        } else {
            Err(DecodeError::protocol("a SUBACK or UNSUBACK that answers nothing"))
        }
    }
}

/// Acknowledgements of our own making fit every packet size and buffer, so encoding cannot fail.
pub(crate) fn put_ack(out: &mut Vec<u8>, version: Version, packet: Packet<'_>) {
    let encoded = packet.encode(version, out);
    debug_assert!(encoded.is_ok());
}
