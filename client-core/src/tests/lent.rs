//! Memory that is lent: what fits, what does not, and what is announced of it.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use whimbrel_codec::*;

use super::script::{QOS1, QOS2, Script, T0, connack, id, publish};
use crate::{AliasSlot, ArrivalSlot, Client, Error, Event, Limits, Memory};

#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub input: usize,
    pub output: usize,
    pub in_flight: usize,
    pub outgoing: usize,
    pub incoming: usize,
    pub aliases: usize,
    pub topics: usize,
    pub method: usize,
}

impl Sizes {
    pub const TINY: Sizes = Sizes {
        input: 44,
        output: 48,
        in_flight: 64,
        outgoing: 3,
        incoming: 2,
        aliases: 2,
        topics: 40,
        method: 4,
    };
}

fn leak<T: Clone>(item: T, len: usize) -> &'static mut [T] {
    Box::leak(vec![item; len].into_boxed_slice())
}

/// A client in leaked memory.
pub fn lent(sizes: Sizes, limits: Limits) -> Client<'static> {
    let memory = Memory {
        input: leak(0, sizes.input),
        output: leak(0, sizes.output),
        in_flight: leak(0, sizes.in_flight),
        outgoing: leak(None, sizes.outgoing),
        incoming: leak(0, sizes.incoming),
        arrivals: leak(ArrivalSlot::EMPTY, sizes.incoming),
        incoming_aliases: leak(AliasSlot::EMPTY, sizes.aliases),
        incoming_topics: leak(0, sizes.topics),
        outgoing_aliases: leak(AliasSlot::EMPTY, sizes.aliases),
        outgoing_topics: leak(0, sizes.topics),
        authentication_method: leak(0, sizes.method),
    };
    Client::with_memory(memory, limits)
}

fn tiny(version: Version) -> Script {
    let client = lent(Sizes::TINY, Limits::default());
    let mut script = Script { client, version };
    script.connect(&Connect::new(version, "c"), &connack(false, &[]));
    script
}

fn announced<'a>(client: &'a Client<'_>) -> Vec<Property<'a>> {
    let bytes = client.poll_transmit().expect("CONNECT");
    let frame = Frame::parse(bytes, u32::MAX).expect("a frame").expect("whole");
    match Packet::decode(Version::V5, &frame, bytes) {
        Ok(Packet::Connect(connect)) => connect.properties.iter().collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_more_is_announced_than_there_is_memory_for() {
    let mut client = lent(Sizes::TINY, Limits::default());
    let list = [
        Property::TopicAliasMaximum(100),
        Property::SessionExpiryIntervalS(7),
        Property::ReceiveMaximum(50),
    ];
    let properties = Properties::new(&list);
    client.connect(T0, &Connect { properties, ..Connect::new(Version::V5, "c") }).unwrap();
    assert_eq!(
        announced(&client),
        [
            Property::SessionExpiryIntervalS(7),
            Property::ReceiveMaximum(2),
            Property::MaximumPacketSizeBytes(44),
            Property::TopicAliasMaximum(2),
        ]
    );
    client.handle_connection_lost();
    // What is less stays as it is.
    let list = [Property::MaximumPacketSizeBytes(20), Property::ReceiveMaximum(1)];
    let properties = Properties::new(&list);
    client.connect(T0, &Connect { properties, ..Connect::new(Version::V5, "c") }).unwrap();
    assert_eq!(announced(&client), list);
}

#[test]
fn memory_that_grows_announces_what_the_application_says() {
    let mut client = Client::new(Limits::default());
    client.connect(T0, &Connect::new(Version::V5, "c")).unwrap();
    assert_eq!(announced(&client), []);
    let limits = Limits { max_packet_size_bytes: 1000, ..Limits::default() };
    let mut client = Client::new(limits);
    client.connect(T0, &Connect::new(Version::V5, "c")).unwrap();
    let expected = [Property::ReceiveMaximum(65_535), Property::MaximumPacketSizeBytes(1000)];
    assert_eq!(announced(&client), expected);
}

#[test]
fn a_packet_that_never_fits_is_refused_and_one_that_does_not_fit_now_waits() {
    for version in [Version::V3_1_1, Version::V5] {
        let sizes = Sizes { output: 56, in_flight: 72, ..Sizes::TINY };
        let mut s = Script { client: lent(sizes, Limits::default()), version };
        s.connect(&Connect::new(version, "c"), &connack(false, &[]));
        let large = Publish { qos: QOS1, ..Publish::new("a", &[0; 50]) };
        assert_eq!(s.client.publish(&large), Err(Error::PacketTooLarge));
        let half = Publish { qos: QOS1, ..Publish::new("a", &[0; 15]) };
        assert_eq!(s.client.publish(&half), Ok(Some(id(1))));
        // The output is full, but the message is kept.
        let message = publish(QOS1, None);
        assert_eq!(s.client.publish(&message), Ok(Some(id(2))));
        assert_eq!(s.client.publish(&half), Ok(Some(id(3))));
        assert_eq!(s.sent().len(), 2);
        // It follows by itself.
        let kept = Publish { packet_id: Some(id(3)), ..half };
        s.expect_sent(&[Packet::Publish(kept)]);
        // All identifiers are in use.
        assert_eq!(s.client.publish(&message), Err(Error::Full));
        s.recv(Packet::PubAck(Ack::new(id(1))));
        s.expect_event(Event::Published(Ack::new(id(1))));
        assert_eq!(s.client.publish(&message), Ok(Some(id(4))));
    }
}

#[test]
fn a_packet_longer_than_the_input_is_a_fault() {
    let mut s = tiny(Version::V5);
    s.client.handle_bytes(T0, &[0x30, 43, 0, 1]);
    s.expect_fault(ReasonCode::PacketTooLarge);
    let mut s = tiny(Version::V5);
    let longest = Publish::new("a", &[7; 38]);
    s.recv(Packet::Publish(longest));
    s.expect_event(Event::Message(longest));
}

#[test]
fn bytes_are_taken_as_they_fit() {
    let mut s = tiny(Version::V5);
    let mut bytes = vec![];
    for _ in 0..5 {
        Packet::Publish(Publish::new("a", &[7; 20])).encode(s.version, &mut bytes).unwrap();
    }
    let (mut rest, mut events) = (&bytes[..], 0);
    while !rest.is_empty() {
        let taken = s.client.handle_bytes(T0, rest);
        assert!(taken > 0);
        rest = &rest[taken..];
        while let Some(event) = s.client.poll_event() {
            assert_eq!(event, Event::Message(Publish::new("a", &[7; 20])));
            events += 1;
        }
    }
    assert_eq!(events, 5);
}

#[test]
fn more_qos_2_messages_than_there_are_identifiers_are_a_fault() {
    let mut s = tiny(Version::V5);
    for n in 1..=2 {
        s.recv(Packet::Publish(publish(QOS2, Some(n))));
        s.expect_event(Event::Message(publish(QOS2, Some(n))));
    }
    s.sent();
    s.recv(Packet::Publish(publish(QOS2, Some(3))));
    s.expect_fault(ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn topics_of_aliases_share_their_memory() {
    let client = lent(Sizes::TINY, Limits::default());
    let mut s = Script { client, version: Version::V5 };
    let list = [Property::TopicAliasMaximum(2)];
    let connect = Connect { properties: Properties::new(&list), ..Connect::new(s.version, "c") };
    s.connect(&connect, &connack(false, &[]));
    let one = [Property::TopicAlias(1)];
    let two = [Property::TopicAlias(2)];
    let by =
        |list, topic| Publish { properties: Properties::new(list), ..Publish::new(topic, b"") };
    // Forty bytes hold two topics of 16, again and again.
    for topic in ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"] {
        for list in [&one, &two] {
            s.recv(Packet::Publish(by(list, topic)));
            s.expect_event(Event::Message(by(list, topic)));
            s.recv(Packet::Publish(by(list, "")));
            s.expect_event(Event::Message(by(list, topic)));
        }
    }
    s.recv(Packet::Publish(by(&one, "ddddddddddddddddddddd")));
    s.expect_fault(ReasonCode::QuotaExceeded);
}

#[test]
fn a_method_longer_than_its_memory_is_refused() {
    let mut client = lent(Sizes::TINY, Limits::default());
    let list = [Property::AuthenticationMethod("LONGER")];
    let connect = Connect { properties: Properties::new(&list), ..Connect::new(Version::V5, "c") };
    assert_eq!(client.connect(T0, &connect), Err(Error::AuthenticationMethod));
    assert!(client.is_closed());
}

#[test]
fn nothing_lent_is_nothing_sent() {
    let mut client = Client::with_memory(Memory::default(), Limits::default());
    let connect = Connect::new(Version::V3_1_1, "c");
    assert_eq!(client.connect(T0, &connect), Err(Error::PacketTooLarge));
    assert_eq!(client.handle_bytes(T0, &[1, 2, 3]), 0);
    assert_eq!(client.poll_event(), None);
    assert!(client.input_space().is_empty());
}
