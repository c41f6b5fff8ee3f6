//! Reading bodies back, and packing segments: on a thread of its own, so that neither delays a
//! commit.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::event::Event;
use crate::log::{Log, Work, lock};
use crate::message::{MessageBody, Stored};
use crate::pack::Packing;
use crate::segments::Segment;
use crate::{Fetch, Fetched, Position, ReadError};

/// Bytes that are read at once.
const SPAN_BYTES: u64 = 1 << 20;
/// Messages that are this close are read together.
const GAP_BYTES: u64 = 16 << 10;
/// Buffers that are larger are not kept.
const KEPT_BYTES: usize = 1 << 20;

/// What journals and the reader thread exchange.
pub(crate) struct Reads {
    state: Mutex<State>,
    /// The reader thread sleeps on it.
    asked: Condvar,
    /// For each writer.
    answers: Vec<Answers>,
    /// Requests that wait for their messages to be written.
    waiting: AtomicBool,
    work: Mutex<Reading>,
}

#[derive(Default)]
struct State {
    requests: VecDeque<(u16, Fetch)>,
    /// Where the segment begins, and what is alive in it.
    to_pack: VecDeque<(u64, Vec<(u64, u32)>)>,
    kicked: bool,
}

#[derive(Default)]
struct Answers {
    count: AtomicUsize,
    list: Mutex<VecDeque<Fetched>>,
}

/// What the reader thread knows.
#[derive(Default)]
struct Reading {
    buffer: Vec<u8>,
    packing: Option<Packing>,
}

impl Reads {
    pub(crate) fn new(writers: u16) -> Reads {
        Reads {
            state: Mutex::default(),
            asked: Condvar::new(),
            answers: (0..writers).map(|_| Answers::default()).collect(),
            waiting: false.into(),
            work: Mutex::default(),
        }
    }

    pub(crate) fn ask(&self, writer: u16, fetch: Fetch) {
        self.change(|state| state.requests.push_back((writer, fetch)));
    }

    pub(crate) fn pack(&self, start: u64, messages: Vec<(u64, u32)>) {
        self.change(|state| {
            state.to_pack.retain(|(other, _)| *other != start);
            state.to_pack.push_back((start, messages));
        });
    }

    /// Has the reader thread look again.
    pub(crate) fn kick(&self) {
        self.change(|_| {});
    }

    /// More of the log was written.
    pub(crate) fn written(&self) {
        if self.waiting.load(Ordering::SeqCst) {
            self.kick();
        }
    }

    pub(crate) fn answer(&self, writer: u16) -> Option<Fetched> {
        let answers = self.answers.get(usize::from(writer))?;
        if answers.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let answer = lock(&answers.list).pop_front();
        answers.count.fetch_sub(usize::from(answer.is_some()), Ordering::AcqRel);
        answer
    }

    fn give(&self, writer: u16, fetched: Fetched) {
        if let Some(answers) = self.answers.get(usize::from(writer)) {
            lock(&answers.list).push_back(fetched);
            answers.count.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        state.kicked = true;
        drop(state);
        self.asked.notify_one();
    }

    /// Waits until something is asked for, or may be answered, or [`Reads::kick`] is called.
    pub(crate) fn sleep(&self) {
        let mut state = lock(&self.state);
        while !state.kicked {
            state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A message of a fetch, and where it stands.
struct Wanted {
    /// In the fetch.
    index: usize,
    segment: Arc<Segment>,
    place: u64,
    stored: Stored,
}

impl Log {
    /// Answers what was asked for, and packs a piece of a segment, on the caller's thread.
    pub fn work_reads(&self) -> Work {
        let mut reading = lock(&self.reads.work);
        let mut did = false;
        let mut later = VecDeque::new();
        lock(&self.reads.state).kicked = false;
        loop {
            let Some((writer, fetch)) = lock(&self.reads.state).requests.pop_front() else { break };
            // Set before the look at what is written, so that no sign of more is missed.
            self.reads.waiting.store(true, Ordering::SeqCst);
            if self.must_wait(&fetch) {
                later.push_back((writer, fetch));
                continue;
            }
            let fetched = self.fetch(fetch, &mut reading.buffer);
            self.reads.give(writer, fetched);
            self.wake(writer);
            did = true;
        }
        self.reads.waiting.store(!later.is_empty(), Ordering::SeqCst);
        if !later.is_empty() {
            let mut state = lock(&self.reads.state);
            later.append(&mut state.requests);
            state.requests = later;
        }
        if reading.buffer.capacity() > KEPT_BYTES {
            reading.buffer = Vec::new();
        }
        did |= self.pack_some(&mut reading.packing);
        Work { did, next_ms: None }
    }

    /// Whether a message of it is soon to be written. With a disk that is full or stopped nothing
    /// is; then it is still in memory.
    /// Reads many messages at once, on the caller's thread: for the start. They are best in the
    /// order of their positions; one that cannot be read is none, which was told.
    pub fn read_many(&self, wanted: &[Stored]) -> Vec<Option<MessageBody>> {
        let fetch = Fetch { token: 0, wanted: wanted.to_vec() };
        self.fetch(fetch, &mut Vec::new()).bodies
    }

    fn must_wait(&self, fetch: &Fetch) -> bool {
        let done = Position(self.done.load(Ordering::SeqCst));
        let soon = fetch.wanted.iter().any(|stored| stored.position >= done);
        soon && !self.is_full() && !self.is_stopped()
    }

    fn fetch(&self, fetch: Fetch, buffer: &mut Vec<u8>) -> Fetched {
        let mut bodies: Vec<Option<MessageBody>> = Vec::new();
        bodies.resize_with(fetch.wanted.len(), || None);
        let done = Position(self.done.load(Ordering::Acquire));
        let mut found = Vec::with_capacity(fetch.wanted.len());
        for (index, stored) in fetch.wanted.iter().enumerate() {
            let read = if stored.position >= done {
                self.read_in_memory(*stored).map(|body| put(&mut bodies, index, body))
            } else {
                self.locate(index, *stored).map(|wanted| found.push(wanted))
            };
            if let Err(error) = read {
                self.unreadable(*stored, error);
            }
        }
        found.sort_by_key(|wanted| (wanted.segment.start, wanted.place));
        let mut rest = found.as_slice();
        while !rest.is_empty() {
            let (span, behind) = rest.split_at(span(rest));
            self.read_span(span, buffer, &mut bodies);
            rest = behind;
        }
        Fetched { token: fetch.token, bodies }
    }

    fn locate(&self, index: usize, stored: Stored) -> Result<Wanted, ReadError> {
        let segment = self.segments.find(stored.position.0).ok_or(ReadError::Missing)?;
        let place = segment.place(stored)?;
        Ok(Wanted { index, segment, place, stored })
    }

    fn read_span(&self, span: &[Wanted], buffer: &mut Vec<u8>, bodies: &mut [Option<MessageBody>]) {
        let (Some(first), Some(last)) = (span.first(), span.last()) else { return };
        let segment = &first.segment;
        let len = last.place + u64::from(last.stored.len) - first.place;
        if span.len() > 1 && segment.file.size().is_ok_and(|size| first.place + len <= size) {
            buffer.resize(len as usize, 0);
            if segment.file.read_at(first.place, buffer).is_ok() {
                for wanted in span {
                    let from = (wanted.place - first.place) as usize;
                    let bytes = buffer.get(from..from + wanted.stored.len as usize);
                    match MessageBody::new(bytes.unwrap_or_default().into()) {
                        Ok(body) => put(bodies, wanted.index, body),
                        Err(what) => {
                            self.unreadable(wanted.stored, segment.damaged(wanted.place, what));
                        }
                    }
                }
                return;
            }
        }
        // Alone, so that one that fails does not take others with it.
        for wanted in span {
            match segment.read(wanted.stored) {
                Ok(body) => put(bodies, wanted.index, body),
                Err(error) => self.unreadable(wanted.stored, error),
            }
        }
    }

    fn unreadable(&self, stored: Stored, error: ReadError) {
        let place = format!("the log, position {:#x}", stored.position.0);
        let (file, offset, what) = match error {
            ReadError::Damaged { file, offset, what } => (file, offset, what.to_owned()),
            ReadError::Io { file, error } => (file, 0, error.to_string()),
            error => (place, stored.position.0, error.to_string()),
        };
        self.tell(Event::Unreadable { file, offset, what });
    }

    fn pack_some(&self, packing: &mut Option<Packing>) -> bool {
        if packing.is_none() {
            let Some((start, messages)) = lock(&self.reads.state).to_pack.pop_front() else {
                return false;
            };
            *packing = self.begin_packing(start, messages);
        }
        if let Some(under_way) = packing
            && self.pack_on(under_way)
        {
            *packing = None;
        }
        true
    }
}

/// How many of `wanted` are to be read at once.
fn span(wanted: &[Wanted]) -> usize {
    let Some(first) = wanted.first() else { return 0 };
    let mut end = first.place + u64::from(first.stored.len);
    for (index, next) in wanted.iter().enumerate().skip(1) {
        let next_end = end.max(next.place + u64::from(next.stored.len));
        let far = next.place > end + GAP_BYTES || next_end - first.place > SPAN_BYTES;
        // One that was asked for twice may end before another that begins with it.
        if far || next_end != next.place + u64::from(next.stored.len) {
            return index;
        }
        if !Arc::ptr_eq(&first.segment, &next.segment) {
            return index;
        }
        end = next_end;
    }
    wanted.len()
}

fn put(bodies: &mut [Option<MessageBody>], index: usize, body: MessageBody) {
    if let Some(place) = bodies.get_mut(index) {
        *place = Some(body);
    }
}
