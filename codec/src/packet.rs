//! Any packet: the one way in and the one way out.

use crate::wire::{Counter, LONG};
use crate::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, EncodeError, Frame, PacketType, Publish,
    Sink, SubAck, Subscribe, UnsubAck, Unsubscribe, Version, write_variable_byte_integer,
};

/// An MQTT control packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes the packet that stands at the start of `bytes`, as `frame` describes it.
    ///
    /// `bytes` may go on after the packet; shorter than the packet, it is malformed. `version` is
    /// the connection's; a CONNECT brings its own.
    #[inline]
    pub fn decode(
        version: Version,
        frame: &Frame,
        bytes: &'a [u8],
    ) -> Result<Packet<'a>, DecodeError> {
        let body = body(frame, bytes)?;
        let packet_type = frame.packet_type;
        if packet_type != PacketType::Connect {
            frame.check(version)?;
        }
        let ack = |body| Ack::decode(version, packet_type, body);
        Ok(match packet_type {
            PacketType::Publish => Packet::Publish(Publish::decode(version, frame.flags, body)?),
            PacketType::PubAck => Packet::PubAck(ack(body)?),
            PacketType::PubRec => Packet::PubRec(ack(body)?),
            PacketType::PubRel => Packet::PubRel(ack(body)?),
            PacketType::PubComp => Packet::PubComp(ack(body)?),
            PacketType::Connect => {
                let connect = Connect::decode(body)?;
                frame.check(connect.version)?;
                Packet::Connect(connect)
            }
            PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(version, body)?),
            PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(version, body)?),
            PacketType::SubAck => Packet::SubAck(SubAck::decode(version, body)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(version, body)?),
            PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::decode(version, body)?),
            PacketType::PingReq => empty(body, Packet::PingReq)?,
            PacketType::PingResp => empty(body, Packet::PingResp)?,
            PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(version, body)?),
            PacketType::Auth => Packet::Auth(Auth::decode(version, body)?),
        })
    }

    /// [`Packet::decode`] for a frame that is a PUBLISH: the packet that comes most often needs no
    /// room for all the others.
    #[inline]
    pub fn decode_publish(
        version: Version,
        frame: &Frame,
        bytes: &'a [u8],
    ) -> Result<Publish<'a>, DecodeError> {
        debug_assert_eq!(frame.packet_type, PacketType::Publish);
        let body = body(frame, bytes)?;
        frame.check(version)?;
        Publish::decode(version, frame.flags, body)
    }

    /// The type in the fixed header.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet's bytes to `sink`. `version` is the connection's; a CONNECT uses its own.
    ///
    /// Nothing is written when the packet itself is at fault; [`EncodeError::NoRoom`] may leave a
    /// part of it in a slice. Rules on contents (no U+0000, no wildcard in a topic name, at least
    /// one filter) are the caller's to keep: a packet that breaks them is written as it is.
    pub fn encode(&self, version: Version, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let len = self.remaining_len(version)?;
        let packet_type = self.packet_type();
        let flags = match self {
            Packet::Publish(publish) => publish.flags(),
            // 3.1 marks a repeated PUBREL with DUP; as a first sending it never is.
            _ => packet_type.flags(),
        };
        sink.put(&[(packet_type as u8) << 4 | flags])?;
        write_variable_byte_integer(sink, len)?;
        self.body(version, sink)
    }

    /// Length of the whole packet, fixed header included, in bytes.
    pub fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        let len = self.remaining_len(version)?;
        Ok(1 + crate::variable_byte_integer_len(len) + len as usize)
    }

    fn remaining_len(&self, version: Version) -> Result<u32, EncodeError> {
        let mut counter = Counter::default();
        self.body(version, &mut counter)?;
        u32::try_from(counter.0)
            .ok()
            .filter(|&len| len <= crate::MAX_REMAINING_LENGTH)
            .ok_or(EncodeError::PacketTooLong)
    }

    fn body(&self, version: Version, sink: &mut impl Sink) -> Result<(), EncodeError> {
        match self {
            Packet::Connect(p) => p.encode_body(sink),
            Packet::ConnAck(p) => p.encode_body(version, sink),
            Packet::Publish(p) => p.encode_body(version, sink),
            Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
                p.encode_body(version, sink)
            }
            Packet::Subscribe(p) => p.encode_body(version, sink),
            Packet::SubAck(p) => p.encode_body(version, sink),
            Packet::Unsubscribe(p) => p.encode_body(version, sink),
            Packet::UnsubAck(p) => p.encode_body(version, sink),
            Packet::PingReq | Packet::PingResp => Ok(()),
            Packet::Disconnect(p) => p.encode_body(version, sink),
            Packet::Auth(p) => p.encode_body(version, sink),
        }
    }
}

#[inline]
fn body<'a>(frame: &Frame, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    bytes
        .get(frame.header_len..frame.packet_len())
        .ok_or(DecodeError::malformed("the packet ends inside a field"))
}

fn empty<'a>(body: &[u8], packet: Packet<'a>) -> Result<Packet<'a>, DecodeError> {
    if body.is_empty() { Ok(packet) } else { Err(LONG) }
}
