//! Filters with wildcards, as a path-compressed trie of levels.
//!
//! A node's label is one level or several (`12/+/state`), so a filter costs one node, plus at most
//! one where it parts from another. Children are found through one table for the whole trie, keyed
//! by parent and first level of the label. Nothing recurses: neither the walk nor dropping.
//!
//! A walk visits a node at most once: its path fixes which levels of the topic lead to it.

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::label::Label;
use crate::seed::{Seed, spread};
use crate::subscribers::Subscribers;

const ROOT: u32 = 0;
const PLUS: &[u8] = b"+";
const HASH: &[u8] = b"#";

pub(crate) struct Trie {
    nodes: Vec<Node>,
    free: Vec<u32>,
    children: HashTable<u32>,
}

/// Invariant: a node other than the root has subscribers or at least two children.
struct Node {
    label: Label,
    subscribers: Subscribers,
    parent: u32,
    /// Hash of the parent and the first level of the label.
    hash: u32,
    /// Number of children above two bits: whether a label starts with `+`, and with `#`.
    children: u32,
    /// All children's numbers, xored: with one child left, this is the child.
    children_xor: u32,
}

const _: () = assert!(size_of::<Node>() == 48);

const HAS_PLUS: u32 = 1;
const HAS_HASH: u32 = 2;
const ONE_CHILD: u32 = 4;

/// Where in the topic a walk is.
struct Level {
    start: u32,
    end: u32,
    hash: u64,
}

/// The levels of a topic, each found and hashed when a walk first gets there.
struct Levels<'a> {
    topic: &'a [u8],
    known: SmallVec<[Level; 16]>,
    seed: &'a Seed,
}

/// How far a label goes along a topic.
enum Along {
    No,
    /// All of the label matched; the next level of the topic has this index.
    To(usize),
    /// The label's `#` matched the rest of the topic.
    Rest,
}

impl Trie {
    pub fn new() -> Self {
        let root = Node::new(ROOT, b"", 0, Subscribers::None);
        Self { nodes: vec![root], free: Vec::new(), children: HashTable::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// The subscribers of exactly this filter.
    pub fn get(&self, filter: &str, seed: &Seed) -> Option<&Subscribers> {
        self.find(filter.as_bytes(), seed).map(|id| &self.node(id).subscribers)
    }

    /// Lets `change` work on the subscribers of this filter, making nodes as needed.
    ///
    /// It must leave a subscriber.
    pub fn add<R>(
        &mut self,
        filter: &str,
        seed: &Seed,
        change: impl FnOnce(&mut Subscribers) -> R,
    ) -> R {
        let id = self.find_or_insert(filter.as_bytes(), seed);
        change(&mut self.node_mut(id).subscribers)
    }

    /// Lets `change` work on the subscribers of this filter, if any, and removes what is empty.
    pub fn remove<R: Default>(
        &mut self,
        filter: &str,
        seed: &Seed,
        change: impl FnOnce(&mut Subscribers) -> R,
    ) -> R {
        let Some(id) = self.find(filter.as_bytes(), seed) else { return R::default() };
        let subscribers = &mut self.node_mut(id).subscribers;
        if subscribers.is_empty() {
            return R::default();
        }
        let result = change(subscribers);
        if subscribers.is_empty() {
            self.prune(id, seed);
        }
        result
    }

    /// Calls `visit` for every filter that matches the topic; returns the number of steps taken.
    pub fn walk(&self, topic: &str, seed: &Seed, mut visit: impl FnMut(&Subscribers)) -> usize {
        let mut levels = Levels { topic: topic.as_bytes(), known: SmallVec::new(), seed };
        let mut stack: SmallVec<[(u32, u32); 32]> = SmallVec::new();
        stack.push((ROOT, 0));
        let mut steps = 0;
        while let Some((id, depth)) = stack.pop() {
            steps += 1;
            let node = self.node(id);
            let level = levels.get(depth as usize);
            // A leading wildcard does not match a topic that starts with $. [MQTT-4.7.2-1]
            let wildcards = depth > 0 || !topic.starts_with('$');
            if wildcards
                && node.children & HAS_HASH != 0
                && let Some(child) = self.child(id, HASH, level_hash(id, seed.number_sign))
            {
                visit(&self.node(child).subscribers);
            }
            let Some((level, level_seed_hash)) = level else {
                visit(&node.subscribers);
                continue;
            };
            let literal = self.child(id, level, level_hash(id, level_seed_hash));
            let plus = (wildcards && node.children & HAS_PLUS != 0)
                .then(|| self.child(id, PLUS, level_hash(id, seed.plus)));
            for child in literal.into_iter().chain(plus.flatten()) {
                let child_node = self.node(child);
                let (along, compared) = levels.along(child_node.label.as_bytes(), depth as usize);
                steps += compared;
                match along {
                    Along::No => {}
                    Along::To(depth) => stack.push((child, depth as u32)),
                    Along::Rest => visit(&child_node.subscribers),
                }
            }
        }
        steps
    }

    /// Numbers of nodes come from the trie alone, so they are always in range.
    fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: u32) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn child(&self, parent: u32, first: &[u8], hash: u32) -> Option<u32> {
        let is_it = |&id: &u32| {
            let node = self.node(id);
            node.hash == hash
                && node.parent == parent
                && first_level(node.label.as_bytes()) == first
        };
        self.children.find(widen(hash), is_it).copied()
    }

    fn find(&self, filter: &[u8], seed: &Seed) -> Option<u32> {
        let (mut id, mut rest) = (ROOT, filter);
        loop {
            let first = first_level(rest);
            id = self.child(id, first, level_hash(id, seed.hash(first)))?;
            rest = rest.strip_prefix(self.node(id).label.as_bytes())?;
            match rest.split_first() {
                None => return Some(id),
                Some((b'/', below)) => rest = below,
                Some(_) => return None,
            }
        }
    }

    fn find_or_insert(&mut self, filter: &[u8], seed: &Seed) -> u32 {
        let (mut parent, mut rest) = (ROOT, filter);
        loop {
            let first = first_level(rest);
            let Some(child) = self.child(parent, first, level_hash(parent, seed.hash(first)))
            else {
                return self.insert(parent, rest, seed);
            };
            let label = self.node(child).label.as_bytes();
            let (common, whole_label) = (common_levels(label, rest), label.len());
            parent = if common < whole_label { self.split(child, common, seed) } else { child };
            if common == rest.len() {
                return parent;
            }
            rest = rest.get(common + 1..).unwrap_or_default();
        }
    }

    /// Puts a node for the first `at` bytes of the label above node `lower`; returns its number.
    fn split(&mut self, lower: u32, at: usize, seed: &Seed) -> u32 {
        let parent = self.node(lower).parent;
        self.unlink(lower);
        let label = std::mem::replace(&mut self.node_mut(lower).label, Label::new(b""));
        let (above, below) = label.as_bytes().split_at(at);
        let upper = self.insert(parent, above, seed);
        let node = self.node_mut(lower);
        node.label = Label::new(below.get(1..).unwrap_or_default());
        node.parent = upper;
        self.link(lower, seed);
        upper
    }

    fn insert(&mut self, parent: u32, label: &[u8], seed: &Seed) -> u32 {
        let node = Node::new(parent, label, 0, Subscribers::None);
        let id = match self.free.pop() {
            Some(id) => {
                *self.node_mut(id) = node;
                id
            }
            None => {
                if self.nodes.len() == self.nodes.capacity() {
                    // Growing by an eighth: doubling would leave half of the memory unused.
                    self.nodes.reserve_exact(self.nodes.len() / 8 + 16);
                }
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        self.link(id, seed);
        id
    }

    /// Makes a node known to its parent.
    fn link(&mut self, id: u32, seed: &Seed) {
        let node = self.node(id);
        let (parent, first) = (node.parent, first_level(node.label.as_bytes()));
        let (flag, hash) = (wildcard_flag(first), level_hash(parent, seed.hash(first)));
        self.node_mut(id).hash = hash;
        let above = self.node_mut(parent);
        above.children += ONE_CHILD;
        above.children |= flag;
        above.children_xor ^= id;
        let nodes = &self.nodes;
        self.children.insert_unique(widen(hash), id, |&id| widen(nodes[id as usize].hash));
    }

    /// Makes its parent forget a node.
    fn unlink(&mut self, id: u32) {
        let node = self.node(id);
        let (parent, hash) = (node.parent, node.hash);
        let flag = wildcard_flag(first_level(node.label.as_bytes()));
        let above = self.node_mut(parent);
        above.children -= ONE_CHILD;
        above.children &= !flag;
        above.children_xor ^= id;
        if let Ok(entry) = self.children.find_entry(widen(hash), |&other| other == id) {
            entry.remove();
        }
    }

    /// Restores the invariant after the subscribers of a node have gone.
    fn prune(&mut self, id: u32, seed: &Seed) {
        let node = self.node(id);
        let parent = node.parent;
        match node.children / ONE_CHILD {
            0 => {
                self.unlink(id);
                self.release(id);
                let above = self.node(parent);
                if parent != ROOT && above.subscribers.is_empty() && above.children / ONE_CHILD == 1
                {
                    self.merge(parent, seed);
                }
            }
            1 => self.merge(id, seed),
            _ => {}
        }
        self.shrink();
    }

    /// Joins a node without subscribers and its only child.
    fn merge(&mut self, upper: u32, seed: &Seed) {
        let lower = self.node(upper).children_xor;
        let parent = self.node(upper).parent;
        self.unlink(lower);
        self.unlink(upper);
        let above = self.node(upper).label.as_bytes();
        let label = [above, self.node(lower).label.as_bytes()].join(&b'/');
        let node = self.node_mut(lower);
        node.label = Label::new(&label);
        node.parent = parent;
        self.release(upper);
        self.link(lower, seed);
    }

    fn release(&mut self, id: u32) {
        *self.node_mut(id) = Node::new(ROOT, b"", 0, Subscribers::None);
        self.free.push(id);
    }

    /// Gives memory back. Numbers are stable, so nodes go only from the end or all at once.
    fn shrink(&mut self) {
        if self.children.is_empty() {
            *self = Self::new();
        } else if self.children.len() < self.children.capacity() / 4 {
            let nodes = &self.nodes;
            let room = self.children.len() * 2;
            self.children.shrink_to(room, |&id| widen(nodes[id as usize].hash));
        }
    }
}

impl Node {
    fn new(parent: u32, label: &[u8], hash: u32, subscribers: Subscribers) -> Self {
        let label = Label::new(label);
        Self { label, subscribers, parent, hash, children: 0, children_xor: 0 }
    }
}

impl<'a> Levels<'a> {
    fn get(&mut self, index: usize) -> Option<(&'a [u8], u64)> {
        while self.known.len() <= index {
            let start = match self.known.last() {
                None => 0,
                Some(last) if (last.end as usize) < self.topic.len() => last.end as usize + 1,
                Some(_) => return None,
            };
            let level = first_level(self.topic.get(start..).unwrap_or_default());
            self.known.push(Level {
                start: start as u32,
                end: (start + level.len()) as u32,
                hash: self.seed.hash(level),
            });
        }
        let level = self.known.get(index)?;
        Some((self.topic.get(level.start as usize..level.end as usize)?, level.hash))
    }

    /// Matches a label from level `index` on; also returns the number of levels compared.
    fn along(&mut self, label: &[u8], index: usize) -> (Along, usize) {
        let mut compared = 0;
        for wanted in label.split(|&byte| byte == b'/') {
            if wanted == HASH {
                return (Along::Rest, compared);
            }
            match self.get(index + compared) {
                Some((level, _)) if wanted == PLUS || wanted == level => compared += 1,
                _ => return (Along::No, compared),
            }
        }
        (Along::To(index + compared), compared)
    }
}

fn first_level(levels: &[u8]) -> &[u8] {
    let end = levels.iter().position(|&byte| byte == b'/').unwrap_or(levels.len());
    levels.get(..end).unwrap_or_default()
}

/// Length in bytes of the levels that both start with, without a final slash.
fn common_levels(a: &[u8], b: &[u8]) -> usize {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let ends = |levels: &[u8]| levels.get(same).is_none_or(|&byte| byte == b'/');
    if ends(a) && ends(b) {
        return same;
    }
    let common = a.get(..same).unwrap_or_default();
    common.iter().rposition(|&byte| byte == b'/').unwrap_or(0)
}

fn wildcard_flag(level: &[u8]) -> u32 {
    match level {
        PLUS => HAS_PLUS,
        HASH => HAS_HASH,
        _ => 0,
    }
}

fn level_hash(parent: u32, level: u64) -> u32 {
    spread(level ^ u64::from(parent) << 32 ^ u64::from(parent)) as u32
}

fn widen(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[cfg(test)]
mod tests;
