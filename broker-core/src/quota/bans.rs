//! Who is not let in for a while.

use core::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::generations::Generations;
use crate::Millis;

/// Who may be banned. A user's name or a client identifier only together with an address, so that
/// nobody can shut others out by failing in their name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Culprit {
    /// Everybody from there.
    Address(IpAddr),
    /// Who claims to be this user.
    Login(IpAddr, Box<str>),
    /// User and client identifier.
    Client(IpAddr, Box<str>, Box<str>),
}

/// How much is too much.
#[derive(Clone, Copy)]
pub(crate) struct Policy {
    /// This many in a window are one too many; 0: it does not matter.
    pub(crate) most: u32,
    pub(crate) window_s: u32,
    pub(crate) ban_s: u32,
}

/// Strikes and bans of the whole broker, in bounded memory.
pub(crate) struct Bans {
    state: Mutex<State>,
    /// When the last ban ends, so that nobody locks while there is none.
    last_end: AtomicU64,
    /// When something last failed, for the same reason.
    last_failure: AtomicU64,
}

struct State {
    failures: Generations<Culprit, Strikes>,
    /// Kept apart: who connects often is no reason to forget who failed.
    connects: Generations<Culprit, Strikes>,
    banned: Generations<Culprit, Millis>,
}

#[derive(Clone, Copy, Default)]
struct Strikes {
    count: u32,
    since: Millis,
}

impl Default for Bans {
    fn default() -> Bans {
        let (failures, connects) = (Generations::new(), Generations::new());
        let state = State { failures, connects, banned: Generations::new() };
        Bans {
            state: Mutex::new(state),
            last_end: AtomicU64::new(0),
            last_failure: AtomicU64::new(0),
        }
    }
}

impl Bans {
    pub(crate) fn is_banned(&self, now: Millis, culprit: &Culprit) -> bool {
        self.may_be(now) && self.lock().banned.get(culprit).is_some_and(|end| *end > now)
    }

    /// Whether anybody may be banned; costs next to nothing.
    pub(crate) fn may_be(&self, now: Millis) -> bool {
        self.last_end.load(Relaxed) > now.0
    }

    /// Whether there may be something to forgive; costs next to nothing.
    pub(crate) fn may_have_failed(&self, now: Millis, policy: Policy) -> bool {
        now < Millis(self.last_failure.load(Relaxed)).plus_s(policy.window_s)
    }

    /// Counts one more. True if that was one too many and the ban begins.
    pub(crate) fn strike(&self, now: Millis, culprit: &Culprit, policy: Policy) -> bool {
        if policy.most == 0 {
            return false;
        }
        let mut state = self.lock();
        if state.banned.get(culprit).is_some_and(|end| *end > now) {
            return false;
        }
        let list = match culprit {
            Culprit::Client(..) => &mut state.connects,
            _ => {
                self.last_failure.fetch_max(now.0, Relaxed);
                &mut state.failures
            }
        };
        list.keep_s(policy.window_s);
        let strikes = list.entry(now, culprit.clone());
        if now >= strikes.since.plus_s(policy.window_s) {
            *strikes = Strikes { count: 0, since: now };
        }
        strikes.count += 1;
        if strikes.count < policy.most {
            return false;
        }
        list.remove(culprit);
        let end = now.plus_s(policy.ban_s);
        state.banned.keep_s(policy.ban_s);
        state.banned.insert(now, culprit.clone(), end);
        self.last_end.fetch_max(end.0, Relaxed);
        true
    }

    /// It did well: what was counted is forgotten.
    pub(crate) fn forgive(&self, culprit: &Culprit) {
        self.lock().failures.remove(culprit);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { most: 3, window_s: 60, ban_s: 100 };

    fn address(n: u32) -> Culprit {
        Culprit::Address(IpAddr::V4(n.into()))
    }

    #[test]
    fn the_last_strike_bans_once_and_for_a_while() {
        let bans = Bans::default();
        let one = address(1);
        assert!(!bans.strike(Millis(0), &one, POLICY));
        assert!(!bans.strike(Millis(1000), &one, POLICY));
        assert!(!bans.is_banned(Millis(1000), &one));
        assert!(bans.strike(Millis(2000), &one, POLICY));
        assert!(!bans.strike(Millis(3000), &one, POLICY), "told once");
        assert!(bans.is_banned(Millis(101_999), &one));
        assert!(!bans.is_banned(Millis(101_999), &address(2)));
        assert!(!bans.is_banned(Millis(102_000), &one));
        assert!(!bans.strike(Millis(102_000), &one, POLICY), "from the beginning");
    }

    #[test]
    fn strikes_that_are_far_apart_or_forgiven_do_not_count() {
        let bans = Bans::default();
        let one = address(1);
        for minute in 0..100 {
            assert!(!bans.strike(Millis(minute * 30_000), &one, POLICY));
        }
        let bans = Bans::default();
        for _ in 0..100 {
            assert!(!bans.strike(Millis(0), &one, POLICY));
            bans.forgive(&one);
        }
        assert!(!bans.strike(Millis(0), &one, Policy { most: 0, ..POLICY }));
    }

    #[test]
    fn a_million_sources_fit_into_little_memory_and_free_nobody_who_is_banned() {
        let bans = Bans::default();
        let one = address(0);
        assert_eq!((0..3).filter(|_| bans.strike(Millis(0), &one, POLICY)).count(), 1);
        for n in 1..1_000_000 {
            bans.strike(Millis(0), &address(n), POLICY);
        }
        assert!(bans.lock().failures.len() < 40_000);
        assert!(bans.is_banned(Millis(0), &one));
    }
}
