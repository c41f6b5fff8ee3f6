//! Bytes as what a few connections of two shards do. An operation is a byte, of which the low bits
//! say what and the high bits which connection; those that carry bytes have a length behind it.
//! Shards must not panic, answer every operation, and keep within the limits below.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use whimbrel_broker_core::{Action, Config, ConnId, Mail, Millis, Peer, Shard, ShardId, Shared};
use whimbrel_codec::{Connect, Frame, Packet, Properties, Property, Version, Will};
use whimbrel_store::MemoryStore;

const LINKS: usize = 4;
const MAX_OUTPUT_BYTES: u32 = 64 * 1024;
const BUDGET_BYTES: u64 = 1024 * 1024;
/// One operation may come on top of a limit: the packets of its input to each connection.
const SLACK_BYTES: u64 = 1024 * 1024;

fuzz_target!(|input: &[u8]| {
    let mut broker = Broker::new();
    let mut rest = input;
    while let Some((&op, tail)) = rest.split_first() {
        rest = tail;
        let link = usize::from(op >> 4) % LINKS;
        match op & 15 {
            0..=5 => {
                let Some((&len, tail)) = rest.split_first() else { break };
                let (bytes, tail) = tail.split_at(tail.len().min(len.into()));
                rest = tail;
                broker.bytes(link, bytes);
            }
            6 => broker.connect(link, Version::V5, op),
            7 => broker.connect(link, Version::V3_1_1, op),
            8 => broker.connect(link, Version::V3_1, op),
            9 => broker.cut(link),
            10 => broker.stalled[link] ^= true,
            11 => {
                let Some((&n, tail)) = rest.split_first() else { break };
                rest = tail;
                broker.write(link, n.into());
                broker.settle();
            }
            12 => {
                let Some((&s, tail)) = rest.split_first() else { break };
                rest = tail;
                broker.advance(s);
            }
            13 => {
                // The same bytes again and again: what one input keeps, a flood must not multiply.
                let Some((&len, tail)) = rest.split_first() else { break };
                let (bytes, tail) = tail.split_at(tail.len().min(usize::from(len) % 64));
                rest = tail;
                for _ in 0..64 {
                    broker.bytes(link, bytes);
                }
            }
            14 => broker.write(link, usize::MAX),
            _ => broker.settle(),
        }
        broker.check();
    }
    broker.end();
});

struct Broker {
    shards: Vec<Shard>,
    shared: Arc<Shared>,
    links: [Option<(u16, ConnId)>; LINKS],
    stalled: [bool; LINKS],
    paused: [bool; LINKS],
    /// The socket has taken a part of a packet.
    torn: [bool; LINKS],
    now: Millis,
}

impl Broker {
    fn new() -> Broker {
        let config = Config {
            max_output_bytes: MAX_OUTPUT_BYTES,
            max_queued_messages: 100,
            max_packet_size_bytes: 64 * 1024,
            max_retained_messages: 50,
            max_subscriptions: 50,
            receive_maximum: 10,
            memory_budget_bytes: BUDGET_BYTES,
            sys_interval_s: 60,
            client_state_messages: true,
            ..Config::default()
        };
        let (shared, config, now) = (Shared::new(2, 7), Arc::new(config), Millis(0));
        let shard = |at| {
            let store = Box::new(MemoryStore);
            Shard::new(ShardId(at), shared.clone(), config.clone(), store, at.into(), now)
        };
        let shards = vec![shard(0), shard(1)];
        let (links, no) = ([None; LINKS], [false; LINKS]);
        Broker { shards, shared, links, stalled: no, paused: no, torn: no, now }
    }

    fn open(&mut self, shard: u16) -> (u16, ConnId) {
        let peer = Peer::MEMORY;
        (shard, self.shards[usize::from(shard)].handle_open(self.now, peer))
    }

    fn bytes(&mut self, link: usize, bytes: &[u8]) {
        if self.paused[link] && self.links[link].is_some() {
            return;
        }
        let (shard, conn) = match self.links[link] {
            Some(there) => there,
            None => {
                let there = self.open(link as u16 % 2);
                self.stalled[link] = false;
                self.paused[link] = false;
                self.torn[link] = false;
                *self.links[link].insert(there)
            }
        };
        self.shards[usize::from(shard)].handle_bytes(self.now, conn, bytes);
        self.settle();
    }

    /// A valid CONNECT, to which raw bytes may follow. Two connections share a client identifier.
    fn connect(&mut self, link: usize, version: Version, op: u8) {
        let list = [
            Property::SessionExpiryIntervalS(100),
            Property::ReceiveMaximum(3),
            Property::TopicAliasMaximum(2),
        ];
        let will = Will {
            topic: "a/will",
            payload: b"w",
            qos: whimbrel_codec::QoS::AtLeastOnce,
            retain: true,
            properties: Properties::NONE,
        };
        let connect = Connect {
            clean_start: op & 0x40 != 0,
            keep_alive_s: 30,
            properties: if version.is_v5() { Properties::new(&list) } else { Properties::NONE },
            will: (op & 0x80 != 0).then_some(will),
            ..Connect::new(version, ["a", "b", "c", "a"][link])
        };
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(version, &mut bytes).expect("a CONNECT");
        self.bytes(link, &bytes);
    }

    fn cut(&mut self, link: usize) {
        if let Some((shard, conn)) = self.links[link].take() {
            self.shards[usize::from(shard)].handle_closed(self.now, conn);
            self.settle();
        }
    }

    fn write(&mut self, link: usize, most: usize) {
        let Some((shard, conn)) = self.links[link] else { return };
        let shard = &mut self.shards[usize::from(shard)];
        let n: usize = shard.output(conn).map(<[u8]>::len).sum();
        self.torn[link] = most < n && (most > 0 || self.torn[link]);
        shard.handle_written(self.now, conn, n.min(most));
    }

    fn advance(&mut self, s: u8) {
        self.now.0 += u64::from(s) * 500;
        for shard in &mut self.shards {
            if shard.poll_timeout().is_some_and(|at| at <= self.now) {
                shard.handle_timeout(self.now);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        // Each round does what the one before led to; that ends.
        for _ in 0..1000 {
            let mut quiet = true;
            for at in 0..self.shards.len() {
                while let Some(action) = self.shards[at].poll_action(self.now) {
                    quiet = false;
                    self.act(at as u16, action);
                }
                let mut batches = Vec::new();
                while let Some((to, mail)) = self.shards[at].poll_mail() {
                    batches.push((to, std::mem::take::<Mail>(mail)));
                }
                for (to, mut mail) in batches {
                    quiet = false;
                    self.shards[usize::from(to.0)].handle_mail(self.now, &mut mail);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the shards do not come to rest");
    }

    fn link(&self, shard: u16, conn: ConnId) -> Option<usize> {
        self.links.iter().position(|link| *link == Some((shard, conn)))
    }

    fn act(&mut self, shard: u16, action: Action) {
        match action {
            Action::Send(conn) => {
                let link = self.link(shard, conn).expect("an open connection");
                if !self.stalled[link] {
                    self.write_packets(link);
                }
            }
            Action::Close { conn, .. } => {
                let link = self.link(shard, conn).expect("an open connection");
                self.write_packets(link);
                self.links[link] = None;
                self.shards[usize::from(shard)].handle_closed(self.now, conn);
            }
            Action::Move { conn, to, bytes } => {
                let link = self.link(shard, conn).expect("an open connection");
                assert_ne!(shard, to.0);
                self.shards[usize::from(shard)].handle_closed(self.now, conn);
                let (to, conn) = self.open(to.0);
                self.links[link] = Some((to, conn));
                self.shards[usize::from(to)].handle_bytes(self.now, conn, &bytes);
            }
            Action::Pause(conn) => {
                if let Some(link) = self.link(shard, conn) {
                    self.paused[link] = true;
                }
            }
            Action::Resume(conn) => {
                if let Some(link) = self.link(shard, conn) {
                    self.paused[link] = false;
                }
            }
            Action::Event(_) => {}
        }
    }

    /// The socket takes everything. Where nothing was cut off before, it begins with a packet.
    fn write_packets(&mut self, link: usize) {
        let Some((shard, conn)) = self.links[link] else { return };
        let output: Vec<u8> =
            self.shards[usize::from(shard)].output(conn).flatten().copied().collect();
        if !self.torn[link] {
            let mut rest = output.as_slice();
            while let Ok(Some(frame)) = Frame::parse(rest, u32::MAX) {
                rest = rest.get(frame.packet_len()..).expect("a whole packet");
            }
            assert!(rest.is_empty(), "what was sent is no packet: {rest:?}");
        }
        self.write(link, usize::MAX);
    }

    fn check(&self) {
        let used = self.shared.memory_used_bytes();
        assert!(used <= BUDGET_BYTES + SLACK_BYTES, "{used} bytes");
        for (shard, conn) in self.links.iter().flatten() {
            let waiting: usize =
                self.shards[usize::from(*shard)].output(*conn).map(<[u8]>::len).sum();
            assert!(waiting as u64 <= u64::from(MAX_OUTPUT_BYTES) + SLACK_BYTES, "{waiting}");
        }
    }

    /// All connections end, and nothing of them is left but sessions and what is retained.
    fn end(&mut self) {
        for shard in &mut self.shards {
            shard.shut_down(self.now);
        }
        self.settle();
        for link in 0..LINKS {
            self.cut(link);
        }
        self.settle();
        for shard in &self.shards {
            assert_eq!(shard.connection_count(), 0);
        }
        assert_eq!(self.shared.stats.get(whimbrel_broker_core::Count::Connections), 0);
    }
}
