//! The data types of section 1.5, read from and written to bytes.

use crate::{DecodeError, EncodeError, PacketId, ReasonCode};

type Decoded<T> = Result<T, DecodeError>;

/// Takes fields off the front of a packet's body.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

const NUL: DecodeError = DecodeError::malformed("a string contains U+0000");
pub(crate) const WILDCARD: DecodeError =
    DecodeError::new(ReasonCode::TopicNameInvalid, "a topic name contains a wildcard");
pub(crate) const LONG: DecodeError = DecodeError::malformed("bytes after the end of the packet");
const SHORT: DecodeError = DecodeError::malformed("the packet ends inside a field");

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The packet must end here.
    pub(crate) fn end(&self) -> Decoded<()> {
        if self.is_empty() { Ok(()) } else { Err(LONG) }
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.bytes)
    }

    pub(crate) fn take(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(SHORT)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Decoded<u8> {
        let (&first, rest) = self.bytes.split_first().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(first)
    }

    pub(crate) fn u16(&mut self) -> Decoded<u16> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(u16::from_be_bytes(*head))
    }

    pub(crate) fn u32(&mut self) -> Decoded<u32> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(u32::from_be_bytes(*head))
    }

    pub(crate) fn packet_id(&mut self) -> Decoded<PacketId> {
        // [MQTT-2.2.1-3] [MQTT-2.2.1-4]
        PacketId::new(self.u16()?).ok_or(DecodeError::protocol("packet identifier 0"))
    }

    pub(crate) fn binary(&mut self) -> Decoded<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }

    pub(crate) fn string(&mut self) -> Decoded<&'a str> {
        let text = self.utf8()?;
        // [MQTT-1.5.4-2]
        if text.as_bytes().contains(&0) {
            return Err(NUL);
        }
        Ok(text)
    }

    /// A string that is a topic name: without wildcards `[MQTT-3.3.2-2]`, perhaps empty.
    #[inline]
    pub(crate) fn topic_name(&mut self) -> Decoded<&'a str> {
        let text = self.utf8()?;
        // One pass over what comes with every PUBLISH.
        if text.bytes().any(|byte| matches!(byte, 0 | b'+' | b'#')) {
            return Err(if text.as_bytes().contains(&0) { NUL } else { WILDCARD });
        }
        Ok(text)
    }

    #[inline]
    fn utf8(&mut self) -> Decoded<&'a str> {
        // [MQTT-1.5.4-1] Surrogates are not valid UTF-8 either.
        core::str::from_utf8(self.binary()?)
            .map_err(|_| DecodeError::malformed("a string is not UTF-8"))
    }

    pub(crate) fn variable_byte_integer(&mut self) -> Decoded<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // [MQTT-1.5.5-1] The encoding must be the shortest.
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::malformed("a variable byte integer is overlong"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::malformed("a variable byte integer has more than four bytes"))
    }
}

/// Where a packet is encoded to.
pub trait Sink {
    /// Appends `bytes`, or fails with [`EncodeError::NoRoom`].
    fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError>;
}

#[cfg(any(feature = "alloc", test))]
impl Sink for alloc::vec::Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// A caller's slice, filled from the front.
pub struct SliceSink<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> SliceSink<'a> {
    /// Nothing written yet.
    pub fn new(bytes: &'a mut [u8]) -> SliceSink<'a> {
        SliceSink { bytes, len: 0 }
    }

    /// What has been written.
    pub fn written(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Sink for SliceSink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end).ok_or(EncodeError::NoRoom)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}

/// Counts instead of writing, so that lengths come from the code that writes.
#[derive(Default)]
pub(crate) struct Counter(pub(crate) usize);

impl Sink for Counter {
    fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(())
    }
}

pub(crate) fn put_binary(sink: &mut impl Sink, bytes: &[u8]) -> Result<(), EncodeError> {
    let len = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong)?;
    sink.put(&len.to_be_bytes())?;
    sink.put(bytes)
}

/// How many bytes `value` takes as a variable byte integer: 1 to 4.
pub const fn variable_byte_integer_len(value: u32) -> usize {
    match value {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    }
}

/// Writes `value` in the shortest form `[MQTT-1.5.5-1]`; too large a value fails.
pub fn write_variable_byte_integer(sink: &mut impl Sink, value: u32) -> Result<(), EncodeError> {
    if value > crate::MAX_REMAINING_LENGTH {
        return Err(EncodeError::PacketTooLong);
    }
    let mut bytes = [0; 4];
    let mut rest = value;
    let mut len = 0;
    for byte in &mut bytes {
        *byte = (rest & 0x7f) as u8 | if rest > 0x7f { 0x80 } else { 0 };
        rest >>= 7;
        len += 1;
        if rest == 0 {
            break;
        }
    }
    sink.put(bytes.get(..len).unwrap_or_default())
}
