//! Processor time, resident memory and percentiles.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::raw::Feed;
use crate::{Load, Result};

/// What something cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: Duration,
    /// Of all threads, user and system.
    pub cpu: Duration,
}

impl Cost {
    pub fn to_json(self, count: u64) -> String {
        let count = count as f64;
        format!(
            "{{\"messages_per_s\": {:.0}, \"cpu_us_per_message\": {:.4}}}",
            count / self.wall.as_secs_f64(),
            self.cpu.as_secs_f64() * 1e6 / count,
        )
    }
}

/// Started when the measured part starts.
pub struct Meter {
    wall: Instant,
    cpu: Duration,
}

impl Meter {
    pub fn start() -> Meter {
        Meter { wall: Instant::now(), cpu: cpu_of_process() }
    }

    pub fn stop(&self) -> Cost {
        Cost { wall: self.wall.elapsed(), cpu: cpu_of_process() - self.cpu }
    }
}

fn cpu_of_process() -> Duration {
    elapsed(ClockId::ProcessCPUTime)
}

pub fn cpu_of_this_thread() -> Duration {
    elapsed(ClockId::ThreadCPUTime)
}

fn elapsed(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The cost of receiving, without the share of the thread that sends at QoS 0.
pub fn received(load: &Load, cost: Cost, feed: Option<Feed>) -> Result<Cost> {
    let Some(feed) = feed else { return Ok(cost) };
    let sending = feed.join().map_err(|_| "the sending thread panicked")??;
    let share = load.count as f64 / (load.warm_up() + load.count) as f64;
    Ok(Cost { cpu: cost.cpu.saturating_sub(sending.mul_f64(share)), ..cost })
}

/// Resident memory of this process.
pub fn resident_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).ok_or("statm has no second field")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Of a list of times.
pub struct Percentiles {
    p50: Duration,
    p99: Duration,
}

impl Percentiles {
    /// Of a list that is not empty.
    pub fn of(mut times: Vec<Duration>) -> Percentiles {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        Percentiles { p50: at(50), p99: at(99) }
    }

    pub fn to_json(&self) -> String {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        format!("{{\"p50_us\": {:.1}, \"p99_us\": {:.1}}}", us(self.p50), us(self.p99))
    }
}
