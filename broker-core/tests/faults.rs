//! One test for each fault that was found and mended.

mod harness;

use harness::{Broker, Got, quiet};
use whimbrel_broker_core::{Action, Config, Count, Peer};
use whimbrel_codec::{
    Connect, Packet, Properties, Property, Publish, QoS, ReasonCode, Subscription, Version, Will,
};

const V5: Version = Version::V5;
const LARGE: usize = 20_000;

fn v5<'a>(name: &'a str, clean_start: bool, list: &'a [Property<'a>]) -> Connect<'a> {
    Connect { clean_start, properties: Properties::new(list), ..Connect::new(V5, name) }
}

/// A large payload that somebody keeps only after it was copied for another subscriber.
#[test]
fn a_large_payload_is_sent_once_to_each_group() {
    let mut broker = Broker::new(1, quiet());
    let links: Vec<_> = (0..3)
        .map(|at| {
            let link = broker.client(V5, &format!("c{at}"));
            let qos = if at == 1 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            broker.subscribe(link, &format!("$share/g{at}/t"), qos);
            broker.received(link);
            link
        })
        .collect();
    let publisher = broker.client(V5, "publisher");
    broker.publish(publisher, "t", &[7; LARGE], QoS::AtLeastOnce, false);
    broker.publish(publisher, "t", b"next", QoS::AtLeastOnce, false);
    for link in links {
        let got = broker.publishes(link);
        let lens: Vec<usize> = got.iter().map(|p| p.payload.len()).collect();
        assert_eq!(lens, [LARGE, 4]);
    }
}

/// What the client does not accept any more ends, and what comes behind it is repeated.
#[test]
fn a_repetition_that_is_too_large_does_not_hold_up_the_next() {
    let mut broker = Broker::new(1, quiet());
    let keeps = Property::SessionExpiryIntervalS(100);
    let first = broker.connect(v5("c", true, &[keeps]));
    broker.subscribe(first, "t", QoS::AtLeastOnce);
    let publisher = broker.client(V5, "publisher");
    for payload in [&[1; 10][..], &[2; 500], &[3; 500], &[4; 10]] {
        broker.publish(publisher, "t", payload, QoS::AtLeastOnce, false);
    }
    broker.cut(first);
    broker.publish(publisher, "t", &[5; 10], QoS::AtLeastOnce, false);
    let limits = [keeps, Property::ReceiveMaximum(1), Property::MaximumPacketSizeBytes(100)];
    let second = broker.connect(v5("c", false, &limits));
    for expected in [1, 4, 5] {
        let got = broker.publishes(second);
        assert_eq!(got.iter().map(|p| p.payload[0]).collect::<Vec<_>>(), [expected]);
        assert_eq!(got[0].dup, expected != 5);
        broker.puback(second, got[0].id);
    }
}

/// [MQTT-3.4.2-2] An acknowledgement that is too large goes without its reason string.
#[test]
fn an_acknowledgement_always_fits() {
    let mut broker = Broker::new(1, quiet());
    let link = broker.connect(v5("c", true, &[Property::MaximumPacketSizeBytes(20)]));
    broker.received(link);
    broker.publish(link, "$SYS/mine", b"", QoS::AtLeastOnce, false);
    assert_eq!(broker.received(link), [Got::PubAck(1, ReasonCode::NotAuthorized)]);
    broker.publish(link, "$SYS/mine", b"", QoS::ExactlyOnce, false);
    assert_eq!(broker.received(link), [Got::PubRec(1, ReasonCode::NotAuthorized)]);
    broker.subscribe(link, "bad/#/filter", QoS::AtMostOnce);
    assert_eq!(broker.received(link), [Got::SubAck(1, vec![0x8f])]);
}

/// [MQTT-3.1.2-24] A packet of 1024 bytes and more, too.
#[test]
fn no_packet_is_larger_than_the_client_accepts() {
    let mut broker = Broker::new(1, quiet());
    let link = broker.connect(v5("c", true, &[Property::MaximumPacketSizeBytes(1500)]));
    broker.received(link);
    let filters: Vec<String> = (0..2000).map(|at| format!("f/{at}")).collect();
    let filters: Vec<_> = filters.iter().map(|f| Subscription::new(f, QoS::AtMostOnce)).collect();
    broker.subscribe_with(link, &filters, None);
    assert_eq!(broker.received(link), []);
}

/// Messages that were retained for a time and replaced are gone, not kept until their time is over.
#[test]
fn a_replaced_retained_message_is_freed_at_once() {
    let mut broker = Broker::new(1, quiet());
    let link = broker.client(V5, "c");
    let expiry = [Property::MessageExpiryIntervalS(1_000_000)];
    for _ in 0..1000 {
        let properties = Properties::new(&expiry);
        let publish = Publish { retain: true, properties, ..Publish::new("t", &[7; 1000]) };
        broker.send(link, &Packet::Publish(publish));
    }
    assert!(broker.shared.memory_used_bytes() < 10_000, "{}", broker.shared.memory_used_bytes());
}

/// The memory budget holds for retained messages as well.
#[test]
fn retained_messages_stay_within_the_memory_budget() {
    let mut broker = Broker::new(1, Config { memory_budget_bytes: 1_000_000, ..quiet() });
    let link = broker.client(V5, "c");
    for at in 0..3000 {
        broker.publish(link, &format!("t/{at}"), &[7; 1000], QoS::AtMostOnce, true);
    }
    let used = broker.shared.memory_used_bytes();
    assert!((500_000..1_100_000).contains(&used), "{used} bytes");
    assert!(broker.count(Count::Dropped) > 0);
    // Removing makes room.
    for at in 0..3000 {
        broker.publish(link, &format!("t/{at}"), b"", QoS::AtMostOnce, true);
    }
    assert_eq!(broker.shared.memory_used_bytes(), 0);
}

/// Large retained messages are read no faster than they can be sent.
#[test]
fn large_retained_messages_all_come() {
    let mut broker = Broker::new(1, quiet());
    let publisher = broker.client(V5, "publisher");
    for at in 0..64 {
        broker.publish(publisher, &format!("t/{at}"), &[7; 200_000], QoS::AtMostOnce, true);
    }
    let link = broker.client(V5, "c");
    broker.subscribe(link, "t/#", QoS::AtMostOnce);
    assert_eq!(broker.publishes(link).len(), 64);
}

/// [MQTT-3.10.4-2] Nor are retained messages added that had still to be sent.
#[test]
fn unsubscribe_ends_the_retained_messages_too() {
    let mut broker = Broker::new(1, quiet());
    let publisher = broker.client(V5, "publisher");
    for at in 0..500 {
        broker.publish(publisher, &format!("t/{at}"), &[7; 10_000], QoS::AtMostOnce, true);
    }
    let link = broker.client(V5, "c");
    broker.links[link].stalled = true;
    broker.subscribe(link, "t/#", QoS::AtMostOnce);
    let sent = broker.waiting(link);
    assert!(sent < 4_000_000, "{sent}");
    broker.unsubscribe(link, "t/#");
    broker.links[link].stalled = false;
    broker.flush(link, usize::MAX);
    broker.settle();
    assert!(matches!(broker.received(link).last(), Some(Got::UnsubAck(..))));
}

/// Who asks and does not read is not read any more.
#[test]
fn answers_to_a_client_that_does_not_read_are_bounded() {
    let config = Config { max_output_bytes: 10_000, max_blocked_s: 0, ..quiet() };
    let mut broker = Broker::new(1, config);
    let link = broker.client(V5, "c");
    broker.links[link].stalled = true;
    let pings = [0xc0, 0].repeat(1000);
    for _ in 0..1000 {
        if !broker.links[link].paused {
            broker.bytes(link, &pings);
        }
        broker.advance(100);
    }
    assert!(broker.links[link].paused);
    assert!(broker.waiting(link) <= 12_000, "{} bytes", broker.waiting(link));
    broker.links[link].stalled = false;
    broker.flush(link, usize::MAX);
    broker.advance(1000);
    assert!(!broker.links[link].paused);
}

/// A socket that closes and one that opens within a tick are not taken for each other.
#[test]
fn an_action_is_never_for_a_later_connection() {
    let mut broker = Broker::new(1, quiet());
    let (shard, now) = (&mut broker.shards[0], broker.now);
    let peer = Peer::MEMORY;
    let first = shard.handle_open(now, peer);
    shard.handle_bytes(now, first, b"no CONNECT");
    shard.handle_closed(now, first);
    let second = shard.handle_open(now, peer);
    while let Some(action) = shard.poll_action(now) {
        match action {
            Action::Close { conn, .. } | Action::Send(conn) => assert_ne!(conn, second),
            _ => {}
        }
    }
    assert_eq!(shard.connection_count(), 1);
}

/// [MQTT-4.4.0-1] What nobody else of the group can take stays in flight.
#[test]
fn a_lone_member_of_a_group_gets_a_repetition() {
    let mut broker = Broker::new(1, quiet());
    let keeps = [Property::SessionExpiryIntervalS(100)];
    let first = broker.connect(v5("c", true, &keeps));
    broker.subscribe(first, "$share/g/t", QoS::AtLeastOnce);
    let publisher = broker.client(V5, "publisher");
    broker.publish(publisher, "t", b"x", QoS::AtLeastOnce, false);
    let before = broker.publishes(first);
    broker.cut(first);
    let second = broker.connect(v5("c", false, &keeps));
    let after = broker.publishes(second);
    assert_eq!(after.len(), 1);
    assert_eq!((after[0].dup, after[0].id), (true, before[0].id));
}

/// On a busy shard the time at which reading goes on does not move away.
#[test]
fn a_paused_publisher_is_read_again_on_a_busy_shard() {
    let mut broker = Broker::new(1, Config { memory_budget_bytes: 3000, ..quiet() });
    let keeps = [Property::SessionExpiryIntervalS(100)];
    let sleeper = broker.connect(v5("sleeper", true, &keeps));
    broker.subscribe(sleeper, "t", QoS::AtLeastOnce);
    broker.cut(sleeper);
    let publisher = broker.client(V5, "publisher");
    for _ in 0..6 {
        broker.publish(publisher, "t", &[7; 1000], QoS::AtLeastOnce, false);
    }
    assert!(broker.links[publisher].paused);
    let due = broker.shards[0].poll_timeout();
    broker.now.0 += 50;
    broker.bytes(publisher, &[0xc0, 0]);
    assert!(broker.shards[0].poll_timeout() <= due);
}

/// Not before the client has said how large: in the CONNECT that is refused.
#[test]
fn a_refusal_is_no_larger_than_the_client_accepts() {
    let mut broker = Broker::new(1, Config { max_client_id_bytes: 1, ..quiet() });
    let link = broker.connect(v5("long", true, &[Property::MaximumPacketSizeBytes(10)]));
    let refused = Got::ConnAck { session_present: false, reason: ReasonCode::ClientIdNotValid };
    assert_eq!(broker.links[link].received.len(), 5);
    assert_eq!(broker.received(link), [refused]);
}

/// What waits for a member whose session ends goes to one that is not connected either.
#[test]
fn a_group_that_sleeps_loses_nothing_when_a_member_ends() {
    let mut broker = Broker::new(1, quiet());
    for (name, expiry_s) in [("short", 3), ("long", 100)] {
        let link = broker.connect(v5(name, true, &[Property::SessionExpiryIntervalS(expiry_s)]));
        broker.subscribe(link, "$share/g/t", QoS::AtLeastOnce);
        broker.cut(link);
    }
    let publisher = broker.client(V5, "publisher");
    for payload in [b"1", b"2"] {
        broker.publish(publisher, "t", payload, QoS::AtLeastOnce, false);
    }
    broker.advance(5000);
    let link = broker.connect(v5("long", false, &[]));
    assert_eq!(broker.publishes(link).len(), 2);
}

/// A large payload to many is one payload in memory, and no reason to shed load.
#[test]
fn a_large_payload_counts_once() {
    let mut broker = Broker::new(1, quiet());
    for at in 0..50 {
        let link = broker.client(V5, &format!("c{at}"));
        broker.subscribe(link, "t", QoS::AtMostOnce);
        broker.links[link].stalled = true;
    }
    let publisher = broker.client(V5, "publisher");
    broker.publish(publisher, "t", &[7; 1_000_000], QoS::AtMostOnce, false);
    let used = broker.shared.memory_used_bytes();
    assert!((1_000_000..2_000_000).contains(&used), "{used}");
}

/// The rest of a subscription's retained messages comes on the next connection.
#[test]
fn retained_messages_go_on_after_a_reconnect() {
    let mut broker = Broker::new(1, quiet());
    let publisher = broker.client(V5, "publisher");
    for at in 0..1000 {
        broker.publish(publisher, &format!("t/{at:04}"), b"x", QoS::AtLeastOnce, true);
    }
    let list = [Property::SessionExpiryIntervalS(100), Property::ReceiveMaximum(10)];
    let first = broker.connect(v5("c", true, &list));
    broker.subscribe(first, "t/#", QoS::AtLeastOnce);
    broker.cut(first);
    let second = broker.connect(v5("c", false, &list));
    let mut topics = std::collections::BTreeSet::new();
    loop {
        let got = broker.publishes(second);
        if got.is_empty() {
            break;
        }
        for publish in got {
            broker.puback(second, publish.id);
            topics.insert(publish.topic);
        }
    }
    assert_eq!(topics.len(), 1000);
}

/// [MQTT-3.3.4-9] What a client acknowledges before it was repeated makes no room for more.
#[test]
fn an_early_acknowledgement_makes_no_room() {
    let mut broker = Broker::new(1, quiet());
    let keeps = Property::SessionExpiryIntervalS(100);
    let first = broker.connect(v5("c", true, &[keeps]));
    broker.subscribe(first, "t", QoS::AtLeastOnce);
    let publisher = broker.client(V5, "publisher");
    for _ in 0..4 {
        broker.publish(publisher, "t", b"x", QoS::AtLeastOnce, false);
    }
    broker.cut(first);
    let second = broker.connect(v5("c", false, &[keeps, Property::ReceiveMaximum(1)]));
    assert_eq!(broker.publishes(second).len(), 1);
    broker.puback(second, 3);
    assert_eq!(broker.publishes(second).len(), 0);
}

/// Retained messages that wait for acknowledgements do not keep the broker from reading these.
#[test]
fn many_subscriptions_to_retained_messages_do_not_stop_the_reading() {
    const TOPICS: usize = 1500;
    let mut broker = Broker::new(1, quiet());
    let publisher = broker.client(V5, "publisher");
    let topics: Vec<String> = (0..TOPICS).map(|at| format!("t/{at}")).collect();
    for topic in &topics {
        broker.publish(publisher, topic, b"x", QoS::AtLeastOnce, true);
    }
    let link = broker.connect(v5("c", true, &[Property::ReceiveMaximum(10)]));
    let filters: Vec<_> = topics.iter().map(|t| Subscription::new(t, QoS::AtLeastOnce)).collect();
    broker.subscribe_with(link, &filters, None);
    let mut count = 0;
    loop {
        assert!(!broker.links[link].paused, "not read after {count} messages");
        let got = broker.publishes(link);
        if got.is_empty() {
            break;
        }
        count += got.len();
        for publish in got {
            broker.puback(link, publish.id);
        }
    }
    assert_eq!(count, TOPICS);
}

/// One filter again and again in one packet: what is due to it does not grow without end.
#[test]
fn retained_messages_that_are_due_are_bounded() {
    let config = Config { max_subscriptions: 3, ..quiet() };
    let mut broker = Broker::new(1, config);
    let link = broker.client(V5, "c");
    broker.subscribe_with(link, &[Subscription::new("t", QoS::AtMostOnce); 5], None);
    let codes = vec![0, 0, 0, 0, ReasonCode::QuotaExceeded as u8];
    assert_eq!(broker.received(link), [Got::SubAck(1, codes)]);
}

/// The topic alias of a message that is refused holds for the next.
#[test]
fn a_refused_message_sets_its_topic_alias() {
    let mut broker = Broker::new(1, quiet());
    let link = broker.client(V5, "c");
    broker.subscribe(link, "t", QoS::AtMostOnce);
    broker.received(link);
    let list = [Property::PayloadFormatIndicator(1), Property::TopicAlias(1)];
    for (topic, payload) in [("t", &b"\xff"[..]), ("", b"x")] {
        let publish = Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(harness::id(1)),
            properties: Properties::new(&list),
            ..Publish::new(topic, payload)
        };
        broker.send(link, &Packet::Publish(publish));
    }
    let got = broker.received(link);
    let refused = Got::PubAck(1, ReasonCode::PayloadFormatInvalid);
    assert!(
        matches!(&got[..], [first, Got::Publish(p), Got::PubAck(1, ReasonCode::Success)]
            if *first == refused && p.topic == "t"),
        "{got:?}"
    );
}

/// A search for retained messages that finds none among many gives way to others.
#[test]
fn a_search_for_retained_messages_is_spread_over_ticks() {
    let mut broker = Broker::new(1, quiet());
    let publisher = broker.client(V5, "publisher");
    for at in 0..10_000 {
        broker.publish(publisher, &format!("t{at}/x"), b"x", QoS::AtMostOnce, true);
    }
    broker.publish(publisher, "z/last", b"x", QoS::AtMostOnce, true);
    let link = broker.client(V5, "c");
    let mut filters = vec![Subscription::new("+/none", QoS::AtMostOnce); 20];
    filters.push(Subscription::new("+/last", QoS::AtMostOnce));
    broker.subscribe_with(link, &filters, None);
    assert_eq!(broker.publishes(link), []);
    assert_eq!(broker.shards[0].poll_timeout(), Some(broker.now));
    for _ in 0..20 {
        broker.advance(0);
    }
    assert_eq!(broker.publishes(link).len(), 1);
    assert_ne!(broker.shards[0].poll_timeout(), Some(broker.now));
}

/// [MQTT-3.1.2-24] Without a CONNACK there is no connection.
#[test]
fn a_client_that_accepts_no_connack_is_not_connected() {
    let mut broker = Broker::new(1, quiet());
    let list = [Property::MaximumPacketSizeBytes(4), Property::SessionExpiryIntervalS(0)];
    let link = broker.connect(v5("c", true, &list));
    assert!(!broker.links[link].open);
    assert_eq!((broker.count(Count::Connections), broker.count(Count::Sessions)), (0, 0));
}

/// A broker that lets no session outlive its connection takes a client's shorter wish as that.
#[test]
fn a_session_expiry_that_was_cut_may_be_changed() {
    let mut broker = Broker::new(1, Config { max_session_expiry_s: 0, ..quiet() });
    let link = broker.connect(v5("c", true, &[Property::SessionExpiryIntervalS(10)]));
    broker.received(link);
    let list = [Property::SessionExpiryIntervalS(5)];
    let properties = Properties::new(&list);
    let reason = ReasonCode::Success;
    broker.send(link, &Packet::Disconnect(whimbrel_codec::Disconnect { reason, properties }));
    assert_eq!(broker.received(link), []);
    assert!(!broker.links[link].open);
}

/// Where a client's state cannot be told in a topic name, nothing is.
#[test]
fn a_long_client_id_makes_no_malformed_topic() {
    let mut broker = Broker::new(1, Config { client_state_messages: true, ..quiet() });
    let watcher = broker.client(V5, "watcher");
    broker.subscribe(watcher, "$SYS/clients/#", QoS::AtMostOnce);
    broker.received(watcher);
    broker.client(V5, &"x".repeat(65_530));
    assert_eq!(broker.publishes(watcher).len(), 0);
    broker.client(V5, "short");
    assert_eq!(broker.publishes(watcher).len(), 1);
}

/// The client came back after the delay of its will had passed and before the timer fired, and the
/// will was forgotten.
#[test]
fn a_will_whose_delay_has_passed_is_published_though_its_client_comes_back() {
    let mut broker = Broker::new(1, quiet());
    let watcher = broker.client(Version::V5, "watcher");
    broker.subscribe(watcher, "will", QoS::AtMostOnce);
    broker.received(watcher);
    broker.advance(500);
    let (expiry, delay) =
        ([Property::SessionExpiryIntervalS(100)], [Property::WillDelayIntervalS(1)]);
    let will = Will {
        topic: "will",
        payload: b"gone",
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::new(&delay),
    };
    let properties = Properties::new(&expiry);
    let connect = Connect {
        clean_start: false,
        properties,
        will: Some(will),
        ..Connect::new(Version::V5, "c")
    };
    let link = broker.connect(connect);
    broker.cut(link);
    broker.advance(1100);
    assert_eq!(broker.publishes(watcher).len(), 0, "the timer fires once a second");
    broker.connect(connect);
    assert_eq!(broker.publishes(watcher).len(), 1);
}
