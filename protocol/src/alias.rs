//! Topic aliases (section 3.3.2.3.4).

use alloc::boxed::Box;
use alloc::vec::Vec;

/// The sender of a PUBLISH broke a rule of topic aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasError {
    /// 0 or above the maximum that was announced: reason code 0x94 `[MQTT-3.3.2-9]`.
    Invalid,
    /// Used without a topic before it was given one: a protocol error.
    Unknown,
}

/// The aliases that the peer has given to topics of this network connection.
#[derive(Debug, Default)]
pub struct IncomingAliases {
    topics: Vec<Option<Box<str>>>,
}

impl IncomingAliases {
    /// True if the peer has set none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Sets the alias if `topic` is there, and gives the topic that it stands for.
    pub fn resolve<'a>(
        &'a mut self,
        alias: u16,
        maximum: u16,
        topic: &'a str,
    ) -> Result<&'a str, AliasError> {
        // [MQTT-3.3.2-8] [MQTT-3.3.2-9]
        if alias == 0 || alias > maximum {
            return Err(AliasError::Invalid);
        }
        let at = usize::from(alias) - 1;
        if topic.is_empty() {
            return self.topics.get(at).and_then(Option::as_deref).ok_or(AliasError::Unknown);
        }
        if self.topics.len() <= at {
            self.topics.resize_with(at + 1, || None);
        }
        if let Some(slot) = self.topics.get_mut(at)
            && slot.as_deref() != Some(topic)
        {
            *slot = Some(topic.into());
        }
        Ok(topic)
    }
}

/// How to send a topic to a peer that accepts aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutgoingAlias {
    /// As it is.
    None,
    /// The topic and this new alias for it.
    New(u16),
    /// This alias alone.
    Known(u16),
}

/// Aliases given by use: a topic gets a free alias at once; when all are taken, one that comes a
/// second time replaces the one unused for longest.
#[derive(Debug)]
pub struct OutgoingAliases {
    maximum: u16,
    clock: u32,
    entries: Vec<Entry>,
    /// Hashes of topics that came once since all aliases were taken.
    seen_once: [u64; 8],
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    topic: Box<str>,
    last_used: u32,
}

/// An alias costs three bytes, so shorter topics gain nothing.
const SHORTEST: usize = 4;
/// More aliases than this are not used, so that finding one stays cheap.
const MOST: u16 = 64;

impl OutgoingAliases {
    /// `maximum` is the peer's topic alias maximum `[MQTT-3.1.2-26]`, `[MQTT-3.1.2-27]`.
    pub fn new(maximum: u16) -> OutgoingAliases {
        let maximum = maximum.min(MOST);
        OutgoingAliases { maximum, clock: 0, entries: Vec::new(), seen_once: [0; 8] }
    }

    /// The answer counts as sent.
    pub fn choose(&mut self, topic: &str) -> OutgoingAlias {
        if topic.len() < SHORTEST || self.maximum == 0 {
            return OutgoingAlias::None;
        }
        self.clock = self.clock.wrapping_add(1);
        let clock = self.clock;
        let hash = hash(topic);
        let known = |entry: &Entry| entry.hash == hash && *entry.topic == *topic;
        if let Some((entry, alias)) = self.entries.iter_mut().zip(1..).find(|(e, _)| known(e)) {
            entry.last_used = clock;
            return OutgoingAlias::Known(alias);
        }
        let entry = Entry { hash, topic: topic.into(), last_used: clock };
        if self.entries.len() < usize::from(self.maximum) {
            self.entries.push(entry);
            return OutgoingAlias::New(self.entries.len() as u16);
        }
        let seen = &mut self.seen_once[hash as usize % 8];
        if core::mem::replace(seen, hash) != hash {
            return OutgoingAlias::None;
        }
        let oldest =
            self.entries.iter_mut().zip(1..).max_by_key(|(e, _)| clock.wrapping_sub(e.last_used));
        match oldest {
            Some((slot, alias)) => {
                *slot = entry;
                OutgoingAlias::New(alias)
            }
            None => OutgoingAlias::None,
        }
    }
}

/// FNV-1a. A collision costs nothing but a comparison.
fn hash(topic: &str) -> u64 {
    topic.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
