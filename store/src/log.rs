//! The log that all shards of a broker share: what is queued, what is durable, who is told.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::disk::Disk;
use crate::event::Event;
use crate::layout::FRAME_HEADER_BYTES;
use crate::pass::PassShared;
use crate::reads::Reads;
use crate::recovery::Opened;
use crate::segments::Segments;
use crate::write::Writing;
use crate::{
    Committed, Journal, MessageBody, OpenError, Position, ReadError, Recovered, Stored, Ticket,
};

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut.
    #[default]
    Fsync,
    /// It survives the end of the process.
    Os,
    /// Nothing; what is written is written.
    Memory,
}

/// How a log is to be kept.
pub struct Options {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// A segment that has grown to this is followed by another.
    pub segment_bytes: u64,
    /// A pass begins after so much was appended, at the earliest.
    pub pass_after_bytes: u64,
    /// Beyond this nothing more should be read from clients; the log only knows the number.
    pub max_backlog_bytes: usize,
    /// Room that is given up when the disk is full.
    pub reserve_bytes: u64,
    /// How many journals there will be: their numbers are below this.
    pub writers: u16,
    /// Is told what an operator should know. Like the callback of [`Log::set_wake`], it must not
    /// call the log's `work`, `read` or `stop`.
    pub on_event: Box<dyn Fn(Event) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::Fsync,
            segment_bytes: 64 << 20,
            pass_after_bytes: 64 << 20,
            max_backlog_bytes: 32 << 20,
            reserve_bytes: 4 << 20,
            writers: 1,
            on_event: Box::new(|_| {}),
        }
    }
}

/// What a call of [`Log::work`] or [`Log::work_reads`] has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Something was done; perhaps there is more.
    pub did: bool,
    /// Call again at this time, if nothing calls for it before.
    pub next_ms: Option<u64>,
}

/// One batch with its header.
pub(crate) struct QueuedFrame {
    pub position: u64,
    pub writer: u16,
    /// Header and records; the header is filled in when it is written.
    pub bytes: Vec<u8>,
}

impl QueuedFrame {
    pub(crate) fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }
}

/// The writer of the log's own frames.
pub(crate) const OWN: u16 = u16::MAX;

/// Buffers that are kept to be used again have so many bytes in all, and each.
const POOL_BYTES: usize = 4 << 20;
const POOL_BUFFER_BYTES: usize = 1 << 20;

/// What journals and the store thread exchange.
#[derive(Default)]
pub(crate) struct Queue {
    /// Position of the next frame.
    pub next: u64,
    pub frames: Vec<QueuedFrame>,
    pool: Vec<Vec<u8>>,
    /// Of all buffers in the pool.
    pool_bytes: usize,
    /// The store thread waits to be woken.
    pub asleep: bool,
    /// Something other than a frame has come.
    pub kicked: bool,
    /// The last pass that each writer has stated everything in.
    pub restated: Vec<u64>,
    /// The last round that each writer has taken part in.
    pub rounds: Vec<u64>,
}

/// What one journal hands over with a batch.
pub(crate) struct Handover {
    pub writer: u16,
    pub restated: Option<u64>,
    pub round: u64,
}

/// The durable log of a broker. Shards write through their [`Journal`]s; one thread calls
/// [`Log::work`] and one [`Log::work_reads`] (see [`Threads`](crate::Threads)), or a simulator
/// does both.
pub struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) identity: u64,
    pub(crate) queue: Mutex<Queue>,
    /// The store thread sleeps on it, with `queue`.
    pub(crate) queued: Condvar,
    pub(crate) writing: Mutex<Writing>,
    pub(crate) segments: Segments,
    /// Everything before this is as durable as was asked for.
    pub(crate) done: AtomicU64,
    pub(crate) full: AtomicBool,
    pub(crate) stopped: AtomicBool,
    pub(crate) backlog: AtomicUsize,
    pub(crate) next_key: AtomicU64,
    pub(crate) pass: PassShared,
    pub(crate) reads: Reads,
    wake: OnceLock<Box<dyn Fn(u16) + Send + Sync>>,
    /// Held for as long as the log is there.
    _lock: Box<dyn Any + Send + Sync>,
}

impl Log {
    /// Opens the store in `disk`, or makes a new one, of this identity, where there is none.
    ///
    /// # Errors
    /// The store is in use, was made by a later version, cannot be read, or is damaged: what was
    /// once durable is not there.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        identity: u64,
    ) -> Result<(Arc<Log>, Recovered), OpenError> {
        let opened = crate::recovery::open(&*disk, &options, identity)?;
        let Opened { lock, identity, segments, end, next_key, pass, recovered, .. } = opened;
        let writers = usize::from(options.writers);
        let queue = Queue {
            next: end,
            restated: vec![0; writers],
            rounds: vec![0; writers],
            ..Queue::default()
        };
        let log = Log {
            writing: Mutex::new(Writing::new(&*disk, &options, opened.current, end, pass)),
            reads: Reads::new(options.writers),
            disk,
            options,
            identity,
            queue: Mutex::new(queue),
            queued: Condvar::new(),
            segments,
            done: end.into(),
            full: false.into(),
            stopped: false.into(),
            backlog: 0.into(),
            next_key: next_key.into(),
            pass: PassShared::default(),
            wake: OnceLock::new(),
            _lock: lock,
        };
        log.make_room(&recovered);
        Ok((Arc::new(log), recovered))
    }

    /// A shard's end of the log. There must be one for each number below `options.writers`, and
    /// only one.
    pub fn journal(self: &Arc<Log>, writer: u16) -> Journal {
        Journal::new(self.clone(), writer)
    }

    /// Who is told the number of a writer for which something has changed: its ticket was
    /// reached, bodies were fetched, a pass wants it to state everything again, the disk is full
    /// or no longer so. May be set once, before the first commit.
    pub fn set_wake(&self, wake: Box<dyn Fn(u16) + Send + Sync>) {
        let _ = self.wake.set(wake);
    }

    /// Everything before this is as durable as was asked for.
    pub fn synced(&self) -> Ticket {
        match self.options.durability {
            Durability::Memory => Ticket(u64::MAX),
            _ => Ticket(self.done.load(Ordering::Acquire)),
        }
    }

    /// Whether the disk is full or fails.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Bytes that wait to be written and synced.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Of [`Options`].
    pub fn max_backlog_bytes(&self) -> usize {
        self.options.max_backlog_bytes
    }

    /// The store's identity.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Reads one message at once, on the caller's thread: for the start and for tools.
    ///
    /// # Errors
    /// It is not there or not written yet, is damaged, or the disk fails.
    pub fn read(&self, stored: Stored) -> Result<MessageBody, ReadError> {
        if stored.position.0 >= self.done.load(Ordering::Acquire) {
            return self.read_in_memory(stored);
        }
        self.segments.read(stored)
    }

    /// A message that was not yet written.
    pub(crate) fn read_in_memory(&self, stored: Stored) -> Result<MessageBody, ReadError> {
        let writing = lock(&self.writing);
        let queue = lock(&self.queue);
        let position = stored.position.0;
        for frames in [writing.pending(), &queue.frames] {
            let index = frames.partition_point(|frame| frame.end() <= position);
            let Some(frame) = frames.get(index) else { continue };
            let Some(from) = position.checked_sub(frame.position) else { continue };
            let from = from as usize;
            let bytes = frame.bytes.get(from..from.saturating_add(stored.len as usize));
            let body = bytes.ok_or("the message is cut short");
            return body.and_then(|bytes| MessageBody::new(bytes.into())).map_err(|what| {
                ReadError::Damaged { file: "memory".into(), offset: position, what }
            });
        }
        drop((queue, writing));
        // It may have been written just now.
        if position >= self.done.load(Ordering::Acquire) {
            return Err(ReadError::NotYet);
        }
        self.segments.read(stored)
    }

    /// Queues a batch and gives an empty buffer for the next one.
    pub(crate) fn enqueue(&self, batch: &mut Vec<u8>, of: &Handover) -> Option<Committed> {
        let mut queue = lock(&self.queue);
        if let Some(pass) = of.restated {
            if let Some(restated) = queue.restated.get_mut(usize::from(of.writer)) {
                *restated = pass;
            }
            queue.kicked = true;
        }
        if let Some(round) = queue.rounds.get_mut(usize::from(of.writer))
            && *round != of.round
        {
            *round = of.round;
            queue.kicked = true;
        }
        let mut committed = None;
        if batch.len() > FRAME_HEADER_BYTES {
            let fresh = queue.pool.pop().unwrap_or_default();
            queue.pool_bytes -= fresh.capacity();
            let bytes = std::mem::replace(batch, fresh);
            self.backlog.fetch_add(bytes.len(), Ordering::Relaxed);
            committed = Some(queue.push(of.writer, bytes));
        }
        let wake = queue.asleep && (queue.kicked || committed.is_some());
        queue.asleep &= !wake;
        drop(queue);
        if wake {
            self.queued.notify_one();
        }
        begin_batch(batch);
        committed
    }

    pub(crate) fn wake(&self, writer: u16) {
        if let Some(wake) = self.wake.get()
            && writer != OWN
        {
            wake(writer);
        }
    }

    pub(crate) fn wake_all(&self) {
        (0..self.options.writers).for_each(|writer| self.wake(writer));
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.options.on_event)(event);
    }
}

impl Queue {
    /// Appends a frame to the log.
    pub(crate) fn push(&mut self, writer: u16, bytes: Vec<u8>) -> Committed {
        let position = self.next;
        self.next += bytes.len() as u64;
        self.frames.push(QueuedFrame { position, writer, bytes });
        Committed {
            base: Position(position + FRAME_HEADER_BYTES as u64),
            ticket: Ticket(self.next),
        }
    }

    /// Takes buffers back.
    pub(crate) fn recycle(&mut self, spent: &mut Vec<Vec<u8>>) {
        for mut buffer in spent.drain(..) {
            let bytes = buffer.capacity();
            if bytes <= POOL_BUFFER_BYTES && self.pool_bytes + bytes <= POOL_BYTES {
                buffer.clear();
                self.pool_bytes += bytes;
                self.pool.push(buffer);
            }
        }
    }
}

/// Makes room for the header at the front of an empty batch.
pub(crate) fn begin_batch(batch: &mut Vec<u8>) {
    batch.clear();
    batch.resize(FRAME_HEADER_BYTES, 0);
}

/// What a panicking thread has left is still the truth about the disk.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
