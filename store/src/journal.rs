//! A shard's end of the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::layout::FRAME_HEADER_BYTES;
use crate::log::{Handover, Log, begin_batch};
use crate::pass::Notes;
use crate::{
    Committed, Event, Fetch, Fetched, MessageBody, MessageRecord, Record, SessionKey, Store,
    Stored, Ticket,
};

/// Collects the records of a tick and hands them to the log. See [`Store`] for its methods.
pub struct Journal {
    log: Arc<Log>,
    writer: u16,
    /// Room for the frame's header, and the records of the batch.
    batch: Vec<u8>,
    /// What records refer to, while a pass wants to know.
    notes: Option<Box<Notes>>,
    /// To be told with the next commit.
    restated: Option<u64>,
    /// The last pass that this journal has stated everything in.
    restated_last: u64,
    /// The last round that it has taken part in.
    round: u64,
}

impl Journal {
    pub(crate) fn new(log: Arc<Log>, writer: u16) -> Journal {
        let mut batch = Vec::new();
        begin_batch(&mut batch);
        Journal { log, writer, batch, notes: None, restated: None, restated_last: 0, round: 0 }
    }

    /// The number of this journal, for [`Position::here`](crate::Position::here).
    pub fn writer(&self) -> u16 {
        self.writer
    }

    /// The log behind it.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    fn note(&mut self, pass: u64, record: &Record<'_>) {
        let stored = match record {
            Record::Queued { entry, .. } | Record::Delivered { entry, .. } => entry.stored,
            Record::Retained { stored, .. } | Record::Routing { stored, .. } => *stored,
            Record::QueuedMany { entries, .. } => {
                entries.iter().for_each(|entry| self.note_stored(pass, entry.stored));
                return;
            }
            _ => return,
        };
        self.note_stored(pass, stored);
    }

    fn note_stored(&mut self, pass: u64, stored: Stored) {
        // What is in this batch is younger than anything that could be garbage.
        if stored.position.writer().is_some() {
            return;
        }
        let fits = self.notes.as_ref().is_some_and(|notes| notes.pass() == pass);
        if !fits {
            self.notes = Some(Box::new(Notes::new(self.log.pass.plan())));
        }
        if let Some(notes) = &mut self.notes {
            notes.note(stored);
        }
    }

    /// The rest of [`Store::commit`], now and then: tells what a pass wants to know.
    #[cold]
    fn commit_pass(&mut self, round: u64) {
        self.round = round;
        if let Some(notes) = self.notes.take() {
            self.log.pass.merge(*notes);
        }
    }
}

impl Store for Journal {
    fn is_durable(&self) -> bool {
        true
    }

    fn new_key(&mut self) -> SessionKey {
        SessionKey(self.log.next_key.fetch_add(1, Ordering::Relaxed))
    }

    fn message(&mut self, message: &MessageRecord<'_>) -> u32 {
        let offset = self.batch.len() - FRAME_HEADER_BYTES;
        message.encode(&mut self.batch);
        offset as u32
    }

    fn record(&mut self, record: &Record<'_>) {
        let noting = self.log.pass.noting.load(Ordering::Acquire);
        if noting != 0 {
            self.note(noting, record);
        }
        record.encode(&mut self.batch);
    }

    fn commit(&mut self) -> Option<Committed> {
        let round = self.log.pass.round.load(Ordering::Acquire);
        if self.restated.is_some() || round != self.round {
            self.commit_pass(round);
        } else if self.batch.len() == FRAME_HEADER_BYTES {
            return None;
        }
        let handover = Handover { writer: self.writer, restated: self.restated.take(), round };
        self.log.enqueue(&mut self.batch, &handover)
    }

    fn synced(&self) -> Ticket {
        self.log.synced()
    }

    fn is_full(&self) -> bool {
        self.log.is_full()
    }

    fn backlog_bytes(&self) -> usize {
        self.log.backlog_bytes()
    }

    fn fetch(&mut self, fetch: Fetch) {
        self.log.reads.ask(self.writer, fetch);
    }

    fn poll_fetched(&mut self) -> Option<Fetched> {
        self.log.reads.answer(self.writer)
    }

    fn read(&self, stored: Stored) -> Option<MessageBody> {
        self.log.read(stored).map_or_else(
            |error| {
                let (file, offset) = ("the log".into(), stored.position.0);
                self.log.tell(Event::Unreadable { file, offset, what: error.to_string() });
                None
            },
            Some,
        )
    }

    fn restating(&self) -> Option<u64> {
        let pass = self.log.pass.restating.load(Ordering::Acquire);
        (pass > self.restated_last).then_some(pass)
    }

    fn restated(&mut self, pass: u64) {
        self.restated = Some(pass);
        self.restated_last = pass;
    }
}
