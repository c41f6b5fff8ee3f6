//! The client alone, without sockets: encode, keep, decode, acknowledge.
//!
//! `bench/instructions` counts its instructions with callgrind: `flows SCENARIO MESSAGES`.

use whimbrel_client_core::{Client, Event, Limits, Millis};
use whimbrel_codec::{Ack, Connect, Packet, PacketId, Publish, QoS, Version};

const NOW: Millis = Millis(1000);
/// Messages of one turn of the driver's loop.
const BURST: usize = 32;
const VERSION: Version = Version::V5;

struct Driver {
    client: Client<'static>,
    bytes: Vec<u8>,
    events: usize,
}

impl Driver {
    fn new() -> Driver {
        let mut client = Client::new(Limits::default());
        client.connect(NOW, &Connect::new(VERSION, "c")).expect("a CONNECT");
        let mut driver = Driver { client, bytes: Vec::new(), events: 0 };
        driver.transmit();
        driver.client.handle_bytes(NOW, &[0x20, 3, 0, 0, 0]);
        driver.drain();
        driver
    }

    fn transmit(&mut self) {
        while let Some(len) = self.client.poll_transmit().map(<[u8]>::len) {
            self.client.handle_transmitted(NOW, len);
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.client.poll_event() {
            assert!(!matches!(event, Event::Failed(_)));
            self.events += 1;
        }
    }

    fn receive(&mut self) {
        self.client.handle_bytes(NOW, &self.bytes);
        self.bytes.clear();
        self.drain();
        self.transmit();
    }

    fn server_sends(&mut self, packet: &Packet<'_>) {
        packet.encode(VERSION, &mut self.bytes).expect("a packet that can be encoded");
    }
}

fn publish(qos: QoS, len: usize, messages: usize) -> usize {
    let mut driver = Driver::new();
    let payload = vec![7; len];
    let message = Publish { qos, ..Publish::new("bench/topic/1", &payload) };
    let mut ids = Vec::with_capacity(BURST);
    for _ in 0..messages / BURST {
        ids.clear();
        for _ in 0..BURST {
            ids.extend(driver.client.publish(&message).expect("room"));
        }
        driver.transmit();
        if qos == QoS::AtLeastOnce {
            ids.iter().for_each(|id| driver.server_sends(&Packet::PubAck(Ack::new(*id))));
        } else {
            ids.iter().for_each(|id| driver.server_sends(&Packet::PubRec(Ack::new(*id))));
        }
        driver.receive();
        if qos == QoS::ExactlyOnce {
            ids.iter().for_each(|id| driver.server_sends(&Packet::PubComp(Ack::new(*id))));
            driver.receive();
        }
    }
    driver.events
}

fn receive(qos: QoS, len: usize, messages: usize) -> usize {
    let mut driver = Driver::new();
    let payload = vec![7; len];
    let (mut burst, mut released) = (Vec::new(), Vec::new());
    for n in 1..=BURST as u16 {
        let packet_id = PacketId::new(n).filter(|_| qos != QoS::AtMostOnce);
        let message = Publish { qos, packet_id, ..Publish::new("bench/topic/1", &payload) };
        Packet::Publish(message).encode(VERSION, &mut burst).expect("a packet");
        if qos == QoS::ExactlyOnce {
            let release = Packet::PubRel(Ack::new(PacketId::new(n).expect("not 0")));
            release.encode(VERSION, &mut released).expect("a packet");
        }
    }
    for _ in 0..messages / BURST {
        driver.client.handle_bytes(NOW, &burst);
        driver.drain();
        driver.transmit();
        driver.client.handle_bytes(NOW, &released);
        driver.drain();
        driver.transmit();
    }
    driver.events
}

type Scenario = (&'static str, fn(usize) -> usize);

const SCENARIOS: &[Scenario] = &[
    ("client_publish_qos0", |n| publish(QoS::AtMostOnce, 64, n)),
    ("client_publish_qos1", |n| publish(QoS::AtLeastOnce, 64, n)),
    ("client_publish_qos2", |n| publish(QoS::ExactlyOnce, 64, n)),
    ("client_publish_qos1_1024", |n| publish(QoS::AtLeastOnce, 1024, n)),
    ("client_receive_qos0", |n| receive(QoS::AtMostOnce, 64, n)),
    ("client_receive_qos1", |n| receive(QoS::AtLeastOnce, 64, n)),
    ("client_receive_qos2", |n| receive(QoS::ExactlyOnce, 64, n)),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let wanted = args.next();
    let messages = args.next().and_then(|n| n.parse().ok()).unwrap_or(32_000);
    for (name, run) in SCENARIOS {
        if wanted.as_deref().is_none_or(|wanted| wanted == *name) {
            println!("{name} {}", run(messages));
        }
    }
}
