//! Topics of late and whom they reach, so that the table of subscriptions is walked once per topic
//! and change, not per message.

use whimbrel_topics::{Route, Routes, Stamp};

const SETS: usize = 2048;
const WAYS: usize = 4;

/// Whom a topic reaches, and for which state of the table that holds.
pub(crate) struct Resolved {
    pub(crate) hash: u64,
    pub(crate) stamp: Stamp,
    topic: String,
    pub(crate) route: Route,
    /// Not in a set: comes back to [`RouteCache::passing`].
    passing: bool,
}

/// A set-associative cache: bounded, and nothing to keep in order.
///
/// A topic enters a full set only when it is missed twice in a row there. So a stream over more
/// topics than the cache holds leaves it alone, and is served from one entry that stays in the
/// processor's own cache.
pub(crate) struct RouteCache {
    sets: Vec<Set>,
    passing: Option<Box<Resolved>>,
}

/// One cache line: a miss touches no entry.
#[derive(Default)]
#[repr(align(64))]
struct Set {
    entries: [Option<Box<Resolved>>; WAYS],
    /// Parts of the entries' hashes.
    tags: [u32; WAYS],
    /// Tag of the topic missed last.
    missed: u32,
    /// Which way is replaced next.
    turn: u8,
}

impl RouteCache {
    pub(crate) fn new() -> RouteCache {
        let sets = std::iter::repeat_with(Set::default).take(SETS).collect();
        RouteCache { sets, passing: None }
    }

    /// Takes the route of `topic` out, resolving it if need be; [`RouteCache::put`] brings it back.
    #[inline]
    pub(crate) fn take(&mut self, routes: &Routes, shard: u16, topic: &str) -> Box<Resolved> {
        let hash = routes.topic_hash(topic);
        if let Some(set) = self.sets.get_mut(hash as usize % SETS) {
            for (tag, slot) in set.tags.iter().zip(&mut set.entries) {
                if *tag == tag_of(hash)
                    && slot.as_ref().is_some_and(|e| e.hash == hash && e.topic == topic)
                    && let Some(mut entry) = slot.take()
                {
                    if !routes.is_current(hash, entry.stamp) {
                        entry.stamp = routes.resolve(topic, hash, shard, &mut entry.route);
                    }
                    return entry;
                }
            }
        }
        self.resolve(routes, shard, topic, hash)
    }

    #[cold]
    fn resolve(&mut self, routes: &Routes, shard: u16, topic: &str, hash: u64) -> Box<Resolved> {
        let mut entry = match self.room_for(hash) {
            Some(entry) => entry,
            None => self.passing.take().unwrap_or_else(|| Box::new(Resolved::empty(true))),
        };
        entry.hash = hash;
        entry.topic.clear();
        entry.topic.push_str(topic);
        entry.stamp = routes.resolve(topic, hash, shard, &mut entry.route);
        entry
    }

    /// An entry to fill, whose place in its set is free now; none if the topic is not to enter.
    fn room_for(&mut self, hash: u64) -> Option<Box<Resolved>> {
        let set = self.sets.get_mut(hash as usize % SETS)?;
        if set.entries.iter().any(Option::is_none) {
            return Some(Box::new(Resolved::empty(false)));
        }
        if std::mem::replace(&mut set.missed, tag_of(hash)) != tag_of(hash) {
            return None;
        }
        set.turn = set.turn.wrapping_add(1);
        set.entries.get_mut(usize::from(set.turn) % WAYS)?.take()
    }

    /// Brings back what [`RouteCache::take`] gave.
    #[inline]
    pub(crate) fn put(&mut self, entry: Box<Resolved>) {
        if entry.passing {
            self.passing = Some(entry);
            return;
        }
        let Some(set) = self.sets.get_mut(entry.hash as usize % SETS) else { return };
        let free = set.tags.iter_mut().zip(&mut set.entries).find(|(_, slot)| slot.is_none());
        if let Some((tag, slot)) = free {
            *tag = tag_of(entry.hash);
            *slot = Some(entry);
        }
    }
}

impl Resolved {
    fn empty(passing: bool) -> Resolved {
        Resolved {
            hash: 0,
            stamp: Stamp::default(),
            topic: String::new(),
            route: Route::default(),
            passing,
        }
    }
}

/// The bits that do not choose the set.
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}
