//! The tree of topics that messages came on, within limits.

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::RandomState;
use whimbrel_codec::Publish;

use super::meter::Meter;
use super::value::Value;

/// A place in the tree; 0 is the root, above the first levels of all topics.
pub type NodeId = usize;

/// Above all topics.
pub const ROOT: NodeId = 0;

/// Levels of a topic that are told apart; what is deeper is one level with slashes in it.
const LEVELS_MAX: usize = 64;

/// What is kept of a value when memory is used up, in bytes of payload.
const PREVIEW_LEN: usize = 256;

/// Bounds of memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Places in the tree.
    pub nodes: usize,
    /// Values of one topic, the last one included.
    pub values: usize,
    /// Payload bytes of one value.
    pub payload_len: usize,
    /// Bytes of all values together.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { nodes: 50_000, values: 200, payload_len: 64 * 1024, bytes: 64 << 20 }
    }
}

/// A level of a topic.
#[derive(Debug, Default)]
pub struct Node {
    /// The level's own name.
    pub name: Box<str>,
    /// Meaningless for the root.
    pub parent: NodeId,
    /// By name.
    pub children: BTreeMap<Box<str>, NodeId>,
    /// Messages to this topic.
    pub own: Meter,
    /// Messages to this topic and to those below.
    pub all: Meter,
    /// Topics at and below this place that had a message.
    pub topics: usize,
    /// Those of them that have a retained message.
    pub retained: usize,
    /// Whether this topic has a retained message.
    pub is_retained: bool,
    /// The oldest first; the last value is never dropped.
    pub values: VecDeque<Value>,
    /// Whether its children are shown.
    pub is_open: bool,
}

impl Node {
    /// The last message's.
    pub fn last(&self) -> Option<&Value> {
        self.values.back()
    }
}

/// All topics seen.
#[derive(Debug)]
pub struct Topics {
    nodes: Vec<Node>,
    /// The places of whole topics, for those that had a message.
    index: HashMap<Box<str>, NodeId, RandomState>,
    limits: Limits,
    bytes: usize,
    untracked: u64,
    is_short: bool,
    version: u64,
}

impl Topics {
    /// Empty.
    pub fn new(limits: Limits) -> Topics {
        Topics {
            nodes: vec![Node { is_open: true, ..Node::default() }],
            index: HashMap::default(),
            limits,
            bytes: 0,
            untracked: 0,
            is_short: false,
            version: 0,
        }
    }

    /// Counts and keeps a message.
    pub fn handle_message(&mut self, now_ms: u64, message: &Publish<'_>) {
        let Some(id) = self.find_or_insert(message.topic) else {
            self.untracked += 1;
            self.nodes[ROOT].all.add(now_ms);
            return;
        };
        let is_new = self.nodes[id].values.is_empty();
        self.each_upwards(id, |node| {
            node.all.add(now_ms);
            node.topics += usize::from(is_new);
        });
        self.nodes[id].own.add(now_ms);
        self.keep(id, now_ms, message);
        if message.retain {
            self.set_retained(id, !message.payload.is_empty());
        }
        self.version += u64::from(is_new);
    }

    /// Marks a topic; true if that changed something.
    pub fn set_retained(&mut self, id: NodeId, is_retained: bool) -> bool {
        if self.nodes[id].is_retained == is_retained {
            return false;
        }
        self.nodes[id].is_retained = is_retained;
        self.each_upwards(id, |node| match is_retained {
            true => node.retained += 1,
            false => node.retained -= 1,
        });
        self.version += 1;
        true
    }

    /// Puts the value behind the topic's others, and drops those that the limits leave no room for.
    fn keep(&mut self, id: NodeId, now_ms: u64, message: &Publish<'_>) {
        let limits = self.limits;
        let mut value = Value::new(now_ms, message, limits.payload_len);
        let values = &mut self.nodes[id].values;
        let cost = |value: &Value| value.heap_len() + size_of::<Value>();
        while values.len() >= limits.values
            || (self.bytes + cost(&value) > limits.bytes && !values.is_empty())
        {
            self.is_short |= values.len() < limits.values;
            self.bytes -= values.pop_front().as_ref().map_or(0, cost);
        }
        if self.bytes + cost(&value) > limits.bytes {
            self.is_short = true;
            value = Value::new(now_ms, message, PREVIEW_LEN.min(limits.payload_len));
        }
        self.bytes += cost(&value);
        values.push_back(value);
    }

    fn find_or_insert(&mut self, topic: &str) -> Option<NodeId> {
        if let Some(id) = self.index.get(topic) {
            return Some(*id);
        }
        let mut id = ROOT;
        for level in topic.splitn(LEVELS_MAX, '/') {
            id = match self.nodes[id].children.get(level) {
                Some(child) => *child,
                None if self.nodes.len() >= self.limits.nodes => return None,
                None => self.insert(id, level),
            };
        }
        self.index.insert(topic.into(), id);
        Some(id)
    }

    fn insert(&mut self, parent: NodeId, name: &str) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(Node { name: name.into(), parent, ..Node::default() });
        self.nodes[parent].children.insert(name.into(), id);
        self.version += 1;
        id
    }

    fn each_upwards(&mut self, mut id: NodeId, mut act: impl FnMut(&mut Node)) {
        loop {
            act(&mut self.nodes[id]);
            if id == ROOT {
                return;
            }
            id = self.nodes[id].parent;
        }
    }

    /// The place of a topic, if it is in the tree.
    pub fn find(&self, topic: &str) -> Option<NodeId> {
        topic
            .splitn(LEVELS_MAX, '/')
            .try_fold(ROOT, |id, level| self.nodes[id].children.get(level).copied())
    }

    /// The place, or the root for one that is not in the tree any more.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id).unwrap_or(&self.nodes[ROOT])
    }

    /// The whole topic that ends here.
    pub fn topic(&self, mut id: NodeId) -> String {
        let mut levels = Vec::new();
        while id != ROOT && id < self.nodes.len() {
            levels.push(&*self.nodes[id].name);
            id = self.nodes[id].parent;
        }
        levels.reverse();
        levels.join("/")
    }

    /// Shows or hides what is below; it is shown either way while a search goes on.
    pub fn set_open(&mut self, id: NodeId, is_open: bool) {
        if let Some(node) = self.nodes.get_mut(id)
            && id != ROOT
        {
            node.is_open = is_open;
            self.version += 1;
        }
    }

    /// The same for all that is below as well.
    pub fn set_open_below(&mut self, id: NodeId, is_open: bool) {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            waiting.extend(self.node(id).children.values());
            self.set_open(id, is_open);
        }
    }

    /// Topics at and below this place that have a retained message.
    pub fn retained_below(&self, id: NodeId) -> Vec<String> {
        let mut topics = Vec::new();
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let node = self.node(id);
            if node.retained == 0 {
                continue;
            }
            if node.is_retained {
                topics.push(self.topic(id));
            }
            waiting.extend(node.children.values());
        }
        topics.sort();
        topics
    }

    /// How many places there are, the root included; a child's is always behind its parent's.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Changes with all that a list of places depends on.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Messages to topics for which there was no room.
    pub fn untracked(&self) -> u64 {
        self.untracked
    }

    /// Whether values were dropped or cut because the memory for them is used up.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// The bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Forgets all topics, and goes on counting what comes.
    pub fn clear(&mut self) {
        let version = self.version + 1;
        *self = Topics { version, ..Topics::new(self.limits) };
    }
}
