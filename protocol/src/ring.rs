//! Queues in memory that their owner chooses: the same flows run on a server, where queues grow,
//! and on a microcontroller, where they must not.

/// A queue that can also be changed in the middle.
pub trait Ring<T> {
    /// How many items there are.
    fn len(&self) -> usize;
    /// True if there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether one more item may be added.
    fn has_room(&self) -> bool;
    /// The item at this place, counted from the front.
    fn get(&self, at: usize) -> Option<&T>;
    /// The item at this place, to be changed.
    fn get_mut(&mut self, at: usize) -> Option<&mut T>;
    /// All items from the front, to be changed.
    fn iter_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut T>
    where
        T: 'a;
    /// Adds an item at the back; false if there is no room.
    fn push_back(&mut self, item: T) -> bool;
    /// Takes the item at the front.
    fn pop_front(&mut self) -> Option<T>;
    /// Adds an item in front of the one at this place; false if there is no room.
    fn insert(&mut self, at: usize, item: T) -> bool;
    /// Takes the item at this place.
    fn remove(&mut self, at: usize) -> Option<T>;
    /// Takes all items out.
    fn clear(&mut self);
    /// Gives memory back that holds nothing.
    fn shrink(&mut self);
}

/// Grows as it needs to.
#[cfg(feature = "alloc")]
impl<T> Ring<T> for alloc::collections::VecDeque<T> {
    #[inline]
    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn has_room(&self) -> bool {
        true
    }

    #[inline]
    fn get(&self, at: usize) -> Option<&T> {
        self.get(at)
    }

    #[inline]
    fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.get_mut(at)
    }

    fn iter_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut T>
    where
        T: 'a,
    {
        self.iter_mut()
    }

    #[inline]
    fn push_back(&mut self, item: T) -> bool {
        self.push_back(item);
        true
    }

    #[inline]
    fn pop_front(&mut self) -> Option<T> {
        self.pop_front()
    }

    #[inline]
    fn insert(&mut self, at: usize, item: T) -> bool {
        self.insert(at, item);
        true
    }

    #[inline]
    fn remove(&mut self, at: usize) -> Option<T> {
        self.remove(at)
    }

    #[inline]
    fn clear(&mut self) {
        self.clear();
    }

    #[inline]
    fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        }
    }
}
