//! How long to wait before the next attempt to connect.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::config::LONGEST;

/// Waits that double from attempt to attempt, up to a limit, each shortened by chance to between
/// a half and the whole of it, so that a thousand clients of a broker that restarts do not come
/// back all at once. They begin anew after a connection that lasted longer than the wait before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

impl Default for Backoff {
    /// From 250 ms to 30 s.
    fn default() -> Backoff {
        Backoff { first: Duration::from_millis(250), most: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait after `failures` attempts that failed one after another, 1 or more.
    pub(crate) fn wait(&self, failures: u32) -> Duration {
        self.wait_by(failures, RandomState::new().hash_one(failures))
    }

    fn wait_by(&self, failures: u32, chance: u64) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(31));
        let whole = self.first.saturating_mul(doubled).min(self.most).min(LONGEST);
        let half = whole / 2;
        half + half.mul_f64((chance >> 11) as f64 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_are_spread() {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(10) };
        for (failures, whole_s) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (40, 10)] {
            let whole = Duration::from_secs(whole_s);
            assert_eq!(backoff.wait_by(failures, 0), whole / 2);
            let longest = backoff.wait_by(failures, u64::MAX);
            assert!(longest <= whole && longest > whole.mul_f64(0.99), "{longest:?}");
        }
        let endless = Backoff { first: Duration::MAX, most: Duration::MAX };
        assert!(std::time::Instant::now().checked_add(endless.wait_by(1, u64::MAX)).is_some());
    }
}
