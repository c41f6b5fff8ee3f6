//! Random operations of a few clients over one to three shards, against a small model of what each
//! client must receive. `PROPTEST_CASES` sets how many cases; a failing one is shrunk and printed
//! as its list of operations.

mod check;
mod client;
#[path = "../harness/mod.rs"]
mod harness;
mod ops;

use harness::{Broker, quiet};
use ops::{Op, op};
use proptest::prelude::*;
use whimbrel_broker_core::{Config, Count};
use whimbrel_codec::{Connect, Packet, Publish, QoS, Version};

use check::Model;

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_client_receives_what_it_must(
        shards in 1u16..4,
        ops in prop::collection::vec(op(), 1..80),
    ) {
        run(shards, &ops);
    }

    /// Bytes that come in pieces are answered like bytes that come at once.
    #[test]
    fn torn_input_is_like_whole_input(
        shards in 1u16..3,
        packets in prop::collection::vec(ops::bytes(), 1..12),
        cuts in prop::collection::vec(1usize..40, 1..60),
        v5 in any::<bool>(),
    ) {
        let mut input = Vec::new();
        let version = if v5 { Version::V5 } else { Version::V3_1_1 };
        let connect = Packet::Connect(Connect::new(version, "torn"));
        connect.encode(version, &mut input).expect("a CONNECT");
        for packet in packets {
            input.extend(packet);
        }
        let whole = answer(shards, version, &[&input]);
        let mut pieces = Vec::new();
        let mut rest = input.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(*cut));
            pieces.push(piece);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(answer(shards, version, &pieces), whole);
    }
}

fn cases() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => default,
        None => ProptestConfig { cases: 5000, ..default },
    }
}

/// The bytes that a client gets, and whether its connection is open.
fn answer(shards: u16, version: Version, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    let mut broker = Broker::new(shards, quiet());
    let link = broker.open(0, version);
    for piece in pieces {
        broker.bytes(link, piece);
    }
    let open = broker.links[link].open;
    let received = std::mem::take(&mut broker.links[link].received);
    broker.cut(link);
    assert_eq!(broker.count(Count::Connections), 0);
    (received, open)
}

fn run(shards: u16, ops: &[Op]) {
    let config = Config { max_inflight: 8, ..quiet() };
    let mut model = Model::new(Broker::new(shards, config));
    for op in ops {
        model.apply(op);
        model.absorb_all();
    }
    model.finish();
    everything_is_given_back(model.broker);
}

/// When all sessions have ended and nothing is retained, nothing is counted and nothing held.
fn everything_is_given_back(mut broker: Broker) {
    for c in 0..ops::CLIENTS {
        let link = broker.connect(Connect::new(Version::V5, ops::NAMES[c]));
        broker.disconnect(link);
    }
    let janitor = broker.client(Version::V5, "janitor");
    for topic in ops::TOPICS.iter().copied().chain(ops::WILL_TOPICS) {
        broker
            .send(janitor, &Packet::Publish(Publish { retain: true, ..Publish::new(topic, b"") }));
        broker.publish(janitor, topic, b"", QoS::AtMostOnce, true);
    }
    broker.disconnect(janitor);
    for count in [Count::Connections, Count::Sessions, Count::Queued] {
        assert_eq!(broker.count(count), 0, "{count:?}");
    }
    assert_eq!(broker.shared.memory_used_bytes(), 0);
    assert_eq!(broker.shared.routes.subscription_count(), 0);
    assert!(broker.shards.iter().all(|s| s.connection_count() + s.session_count() == 0));
}
