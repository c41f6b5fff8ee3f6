//! Limits of some clients only, bans, slow readers, and what goes first when memory is short.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::Arc;

use harness::{Broker, Got, LinkId, quiet};
use whimbrel_auth::{
    Attempt, Authenticator, Method, Outcome, Principal, Refusal, Refused, Rules, Ticket,
};
use whimbrel_broker_core::{Config, Count, Event, Limit, Peer, Per, Selection, TurnedAway, Values};
use whimbrel_codec::{
    Connect, Packet, Properties, Property, Publish, QoS, ReasonCode, Subscription, Version,
};

const V5: Version = Version::V5;
const ONCE: QoS = QoS::AtMostOnce;

fn limit(per: Per, of: Selection, values: Values) -> Limit {
    Limit { per, of, values }
}

fn limited(limits: Vec<Limit>) -> Config {
    Config { limits, ..quiet() }
}

fn everybody() -> Selection {
    Selection::default()
}

fn peer(address: &str) -> Peer {
    Peer { address: Some(format!("{address}:1000").parse().unwrap()), ..Peer::MEMORY }
}

/// The user name is who it is, unless the password is wrong.
struct Names;

impl Authenticator for Names {
    fn begin(&self, _: Ticket, attempt: Attempt) -> Option<Outcome> {
        if attempt.password.is_some_and(|password| &*password.0 == b"wrong") {
            return Some(Refused::new(Refusal::BadUserNameOrPassword, "wrong").into());
        }
        let name = attempt.user_name.unwrap_or_default();
        let principal = Arc::new(Principal::new(&name, Method::Password));
        Some(Outcome::Accepted { principal, data: None })
    }
}

fn with_users(shards: u16, config: Config) -> Broker {
    Broker::with_all(shards, Arc::new(Names), Rules::open(), config)
}

/// What a runtime does with a connection from there; none if it was turned away.
fn arrive(broker: &mut Broker, from: &str, connect: Connect<'_>) -> Result<LinkId, TurnedAway> {
    let now = broker.now;
    let shard = broker.links.len() % broker.shards.len();
    broker.shards[shard].may_open(now, &peer(from))?;
    let link = broker.open_from(peer(from), shard as u16, connect.version);
    broker.send(link, &Packet::Connect(connect));
    Ok(link)
}

fn named<'a>(client_id: &'a str, user: &'a str) -> Connect<'a> {
    Connect { user_name: Some(user), ..Connect::new(V5, client_id) }
}

fn wrong<'a>(client_id: &'a str, user: &'a str) -> Connect<'a> {
    Connect { password: Some(b"wrong"), ..named(client_id, user) }
}

/// The reason code with which a connection was answered.
fn answer(broker: &mut Broker, link: LinkId) -> ReasonCode {
    match broker.received(link)[..] {
        [Got::ConnAck { reason, .. }] => reason,
        ref got => panic!("{got:?}"),
    }
}

/// Sends while the broker reads; gives how many were sent.
fn flood(broker: &mut Broker, link: LinkId, bytes: &[u8], most: usize) -> usize {
    for sent in 0..most {
        if broker.links[link].paused {
            return sent;
        }
        broker.bytes(link, bytes);
    }
    most
}

fn publish(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet::Publish(Publish::new("t", payload)).encode(V5, &mut bytes).unwrap();
    bytes
}

// ---- connections

#[test]
fn connections_of_an_address_are_counted_over_shards_and_moves() {
    let values = Values { max_connections: Some(3), ..Values::default() };
    let mut broker = Broker::new(2, limited(vec![limit(Per::Address, everybody(), values)]));
    let names: Vec<String> = (0..10).map(|at| format!("c{at}")).collect();
    let mut links = Vec::new();
    for name in &names[..3] {
        links.push(arrive(&mut broker, "10.0.0.1", Connect::new(V5, name)).unwrap());
    }
    let refused = arrive(&mut broker, "10.0.0.1", Connect::new(V5, "more"));
    assert_eq!(refused, Err(TurnedAway::Limit("max_connections of its listener or address")));
    assert_eq!(broker.count(Count::RefusedLimit), 1);
    arrive(&mut broker, "10.0.0.2", Connect::new(V5, "other")).unwrap();
    broker.cut(links[0]);
    arrive(&mut broker, "10.0.0.1", Connect::new(V5, "next")).unwrap();
    assert!(arrive(&mut broker, "10.0.0.1", Connect::new(V5, "more")).is_err());
    // All of them gone, nothing stays counted.
    for link in 0..broker.links.len() {
        broker.cut(link);
    }
    for name in &names[..3] {
        arrive(&mut broker, "10.0.0.1", Connect::new(V5, name)).unwrap();
    }
    assert!(arrive(&mut broker, "10.0.0.1", Connect::new(V5, "more")).is_err());
}

#[test]
fn a_network_of_ipv6_is_one_address_and_a_table_of_a_network_is_for_it_alone() {
    let values = |n| Values { max_connections: Some(n), ..Values::default() };
    let inside = Selection { address: Some("10.0.0.0/8".parse().unwrap()), ..everybody() };
    let tables =
        vec![limit(Per::Address, inside, values(2)), limit(Per::Address, everybody(), values(1))];
    let mut broker = Broker::new(1, limited(tables));
    let mut may =
        |from: &str, name: &str| arrive(&mut broker, from, Connect::new(V5, name)).is_ok();
    assert!(may("10.1.1.1", "a") && may("10.1.1.1", "b") && !may("10.1.1.1", "c"));
    assert!(may("11.1.1.1", "d") && !may("11.1.1.1", "e"));
    assert!(may("[2001:db8::1]", "f") && !may("[2001:db8::ffff:2]", "g"));
    assert!(may("[2001:db8:0:1::1]", "h"));
}

#[test]
fn connections_of_a_user_are_limited_and_a_client_that_comes_back_takes_its_own_place() {
    let sensors = Selection { user: Some("sensor-*".into()), ..everybody() };
    let values = Values { max_connections: Some(2), ..Values::default() };
    let mut broker = with_users(2, limited(vec![limit(Per::User, sensors, values)]));
    for round in 0..5 {
        for client in ["a", "b"] {
            let link = broker.connect(named(client, "sensor-1"));
            assert_eq!(answer(&mut broker, link), ReasonCode::Success, "round {round}");
        }
    }
    let link = broker.connect(named("c", "sensor-1"));
    assert_eq!(answer(&mut broker, link), ReasonCode::QuotaExceeded);
    assert!(!broker.links[link].open);
    let old = Connect { version: Version::V3_1_1, ..named("c", "sensor-1") };
    let link = broker.connect(old);
    assert_eq!(answer(&mut broker, link), ReasonCode::ServerUnavailable);
    // Other users, whether they match or not, have their own.
    for (client, user) in [("c", "sensor-2"), ("c", "x"), ("d", "x"), ("e", "x")] {
        let link = broker.connect(named(client, user));
        assert_eq!(answer(&mut broker, link), ReasonCode::Success);
    }
}

#[test]
fn who_connects_too_fast_waits() {
    let values = Values { max_connects_per_s: Some(2), ..Values::default() };
    let address = limit(Per::Address, everybody(), values.clone());
    let client = limit(Per::Client, everybody(), Values { max_connects_per_s: Some(1), ..values });
    let mut broker = Broker::new(1, limited(vec![address, client]));
    let from = |broker: &mut Broker, from: &str, name: &str| {
        let link = arrive(broker, from, Connect::new(V5, name)).ok()?;
        Some(answer(broker, link))
    };
    assert_eq!(from(&mut broker, "10.0.0.1", "a"), Some(ReasonCode::Success));
    let exceeded = Some(ReasonCode::ConnectionRateExceeded);
    assert_eq!(from(&mut broker, "10.0.0.1", "a"), exceeded);
    assert_eq!(from(&mut broker, "10.0.0.1", "b"), None);
    broker.advance(500);
    assert_eq!(from(&mut broker, "10.0.0.1", "b"), Some(ReasonCode::Success));
    assert_eq!(from(&mut broker, "10.0.0.1", "c"), None);
}

#[test]
fn beyond_the_pending_the_oldest_that_has_not_sent_connect_goes() {
    let mut broker = Broker::new(1, Config { max_pending_connections: 3, ..quiet() });
    let silent: Vec<_> = (0..3).map(|_| broker.open(0, V5)).collect();
    let connected = broker.client(V5, "c");
    broker.settle();
    assert!(!broker.links[silent[0]].open, "the fourth");
    for at in 0..200 {
        broker.client(V5, &format!("c{at}"));
    }
    let open = silent.iter().filter(|link| broker.links[**link].open).count();
    assert_eq!((open, broker.count(Count::ClosedPending)), (2, 1));
    assert!(broker.links[connected].open);
}

#[test]
fn a_connection_through_a_proxy_is_judged_by_its_own_address() {
    let values = Values { max_connections: Some(1), ..Values::default() };
    let tables = ["address", "listener"].map(|per| match per {
        "address" => limit(Per::Address, everybody(), values.clone()),
        _ => {
            limit(Per::Listener, everybody(), Values { max_connections: Some(3), ..values.clone() })
        }
    });
    let mut broker =
        with_users(1, Config { max_failed_logins_per_address: 1, ..limited(tables.into()) });
    let through = |broker: &mut Broker, from: &str, connect: Connect<'_>| {
        let now = broker.now;
        broker.shards[0].may_open(now, &Peer::MEMORY).ok()?;
        let link = broker.open(0, V5);
        let conn = broker.links[link].conn;
        broker.shards[0].handle_source(conn, peer(from).address.unwrap());
        broker.settle();
        broker.send(link, &Packet::Connect(connect));
        Some(link)
    };
    let first = through(&mut broker, "10.0.0.1", named("a", "u")).unwrap();
    let second = through(&mut broker, "10.0.0.1", named("b", "u")).unwrap();
    let other = through(&mut broker, "10.0.0.2", named("c", "u")).unwrap();
    let open = [first, second, other].map(|link| broker.links[link].open);
    assert_eq!(open, [true, false, true]);
    through(&mut broker, "10.0.0.3", wrong("d", "u")).unwrap();
    let banned = through(&mut broker, "10.0.0.3", named("d", "u")).unwrap();
    assert_eq!(broker.received(banned), []);
    assert!(!broker.links[banned].open);
    through(&mut broker, "10.0.0.4", named("e", "u")).unwrap();
    assert_eq!(through(&mut broker, "10.0.0.5", named("f", "u")), None, "the listener is full");
}

/// Slow-loris: each byte in time, the whole never.
#[test]
fn the_time_for_connect_does_not_move_with_each_byte() {
    let mut broker = Broker::new(1, Config { connect_timeout_s: 10, ..quiet() });
    let link = broker.open(0, V5);
    let mut bytes = Vec::new();
    Packet::Connect(Connect::new(V5, &"x".repeat(100))).encode(V5, &mut bytes).unwrap();
    let mut sent = 0;
    for byte in bytes {
        if !broker.links[link].open {
            break;
        }
        broker.bytes(link, &[byte]);
        sent += 1;
        broker.advance(1000);
    }
    assert!((10..=12).contains(&sent), "{sent}");
}

// ---- rates

#[test]
fn messages_beyond_the_rate_come_late_and_all_of_them() {
    let values = Values { max_messages_per_s: Some(10), ..Values::default() };
    let fast = Selection { client_id: Some("fast".into()), ..everybody() };
    let mut broker = Broker::new(1, limited(vec![limit(Per::Client, fast, values)]));
    let subscriber = broker.client(V5, "subscriber");
    broker.subscribe(subscriber, "t", ONCE);
    broker.received(subscriber);
    let link = broker.client(V5, "fast");
    // All in one read, the last one torn.
    let all: Vec<u8> = (0..50_u8).flat_map(|n| publish(&[n])).collect();
    broker.bytes(link, &all[..all.len() - 1]);
    assert_eq!(broker.publishes(subscriber).len(), 11);
    assert!(broker.links[link].paused);
    // Somebody else is not held up.
    let other = broker.client(V5, "other");
    for _ in 0..100 {
        broker.publish(other, "t", b"other", ONCE, false);
    }
    assert_eq!(broker.publishes(subscriber).len(), 100);
    broker.advance(1000);
    assert_eq!(broker.publishes(subscriber).len(), 10);
    broker.advance(2800);
    assert_eq!(broker.publishes(subscriber).len(), 28);
    broker.advance(100);
    assert!(!broker.links[link].paused, "all but the torn one");
    broker.bytes(link, &all[all.len() - 1..]);
    let last = broker.publishes(subscriber);
    assert_eq!(last.iter().map(|p| p.payload[0]).collect::<Vec<_>>(), [49]);
    assert_eq!(broker.count(Count::Dropped), 0);
    assert!(broker.count(Count::Throttled) > 0);
    assert_eq!(broker.shared.memory_used_bytes(), 202, "the subscription alone");
}

#[test]
fn whoever_is_held_back_is_not_ended_by_its_keep_alive() {
    let values = Values { max_bytes_per_s: Some(100), ..Values::default() };
    let mut broker = Broker::new(1, limited(vec![limit(Per::Client, everybody(), values)]));
    let link = broker.connect(Connect { keep_alive_s: 2, ..Connect::new(V5, "c") });
    broker.bytes(link, &publish(&[7; 2000]));
    assert!(broker.links[link].paused);
    broker.advance(18_000);
    assert!(broker.links[link].paused && broker.links[link].open);
    broker.advance(2000);
    assert!(!broker.links[link].paused && broker.links[link].open);
    broker.advance(5000);
    assert!(!broker.links[link].open, "then it must show that it is alive");
}

#[test]
fn bytes_are_limited_whatever_they_are() {
    let values = Values { max_bytes_per_s: Some(1000), ..Values::default() };
    let mut broker = Broker::new(1, limited(vec![limit(Per::Client, everybody(), values)]));
    let link = broker.client(V5, "c");
    let pings = [0xc0, 0].repeat(50);
    let mut sent = 0;
    for _ in 0..10 {
        sent += flood(&mut broker, link, &pings, 1000) * pings.len();
        broker.advance(1000);
    }
    assert!((10_000..=11_200).contains(&sent), "{sent}");
    // A large packet that comes in parts as well.
    let large = publish(&[7; 10_000]);
    broker.bytes(link, &large[..9000]);
    assert!(broker.links[link].paused);
}

#[test]
fn clients_of_one_user_share_its_rate_over_all_shards() {
    let values = Values { max_messages_per_s: Some(100), ..Values::default() };
    let mut broker = with_users(2, limited(vec![limit(Per::User, everybody(), values)]));
    let subscriber = broker.connect(named("subscriber", "other"));
    broker.subscribe(subscriber, "t", ONCE);
    broker.received(subscriber);
    let names: Vec<String> = (0..10).map(|at| format!("c{at}")).collect();
    let links: Vec<_> = names.iter().map(|name| broker.connect(named(name, "u"))).collect();
    assert_eq!(links.iter().map(|link| broker.links[*link].shard).max(), Some(1));
    let message = publish(b"x");
    for _ in 0..1000 {
        for &link in &links {
            flood(&mut broker, link, &message, 10);
        }
        broker.advance(10);
    }
    let got = broker.publishes(subscriber).len();
    // A burst, ten seconds, and one of each client.
    assert!((1000..=1120).contains(&got), "{got}");
}

#[test]
fn coming_back_does_not_fill_the_bucket() {
    let values = Values { max_messages_per_s: Some(10), ..Values::default() };
    let mut broker = Broker::new(1, limited(vec![limit(Per::Client, everybody(), values)]));
    let mut sent = 0;
    for _ in 0..20 {
        let link = broker.client(V5, "c");
        sent += flood(&mut broker, link, &publish(b"x"), 100);
        broker.cut(link);
    }
    assert!(sent <= 10 + 20, "{sent}");
}

// ---- sessions

#[test]
fn a_table_limits_packets_subscriptions_queues_and_what_is_in_flight() {
    let values = Values {
        max_packet_size_bytes: Some(200),
        max_subscriptions: Some(2),
        max_inflight: Some(1),
        max_queued_messages: Some(3),
        ..Values::default()
    };
    let some = Selection { client_id: Some("small*".into()), ..everybody() };
    let mut broker = Broker::new(1, limited(vec![limit(Per::Client, some, values)]));
    let keeps = [Property::SessionExpiryIntervalS(100)];
    let properties = Properties::new(&keeps);
    let small = broker.connect(Connect { properties, ..Connect::new(V5, "small-1") });
    let bytes = broker.links[small].received.clone();
    // [MQTT-3.2.2-15]
    assert!(bytes.windows(5).any(|part| part == [0x27, 0, 0, 0, 200]), "told in CONNACK");
    broker.received(small);
    let filters = ["a", "b", "c"].map(|filter| Subscription::new(filter, QoS::AtLeastOnce));
    broker.subscribe_with(small, &filters, None);
    assert_eq!(broker.received(small), [Got::SubAck(1, vec![1, 1, 0x97])]);
    let publisher = broker.client(V5, "large");
    for _ in 0..10 {
        broker.publish(publisher, "a", &[7; 300], QoS::AtLeastOnce, false);
    }
    assert_eq!(broker.publishes(small).len(), 1, "in flight");
    broker.cut(small);
    assert_eq!(broker.count(Count::Queued), 3);
    let small = broker.client(V5, "small-2");
    broker.publish(small, "a", &[7; 300], ONCE, false);
    assert_eq!(broker.received(small), [Got::Disconnect(ReasonCode::PacketTooLarge)]);
}

#[test]
fn tables_that_change_hold_at_once() {
    let mut broker = Broker::new(1, quiet());
    let link = broker.client(V5, "c");
    assert_eq!(flood(&mut broker, link, &publish(b"x"), 100), 100);
    let now = |broker: &mut Broker, per_s| {
        let values = Values {
            max_messages_per_s: per_s,
            max_packet_size_bytes: per_s.map(|_| 100),
            ..Values::default()
        };
        let config = Arc::new(limited(vec![limit(Per::Client, everybody(), values)]));
        broker.shards[0].reconfigure(config);
    };
    now(&mut broker, Some(10));
    assert_eq!(flood(&mut broker, link, &publish(b"x"), 100), 11);
    now(&mut broker, None);
    broker.advance(1000);
    assert_eq!(flood(&mut broker, link, &publish(b"x"), 100), 100);
    now(&mut broker, Some(10));
    broker.bytes(link, &publish(&[7; 200]));
    assert_eq!(broker.received(link), [Got::Disconnect(ReasonCode::PacketTooLarge)]);
}

#[test]
fn identifiers_of_very_many_overlapping_filters_make_no_large_packets() {
    let mut broker = Broker::new(1, quiet());
    let link = broker.client(V5, "c");
    // All of the 2^11 filters that match one topic.
    let filters: Vec<String> = (0..2048_u32)
        .map(|n| (0..11).map(move |bit| if n >> bit & 1 == 1 { "+" } else { "x" }))
        .map(|levels| levels.collect::<Vec<_>>().join("/"))
        .collect();
    let topic = ["x"; 11].join("/");
    for (at, filter) in filters.iter().enumerate() {
        let filter = Subscription::new(filter, QoS::AtLeastOnce);
        broker.subscribe_with(link, &[filter], Some(at as u32 + 1));
        if at == 1000 {
            broker.received(link);
            broker.publish(link, &topic, b"", QoS::AtLeastOnce, false);
            let got = broker.publishes(link);
            assert_eq!(got[0].subscription_ids.len(), 1001);
            broker.puback(link, got[0].id);
        }
    }
    broker.received(link);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        broker.publish(link, &topic, b"", qos, false);
    }
    assert_eq!(broker.publishes(link), []);
    assert_eq!(broker.count(Count::Dropped), 2);
    broker.publish(link, "x/x/x/x/x/x/x/x/x/x/other", b"", QoS::AtMostOnce, false);
    assert_eq!(broker.publishes(link).len(), 1);
}

// ---- bans

fn bans(broker: &Broker) -> Vec<(String, Option<String>, Option<String>)> {
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    let ban = |event: &Event| match event {
        Event::Banned { address, user, client_id, .. } => {
            Some((address.to_string(), text(user), text(client_id)))
        }
        _ => None,
    };
    broker.events.iter().filter_map(ban).collect()
}

#[test]
fn a_user_that_fails_is_not_even_asked_for_a_while_from_that_address() {
    let config = Config { max_failed_logins: 3, ban_s: 100, ..quiet() };
    let mut broker = with_users(2, config);
    for _ in 0..3 {
        let link = arrive(&mut broker, "10.0.0.1", wrong("c", "u")).unwrap();
        assert_eq!(answer(&mut broker, link), ReasonCode::BadUserNameOrPassword);
    }
    // The right password does not help, nor does it tell that it is right.
    for _ in 0..3 {
        let link = arrive(&mut broker, "10.0.0.1", named("c", "u")).unwrap();
        assert_eq!(answer(&mut broker, link), ReasonCode::Banned);
    }
    assert_eq!(bans(&broker), [("10.0.0.1".into(), Some("u".into()), None)], "told once");
    let counts = [Count::FailedLogins, Count::Bans, Count::RefusedBanned];
    assert_eq!(counts.map(|count| broker.count(count)), [3, 1, 3]);
    // Others from there, and the same user from elsewhere, come in.
    for (from, user) in [("10.0.0.1", "v"), ("10.0.0.2", "u")] {
        let link = arrive(&mut broker, from, named("c", user)).unwrap();
        assert_eq!(answer(&mut broker, link), ReasonCode::Success);
    }
    broker.advance(101_000);
    let link = arrive(&mut broker, "10.0.0.1", named("c", "u")).unwrap();
    assert_eq!(answer(&mut broker, link), ReasonCode::Success);
}

#[test]
fn an_address_that_fails_with_many_names_is_turned_away_at_once() {
    let config =
        Config { max_failed_logins: 3, max_failed_logins_per_address: 10, ban_s: 100, ..quiet() };
    let mut broker = with_users(1, config);
    let early = arrive(&mut broker, "10.0.0.1", named("early", "early")).unwrap();
    let waits = broker.open_from(peer("10.0.0.1"), 0, V5);
    for at in 0..10 {
        arrive(&mut broker, "10.0.0.1", wrong("c", &format!("u{at}"))).unwrap();
    }
    assert_eq!(arrive(&mut broker, "10.0.0.1", named("c", "u")), Err(TurnedAway::Banned));
    arrive(&mut broker, "10.0.0.2", named("c", "u")).unwrap();
    assert_eq!(bans(&broker), [("10.0.0.1".into(), None, None)]);
    // Who was let in stays; who has not sent CONNECT is too late.
    assert!(broker.links[early].open);
    broker.send(waits, &Packet::Connect(named("d", "d")));
    assert_eq!(answer(&mut broker, waits), ReasonCode::Banned);
    broker.advance(101_000);
    arrive(&mut broker, "10.0.0.1", named("c", "u")).unwrap();
}

#[test]
fn one_who_mistypes_now_and_then_is_not_banned_nor_is_this_machine() {
    let mut broker = with_users(1, Config { max_failed_logins: 3, ..quiet() });
    for _ in 0..10 {
        for connect in [wrong("c", "u"), wrong("c", "u"), named("c", "u")] {
            arrive(&mut broker, "10.0.0.1", connect).unwrap();
        }
        broker.advance(10_000);
    }
    for _ in 0..100 {
        arrive(&mut broker, "127.0.0.1", wrong("c", "u")).unwrap();
    }
    assert_eq!(bans(&broker), []);
}

#[test]
fn a_flapping_client_is_banned_and_no_other() {
    let config = Config { max_reconnects: 10, reconnects_window_s: 60, ban_s: 30, ..quiet() };
    let mut broker = with_users(2, config);
    let connect = |broker: &mut Broker, from: &str, client: &str| {
        let link = arrive(broker, from, named(client, "u")).unwrap();
        broker.received(link).pop()
    };
    let accepted = Some(Got::ConnAck { session_present: false, reason: ReasonCode::Success });
    for _ in 0..10 {
        assert_eq!(connect(&mut broker, "10.0.0.1", "c"), accepted);
    }
    let banned = Some(Got::ConnAck { session_present: false, reason: ReasonCode::Banned });
    assert_eq!(connect(&mut broker, "10.0.0.1", "c"), banned);
    assert_eq!(connect(&mut broker, "10.0.0.1", "c"), banned);
    assert_eq!(connect(&mut broker, "10.0.0.1", "d"), accepted);
    assert_eq!(connect(&mut broker, "10.0.0.2", "c"), accepted);
    assert_eq!(bans(&broker), [("10.0.0.1".into(), Some("u".into()), Some("c".into()))]);
    broker.advance(31_000);
    assert_eq!(connect(&mut broker, "10.0.0.1", "c"), accepted);
}

// ---- slow readers

#[test]
fn a_client_that_takes_nothing_is_closed_and_a_slow_one_is_not() {
    let mut broker = Broker::new(1, Config { max_blocked_s: 60, ..quiet() });
    let publisher = broker.client(V5, "publisher");
    let [dead, slow, idle] = ["dead", "slow", "idle"].map(|name| {
        let link = broker.client(V5, name);
        broker.subscribe(link, "t", ONCE);
        link
    });
    broker.publish(publisher, "t", &[7; 10_000], ONCE, false);
    broker.advance(20_000);
    broker.links[dead].stalled = true;
    broker.links[slow].stalled = true;
    broker.publish(publisher, "t", &[7; 10_000], ONCE, false);
    for _ in 0..59 {
        broker.advance(1000);
        broker.flush(slow, 1);
    }
    assert!(broker.links[dead].open, "not before its time");
    for _ in 0..200 {
        broker.advance(1000);
        broker.flush(slow, 1);
    }
    assert!(!broker.links[dead].open);
    assert!(broker.links[slow].open && broker.links[idle].open && broker.links[publisher].open);
    assert_eq!(broker.count(Count::ClosedBlocked), 1);
}

#[test]
fn an_idle_client_that_stalls_later_has_its_whole_time() {
    let mut broker = Broker::new(1, Config { max_blocked_s: 60, ..quiet() });
    let publisher = broker.client(V5, "publisher");
    let link = broker.client(V5, "c");
    broker.subscribe(link, "t", ONCE);
    for wait_s in [0, 10, 29, 31, 55] {
        broker.publish(publisher, "t", &[7; 5000], ONCE, false);
        broker.advance(wait_s * 1000);
        broker.links[link].stalled = true;
        broker.publish(publisher, "t", &[7; 5000], ONCE, false);
        broker.advance(59_000);
        assert!(broker.links[link].open, "after {wait_s} s");
        broker.links[link].stalled = false;
        broker.flush(link, usize::MAX);
    }
}

// ---- memory

const BUDGET: u64 = 10_000_000;

/// A broker whose memory is in use to this part of its budget: retained messages.
fn filled(percent: f64) -> (Broker, LinkId) {
    let config = Config { memory_budget_bytes: BUDGET, max_blocked_s: 0, ..quiet() };
    let mut broker = Broker::new(1, config);
    let publisher = broker.client(V5, "publisher");
    let goal = (BUDGET as f64 / 100.0 * percent) as u64;
    let mut at = 0;
    while goal - broker.shared.memory_used_bytes() > 10_500 {
        broker.publish(publisher, &format!("fill/{at}"), &[7; 10_000], ONCE, true);
        at += 1;
    }
    let rest = (goal - broker.shared.memory_used_bytes()) as usize;
    broker.publish(publisher, "fill/last", &vec![7; rest - 100], ONCE, true);
    let used = broker.shared.memory_used_bytes();
    assert!(goal - used < 100, "{used} of {goal}");
    (broker, publisher)
}

#[test]
fn step_1_new_connections_are_refused() {
    for (percent, reason) in [(95.8, ReasonCode::Success), (96.2, ReasonCode::ServerBusy)] {
        let (mut broker, _) = filled(percent);
        let link = broker.connect(Connect::new(V5, "c"));
        assert_eq!(answer(&mut broker, link), reason, "{percent} %");
    }
}

/// Retained messages again, now with clients that were there before: at `percent` of the budget.
fn filled_with(percent: f64, names: [&str; 2]) -> (Broker, LinkId, [LinkId; 2]) {
    let (mut broker, publisher) = filled(80.0);
    let links = names.map(|name| {
        let link = broker.client(V5, name);
        broker.subscribe(link, "t", ONCE);
        broker.received(link);
        link
    });
    let goal = (BUDGET as f64 / 100.0 * percent) as u64;
    let rest = (goal - broker.shared.memory_used_bytes()) as usize;
    broker.publish(publisher, "fill/rest", &vec![7; rest - 200], ONCE, true);
    (broker, publisher, links)
}

#[test]
fn step_2_qos_0_to_slow_readers_is_dropped() {
    for (percent, dropped) in [(95.9, 0), (97.1, 1)] {
        let (mut broker, publisher, [slow, quick]) = filled_with(percent, ["slow", "quick"]);
        broker.links[slow].stalled = true;
        broker.publish(publisher, "t", &[7; 15_000], ONCE, false);
        for _ in 0..5 {
            broker.publish(publisher, "t", &[7; 15_000], ONCE, false);
        }
        assert_eq!(broker.publishes(quick).len(), 6);
        assert_eq!(broker.count(Count::Dropped), dropped, "{percent} %");
    }
}

#[test]
fn step_3_large_packets_that_have_not_come_whole_are_refused() {
    for (percent, open) in [(97.0, true), (98.1, false)] {
        let (mut broker, _, [one, _]) = filled_with(percent, ["one", "other"]);
        broker.bytes(one, &publish(&[7; 100_000])[..70_000]);
        assert_eq!(broker.links[one].open, open, "{percent} %");
    }
}

#[test]
fn step_4_nothing_more_is_queued_retained_or_subscribed_to() {
    for (percent, waiting, code) in [(98.5, 1, 0), (99.1, 0, 0x97)] {
        let (mut broker, publisher) = filled(80.0);
        let keeps = [Property::SessionExpiryIntervalS(100)];
        let properties = Properties::new(&keeps);
        let away = broker.connect(Connect { properties, ..Connect::new(V5, "away") });
        broker.subscribe(away, "t", QoS::AtLeastOnce);
        broker.cut(away);
        let goal = (BUDGET as f64 / 100.0 * percent) as u64;
        let rest = (goal - broker.shared.memory_used_bytes()) as usize;
        broker.publish(publisher, "fill/rest", &vec![7; rest - 200], ONCE, true);
        broker.publish(publisher, "t", b"x", QoS::AtLeastOnce, false);
        assert_eq!(broker.count(Count::Queued), waiting, "{percent} %");
        broker.received(publisher);
        broker.subscribe(publisher, "new", ONCE);
        assert_eq!(broker.received(publisher), [Got::SubAck(1, vec![code])]);
        assert!(!broker.links[publisher].paused);
    }
}

#[test]
fn step_5_publishers_are_slowed() {
    for (percent, qos) in [(100.1, ONCE), (100.1, QoS::AtLeastOnce), (99.5, ONCE)] {
        let (mut broker, publisher, _) = filled_with(percent, ["one", "other"]);
        broker.publish(publisher, "nobody", b"x", qos, false);
        assert_eq!(broker.links[publisher].paused, percent > 100.0, "{percent} %");
        broker.advance(200);
        assert!(!broker.links[publisher].paused);
    }
}

#[test]
fn step_6_the_connections_with_the_largest_buffers_are_closed() {
    let (mut broker, publisher, [large, small]) = filled_with(90.0, ["large", "small"]);
    broker.subscribe(large, "large", ONCE);
    broker.links[large].stalled = true;
    broker.links[small].stalled = true;
    broker.publish(publisher, "t", &[7; 15_000], ONCE, false);
    broker.publish(publisher, "t", &[7; 15_000], ONCE, false);
    // Comes at once, so no earlier step could have helped.
    let burst: Vec<u8> = (0..200)
        .flat_map(|_| {
            let mut bytes = Vec::new();
            let packet = Packet::Publish(Publish::new("large", &[7; 15_000]));
            packet.encode(V5, &mut bytes).unwrap();
            bytes
        })
        .collect();
    broker.bytes(publisher, &burst);
    assert!(broker.shared.memory_used_bytes() > BUDGET * 11 / 10);
    broker.advance(200);
    assert!(!broker.links[large].open);
    assert!(broker.links[small].open && broker.links[publisher].open);
    assert!(broker.shared.memory_used_bytes() < BUDGET);
    assert_eq!(broker.count(Count::ClosedMemory), 1);
}

/// A million subscriptions of one client are within its limit or the broker's budget.
#[test]
fn subscriptions_are_part_of_the_budget() {
    let config = Config { memory_budget_bytes: 1_000_000, max_subscriptions: 1_000_000, ..quiet() };
    let mut broker = Broker::new(1, config);
    let link = broker.client(V5, "c");
    let mut granted = 0;
    for at in 0..10_000 {
        broker.subscribe(link, &format!("some/topic/{at}"), ONCE);
        granted += usize::from(broker.received(link) == [Got::SubAck(1, vec![0])]);
    }
    assert!((2000..6000).contains(&granted), "{granted}");
    broker.disconnect(link);
    assert_eq!(broker.shared.memory_used_bytes(), 0);
}
