//! What becomes of connections, by chance.

use std::time::Duration;

use crate::relay::{End, Fate, Way};

/// Bytes after which something happens: 2 to the power of at most this.
const BYTES_LOG2_MAX: f64 = 15.0;

pub(super) struct Fates(fastrand::Rng);

impl Fates {
    pub(super) fn new(seed: u64) -> Fates {
        Fates(fastrand::Rng::with_seed(seed))
    }

    /// The next connection's: each ends.
    pub(super) fn draw(&mut self) -> Fate {
        let end = match self.0.u32(..100) {
            0 => End::Blackhole(Duration::from_secs(60)),
            1..=9 => End::Blackhole(Duration::from_millis(self.0.u64(..200))),
            10..=54 => End::Reset,
            _ => End::Close,
        };
        Fate {
            torn: self.one_in(3).then(|| self.0.u64(..)),
            delay: Duration::from_micros(if self.one_in(3) { self.0.u64(..5000) } else { 0 }),
            stall: self
                .one_in(10)
                .then(|| (self.way(), self.bytes(), Duration::from_millis(self.0.u64(..300)))),
            end: Some((self.way(), self.bytes(), end)),
        }
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.0.u32(..n) == 0
    }

    fn way(&mut self) -> Way {
        if self.0.bool() { Way::ToBroker } else { Way::ToClient }
    }

    /// As often few as many: the first packets are as fragile as a full stream.
    fn bytes(&mut self) -> u64 {
        (self.0.f64() * BYTES_LOG2_MAX).exp2() as u64
    }
}
