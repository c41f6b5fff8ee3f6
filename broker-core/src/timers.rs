//! A lazy hashed wheel with one-second slots.
//!
//! A key (a connection's or session's slot) has at most one timer that counts. Arming it later than
//! it is armed does nothing: when it fires early, its owner looks at the real deadline and arms it
//! again. So a keep alive costs nothing per packet, and a connection that goes leaves its timer to
//! the next user of the slot.

use crate::Millis;

const SLOTS: usize = 512;

pub(crate) struct Timers {
    /// By second modulo [`SLOTS`]: key and second.
    slots: Vec<Vec<(u32, u32)>>,
    /// By key: the second for which it is armed; 0: not at all.
    armed: Vec<u32>,
    /// All seconds up to this one have been handled.
    done_s: u32,
    len: usize,
}

impl Timers {
    pub(crate) fn new(now: Millis) -> Timers {
        Timers {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            armed: Vec::new(),
            done_s: seconds(now.0 / 1000),
            len: 0,
        }
    }

    /// Fires `key` once `deadline` has passed, or earlier.
    pub(crate) fn arm(&mut self, key: u32, deadline: Millis) {
        let second = seconds(deadline.0.div_ceil(1000)).max(self.done_s + 1);
        let at = key as usize;
        if self.armed.len() <= at {
            self.armed.resize(at + 1, 0);
        }
        let Some(armed) = self.armed.get_mut(at) else { return };
        if *armed != 0 && *armed <= second {
            return;
        }
        *armed = second;
        self.push(key, second);
    }

    /// Appends the keys whose time has come.
    pub(crate) fn fire(&mut self, now: Millis, fired: &mut Vec<u32>) {
        let now_s = seconds(now.0 / 1000);
        // After a long sleep every slot is due, and each is looked at once.
        let first = (self.done_s + 1).max(now_s.saturating_sub(SLOTS as u32 - 1));
        for second in first..=now_s {
            let Some(slot) = self.slots.get_mut(second as usize % SLOTS) else { continue };
            let before = slot.len();
            let armed = &mut self.armed;
            slot.retain(|&(key, due)| {
                if due > now_s {
                    return true;
                }
                if let Some(armed) = armed.get_mut(key as usize)
                    && *armed == due
                {
                    *armed = 0;
                    fired.push(key);
                }
                false
            });
            self.len -= before - slot.len();
            if slot.is_empty() {
                *slot = Vec::new();
            }
        }
        self.done_s = self.done_s.max(now_s);
    }

    /// The next time at which [`Timers::fire`] may have something to do.
    pub(crate) fn next(&self) -> Option<Millis> {
        (self.len > 0).then(|| Millis(u64::from(self.done_s + 1) * 1000))
    }

    fn push(&mut self, key: u32, second: u32) {
        if self.len > 2 * self.armed.len() + SLOTS {
            self.forget_replaced();
        }
        if let Some(slot) = self.slots.get_mut(second as usize % SLOTS) {
            slot.push((key, second));
            self.len += 1;
        }
    }

    /// Keys that were armed earlier and earlier have left their later timers behind.
    fn forget_replaced(&mut self) {
        let armed = &self.armed;
        for slot in &mut self.slots {
            slot.retain(|&(key, second)| armed.get(key as usize) == Some(&second));
            // A timer may stand in its slot twice.
            slot.sort_unstable();
            slot.dedup();
        }
        self.len = self.slots.iter().map(Vec::len).sum();
    }
}

/// A broker that runs for 136 years is not expected.
fn seconds(s: u64) -> u32 {
    u32::try_from(s).unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that comes again and again, each time for a shorter session.
    #[test]
    fn timers_do_not_pile_up() {
        let mut timers = Timers::new(Millis(0));
        timers.arm(1, Millis(500_000));
        for second in (1000..1_000_000).rev() {
            timers.arm(0, Millis(second * 1000));
        }
        assert!(timers.len <= 2 * 2 + SLOTS + 1, "{}", timers.len);
        let mut fired = Vec::new();
        timers.fire(Millis(499_000), &mut fired);
        assert!(fired.is_empty());
        timers.fire(Millis(1_000_000), &mut fired);
        assert_eq!(fired, [1, 0]);
        timers.fire(Millis(1_000_000_000), &mut fired);
        assert_eq!(fired, [1, 0]);
        assert_eq!(timers.next(), None);
    }
}
