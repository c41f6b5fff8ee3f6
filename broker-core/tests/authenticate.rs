//! Authentication that takes its time or several steps, and what follows from who a client is.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use harness::{Broker, Got};
use whimbrel_auth::{
    Attempt, Authenticator, Exchange, Method, Outcome, Principal, Refusal, Refused, Rules, Ticket,
};
use whimbrel_broker_core::Event;
use whimbrel_codec::{
    Auth, Connect, Disconnect, Frame, Packet, Properties, Property, QoS, ReasonCode, Version,
};

/// Answers as a test has written down; later, where it has written down nothing.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Outcome>>,
    asked: Mutex<Vec<(Ticket, Attempt)>>,
}

impl Authenticator for Script {
    fn begin(&self, ticket: Ticket, attempt: Attempt) -> Option<Outcome> {
        self.asked.lock().unwrap().push((ticket, attempt));
        self.answers.lock().unwrap().pop_front()
    }
}

impl Script {
    fn answer(&self, outcome: Outcome) {
        self.answers.lock().unwrap().push_back(outcome);
    }

    fn last(&self) -> (Ticket, Attempt) {
        self.asked.lock().unwrap().pop().expect("it was asked")
    }
}

fn broker(shards: u16) -> (Broker, Arc<Script>) {
    let script = Arc::new(Script::default());
    (Broker::with_access(shards, script.clone(), Rules::open()), script)
}

fn principal(name: &str) -> Arc<Principal> {
    Arc::new(Principal::new(name, Method::Password))
}

fn accepted(name: &str) -> Outcome {
    Outcome::Accepted { principal: principal(name), data: None }
}

fn later(broker: &mut Broker, ticket: Ticket, outcome: Outcome) {
    let now = broker.now;
    broker.shards[usize::from(ticket.shard)].handle_authenticated(now, ticket, outcome);
    broker.settle();
}

const METHOD: [Property<'static>; 2] =
    [Property::AuthenticationMethod("M"), Property::AuthenticationData(b"first")];

fn with_method() -> Connect<'static> {
    Connect { properties: Properties::new(&METHOD), ..Connect::new(Version::V5, "c") }
}

fn auth(reason: ReasonCode, list: &[Property<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let packet = Packet::Auth(Auth { reason, properties: Properties::new(list) });
    packet.encode(Version::V5, &mut bytes).unwrap();
    bytes
}

fn connected(session_present: bool) -> Got {
    Got::ConnAck { session_present, reason: ReasonCode::Success }
}

fn refused(reason: ReasonCode) -> Got {
    Got::ConnAck { session_present: false, reason }
}

/// A client that was let in with a method.
fn enhanced(broker: &mut Broker, script: &Script, name: &str) -> usize {
    script.answer(accepted(name));
    let link = broker.connect(with_method());
    assert_eq!(broker.received(link), [connected(false)]);
    script.last();
    link
}

#[test]
fn packets_behind_connect_wait_until_the_client_is_known() {
    let (mut broker, script) = broker(2);
    let link = broker.connect(Connect::new(Version::V3_1_1, "c"));
    broker.subscribe(link, "t", QoS::AtMostOnce);
    assert_eq!(broker.received(link), []);
    assert!(broker.links[link].paused);
    let (ticket, attempt) = script.last();
    assert_eq!(&*attempt.client_id, "c");
    later(&mut broker, ticket, accepted("u"));
    assert_eq!(broker.received(link), [connected(false), Got::SubAck(1, vec![0])]);
    assert!(!broker.links[link].paused);
    let user = broker.events.iter().find_map(|event| match event {
        Event::Connected { user, .. } => Some(user.clone()),
        _ => None,
    });
    assert_eq!(user.as_deref(), Some("u"));
}

#[test]
fn a_torn_packet_behind_connect_is_completed_later() {
    let (mut broker, script) = broker(1);
    let link = broker.connect(Connect::new(Version::V5, "c"));
    broker.bytes(link, &[0xC0]);
    let (ticket, _) = script.last();
    later(&mut broker, ticket, accepted("u"));
    assert_eq!(broker.received(link), [connected(false)]);
    broker.bytes(link, &[0x00]);
    assert_eq!(broker.received(link), [Got::PingResp]);
}

#[test]
fn a_refusal_that_comes_later_is_told() {
    for (refusal, reason) in [
        (Refusal::BadUserNameOrPassword, ReasonCode::BadUserNameOrPassword),
        (Refusal::NotAuthorized, ReasonCode::NotAuthorized),
        (Refusal::Unavailable, ReasonCode::ServerUnavailable),
        (Refusal::Banned, ReasonCode::Banned),
    ] {
        let (mut broker, script) = broker(1);
        let link = broker.connect(Connect::new(Version::V5, "c"));
        broker.subscribe(link, "t", QoS::AtMostOnce);
        let (ticket, _) = script.last();
        later(&mut broker, ticket, Refused::new(refusal, "detail").into());
        assert_eq!(broker.received(link), [refused(reason)]);
        assert!(!broker.links[link].open);
        assert_eq!(broker.shards[0].session_count(), 0);
    }
}

#[test]
fn an_answer_for_a_connection_that_is_gone_reaches_nobody_else() {
    let (mut broker, script) = broker(1);
    let first = broker.connect(Connect::new(Version::V5, "first"));
    let (ticket, _) = script.last();
    broker.cut(first);
    let second = broker.connect(Connect::new(Version::V5, "second"));
    let (other, _) = script.last();
    assert_eq!(ticket.conn, other.conn, "the number is used again");
    later(&mut broker, ticket, accepted("mallory"));
    assert_eq!(broker.received(second), []);
    later(&mut broker, other, accepted("u"));
    assert_eq!(broker.received(second), [connected(false)]);
}

#[test]
fn whoever_is_not_known_in_time_is_closed() {
    let (mut broker, script) = broker(1);
    let link = broker.connect(Connect::new(Version::V5, "c"));
    let (ticket, _) = script.last();
    broker.advance(12_000);
    assert!(!broker.links[link].open);
    later(&mut broker, ticket, accepted("u"));
    assert_eq!(broker.shards[0].session_count(), 0);
}

// [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-5]
#[test]
fn an_exchange_of_several_steps_ends_with_connack() {
    let (mut broker, script) = broker(1);
    let exchange = Exchange(Box::new(7_u32));
    script.answer(Outcome::Continue { exchange, data: b"second".to_vec() });
    let link = broker.connect(with_method());
    let asked = [Got::Auth(ReasonCode::ContinueAuthentication, b"second".to_vec())];
    assert_eq!(broker.received(link), asked);
    assert_eq!(&*script.last().1.data.unwrap().0, b"first");
    let answer = [Property::AuthenticationMethod("M"), Property::AuthenticationData(b"third")];
    broker.bytes(link, &auth(ReasonCode::ContinueAuthentication, &answer));
    let (ticket, attempt) = script.last();
    assert_eq!(&*attempt.data.unwrap().0, b"third");
    assert_eq!(attempt.exchange.unwrap().0.downcast_ref(), Some(&7_u32));
    let data = Some(b"fourth".to_vec());
    later(&mut broker, ticket, Outcome::Accepted { principal: principal("u"), data });
    let bytes = broker.links[link].received.clone();
    let frame = Frame::parse(&bytes, u32::MAX).unwrap().unwrap();
    let Packet::ConnAck(connack) = Packet::decode(Version::V5, &frame, &bytes).unwrap() else {
        panic!("no CONNACK")
    };
    assert_eq!(connack.reason, ReasonCode::Success);
    let list: Vec<_> = connack.properties.iter().collect();
    assert!(list.contains(&Property::AuthenticationMethod("M")), "{list:?}");
    assert!(list.contains(&Property::AuthenticationData(b"fourth")), "{list:?}");
}

// [MQTT-3.1.2-30] [MQTT-4.12.0-5]
#[test]
fn only_auth_of_the_same_method_or_disconnect_may_follow_before_connack() {
    let other = [Property::AuthenticationMethod("N")];
    let same = [Property::AuthenticationMethod("M")];
    let mut ping = Vec::new();
    Packet::PingReq.encode(Version::V5, &mut ping).unwrap();
    for bytes in [
        auth(ReasonCode::ContinueAuthentication, &other),
        auth(ReasonCode::Reauthenticate, &same),
        ping,
    ] {
        let (mut broker, script) = broker(1);
        let exchange = Exchange(Box::new(()));
        script.answer(Outcome::Continue { exchange, data: Vec::new() });
        let link = broker.connect(with_method());
        broker.received(link);
        broker.bytes(link, &bytes);
        assert_eq!(broker.received(link), [refused(ReasonCode::ProtocolError)]);
        assert!(!broker.links[link].open);
    }
    let (mut broker, script) = broker(1);
    let exchange = Exchange(Box::new(()));
    script.answer(Outcome::Continue { exchange, data: Vec::new() });
    let link = broker.connect(with_method());
    broker.received(link);
    broker.send(link, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    assert_eq!(broker.received(link), []);
    assert!(!broker.links[link].open);
}

// [MQTT-4.12.1-1]
#[test]
fn a_client_can_show_again_who_it_is_while_it_works() {
    let (mut broker, script) = broker(1);
    let link = enhanced(&mut broker, &script, "u");
    broker.bytes(link, &auth(ReasonCode::Reauthenticate, &METHOD));
    let (ticket, attempt) = script.last();
    assert_eq!(&*attempt.current.unwrap().name, "u");
    // Meanwhile the client goes on.
    broker.subscribe(link, "t", QoS::AtMostOnce);
    broker.publish(link, "t", b"x", QoS::AtLeastOnce, false);
    let got = broker.received(link);
    assert!(matches!(got[..], [Got::SubAck(..), Got::Publish(_), Got::PubAck(..)]), "{got:?}");
    let exchange = Exchange(Box::new(()));
    later(&mut broker, ticket, Outcome::Continue { exchange, data: b"more".to_vec() });
    let more = [Got::Auth(ReasonCode::ContinueAuthentication, b"more".to_vec())];
    assert_eq!(broker.received(link), more);
    script.answer(accepted("u"));
    broker.bytes(link, &auth(ReasonCode::ContinueAuthentication, &METHOD));
    assert_eq!(broker.received(link), [Got::Auth(ReasonCode::Success, Vec::new())]);
}

// [MQTT-4.12.1-2]
#[test]
fn whoever_shows_itself_as_somebody_else_is_closed() {
    let outcomes: [fn() -> Outcome; 2] =
        [|| accepted("mallory"), || Refused::new(Refusal::NotAuthorized, "detail").into()];
    for outcome in outcomes {
        let (mut broker, script) = broker(1);
        let link = enhanced(&mut broker, &script, "u");
        script.answer(outcome());
        broker.bytes(link, &auth(ReasonCode::Reauthenticate, &METHOD));
        assert_eq!(broker.received(link), [Got::Disconnect(ReasonCode::NotAuthorized)]);
        assert!(!broker.links[link].open);
    }
}

// [MQTT-4.12.0-7] [MQTT-4.12.1-1]
#[test]
fn an_auth_that_fits_nowhere_is_a_protocol_error() {
    let other = [Property::AuthenticationMethod("N")];
    for bytes in [
        auth(ReasonCode::Reauthenticate, &other),
        auth(ReasonCode::ContinueAuthentication, &METHOD),
        auth(ReasonCode::Success, &METHOD),
    ] {
        let (mut broker, script) = broker(1);
        let link = enhanced(&mut broker, &script, "u");
        broker.bytes(link, &bytes);
        assert_eq!(broker.received(link), [Got::Disconnect(ReasonCode::ProtocolError)]);
    }
    let (mut broker, script) = broker(1);
    let link = enhanced(&mut broker, &script, "u");
    broker.bytes(link, &auth(ReasonCode::Reauthenticate, &METHOD));
    // Before the first one is judged.
    broker.bytes(link, &auth(ReasonCode::Reauthenticate, &METHOD));
    assert_eq!(broker.received(link), [Got::Disconnect(ReasonCode::ProtocolError)]);
}

#[test]
fn a_connection_ends_with_the_proof() {
    let (mut broker, script) = broker(1);
    let expires_s = broker.now.0 / 1000 + 30;
    let proof = |at| Principal { expires_s: Some(at), ..Principal::new("u", Method::Token) };
    let outcome = |at| Outcome::Accepted { principal: Arc::new(proof(at)), data: None };
    script.answer(outcome(expires_s));
    let link = broker.connect(with_method());
    script.last();
    broker.received(link);
    broker.advance(25_000);
    // A new one lasts longer.
    script.answer(outcome(expires_s + 30));
    broker.bytes(link, &auth(ReasonCode::Reauthenticate, &METHOD));
    broker.advance(10_000);
    assert_eq!(broker.received(link), [Got::Auth(ReasonCode::Success, Vec::new())]);
    broker.advance(40_000);
    assert_eq!(broker.received(link), [Got::Disconnect(ReasonCode::NotAuthorized)]);
    assert!(!broker.links[link].open);
}

#[test]
fn a_revoked_proof_ends_the_connection_it_belongs_to() {
    let (mut broker, script) = broker(1);
    let link = broker.connect(Connect::new(Version::V5, "c"));
    let (ticket, _) = script.last();
    later(&mut broker, ticket, accepted("u"));
    broker.received(link);
    let now = broker.now;
    let stale = Ticket { serial: ticket.serial + 1, ..ticket };
    broker.shards[0].handle_revoked(now, stale, "revoked");
    broker.settle();
    assert!(broker.links[link].open);
    broker.shards[0].handle_revoked(now, ticket, "revoked");
    broker.settle();
    assert_eq!(broker.received(link), [Got::Disconnect(ReasonCode::NotAuthorized)]);
}

#[test]
fn a_session_is_taken_over_by_its_own_principal_only() {
    let (mut broker, script) = broker(2);
    let session = [Property::SessionExpiryIntervalS(60)];
    let connect = Connect {
        properties: Properties::new(&session),
        clean_start: false,
        ..Connect::new(Version::V5, "c")
    };
    script.answer(accepted("alice"));
    let alice = broker.connect(connect);
    broker.subscribe(alice, "t", QoS::AtLeastOnce);
    broker.received(alice);
    script.answer(accepted("mallory"));
    let mallory = broker.connect(connect);
    assert_eq!(broker.received(mallory), [connected(false)]);
    assert!(broker.links[alice].open);
    // Nor does a clean start of somebody else end it.
    script.answer(accepted(""));
    let nobody = broker.connect(Connect { clean_start: true, ..connect });
    assert_eq!(broker.received(nobody), [connected(false)]);
    broker.cut(alice);
    broker.publish(mallory, "t", b"x", QoS::AtLeastOnce, false);
    script.answer(accepted("alice"));
    let again = broker.connect(connect);
    let got = broker.received(again);
    assert_eq!(got[0], connected(true));
    assert!(matches!(&got[1], Got::Publish(p) if p.payload == b"x"), "{got:?}");
    // The same principal takes its own session over.
    script.answer(accepted("alice"));
    let third = broker.connect(connect);
    assert_eq!(broker.received(third)[0], connected(true));
    assert_eq!(broker.received(again), [Got::Disconnect(ReasonCode::SessionTakenOver)]);
    assert!(broker.links[mallory].open);
}
