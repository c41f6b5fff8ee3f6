//! Group commit: what is queued is written, synced once, and told to those who wait for it; what
//! happens when the disk is full or fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disk::{Disk, DiskFile};
use crate::event::Event;
use crate::layout::{
    FRAME_HEADER_BYTES, Kind, RESERVE_FILE, SEGMENT_HEADER_BYTES, SegmentHeader, seal_frame,
    segment_name,
};
use crate::log::{Durability, Log, OWN, Options, QueuedFrame, Work, lock};
use crate::passes::PassState;
use crate::segments::Segment;
use crate::{Committed, Record};

/// A segment's file grows by this at a time, with zeros: a sync that does not change the length
/// of a file is cheaper.
const AHEAD_BYTES: u64 = 1 << 20;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;
/// After a failure the next try is so much later.
const RETRY_MS: u64 = 500;
/// After a sync, an idle log writes an empty frame so much later.
const IDLE_MS: u64 = 50;

/// What the store thread knows.
pub(crate) struct Writing {
    /// The segment that grows; none: a sync of it failed, or it could not be made.
    current: Option<Current>,
    /// Frames that are not yet as durable as was asked for, ascending.
    pending: Vec<QueuedFrame>,
    /// Everything before this was synced.
    pub durable: u64,
    /// Buffers of frames that are done.
    spent: Vec<Vec<u8>>,
    /// Frames one after the other, as they are written.
    buffer: Vec<u8>,
    /// Writers that are to be told.
    told: Vec<bool>,
    reserve: Reserve,
    /// Set while the disk is full or fails: when to try again.
    retry_ms: Option<u64>,
    written_ms: u64,
    /// The last frame is empty and says that all before it was synced.
    covered: bool,
    stopped: bool,
    pub pass: PassState,
}

/// The segment that grows.
pub(crate) struct Current {
    pub segment: Arc<Segment>,
    /// Length of its file.
    pub size: u64,
    /// The directory does not durably know it yet.
    pub fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reserve {
    Held,
    /// Given up, to be made again when there is room.
    GivenUp,
    /// There was no room for it at the start.
    None,
}

/// Why a group was not written.
enum Failure {
    /// Nothing else is known of the file.
    Write(io::Error),
    /// The file is not to be trusted any more.
    Sync(String, io::Error),
}

impl Writing {
    pub(crate) fn new(
        disk: &dyn Disk,
        options: &Options,
        current: Current,
        end: u64,
        pass: PassState,
    ) -> Writing {
        let mut writing = Writing {
            current: Some(current),
            pending: Vec::new(),
            durable: end,
            spent: Vec::new(),
            buffer: Vec::new(),
            told: vec![false; options.writers.into()],
            reserve: Reserve::None,
            retry_ms: None,
            written_ms: 0,
            covered: false,
            stopped: false,
            pass,
        };
        // Who opens the log sees to it if this fails.
        let _ = writing.make_reserve(disk, options.reserve_bytes);
        writing
    }

    pub(crate) fn has_reserve(&self) -> bool {
        self.reserve == Reserve::Held
    }

    /// Makes the reserve.
    pub(crate) fn make_reserve(&mut self, disk: &dyn Disk, bytes: u64) -> io::Result<()> {
        make_reserve(disk, bytes)?;
        self.reserve = Reserve::Held;
        Ok(())
    }

    /// Gives back the zeros ahead of what is written.
    pub(crate) fn give_back_ahead(&mut self) {
        let durable = self.durable;
        if let Some(current) = &mut self.current {
            trim(current, durable);
        }
    }

    pub(crate) fn pending(&self) -> &[QueuedFrame] {
        &self.pending
    }
}

/// Makes sure that the reserve is there.
fn make_reserve(disk: &dyn Disk, bytes: u64) -> io::Result<()> {
    if let Ok(file) = disk.open(RESERVE_FILE) {
        if file.size()? == bytes {
            return Ok(());
        }
        drop(file);
        disk.remove(RESERVE_FILE)?;
    }
    let file = disk.create(RESERVE_FILE)?;
    let made = file.allocate(0, bytes).and_then(|()| file.sync());
    if made.is_err() {
        let _ = disk.remove(RESERVE_FILE);
    }
    made
}

impl Log {
    /// Does one group commit on the caller's thread: everything that is queued is written and
    /// synced, and those who wait are told. `now_ms` is any clock that does not go back.
    pub fn work(&self, now_ms: u64) -> Work {
        let mut writing = lock(&self.writing);
        let writing = &mut *writing;
        if writing.stopped {
            return Work::default();
        }
        let mut did = self.advance_pass(writing, now_ms);
        self.take_queue(writing);
        if writing.retry_ms.is_none_or(|at| at <= now_ms) {
            let idle = !did && self.idle_frame(writing, now_ms);
            if !writing.pending.is_empty() || writing.retry_ms.is_some() {
                did |= self.write_all(writing, now_ms);
                writing.covered = idle && writing.pending.is_empty();
            }
            did |= self.advance_pass(writing, now_ms);
        }
        Work { did, next_ms: self.next_ms(writing) }
    }

    /// Writes everything that was committed, and that the log was ended in good order. Nothing is
    /// written after that.
    ///
    /// # Errors
    /// The disk is full or fails; what was not written is lost, none of it was acknowledged.
    pub fn stop(&self) -> io::Result<()> {
        let mut writing = lock(&self.writing);
        let writing = &mut *writing;
        if writing.stopped {
            return Ok(());
        }
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        Record::Stopped.encode(&mut bytes);
        self.push_own(bytes);
        self.take_queue(writing);
        writing.stopped = true;
        self.stopped.store(true, Ordering::Release);
        let done = self.write_pending(writing).map_err(|failure| match failure {
            Failure::Write(error) | Failure::Sync(_, error) => error,
        });
        if let Some(current) = &mut writing.current
            && done.is_ok()
        {
            trim(current, writing.durable.max(self.done.load(Ordering::Acquire)));
            current.segment.file.sync()?;
        }
        self.reads.kick();
        done
    }

    fn next_ms(&self, writing: &Writing) -> Option<u64> {
        if writing.retry_ms.is_some() {
            return writing.retry_ms;
        }
        (self.idle_due(writing)).then_some(writing.written_ms + IDLE_MS)
    }

    fn idle_due(&self, writing: &Writing) -> bool {
        let fsync = self.options.durability == Durability::Fsync;
        fsync && !writing.covered && writing.retry_ms.is_none() && writing.pending.is_empty()
    }

    /// Appends an empty frame if the log has been idle for a moment and none is there.
    fn idle_frame(&self, writing: &mut Writing, now_ms: u64) -> bool {
        let due = self.idle_due(writing) && now_ms >= writing.written_ms + IDLE_MS;
        if due {
            self.push_own(vec![0; FRAME_HEADER_BYTES]);
            self.take_queue(writing);
        }
        // A batch may have come in between.
        due && writing.pending.len() == 1
    }

    /// Queues a frame of the log itself.
    pub(crate) fn push_own(&self, bytes: Vec<u8>) -> Committed {
        self.backlog.fetch_add(bytes.len(), Ordering::Relaxed);
        lock(&self.queue).push(OWN, bytes)
    }

    fn take_queue(&self, writing: &mut Writing) {
        let mut queue = lock(&self.queue);
        queue.kicked = false;
        queue.recycle(&mut writing.spent);
        if writing.pending.is_empty() {
            std::mem::swap(&mut writing.pending, &mut queue.frames);
        } else {
            writing.pending.append(&mut queue.frames);
        }
    }

    /// Writes what is pending, with what follows from a failure.
    fn write_all(&self, writing: &mut Writing, now_ms: u64) -> bool {
        let mut result = self.write_pending(writing);
        for _ in 0..2 {
            let Err(failure) = result else { break };
            let again = self.failed(writing, failure, now_ms);
            if !again {
                return false;
            }
            result = self.write_pending(writing);
        }
        if let Err(failure) = result {
            self.failed(writing, failure, now_ms);
            return false;
        }
        writing.written_ms = now_ms;
        if self.is_full() {
            self.try_resume(writing, now_ms);
        }
        true
    }

    /// Nothing more is promised; says whether to try again at once.
    fn failed(&self, writing: &mut Writing, failure: Failure, now_ms: u64) -> bool {
        let first = !self.full.swap(true, Ordering::Relaxed);
        writing.retry_ms = Some(now_ms + RETRY_MS);
        let again = match failure {
            Failure::Write(error) => {
                if let Some(current) = &mut writing.current {
                    // Part of it may have been written.
                    current.size = u64::MAX;
                    trim(current, writing.durable.max(self.done.load(Ordering::Relaxed)));
                }
                let had = writing.reserve == Reserve::Held;
                if had {
                    writing.reserve = Reserve::GivenUp;
                    let _ = self.disk.remove(RESERVE_FILE);
                }
                if first {
                    self.tell(Event::Full { error });
                }
                had
            }
            Failure::Sync(file, error) => {
                self.tell(Event::SyncFailed { file, error });
                first
            }
        };
        if first {
            self.wake_all();
            self.reads.kick();
        }
        again
    }

    /// Writing works again; new messages are welcome only if there is room for the reserve too,
    /// or they would take the room that acknowledgements need.
    fn try_resume(&self, writing: &mut Writing, now_ms: u64) {
        if writing.reserve == Reserve::GivenUp {
            if make_reserve(&*self.disk, self.options.reserve_bytes).is_err() {
                writing.retry_ms = Some(now_ms + RETRY_MS);
                return;
            }
            writing.reserve = Reserve::Held;
        }
        writing.retry_ms = None;
        self.full.store(false, Ordering::Relaxed);
        self.tell(Event::Resumed);
        self.wake_all();
    }

    /// Writes what is pending, segment by segment, and syncs each once.
    fn write_pending(&self, writing: &mut Writing) -> Result<(), Failure> {
        while let Some(first) = writing.pending.first().map(|frame| frame.position) {
            self.roll(writing, first)?;
            let Some(current) = &mut writing.current else { continue };
            let limit = current.segment.start + self.options.segment_bytes;
            let count = writing.pending.partition_point(|frame| frame.position < limit).max(1);
            let group = writing.pending.get_mut(..count).unwrap_or_default();
            let end = group.last().map_or(first, QueuedFrame::end);
            if self.options.durability == Durability::Fsync && writing.retry_ms.is_none() {
                ahead(current, end, limit);
            }
            group.iter_mut().for_each(|frame| {
                seal_frame(&mut frame.bytes, frame.position, writing.durable, self.identity);
            });
            write_frames(current, group, &mut writing.buffer).map_err(Failure::Write)?;
            if self.options.durability == Durability::Fsync {
                self.sync_current(writing)?;
                writing.durable = end;
            }
            self.publish(writing, count, end);
        }
        Ok(())
    }

    /// Makes the file of a segment. What an earlier try has left under its name is replaced in one
    /// step: in a new store it may be the only one, and without any it would not open.
    fn make_segment(&self, start: u64) -> Result<Arc<dyn DiskFile>, Failure> {
        let name = segment_name(start);
        let header = SegmentHeader { kind: Kind::Frames, start, end: 0, identity: self.identity };
        let header = header.encode();
        match self.disk.create(&name) {
            Ok(file) => {
                let written = file.write_at(0, &header);
                if written.is_err() {
                    let _ = self.disk.remove(&name);
                }
                written.map(|()| file).map_err(Failure::Write)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let tmp = format!("{name}.tmp");
                let _ = self.disk.remove(&tmp);
                let file = self.disk.create(&tmp).map_err(Failure::Write)?;
                // Under its name there is a whole header at any time, whatever a crash leaves.
                let written = file.write_at(0, &header).map_err(Failure::Write);
                let sync = |error| Failure::Sync(name.clone(), error);
                let synced = written.and_then(|()| file.sync().map_err(sync));
                let rename = || self.disk.rename(&tmp, &name).map_err(Failure::Write);
                let made = synced.and_then(|()| rename());
                if made.is_err() {
                    let _ = self.disk.remove(&tmp);
                }
                made.map(|()| file)
            }
            Err(error) => Err(Failure::Write(error)),
        }
    }

    /// Sees to it that there is a segment for the frame at `first`.
    fn roll(&self, writing: &mut Writing, first: u64) -> Result<(), Failure> {
        if let Some(current) = &mut writing.current {
            if first - current.segment.start < self.options.segment_bytes {
                return Ok(());
            }
            trim(current, first);
            if self.options.durability != Durability::Fsync
                && let Err(error) = self.sync_lazily(writing, first)
            {
                self.tell(Event::SyncFailed { file: current_name(writing), error });
            }
            if let Some(current) = writing.current.take() {
                current.segment.set_end(first);
            }
        }
        let file = self.make_segment(first)?;
        let segment = Arc::new(Segment::frames(first, u64::MAX, file));
        self.segments.insert(segment.clone());
        writing.current = Some(Current { segment, size: SEGMENT_HEADER_BYTES, fresh: true });
        Ok(())
    }

    /// With less durability than [`Durability::Fsync`], syncs now and then, so that the log knows
    /// what a power cut cannot take.
    pub(crate) fn sync_lazily(&self, writing: &mut Writing, end: u64) -> io::Result<()> {
        let Some(current) = &mut writing.current else { return Ok(()) };
        current.segment.file.sync()?;
        if current.fresh {
            self.disk.sync_dir()?;
            current.fresh = false;
        }
        writing.durable = end;
        Ok(())
    }

    fn sync_current(&self, writing: &mut Writing) -> Result<(), Failure> {
        let Some(current) = &mut writing.current else { return Ok(()) };
        let synced = current
            .segment
            .file
            .sync()
            .and_then(|()| if current.fresh { self.disk.sync_dir() } else { Ok(()) });
        current.fresh &= synced.is_err();
        let Err(error) = synced else { return Ok(()) };
        // The system may have forgotten what it could not write, and would say nothing the next
        // time: this file is never synced again.
        let segment = current.segment.clone();
        writing.current = None;
        segment.set_end(writing.durable);
        if segment.start == writing.durable {
            self.segments.remove(segment.start);
        }
        Err(Failure::Sync(segment.name(), error))
    }

    /// The first `count` frames are as durable as was asked for.
    fn publish(&self, writing: &mut Writing, count: usize, end: u64) {
        // Before the look at who waits for it, in `Reads::written`.
        self.done.store(end, Ordering::SeqCst);
        let mut bytes = 0;
        for frame in writing.pending.drain(..count) {
            bytes += frame.bytes.len();
            if let Some(told) = writing.told.get_mut(usize::from(frame.writer)) {
                *told = true;
            }
            writing.spent.push(frame.bytes);
        }
        self.backlog.fetch_sub(bytes, Ordering::Relaxed);
        self.reads.written();
        for (writer, told) in writing.told.iter_mut().enumerate() {
            if std::mem::take(told) {
                self.wake(writer as u16);
            }
        }
    }
}

fn current_name(writing: &Writing) -> String {
    writing.current.as_ref().map_or_else(String::new, |current| current.segment.name())
}

/// Cuts off what stands behind `end`: zeros, or what was not written to its end. Should that
/// fail, it is overwritten or void.
fn trim(current: &mut Current, end: u64) {
    let size = end - current.segment.start + SEGMENT_HEADER_BYTES;
    if current.size > size && current.segment.file.truncate(size).is_ok() {
        current.size = size;
    }
}

/// Takes room for what is to be written up to `end`, and some more, but not beyond `limit`.
fn ahead(current: &mut Current, end: u64, limit: u64) {
    let wanted = end - current.segment.start + SEGMENT_HEADER_BYTES;
    let most = limit - current.segment.start + SEGMENT_HEADER_BYTES;
    let size = (wanted + AHEAD_BYTES).min(most);
    if wanted <= current.size || size <= wanted {
        return;
    }
    match current.segment.file.allocate(wanted, size) {
        Ok(()) => current.size = size,
        // Without room ahead the frames may still fit.
        Err(_) => drop(current.segment.file.truncate(current.size)),
    }
}

fn write_frames(
    current: &mut Current,
    frames: &[QueuedFrame],
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    let start = current.segment.start;
    let place = |position: u64| position - start + SEGMENT_HEADER_BYTES;
    let file = &current.segment.file;
    let Some(first) = frames.first() else { return Ok(()) };
    let mut at = place(first.position);
    buffer.clear();
    for frame in frames {
        if buffer.len() + frame.bytes.len() > WRITE_BYTES && !buffer.is_empty() {
            file.write_at(at, buffer)?;
            buffer.clear();
            at = place(frame.position);
        }
        if frame.bytes.len() > WRITE_BYTES {
            file.write_at(at, &frame.bytes)?;
            at = place(frame.end());
        } else {
            buffer.extend_from_slice(&frame.bytes);
        }
    }
    if !buffer.is_empty() {
        file.write_at(at, buffer)?;
    }
    current.size = current.size.max(frames.last().map_or(0, |last| place(last.end())));
    Ok(())
}
