//! Beside the flow of messages: what a broker does less often.

use whimbrel_auth::Rules;
use whimbrel_codec::{Disconnect, Properties, Property, Publish, ReasonCode, Topics, Unsubscribe};

use super::*;

/// Deterministic and well mixed: splitmix64.
fn random(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

const TOPICS: u64 = 100_000;
const SUBSCRIPTIONS: usize = 100_000;

fn topic(at: u64) -> String {
    format!("site/{}/line/{}/device/{at}", at % 50, at / 50 % 40)
}

/// Topics at random, more than the cache of routes holds, over many subscriptions of which 30 %
/// have wildcards: each message walks the table.
pub fn routes_at_random(messages: usize) -> usize {
    let mut broker = Broker::new();
    let clients = 100;
    let per_client = SUBSCRIPTIONS / clients;
    for client in 0..clients {
        let conn = broker.client(Version::V3_1_1, &format!("subscriber-{client}"));
        let filter = |at: usize| {
            let n = (client * per_client + at) as u64;
            match n % 10 {
                0 => format!("site/{}/line/+/device/{n}", n % 50),
                1 => format!("site/+/line/{}/device/{n}", n / 50 % 40),
                2 => format!("site/{}/line/{}/device/{n}/#", n % 50, n / 50 % 40),
                _ => topic(n),
            }
        };
        let filters: Vec<String> = (0..per_client).map(filter).collect();
        let filters: Vec<_> =
            filters.iter().map(|f| Subscription::new(f, QoS::AtMostOnce)).collect();
        let subscribe = Subscribe {
            packet_id: PacketId::MIN,
            properties: Default::default(),
            filters: Filters::new(&filters),
        };
        broker.send(conn, Version::V3_1_1, &Packet::Subscribe(subscribe));
        broker.drain();
    }
    let publisher = broker.client(Version::V3_1_1, "publisher");
    for at in 0..messages {
        let topic = topic(random(at as u64) % TOPICS);
        broker.send(publisher, Version::V3_1_1, &Packet::Publish(Publish::new(&topic, &[7; 64])));
        if at % BURST == 0 {
            broker.drain();
        }
    }
    broker.drain();
    messages
}

/// Retained messages, each of a thousand topics again and again.
pub fn retained_store(messages: usize) -> usize {
    let mut broker = Broker::new();
    let publisher = broker.client(Version::V3_1_1, "publisher");
    for at in 0..messages {
        let topic = topic(random(at as u64) % 1000);
        let publish = Publish { retain: true, ..Publish::new(&topic, &[7; 64]) };
        broker.send(publisher, Version::V3_1_1, &Packet::Publish(publish));
        if at % BURST == 0 {
            broker.drain();
        }
    }
    messages
}

/// SUBSCRIBE and UNSUBSCRIBE of one filter.
pub fn subscribe(times: usize) -> usize {
    let mut broker = Broker::new();
    let conn = broker.client(Version::V3_1_1, "subscriber");
    for at in 0..times {
        let filter = topic(at as u64 % 1000);
        broker.subscribe(conn, Version::V3_1_1, &filter, QoS::AtLeastOnce);
        let filters = [filter.as_str()];
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::MIN,
            properties: Default::default(),
            filters: Topics::new(&filters),
        };
        broker.send(conn, Version::V3_1_1, &Packet::Unsubscribe(unsubscribe));
        broker.drain();
    }
    times
}

/// CONNECT, DISCONNECT and the end of the socket.
pub fn connect(times: usize) -> usize {
    let mut broker = Broker::new();
    for at in 0..times {
        let conn = broker.client(Version::V5, &format!("client-{}", at % 1000));
        let disconnect = Disconnect::new(ReasonCode::Success);
        broker.send(conn, Version::V5, &Packet::Disconnect(disconnect));
        broker.shard.handle_closed(NOW, conn);
        broker.drain();
    }
    times
}

/// Properties that go on to a subscriber who has a subscription identifier.
pub fn properties(messages: usize) -> usize {
    let mut broker = Broker::new();
    let conn = broker.client(Version::V5, "subscriber");
    let filters = [Subscription::new("bench/+/1", QoS::AtMostOnce)];
    let list = [Property::SubscriptionIdentifier(7)];
    let subscribe = Subscribe {
        packet_id: PacketId::MIN,
        properties: Properties::new(&list),
        filters: Filters::new(&filters),
    };
    broker.send(conn, Version::V5, &Packet::Subscribe(subscribe));
    let publisher = broker.client(Version::V5, "publisher");
    let list = [
        Property::MessageExpiryIntervalS(60),
        Property::ContentType("application/json"),
        Property::ResponseTopic("answers/here"),
        Property::UserProperty("trace", "0123456789abcdef"),
    ];
    let mut bytes = Vec::new();
    for _ in 0..BURST {
        let properties = Properties::new(&list);
        let publish = Publish { properties, ..Publish::new("bench/topic/1", &[7; 64]) };
        Packet::Publish(publish).encode(Version::V5, &mut bytes).expect("a small packet");
    }
    for _ in 0..messages / BURST {
        broker.shard.handle_bytes(NOW, publisher, &bytes);
        broker.drain();
    }
    messages
}

/// From one shard to a subscriber of another.
pub fn mail(messages: usize) -> usize {
    let shared = Shared::new(2, 7);
    let config = Arc::new(Config { sys_interval_s: 0, ..Config::default() });
    let shard = |at| {
        let (shared, config) = (shared.clone(), config.clone());
        Broker { shard: Shard::new(ShardId(at), shared, config, Box::new(MemoryStore), 7, NOW) }
    };
    let (mut here, mut there) = (shard(0), shard(1));
    let version = Version::V3_1_1;
    let subscriber = at_home(&mut there);
    there.subscribe(subscriber, version, "bench/topic/1", QoS::AtMostOnce);
    let publisher = at_home(&mut here);
    let bytes = burst(version, "bench/topic/1", QoS::AtMostOnce, &[7; 64]);
    let mut mail = whimbrel_broker_core::Mail::default();
    for _ in 0..messages / BURST {
        here.shard.handle_bytes(NOW, publisher, &bytes);
        here.drain();
        while let Some((_, batch)) = here.shard.poll_mail() {
            std::mem::swap(&mut mail, batch);
        }
        there.shard.handle_mail(NOW, &mut mail);
        assert!(there.drain() > BURST * 64);
    }
    messages
}

/// A client that belongs to this shard.
fn at_home(broker: &mut Broker) -> ConnId {
    for at in 0..100 {
        let conn = broker.shard.handle_open(NOW, Peer::MEMORY);
        let name = format!("client-{at}");
        let connect = Packet::Connect(Connect::new(Version::V3_1_1, &name));
        broker.send(conn, Version::V3_1_1, &connect);
        let mut moves = false;
        while let Some(action) = broker.shard.poll_action(NOW) {
            match action {
                Action::Move { conn, .. } => {
                    moves = true;
                    broker.shard.handle_closed(NOW, conn);
                }
                Action::Send(conn) => {
                    let n = broker.shard.output(conn).map(<[u8]>::len).sum();
                    broker.shard.handle_written(NOW, conn, n);
                }
                _ => {}
            }
        }
        if !moves {
            return conn;
        }
    }
    unreachable!("one name in two belongs to a shard of two");
}

/// A thousand rules, of which the last allows what [`topics`] does.
pub fn rules() -> Rules {
    let mut text: String = (0..999)
        .map(|n| format!("[[rule]]\ndeny = [\"publish\"]\ntopics = [\"other/{n}/+/#\"]\n"))
        .collect();
    text.push_str("[[rule]]\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"bench/#\"]\n");
    Rules::from_toml("rules", &text).expect("rules")
}

/// A publisher that goes round so many topics, under these rules, and one subscriber to all.
pub fn topics(topics: usize, rules: Rules, messages: usize) -> usize {
    let mut broker = Broker::under(rules);
    let version = Version::V3_1_1;
    let subscriber = broker.client(version, "subscriber");
    broker.subscribe(subscriber, version, "bench/#", QoS::AtMostOnce);
    let publisher = broker.client(version, "publisher");
    let mut bytes = Vec::new();
    for at in 0..topics {
        let topic = format!("bench/topic/{at}");
        let packet = Packet::Publish(Publish::new(&topic, &[7; 64]));
        packet.encode(version, &mut bytes).expect("a small packet");
    }
    let mut done = 0;
    while done < messages {
        broker.shard.handle_bytes(NOW, publisher, &bytes);
        assert!(broker.drain() > topics * 64, "all are delivered");
        done += topics;
    }
    done
}
