//! What a connection's client was found to be allowed, so that rules are walked once per topic.

use whimbrel_auth::{Access, Action, Decision, Rights};

const SLOTS: usize = 64;

/// Answers for the topics of late; forgotten when the rights change.
#[derive(Default)]
pub(crate) struct AllowedCache {
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    topic: Box<str>,
    /// A bit for each combination of action, QoS and retain: whether it was asked.
    known: u16,
    /// The answer.
    allowed: u16,
}

impl AllowedCache {
    /// Whether `rights` allow it. `hash`: of the topic. Only for topic names.
    #[inline]
    pub(crate) fn authorize(&mut self, hash: u64, access: &Access<'_>, rights: &Rights) -> bool {
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, Slot::default);
        }
        let bit = bit(access);
        let Some(slot) = self.slots.get_mut(hash as usize % SLOTS) else { return false };
        if slot.known & bit != 0 && *slot.topic == *access.topic {
            return slot.allowed & bit != 0;
        }
        if *slot.topic != *access.topic {
            *slot = Slot { topic: access.topic.into(), known: 0, allowed: 0 };
        }
        let allowed = rights.authorize(access) == Decision::Allowed;
        slot.known |= bit;
        slot.allowed |= if allowed { bit } else { 0 };
        allowed
    }
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
