//! Passes: which segments could be garbage, and what shows that they are not.
//!
//! A pass that is under way has a [`Plan`]: segments that are old enough to be removed, and a few
//! of them that could be packed. Each journal makes [`Notes`] of what its records refer to, alone,
//! and hands them over when it has stated everything. Two rounds follow the end of a pass, in
//! which every journal commits once more: what was on its way between shards when the pass ended
//! has then arrived and was noted too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::log::lock;
use crate::message::Stored;
use crate::segments::Segment;

/// Segments of which each pass notes every message that is alive.
const CANDIDATES: usize = 8;

/// What a pass wants to know about.
#[derive(Default)]
pub(crate) struct Plan {
    pass: u64,
    /// Segments that may be removed, ascending.
    places: Vec<PlanPlace>,
}

/// A segment that may be removed.
#[derive(Clone, Copy)]
pub(crate) struct PlanPlace {
    pub start: u64,
    pub end: u64,
    /// Set: which messages in it are alive is noted too, while they have not more bytes than
    /// this.
    pub candidate: Option<u64>,
}

impl Plan {
    /// For segments that end before `limit`; gives also where the next pass begins to look for
    /// candidates.
    pub(crate) fn new(pass: u64, all: &[Arc<Segment>], limit: u64, rotor: u64) -> (Plan, u64) {
        let mut places: Vec<PlanPlace> = all
            .iter()
            .filter(|segment| segment.end() <= limit)
            .map(|segment| PlanPlace { start: segment.start, end: segment.end(), candidate: None })
            .collect();
        let first = places.partition_point(|place| place.start < rotor);
        let count = places.len();
        let mut next = 0;
        for index in (0..count.min(CANDIDATES)).map(|step| (first + step) % count) {
            let size = all.get(index).and_then(|segment| segment.file.size().ok()).unwrap_or(0);
            if let Some(place) = places.get_mut(index) {
                place.candidate = Some(size / 2);
                next = place.end;
            }
        }
        (Plan { pass, places }, next)
    }
}

/// What records of a pass refer to.
pub(crate) struct Notes {
    plan: Arc<Plan>,
    /// For each place of the plan.
    seen: Vec<Seen>,
}

#[derive(Default)]
struct Seen {
    alive: bool,
    /// Position and length of each message, perhaps more than once.
    exact: Vec<(u64, u32)>,
    /// When `exact` has this many, those that are there twice are removed.
    tidy_at: usize,
    /// Too much is alive to go on noting.
    too_many: bool,
}

impl Notes {
    pub(crate) fn new(plan: Arc<Plan>) -> Notes {
        let seen = plan.places.iter().map(|_| Seen::default()).collect();
        Notes { plan, seen }
    }

    pub(crate) fn pass(&self) -> u64 {
        self.plan.pass
    }

    pub(crate) fn note(&mut self, stored: Stored) {
        let position = stored.position.0;
        let Some(last) = self.plan.places.last() else { return };
        if position >= last.end {
            return;
        }
        let behind = self.plan.places.partition_point(|place| place.start <= position);
        let Some(index) = behind.checked_sub(1) else { return };
        let (Some(place), Some(seen)) = (self.plan.places.get(index), self.seen.get_mut(index))
        else {
            return;
        };
        if position < place.end {
            seen.alive = true;
            if let Some(most) = place.candidate {
                seen.add(position, stored.len, most);
            }
        }
    }

    fn absorb(&mut self, other: Notes) {
        for (index, theirs) in other.seen.into_iter().enumerate() {
            let (Some(place), Some(ours)) = (self.plan.places.get(index), self.seen.get_mut(index))
            else {
                return;
            };
            ours.alive |= theirs.alive;
            ours.too_many |= theirs.too_many;
            let most = place.candidate.unwrap_or(0);
            for (position, len) in theirs.exact {
                ours.add(position, len, most);
            }
            if ours.too_many {
                ours.exact = Vec::new();
            }
        }
    }

    /// For each place of the plan, if it is alive: what is to be kept of it, if it can be packed.
    pub(crate) fn finish(mut self) -> Vec<(PlanPlace, Verdict)> {
        let plan = self.plan.clone();
        let places = plan.places.iter().copied();
        places
            .zip(self.seen.iter_mut())
            .map(|(place, seen)| {
                let verdict = match (seen.alive, place.candidate) {
                    (false, _) => Verdict::Remove,
                    (true, Some(most)) if !seen.too_many => {
                        seen.tidy(most);
                        if seen.too_many {
                            Verdict::Keep
                        } else {
                            Verdict::Pack(std::mem::take(&mut seen.exact))
                        }
                    }
                    _ => Verdict::Keep,
                };
                (place, verdict)
            })
            .collect()
    }
}

/// What becomes of a segment.
pub(crate) enum Verdict {
    Remove,
    Keep,
    /// Position and length of each message in it that is alive, ascending.
    Pack(Vec<(u64, u32)>),
}

impl Seen {
    fn add(&mut self, position: u64, len: u32, most: u64) {
        if self.too_many || self.exact.last() == Some(&(position, len)) {
            return;
        }
        self.exact.push((position, len));
        if self.exact.len() >= self.tidy_at.max(1024) {
            self.tidy(most);
        }
    }

    fn tidy(&mut self, most: u64) {
        self.exact.sort_unstable();
        self.exact.dedup();
        self.tidy_at = self.exact.len() * 2;
        let index = crate::layout::INDEX_ENTRY_BYTES as u64;
        let bytes: u64 = self.exact.iter().map(|(_, len)| u64::from(*len) + index).sum();
        if bytes > most {
            self.too_many = true;
            self.exact = Vec::new();
        }
    }
}

/// What journals and the store thread share about the pass that is under way.
#[derive(Default)]
pub(crate) struct PassShared {
    /// The pass in which shards are to state everything; 0: none.
    pub restating: AtomicU64,
    /// The pass for which notes are made; 0: none. Set before `restating`.
    pub noting: AtomicU64,
    /// Counts up when every journal is to commit once more.
    pub round: AtomicU64,
    plan: Mutex<Arc<Plan>>,
    merged: Mutex<Option<Notes>>,
}

impl PassShared {
    pub(crate) fn plan(&self) -> Arc<Plan> {
        lock(&self.plan).clone()
    }

    /// Asks all journals for notes and for stating everything.
    pub(crate) fn begin(&self, plan: Plan) {
        let pass = plan.pass;
        let plan = Arc::new(plan);
        *lock(&self.plan) = plan.clone();
        *lock(&self.merged) = Some(Notes::new(plan));
        self.noting.store(pass, Ordering::Release);
        self.restating.store(pass, Ordering::Release);
    }

    /// Takes the notes of a journal.
    pub(crate) fn merge(&self, notes: Notes) {
        if let Some(merged) = &mut *lock(&self.merged)
            && merged.pass() == notes.pass()
        {
            merged.absorb(notes);
        }
    }

    /// Nothing more is to be noted; what was.
    pub(crate) fn end(&self) -> Option<Notes> {
        self.noting.store(0, Ordering::Release);
        lock(&self.merged).take()
    }
}
