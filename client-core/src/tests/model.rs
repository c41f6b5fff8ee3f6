//! Random operations on a client and a model of a server, over a network that tears packets apart
//! and loses connections, with crashes of the client between: QoS 2 arrives exactly once and QoS 1
//! at least once, in order, both ways, and neither side is ever sent more than its receive maximum.
//! In memory that grows, and in very little that is lent.

use alloc::vec::Vec;

use proptest::prelude::*;
use whimbrel_codec::*;

use super::lent::{Sizes, lent};
use super::server::{Inbox, Server, number, payload, topic};
use crate::{Client, Event, Limits, Millis};

const NOW: Millis = Millis(0);

#[derive(Clone, Debug)]
enum Op {
    ClientPublishes(QoS),
    ServerPublishes(QoS),
    /// So many bytes arrive at the server.
    Up(usize),
    /// So many bytes arrive at the client.
    Down(usize),
    /// The server answers so many of the packets that it has read.
    ServerAnswers(usize),
    /// The application acknowledges one of the messages that wait for it.
    Acknowledge(usize),
    ConnectionLost,
    /// The client is gone, and goes on from what was written down.
    Crash,
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    /// None: memory grows.
    sizes: Option<Sizes>,
    manual: bool,
    aliases: u16,
    receive_maximum: u16,
    most_in_flight: usize,
}

/// What the driver writes down, before it transmits.
#[derive(Default)]
struct Record {
    published: Vec<(PacketId, QoS, u32, bool)>,
    received: Vec<PacketId>,
}

struct Pair {
    setup: Setup,
    client: Client<'static>,
    server: Server,
    record: Record,
    inbox: Inbox,
    /// QoS, number and identifier of messages that the application has not acknowledged.
    waiting: Vec<(QoS, u32, PacketId)>,
    sent_up: Vec<(QoS, u32)>,
    sent_down: Vec<(QoS, u32)>,
}

impl Pair {
    fn new(setup: Setup) -> Pair {
        let mut pair = Pair {
            setup,
            client: client(setup),
            server: Server::new(setup.receive_maximum, setup.most_in_flight),
            record: Record::default(),
            inbox: Inbox::default(),
            waiting: Vec::new(),
            sent_up: Vec::new(),
            sent_down: Vec::new(),
        };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        let list = [
            Property::ReceiveMaximum(self.setup.most_in_flight as u16),
            Property::TopicAliasMaximum(2),
            Property::SessionExpiryIntervalS(600),
        ];
        let properties = Properties::new(&list);
        let connect = Connect { clean_start: false, properties, ..Connect::new(Version::V5, "c") };
        self.client.connect(NOW, &connect).unwrap();
        self.waiting.clear();
        self.server.connection_lost();
        self.apply(&Op::Up(usize::MAX), 0);
    }

    fn apply(&mut self, op: &Op, number: u32) {
        match *op {
            Op::ClientPublishes(qos) => self.publish(qos, number),
            Op::ServerPublishes(qos) => {
                self.server.publish(qos, number);
                self.sent_down.push((qos, number));
            }
            Op::Up(len) => {
                let Some(bytes) = self.client.poll_transmit() else { return };
                let len = len.min(bytes.len());
                self.server.handle_bytes(&bytes[..len]);
                self.client.handle_transmitted(NOW, len);
            }
            Op::Down(len) => self.down(len),
            Op::ServerAnswers(count) => (0..count).for_each(|_| self.server.answer()),
            Op::Acknowledge(which) => self.acknowledge(which),
            Op::ConnectionLost => {
                self.client.handle_connection_lost();
                self.connect();
            }
            Op::Crash => self.restart(),
        }
        self.drain();
    }

    fn publish(&mut self, qos: QoS, number: u32) {
        let (payload, topic) = (payload(number), topic("up", number));
        let publish = Publish { qos, ..Publish::new(&topic, &payload) };
        if let Ok(id) = self.client.publish(&publish) {
            self.sent_up.push((qos, number));
            self.record.published.push((id.unwrap(), qos, number, false));
        }
    }

    fn down(&mut self, len: usize) {
        let mut len = len.min(self.server.output.len());
        while len > 0 && self.client.wants_bytes() {
            // Both ways in, in turn.
            let taken = if len.is_multiple_of(2) {
                self.client.handle_bytes(NOW, &self.server.output[..len])
            } else {
                let space = self.client.input_space();
                let taken = len.min(space.len());
                space[..taken].copy_from_slice(&self.server.output[..taken]);
                self.client.handle_read(NOW, taken);
                taken
            };
            self.server.output.drain(..taken);
            len -= taken;
            self.drain();
            assert!(taken > 0 || !self.client.wants_bytes(), "input is stuck");
        }
    }

    fn drain(&mut self) {
        let Pair { client, record, inbox, waiting, setup, .. } = self;
        while let Some(event) = client.poll_event() {
            match event {
                Event::Message(publish) => {
                    let (number, id) = (number(&publish), publish.packet_id.unwrap());
                    if setup.manual {
                        waiting.push((publish.qos, number, id));
                        continue;
                    }
                    inbox.0.push((publish.qos, number));
                    if publish.qos == QoS::ExactlyOnce {
                        record.received.push(id);
                    }
                }
                Event::Connected { discarded, .. } => assert_eq!(discarded, 0),
                Event::Received(id) => {
                    let found = record.published.iter_mut().find(|one| one.0 == id);
                    let one = found.expect("a message in flight");
                    assert!(!one.3, "PUBREC is told twice");
                    one.3 = true;
                }
                Event::Released(id) => record.received.retain(|one| *one != id),
                Event::Published(ack) => {
                    assert_eq!(ack.reason, ReasonCode::Success);
                    record.published.retain(|one| one.0 != ack.packet_id);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn acknowledge(&mut self, which: usize) {
        if self.waiting.is_empty() || !self.client.is_connected() {
            return;
        }
        let (qos, number, id) = self.waiting.remove(which % self.waiting.len());
        self.client.acknowledge(id, ReasonCode::Success).unwrap();
        self.inbox.0.push((qos, number));
        if qos == QoS::ExactlyOnce {
            self.record.received.push(id);
        }
    }

    fn restart(&mut self) {
        self.client = client(self.setup);
        for &(id, qos, number, released) in &self.record.published {
            let (payload, topic) = (payload(number), topic("up", number));
            let publish = Publish { qos, packet_id: Some(id), ..Publish::new(&topic, &payload) };
            if released {
                self.client.restore_released(id).unwrap();
            } else {
                self.client.restore_published(Version::V5, &publish).unwrap();
            }
        }
        for &id in &self.record.received {
            self.client.restore_received(id).unwrap();
        }
        self.connect();
    }

    fn settle(&mut self) {
        for _ in 0..2_000 {
            for op in [Op::Down(usize::MAX), Op::Up(usize::MAX), Op::ServerAnswers(100)] {
                self.apply(&op, 0);
            }
            for _ in 0..self.waiting.len() {
                self.apply(&Op::Acknowledge(0), 0);
            }
            if self.client.in_flight() == 0 && self.server.is_done() {
                assert!(self.record.published.is_empty());
                return;
            }
        }
        panic!("messages stay in flight");
    }
}

fn client(setup: Setup) -> Client<'static> {
    let limits = Limits { max_in_flight: 8, ..Limits::default() };
    let mut client = match setup.sizes {
        Some(sizes) => lent(sizes, limits),
        None => Client::new(limits),
    };
    client.set_manual_acknowledgement(setup.manual);
    client.set_automatic_topic_aliases(setup.aliases);
    client
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => qos().prop_map(Op::ClientPublishes),
        8 => qos().prop_map(Op::ServerPublishes),
        8 => (1..80usize).prop_map(Op::Up),
        8 => (1..80usize).prop_map(Op::Down),
        8 => (1..4usize).prop_map(Op::ServerAnswers),
        6 => (0..8usize).prop_map(Op::Acknowledge),
        1 => Just(Op::ConnectionLost),
        1 => Just(Op::Crash),
    ]
}

fn sizes() -> impl Strategy<Value = Option<Sizes>> {
    let sizes = (44..100usize, 60..140usize, 60..200usize, 2..10usize, 1..6usize);
    let sizes = sizes.prop_map(|(input, output, in_flight, outgoing, incoming)| Sizes {
        input,
        output,
        in_flight,
        outgoing,
        incoming,
        ..Sizes::TINY
    });
    prop::option::of(sizes)
}

fn setup() -> impl Strategy<Value = Setup> {
    (sizes(), any::<bool>(), 0..4u16, 1..6u16, 1..6usize).prop_map(
        |(sizes, manual, aliases, receive_maximum, most_in_flight)| Setup {
            sizes,
            manual,
            aliases,
            receive_maximum,
            most_in_flight,
        },
    )
}

proptest! {
    #[test]
    fn every_message_arrives_as_its_qos_says(
        ops in prop::collection::vec(op(), 0..200),
        setup in setup(),
    ) {
        let mut pair = Pair::new(setup);
        for (number, op) in ops.iter().enumerate() {
            pair.apply(op, number as u32);
        }
        pair.settle();
        pair.server.inbox.check(&pair.sent_up, true);
        // The application acknowledges in an order of its own.
        pair.inbox.check(&pair.sent_down, !setup.manual);
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        connected: bool,
        small: bool,
    ) {
        let limits = Limits { max_packet_size_bytes: 200, ..Limits::default() };
        let mut client = if small { lent(Sizes::TINY, limits) } else { Client::new(limits) };
        client.connect(NOW, &Connect::new(Version::V5, "c")).unwrap();
        let len = client.poll_transmit().map_or(0, <[u8]>::len);
        client.handle_transmitted(NOW, len);
        if connected {
            client.handle_bytes(NOW, &[0x20, 3, 0, 0, 0]);
        }
        let (mut rest, mut events) = (&bytes[..], 0);
        while !rest.is_empty() {
            let taken = client.handle_bytes(NOW, rest);
            rest = &rest[taken..];
            while client.poll_event().is_some() {
                events += 1;
            }
            let len = client.poll_transmit().map_or(0, <[u8]>::len);
            client.handle_transmitted(NOW, len);
            if taken == 0 {
                prop_assert!(client.is_closed());
                break;
            }
        }
        prop_assert!(events <= 2 + bytes.len());
    }
}
