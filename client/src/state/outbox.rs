//! Messages of the application on their way to the broker, and what became of them.

mod kept;
mod with_store;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use foldhash::fast::RandomState;
use slab::Slab;
use tokio::time::Instant;
use whimbrel_client_core::{Client as Core, Error as CommandError};
use whimbrel_codec::{Ack, PacketId, Properties, Property, Publish, QoS, ReasonCode};

pub(crate) use kept::Kept;
use kept::OnDisk;

use crate::error::reason_string;
use crate::message::check_properties;
use crate::store;
use crate::{Error, Message, Outcome, PropertyList, PublishError};

/// How a completion finds what became of its message.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// A place in the outbox.
    Slot(usize),
    /// QoS 0, and encoded at once: sent when so many bytes of this connection are written.
    Mark { connection: u64, position: u64 },
}

#[derive(Default)]
struct Slot {
    /// None once it cannot be needed again, and while it is on disk alone.
    message: Option<Message>,
    on_disk: Option<OnDisk>,
    /// Orders what is in flight.
    number: u64,
    deadline: Option<Instant>,
    packet_id: Option<PacketId>,
    /// PUBREC has come: the broker has it, and only the end of the handshake is missing.
    is_received: bool,
    outcome: Option<Outcome>,
    watched: bool,
    waker: Option<Waker>,
}

/// Who waits until so many bytes are written.
enum MarkWaiter {
    Slot(usize),
    Waker(Waker),
}

pub(crate) struct Outbox {
    slots: Slab<Slot>,
    /// Not given to the core yet, in order.
    queue: VecDeque<usize>,
    queued_bytes: usize,
    max_messages: usize,
    max_bytes: usize,
    in_flight: HashMap<PacketId, usize, RandomState>,
    numbers: u64,
    marks: VecDeque<(u64, MarkWaiter)>,
    connection: u64,
    /// Bytes taken out of the core, and written to the socket, on this connection.
    taken: u64,
    written: u64,
    /// Publishers that wait for room.
    pub(crate) waiting: usize,
    /// No message in the queue expires before.
    earliest: Option<Instant>,
    /// With a store.
    kept: Option<Box<Kept>>,
}

impl Outbox {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Outbox {
        Outbox {
            slots: Slab::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            max_messages,
            max_bytes,
            in_flight: HashMap::default(),
            numbers: 0,
            marks: VecDeque::new(),
            connection: 0,
            taken: 0,
            written: 0,
            waiting: 0,
            earliest: None,
            kept: None,
        }
    }

    /// Whether some message may be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.has_memory(1) || self.kept.as_ref().is_some_and(|kept| kept.keeper.has_room(0))
    }

    /// Whether this message may be taken.
    pub(crate) fn has_room_for(&self, message: &Message) -> bool {
        match &self.kept {
            Some(kept) if kept.keeps(message) => {
                kept.keeper.has_room(message.len_bytes() + store::OVERHEAD_BYTES)
                    && kept.keeper.unwritten_bytes() < self.max_bytes
            }
            _ => self.has_memory(1),
        }
    }

    /// Whether the queue in memory is shorter than a part of what it may be. One message larger
    /// than the limit is taken when it is alone.
    fn has_memory(&self, part: usize) -> bool {
        self.queue.is_empty()
            || (self.queue.len() < self.max_messages.div_ceil(part)
                && self.queued_bytes < self.max_bytes / part)
    }

    /// True when nothing is queued or in flight.
    pub(crate) fn is_done(&self) -> bool {
        self.undelivered() == 0
    }

    /// True when nothing is in flight.
    pub(crate) fn is_calm(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Messages that are queued or in flight.
    pub(crate) fn undelivered(&self) -> usize {
        let on_disk = self.kept.as_ref().map_or(0, |kept| kept.waiting as usize);
        self.queue.len() + self.in_flight.len() + on_disk
    }

    /// Takes a message: encodes it at once if nothing stands before it, and queues it otherwise.
    /// Gives it back if the queue is full.
    pub(crate) fn publish(
        &mut self,
        core: &mut Core,
        online: bool,
        message: Message,
    ) -> Result<Result<Ticket, Message>, PublishError> {
        check(&message)?;
        if self.kept.as_ref().is_some_and(|kept| kept.keeps(&message)) {
            return self.keep(message);
        }
        if online && self.queue.is_empty() {
            match send(core, &message, None) {
                Ok(None) => return Ok(Ok(self.mark(core))),
                Ok(Some(packet_id)) => {
                    let deadline = deadline(&message);
                    let key = self.insert(message, deadline);
                    self.begin(key, packet_id);
                    return Ok(Ok(Ticket::Slot(key)));
                }
                Err(CommandError::Full | CommandError::NotConnected) => {}
                Err(error) => return Err(PublishError::Invalid(error)),
            }
        }
        if !self.has_memory(1) {
            return Ok(Err(message));
        }
        let deadline = deadline(&message);
        let key = self.insert(message, deadline);
        self.enqueue(key);
        Ok(Ok(Ticket::Slot(key)))
    }

    /// Puts a slot with its message at the end of the queue in memory.
    fn enqueue(&mut self, key: usize) {
        let Some(slot) = self.slots.get(key) else { return };
        self.queued_bytes += slot.message.as_ref().map_or(0, Message::len_bytes);
        self.earliest = [self.earliest, slot.deadline].into_iter().flatten().min();
        self.queue.push_back(key);
    }

    fn mark(&self, core: &Core) -> Ticket {
        let position = self.taken + core.poll_transmit().map_or(0, <[u8]>::len) as u64;
        Ticket::Mark { connection: self.connection, position }
    }

    fn insert(&mut self, message: Message, deadline: Option<Instant>) -> usize {
        self.numbers += 1;
        self.slots.insert(Slot {
            message: Some(message),
            on_disk: None,
            number: self.numbers,
            deadline,
            packet_id: None,
            is_received: false,
            outcome: None,
            watched: true,
            waker: None,
        })
    }

    fn begin(&mut self, key: usize, packet_id: PacketId) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.packet_id = Some(packet_id);
            if let (Some(kept), Some(_)) = (&mut self.kept, slot.on_disk) {
                let qos2 = slot.message.as_ref().is_some_and(|m| m.qos == QoS::ExactlyOnce);
                kept.keeper.begin(slot.number, packet_id, qos2);
            }
        }
        self.in_flight.insert(packet_id, key);
    }

    /// Gives the core what waits, as far as it takes it.
    pub(crate) fn flush(&mut self, core: &mut Core, now: Instant) {
        while let Some(&key) = self.queue.front() {
            let Some(slot) = self.slots.get(key) else {
                self.queue.pop_front();
                continue;
            };
            let Some(message) = &slot.message else {
                self.queue.pop_front();
                continue;
            };
            // Nothing is sent that might be taken back.
            if !self.is_saved(slot) {
                break;
            }
            if slot.deadline.is_some_and(|deadline| deadline <= now) {
                self.pop(key);
                self.finish(key, Err(PublishError::Expired));
                continue;
            }
            let left = slot.deadline.map(|deadline| (deadline - now).as_secs().max(1) as u32);
            match send(core, message, left) {
                Ok(None) => {
                    self.pop(key);
                    if let Ticket::Mark { position, .. } = self.mark(core) {
                        self.marks.push_back((position, MarkWaiter::Slot(key)));
                    }
                }
                Ok(Some(packet_id)) => {
                    self.pop(key);
                    self.begin(key, packet_id);
                }
                Err(CommandError::Full | CommandError::NotConnected) => break,
                Err(error) => {
                    self.pop(key);
                    self.finish(key, Err(PublishError::Invalid(error)));
                }
            }
        }
        self.refill();
    }

    /// Takes the queue's front, which is `key`, out of it.
    fn pop(&mut self, key: usize) {
        self.queue.pop_front();
        let message = self.slots.get(key).and_then(|slot| slot.message.as_ref());
        self.queued_bytes -= message.map_or(0, Message::len_bytes);
    }

    /// When [`Outbox::expire`] is due.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.earliest
    }

    /// Takes out what has expired in the queue.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return;
        }
        self.earliest = None;
        for key in std::mem::take(&mut self.queue) {
            let Some(slot) = self.slots.get(key) else { continue };
            match slot.deadline {
                Some(deadline) if deadline <= now => {
                    self.queued_bytes -= slot.message.as_ref().map_or(0, Message::len_bytes);
                    self.finish(key, Err(PublishError::Expired));
                }
                deadline => {
                    self.earliest = [self.earliest, deadline].into_iter().flatten().min();
                    self.queue.push_back(key);
                }
            }
        }
        self.refill();
    }

    /// `len` bytes of the core's output are on their way to the socket.
    pub(crate) fn handle_taken(&mut self, len: usize) {
        self.taken += len as u64;
    }

    /// All that was taken is written.
    pub(crate) fn handle_written(&mut self) {
        self.written = self.taken;
        while let Some((position, _)) = self.marks.front() {
            if *position > self.written {
                return;
            }
            match self.marks.pop_front() {
                Some((_, MarkWaiter::Slot(key))) => {
                    self.finish(key, Ok(ReasonCode::Success));
                }
                Some((_, MarkWaiter::Waker(waker))) => waker.wake(),
                None => return,
            }
        }
    }

    /// PUBREC has come.
    pub(crate) fn handle_received(&mut self, packet_id: PacketId) {
        let key = self.in_flight.get(&packet_id);
        if let Some(slot) = key.and_then(|key| self.slots.get_mut(*key)) {
            slot.is_received = true;
            slot.message = None;
            if let (Some(kept), Some(on_disk)) = (&mut self.kept, &mut slot.on_disk) {
                let len_bytes = std::mem::take(&mut on_disk.len_bytes);
                kept.keeper.receive(slot.number, packet_id, len_bytes);
            }
        }
    }

    /// The last acknowledgement of a message.
    pub(crate) fn handle_published(&mut self, ack: &Ack<'_>) {
        let Some(key) = self.in_flight.remove(&ack.packet_id) else { return };
        // To a PUBREL that is sent again: its PUBCOMP was lost with the connection (section 4.4).
        let is_recovery = ack.reason == ReasonCode::PacketIdNotFound
            && self.slots.get(key).is_some_and(|slot| slot.is_received);
        let outcome = if is_recovery {
            Ok(ReasonCode::Success)
        } else if ack.reason.is_error() {
            Err(PublishError::Refused(ack.reason, reason_string(&ack.properties)))
        } else {
            Ok(ack.reason)
        };
        self.finish(key, outcome);
    }

    /// With a session, the core goes on with what is in flight. Without, QoS 1 begins anew, as it
    /// may arrive twice; whether QoS 2 has arrived cannot be known.
    pub(crate) fn handle_connected(&mut self, session_present: bool) {
        if let Some(kept) = &mut self.kept {
            kept.keeper.set_session(!session_present);
        }
        if session_present {
            return;
        }
        let mut keys: Vec<_> = self.in_flight.drain().map(|(_, key)| key).collect();
        keys.sort_unstable_by_key(|key| self.slots.get(*key).map(|slot| slot.number));
        for key in keys.into_iter().rev() {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            slot.packet_id = None;
            match &slot.message {
                Some(message) if message.qos == QoS::AtLeastOnce => {
                    self.queued_bytes += message.len_bytes();
                    self.earliest = [self.earliest, slot.deadline].into_iter().flatten().min();
                    self.queue.push_front(key);
                    if let (Some(kept), Some(_)) = (&mut self.kept, slot.on_disk) {
                        kept.keeper.begin_anew(slot.number);
                    }
                }
                _ => {
                    let outcome = match slot.is_received {
                        true => Ok(ReasonCode::Success),
                        false => Err(PublishError::SessionLost),
                    };
                    self.finish(key, outcome);
                }
            }
        }
    }

    /// What of QoS 0 was not written yet is lost.
    pub(crate) fn handle_lost(&mut self) {
        self.connection += 1;
        self.taken = 0;
        self.written = 0;
        if let Some(kept) = &mut self.kept {
            kept.handle_lost();
        }
        for (_, waiter) in std::mem::take(&mut self.marks) {
            match waiter {
                MarkWaiter::Slot(key) => self.finish(key, Err(PublishError::ConnectionLost)),
                MarkWaiter::Waker(waker) => waker.wake(),
            }
        }
    }

    /// What is on disk stays there.
    pub(crate) fn handle_closed(&mut self, why: Option<&Arc<Error>>) {
        self.kept = None;
        self.handle_lost();
        self.in_flight.clear();
        self.queue.clear();
        self.queued_bytes = 0;
        let keys: Vec<_> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self.slots.get(key).is_some_and(|slot| slot.outcome.is_none()) {
                self.finish(key, Err(PublishError::Closed(why.cloned())));
            }
        }
    }

    /// Keeps the outcome for whoever watches, and lets everything else go.
    fn finish(&mut self, key: usize, outcome: Outcome) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if let (Some(kept), Some(on_disk)) = (&mut self.kept, slot.on_disk) {
            kept.keeper.remove(slot.number, on_disk.len_bytes);
            if let (false, Err(why), Some(message)) = (slot.watched, &outcome, &slot.message) {
                kept.tell_undelivered(message.topic.clone(), why.clone());
            }
        }
        if !slot.watched {
            self.slots.remove(key);
            return;
        }
        slot.message = None;
        slot.outcome = Some(outcome);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }

    /// What became of the message of `ticket`. Ready once.
    pub(crate) fn poll(&mut self, ticket: &Ticket, cx: &mut Context<'_>) -> Poll<Outcome> {
        match ticket {
            Ticket::Slot(key) => {
                let Some(slot) = self.slots.get_mut(*key) else {
                    return Poll::Ready(Err(PublishError::Closed(None)));
                };
                if slot.outcome.is_some() {
                    let slot = self.slots.remove(*key);
                    return Poll::Ready(slot.outcome.unwrap_or(Err(PublishError::Closed(None))));
                }
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Ticket::Mark { connection, position } => {
                if *connection != self.connection {
                    return Poll::Ready(Err(PublishError::ConnectionLost));
                }
                if *position <= self.written {
                    return Poll::Ready(Ok(ReasonCode::Success));
                }
                // Each message has a position of its own, so this finds the last look's waker.
                let at = self.marks.partition_point(|(other, _)| other < position);
                match self.marks.get_mut(at) {
                    Some((other, MarkWaiter::Waker(waker))) if other == position => {
                        waker.clone_from(cx.waker());
                    }
                    _ => {
                        let waiter = MarkWaiter::Waker(cx.waker().clone());
                        self.marks.insert(at, (*position, waiter));
                    }
                }
                Poll::Pending
            }
        }
    }

    /// Nobody wants to know any more.
    pub(crate) fn forget(&mut self, ticket: &Ticket) {
        let Ticket::Slot(key) = ticket else { return };
        match self.slots.get_mut(*key) {
            Some(slot) if slot.outcome.is_some() => drop(self.slots.remove(*key)),
            Some(slot) if slot.is_on_disk_alone() => {
                if let Some(kept) = &mut self.kept {
                    kept.watched.remove(&slot.number);
                }
                self.slots.remove(*key);
            }
            Some(slot) => {
                slot.watched = false;
                slot.waker = None;
            }
            None => {}
        }
    }
}

impl Slot {
    /// Nothing of it is in the queue in memory or in flight.
    const fn is_on_disk_alone(&self) -> bool {
        self.on_disk.is_some() && self.message.is_none() && !self.is_received
    }
}

/// What no connection could make right is refused before it is queued.
fn check(message: &Message) -> Result<(), PublishError> {
    check_properties(&message.properties).map_err(PublishError::Invalid)?;
    if whimbrel_topics::validate_topic_name(&message.topic).is_err() {
        return Err(PublishError::Invalid(CommandError::TopicNameInvalid));
    }
    Ok(())
}

/// When the message expires.
fn deadline(message: &Message) -> Option<Instant> {
    message.expiry_s.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()))
}

/// `left_s` are the seconds that a message which was queued may still live.
fn send(
    core: &mut Core,
    message: &Message,
    left_s: Option<u32>,
) -> Result<Option<PacketId>, CommandError> {
    // In the queue its time counts, its place is kept, and it is known not to have been sent.
    if message.qos > QoS::AtMostOnce && !core.has_send_quota() {
        return Err(CommandError::Full);
    }
    with_publish(message, left_s, |publish| core.publish(publish))
}

/// Hands the PUBLISH of a message to `use_it`.
fn with_publish<R>(
    message: &Message,
    left_s: Option<u32>,
    use_it: impl FnOnce(&Publish<'_>) -> R,
) -> R {
    let mut publish = Publish {
        qos: message.qos,
        retain: message.retain,
        properties: message.properties.view(),
        ..Publish::new(&message.topic, &message.payload)
    };
    let Some(expiry_s) = message.expiry_s else { return use_it(&publish) };
    let expiry = Property::MessageExpiryIntervalS(left_s.unwrap_or(expiry_s));
    let properties: PropertyList = message.properties.iter().chain([expiry]).collect();
    publish.properties = Properties::NONE;
    use_it(&Publish { properties: properties.view(), ..publish })
}
