//! How many messages, and how many of them a second.

/// Seconds that a rate is taken over.
const WINDOW_S: u64 = 10;
/// One more for the second that is under way.
const SLOTS: u64 = WINDOW_S + 1;

/// Counts messages, and remembers each of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    count: u64,
    first_s: u64,
    last_s: u64,
    /// Messages of the second `s` stand at `s % SLOTS`.
    slots: [u32; SLOTS as usize],
}

impl Meter {
    /// One message more.
    pub fn add(&mut self, now_ms: u64) {
        let now_s = now_ms / 1000;
        if self.count == 0 {
            (self.first_s, self.last_s) = (now_s, now_s);
        }
        // A clock that was set back counts as one that stands still.
        let now_s = now_s.max(self.last_s);
        for second in (self.last_s + 1..=now_s).take(SLOTS as usize) {
            *self.slot(second) = 0;
        }
        self.last_s = now_s;
        self.count += 1;
        let slot = self.slot(now_s);
        *slot = slot.saturating_add(1);
    }

    fn slot(&mut self, second: u64) -> &mut u32 {
        &mut self.slots[(second % SLOTS) as usize]
    }

    /// All that were ever added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Messages in each of the last complete seconds, the oldest first.
    pub fn seconds(&self, now_ms: u64) -> impl Iterator<Item = u64> + '_ {
        let now_s = (now_ms / 1000).max(self.last_s);
        (now_s.saturating_sub(WINDOW_S)..now_s).map(move |second| {
            let known = second <= self.last_s && second + SLOTS > self.last_s;
            let slot = self.slots[(second % SLOTS) as usize];
            if known && self.count > 0 { u64::from(slot) } else { 0 }
        })
    }

    /// Messages a second, over the last complete seconds, at most 10, since the first message.
    pub fn rate(&self, now_ms: u64) -> f64 {
        let age_s = (now_ms / 1000).saturating_sub(self.first_s);
        if self.count == 0 || age_s == 0 {
            return 0.0;
        }
        self.seconds(now_ms).sum::<u64>() as f64 / age_s.min(WINDOW_S) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_steady() {
        let mut meter = Meter::default();
        for now_ms in (5000..65_000).step_by(250) {
            meter.add(now_ms);
            let rate = meter.rate(now_ms);
            assert!(now_ms < 6000 || rate == 4.0, "{rate} at {now_ms}");
        }
        assert_eq!(meter.count(), 240);
        assert_eq!(meter.rate(65_000 + 5000), 2.0);
        assert_eq!(meter.rate(75_000), 0.0);
        assert_eq!(meter.seconds(66_000).collect::<Vec<_>>(), [4, 4, 4, 4, 4, 4, 4, 4, 4, 0]);
    }

    #[test]
    fn after_a_pause_old_seconds_do_not_come_back() {
        for pause_s in 1..40 {
            let mut meter = Meter::default();
            (0..10).for_each(|_| meter.add(3000));
            meter.add(3000 + pause_s * 1000);
            let sum: u64 = meter.seconds(4000 + pause_s * 1000).sum();
            assert_eq!(sum, if pause_s < 10 { 11 } else { 1 }, "{pause_s}");
        }
    }

    #[test]
    fn a_clock_set_back_does_no_harm() {
        let mut meter = Meter::default();
        meter.add(10_000);
        meter.add(1000);
        meter.add(0);
        assert_eq!((meter.count(), meter.rate(0)), (3, 0.0));
        assert_eq!(meter.rate(11_000), 3.0);
    }
}
