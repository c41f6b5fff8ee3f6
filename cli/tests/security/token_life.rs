//! Tokens that end, are renewed, and are renewed with other rights.

use serde_json::json;
use whimbrel_codec::{
    Ack, Connect, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Version,
};

use super::issuer::{Carrier, METHOD, claims, header, now_s, scoped, server, token, with};
use super::link::{Got, Link, welcome};

const RENEW: ReasonCode = ReasonCode::Reauthenticate;

fn renew(link: &mut Link, token: &str) -> Got {
    link.auth(RENEW, METHOD, token.as_bytes());
    link.next()
}

#[test]
fn a_token_that_ends_ends_the_connection() {
    let server = server();
    let short = scoped("mqtt:sub:#", now_s() + 2);
    let links = Carrier::ALL.map(|carrier| {
        let (link, got) = carrier.present(&server, &short, &format!("{carrier:?}"));
        assert_eq!(got, welcome(false), "{carrier:?}");
        link
    });
    for mut link in links {
        assert_eq!(link.next(), Got::Disconnect(ReasonCode::NotAuthorized));
        assert_eq!(link.next(), Got::Closed);
    }
    let (_, got) = Carrier::Password.present(&server, &short, "again");
    assert_ne!(got, welcome(false), "a token that has ended");
    assert!(!server.log().contains(&short), "the token is in the log");
}

#[test]
fn a_client_that_renews_its_token_stays() {
    let server = server();
    let short = scoped("mqtt:sub:#", now_s() + 3);
    let (mut renewed, _) = Carrier::Method.present(&server, &short, "renews");
    let (mut left, _) = Carrier::Method.present(&server, &short, "does not");
    let longer = scoped("mqtt:sub:#", now_s() + 600);
    assert_eq!(renew(&mut renewed, &longer), Got::Auth(ReasonCode::Success, vec![]));
    assert_eq!(left.next(), Got::Disconnect(ReasonCode::NotAuthorized));
    assert!(renewed.is_quiet());
    // A shorter one counts as well.
    let shorter = scoped("mqtt:sub:#", now_s() + 2);
    assert_eq!(renew(&mut renewed, &shorter), Got::Auth(ReasonCode::Success, vec![]));
    assert_eq!(renewed.next(), Got::Disconnect(ReasonCode::NotAuthorized));
    assert!(!server.log().contains(&longer), "the token is in the log");
}

#[test]
fn a_renewal_that_is_refused_ends_the_connection() {
    let server = server();
    let good = scoped("mqtt:sub:#", now_s() + 600);
    let of_bob = token(&header(), &with(claims(), "sub", json!("bob")));
    let outdated = scoped("mqtt:sub:#", now_s() - 1);
    for bad in [&*of_bob, &outdated, "", "nonsense", &format!("{good}x")] {
        let (mut link, _) = Carrier::Method.present(&server, &good, "c");
        assert_eq!(renew(&mut link, bad), Got::Disconnect(ReasonCode::NotAuthorized), "{bad}");
        assert_eq!(link.next(), Got::Closed);
    }
    // By another method, or without one at first.
    let (mut link, _) = Carrier::Method.present(&server, &good, "c");
    link.auth(RENEW, "SCRAM-SHA-256", b"n,,n=ann,r=x");
    assert_eq!(link.next(), Got::Disconnect(ReasonCode::ProtocolError));
    let (mut link, _) = Carrier::Password.present(&server, &good, "c");
    assert_eq!(renew(&mut link, &good), Got::Disconnect(ReasonCode::ProtocolError));
}

#[test]
fn a_renewal_with_fewer_rights_takes_subscriptions_and_queued_messages_away() {
    let server = server();
    let all = scoped("mqtt:sub:a/# mqtt:sub:b/# mqtt:pub:a/# mqtt:pub:b/#", now_s() + 600);
    let list = [
        Property::AuthenticationMethod(METHOD),
        Property::AuthenticationData(all.as_bytes()),
        Property::ReceiveMaximum(1),
        Property::SessionExpiryIntervalS(600),
    ];
    let properties = Properties::new(&list);
    let connect = Connect { properties, ..Connect::new(Version::V5, "reader") };
    let (mut reader, _) = Link::connect(&server, connect);
    assert_eq!(reader.subscribe("a/#"), 1);
    assert_eq!(reader.subscribe("b/#"), 1);
    let (mut writer, _) = Carrier::Password.present(&server, &all, "writer");
    // The first is in flight, so that the others wait.
    for topic in ["a/0", "b/1", "a/2", "b/3"] {
        assert_eq!(writer.publish(topic, b"x", false), ReasonCode::Success);
    }
    let first = Got::Publish { topic: "a/0".into(), payload: b"x".into() };
    assert_eq!(reader.next(), first);
    let less = scoped("mqtt:sub:a/#", now_s() + 600);
    assert_eq!(renew(&mut reader, &less), Got::Auth(ReasonCode::Success, vec![]));
    reader.send(&Packet::PubAck(Ack::new(PacketId::MIN)));
    let third = Got::Publish { topic: "a/2".into(), payload: b"x".into() };
    assert_eq!(reader.next(), third);
    assert!(reader.is_quiet(), "b/3 is not his any more");
    assert_eq!(writer.publish("b/4", b"x", false), ReasonCode::NoMatchingSubscribers);
    assert_eq!(reader.subscribe("b/#"), ReasonCode::NotAuthorized as u8);
    assert_eq!(reader.publish("a/x", b"x", false), ReasonCode::NotAuthorized);
}

#[test]
fn a_renewal_with_fewer_rights_takes_topic_aliases_away() {
    let server = server();
    let (mut link, _) = Carrier::Method.present(&server, &scoped("mqtt:pub:#", now_s() + 60), "c");
    let alias = [Property::TopicAlias(1)];
    let send = |link: &mut Link, topic: &str| {
        link.send(&Packet::Publish(Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(PacketId::MIN),
            properties: Properties::new(&alias),
            ..Publish::new(topic, b"x")
        }));
        link.next()
    };
    let nobody = Got::PubAck(ReasonCode::NoMatchingSubscribers);
    assert_eq!(send(&mut link, "secret/x"), nobody);
    assert_eq!(send(&mut link, ""), nobody);
    let less = scoped("mqtt:pub:public/#", now_s() + 60);
    assert_eq!(renew(&mut link, &less), Got::Auth(ReasonCode::Success, vec![]));
    assert_eq!(send(&mut link, ""), Got::PubAck(ReasonCode::NotAuthorized));
}

#[test]
fn a_will_does_not_outlive_the_right_to_it() {
    let server = server();
    let all = scoped("mqtt:sub:# mqtt:pub:#", now_s() + 600);
    let (mut watcher, _) = Carrier::Password.present(&server, &all, "watcher");
    assert_eq!(watcher.subscribe("#"), 1);
    for (scope, fires) in [("mqtt:pub:secret/#", true), ("mqtt:pub:public/#", false)] {
        let will = whimbrel_codec::Will {
            topic: "secret/will",
            payload: b"gone",
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::NONE,
        };
        let list =
            [Property::AuthenticationMethod(METHOD), Property::AuthenticationData(all.as_bytes())];
        let properties = Properties::new(&list);
        let connect = Connect { properties, will: Some(will), ..Connect::new(Version::V5, "c") };
        let (mut link, _) = Link::connect(&server, connect);
        let got = renew(&mut link, &scoped(scope, now_s() + 600));
        assert_eq!(got, Got::Auth(ReasonCode::Success, vec![]));
        drop(link);
        // Its end is known when its successor is let in.
        Carrier::Method.present(&server, &all, "c");
        if fires {
            let will = Got::Publish { topic: "secret/will".into(), payload: b"gone".into() };
            assert_eq!(watcher.next(), will);
        }
        assert!(watcher.is_quiet(), "{scope}");
    }
}

#[test]
fn a_session_that_is_taken_up_with_fewer_rights_has_fewer_subscriptions_and_messages() {
    let server = server();
    let all = scoped("mqtt:sub:# mqtt:pub:#", now_s() + 600);
    let less = scoped("mqtt:sub:a/#", now_s() + 600);
    let (mut writer, _) = Carrier::Password.present(&server, &all, "writer");
    let connect = |token: &str| {
        let list = [
            Property::AuthenticationMethod(METHOD),
            Property::AuthenticationData(token.as_bytes()),
            Property::SessionExpiryIntervalS(600),
        ];
        let properties = Properties::new(&list);
        let connect =
            Connect { properties, clean_start: false, ..Connect::new(Version::V5, "reader") };
        Link::connect(&server, connect)
    };
    let (mut reader, _) = connect(&all);
    assert_eq!(reader.subscribe("a/#"), 1);
    assert_eq!(reader.subscribe("b/#"), 1);
    drop(reader);
    for topic in ["b/1", "a/2", "b/3"] {
        assert_eq!(writer.publish(topic, b"x", false), ReasonCode::Success);
    }
    let (mut reader, got) = connect(&less);
    assert_eq!(got, welcome(true));
    assert_eq!(reader.next(), Got::Publish { topic: "a/2".into(), payload: b"x".into() });
    assert!(reader.is_quiet());
    assert_eq!(writer.publish("b/4", b"x", false), ReasonCode::NoMatchingSubscribers);
}

#[test]
fn nobody_takes_over_the_session_of_another() {
    let server = server();
    let of = |name: &str| token(&header(), &with(claims(), "sub", json!(name)));
    let connect = |token: &str| {
        let list = [Property::SessionExpiryIntervalS(600)];
        let (password, properties) = (Some(token.as_bytes()), Properties::new(&list));
        let connect = Connect::new(Version::V5, "c");
        Link::connect(&server, Connect { password, properties, clean_start: false, ..connect })
    };
    let (mut ann, _) = connect(&of("ann"));
    assert_eq!(ann.subscribe("a"), 1);
    let (mut bob, got) = connect(&of("bob"));
    assert_eq!(got, welcome(false), "a session of his own");
    assert_eq!(bob.publish("a", b"x", false), ReasonCode::Success);
    assert!(bob.is_quiet(), "her subscription is not his");
    assert_eq!(ann.next(), Got::Publish { topic: "a".into(), payload: b"x".into() });
    drop(ann);
    let (_, got) = connect(&of("ann"));
    assert_eq!(got, welcome(true), "hers is still there");
}
