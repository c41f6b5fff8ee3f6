//! What survives the network connection (section 4.1): identifiers and messages in flight.

use whimbrel_codec::{Ack, DecodeError, PacketId, PacketType, QoS, ReasonCode, Version};
use whimbrel_protocol::{InFlight, IncomingIdsIn, OutgoingIn};

use crate::Error;
use crate::arena::{Arena, Block};
use crate::form::Form;
use crate::output::Output;
use crate::storage::Queue;

/// What is kept of something in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A PUBLISH, with its full topic, in the arena.
    Publish(Block),
    /// A SUBSCRIBE that so many reason codes answer.
    Subscribe(u32),
    /// An UNSUBSCRIBE that so many reason codes answer.
    Unsubscribe(u32),
}

/// A packet identifier in use, or none: for [`Memory`](crate::Memory).
pub type OutgoingSlot = Option<InFlight<Kept>>;

/// What an acknowledgement leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Acked {
    /// The message is finished.
    Done,
    /// PUBREC for the first time: PUBREL is to be sent.
    Release,
    /// PUBREC once more, or for nothing known: PUBREL is to be sent, with this reason.
    ReleaseAgain(ReasonCode),
    /// Nothing.
    Ignored,
}

/// The client's session state.
pub(crate) struct Session<'m> {
    /// In which the packets of the arena are encoded.
    pub(crate) version: Version,
    /// Messages in the order of the application, which is the order of sending again
    /// `[MQTT-4.6.0-1]`; and SUBSCRIBE and UNSUBSCRIBE, which share the identifiers and end with
    /// the network connection.
    outgoing: OutgoingIn<Kept, Queue<'m, OutgoingSlot>>,
    arena: Arena<'m>,
    /// How many of `outgoing` are SUBSCRIBE and UNSUBSCRIBE.
    requests: u16,
    /// How many identifiers, from the newest back, have not been sent on this connection.
    unsent: usize,
    /// Messages sent on this connection and not acknowledged to the end.
    sent: u16,
    /// QoS 2 messages taken and not yet released: their repetitions are not new messages.
    incoming: IncomingIdsIn<Queue<'m, u16>>,
    max_incoming: usize,
}

impl<'m> Session<'m> {
    pub(crate) const fn new(
        slots: Queue<'m, OutgoingSlot>,
        arena: Arena<'m>,
        incoming: Queue<'m, u16>,
    ) -> Session<'m> {
        Session {
            version: Version::V5,
            outgoing: OutgoingIn::new(slots),
            arena,
            requests: 0,
            unsent: 0,
            sent: 0,
            max_incoming: incoming.max(),
            incoming: IncomingIdsIn::new(incoming),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        usize::from(self.outgoing.in_flight() - self.requests)
    }

    /// Whether packets are kept in another version than this one.
    pub(crate) fn is_of_other(&self, version: Version) -> bool {
        !self.arena.is_empty() && self.version != version
    }

    pub(crate) fn awaits_answers(&self) -> bool {
        self.outgoing.in_flight() > 0
    }

    /// A new network connection: nothing has been sent on it and no request survived.
    pub(crate) fn reconnect(&mut self) {
        if self.requests > 0 {
            self.outgoing.retain(is_message);
            self.requests = 0;
        }
        self.unsent = self.outgoing.span();
        self.sent = 0;
    }

    /// Forgets everything but the identifiers' position; how many messages were in flight.
    pub(crate) fn discard(&mut self) -> usize {
        let discarded = self.in_flight();
        self.outgoing.clear();
        self.arena.clear();
        self.incoming.clear();
        self.requests = 0;
        self.unsent = 0;
        self.sent = 0;
        discarded
    }

    /// Gives memory back that holds nothing.
    pub(crate) fn shrink(&mut self) {
        self.outgoing.shrink();
        self.incoming.shrink();
        self.arena.shrink();
    }

    /// The identifier of the next request or message: nothing in flight uses it
    /// `[MQTT-2.2.1-3]`. Full while there is none.
    pub(crate) fn next_id(&self) -> Result<PacketId, Error> {
        if !self.outgoing.has_room(u16::MAX) {
            return Err(Error::Full);
        }
        Ok(self.outgoing.next_id())
    }

    /// A SUBSCRIBE or UNSUBSCRIBE is on its way with [`Session::next_id`].
    pub(crate) fn begin_request(&mut self, request: Kept) -> PacketId {
        self.requests += 1;
        self.begin(QoS::AtLeastOnce, request, self.unsent == 0)
    }

    /// Keeps a message with [`Session::next_id`].
    #[inline]
    pub(crate) fn keep(&mut self, form: &Form<'_>) -> Result<Block, Error> {
        let block = self.place(form.len())?;
        if let Err(error) = form.write(self.arena.get_mut(block)) {
            self.arena.free(block);
            return Err(error.into());
        }
        Ok(block)
    }

    fn place(&mut self, len: usize) -> Result<Block, Error> {
        if !self.arena.is_large_enough(len) {
            return Err(Error::PacketTooLarge);
        }
        if let Some(block) = self.arena.place(len) {
            return Ok(block);
        }
        let Session { arena, outgoing, .. } = self;
        arena.make_room(len, outgoing.iter_mut().filter_map(block_mut));
        arena.place(len).ok_or(Error::Full)
    }

    pub(crate) fn packet(&self, block: Block) -> &[u8] {
        self.arena.get(block)
    }

    /// A message that was placed is not to be kept after all.
    pub(crate) fn unplace(&mut self, block: Block) {
        self.arena.free(block);
    }

    /// A message is in flight; `sent` says whether it is on its way already.
    pub(crate) fn begin_message(&mut self, qos: QoS, block: Block, sent: bool) -> PacketId {
        if sent {
            self.sent += 1;
            mark_dup(self.arena.get_mut(block));
        }
        self.begin(qos, Kept::Publish(block), sent)
    }

    fn begin(&mut self, qos: QoS, kept: Kept, sent: bool) -> PacketId {
        if !sent {
            self.unsent += 1;
        }
        self.outgoing.begin(qos, kept)
    }

    /// Whether a new message may be sent at once: none waits, and at most `receive_maximum` are
    /// unacknowledged `[MQTT-3.3.4-7]`.
    pub(crate) fn may_send(&self, receive_maximum: u16) -> bool {
        self.unsent == 0 && self.sent < receive_maximum
    }

    /// Sends what may be sent: in order, at most `receive_maximum` unacknowledged
    /// `[MQTT-3.3.4-7]`, and as long as there is room. Nothing is sent twice on a connection.
    #[inline]
    pub(crate) fn transmit(&mut self, receive_maximum: u16, output: &mut Output<'_>) {
        while self.unsent > 0 && self.sent < receive_maximum && output.has_room() {
            if !self.transmit_one(output) {
                return;
            }
        }
    }

    /// False if it does not fit the output now.
    fn transmit_one(&mut self, output: &mut Output<'_>) -> bool {
        // Identifiers may have left at the front that were never sent: answered requests.
        self.unsent = self.unsent.min(self.outgoing.span());
        let Some(place) = self.outgoing.span().checked_sub(self.unsent) else { return false };
        match self.outgoing.at(place) {
            Some((id, InFlight::Released)) => {
                output.put_ack(PacketType::PubRel, id, ReasonCode::Success);
                self.sent += 1;
            }
            Some((_, &(InFlight::Published(kept) | InFlight::PublishedOnce(kept)))) => {
                if let Kept::Publish(block) = kept {
                    if !output.put_bytes(self.arena.get(block)) {
                        return false;
                    }
                    mark_dup(self.arena.get_mut(block));
                    self.sent += 1;
                }
            }
            None => {}
        }
        self.unsent = self.unsent.saturating_sub(1);
        true
    }

    /// What waits under this identifier; a message that was not sent on this connection cannot
    /// have been answered.
    #[inline]
    fn waiting(&self, id: PacketId) -> Option<InFlight<Kept>> {
        let place = self.outgoing.place(id);
        let (_, waiting) = self.outgoing.at(place)?;
        let sent = place + self.unsent < self.outgoing.span();
        (sent || !is_message(waiting)).then_some(*waiting)
    }

    fn finish(&mut self, block: Option<Block>) -> Acked {
        if let Some(block) = block {
            self.arena.free(block);
        }
        self.sent -= 1;
        Acked::Done
    }

    #[inline]
    pub(crate) fn handle_puback(&mut self, id: PacketId) -> Result<Acked, DecodeError> {
        match self.waiting(id) {
            Some(InFlight::Published(Kept::Publish(block))) => {
                self.outgoing.puback(id);
                Ok(self.finish(Some(block)))
            }
            Some(_) => Err(DecodeError::protocol("PUBACK for what is no QoS 1 message")),
            None => Ok(Acked::Ignored),
        }
    }

    #[inline]
    pub(crate) fn handle_pubrec(&mut self, ack: &Ack<'_>) -> Result<Acked, DecodeError> {
        let (id, refused) = (ack.packet_id, ack.reason.is_error());
        match self.waiting(id) {
            // [MQTT-4.3.3-4] A refused message is not released.
            Some(InFlight::PublishedOnce(Kept::Publish(block))) if refused => {
                self.outgoing.pubrec_error(id);
                Ok(self.finish(Some(block)))
            }
            Some(InFlight::PublishedOnce(Kept::Publish(block))) => {
                self.outgoing.pubrec(id);
                self.arena.free(block);
                Ok(Acked::Release)
            }
            // The server no longer knows what it has once received.
            Some(InFlight::Released) if refused => {
                self.outgoing.pubcomp(id);
                Ok(self.finish(None))
            }
            Some(InFlight::Released) => Ok(Acked::ReleaseAgain(ReasonCode::Success)),
            Some(_) => Err(DecodeError::protocol("PUBREC for what is no QoS 2 message")),
            None if refused => Ok(Acked::Ignored),
            None => Ok(Acked::ReleaseAgain(ReasonCode::PacketIdNotFound)),
        }
    }

    #[inline]
    pub(crate) fn handle_pubcomp(&mut self, id: PacketId) -> Result<Acked, DecodeError> {
        match self.waiting(id) {
            Some(InFlight::Released) => {
                self.outgoing.pubcomp(id);
                Ok(self.finish(None))
            }
            Some(_) => Err(DecodeError::protocol("PUBCOMP for a message that was not released")),
            None => Ok(Acked::Ignored),
        }
    }

    /// Whether `answer` is what the identifier waits for.
    pub(crate) fn handle_answer(&mut self, id: PacketId, answer: Kept) -> Result<(), DecodeError> {
        if self.waiting(id) != Some(InFlight::Published(answer)) {
            return Err(DecodeError::protocol("a SUBACK or UNSUBACK that answers nothing"));
        }
        self.outgoing.puback(id);
        self.requests -= 1;
        self.unsent = self.unsent.min(self.outgoing.span());
        Ok(())
    }

    /// The most QoS 2 identifiers of the server that can be kept.
    pub(crate) fn max_incoming(&self) -> usize {
        self.max_incoming
    }

    /// QoS 2 messages of the server that it has not released.
    pub(crate) fn incoming(&self) -> &IncomingIdsIn<Queue<'m, u16>> {
        &self.incoming
    }

    /// True if the QoS 2 message is new `[MQTT-4.3.3-10]`.
    #[inline]
    pub(crate) fn receive(&mut self, id: PacketId) -> bool {
        self.incoming.receive(id)
    }

    /// True if the identifier was known `[MQTT-4.3.3-11]`.
    #[inline]
    pub(crate) fn handle_pubrel(&mut self, id: PacketId) -> bool {
        self.incoming.release(id)
    }

    /// A message, or without a block a PUBREL, that was in flight before a restart.
    pub(crate) fn restore(
        &mut self,
        id: PacketId,
        message: Option<(QoS, Block)>,
    ) -> Result<(), Error> {
        let one = match message {
            None => InFlight::Released,
            Some((QoS::ExactlyOnce, block)) => InFlight::PublishedOnce(Kept::Publish(block)),
            Some((_, block)) => InFlight::Published(Kept::Publish(block)),
        };
        if self.outgoing.restore(id, one) { Ok(()) } else { Err(Error::RestoreInvalid) }
    }

    /// A QoS 2 identifier of the server that was received before a restart.
    pub(crate) fn restore_received(&mut self, id: PacketId) -> Result<(), Error> {
        if !self.incoming.has_room() {
            return Err(Error::Full);
        }
        if self.incoming.receive(id) { Ok(()) } else { Err(Error::RestoreInvalid) }
    }
}

fn is_message(one: &InFlight<Kept>) -> bool {
    match one {
        InFlight::Published(kept) | InFlight::PublishedOnce(kept) => {
            matches!(kept, Kept::Publish(_))
        }
        InFlight::Released => true,
    }
}

fn block_mut(one: &mut InFlight<Kept>) -> Option<&mut Block> {
    match one {
        InFlight::Published(Kept::Publish(block))
        | InFlight::PublishedOnce(Kept::Publish(block)) => Some(block),
        _ => None,
    }
}

/// [MQTT-3.3.1-1] DUP stands in every repetition, so in what the next sending copies.
fn mark_dup(packet: &mut [u8]) {
    if let Some(first) = packet.first_mut() {
        *first |= 0x08;
    }
}
