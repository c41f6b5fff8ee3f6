//! What kind of run a seed makes: shards, limits, durability, how much goes wrong.

use whimbrel_broker_core::Config;
use whimbrel_store::Durability;

use crate::Mutation;
use crate::rng::Rng;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Steps before the run goes quiet.
    pub steps: u64,
    /// A deliberate bug.
    pub mutation: Option<Mutation>,
    /// Most clients are those of `client-core`, which crash too.
    pub real_clients: bool,
    /// Lines of the trace that are kept; 0: none are made.
    pub trace_lines: usize,
}

impl Options {
    /// A run of usual length. With even seeds most clients are those of `client-core`.
    pub fn new(seed: u64) -> Options {
        let real_clients = seed.is_multiple_of(2);
        Options { seed, steps: 4000, mutation: None, real_clients, trace_lines: 0 }
    }
}

/// Where the broker keeps what must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// On disk, synced before an acknowledgement.
    Fsync,
    /// With the operating system: it survives the end of the process.
    Os,
    /// Nowhere: the broker is never stopped.
    Memory,
}

impl Keeping {
    /// For the log.
    pub fn durability(self) -> Durability {
        match self {
            Keeping::Fsync => Durability::Fsync,
            Keeping::Os => Durability::Os,
            Keeping::Memory => Durability::Memory,
        }
    }
}

/// What a seed has decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Most shards; each start of the broker has 1 to this many.
    pub max_shards: u16,
    /// Where state is kept.
    pub keeping: Keeping,
    /// Queues are so short that messages are dropped.
    pub short_queues: bool,
    /// All but a kilobyte of a queue is in the store only.
    pub little_memory: bool,
    /// Segments are small, so that passes, sweeps and packing happen all the time.
    pub small_segments: bool,
    /// The broker is stopped once in so many steps, in one way or another.
    pub stop_every: u64,
    /// A network connection fails once in so many steps.
    pub cut_every: u64,
    /// The disk fills up or fails once in so many steps.
    pub disk_fault_every: u64,
    /// Of a hundred steps, so many are for the store.
    pub store_percent: u64,
    /// The wall clock jumps when the broker is started.
    pub clock_jumps: bool,
    /// Members of groups subscribe with QoS 0 too, which loses messages.
    pub lossy_groups: bool,
    /// Bytes of a payload at most.
    pub max_payload_bytes: u64,
    /// Deliveries in flight to one client.
    pub max_inflight: u16,
}

impl Plan {
    /// What the seed says.
    pub fn new(rng: &mut Rng) -> Plan {
        let keeping = match rng.below(10) {
            0 => Keeping::Memory,
            1 => Keeping::Os,
            _ => Keeping::Fsync,
        };
        Plan {
            max_shards: rng.between(1, 4) as u16,
            keeping,
            short_queues: rng.one_in(6),
            little_memory: rng.one_in(2),
            small_segments: rng.percent(60),
            stop_every: *rng.pick(&[150, 400, 1000, 3000]),
            cut_every: *rng.pick(&[30, 100, 500]),
            disk_fault_every: *rng.pick(&[300, 1000, u64::MAX]),
            store_percent: *rng.pick(&[3, 10, 30]),
            clock_jumps: rng.one_in(3),
            lossy_groups: rng.one_in(5),
            max_payload_bytes: *rng.pick(&[8, 100, 100, 1500]),
            max_inflight: *rng.pick(&[2, 5, 1024, 1024]),
        }
    }

    /// For the core.
    pub fn config(&self) -> Config {
        Config {
            sys_interval_s: 0,
            connect_timeout_s: 60,
            max_queued_messages: if self.short_queues { 20 } else { 1_000_000 },
            max_queue_memory_bytes: if self.little_memory { 1024 } else { 256 * 1024 },
            max_inflight: self.max_inflight,
            ..Config::default()
        }
    }

    /// `(segment, pass after)` in bytes.
    pub fn segment_bytes(&self) -> (u64, u64) {
        if self.small_segments { (4096, 8192) } else { (1 << 20, 1 << 20) }
    }
}
