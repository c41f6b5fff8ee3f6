//! A client and the other end of its connection, spoken to in packets.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use whimbrel_codec::*;

use crate::{Client, Event, Failure, Limits, Millis};

pub const T0: Millis = Millis(1_000);

/// A client and the other end of its connection, spoken to in packets.
pub struct Script {
    pub client: Client<'static>,
    pub version: Version,
}

impl Script {
    pub fn new(version: Version) -> Script {
        Script::with(Limits::default(), version)
    }

    pub fn with(limits: Limits, version: Version) -> Script {
        Script { client: Client::new(limits), version }
    }

    pub fn connected(version: Version) -> Script {
        let mut script = Script::new(version);
        script.connect(&Connect::new(version, "c"), &connack(false, &[]));
        script
    }

    /// Connects, and returns what follows CONNECT.
    pub fn connect(&mut self, connect: &Connect<'_>, ack: &ConnAck<'_>) -> Vec<String> {
        self.client.connect(T0, connect).unwrap();
        assert!(self.sent()[0].starts_with("Connect("));
        self.recv(Packet::ConnAck(*ack));
        assert!(matches!(self.client.poll_event(), Some(Event::Connected { .. })));
        self.sent()
    }

    pub fn expect(&self, sent: &[String], packets: &[Packet<'_>]) {
        let expected: Vec<_> = packets.iter().map(|packet| format!("{packet:?}")).collect();
        assert_eq!(sent, expected);
    }

    /// What the client sends, in debug form.
    pub fn sent(&mut self) -> Vec<String> {
        let Some(mut bytes) = self.client.poll_transmit() else { return vec![] };
        let len = bytes.len();
        let mut sent = vec![];
        while let Some(frame) = Frame::parse(bytes, u32::MAX).unwrap() {
            sent.push(format!("{:?}", Packet::decode(self.version, &frame, bytes).unwrap()));
            bytes = &bytes[frame.packet_len()..];
        }
        self.client.handle_transmitted(T0, len);
        sent
    }

    pub fn expect_sent(&mut self, packets: &[Packet<'_>]) {
        let sent = self.sent();
        self.expect(&sent, packets);
    }

    pub fn recv(&mut self, packet: Packet<'_>) {
        let mut bytes = vec![];
        packet.encode(self.version, &mut bytes).unwrap();
        self.client.handle_bytes(T0, &bytes);
    }

    pub fn expect_event(&mut self, event: Event<'_>) {
        assert_eq!(self.client.poll_event(), Some(event));
    }

    /// The client must find fault with the server, and say so if it can.
    pub fn expect_fault(&mut self, reason: ReasonCode) {
        match self.client.poll_event() {
            Some(Event::Failed(Failure::ServerMisbehaved(error))) => {
                assert_eq!(error.reason, reason)
            }
            other => panic!("{other:?}"),
        }
        if self.version.is_v5() {
            self.expect_sent(&[Packet::Disconnect(Disconnect::new(reason))]);
        }
        assert!(self.client.is_closed());
        assert_eq!(self.client.poll_event(), None);
    }
}

pub fn connack<'a>(session_present: bool, list: &'a [Property<'a>]) -> ConnAck<'a> {
    let properties = Properties::new(list);
    ConnAck { session_present, reason: ReasonCode::Success, properties }
}

/// A session that outlives its connection.
pub fn lasting(version: Version) -> Connect<'static> {
    const LASTS: &[Property<'static>] = &[Property::SessionExpiryIntervalS(600)];
    let properties = if version.is_v5() { Properties::new(LASTS) } else { Properties::NONE };
    Connect { clean_start: false, properties, ..Connect::new(version, "c") }
}

pub fn id(n: u16) -> PacketId {
    PacketId::new(n).unwrap()
}

pub fn publish(qos: QoS, n: Option<u16>) -> Publish<'static> {
    Publish { qos, packet_id: n.and_then(PacketId::new), ..Publish::new("a", b"x") }
}

pub const QOS1: QoS = QoS::AtLeastOnce;
pub const QOS2: QoS = QoS::ExactlyOnce;
