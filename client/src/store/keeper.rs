//! The client's end of its store, and the thread that writes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use whimbrel_codec::PacketId;

use super::{Batch, File, Recovered, Stage, StoreError};

/// Changes that nobody waits for are written after this, or together with the next that somebody
/// waits for. A crash before only leads to what the protocol repeats in any case.
const LAZY: Duration = Duration::from_millis(100);
/// How long to wait before a batch that could not be written is tried again: doubled each time.
const RETRY: Duration = Duration::from_millis(100);
const MOST_RETRY: Duration = Duration::from_secs(5);

/// Names a batch; one with a smaller number is durable before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// Messages that are wanted back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// With numbers above this.
    pub(crate) after: u64,
    pub(crate) max_messages: usize,
    pub(crate) max_bytes: usize,
}

/// Messages by number.
pub(crate) type Loaded = Vec<(u64, Vec<u8>)>;

/// What the thread has done.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Everything up to this batch is durable.
    pub(crate) durable: Ticket,
    /// The answer to a [`Load`]; everything that is wanted if it is empty.
    pub(crate) loaded: Option<Loaded>,
    /// Why nothing could be written or read, and how long until the next try.
    pub(crate) failure: Option<(StoreError, Duration)>,
}

#[derive(Default)]
struct Pending {
    batch: Batch,
    ticket: Ticket,
    /// Bytes of messages before this batch that could not be written.
    failed_bytes: usize,
    /// Somebody waits for the batch.
    is_urgent: bool,
    load: Option<Load>,
    /// The thread is to end once everything is written.
    stops: bool,
}

/// What the client and the thread exchange.
#[derive(Default)]
struct Desk {
    pending: Mutex<Pending>,
    changed: Condvar,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do.
    fn wait(&self) -> MutexGuard<'_, Pending> {
        let idle = |pending: &mut Pending| {
            pending.batch.is_empty() && pending.load.is_none() && !pending.stops
        };
        let pending = self.changed.wait_while(self.lock(), idle);
        let pending = pending.unwrap_or_else(PoisonError::into_inner);
        let lazy =
            |pending: &mut Pending| !pending.is_urgent && pending.load.is_none() && !pending.stops;
        let waited = self.changed.wait_timeout_while(pending, LAZY, lazy);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits before the next try; not if the end has come.
    fn pause(&self, wait: Duration) {
        let runs = |pending: &mut Pending| !pending.stops;
        drop(self.changed.wait_timeout_while(self.lock(), wait, runs));
    }
}

/// Takes changes for the store without waiting for the disk.
pub(crate) struct Keeper {
    desk: Arc<Desk>,
    ended: Option<oneshot::Receiver<()>>,
    durable: Ticket,
    /// The last batch that something to be sent rests on.
    needed: Ticket,
    bytes: u64,
    max_bytes: u64,
}

impl Keeper {
    /// Starts the thread, which tells `report` what it has done.
    pub(crate) fn start(
        file: File,
        recovered: &Recovered,
        max_bytes: u64,
        report: impl Fn(Report) + Send + 'static,
    ) -> std::io::Result<Keeper> {
        let desk = Arc::new(Desk::default());
        // What is there is batch 0.
        desk.lock().ticket = Ticket(1);
        let (sender, ended) = oneshot::channel();
        let thread = Thread { file, desk: desk.clone(), report };
        std::thread::Builder::new().name("whimbrel-store".into()).spawn(move || {
            thread.run();
            // Nobody may wait for it.
            let _ = sender.send(());
        })?;
        let (durable, needed) = (Ticket(0), Ticket(0));
        let bytes = recovered.bytes;
        Ok(Keeper { desk, ended: Some(ended), durable, needed, bytes, max_bytes })
    }

    /// Whether a message of so many bytes may be kept; one that is too large is when it is alone.
    pub(crate) fn has_room(&self, len_bytes: usize) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(len_bytes as u64) <= self.max_bytes
    }

    /// Bytes of messages that are not written yet.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        let pending = self.desk.lock();
        pending.failed_bytes + pending.batch.new_bytes
    }

    pub(crate) fn is_durable(&self, ticket: Ticket) -> bool {
        ticket <= self.durable
    }

    /// The batch that everything to be sent rests on.
    pub(crate) const fn needed(&self) -> Ticket {
        self.needed
    }

    pub(crate) fn handle_durable(&mut self, ticket: Ticket) {
        self.durable = self.durable.max(ticket);
    }

    /// A message; it is safe when the ticket is durable.
    pub(crate) fn put(&mut self, number: u64, message: Vec<u8>) -> Ticket {
        self.bytes += message.len() as u64;
        self.change(true, |batch| batch.put(number, message))
    }

    /// A message is to go to the broker. With QoS 2 it must not be published anew after a crash.
    pub(crate) fn begin(&mut self, number: u64, packet_id: PacketId, qos2: bool) {
        let stage = Stage { packet_id, is_received: false };
        let ticket = self.change(qos2, |batch| {
            batch.stages.insert(number, Some(stage));
        });
        self.need(ticket, qos2);
    }

    /// PUBREC has come: the broker must not get the message again, of `len_bytes` on disk.
    pub(crate) fn receive(&mut self, number: u64, packet_id: PacketId, len_bytes: usize) {
        self.bytes = self.bytes.saturating_sub(len_bytes as u64);
        let stage = Stage { packet_id, is_received: true };
        let ticket = self.change(true, |batch| {
            batch.remove(number);
            batch.stages.insert(number, Some(stage));
        });
        self.need(ticket, true);
    }

    /// The session is gone in which the message was in flight.
    pub(crate) fn begin_anew(&mut self, number: u64) {
        let ticket = self.change(true, |batch| {
            batch.stages.insert(number, None);
        });
        self.need(ticket, true);
    }

    /// Nothing is to be done for a message any more; what is left of it on disk are `len_bytes`.
    pub(crate) fn remove(&mut self, number: u64, len_bytes: usize) {
        self.bytes = self.bytes.saturating_sub(len_bytes as u64);
        self.change(false, |batch| {
            batch.remove(number);
            batch.stages.insert(number, None);
        });
    }

    /// Whether a message is about to be removed.
    pub(crate) fn is_removed(&self, number: u64) -> bool {
        matches!(self.desk.lock().batch.messages.get(&number), Some(None))
    }

    /// A QoS 2 message of the broker was taken (PUBREC), or released (PUBCOMP).
    pub(crate) fn set_arrival(&mut self, packet_id: PacketId, is_there: bool) {
        let ticket = self.change(true, |batch| {
            batch.arrivals.insert(packet_id, is_there);
        });
        self.need(ticket, true);
    }

    /// The broker has a session, a new one if `is_new`.
    pub(crate) fn set_session(&mut self, is_new: bool) {
        let ticket = self.change(is_new, |batch| {
            batch.has_session = true;
            if is_new {
                batch.forget_arrivals();
            }
        });
        self.need(ticket, is_new);
    }

    pub(crate) fn load(&self, load: Load) {
        self.desk.lock().load = Some(load);
        self.desk.changed.notify_one();
    }

    /// Ends the thread once everything is written, or cannot be; tells when it has ended.
    pub(crate) fn stop(&mut self) -> Option<oneshot::Receiver<()>> {
        self.desk.lock().stops = true;
        self.desk.changed.notify_one();
        self.ended.take()
    }

    fn need(&mut self, ticket: Ticket, is_needed: bool) {
        if is_needed {
            self.needed = ticket;
        }
    }

    fn change(&self, is_urgent: bool, change: impl FnOnce(&mut Batch)) -> Ticket {
        let mut pending = self.desk.lock();
        let was_idle = pending.batch.is_empty();
        change(&mut pending.batch);
        pending.batch.bytes = self.bytes;
        let wakes = was_idle || (is_urgent && !pending.is_urgent);
        pending.is_urgent |= is_urgent;
        let ticket = pending.ticket;
        drop(pending);
        if wakes {
            self.desk.changed.notify_one();
        }
        ticket
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

struct Thread<R> {
    file: File,
    desk: Arc<Desk>,
    report: R,
}

impl<R: Fn(Report)> Thread<R> {
    fn run(mut self) {
        let (mut unwritten, mut taken, mut failures) = (Batch::default(), Ticket(0), 0_u32);
        let mut durable = taken;
        loop {
            let mut pending = match failures {
                0 => self.desk.wait(),
                _ => self.desk.lock(),
            };
            let (stops, load) = (pending.stops, pending.load.take());
            if !pending.batch.is_empty() {
                let newer = std::mem::take(&mut pending.batch);
                unwritten = unwritten.followed_by(newer);
                taken = pending.ticket;
                pending.ticket.0 += 1;
            }
            pending.is_urgent = false;
            drop(pending);
            match self.work(&unwritten, load) {
                Ok(loaded) => {
                    if failures > 0 {
                        self.desk.lock().failed_bytes = 0;
                    }
                    (unwritten, durable, failures) = (Batch::default(), taken, 0);
                    (self.report)(Report { durable, loaded, failure: None });
                    if stops && self.desk.lock().batch.is_empty() {
                        return;
                    }
                }
                Err(error) => {
                    let wait = RETRY.saturating_mul(2_u32.saturating_pow(failures)).min(MOST_RETRY);
                    failures += 1;
                    let mut pending = self.desk.lock();
                    pending.failed_bytes = unwritten.new_bytes;
                    // Asked for again: that there is nothing would be believed.
                    pending.load = pending.load.or(load);
                    drop(pending);
                    (self.report)(Report { durable, loaded: None, failure: Some((error, wait)) });
                    if stops {
                        return;
                    }
                    self.desk.pause(wait);
                }
            }
        }
    }

    fn work(&mut self, batch: &Batch, load: Option<Load>) -> Result<Option<Loaded>, StoreError> {
        if !batch.is_empty() {
            self.file.write(batch)?;
        }
        let Some(Load { after, max_messages, max_bytes }) = load else { return Ok(None) };
        self.file.read(after, max_messages, max_bytes).map(Some)
    }
}
