//! The world: one broker, its disk, its clients and the network, and what happens next.

mod acts;
mod faults;
mod habits;
mod quiet;
mod real;
mod receive;
mod tick;

use std::collections::BTreeMap;

use crate::broker::Broker;
use crate::check::{Check, Fact, Violation};
use crate::client::{Client, Serial};
use crate::disk::Machine;
use crate::net::Link;
use crate::note;
use crate::plan::{Keeping, Options, Plan};
use crate::rng::Rng;
use crate::trace::Trace;

/// The wall clock at the beginning.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// How a run has ended.
#[derive(Debug)]
pub struct Outcome {
    /// What was asked for.
    pub options: Options,
    /// What the seed made of it.
    pub plan: Plan,
    /// The promise that was broken.
    pub violation: Option<Violation>,
    /// Packets, ticks, disk operations and the like.
    pub operations: u64,
    /// Crashes, kills and stops of the broker.
    pub restarts: u64,
    /// PUBLISH packets that clients got.
    pub delivered: u64,
    /// The last events.
    pub trace: Vec<String>,
}

/// Everything.
pub struct World {
    options: Options,
    plan: Plan,
    rng: Rng,
    now_ms: u64,
    /// What the wall clock says at virtual time 0.
    wall_origin_ms: u64,
    machine: Machine,
    broker: Option<Broker>,
    links: BTreeMap<usize, Link>,
    by_conn: BTreeMap<(u16, u32), usize>,
    last_link: usize,
    clients: Vec<Client>,
    check: Check,
    trace: Trace,
    /// Facts of this tick, which are certain when its batch is durable.
    facts: Vec<Fact>,
    operations: u64,
    restarts: u64,
    /// Messages dropped by brokers that were stopped.
    dropped: u64,
    /// When the disk is to work again.
    disk_heals_ms: Option<u64>,
    /// No more faults.
    calm: bool,
    /// What the reader is told, while somebody wants to know.
    seen_retained: Option<BTreeMap<String, Serial>>,
}

/// Runs a seed to its end, or to the first violation.
pub fn run(options: Options) -> Outcome {
    let mut world = World::new(options);
    let run = std::panic::AssertUnwindSafe(|| world.run());
    if let Err(panic) = std::panic::catch_unwind(run) {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        world.check.fail(8, format!("panic: {what}"));
    }
    let World { options, plan, check, trace, operations, restarts, machine, .. } = world;
    Outcome {
        options,
        plan,
        violation: check.violation().cloned(),
        operations: operations + machine.operations(),
        restarts,
        delivered: check.delivered,
        trace: trace.into_lines(),
    }
}

impl World {
    fn new(options: Options) -> World {
        let mut rng = Rng::new(options.seed);
        let plan = Plan::new(&mut rng);
        let clients = habits::clients(&mut rng, options.real_clients);
        let names = clients.iter().map(|client| client.name.clone()).collect();
        World {
            now_ms: 1000,
            wall_origin_ms: WALL_START_MS,
            machine: Machine::new(options.mutation),
            broker: None,
            links: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            last_link: 0,
            check: Check::new(names),
            clients,
            trace: Trace::new(options.trace_lines),
            facts: Vec::new(),
            operations: 0,
            restarts: 0,
            dropped: 0,
            disk_heals_ms: None,
            calm: false,
            seen_retained: None,
            options,
            plan,
            rng,
        }
    }

    fn run(&mut self) {
        self.check.hasty = !self.is_durable();
        note!(self.trace, self.now_ms, "{:?}", self.plan);
        self.start_broker(self.wall_ms(), false);
        for _ in 0..self.options.steps {
            if self.is_over() {
                return;
            }
            self.step();
        }
        self.settle_down();
    }

    fn is_over(&self) -> bool {
        self.check.violation().is_some()
    }

    fn wall_ms(&self) -> u64 {
        self.wall_origin_ms + self.now_ms
    }

    /// One thing happens.
    fn step(&mut self) {
        let ms = match self.rng.below(100) {
            0 => self.rng.between(100, 3000),
            1..20 => self.rng.between(1, 50),
            _ => 0,
        };
        if ms > 0 {
            self.advance(ms);
        }
        self.maybe_fault();
        let store = self.plan.store_percent;
        match self.rng.below(100) {
            n if n < store => self.store_work(),
            n if n < store + (100 - store) / 2 => {
                let shards = self.broker.as_ref().map_or(1, |broker| broker.shards.len());
                let shard = self.rng.index(shards);
                self.tick(shard as u16);
            }
            _ => {
                let c = self.rng.index(self.clients.len());
                self.receive(c);
                self.act(c);
            }
        }
    }

    fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        let wall = self.wall_ms();
        self.check.set_wall(wall);
    }

    /// The store's threads get their turn.
    fn store_work(&mut self) {
        let Some(broker) = &self.broker else { return };
        let Some(log) = broker.log.clone() else { return };
        if self.rng.percent(70) {
            log.work(self.now_ms);
        }
        if self.rng.percent(50) {
            log.work_reads();
        }
        self.operations += 1;
        if self.machine.is_off() {
            return self.crash();
        }
        self.note_store();
    }

    /// Listens to the store.
    fn note_store(&mut self) {
        let Some(broker) = &self.broker else { return };
        if let Some(log) = &broker.log {
            self.check.durable(log.synced().0);
        }
        let doings = broker.doings.lock().map(|mut list| std::mem::take(&mut *list));
        for line in doings.unwrap_or_default() {
            note!(self.trace, self.now_ms, "store: {line}");
        }
        let complaint = broker.complaints.lock().ok().and_then(|list| list.first().cloned());
        if let Some(complaint) = complaint {
            self.check.fail(1, format!("the store has lost something: {complaint}"));
        }
    }

    fn is_durable(&self) -> bool {
        self.plan.keeping != Keeping::Memory
    }
}
