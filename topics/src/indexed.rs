//! A list that stays quick to search however long it grows.

use hashbrown::HashTable;

/// Up to this many items a scan is as quick as a hash table and costs no memory.
const SCAN_MAX: usize = 32;

/// An item that knows the hash of its own key.
pub(crate) trait Keyed {
    fn key_hash(&self) -> u64;
}

/// Items in a `Vec`, plus a table of their positions once there are more than [`SCAN_MAX`].
///
/// Invariant: the table is empty, or holds the position of every item.
pub(crate) struct Indexed<T> {
    items: Vec<T>,
    positions: HashTable<u32>,
}

impl<T> Default for Indexed<T> {
    fn default() -> Self {
        Self { items: Vec::new(), positions: HashTable::new() }
    }
}

impl<T: Keyed> Indexed<T> {
    pub fn items(&self) -> &[T] {
        &self.items
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn get_mut(&mut self, position: usize) -> Option<&mut T> {
        self.items.get_mut(position)
    }

    /// Position of the item with this key.
    pub fn position(&self, key_hash: u64, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        if self.positions.is_empty() {
            return self.items.iter().position(is_it);
        }
        let at = |&position: &u32| self.items.get(position as usize).is_some_and(&is_it);
        self.positions.find(key_hash, at).map(|&position| position as usize)
    }

    /// Adds an item whose key is not in the list.
    pub fn push(&mut self, item: T) {
        let hash = item.key_hash();
        self.items.push(item);
        if !self.positions.is_empty() {
            let items = &self.items;
            self.positions.insert_unique(hash, items.len() as u32 - 1, |&p| hash_at(items, p));
        } else if self.items.len() > SCAN_MAX {
            let items = &self.items;
            for (position, item) in items.iter().enumerate() {
                let hash = item.key_hash();
                self.positions.insert_unique(hash, position as u32, |&p| hash_at(items, p));
            }
        }
    }

    /// Removes the item at `position`; the last item takes its place.
    pub fn swap_remove(&mut self, position: usize) -> Option<T> {
        let last = self.items.len().checked_sub(1)?;
        self.swap(position, last);
        let hash = self.items.get(last)?.key_hash();
        if let Ok(entry) = self.positions.find_entry(hash, |&p| p as usize == last) {
            entry.remove();
        }
        let item = self.items.pop();
        self.shrink();
        item
    }

    /// Exchanges two items.
    pub fn swap(&mut self, a: usize, b: usize) {
        if a == b || a.max(b) >= self.items.len() {
            return;
        }
        if !self.positions.is_empty() {
            let [hash_a, hash_b] = [a, b].map(|p| hash_at(&self.items, p as u32));
            // Found first and written afterwards: both may have the same hash.
            let bucket_a = self.positions.find_bucket_index(hash_a, |&p| p as usize == a);
            let bucket_b = self.positions.find_bucket_index(hash_b, |&p| p as usize == b);
            for (bucket, position) in [(bucket_a, b), (bucket_b, a)] {
                if let Some(place) = bucket.and_then(|at| self.positions.get_bucket_mut(at)) {
                    *place = position as u32;
                }
            }
        }
        self.items.swap(a, b);
    }

    /// Gives memory back when the list is a quarter of what it was.
    fn shrink(&mut self) {
        if self.items.len() <= SCAN_MAX / 2 && !self.positions.is_empty() {
            self.positions = HashTable::new();
        }
        if self.items.len() < self.items.capacity() / 4 {
            self.items.shrink_to(self.items.len() * 2);
            let items = &self.items;
            self.positions.shrink_to(items.len() * 2, |&p| hash_at(items, p));
        }
    }
}

fn hash_at<T: Keyed>(items: &[T], position: u32) -> u64 {
    items.get(position as usize).map_or(0, Keyed::key_hash)
}
