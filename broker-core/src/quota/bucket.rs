//! A rate, and whether it is kept.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Millis;

const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;
/// What may come at once: that of one second.
const BURST_NS: u64 = NS_PER_S;

/// Holds what may come in a second, and fills again at the rate that each call gives. It is one
/// number, the time at which it will be full, so any threads may share it.
#[derive(Default)]
pub(crate) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes `n`, which have come already. If they were too many: when it is even again.
    pub(crate) fn charge(&self, now: Millis, n: u64, per_s: u32) -> Option<Millis> {
        let now = now.0.saturating_mul(NS_PER_MS);
        let cost = cost(n, per_s);
        let full = |full: u64| Some(full.max(now).saturating_add(cost));
        let before = self.0.fetch_update(Relaxed, Relaxed, full).unwrap_or_default();
        let even = before.max(now).saturating_add(cost).saturating_sub(BURST_NS);
        (even > now).then(|| Millis(even.div_ceil(NS_PER_MS)))
    }

    /// Takes one if it is there.
    pub(crate) fn take(&self, now: Millis, per_s: u32) -> bool {
        let now = now.0.saturating_mul(NS_PER_MS);
        let full = |full: u64| {
            let next = full.max(now).saturating_add(cost(1, per_s));
            (next.saturating_sub(now) <= BURST_NS).then_some(next)
        };
        self.0.fetch_update(Relaxed, Relaxed, full).is_ok()
    }
}

fn cost(n: u64, per_s: u32) -> u64 {
    n.saturating_mul(NS_PER_S) / u64::from(per_s.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let bucket = Bucket::default();
        let taken = |ms| (0..100).filter(|_| bucket.take(Millis(ms), 10)).count();
        assert_eq!(taken(5000), 10);
        assert_eq!(taken(5099), 0);
        assert_eq!(taken(5100), 1);
        assert_eq!(taken(5300), 2);
        assert_eq!(taken(90_000), 10);
    }

    #[test]
    fn what_came_is_charged_and_waited_for() {
        let bucket = Bucket::default();
        let now = Millis(7000);
        assert_eq!(bucket.charge(now, 100, 100), None);
        assert_eq!(bucket.charge(now, 1, 100), Some(Millis(7010)));
        assert_eq!(bucket.charge(now, 1000, 100), Some(Millis(17_010)));
        assert_eq!(bucket.charge(Millis(18_010), 100, 100), None);
        assert_eq!(bucket.charge(Millis(18_010), 3, 100), Some(Millis(18_040)));
    }

    #[test]
    fn no_numbers_overflow() {
        let bucket = Bucket::default();
        assert!(bucket.charge(Millis(u64::MAX), u64::MAX, 1).is_none());
        assert!(bucket.charge(Millis(1), u64::MAX, 0).is_some());
        assert!(!bucket.take(Millis(1), u32::MAX));
    }
}
