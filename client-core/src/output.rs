//! What is to be written to the server, under two limits: that of the application, above which no
//! more is taken in, and that of the memory.

use whimbrel_codec::{Packet, PacketId, PacketType, ReasonCode, SliceSink, Version};

use crate::Error;
use crate::buffer::Buffer;
use crate::form::Form;

/// Kept free in lent memory for what must be answered, in bytes.
pub(crate) const ANSWER_ROOM: usize = 16;

pub(crate) struct Output<'m> {
    buffer: Buffer<'m>,
    /// Pending bytes above which the application gets no more in.
    max_pending: usize,
    /// Above which no answer to the server does: more, so that a server that waits to be read from
    /// is read from although it does not read what the application has to say.
    max_answers: usize,
}

impl<'m> Output<'m> {
    pub(crate) const fn new(buffer: Buffer<'m>, max_answers: usize) -> Output<'m> {
        let room = buffer.max().saturating_sub(ANSWER_ROOM);
        let half = max_answers / 2;
        let max_pending = if room < half { room } else { half };
        let max_answers = if room < max_answers { room } else { max_answers };
        Output { buffer, max_pending, max_answers }
    }

    /// Bytes that the driver has not written.
    #[inline]
    pub(crate) fn pending(&self) -> &[u8] {
        self.buffer.bytes()
    }

    /// Whether more may be added: below the limit, and with room for an answer.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.buffer.len() < self.max_pending
    }

    /// Whether what the server sends may be answered.
    #[inline]
    pub(crate) fn has_answer_room(&self) -> bool {
        self.buffer.len() < self.max_answers
    }

    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
    }

    pub(crate) fn shrink(&mut self) {
        self.buffer.shrink();
    }

    #[inline]
    pub(crate) fn handle_transmitted(&mut self, len: usize) {
        self.buffer.consume(len);
        self.buffer.reset();
    }

    /// Room for a packet beside that for answers.
    #[inline]
    pub(crate) fn reserve(&mut self, len: usize) -> Result<(), Error> {
        if len > self.buffer.max().saturating_sub(ANSWER_ROOM) {
            return Err(Error::PacketTooLarge);
        }
        let room = self.buffer.max() - self.buffer.len();
        if room < len.saturating_add(ANSWER_ROOM) || !self.buffer.reserve(len) {
            return Err(Error::Full);
        }
        Ok(())
    }

    /// Whether a packet of this length can ever be sent.
    pub(crate) fn is_large_enough(&self, len: usize) -> bool {
        len <= self.buffer.max().saturating_sub(ANSWER_ROOM)
    }

    /// A packet of `len` bytes, or nothing of it.
    pub(crate) fn put_packet(
        &mut self,
        version: Version,
        packet: &Packet<'_>,
        len: usize,
    ) -> Result<(), Error> {
        self.reserve(len)?;
        packet.encode(version, &mut SliceSink::new(self.buffer.space()))?;
        self.buffer.advance(len);
        Ok(())
    }

    #[inline]
    pub(crate) fn put_publish(&mut self, form: &Form<'_>) -> Result<(), Error> {
        self.reserve(form.len())?;
        form.write(self.buffer.space())?;
        self.buffer.advance(form.len());
        Ok(())
    }

    /// False if there is no room now.
    #[inline]
    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) -> bool {
        self.reserve(bytes.len()).is_ok() && self.buffer.push(bytes) == bytes.len()
    }

    /// An acknowledgement; the reason is one that says success before 5.0. There is room for it
    /// while [`Output::has_answer_room`].
    #[inline]
    pub(crate) fn put_ack(&mut self, packet_type: PacketType, id: PacketId, reason: ReasonCode) {
        let flags = if packet_type == PacketType::PubRel { 2 } else { 0 };
        let first = (packet_type as u8) << 4 | flags;
        let [high, low] = id.get().to_be_bytes();
        if reason == ReasonCode::Success {
            self.put_answer(&[first, 2, high, low]);
        } else {
            self.put_answer(&[first, 3, high, low, reason as u8]);
        }
    }

    /// PINGREQ, or DISCONNECT with a reason: there is room for it.
    pub(crate) fn put_answer(&mut self, bytes: &[u8]) {
        let put = self.buffer.push(bytes);
        debug_assert_eq!(put, bytes.len());
    }
}
