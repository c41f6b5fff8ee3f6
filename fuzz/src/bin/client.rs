//! A hostile server's bytes, between them what an application and time do: the client must not
//! panic, not hang, keep to its limits, and send nothing but packets. Memory grows or is lent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel_client_core::{AliasSlot, ArrivalSlot, Client, Error, Event, Limits, Memory, Millis};
use whimbrel_codec::{
    Auth, Connect, Disconnect, Frame, Packet, PacketId, Properties, Property, Publish, QoS,
    ReasonCode, Subscription, Version,
};

const LIMITS: Limits = Limits {
    max_in_flight: 8,
    max_in_flight_bytes: 600,
    max_alias_bytes: 100,
    max_packet_size_bytes: 300,
    max_output_bytes: 400,
    connect_timeout_ms: 1000,
};
/// What one command or one reading may add to the limit.
const SLACK_BYTES: usize = 700;
/// Identifiers that are restored.
const RESTORED: usize = 7;

fuzz_target!(|input: &[u8]| {
    let Some((&setup, rest)) = input.split_first() else { return };
    if setup & 1 == 0 {
        return run(Client::new(LIMITS), setup, rest);
    }
    let (mut input, mut output, mut in_flight) = ([0; 200], [0; 300], [0; 256]);
    let (mut outgoing, mut incoming, mut arrivals) = ([None; 5], [0; 3], [ArrivalSlot::EMPTY; 3]);
    let (mut slots, mut other) = ([AliasSlot::EMPTY; 3], [AliasSlot::EMPTY; 3]);
    let (mut topics, mut names, mut method) = ([0; 50], [0; 50], [0; 8]);
    let memory = Memory {
        input: &mut input,
        output: &mut output,
        in_flight: &mut in_flight,
        outgoing: &mut outgoing,
        incoming: &mut incoming,
        arrivals: &mut arrivals,
        incoming_aliases: &mut slots,
        incoming_topics: &mut topics,
        outgoing_aliases: &mut other,
        outgoing_topics: &mut names,
        authentication_method: &mut method,
    };
    run(Client::with_memory(memory, LIMITS), setup, rest);
});

fn run(mut client: Client<'_>, setup: u8, mut rest: &[u8]) {
    let versions = [Version::V5, Version::V3_1_1, Version::V5, Version::V3_1];
    let version = versions[setup as usize >> 1 & 3];
    client.set_manual_acknowledgement(setup & 8 != 0);
    client.set_automatic_topic_aliases(u16::from(setup >> 4));
    let mut now = Millis(0);
    let mut driver = Driver { version, ids: Vec::new(), torn: Vec::new() };
    while let Some((&op, tail)) = rest.split_first() {
        rest = tail;
        match op & 7 {
            0..=3 => {
                let (bytes, tail) = rest.split_at(rest.len().min(op as usize >> 3));
                rest = tail;
                driver.read(&mut client, now, bytes, op & 1 == 0);
            }
            4 => driver.transmit(&mut client, now, op as usize >> 3),
            5 => {
                now = now.plus(u64::from(op >> 3) * 200);
                client.handle_timeout(now);
            }
            _ => driver.command(&mut client, now, op),
        }
        driver.drain(&mut client);
        let waiting = client.poll_transmit().map_or(0, <[u8]>::len);
        assert!(waiting <= LIMITS.max_output_bytes + SLACK_BYTES, "{waiting}");
        // What is restored may be more than what is published.
        assert!(client.in_flight() <= usize::from(LIMITS.max_in_flight) + RESTORED);
    }
}

struct Driver {
    version: Version,
    /// Of messages that are not acknowledged.
    ids: Vec<PacketId>,
    /// What was sent of a packet whose end has not been.
    torn: Vec<u8>,
}

impl Driver {
    fn read(&mut self, client: &mut Client<'_>, now: Millis, bytes: &[u8], copied: bool) {
        let mut bytes = bytes;
        while !bytes.is_empty() && client.wants_bytes() && !client.is_closed() {
            let taken = if copied {
                client.handle_bytes(now, bytes)
            } else {
                let space = client.input_space();
                let len = bytes.len().min(space.len());
                space[..len].copy_from_slice(&bytes[..len]);
                client.handle_read(now, len);
                len
            };
            bytes = &bytes[taken..];
            self.drain(client);
            assert!(taken > 0 || !client.wants_bytes() || client.is_closed(), "input is stuck");
        }
    }

    fn drain(&mut self, client: &mut Client<'_>) {
        let mut events = 0;
        while let Some(event) = client.poll_event() {
            if let Event::Message(publish) = event {
                assert!(!publish.topic.is_empty());
                self.ids.extend(publish.packet_id);
            }
            events += 1;
            assert!(events < 10_000, "no end of events");
        }
    }

    fn transmit(&mut self, client: &mut Client<'_>, now: Millis, most: usize) {
        let Some(bytes) = client.poll_transmit() else { return };
        let len = if most == 31 { bytes.len() } else { bytes.len().min(most) };
        self.torn.extend_from_slice(&bytes[..len]);
        client.handle_transmitted(now, len);
        while let Some(frame) = Frame::parse(&self.torn, u32::MAX).expect("a packet") {
            if self.torn.len() < frame.packet_len() {
                return;
            }
            Packet::decode(self.version, &frame, &self.torn).expect("a valid packet");
            self.torn.drain(..frame.packet_len());
        }
    }

    fn command(&mut self, client: &mut Client<'_>, now: Millis, op: u8) {
        let none = Properties::NONE;
        let method = [Property::AuthenticationMethod("M"), Property::ReceiveMaximum(4)];
        let topics = ["a", "topic/1", "topic/2", "topic/3"];
        let message = Publish::new(topics[op as usize >> 4 & 3], b"x");
        match op >> 3 {
            0 | 1 => {
                client.handle_connection_lost();
                self.torn.clear();
                let properties = if op & 1 == 0 { none } else { Properties::new(&method) };
                let clean_start = op & 8 != 0;
                let connect = Connect::new(self.version, "c");
                let connect = Connect { clean_start, properties, keep_alive_s: 1, ..connect };
                any(client.connect(now, &connect));
            }
            2..=7 => any(client.publish(&message)),
            8..=13 => any(client.publish(&Publish { qos: QoS::AtLeastOnce, ..message })),
            14..=19 => any(client.publish(&Publish { qos: QoS::ExactlyOnce, ..message })),
            20 => any(client.subscribe(&[Subscription::new("a/#", QoS::AtLeastOnce)], none)),
            21 => any(client.unsubscribe(&["a/#"], none)),
            22 => any(client.disconnect(&Disconnect::new(ReasonCode::Success))),
            23 => {
                let reason = ReasonCode::ContinueAuthentication;
                let properties = Properties::new(&method[..1]);
                any(client.authenticate(&Auth { reason, properties }));
            }
            24 => client.release_memory(),
            25 => {
                for n in 1..=RESTORED as u16 {
                    let id = PacketId::new(n).expect("not 0");
                    any(client.restore_released(id));
                    any(client.restore_received(id));
                }
            }
            _ => {
                if let Some(id) = self.ids.pop() {
                    any(client.acknowledge(id, ReasonCode::Success));
                }
            }
        }
    }
}

/// Commands may be refused, and then they say why.
fn any<T>(_: Result<T, Error>) {}
