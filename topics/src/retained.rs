//! The retained messages of a broker, in topic order.
//!
//! Sorted chunks of handles; a topic is not stored apart from its message. Topics are ordered
//! level by level, which is byte order with `/` below every other byte; so everything below a
//! level stands together, and a search for a filter can jump over what cannot match instead of
//! visiting it.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::filter::has_wildcard;

/// A handle to a message that contains its topic.
pub trait HasTopic {
    /// Topic name of the message; must stay the same while it is retained.
    fn topic(&self) -> &str;

    /// The same as bytes, which is all that the order needs: worth implementing where
    /// [`topic`](Self::topic) has to check UTF-8.
    fn topic_bytes(&self) -> &[u8] {
        self.topic().as_bytes()
    }
}

/// Retained messages, at most one for each topic.
///
/// Invariant: no chunk is empty or longer than `CHUNK_MAX`; all messages are in level order.
pub struct Retained<V> {
    chunks: Vec<Vec<V>>,
    len: usize,
}

/// Messages in a chunk: moving half of them costs less than finding the place. Tests use a small
/// one so that chunks part and join all the time.
const CHUNK_MAX: usize = if cfg!(test) { 8 } else { 256 };

/// Where a scan goes on; inserts and removals in between are fine.
///
/// A message that is there for the whole scan is visited exactly once.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// Smallest topic not visited yet.
    next: Vec<u8>,
    done: bool,
}

impl Cursor {
    /// Whether the scan has visited everything.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

/// A message by chunk and place in it; the first of the next chunk has only one position.
#[derive(Clone, Copy, Default)]
struct Position {
    chunk: usize,
    at: usize,
}

impl<V> Default for Retained<V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<V: HasTopic> Retained<V> {
    /// No messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Retains a message; returns the one it replaces.
    pub fn insert(&mut self, message: V) -> Option<V> {
        let (index, place) = self.find(message.topic_bytes());
        let is_last = index + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(vec![message]);
            self.len += 1;
            return None;
        };
        let at = match place {
            Ok(at) => return chunk.get_mut(at).map(|old| std::mem::replace(old, message)),
            Err(at) => at,
        };
        self.len += 1;
        if chunk.len() < CHUNK_MAX {
            chunk.insert(at, message);
        } else if is_last && at == CHUNK_MAX {
            // Topics that come in order leave full chunks behind.
            self.chunks.push(vec![message]);
        } else {
            let mut upper = chunk.split_off(CHUNK_MAX / 2);
            match at.checked_sub(CHUNK_MAX / 2) {
                Some(at) => upper.insert(at, message),
                None => chunk.insert(at, message),
            }
            self.chunks.insert(index + 1, upper);
        }
        None
    }

    /// Removes the message of exactly this topic.
    pub fn remove(&mut self, topic: &str) -> Option<V> {
        let (index, Ok(at)) = self.find(topic.as_bytes()) else { return None };
        let chunk = self.chunks.get_mut(index)?;
        let old = chunk.remove(at);
        self.len -= 1;
        if chunk.len() < CHUNK_MAX / 4 {
            self.join(index.saturating_sub(1));
            self.join(index);
        }
        Some(old)
    }

    /// The message of exactly this topic.
    pub fn get(&self, topic: &str) -> Option<&V> {
        let (index, place) = self.find(topic.as_bytes());
        self.chunks.get(index)?.get(place.ok()?)
    }

    /// Calls `f` for every message whose topic a valid filter matches, in topic order.
    pub fn for_each_match(
        &self,
        filter: &str,
        f: &mut impl FnMut(&V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self.scan(filter, &mut Cursor::default(), usize::MAX, f) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    /// Does a part of [`for_each_match`](Self::for_each_match): looks at no more than `max`
    /// messages (at least one), whether they match or not, and moves the cursor behind them.
    ///
    /// Starts with a default cursor. Returns true when everything has been visited. A message for
    /// which `f` breaks counts as visited.
    pub fn scan(
        &self,
        filter: &str,
        cursor: &mut Cursor,
        max: usize,
        f: &mut impl FnMut(&V) -> ControlFlow<()>,
    ) -> bool {
        if cursor.done {
            return true;
        }
        if !has_wildcard(filter) {
            cursor.done = true;
            return self.get(filter).is_none_or(|message| f(message).is_continue());
        }
        let mut left = max.max(1);
        let mut target = std::mem::take(&mut cursor.next);
        let mut position = self.seek(Position::default(), &target);
        while let Some(message) = self.at(position) {
            let topic = message.topic_bytes();
            if left == 0 {
                set_to(&mut target, &[topic]);
                cursor.next = target;
                return false;
            }
            left -= 1;
            position = self.after(position);
            match place(filter.as_bytes(), topic, &mut target) {
                Place::Match => {
                    if f(message).is_break() {
                        // The very next topic in level order.
                        set_to(&mut target, &[topic, b"/"]);
                        cursor.next = target;
                        return false;
                    }
                }
                Place::Before => position = self.seek(position, &target),
                Place::Behind => break,
            }
        }
        cursor.done = true;
        true
    }

    /// Visits every message, in parts as [`scan`](Self::scan) does, whatever its topic.
    pub fn visit(
        &self,
        cursor: &mut Cursor,
        max: usize,
        f: &mut impl FnMut(&V) -> ControlFlow<()>,
    ) -> bool {
        if cursor.done {
            return true;
        }
        let mut position = self.seek(Position::default(), &cursor.next);
        for _ in 0..max.max(1) {
            let Some(message) = self.at(position) else { break };
            position = self.after(position);
            if f(message).is_break() {
                break;
            }
        }
        match self.at(position) {
            Some(next) => set_to(&mut cursor.next, &[next.topic_bytes()]),
            None => cursor.done = true,
        }
        cursor.done
    }

    /// The chunk for a topic, and where in it the topic is or would be.
    fn find(&self, topic: &[u8]) -> (usize, Result<usize, usize>) {
        let starts_behind = |chunk: &Vec<V>| {
            chunk.first().is_some_and(|m| level_order(m.topic_bytes(), topic) == Ordering::Greater)
        };
        let behind = self.chunks.partition_point(|chunk| !starts_behind(chunk));
        let index = behind.saturating_sub(1);
        let place = self.chunks.get(index).map_or(Err(0), |chunk| {
            chunk.binary_search_by(|message| level_order(message.topic_bytes(), topic))
        });
        (index, place)
    }

    /// Joins a chunk and the next if they are half a chunk together, and forgets an empty one.
    fn join(&mut self, index: usize) {
        let Some([lower, upper]) = self.chunks.get_mut(index..).and_then(<[_]>::first_chunk_mut)
        else {
            self.chunks.pop_if(|last| last.is_empty());
            return;
        };
        let one_is_empty = lower.is_empty() || upper.is_empty();
        if one_is_empty || lower.len() + upper.len() <= CHUNK_MAX / 2 {
            lower.append(upper);
            self.chunks.remove(index + 1);
            if self.chunks.len() < self.chunks.capacity() / 4 {
                self.chunks.shrink_to(self.chunks.len() * 2);
            }
        }
    }

    fn at(&self, position: Position) -> Option<&V> {
        self.chunks.get(position.chunk)?.get(position.at)
    }

    fn after(&self, Position { chunk, at }: Position) -> Position {
        match self.chunks.get(chunk) {
            Some(messages) if at + 1 < messages.len() => Position { chunk, at: at + 1 },
            _ => Position { chunk: chunk + 1, at: 0 },
        }
    }

    /// The first message at or behind `from` whose topic is at least `target`.
    fn seek(&self, from: Position, target: &[u8]) -> Position {
        let is_less = |message: &V| level_order(message.topic_bytes(), target) == Ordering::Less;
        let chunk = first_not(from.chunk, self.chunks.len(), |index| {
            self.chunks.get(index).and_then(|chunk| chunk.last()).is_some_and(is_less)
        });
        let messages = self.chunks.get(chunk).map_or(&[][..], Vec::as_slice);
        let start = if chunk == from.chunk { from.at } else { 0 };
        let at = first_not(start, messages.len(), |at| messages.get(at).is_some_and(is_less));
        Position { chunk, at }
    }
}

/// The first index in `from..end` that is not less, else `end`; a near one is found quickest.
fn first_not(from: usize, end: usize, is_less: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut step) = (from, 1);
    let mut high = loop {
        let probe = low + step - 1;
        if probe >= end {
            break end;
        }
        if !is_less(probe) {
            break probe;
        }
        low = probe + 1;
        step *= 2;
    };
    while low < high {
        let middle = low + (high - low) / 2;
        if is_less(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Where a topic stands relative to the topics that a filter matches.
enum Place {
    Match,
    /// It does not match; the target is the smallest topic behind it that may.
    Before,
    /// Neither it nor any behind it matches.
    Behind,
}

fn place(filter: &[u8], topic: &[u8], target: &mut Vec<u8>) -> Place {
    // A leading wildcard does not match a topic that starts with $. [MQTT-4.7.2-1]
    if topic.first() == Some(&b'$') && matches!(filter.first(), Some(b'+' | b'#')) {
        set_to(target, &[b"%"]);
        return Place::Before;
    }
    // End of the last level that stands under a `+`: what can be exchanged to get further.
    let mut plus_end = None;
    let mut start = 0;
    for wanted in filter.split(|&byte| byte == b'/') {
        if wanted == b"#" {
            return Place::Match;
        }
        let Some(rest) = topic.get(start..) else {
            // The topic ends above this level.
            set_to(target, &[topic, b"/", if wanted == b"+" { b"" } else { wanted }]);
            return Place::Before;
        };
        let level = rest.split(|&byte| byte == b'/').next().unwrap_or_default();
        let end = start + level.len();
        if wanted == b"+" {
            plus_end = Some(end);
        } else {
            match level.cmp(wanted) {
                Ordering::Equal => {}
                Ordering::Less => {
                    set_to(target, &[topic.get(..start).unwrap_or_default(), wanted]);
                    return Place::Before;
                }
                Ordering::Greater => return behind(topic, plus_end, target),
            }
        }
        start = end + 1;
    }
    if start > topic.len() { Place::Match } else { behind(topic, plus_end, target) }
}

fn behind(topic: &[u8], plus_end: Option<usize>, target: &mut Vec<u8>) -> Place {
    match plus_end.and_then(|end| topic.get(..end)) {
        Some(tree) => {
            // The smallest level that is greater than this one.
            set_to(target, &[tree, b"\0"]);
            Place::Before
        }
        None => Place::Behind,
    }
}

fn set_to(target: &mut Vec<u8>, parts: &[&[u8]]) {
    target.clear();
    parts.iter().for_each(|part| target.extend_from_slice(part));
}

/// Compares topics level by level: as bytes, with `/` below every other byte.
fn level_order(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    let at = common_prefix(a, b);
    a.get(at).map(weight).cmp(&b.get(at).map(weight))
}

/// Number of leading bytes that are the same, found eight at a time.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (words_a, rest_a) = a.as_chunks::<8>();
    let (words_b, rest_b) = b.as_chunks::<8>();
    let mut at = 0;
    for (word_a, word_b) in words_a.iter().zip(words_b) {
        let different = u64::from_le_bytes(*word_a) ^ u64::from_le_bytes(*word_b);
        if different != 0 {
            return at + different.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let (tail_a, tail_b) = match words_a.len().cmp(&words_b.len()) {
        Ordering::Equal => (rest_a, rest_b),
        _ => (a.get(at..).unwrap_or_default(), b.get(at..).unwrap_or_default()),
    };
    at + tail_a.iter().zip(tail_b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
