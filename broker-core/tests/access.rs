//! What clients may do: every way by which a message could pass the rules, and rules that change.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::Arc;

use harness::{Broker, Got};
use whimbrel_auth::{
    Action, Attempt, Authenticator, Method, Outcome, Permission, Principal, Rules, Ticket,
};
use whimbrel_broker_core::Event;
use whimbrel_codec::{
    Connect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Subscription,
    Version, Will,
};

/// Everybody is who they say; who has a password `token` has permissions of its own.
struct Believing;

impl Authenticator for Believing {
    fn begin(&self, _: Ticket, attempt: Attempt) -> Option<Outcome> {
        let name = attempt.user_name.as_deref().unwrap_or_default();
        let method = if name.is_empty() { Method::Anonymous } else { Method::Password };
        let mut principal = Principal::new(name, method);
        if let Some(data) = &attempt.data {
            let filter = String::from_utf8(data.0.to_vec()).unwrap();
            let both = [Action::Publish, Action::Subscribe];
            let permission =
                |action| Permission { action, filter: (*filter).into(), qos: 2, retain: true };
            principal.permissions = Some(both.map(permission).to_vec());
        }
        Some(Outcome::Accepted { principal: Arc::new(principal), data: None })
    }
}

const RULES: &str = r##"
[[rule]]
deny = ["publish", "subscribe"]
topics = ["secret/#"]

[[rule]]
allow = ["publish", "subscribe"]
topics = ["own/%u/#", "client/%c/#"]

[[rule]]
allow = ["publish"]
topics = ["in/#"]
qos = 1
retain = false

[[rule]]
allow = ["subscribe"]
topics = ["out/#"]

[[rule]]
allow = ["subscribe"]
topics = ["slow/#"]
qos = 0

[[rule]]
allow = ["publish", "subscribe"]
topics = ["#"]
user = "root"
"##;

fn rules(text: &str) -> Rules {
    Rules::from_toml("rules.toml", text).expect("rules")
}

fn broker(shards: u16) -> Broker {
    Broker::with_access(shards, Arc::new(Believing), rules(RULES))
}

fn set_rules(broker: &mut Broker, text: &str) {
    broker.shared.set_rules(Arc::new(rules(text)));
    let now = broker.now;
    broker.shards.iter_mut().for_each(|shard| shard.rules_changed(now));
    broker.advance(10);
}

fn connect(user: &'static str, client_id: &'static str) -> Connect<'static> {
    Connect { user_name: Some(user), ..Connect::new(Version::V5, client_id) }
}

fn client(broker: &mut Broker, user: &'static str, client_id: &'static str) -> usize {
    let link = broker.connect(connect(user, client_id));
    broker.received(link);
    link
}

fn will(topic: &str) -> Will<'_> {
    let properties = Properties::NONE;
    Will { topic, payload: b"gone", qos: QoS::AtLeastOnce, retain: false, properties }
}

const SESSION: [Property<'static>; 1] = [Property::SessionExpiryIntervalS(600)];

/// A client whose session goes on.
fn kept(broker: &mut Broker, user: &'static str, client_id: &'static str) -> usize {
    let properties = Properties::new(&SESSION);
    broker.connect(Connect { properties, clean_start: false, ..connect(user, client_id) })
}

fn suback(broker: &mut Broker, link: usize, filter: &str) -> u8 {
    broker.subscribe(link, filter, QoS::ExactlyOnce);
    match &broker.received(link)[..] {
        [Got::SubAck(_, codes), ..] => codes[0],
        other => panic!("no SUBACK but {other:?}"),
    }
}

fn puback(broker: &mut Broker, link: usize, topic: &str) -> ReasonCode {
    broker.publish(link, topic, b"x", QoS::AtLeastOnce, false);
    match broker.received(link).last() {
        Some(Got::PubAck(_, reason)) => *reason,
        other => panic!("no PUBACK but {other:?}"),
    }
}

const NO: u8 = ReasonCode::NotAuthorized as u8;

#[test]
fn a_message_that_may_not_be_published_reaches_nobody() {
    for shards in [1, 3] {
        let mut broker = broker(shards);
        let root = client(&mut broker, "root", "root");
        assert_eq!(suback(&mut broker, root, "in/#"), 2);
        assert_eq!(suback(&mut broker, root, "own/#"), 2);
        let ann = client(&mut broker, "ann", "a");
        assert_eq!(puback(&mut broker, ann, "own/bob/x"), ReasonCode::NotAuthorized);
        assert_eq!(puback(&mut broker, ann, "secret/x"), ReasonCode::NotAuthorized);
        assert_eq!(puback(&mut broker, ann, "client/b"), ReasonCode::NotAuthorized);
        for retain in [false, true] {
            broker.publish(ann, "own/bob/x", b"x", QoS::AtMostOnce, retain);
        }
        // Above the QoS of the rule, and retained where that is not allowed.
        broker.publish(ann, "in/x", b"x", QoS::ExactlyOnce, false);
        assert_eq!(broker.received(ann), [Got::PubRec(1, ReasonCode::NotAuthorized)]);
        broker.publish(ann, "in/x", b"x", QoS::AtLeastOnce, true);
        assert_eq!(broker.received(ann), [Got::PubAck(1, ReasonCode::NotAuthorized)]);
        assert_eq!(broker.publishes(root), []);
        assert_eq!(puback(&mut broker, ann, "in/x"), ReasonCode::Success);
        assert_eq!(puback(&mut broker, ann, "own/ann/x"), ReasonCode::Success);
        assert_eq!(broker.publishes(root).len(), 2);
        assert!(broker.links[ann].open);
        let denied = |event: &&Event| matches!(event, Event::Denied { action: "publish", .. });
        assert_eq!(broker.events.iter().filter(denied).count(), 7);
    }
}

#[test]
fn an_answer_of_the_cache_is_for_the_same_question_only() {
    let mut broker = broker(1);
    let ann = client(&mut broker, "ann", "a");
    for _ in 0..3 {
        assert_eq!(puback(&mut broker, ann, "in/x"), ReasonCode::NoMatchingSubscribers);
        broker.publish(ann, "in/x", b"x", QoS::ExactlyOnce, false);
        assert_eq!(broker.received(ann), [Got::PubRec(1, ReasonCode::NotAuthorized)]);
        assert_eq!(puback(&mut broker, ann, "in2/x"), ReasonCode::NotAuthorized);
    }
    // Many more topics than it holds.
    for n in 0..500 {
        let (good, bad) = (format!("in/{n}"), format!("no/{n}"));
        assert_eq!(puback(&mut broker, ann, &good), ReasonCode::NoMatchingSubscribers);
        assert_eq!(puback(&mut broker, ann, &bad), ReasonCode::NotAuthorized);
    }
}

#[test]
fn a_topic_alias_does_not_pass_by_the_rules() {
    let mut broker = broker(1);
    let ann = client(&mut broker, "ann", "a");
    let alias = [Property::TopicAlias(1)];
    let publish = |topic| Publish {
        properties: Properties::new(&alias),
        qos: QoS::AtLeastOnce,
        packet_id: Some(PacketId::MIN),
        ..Publish::new(topic, b"x")
    };
    broker.send(ann, &Packet::Publish(publish("secret/x")));
    broker.send(ann, &Packet::Publish(publish("")));
    let no = Got::PubAck(1, ReasonCode::NotAuthorized);
    assert_eq!(broker.received(ann), [no.clone(), no.clone()]);
    // An alias that stood for an allowed topic is set anew.
    broker.send(ann, &Packet::Publish(publish("in/x")));
    broker.send(ann, &Packet::Publish(publish("secret/x")));
    broker.send(ann, &Packet::Publish(publish("")));
    let yes = Got::PubAck(1, ReasonCode::NoMatchingSubscribers);
    assert_eq!(broker.received(ann), [yes, no.clone(), no]);
}

#[test]
fn a_subscription_wider_than_the_rights_is_refused() {
    let mut broker = broker(1);
    let ann = client(&mut broker, "ann", "a");
    for filter in ["#", "+/x", "secret/#", "secret/x", "own/#", "own/+/x", "$share/g/#", "$SYS/#"] {
        assert_eq!(suback(&mut broker, ann, filter), NO, "{filter}");
    }
    for filter in ["out/#", "out/+/x", "own/ann/#", "client/a", "$share/g/out/x"] {
        assert_eq!(suback(&mut broker, ann, filter), 2, "{filter}");
    }
    // Each filter of one packet by itself, and a lower QoS is told.
    let filters = ["slow/x", "secret/x", "out/x"].map(|f| Subscription::new(f, QoS::AtLeastOnce));
    broker.subscribe_with(ann, &filters, None);
    assert_eq!(broker.received(ann), [Got::SubAck(1, vec![0, NO, 1])]);
    // What was refused gets nothing.
    let root = client(&mut broker, "root", "root");
    broker.publish(root, "own/bob", b"x", QoS::AtMostOnce, false);
    assert_eq!(broker.publishes(ann), []);
}

#[test]
fn a_will_without_the_right_to_it_is_refused_at_connect() {
    let mut broker = broker(1);
    let with = |topic| Connect { will: Some(will(topic)), ..connect("ann", "a") };
    let link = broker.connect(with("secret/x"));
    let reason = ReasonCode::NotAuthorized;
    assert_eq!(broker.received(link), [Got::ConnAck { session_present: false, reason }]);
    let link = broker.connect(with("in/x"));
    let reason = ReasonCode::Success;
    assert_eq!(broker.received(link), [Got::ConnAck { session_present: false, reason }]);
}

#[test]
fn a_will_is_published_under_the_rights_of_its_time() {
    for allowed in [true, false] {
        let mut broker = broker(1);
        let root = client(&mut broker, "root", "root");
        suback(&mut broker, root, "in/#");
        let will = Some(will("in/will"));
        let ann = broker.connect(Connect { will, ..connect("ann", "a") });
        if !allowed {
            set_rules(&mut broker, "[[rule]]\nallow = [\"subscribe\"]\ntopics = [\"#\"]\n");
        }
        broker.cut(ann);
        assert_eq!(broker.publishes(root).len(), usize::from(allowed));
    }
}

#[test]
fn rules_that_change_take_subscriptions_away_without_closing_connections() {
    for shards in [1, 3] {
        let mut broker = broker(shards);
        let ann = client(&mut broker, "ann", "a");
        let root = client(&mut broker, "root", "root");
        assert_eq!(suback(&mut broker, ann, "out/#"), 2);
        assert_eq!(suback(&mut broker, ann, "$share/g/out/x"), 2);
        assert_eq!(suback(&mut broker, ann, "own/ann/x"), 2);
        broker.publish(root, "out/x", b"1", QoS::AtMostOnce, false);
        assert_eq!(broker.publishes(ann).len(), 2);
        let narrower = RULES.replace("\"out/#\"", "\"out/public/#\"");
        set_rules(&mut broker, &narrower);
        broker.publish(root, "out/x", b"2", QoS::AtMostOnce, false);
        broker.publish(root, "own/ann/x", b"3", QoS::AtMostOnce, false);
        let got = broker.publishes(ann);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].topic, "own/ann/x");
        assert!(broker.links[ann].open);
        // What the connection may publish changes too, though the answer was known.
        assert_eq!(puback(&mut broker, ann, "in/x"), ReasonCode::NoMatchingSubscribers);
        set_rules(&mut broker, &narrower.replace("in/#", "into/#"));
        assert_eq!(puback(&mut broker, ann, "in/x"), ReasonCode::NotAuthorized);
    }
}

#[test]
fn nothing_queued_or_in_flight_is_delivered_after_the_right_is_gone() {
    for version_changes in ["while away", "while connected"] {
        let mut broker = broker(1);
        let ann = kept(&mut broker, "ann", "a");
        broker.received(ann);
        assert_eq!(suback(&mut broker, ann, "out/#"), 2);
        let root = client(&mut broker, "root", "root");
        // One is in flight and not acknowledged, others are queued.
        broker.publish(root, "out/secret", b"flight", QoS::AtLeastOnce, false);
        assert_eq!(broker.publishes(ann).len(), 1);
        broker.cut(ann);
        broker.publish(root, "out/secret", b"queued", QoS::AtLeastOnce, false);
        broker.publish(root, "out/public", b"queued", QoS::ExactlyOnce, false);
        let narrower = RULES.replace("\"out/#\"", "\"out/public/#\"");
        if version_changes == "while away" {
            set_rules(&mut broker, &narrower);
        }
        let limit = [Property::SessionExpiryIntervalS(600), Property::ReceiveMaximum(1)];
        let again = broker.connect(Connect {
            properties: Properties::new(&limit),
            clean_start: false,
            ..connect("ann", "a")
        });
        let mut got = broker.received(again);
        if version_changes == "while connected" {
            // The first is repeated; the others wait behind the receive maximum.
            let Got::Publish(first) = &got[1] else { panic!("{got:?}") };
            assert_eq!((&*first.topic, first.dup), ("out/secret", true));
            set_rules(&mut broker, &narrower);
            broker.puback(again, first.id);
            got.truncate(1);
            got.extend(broker.received(again));
        }
        let topics: Vec<_> = got
            .iter()
            .filter_map(|got| if let Got::Publish(p) = got { Some(&*p.topic) } else { None })
            .collect();
        assert_eq!(topics, ["out/public"], "{version_changes}");
        // Nor does the subscription get anything new outside of the rights.
        broker.publish(root, "out/secret", b"new", QoS::AtMostOnce, false);
        assert_eq!(broker.publishes(again), []);
    }
}

#[test]
fn retained_messages_come_under_the_rights_of_the_moment() {
    let mut broker = broker(1);
    let root = client(&mut broker, "root", "root");
    broker.publish(root, "out/a", b"kept", QoS::AtMostOnce, true);
    broker.publish(root, "secret/a", b"kept", QoS::AtMostOnce, true);
    let ann = client(&mut broker, "ann", "a");
    assert_eq!(suback(&mut broker, ann, "#"), NO);
    broker.subscribe(ann, "out/#", QoS::AtMostOnce);
    assert_eq!(broker.publishes(ann).len(), 1);
    set_rules(&mut broker, &RULES.replace("\"out/#\"", "\"other/#\""));
    assert_eq!(suback(&mut broker, ann, "out/#"), NO);
    assert_eq!(broker.publishes(ann), []);
}

#[test]
fn rules_that_come_to_an_open_broker_hold_for_who_is_there() {
    let mut broker = Broker::with_access(1, Arc::new(Believing), Rules::open());
    let nobody = client(&mut broker, "", "n");
    let ann = client(&mut broker, "ann", "a");
    assert_eq!(suback(&mut broker, nobody, "#"), 2);
    assert_eq!(suback(&mut broker, ann, "#"), 2);
    set_rules(&mut broker, RULES);
    assert_eq!(puback(&mut broker, nobody, "x"), ReasonCode::NotAuthorized);
    assert_eq!(puback(&mut broker, ann, "in/x"), ReasonCode::NoMatchingSubscribers);
    assert_eq!(broker.publishes(nobody), []);
}

#[test]
fn a_proof_that_is_renewed_with_fewer_rights_takes_the_others_away() {
    let mut broker = broker(1);
    let proof = |filter: &'static [u8]| {
        [Property::AuthenticationMethod("M"), Property::AuthenticationData(filter)]
    };
    let list = proof(b"t/#");
    let ann = broker
        .connect(Connect { properties: Properties::new(&list), ..Connect::new(Version::V5, "a") });
    broker.received(ann);
    assert_eq!(suback(&mut broker, ann, "t/#"), 2);
    let list = proof(b"t/public/#");
    let reason = ReasonCode::Reauthenticate;
    let auth = whimbrel_codec::Auth { reason, properties: Properties::new(&list) };
    broker.send(ann, &Packet::Auth(auth));
    assert_eq!(broker.received(ann), [Got::Auth(ReasonCode::Success, Vec::new())]);
    let root = client(&mut broker, "root", "root");
    broker.publish(root, "t/x", b"x", QoS::AtMostOnce, false);
    assert_eq!(broker.publishes(ann), []);
    assert_eq!(puback(&mut broker, ann, "t/x"), ReasonCode::NotAuthorized);
    assert_eq!(puback(&mut broker, ann, "t/public/x"), ReasonCode::NoMatchingSubscribers);
}

#[test]
fn names_that_look_like_filters_match_nothing() {
    for name in ["#", "+", "a/b", "+/+"] {
        let mut broker = broker(1);
        let link = client(&mut broker, name, name);
        for topic in ["own/bob/x", "own/a/b/x", "client/b/x", "own/x"] {
            assert_eq!(puback(&mut broker, link, topic), ReasonCode::NotAuthorized, "{name}");
        }
        for filter in ["own/#", "own/+/#", "client/#", "own/a/b/#"] {
            assert_eq!(suback(&mut broker, link, filter), NO, "{name}");
        }
    }
}
