//! Messages as bytes: what is read alone, long after it was written (`format.md`, "Records").

use whimbrel_codec::QoS;

use crate::fields::{QOS_BITS, Reader};
use crate::layout::u32_at;
use crate::{Position, WallMs};

/// Bytes of a message record before topic, properties and payload.
pub const MESSAGE_HEADER_BYTES: usize = 32;

/// Where a message's body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stored {
    /// Of its record.
    pub position: Position,
    /// Of its record, in bytes.
    pub len: u32,
}

const HERE: u64 = 1 << 63;
const OFFSET_BITS: u32 = 40;

impl Position {
    /// In the batch that `writer` is just filling, this far from its base.
    pub const fn here(writer: u16, offset: u32) -> Position {
        Position(HERE | (writer as u64) << OFFSET_BITS | offset as u64)
    }

    /// Whose batch it is in, if that has not been committed.
    pub const fn writer(self) -> Option<u16> {
        if self.0 & HERE == 0 { None } else { Some(((self.0 & !HERE) >> OFFSET_BITS) as u16) }
    }

    /// The place in the log, now that the batch begins at `base`.
    pub const fn settled(self, base: Position) -> Position {
        match self.writer() {
            Some(_) => Position(base.0 + self.offset()),
            None => self,
        }
    }

    pub(crate) const fn offset(self) -> u64 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }
}

impl Stored {
    /// Length of the record of a message with such parts.
    pub const fn len_of(topic: usize, properties: usize, payload: usize) -> u32 {
        // A packet has at most 256 MiB.
        (MESSAGE_HEADER_BYTES + topic + properties + payload) as u32
    }
}

/// A message's body and what belongs to it wherever it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRecord<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Properties to forward, as on the wire.
    pub properties: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
    /// As published.
    pub qos: QoS,
    /// When it is no longer to be delivered.
    pub expires: Option<WallMs>,
    /// It is its topic's retained message from now on; the number tells which of two is later.
    pub retained: Option<u64>,
}

/// The first byte of its record.
pub(crate) const MESSAGE: u8 = 1;

const EXPIRES: u8 = 1 << 2;
const IS_RETAINED: u8 = 1 << 3;

impl MessageRecord<'_> {
    /// Bytes of its record, which is never empty.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u32 {
        Stored::len_of(self.topic.len(), self.properties.len(), self.payload.len())
    }

    /// Appends its record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut flags = self.qos as u8;
        flags |= if self.expires.is_some() { EXPIRES } else { 0 };
        flags |= if self.retained.is_some() { IS_RETAINED } else { 0 };
        let mut header = [0; MESSAGE_HEADER_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(place) = header.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
            at += bytes.len();
        };
        put(&[MESSAGE, flags]);
        put(&(self.topic.len() as u16).to_le_bytes());
        put(&(self.properties.len() as u32).to_le_bytes());
        put(&(self.payload.len() as u32).to_le_bytes());
        put(&self.expires.map_or(0, |at| at.0).to_le_bytes());
        put(&self.retained.unwrap_or(0).to_le_bytes());
        out.reserve(self.len() as usize);
        out.extend_from_slice(&header);
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(self.properties);
        out.extend_from_slice(self.payload);
        let crc = checksum(out.get(start..).unwrap_or_default());
        if let Some(place) =
            out.get_mut(start + MESSAGE_HEADER_BYTES - 4..start + MESSAGE_HEADER_BYTES)
        {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Reads the record at the start of `bytes` and verifies its checksum; gives its length too.
    pub fn decode(bytes: &[u8]) -> Result<(MessageRecord<'_>, usize), &'static str> {
        let (record, total) = MessageRecord::parse(bytes)?;
        let crc = u32_at(bytes, MESSAGE_HEADER_BYTES - 4);
        if checksum(bytes.get(..total).unwrap_or_default()) != crc {
            return Err("the message's checksum is wrong");
        }
        Ok((record, total))
    }

    /// Reads the record at the start of `bytes`, which are known to be what was written.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(MessageRecord<'_>, usize), &'static str> {
        const SHORT: &str = "the message is cut short";
        let (header, rest) = bytes.split_at_checked(MESSAGE_HEADER_BYTES).ok_or(SHORT)?;
        let mut reader = Reader::new(header);
        let fields = (|| {
            let (tag, flags) = (reader.byte()?, reader.byte()?);
            let topic = u16::from_le_bytes(reader.array()?);
            let properties = u32::from_le_bytes(reader.array()?);
            let payload = u32::from_le_bytes(reader.array()?);
            let expires = u64::from_le_bytes(reader.array()?);
            let retained = u64::from_le_bytes(reader.array()?);
            Some((tag, flags, topic, properties, payload, expires, retained))
        })();
        let (tag, flags, topic, properties, payload, expires, retained) = fields.ok_or(SHORT)?;
        if tag != MESSAGE {
            return Err("there is no message");
        }
        let (topic, properties) = (usize::from(topic), properties as usize);
        let len = topic.checked_add(properties).and_then(|n| n.checked_add(payload as usize));
        let body = len.and_then(|len| rest.get(..len)).ok_or(SHORT)?;
        let total = MESSAGE_HEADER_BYTES + body.len();
        let (topic, rest) = body.split_at(topic);
        let (properties, payload) = rest.split_at(properties);
        let record = MessageRecord {
            topic: std::str::from_utf8(topic).map_err(|_| "the topic is not UTF-8")?,
            properties,
            payload,
            qos: QoS::from_u8(flags & QOS_BITS).ok_or("there is no such QoS")?,
            expires: (flags & EXPIRES != 0).then_some(WallMs(expires)),
            retained: (flags & IS_RETAINED != 0).then_some(retained),
        };
        Ok((record, total))
    }
}

/// CRC-32 of a message record, as if its own place were zero.
fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(record.get(..MESSAGE_HEADER_BYTES - 4).unwrap_or_default());
    hasher.update(record.get(MESSAGE_HEADER_BYTES..).unwrap_or_default());
    hasher.finalize()
}

/// A message's record, read back and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageBody(Box<[u8]>);

impl MessageBody {
    /// Verifies that `bytes` are a message's record.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(bytes: Box<[u8]>) -> Result<MessageBody, &'static str> {
        match MessageRecord::decode(&bytes)? {
            (_, len) if len == bytes.len() => Ok(MessageBody(bytes)),
            _ => Err("the message has another length"),
        }
    }

    /// The record's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The message.
    pub fn record(&self) -> MessageRecord<'_> {
        // It was verified when it was made; nothing stands for "nothing" here.
        const NOTHING: MessageRecord<'_> = MessageRecord {
            topic: "",
            properties: &[],
            payload: &[],
            qos: QoS::AtMostOnce,
            expires: None,
            retained: None,
        };
        MessageRecord::parse(&self.0).map_or(NOTHING, |(record, _)| record)
    }
}
