//! The outbox with a store: messages come from there, go there, and are sent once they are safe.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use tokio::sync::oneshot;
use whimbrel_client_core::{Client as Core, Error as CommandError};
use whimbrel_codec::{PacketId, Publish, Version};

use super::kept::{Kept, OnDisk};
use super::{Outbox, Slot, Ticket, deadline, with_publish};
use crate::store::{self, Recovered, Report, Stage};
use crate::{Message, PublishError, Status};

impl Outbox {
    /// Goes on with what was in the store: the core with what is in flight.
    pub(crate) fn restore(
        &mut self,
        kept: Kept,
        recovered: Recovered,
        core: &mut Core<'_>,
        version: Version,
    ) -> Result<(), CommandError> {
        self.kept = Some(Box::new(kept));
        self.numbers = recovered.last;
        for (number, Stage { packet_id, is_received }, body) in recovered.in_flight {
            let Some(key) = self.insert_kept(number, body) else { continue };
            let Some(slot) = self.slots.get_mut(key) else { continue };
            slot.packet_id = Some(packet_id);
            slot.is_received = is_received;
            match &slot.message {
                _ if is_received => core.restore_released(packet_id)?,
                Some(message) => with_publish(message, None, |publish| {
                    let packet_id = Some(packet_id);
                    core.restore_published(version, &Publish { packet_id, ..*publish })
                })?,
                None => {
                    self.finish(key, Err(PublishError::SessionLost));
                    continue;
                }
            }
            self.in_flight.insert(packet_id, key);
        }
        for (number, body) in recovered.passed {
            if let Some(key) = self.insert_kept(number, Some(body)) {
                self.enqueue(key);
            }
        }
        self.refill();
        Ok(())
    }

    /// A slot for a message that comes from disk; none if it cannot be understood.
    fn insert_kept(&mut self, number: u64, body: Option<Vec<u8>>) -> Option<usize> {
        let kept = self.kept.as_mut()?;
        let len_bytes = body.as_ref().map_or(0, Vec::len);
        let message = match body {
            None => None,
            Some(body) => match store::decode(body, SystemTime::now()) {
                Some(message) => Some(message),
                None => {
                    kept.keeper.remove(number, len_bytes);
                    return None;
                }
            },
        };
        let on_disk = Some(OnDisk { ticket: store::Ticket::default(), len_bytes });
        let deadline = message.as_ref().and_then(deadline);
        if let Some(key) = kept.watched.remove(&number)
            && let Some(slot) = self.slots.get_mut(key)
        {
            (slot.message, slot.deadline) = (message, deadline);
            return Some(key);
        }
        let slot = Slot { message, on_disk, number, deadline, ..Slot::default() };
        Some(self.slots.insert(slot))
    }

    /// Takes a message to disk, and into the queue in memory if it is the next there.
    pub(super) fn keep(
        &mut self,
        message: Message,
    ) -> Result<Result<Ticket, Message>, PublishError> {
        if !self.has_room_for(&message) {
            return Ok(Err(message));
        }
        let in_memory = self.has_memory(2);
        let Some(kept) = &mut self.kept else { return Ok(Err(message)) };
        let bytes = store::encode(&message, SystemTime::now())?;
        let (number, deadline) = (self.numbers + 1, deadline(&message));
        self.numbers = number;
        let (key, alone) = (self.slots.vacant_key(), kept.is_behind() || !in_memory);
        let on_disk = Some(kept.put(number, key, bytes));
        if alone {
            kept.waiting += 1;
            kept.watched.insert(number, key);
        } else {
            kept.after = number;
        }
        let message = (!alone).then_some(message);
        let slot = Slot { message, on_disk, number, deadline, watched: true, ..Slot::default() };
        self.slots.insert(slot);
        if !alone {
            self.enqueue(key);
        }
        Ok(Ok(Ticket::Slot(key)))
    }

    /// Fetches messages that are on disk alone when there is room for them.
    pub(super) fn refill(&mut self) {
        let has_memory = self.has_memory(4);
        let max_messages = self.max_messages.div_ceil(2).saturating_sub(self.queue.len());
        let max_bytes = (self.max_bytes / 2).saturating_sub(self.queued_bytes);
        if let (Some(kept), true) = (&mut self.kept, has_memory) {
            kept.load(max_messages.max(1), max_bytes.max(1));
        }
    }

    pub(super) fn is_saved(&self, slot: &Slot) -> bool {
        match (&self.kept, slot.on_disk) {
            (Some(kept), Some(on_disk)) => kept.keeper.is_durable(on_disk.ticket),
            _ => true,
        }
    }

    /// Ready when the message of `ticket` is safe, or when it is known what became of it.
    pub(crate) fn poll_saved(
        &mut self,
        ticket: &Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), PublishError>> {
        let Ticket::Slot(key) = ticket else { return Poll::Ready(Ok(())) };
        let Some(slot) = self.slots.get(*key) else { return Poll::Ready(Ok(())) };
        if let Some(Err(PublishError::Closed(why))) = &slot.outcome {
            return Poll::Ready(Err(PublishError::Closed(why.clone())));
        }
        if slot.outcome.is_some() || self.is_saved(slot) {
            return Poll::Ready(Ok(()));
        }
        if let Some(slot) = self.slots.get_mut(*key) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The publisher of a message has given up: it is taken back, unless it is too late for that.
    pub(crate) fn retract(&mut self, ticket: &Ticket) {
        if let Ticket::Slot(key) = ticket
            && self.take_back(*key).is_some()
        {
            self.slots.remove(*key);
        } else {
            self.forget(ticket);
        }
    }

    /// None if the message has begun to be sent, or it is known what became of it.
    fn take_back(&mut self, key: usize) -> Option<()> {
        let slot = self.slots.get(key)?;
        let (kept, on_disk) = (self.kept.as_mut()?, slot.on_disk?);
        if slot.outcome.is_some() || slot.packet_id.is_some() {
            return None;
        }
        if slot.is_on_disk_alone() {
            kept.watched.remove(&slot.number);
            kept.waiting = kept.waiting.saturating_sub(1);
        } else {
            let at = self.queue.iter().rposition(|other| *other == key)?;
            self.queue.remove(at);
            self.queued_bytes -= slot.message.as_ref().map_or(0, Message::len_bytes);
        }
        kept.keeper.remove(slot.number, on_disk.len_bytes);
        Some(())
    }

    /// What the store's thread has done.
    pub(crate) fn handle_report(&mut self, report: Report) {
        let Some(kept) = &mut self.kept else { return };
        kept.keeper.handle_durable(report.durable);
        while let Some((key, number)) = kept.next_saved() {
            let slot = self.slots.get_mut(key).filter(|slot| slot.number == number);
            if let Some(waker) = slot.and_then(|slot| slot.waker.take()) {
                waker.wake();
            }
        }
        if let Some((why, retry_in)) = report.failure {
            kept.tell(Status::StoreFailed { why: Arc::new(why), retry_in });
        }
        let loaded = report.loaded.map(|loaded| kept.handle_loaded(loaded));
        for (number, body) in loaded.into_iter().flatten() {
            if let Some(key) = self.insert_kept(number, Some(body)) {
                self.enqueue(key);
            }
        }
    }

    /// A QoS 2 message of the broker is taken, or released.
    pub(crate) fn handle_arrival(&mut self, packet_id: PacketId, is_there: bool) {
        if let Some(kept) = &mut self.kept {
            kept.keeper.set_arrival(packet_id, is_there);
        }
    }

    /// How many of the `pending` bytes of the core's output may go to the socket: not those that
    /// rest on what is not on disk yet.
    pub(crate) fn allowed(&mut self, pending: usize) -> usize {
        match &mut self.kept {
            Some(kept) => (kept.allowed(self.taken + pending as u64) - self.taken) as usize,
            None => pending,
        }
    }

    /// Ends the store's thread once everything is written; tells when.
    pub(crate) fn stop_store(&mut self) -> Option<oneshot::Receiver<()>> {
        self.kept.as_mut()?.keeper.stop()
    }
}
