//! A map that forgets.

use std::collections::HashMap;
use std::hash::Hash;

use crate::Millis;

/// Entries of one generation; there are two.
const MOST: usize = 16 * 1024;

/// Keeps what was asked for of late: for `keep_ms` and at most twice that, unless more than
/// [`MOST`] others are asked for in between. So however many keys peers make up, it stays small,
/// and nothing in it is ever searched through.
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    since: Millis,
    keep_ms: u64,
}

impl<K: Hash + Eq, V: Default> Generations<K, V> {
    pub(crate) fn new() -> Generations<K, V> {
        Generations {
            young: HashMap::new(),
            old: HashMap::new(),
            since: Millis(0),
            keep_ms: 60_000,
        }
    }

    /// Nothing is forgotten earlier than this from now on, unless there is too much.
    pub(crate) fn keep_s(&mut self, seconds: u32) {
        self.keep_ms = self.keep_ms.max(u64::from(seconds) * 1000);
    }

    /// The value of a key, made if it is not there.
    pub(crate) fn entry(&mut self, now: Millis, key: K) -> &mut V {
        self.age(now);
        let known = self.old.remove(&key).unwrap_or_default();
        self.young.entry(key).or_insert(known)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn insert(&mut self, now: Millis, key: K, value: V) {
        self.age(now);
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    fn age(&mut self, now: Millis) {
        let age_ms = now.0.saturating_sub(self.since.0);
        if age_ms < self.keep_ms && self.young.len() < MOST {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        if age_ms >= 2 * self.keep_ms {
            self.old = HashMap::new();
        }
        self.since = now;
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_keys_do_not_make_it_grow() {
        let mut map = Generations::<u32, u32>::new();
        for key in 0..1_000_000 {
            *map.entry(Millis(1), key) += 1;
        }
        assert!(map.len() <= 2 * MOST);
        assert!(map.young.capacity() + map.old.capacity() <= 8 * MOST);
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let mut map = Generations::<u32, u32>::new();
        *map.entry(Millis(0), 1) = 7;
        *map.entry(Millis(0), 2) = 7;
        for second in 1..1000 {
            assert_eq!(*map.entry(Millis(second * 1000), 1), 7);
        }
        assert_eq!(map.get(&2), None);
        assert_eq!(map.len(), 1);
        assert_eq!(*map.entry(Millis(5_000_000), 1), 0, "after a long silence all is forgotten");
    }
}
