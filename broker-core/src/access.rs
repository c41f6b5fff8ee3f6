//! What a connection's client was found to be allowed, so that rules are walked once per topic.

use whimbrel_auth::{Access, Action, Decision, Rights};

/// Topics that share a place.
const WAYS: usize = 4;
/// A client with few topics holds little; one that drives its topics out of the cache gets a larger
/// one, up to 64 KiB and the topics themselves.
const FEWEST_SETS: usize = 8;
const MOST_SETS: usize = 512;

/// Answers for the topics of late; forgotten when the rights change.
#[derive(Default)]
pub(crate) struct AllowedCache {
    sets: Vec<Set>,
    /// Topics that were driven out since it has this size.
    driven_out: usize,
}

#[derive(Default)]
struct Set {
    slots: [Slot; WAYS],
    /// Which slot is taken next.
    turn: u8,
}

#[derive(Default)]
struct Slot {
    topic: Box<str>,
    /// A part of the topic's hash.
    tag: u32,
    /// A bit for each combination of action, QoS and retain: whether it was asked.
    known: u16,
    /// The answer.
    allowed: u16,
}

impl AllowedCache {
    /// Whether `rights` allow it. `hash`: of the topic. Only for topic names.
    #[inline]
    pub(crate) fn authorize(&mut self, hash: u64, access: &Access<'_>, rights: &Rights) -> bool {
        let bit = bit(access);
        let tag = tag(hash);
        if let Some(set) = self.sets.get(hash as usize & self.sets.len().wrapping_sub(1)) {
            for slot in &set.slots {
                if slot.tag == tag && slot.known & bit != 0 && *slot.topic == *access.topic {
                    return slot.allowed & bit != 0;
                }
            }
        }
        self.ask(hash, access, rights)
    }

    #[cold]
    fn ask(&mut self, hash: u64, access: &Access<'_>, rights: &Rights) -> bool {
        let is_small = self.driven_out > self.sets.len() && self.sets.len() < MOST_SETS;
        if self.sets.is_empty() || is_small {
            let sets = (2 * self.sets.len()).max(FEWEST_SETS);
            self.sets.clear();
            self.sets.resize_with(sets, Set::default);
            self.driven_out = 0;
        }
        let allowed = rights.authorize(access) == Decision::Allowed;
        let at = hash as usize & (self.sets.len() - 1);
        let Some(set) = self.sets.get_mut(at) else { return allowed };
        let same = |slot: &Slot| *slot.topic == *access.topic;
        let way = set.slots.iter().position(same).unwrap_or_else(|| {
            set.turn = set.turn.wrapping_add(1);
            usize::from(set.turn) % WAYS
        });
        let Some(slot) = set.slots.get_mut(way) else { return allowed };
        if !same(slot) {
            self.driven_out += usize::from(slot.known != 0);
            *slot = Slot { topic: access.topic.into(), tag: tag(hash), known: 0, allowed: 0 };
        }
        let bit = bit(access);
        slot.known |= bit;
        slot.allowed |= if allowed { bit } else { 0 };
        allowed
    }
}

/// The bits that do not choose the set.
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

fn bit(access: &Access<'_>) -> u16 {
    let receive = u8::from(access.action == Action::Receive);
    1 << (receive << 3 | access.qos.min(3) << 1 | u8::from(access.retain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_about_a_topic_has_a_bit_of_its_own() {
        let mut seen = 0_u16;
        for action in [Action::Publish, Action::Receive] {
            for qos in 0..3 {
                for retain in [false, true] {
                    let bit = bit(&Access { action, topic: "t", qos, retain });
                    assert_eq!(seen & bit, 0);
                    seen |= bit;
                }
            }
        }
    }
}
