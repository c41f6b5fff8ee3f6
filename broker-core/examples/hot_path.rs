//! The hot path alone, without sockets: decode, match, encode, deliver.
//!
//! `cargo run --release -p whimbrel-broker-core --example hot_path [SCENARIO [MESSAGES]]` prints
//! nanoseconds per message; `bench/instructions` counts instructions with callgrind.

use std::sync::Arc;
use std::time::Instant;

use whimbrel_auth::{Anonymous, Rules};
use whimbrel_broker_core::{Action, Config, ConnId, Millis, Peer, Shard, ShardId, Shared};
use whimbrel_codec::{
    Ack, Connect, Filters, Packet, PacketId, Publish, QoS, Subscribe, Subscription, Version,
};
use whimbrel_store::MemoryStore;

#[path = "hot_path/more.rs"]
mod more;

const NOW: Millis = Millis(1000);
/// Messages of one read, as a busy publisher sends them.
const BURST: usize = 64;

struct Broker {
    shard: Shard,
}

impl Broker {
    fn new() -> Broker {
        Broker::under(Rules::open())
    }

    fn under(rules: Rules) -> Broker {
        let config = Arc::new(Config { sys_interval_s: 0, ..Config::default() });
        let shared = Shared::with_access(1, 7, Arc::new(Anonymous), Arc::new(rules));
        Broker { shard: Shard::new(ShardId(0), shared, config, Box::new(MemoryStore), 7, NOW) }
    }

    fn client(&mut self, version: Version, name: &str) -> ConnId {
        let conn = self.shard.handle_open(NOW, Peer::MEMORY);
        self.send(conn, version, &Packet::Connect(Connect::new(version, name)));
        self.drain();
        conn
    }

    fn subscribe(&mut self, conn: ConnId, version: Version, filter: &str, qos: QoS) {
        let filters = [Subscription::new(filter, qos)];
        let subscribe = Subscribe {
            packet_id: PacketId::MIN,
            properties: Default::default(),
            filters: Filters::new(&filters),
        };
        self.send(conn, version, &Packet::Subscribe(subscribe));
        self.drain();
    }

    fn send(&mut self, conn: ConnId, version: Version, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).expect("a packet that can be encoded");
        self.shard.handle_bytes(NOW, conn, &bytes);
    }

    /// Does what a tick's end does, and gives the number of bytes sent.
    fn drain(&mut self) -> usize {
        let mut sent = 0;
        while let Some(action) = self.shard.poll_action(NOW) {
            if let Action::Send(conn) = action {
                let n = self.shard.output(conn).map(<[u8]>::len).sum();
                self.shard.handle_written(NOW, conn, n);
                sent += n;
            }
        }
        sent
    }
}

fn burst(version: Version, topic: &str, qos: QoS, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 0..BURST {
        let packet_id = (qos != QoS::AtMostOnce).then(|| PacketId::new(at as u16 + 1)).flatten();
        let publish = Publish { qos, packet_id, ..Publish::new(topic, payload) };
        Packet::Publish(publish).encode(version, &mut bytes).expect("a small packet");
    }
    bytes
}

fn acks(of: impl Fn(Ack<'static>) -> Packet<'static>, first: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 0..BURST {
        let number = ((first + at) % 65_535) as u16 + 1;
        let id = PacketId::new(number).expect("never 0");
        of(Ack::new(id)).encode(Version::V3_1_1, &mut bytes).expect("a small packet");
    }
    bytes
}

/// Publisher to subscribers at one QoS; gives the number of deliveries.
fn flow(version: Version, qos: QoS, payload: usize, subscribers: usize, messages: usize) -> usize {
    let mut broker = Broker::new();
    let subs: Vec<ConnId> = (0..subscribers)
        .map(|at| {
            let conn = broker.client(version, &format!("subscriber-{at}"));
            broker.subscribe(conn, version, "bench/topic/1", qos);
            conn
        })
        .collect();
    let publisher = broker.client(version, "publisher");
    let bytes = burst(version, "bench/topic/1", qos, &vec![7; payload]);
    let released = acks(Packet::PubRel, 0);
    let mut done = 0;
    while done < messages {
        broker.shard.handle_bytes(NOW, publisher, &bytes);
        if qos == QoS::ExactlyOnce {
            broker.shard.handle_bytes(NOW, publisher, &released);
        }
        broker.drain();
        for &sub in &subs {
            match qos {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => {
                    broker.shard.handle_bytes(NOW, sub, &acks(Packet::PubAck, done));
                }
                QoS::ExactlyOnce => {
                    broker.shard.handle_bytes(NOW, sub, &acks(Packet::PubRec, done));
                    broker.drain();
                    broker.shard.handle_bytes(NOW, sub, &acks(Packet::PubComp, done));
                }
            }
        }
        broker.drain();
        done += BURST;
    }
    done * subscribers
}

type Scenario = (&'static str, fn(usize) -> usize);

const SCENARIOS: &[Scenario] = &[
    ("pair_qos0", |n| flow(Version::V3_1_1, QoS::AtMostOnce, 64, 1, n)),
    ("pair_qos1", |n| flow(Version::V3_1_1, QoS::AtLeastOnce, 64, 1, n)),
    ("pair_qos2", |n| flow(Version::V3_1_1, QoS::ExactlyOnce, 64, 1, n)),
    ("pair_qos0_v5", |n| flow(Version::V5, QoS::AtMostOnce, 64, 1, n)),
    ("pair_qos0_1024", |n| flow(Version::V3_1_1, QoS::AtMostOnce, 1024, 1, n)),
    ("fanout_100_qos0", |n| flow(Version::V3_1_1, QoS::AtMostOnce, 64, 100, n / 100)),
    ("topics_20_qos0", |n| more::topics(20, Rules::open(), n)),
    ("topics_20_qos0_rules", |n| more::topics(20, more::rules(), n)),
    ("topics_500_qos0", |n| more::topics(500, Rules::open(), n)),
    ("topics_500_qos0_rules", |n| more::topics(500, more::rules(), n)),
    ("mail_qos0", more::mail),
    ("properties_qos0", more::properties),
    ("routes_at_random", more::routes_at_random),
    ("retained_store", more::retained_store),
    ("subscribe", more::subscribe),
    ("connect", more::connect),
    ("fanout_100_qos1", |n| flow(Version::V3_1_1, QoS::AtLeastOnce, 64, 100, n / 100)),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let wanted = args.next();
    let messages = args.next().and_then(|n| n.parse().ok()).unwrap_or(2_000_000);
    for (name, run) in SCENARIOS {
        if wanted.as_deref().is_some_and(|wanted| wanted != *name) {
            continue;
        }
        let start = Instant::now();
        let delivered = run(messages);
        let ns = start.elapsed().as_nanos() as f64 / delivered.max(1) as f64;
        println!("{name:<20} {ns:8.1} ns per delivery");
    }
}
