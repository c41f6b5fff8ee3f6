//! The retained messages of a broker, in topic order.
//!
//! An ordered set whose keys are inside its values. Topics are ordered level by level, which is
//! byte order with `/` below every other byte; so everything below a level stands together, and a
//! search for a filter can jump over what cannot match instead of visiting it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use crate::filter::has_wildcard;

/// A handle to a message that contains its topic.
pub trait HasTopic {
    /// Topic name of the message; must stay the same while it is retained.
    fn topic(&self) -> &str;
}

/// Retained messages, at most one for each topic.
pub struct Retained<V> {
    set: BTreeSet<Entry<V>>,
}

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

/// Entries looked at one by one before searching from the root for a place further on.
const STEPS_BEFORE_SEEK: usize = 8;

impl<V> Default for Retained<V> {
    fn default() -> Self {
        Self { set: BTreeSet::new() }
    }
}

impl<V: HasTopic> Retained<V> {
    /// No messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Retains a message; returns the one it replaces.
    pub fn insert(&mut self, message: V) -> Option<V> {
        self.set.replace(Entry(message)).map(|old| old.0)
    }

    /// Removes the message of exactly this topic.
    pub fn remove(&mut self, topic: &str) -> Option<V> {
        self.set.take(key(&topic.as_bytes())).map(|old| old.0)
    }

    /// The message of exactly this topic.
    pub fn get(&self, topic: &str) -> Option<&V> {
        self.set.get(key(&topic.as_bytes())).map(|entry| &entry.0)
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
    /// messages, whether they match or not, and moves the cursor behind them.
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
        let mut left = max;
        let mut target = std::mem::take(&mut cursor.next);
        let mut entries = self.range_from(&target);
        let mut next = entries.next();
        while let Some(Entry(message)) = next {
            let topic = message.topic().as_bytes();
            if left == 0 {
                set_to(&mut target, &[topic]);
                cursor.next = target;
                return false;
            }
            left -= 1;
            match place(filter.as_bytes(), topic, &mut target) {
                Place::Match => {
                    if f(message).is_break() {
                        // The very next topic in level order.
                        set_to(&mut target, &[topic, b"/"]);
                        cursor.next = target;
                        return false;
                    }
                    next = entries.next();
                }
                Place::Before => {
                    let found = entries.by_ref().take(STEPS_BEFORE_SEEK).find(|entry| {
                        left = left.saturating_sub(1);
                        level_order(entry.as_topic(), &target) != Ordering::Less
                    });
                    next = found.or_else(|| {
                        entries = self.range_from(&target);
                        entries.next()
                    });
                }
                Place::Behind => break,
            }
        }
        cursor.done = true;
        true
    }

    fn range_from(&self, target: &[u8]) -> std::collections::btree_set::Range<'_, Entry<V>> {
        let from = Bound::Included(key(&target));
        self.set.range::<dyn AsTopic + '_, _>((from, Bound::Unbounded))
    }
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

/// A message ordered by its topic.
struct Entry<V>(V);

/// What a message and the topic to search for have in common.
trait AsTopic {
    fn as_topic(&self) -> &[u8];
}

impl<V: HasTopic> AsTopic for Entry<V> {
    fn as_topic(&self) -> &[u8] {
        self.0.topic().as_bytes()
    }
}

impl AsTopic for &[u8] {
    fn as_topic(&self) -> &[u8] {
        self
    }
}

fn key<'a>(topic: &'a &'a [u8]) -> &'a (dyn AsTopic + 'a) {
    topic
}

impl<'a, V: HasTopic + 'a> Borrow<dyn AsTopic + 'a> for Entry<V> {
    fn borrow(&self) -> &(dyn AsTopic + 'a) {
        self
    }
}

impl Ord for dyn AsTopic + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        level_order(self.as_topic(), other.as_topic())
    }
}

impl PartialOrd for dyn AsTopic + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn AsTopic + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.as_topic() == other.as_topic()
    }
}

impl Eq for dyn AsTopic + '_ {}

impl<V: HasTopic> Ord for Entry<V> {
    fn cmp(&self, other: &Self) -> Ordering {
        level_order(self.as_topic(), other.as_topic())
    }
}

impl<V: HasTopic> PartialOrd for Entry<V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<V: HasTopic> PartialEq for Entry<V> {
    fn eq(&self, other: &Self) -> bool {
        self.as_topic() == other.as_topic()
    }
}

impl<V: HasTopic> Eq for Entry<V> {}
