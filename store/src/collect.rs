//! What is wanted from all of the log, not only from what follows the last pass: where passes
//! are, retained messages, and messages that were on their way.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::message::MESSAGE;
use crate::record::{
    PASS_BEGAN, PASS_ENDED, ROUTED, ROUTING, RawRecords, SESSION, STOPPED, UNRETAINED,
};
use crate::scan::Frame;
use crate::{Position, Record, SessionKey, Stored};

/// Collected from frame after frame. A gap in the log makes it forget all that came before:
/// with only a part of the records, a message would seem to be on its way that has arrived.
pub(crate) struct Collected {
    pub passes_began: HashMap<u64, u64>,
    pub passes_ended: Vec<PassEnd>,
    /// The last number of a pass.
    pub last_pass: u64,
    pub retained: RetainedTable,
    /// Messages that were on their way, by position and group.
    pub routing: HashMap<(u64, Option<u32>), OnItsWay>,
    pub last_key: u64,
    pub records: u64,
    /// The last record is that of a stop in good order.
    pub stopped: bool,
}

/// A message whose way was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnItsWay {
    pub stored: Stored,
    pub from: SessionKey,
    /// Of the record that says so.
    pub since: Position,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PassEnd {
    pub pass: u64,
    pub began: u64,
    /// Of the frame that says so.
    pub position: u64,
}

impl Collected {
    pub(crate) fn new(identity: u64) -> Collected {
        Collected {
            passes_began: HashMap::new(),
            passes_ended: Vec::new(),
            last_pass: 0,
            retained: RetainedTable::new(identity),
            routing: HashMap::new(),
            last_key: 0,
            records: 0,
            stopped: false,
        }
    }

    /// There is a gap in the log.
    pub(crate) fn restart(&mut self) {
        self.passes_began.clear();
        self.passes_ended.clear();
        self.retained.clear();
        self.routing.clear();
    }

    /// Something in the log is damaged.
    pub(crate) fn hole(&mut self) {
        self.routing.clear();
    }

    /// Takes a frame; an error says where a record is that cannot be read.
    pub(crate) fn frame(&mut self, frame: &Frame<'_>) -> Result<(), (u64, &'static str)> {
        for raw in RawRecords::new(frame.base, frame.records) {
            let raw = raw.map_err(|error| (frame.base + error.offset as u64, error.what))?;
            self.records += 1;
            self.stopped = raw.kind() == STOPPED;
            let wanted = [MESSAGE, SESSION, UNRETAINED, ROUTING, ROUTED, PASS_BEGAN, PASS_ENDED];
            if wanted.contains(&raw.kind()) {
                let record = raw.record().map_err(|what| (raw.position.0, what))?;
                self.record(frame.position, raw.position, &record);
            }
        }
        Ok(())
    }

    fn record(&mut self, frame: u64, position: Position, record: &Record<'_>) {
        match *record {
            Record::Message(message) => {
                if let Some(number) = message.retained {
                    let stored = Stored { position, len: message.len() };
                    self.retained.set(message.topic, number, Some(stored));
                }
            }
            Record::Unretained { topic, number } => self.retained.set(topic, number, None),
            Record::Session { key, .. } => self.last_key = self.last_key.max(key.0),
            Record::Routing { stored, from, group } => {
                let on_its_way = OnItsWay { stored, from, since: position };
                self.routing.insert((stored.position.0, group), on_its_way);
            }
            Record::Routed { position, group } => {
                self.routing.remove(&(position.0, group));
            }
            Record::PassBegan { pass } => {
                self.passes_began.insert(pass, frame);
                self.last_pass = self.last_pass.max(pass);
            }
            Record::PassEnded { pass, began } => {
                self.passes_ended.push(PassEnd { pass, began: began.0, position: frame });
            }
            _ => {}
        }
    }
}

/// The latest retained message of each topic. A topic is known by a hash that nobody outside can
/// foresee, which takes less room than its name.
pub(crate) struct RetainedTable {
    hasher: DefaultHasher,
    topics: HashMap<u64, (u64, Option<Stored>)>,
    /// The largest number.
    pub last: u64,
}

impl RetainedTable {
    fn new(identity: u64) -> RetainedTable {
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        RetainedTable { hasher, topics: HashMap::new(), last: 0 }
    }

    fn clear(&mut self) {
        self.topics.clear();
    }

    /// What a topic has; of two, the one with the larger number holds.
    pub(crate) fn set(&mut self, topic: &str, number: u64, stored: Option<Stored>) {
        self.last = self.last.max(number);
        let mut hasher = self.hasher.clone();
        topic.hash(&mut hasher);
        match self.topics.entry(hasher.finish()) {
            MapEntry::Vacant(place) => {
                place.insert((number, stored));
            }
            MapEntry::Occupied(mut place) if place.get().0 <= number => {
                place.insert((number, stored));
            }
            MapEntry::Occupied(_) => {}
        }
    }

    /// In the order of their positions.
    pub(crate) fn finish(self) -> Vec<Stored> {
        self.finish_numbered().into_iter().map(|(stored, _)| stored).collect()
    }

    /// With their numbers.
    pub(crate) fn finish_numbered(self) -> Vec<(Stored, u64)> {
        let all = self.topics.into_values();
        let all = all.filter_map(|(number, stored)| Some((stored?, number)));
        let mut all: Vec<(Stored, u64)> = all.collect();
        all.sort_unstable();
        all
    }
}
