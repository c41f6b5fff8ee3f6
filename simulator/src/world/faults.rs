//! What goes wrong: the broker is stopped in one way or another, the disk fills up, the network
//! breaks, clients lose their memory.

use whimbrel_broker_core::Count;
use whimbrel_store::sim_disk::Operation;

use super::World;
use crate::broker::{Broker, Start};
use crate::note;
use crate::plan::Keeping;

/// Ticks of each shard in which an orderly stop comes to its end.
const STOP_ROUNDS: usize = 40;

impl World {
    /// Something goes wrong, or not.
    pub(super) fn maybe_fault(&mut self) {
        if self.disk_heals_ms.is_some_and(|at| at <= self.now_ms) {
            self.heal_disk();
        }
        if self.is_durable() && self.rng.one_in(self.plan.stop_every) {
            self.stop_somehow();
        }
        if self.is_durable() && self.rng.one_in(self.plan.disk_fault_every) {
            self.break_disk();
        }
        if self.rng.one_in(self.plan.cut_every) {
            let c = self.rng.index(self.clients.len());
            self.cut(c);
        }
        if self.rng.one_in(100) {
            self.stall();
        }
        if self.rng.one_in(800) {
            let c = self.rng.index(self.clients.len());
            note!(self.trace, self.now_ms, "{} loses its memory", self.clients[c].name);
            self.cut(c);
            self.clients[c].real = None;
            self.clients[c].must_clean = true;
        }
        if self.options.real_clients && self.rng.one_in(150) {
            let c = self.rng.index(self.clients.len());
            if self.is_real(c) {
                self.crash_client(c);
            }
        }
    }

    fn stall(&mut self) {
        let until = self.now_ms + self.rng.between(10, 3000);
        let n = self.rng.index(self.links.len().max(1));
        let up = self.rng.one_in(2);
        if let Some(link) = self.links.values_mut().nth(n) {
            match up {
                true => link.up_stalled_until_ms = until,
                false => link.down_stalled_until_ms = until,
            }
        }
    }

    fn break_disk(&mut self) {
        let disk = self.machine.disk();
        let what = self.rng.below(3);
        match what {
            0 => disk.set_capacity(Some(disk.used() + self.rng.below(4000))),
            1 => disk.fail_syncs(true),
            _ => {
                let of = [Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Names];
                disk.fail(*self.rng.pick(&of), self.rng.below(5));
            }
        }
        let kind = ["is full", "cannot sync", "fails once"][what as usize];
        note!(self.trace, self.now_ms, "the disk {kind}");
        self.disk_heals_ms = Some(self.now_ms + self.rng.between(10, 4000));
    }

    pub(super) fn heal_disk(&mut self) {
        if self.disk_heals_ms.take().is_some() {
            note!(self.trace, self.now_ms, "the disk works again");
        }
        self.machine.disk().heal();
        self.machine.disk().set_capacity(None);
    }

    // ---- the end of a broker

    fn stop_somehow(&mut self) {
        if self.broker.is_none() {
            return;
        }
        let kind = match self.plan.keeping {
            Keeping::Fsync => self.rng.below(5),
            // The power may not go.
            _ => self.rng.between(3, 4),
        };
        match kind {
            0 => self.crash(),
            1 | 2 => {
                let operations = self.rng.below(60);
                note!(self.trace, self.now_ms, "power for {operations} operations of the disk");
                self.machine.crash_after(operations);
            }
            3 => self.kill(),
            _ => self.stop(),
        }
    }

    /// The power goes.
    pub(super) fn crash(&mut self) {
        note!(self.trace, self.now_ms, "the power goes");
        let stopped_wall = self.wall_ms();
        self.abandon();
        self.lose_power();
        self.down_time();
        self.start_broker(stopped_wall, true);
    }

    fn lose_power(&mut self) {
        let rng = &mut self.rng;
        self.machine.disk().crash(&mut |n| rng.index(n));
        self.machine.switch_on();
    }

    /// The process ends; what it has written stays.
    fn kill(&mut self) {
        note!(self.trace, self.now_ms, "the broker is killed");
        let stopped_wall = self.wall_ms();
        self.abandon();
        self.machine.disk().close();
        self.machine.switch_on();
        self.down_time();
        self.start_broker(stopped_wall, true);
    }

    /// The broker ends in good order.
    pub(super) fn stop(&mut self) {
        note!(self.trace, self.now_ms, "the broker is stopped");
        let Some(broker) = &mut self.broker else { return };
        let now = broker.now(self.now_ms);
        broker.shards.iter_mut().for_each(|shard| shard.shut_down(now));
        let shards = broker.shards.len() as u16;
        let was_calm = std::mem::replace(&mut self.calm, true);
        for _ in 0..STOP_ROUNDS {
            for shard in 0..shards {
                self.tick(shard);
            }
            if let Some(log) = self.broker.as_ref().and_then(|broker| broker.log.clone()) {
                log.work(self.now_ms);
                log.work_reads();
            }
            if self.machine.is_off() {
                self.calm = was_calm;
                return self.crash();
            }
            self.note_store();
        }
        self.calm = was_calm;
        let stopped_wall = self.wall_ms();
        let mut stopped = true;
        if let Some(broker) = &self.broker {
            stopped = !broker.has_mail();
            if let Some(log) = &broker.log {
                stopped &= log.stop().is_ok();
            }
        }
        if self.machine.is_off() {
            return self.crash();
        }
        if !stopped && self.disk_heals_ms.is_none() {
            self.check.fail(4, "the broker could not be stopped in good order".into());
        }
        self.abandon();
        self.machine.disk().close();
        self.machine.switch_on();
        self.down_time();
        self.start_broker(stopped_wall, !stopped);
    }

    /// The broker is gone, and all network connections with it.
    fn abandon(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.dropped += broker.shared.stats.get(Count::Dropped);
        }
        self.restarts += 1;
        self.by_conn.clear();
        for link in self.links.values_mut() {
            link.broker_open = false;
            (link.conn, link.moved) = (None, None);
            link.connected = false;
            link.up.clear();
            if self.rng.one_in(2) {
                link.down.truncate(self.rng.index(link.down.len() + 1));
            }
        }
        self.links.retain(|_, link| !link.is_gone());
    }

    fn down_time(&mut self) {
        let ms = if self.rng.one_in(5) { self.rng.between(0, 20_000) } else { 100 };
        self.now_ms += ms;
        if self.plan.clock_jumps && self.rng.one_in(2) {
            let jump = self.rng.between(0, 100_000);
            let back = self.rng.one_in(2);
            let what = if back { "back" } else { "forward" };
            note!(self.trace, self.now_ms, "the clock jumps {what} by {jump} ms");
            match back {
                true => self.wall_origin_ms -= jump,
                false => self.wall_origin_ms += jump,
            }
        }
    }

    // ---- the beginning of a broker

    /// Starts the broker; the power may go while it reads its disk.
    pub(super) fn start_broker(&mut self, stopped_wall: u64, crashed: bool) {
        self.heal_disk();
        let mut crashed = crashed;
        loop {
            if self.plan.keeping == Keeping::Fsync && !self.calm && self.rng.one_in(4) {
                self.machine.crash_after(self.rng.below(40));
            }
            let shards = self.rng.between(1, self.plan.max_shards.into()) as u16;
            let (now_ms, wall_ms) = (self.now_ms, self.wall_ms());
            let start = Start { now_ms, wall_ms, shards };
            let mutation = self.options.mutation;
            let started = Broker::start(&self.plan, &self.machine, start, mutation, &mut self.rng);
            if self.machine.is_off() {
                note!(self.trace, now_ms, "the power goes while the broker starts");
                drop(started);
                self.lose_power();
                // Opening may have taken the sign of the orderly stop away.
                crashed |= self.restarts > 0;
                continue;
            }
            self.machine.switch_on();
            match started {
                Err(error) => {
                    let what = format!("the store cannot be opened: {error}");
                    return self.check.fail(4, what);
                }
                Ok((broker, recovered)) => {
                    note!(
                        self.trace,
                        now_ms,
                        "the broker starts: {shards} shards, {} sessions, {} retained, \
                         {} on their way, stopped {}, cut {}",
                        recovered.sessions.len(),
                        recovered.retained.len(),
                        recovered.unrouted.len(),
                        recovered.stopped,
                        recovered.cut_bytes
                    );
                    self.broker = Some(broker);
                    if self.restarts > 0 {
                        self.check.restarted(stopped_wall, wall_ms, crashed);
                        if !crashed && !recovered.stopped {
                            let what = "the orderly stop was not noted".into();
                            self.check.fail(4, what);
                        }
                    }
                    self.check.set_wall(wall_ms);
                    return self.note_store();
                }
            }
        }
    }
}
