//! The end of a run: faults cease, everything drains, and what is left is looked at.

use std::collections::BTreeMap;

use whimbrel_broker_core::Count;
use whimbrel_codec::QoS;

use super::World;
use super::habits::READER;
use crate::check::Message;
use crate::client::Serial;
use crate::note;
use crate::plan::Keeping;

/// Rounds in which everything must come to rest.
const ROUNDS: usize = 3000;
/// What a store without contents may hold, with small segments: a few of them, and a pass.
const EMPTY_STORE_BYTES: u64 = 64 << 10;

impl World {
    pub(super) fn settle_down(&mut self) {
        self.calm = true;
        note!(self.trace, self.now_ms, "calm");
        self.heal_disk();
        if self.machine.is_off() {
            self.crash();
        }
        self.machine.switch_on();
        // Wills that wait for their delay are published while their clients are away.
        let delay_ms = u64::from(self.check.longest_will_delay_s()) * 1000 + 4000;
        for _ in 0..20 {
            self.advance(delay_ms / 20 + 1);
            self.round(false);
        }
        self.come_to_rest();
        self.look_at_retained();
        if self.is_over() {
            return;
        }
        let dropped = self.dropped + self.count(Count::Dropped);
        self.check.finish(if self.plan.short_queues { dropped } else { 0 });
        self.end_everything();
    }

    fn count(&self, count: Count) -> u64 {
        self.broker.as_ref().map_or(0, |broker| broker.shared.stats.get(count))
    }

    /// Everybody has a turn.
    fn round(&mut self, connect: bool) {
        if self.is_over() {
            return;
        }
        let shards = self.broker.as_ref().map_or(0, |broker| broker.shards.len());
        for shard in 0..shards {
            self.tick(shard as u16);
        }
        if let Some(log) = self.broker.as_ref().and_then(|broker| broker.log.clone()) {
            log.work(self.now_ms);
            log.work_reads();
            self.note_store();
        }
        for c in 0..self.clients.len() {
            self.receive(c);
            if self.clients[c].connection.is_none() {
                if connect && c != READER {
                    self.connect(c, false);
                }
                continue;
            }
            if self.clients[c].is_connected() {
                self.answer(c);
            }
        }
        self.advance(10);
    }

    fn at_rest(&self) -> bool {
        let links = self.links.values().all(|link| {
            (link.up.is_empty() || !link.broker_open) && (link.down.is_empty() || !link.client_open)
        });
        let clients = self.clients.iter().enumerate();
        let mut others = clients.filter(|(c, _)| *c != READER).map(|(_, client)| client);
        links
            && others.all(|client| client.is_idle())
            && self.broker.as_ref().is_some_and(|broker| !broker.has_mail())
    }

    fn come_to_rest(&mut self) {
        // A connection that hangs is given up.
        for c in 0..self.clients.len() {
            self.connection_lost(c, "is given up");
            self.clients[c].away_until_ms = 0;
        }
        for link in self.links.values_mut() {
            link.up_ends_after_ms = 0;
            link.up_stalled_until_ms = 0;
        }
        let mut restful = 0;
        for _ in 0..ROUNDS {
            self.round(true);
            restful = if self.at_rest() { restful + 1 } else { 0 };
            if self.is_over() || (restful > 20 && (self.check.due_count() == 0 || restful > 200)) {
                return;
            }
        }
        let busy = self.clients.iter().find(|client| !client.is_idle());
        let what = format!("there is no end: {busy:?}");
        self.check.fail(1, what);
    }

    /// A fresh session is told all that is retained.
    fn look_at_retained(&mut self) {
        if self.is_over() {
            return;
        }
        self.connect(READER, true);
        self.rounds_until(|world| world.clients[READER].is_connected());
        self.seen_retained = Some(BTreeMap::new());
        self.subscribe_to(READER, "r/#", QoS::AtLeastOnce);
        (0..30).for_each(|_| self.round(false));
        self.rounds_until(|world| world.at_rest() && world.clients[READER].is_idle());
        let seen: BTreeMap<String, Serial> = self.seen_retained.take().unwrap_or_default();
        self.check.check_retained(&seen);
    }

    fn rounds_until(&mut self, done: impl Fn(&World) -> bool) {
        for _ in 0..ROUNDS {
            if done(self) || self.is_over() {
                return;
            }
            self.round(false);
        }
        self.check.fail(1, "there is no end of what little there was to do".into());
    }

    /// Sessions end and retained messages go: nothing may be left of them.
    fn end_everything(&mut self) {
        if self.is_over() {
            return;
        }
        for topic in self.check.retained_topics() {
            let mut message = Message::new(READER, &topic, QoS::AtLeastOnce);
            (message.retain, message.empty) = (true, true);
            let serial = self.check.add(message);
            self.publish_again(READER, serial);
            self.rounds_until(|world| world.clients[READER].is_idle());
        }
        if self.plan.small_segments && self.plan.keeping != Keeping::Memory {
            self.make_passes();
        }
        for c in 0..self.clients.len() {
            self.connection_lost(c, "comes for the last time");
            self.connect_to_end(c);
            self.rounds_until(|world| world.clients[c].is_connected());
            self.say_goodbye(c);
        }
        (0..100).for_each(|_| self.round(false));
        self.check_nothing_is_left();
        if self.plan.keeping != Keeping::Memory {
            self.check_store();
        }
    }

    /// Writes so much that all passes that are due come to an end.
    fn make_passes(&mut self) {
        for _ in 0..120 {
            let mut message = Message::new(READER, "r/0/a", QoS::AtLeastOnce);
            message.retain = true;
            let serial = self.check.add(message.clone());
            self.publish_again(READER, serial);
            message.empty = true;
            let serial = self.check.add(message);
            self.publish_again(READER, serial);
            (0..3).for_each(|_| self.round(false));
        }
        self.rounds_until(|world| world.clients[READER].is_idle());
    }

    fn check_nothing_is_left(&mut self) {
        if self.is_over() {
            return;
        }
        let Some(broker) = &self.broker else { return };
        let memory = broker.shared.memory_used_bytes();
        let sessions: usize = broker.shards.iter().map(|shard| shard.session_count()).sum();
        let counts = [
            ("bytes of memory", memory),
            ("sessions", sessions as u64),
            ("sessions counted", broker.shared.stats.get(Count::Sessions)),
            ("connections", broker.shared.stats.get(Count::Connections)),
            ("messages queued", broker.shared.stats.get(Count::Queued)),
        ];
        for (what, n) in counts {
            if n != 0 {
                let what = format!("all has ended, and there are {} {what}", n as i64);
                self.check.fail(7, what);
            }
        }
    }

    /// The store holds nothing any more, and is small if it was asked to be.
    fn check_store(&mut self) {
        if self.is_over() {
            return;
        }
        self.stop();
        let Some(broker) = &self.broker else { return };
        let sessions: usize = broker.shards.iter().map(|shard| shard.session_count()).sum();
        if sessions > 0 {
            self.check.fail(4, format!("{sessions} sessions have come back"));
        }
        let disk = self.machine.disk();
        let used = disk.used();
        if self.plan.small_segments && used > EMPTY_STORE_BYTES {
            let files = whimbrel_store::Disk::list(disk).unwrap_or_default();
            let size = |name: &String| disk.content(name).map_or(0, |content| content.len());
            let files: Vec<String> =
                files.iter().map(|name| format!("{name}: {}", size(name))).collect();
            let what = format!("the store holds nothing, in {used} bytes: {}", files.join(", "));
            self.check.fail(7, what);
        }
    }

    /// What the broker counts while it runs.
    pub(super) fn check_limits(&mut self) {
        let Some(broker) = &self.broker else { return };
        let clients = self.clients.len() as u64;
        let queued = broker.shared.stats.get(Count::Queued);
        let most = if self.plan.short_queues { 20 * clients } else { 1_000_000 };
        let sessions: usize = broker.shards.iter().map(|shard| shard.session_count()).sum();
        if queued > most {
            let what = format!("{} messages are queued, at most {most}", queued as i64);
            self.check.fail(7, what);
        }
        if sessions as u64 > clients {
            self.check.fail(7, format!("{sessions} sessions of {clients} clients"));
        }
    }
}
