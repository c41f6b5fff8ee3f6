//! Memory that the application lends or that grows, behind one face.

use whimbrel_protocol::Ring;

/// A slice of items. Lent, it has a fixed length; owned, it grows up to a limit.
pub(crate) enum Storage<'m, T> {
    Lent(&'m mut [T]),
    #[cfg(feature = "alloc")]
    Owned {
        items: alloc::vec::Vec<T>,
        max: usize,
    },
}

impl<T> Storage<'_, T> {
    /// Nothing yet, and at most `max` items.
    #[cfg(feature = "alloc")]
    pub(crate) const fn growing(max: usize) -> Storage<'static, T> {
        Storage::Owned { items: alloc::vec::Vec::new(), max }
    }

    #[inline]
    pub(crate) fn items(&self) -> &[T] {
        match self {
            Storage::Lent(items) => items,
            #[cfg(feature = "alloc")]
            Storage::Owned { items, .. } => items,
        }
    }

    #[inline]
    pub(crate) fn items_mut(&mut self) -> &mut [T] {
        match self {
            Storage::Lent(items) => items,
            #[cfg(feature = "alloc")]
            Storage::Owned { items, .. } => items,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.items().len()
    }

    /// The most items that there can be.
    pub(crate) const fn max(&self) -> usize {
        match self {
            Storage::Lent(items) => items.len(),
            #[cfg(feature = "alloc")]
            Storage::Owned { max, .. } => *max,
        }
    }

    /// Gives the memory back; what is lent stays.
    pub(crate) fn release(&mut self) {
        #[cfg(feature = "alloc")]
        if let Storage::Owned { items, .. } = self {
            *items = alloc::vec::Vec::new();
        }
    }
}

impl<T: Copy + Default> Storage<'_, T> {
    /// True once there are at least `len` items: doubled, so that growing costs little in all.
    pub(crate) fn grow_to(&mut self, len: usize) -> bool {
        match self {
            Storage::Lent(items) => len <= items.len(),
            #[cfg(feature = "alloc")]
            Storage::Owned { items, max } => {
                if len > *max {
                    return false;
                }
                if len > items.len() {
                    let len = len.max(items.len().saturating_mul(2)).max(4).min(*max);
                    items.reserve_exact(len - items.len());
                    items.resize(len, T::default());
                }
                true
            }
        }
    }
}

/// A queue in such memory.
pub(crate) struct Queue<'m, T> {
    slots: Storage<'m, T>,
    front: usize,
    len: usize,
}

impl<'m, T> Queue<'m, T> {
    pub(crate) const fn new(slots: Storage<'m, T>) -> Queue<'m, T> {
        Queue { slots, front: 0, len: 0 }
    }

    /// The most items that there can be.
    pub(crate) const fn max(&self) -> usize {
        self.slots.max()
    }

    /// Where the item at this place stands in `slots`.
    #[inline]
    fn index(&self, at: usize) -> usize {
        let index = self.front + at;
        let len = self.slots.len();
        if index >= len { index - len } else { index }
    }
}

impl<T: Copy + Default> Queue<'_, T> {
    fn grow(&mut self) -> bool {
        if self.len < self.slots.len() {
            return true;
        }
        self.slots.items_mut().rotate_left(self.front);
        self.front = 0;
        self.slots.grow_to(self.len + 1)
    }
}

impl<T: Copy + Default> Ring<T> for Queue<'_, T> {
    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    fn has_room(&self) -> bool {
        self.len < self.slots.max()
    }

    #[inline]
    fn get(&self, at: usize) -> Option<&T> {
        if at < self.len { self.slots.items().get(self.index(at)) } else { None }
    }

    #[inline]
    fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let index = self.index(at);
        if at < self.len { self.slots.items_mut().get_mut(index) } else { None }
    }

    fn iter_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut T>
    where
        T: 'a,
    {
        let (front, len) = (self.front, self.len);
        let (behind, ahead) = self.slots.items_mut().split_at_mut(front);
        let first = len.min(ahead.len());
        ahead.iter_mut().take(first).chain(behind.iter_mut().take(len - first))
    }

    fn push_back(&mut self, item: T) -> bool {
        if !self.grow() {
            return false;
        }
        let index = self.index(self.len);
        let Some(slot) = self.slots.items_mut().get_mut(index) else { return false };
        *slot = item;
        self.len += 1;
        true
    }

    fn pop_front(&mut self) -> Option<T> {
        let item = self.get(0).copied()?;
        self.front = self.index(1);
        self.len -= 1;
        Some(item)
    }

    fn insert(&mut self, at: usize, item: T) -> bool {
        if !self.push_back(item) {
            return false;
        }
        for place in (at..self.len - 1).rev() {
            self.swap_with_next(place);
        }
        true
    }

    fn remove(&mut self, at: usize) -> Option<T> {
        let item = self.get(at).copied()?;
        for place in at..self.len - 1 {
            self.swap_with_next(place);
        }
        self.len -= 1;
        Some(item)
    }

    fn clear(&mut self) {
        self.front = 0;
        self.len = 0;
    }

    fn shrink(&mut self) {
        if self.len == 0 {
            self.front = 0;
            self.slots.release();
        }
    }
}

impl<T: Copy + Default> Queue<'_, T> {
    fn swap_with_next(&mut self, at: usize) {
        let (a, b) = (self.index(at), self.index(at + 1));
        self.slots.items_mut().swap(a, b);
    }
}
