//! Room for a log that is opened on a full disk.
//!
//! A log frees room by writing: a pass. Where there is no room to write one, nothing would ever
//! change. So what nobody can want any more is removed at once.

use std::collections::BTreeSet;

use crate::event::Event;
use crate::log::{Log, lock};
use crate::{Recovered, Stored};

impl Log {
    /// Makes room for the reserve, if it was not there.
    pub(crate) fn make_room(&self, recovered: &Recovered) {
        let writing = &mut *lock(&self.writing);
        if writing.has_reserve() {
            return;
        }
        writing.give_back_ahead();
        let bytes = self.options.reserve_bytes;
        if writing.make_reserve(&*self.disk, bytes).is_ok() {
            return;
        }
        self.remove_dead(writing.pass.ended_began, recovered);
        if let Err(error) = writing.make_reserve(&*self.disk, bytes) {
            self.tell(Event::NoReserve { error });
        }
    }

    /// Removes segments that end before the last pass, whose records are not read any more, and
    /// that hold no message that is wanted.
    fn remove_dead(&self, began: u64, recovered: &Recovered) {
        let mut alive = BTreeSet::new();
        each_stored(recovered, |stored| {
            alive.extend(self.segments.find(stored.position.0).map(|segment| segment.start));
        });
        let dead = |end: u64, start: u64| end <= began && !alive.contains(&start);
        for segment in self.segments.all() {
            if dead(segment.end(), segment.start) {
                self.remove_segment(segment.start);
            }
        }
        if let Err(error) = self.disk.sync_dir() {
            self.tell(Event::Kept { file: "the data directory".into(), error });
        }
    }
}

fn each_stored(recovered: &Recovered, mut each: impl FnMut(Stored)) {
    for session in &recovered.sessions {
        let in_flight = session.in_flight.iter().filter_map(|delivery| delivery.entry.as_ref());
        in_flight.for_each(|entry| each(entry.stored));
        session.queue.iter().for_each(|entry| each(entry.stored));
    }
    recovered.retained.iter().for_each(|stored| each(*stored));
    recovered.unrouted.iter().for_each(|unrouted| each(unrouted.stored));
}
