//! Fields of records: varints, text, entries, wills.

use whimbrel_codec::{PacketId, QoS};

use crate::{Entry, Position, SessionKey, Stored, WillRecord};

/// The lowest bits of the flags that hold a QoS.
pub(crate) const QOS_BITS: u8 = 0b11;

/// An entry whose position may be in this batch.
pub(crate) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    let stored = entry.stored;
    if stored.position.writer().is_none() {
        return entry.encode(Position(0), out);
    }
    let position = Position(stored.position.offset());
    let entry = Entry { stored: Stored { position, ..stored }, ..entry.clone() };
    entry.encode(Position(0), out);
}

pub(crate) fn put_stored(out: &mut Vec<u8>, stored: Stored) {
    let position = match stored.position.writer() {
        Some(_) => stored.position.offset(),
        None => stored.position.0,
    };
    put_varint(out, position);
    put_varint(out, stored.len.into());
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_will(out: &mut Vec<u8>, will: Option<&WillRecord<'_>>) {
    let Some(will) = will else { return out.push(0) };
    let flags = (will.qos as u8) << 1 | u8::from(will.retain) << 3;
    out.push(1 | flags | u8::from(will.expiry_s.is_some()) << 4);
    put_text(out, will.topic);
    put_bytes(out, will.properties);
    put_bytes(out, will.payload);
    put_varint(out, will.delay_s.into());
    if let Some(expiry_s) = will.expiry_s {
        put_varint(out, expiry_s.into());
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Reads fields from the front of bytes; nothing is assumed of them.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn key(&mut self) -> Option<SessionKey> {
        self.varint().filter(|&key| key != 0).map(SessionKey)
    }

    pub(crate) fn packet_id(&mut self) -> Option<PacketId> {
        PacketId::new(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A group, one more than its key; 0: none.
    pub(crate) fn group(&mut self) -> Option<Option<u32>> {
        match self.varint()? {
            0 => Some(None),
            n => Some(Some(u32::try_from(n - 1).ok()?)),
        }
    }

    pub(crate) fn stored(&mut self) -> Option<Stored> {
        // One of a batch that was not committed is never written.
        let position = Some(Position(self.varint()?)).filter(|at| at.writer().is_none())?;
        Some(Stored { position, len: self.varint_u32()? })
    }

    pub(crate) fn will(&mut self) -> Option<Option<WillRecord<'a>>> {
        let flags = self.byte()?;
        if flags == 0 {
            return Some(None);
        }
        if flags & 1 == 0 || flags >> 5 != 0 {
            return None;
        }
        Some(Some(WillRecord {
            topic: self.text()?,
            properties: self.bytes()?,
            payload: self.bytes()?,
            qos: QoS::from_u8(flags >> 1 & QOS_BITS)?,
            retain: flags & 8 != 0,
            delay_s: self.varint_u32()?,
            expiry_s: if flags & 16 != 0 { Some(self.varint_u32()?) } else { None },
        }))
    }
}
