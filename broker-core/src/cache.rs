//! Topics of late and whom they reach, so that the table of subscriptions is walked once per topic
//! and change, not per message.

use whimbrel_topics::{Route, Routes, Stamp};

/// Sets of [`WAYS`] entries; a power of two.
const SETS: usize = 2048;
const WAYS: usize = 4;

/// A route that was resolved, and for which topic and state of the table it holds.
pub(crate) struct Resolved {
    hash: u64,
    stamp: Stamp,
    topic: String,
    pub(crate) route: Route,
}

/// A set-associative cache: bounded, and nothing to keep in order.
pub(crate) struct RouteCache {
    entries: Vec<Option<Box<Resolved>>>,
    /// Which way of a set is replaced next.
    turn: usize,
}

impl RouteCache {
    pub(crate) fn new() -> RouteCache {
        RouteCache { entries: std::iter::repeat_with(|| None).take(SETS * WAYS).collect(), turn: 0 }
    }

    /// Takes the route of `topic` out, resolving it if need be; [`RouteCache::put`] brings it back.
    #[inline]
    pub(crate) fn take(&mut self, routes: &Routes, shard: u16, topic: &str) -> Box<Resolved> {
        let hash = routes.topic_hash(topic);
        let set = hash as usize % SETS * WAYS;
        let ways = self.entries.get_mut(set..set + WAYS).unwrap_or_default();
        let hit = ways.iter_mut().find(|slot| {
            slot.as_ref().is_some_and(|entry| entry.hash == hash && entry.topic == topic)
        });
        if let Some(slot) = hit
            && let Some(mut entry) = slot.take()
        {
            if !routes.is_current(hash, entry.stamp) {
                entry.stamp = routes.resolve(topic, hash, shard, &mut entry.route);
            }
            return entry;
        }
        self.turn = self.turn.wrapping_add(1);
        // An evicted entry's memory serves the new one.
        let reused = match ways.iter().position(Option::is_none) {
            Some(_) => None,
            None => ways.get_mut(self.turn % WAYS).and_then(Option::take),
        };
        let mut route = Route::default();
        let (mut entry_topic, boxed) = match reused {
            Some(mut old) => {
                route = std::mem::take(&mut old.route);
                (std::mem::take(&mut old.topic), Some(old))
            }
            None => (String::new(), None),
        };
        let stamp = routes.resolve(topic, hash, shard, &mut route);
        entry_topic.clear();
        entry_topic.push_str(topic);
        let resolved = Resolved { hash, stamp, topic: entry_topic, route };
        match boxed {
            Some(mut boxed) => {
                *boxed = resolved;
                boxed
            }
            None => Box::new(resolved),
        }
    }

    /// Brings back what [`RouteCache::take`] gave.
    #[inline]
    pub(crate) fn put(&mut self, entry: Box<Resolved>) {
        let set = entry.hash as usize % SETS * WAYS;
        let ways = self.entries.get_mut(set..set + WAYS).unwrap_or_default();
        if let Some(slot) = ways.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(entry);
        }
    }
}
