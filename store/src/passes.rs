//! The course of a pass: it begins, all shards state what they hold, it ends, what was on its way
//! settles, and segments without use are removed.

use std::io;
use std::sync::atomic::Ordering;

use crate::event::Event;
use crate::layout::FRAME_HEADER_BYTES;
use crate::log::{Durability, Log, lock};
use crate::pass::{Plan, Verdict};
use crate::write::Writing;
use crate::{Position, Record};

/// Rounds in which every journal commits once more, after a pass has ended: in the first, all
/// that a shard has sent before is with the others; in the second, these have noted it.
const ROUNDS: u8 = 2;

/// While the disk is full, a pass waits so long for the one before: at first, and at most.
const FULL_WAIT_MS: (u64, u64) = (500, 60_000);
/// With a full disk: more than this, beside twice what the last pass took, is worth another.
const NEWS_BYTES: u64 = 4096;

/// Where the passes stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct PassState {
    /// Of the last pass that began.
    pub number: u64,
    /// Where it began.
    pub began: u64,
    /// Where the last pass that ended began: what ends before is old.
    pub ended_began: u64,
    /// How much the last pass took.
    pub bytes: u64,
    pub stage: Stage,
    /// Where the next pass begins to look for candidates.
    pub rotor: u64,
    /// With a full disk: when the next pass may begin, and how long it waited for that.
    pub next_full_ms: u64,
    pub full_wait_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    #[default]
    Idle,
    /// Shards state what they hold.
    Restating,
    /// The last frame of the pass is to become durable; it ends here.
    Ending(u64),
    /// Every journal is to take part in this round, and in so many more.
    Settling(u64, u8),
}

impl Log {
    /// Takes the pass a step further, if it can be; says whether it was.
    pub(crate) fn advance_pass(&self, writing: &mut Writing, now_ms: u64) -> bool {
        match writing.pass.stage {
            Stage::Idle => self.pass_is_due(writing, now_ms) && self.begin_pass(writing),
            Stage::Restating => {
                let number = writing.pass.number;
                let all = lock(&self.queue).restated.iter().all(|pass| *pass >= number);
                all && self.end_pass(writing)
            }
            Stage::Ending(end) => match self.is_durable_at(writing, end) {
                Ok(durable) => durable && self.settle(writing, ROUNDS),
                Err(error) => {
                    let file = "the log".into();
                    self.tell(Event::SyncFailed { file, error });
                    self.pass.end();
                    writing.pass.stage = Stage::Idle;
                    true
                }
            },
            Stage::Settling(round, more) => {
                let all = lock(&self.queue).rounds.iter().all(|done| *done >= round);
                all && if more > 0 { self.settle(writing, more) } else { self.sweep(writing) }
            }
        }
    }

    fn pass_is_due(&self, writing: &mut Writing, now_ms: u64) -> bool {
        let pass = &mut writing.pass;
        let appended = lock(&self.queue).next - pass.began;
        if !self.is_full() {
            (pass.next_full_ms, pass.full_wait_ms) = (0, 0);
            return appended > self.options.pass_after_bytes.max(pass.bytes * 2);
        }
        // With a full disk little is appended, and a pass must free what was acknowledged since.
        // Each takes some of the room that is left: the more seldom, the longer it did not help.
        let news = appended > 2 * pass.bytes + NEWS_BYTES;
        let due = (news || now_ms >= pass.next_full_ms) && writing.pending().is_empty();
        if due {
            let pass = &mut writing.pass;
            pass.full_wait_ms = match news {
                true => FULL_WAIT_MS.0,
                false => (2 * pass.full_wait_ms).clamp(FULL_WAIT_MS.0, FULL_WAIT_MS.1),
            };
            pass.next_full_ms = now_ms + pass.full_wait_ms;
        }
        due
    }

    fn begin_pass(&self, writing: &mut Writing) -> bool {
        let pass = &mut writing.pass;
        pass.number = pass.number.saturating_add(1);
        pass.began = self.push_record(&Record::PassBegan { pass: pass.number }).0;
        pass.stage = Stage::Restating;
        let all = self.segments.all();
        let (plan, rotor) = Plan::new(pass.number, &all, pass.ended_began, pass.rotor);
        pass.rotor = rotor;
        self.pass.begin(plan);
        self.wake_all();
        true
    }

    fn end_pass(&self, writing: &mut Writing) -> bool {
        let pass = &mut writing.pass;
        let record = Record::PassEnded { pass: pass.number, began: Position(pass.began) };
        let (position, end) = self.push_record(&record);
        pass.bytes = position - pass.began;
        pass.stage = Stage::Ending(end);
        self.pass.restating.store(0, Ordering::Release);
        true
    }

    /// Queues a frame of one record; gives where it begins and ends.
    fn push_record(&self, record: &Record<'_>) -> (u64, u64) {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        record.encode(&mut bytes);
        let committed = self.push_own(bytes);
        (committed.base.0 - FRAME_HEADER_BYTES as u64, committed.ticket.0)
    }

    /// What a pass has stated must be on disk before anything else is taken away.
    fn is_durable_at(&self, writing: &mut Writing, end: u64) -> io::Result<bool> {
        let done = self.done.load(Ordering::Acquire);
        if self.options.durability != Durability::Fsync && done >= end {
            self.sync_lazily(writing, done)?;
        }
        Ok(writing.durable >= end)
    }

    fn settle(&self, writing: &mut Writing, more: u8) -> bool {
        let round = self.pass.round.fetch_add(1, Ordering::AcqRel) + 1;
        writing.pass.stage = Stage::Settling(round, more - 1);
        self.wake_all();
        true
    }

    /// Removes what nothing refers to, and has packed what little refers to.
    fn sweep(&self, writing: &mut Writing) -> bool {
        let pass = &mut writing.pass;
        pass.stage = Stage::Idle;
        pass.ended_began = pass.began;
        let Some(notes) = self.pass.end() else { return true };
        let (mut removed, mut packing) = (0, 0);
        for (place, verdict) in notes.finish() {
            match verdict {
                Verdict::Keep => {}
                Verdict::Remove => removed += usize::from(self.remove_segment(place.start)),
                Verdict::Pack(messages) => {
                    packing += 1;
                    self.reads.pack(place.start, messages);
                }
            }
        }
        if removed > 0
            && let Err(error) = self.disk.sync_dir()
        {
            self.tell(Event::Kept { file: "the data directory".into(), error });
        }
        self.tell(Event::Swept { pass: writing.pass.number, removed, packing });
        true
    }

    pub(crate) fn remove_segment(&self, start: u64) -> bool {
        let Some(segment) = self.segments.find(start) else { return false };
        match self.disk.remove(&segment.name()) {
            Ok(()) => {
                self.segments.remove(start);
                true
            }
            Err(error) => {
                self.tell(Event::Kept { file: segment.name(), error });
                false
            }
        }
    }
}
