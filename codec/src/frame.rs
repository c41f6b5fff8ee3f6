//! The fixed header (section 2.1).

use crate::{DecodeError, MAX_REMAINING_LENGTH, ReasonCode, Version, variable_byte_integer_len};

/// The control packet types of section 2.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    const fn from_u8(value: u8) -> Option<PacketType> {
        Some(match value {
            1 => PacketType::Connect,
            2 => PacketType::ConnAck,
            3 => PacketType::Publish,
            4 => PacketType::PubAck,
            5 => PacketType::PubRec,
            6 => PacketType::PubRel,
            7 => PacketType::PubComp,
            8 => PacketType::Subscribe,
            9 => PacketType::SubAck,
            10 => PacketType::Unsubscribe,
            11 => PacketType::UnsubAck,
            12 => PacketType::PingReq,
            13 => PacketType::PingResp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => return None,
        })
    }

    /// The flag that 3.1 allows besides those of [`PacketType::flags`].
    const fn dup(self) -> u8 {
        match self {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 8,
            _ => 0,
        }
    }

    /// The flags that the fixed header must carry; PUBLISH has its own.
    pub(crate) const fn flags(self) -> u8 {
        match self {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 2,
            _ => 0,
        }
    }
}

/// A packet's fixed header, and with it the packet's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type in the upper half of the first byte.
    pub packet_type: PacketType,
    /// The lower half of the first byte.
    pub flags: u8,
    /// Length of the fixed header, in bytes: 2 to 5.
    pub header_len: usize,
    /// The remaining length, in bytes.
    pub remaining_len: usize,
}

impl Frame {
    /// Reads the fixed header at the start of `bytes`; none while it is incomplete.
    ///
    /// A packet longer than `max_packet_size` (fixed header included) fails as soon as its length
    /// is known, before its body arrives. What only some versions allow is accepted here and
    /// checked by [`Packet::decode`](crate::Packet::decode), because the version of a CONNECT
    /// stands behind its fixed header.
    #[inline]
    pub fn parse(bytes: &[u8], max_packet_size: u32) -> Result<Option<Frame>, DecodeError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let flags = first & 0x0f;
        let packet_type =
            PacketType::from_u8(first >> 4).ok_or(DecodeError::malformed("packet type 0"))?;
        // [MQTT-2.1.3-1] Reserved flags with another value make the packet malformed.
        if packet_type != PacketType::Publish && flags & !packet_type.dup() != packet_type.flags() {
            return Err(DecodeError::malformed("reserved flags of the fixed header"));
        }
        let mut remaining_len = 0;
        for (index, shift) in [0, 7, 14, 21].into_iter().enumerate() {
            let Some(&byte) = bytes.get(1 + index) else { return Ok(None) };
            remaining_len |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let header_len = 2 + index;
                if u64::from(remaining_len) + header_len as u64 > u64::from(max_packet_size) {
                    return Err(DecodeError::new(
                        ReasonCode::PacketTooLarge,
                        "the packet is larger than the maximum packet size",
                    ));
                }
                let remaining_len = remaining_len as usize;
                return Ok(Some(Frame { packet_type, flags, header_len, remaining_len }));
            }
        }
        debug_assert!(remaining_len <= MAX_REMAINING_LENGTH);
        Err(DecodeError::malformed("the remaining length has more than four bytes"))
    }

    /// The rules on the fixed header that differ between the versions.
    #[inline]
    pub(crate) fn check(&self, version: Version) -> Result<(), DecodeError> {
        // [MQTT-1.5.5-1] The shortest form is a rule of 5.0 only (section 2.2.3 of 3.1.1).
        if version.is_v5()
            && self.header_len != 1 + variable_byte_integer_len(self.remaining_len as u32)
        {
            return Err(DecodeError::malformed("the remaining length is overlong"));
        }
        // [MQTT-2.1.3-1] 3.1 sets DUP when it sends PUBREL, SUBSCRIBE or UNSUBSCRIBE again.
        if version != Version::V3_1 && self.flags & self.packet_type.dup() != 0 {
            return Err(DecodeError::malformed("reserved flags of the fixed header"));
        }
        Ok(())
    }

    /// Length of the whole packet, in bytes.
    pub const fn packet_len(&self) -> usize {
        self.header_len + self.remaining_len
    }
}
