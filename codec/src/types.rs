//! The small types that all packets share.

use core::fmt;
use core::num::NonZeroU16;

use crate::ReasonCode;

/// The protocol version of a network connection, fixed by its CONNECT packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1, protocol name `MQIsdp`, level 3.
    V3_1 = 3,
    /// MQTT 3.1.1, protocol name `MQTT`, level 4.
    V3_1_1 = 4,
    /// MQTT 5.0, protocol name `MQTT`, level 5.
    V5 = 5,
}

impl Version {
    /// True for 5.0, the only version with properties and reason codes in every packet.
    pub const fn is_v5(self) -> bool {
        matches!(self, Version::V5)
    }
}

/// Quality of service (section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// 0: sent once, never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// 1: sent until acknowledged by PUBACK.
    AtLeastOnce = 1,
    /// 2: the four-packet handshake.
    ExactlyOnce = 2,
}

impl QoS {
    /// 0, 1 or 2; anything else is none.
    pub const fn from_u8(value: u8) -> Option<QoS> {
        match value {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet identifier: never 0 `[MQTT-2.2.1-3]`, `[MQTT-2.2.1-4]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The first identifier that a fresh session gives away.
    pub const MIN: PacketId = PacketId(NonZeroU16::MIN);

    /// None for 0.
    pub const fn new(value: u16) -> Option<PacketId> {
        match NonZeroU16::new(value) {
            Some(id) => Some(PacketId(id)),
            None => None,
        }
    }

    /// The number as it stands on the wire.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The identifier after this one, with 1 after 65,535.
    pub const fn next(self) -> PacketId {
        match NonZeroU16::new(self.0.get().wrapping_add(1)) {
            Some(id) => PacketId(id),
            None => PacketId::MIN,
        }
    }
}

/// Why bytes are not a packet. The peer that sent them is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What to tell a 5.0 peer before closing (section 4.13).
    pub reason: ReasonCode,
    /// What is wrong, for a log or a reason string.
    pub what: &'static str,
}

impl DecodeError {
    /// The bytes cannot be parsed.
    pub const fn malformed(what: &'static str) -> DecodeError {
        DecodeError { reason: ReasonCode::MalformedPacket, what }
    }

    /// The bytes can be parsed and break a rule.
    pub const fn protocol(what: &'static str) -> DecodeError {
        DecodeError { reason: ReasonCode::ProtocolError, what }
    }

    pub(crate) const fn new(reason: ReasonCode, what: &'static str) -> DecodeError {
        DecodeError { reason, what }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.what)
    }
}

impl core::error::Error for DecodeError {}

/// Why a packet cannot be encoded. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    FieldTooLong,
    /// The packet is longer than the protocol allows (268,435,455 bytes after the fixed header).
    PacketTooLong,
    /// The slice to encode to is too short.
    NoRoom,
    /// QoS above 0 without a packet identifier.
    NoPacketId,
    /// A number is larger than its field can carry: a subscription identifier above 268,435,455.
    NumberTooLarge,
    /// This version of the protocol has no such packet: an AUTH, or a CONNECT with a password and
    /// no user name, before 5.0.
    NotInVersion,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodeError::FieldTooLong => "a field is longer than 65,535 bytes",
            EncodeError::PacketTooLong => "the packet is longer than the protocol allows",
            EncodeError::NoRoom => "the buffer is too short for the packet",
            EncodeError::NoPacketId => "QoS 1 and 2 need a packet identifier",
            EncodeError::NumberTooLarge => "a number is larger than its field can carry",
            EncodeError::NotInVersion => "the protocol version has no such packet",
        })
    }
}

impl core::error::Error for EncodeError {}
