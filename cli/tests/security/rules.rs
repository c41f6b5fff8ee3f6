//! What users may do.

use whimbrel_codec::{Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Will};

use super::link::{Got, Link, login, refused};
use super::passwords::password_file;
use super::server::{LISTENER, Server};

const RULES: &str = r##"
[[rule]]
deny = ["publish", "subscribe"]
topics = ["secret/#"]

[[rule]]
allow = ["publish", "subscribe"]
topics = ["own/%u/#", "client/%c/#"]

[[rule]]
allow = ["publish", "subscribe"]
topics = ["#"]
group = "staff"
"##;

fn server(users: &[(&str, &str, &[&str])], rules: &str) -> Server {
    let config = format!(
        "password_file = \"{{folder}}/users\"\nrules_file = \"{{folder}}/rules.toml\"\n{LISTENER}"
    );
    Server::start(&config, &[("users", &password_file(users)), ("rules.toml", rules)])
}

const NO: u8 = ReasonCode::NotAuthorized as u8;

#[test]
fn rules_hold_for_publishing_subscribing_and_wills() {
    let server = server(&[("ann", "a", &["staff"]), ("bob", "b", &[])], RULES);
    let mut bob = Link::login(&server, "bob", b"b", "c1");
    for filter in ["#", "own/#", "own/ann/#", "secret/x", "$share/g/#", "$share/g/own/+", "$SYS/#"]
    {
        assert_eq!(bob.subscribe(filter), NO, "{filter}");
    }
    for filter in ["own/bob/#", "client/c1/x", "$share/g/own/bob/x"] {
        assert_eq!(bob.subscribe(filter), 1, "{filter}");
    }
    assert_eq!(bob.publish("own/ann/x", b"x", false), ReasonCode::NotAuthorized);
    assert_eq!(bob.publish("own/bob/y", b"x", false), ReasonCode::Success);
    let mut ann = Link::login(&server, "ann", b"a", "c2");
    // `#` does not cover what begins with `$`.
    assert_eq!(ann.subscribe("#"), NO, "deny comes before");
    assert_eq!(ann.subscribe("$SYS/#"), NO);
    assert_eq!(ann.subscribe("free/#"), 1);
    let will = |topic| Will {
        topic,
        payload: b"gone",
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::NONE,
    };
    let mut connect = login("bob", b"b", "c3");
    connect.will = Some(will("own/ann/x"));
    assert_eq!(Link::connect(&server, connect).1, refused(ReasonCode::NotAuthorized));
    let log = server.log();
    assert!(log.contains("may not publish") && log.contains("may not subscribe"), "{log}");
}

#[test]
fn a_topic_alias_does_not_pass_by_the_rules() {
    let server = server(&[("bob", "b", &[])], RULES);
    let mut bob = Link::login(&server, "bob", b"b", "c1");
    let alias = [Property::TopicAlias(1)];
    let publish = |topic| Publish {
        properties: Properties::new(&alias),
        qos: QoS::AtLeastOnce,
        packet_id: Some(PacketId::MIN),
        ..Publish::new(topic, b"x")
    };
    bob.send(&Packet::Publish(publish("own/bob/x")));
    assert_eq!(bob.next(), Got::PubAck(ReasonCode::NoMatchingSubscribers));
    bob.send(&Packet::Publish(publish("secret/x")));
    assert_eq!(bob.next(), Got::PubAck(ReasonCode::NotAuthorized));
    bob.send(&Packet::Publish(publish("")));
    assert_eq!(bob.next(), Got::PubAck(ReasonCode::NotAuthorized));
}

#[test]
fn names_that_look_like_filters_open_nothing() {
    let names = ["x#", "+", "a/b", "$SYS", "%u", "%c"];
    let users: Vec<(&str, &str, &[&str])> = names.iter().map(|n| (*n, "p", &[][..])).collect();
    let server = server(&users, RULES);
    for name in names {
        let mut link = Link::login(&server, name, b"p", name);
        for filter in ["own/#", "own/+/#", "client/#", "own/ann/#", "$SYS/#", "own/a/b/#"] {
            assert_eq!(link.subscribe(filter), NO, "{name} {filter}");
        }
        for topic in ["own/ann/x", "own/a/b/x", "client/x/y"] {
            assert_eq!(link.publish(topic, b"x", false), ReasonCode::NotAuthorized, "{name}");
        }
    }
    // NUL and bytes that are no UTF-8 do not even pass as a packet.
    for bad in [&b"a\0b"[..], &[0xff, 0xfe], &[0xed, 0xa0, 0x80]] {
        for (client_id, user) in [(bad, &b"ann"[..]), (b"c", bad)] {
            let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0xc2, 0, 0, 0];
            for field in [client_id, user, b"p"] {
                body.extend((field.len() as u16).to_be_bytes());
                body.extend(field);
            }
            let mut link = Link::open(&server);
            link.bytes(&[&[0x10, body.len() as u8], &body[..]].concat());
            let got = link.next();
            assert!(
                matches!(got, Got::ConnAck { reason, .. } if reason.is_error())
                    || got == Got::Closed,
                "{got:?}"
            );
        }
    }
}

#[test]
fn a_retained_message_is_not_delivered_after_the_right_is_gone() {
    let server = server(&[("ann", "a", &["staff"]), ("bob", "b", &[])], RULES);
    let mut ann = Link::login(&server, "ann", b"a", "c2");
    assert_eq!(ann.publish("own/bob/r", b"kept", true), ReasonCode::NoMatchingSubscribers);
    let mut bob = Link::login(&server, "bob", b"b", "c1");
    assert_eq!(bob.subscribe("own/bob/#"), 1);
    assert!(matches!(bob.next(), Got::Publish { .. }));
    server.write("rules.toml", &RULES.replace("own/%u/#", "mine/%u/#"));
    server.reload();
    assert_eq!(bob.subscribe("own/bob/#"), NO);
    assert_eq!(ann.publish("own/bob/r", b"new", false), ReasonCode::NoMatchingSubscribers);
    assert!(bob.is_quiet());
}

#[test]
fn a_right_to_everything_is_none_to_what_the_broker_says_of_itself() {
    let all = "[[rule]]\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"#\", \"+/#\"]\n";
    let server = server(&[("ann", "a", &[])], all);
    let mut ann = Link::login(&server, "ann", b"a", "c");
    assert_eq!(ann.subscribe("#"), 1);
    for filter in ["$SYS/#", "$SYS/broker/version", "$share/g/$SYS/#", "$other/x"] {
        assert_eq!(ann.subscribe(filter), NO, "{filter}");
    }
    assert_eq!(ann.publish("$SYS/broker/version", b"x", false), ReasonCode::NotAuthorized);
    assert!(ann.is_quiet(), "nor does # bring it");
}
