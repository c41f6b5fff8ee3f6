//! A broker with one fault: what goes to it or comes from it is changed on the way.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use whimbrel_codec::{Frame, Packet, Publish, Version};
use whimbrel_conformance::port::{Broker, Connection, Received};

use crate::world::InMemory;

/// What a broker does wrong.
pub struct Fault {
    /// In a few words.
    pub name: &'static str,
    /// Where it lies.
    pub kind: Kind,
}

/// Where a fault lies. A function is given a packet, and returns true if it has written to the
/// wires what goes there in its place.
pub enum Kind {
    /// In what the broker makes of a client's packet.
    Up(fn(&Packet<'_>, &mut Wires) -> bool),
    /// In what the broker sends.
    Down(fn(&Packet<'_>, &mut Wires) -> bool),
    /// It never closes a connection.
    NeverCloses,
    /// It overlooks bytes that are no packets.
    OverlooksMalformed,
    /// Its clock does not move.
    NoClock,
    /// It sends what any client publishes to every client.
    Leaks,
}

/// The two directions of a connection.
pub struct Wires {
    /// The connection's version.
    pub version: Version,
    broker: Vec<u8>,
    client: Vec<u8>,
}

impl Wires {
    /// Sends a packet to the broker.
    pub fn broker(&mut self, packet: Packet<'_>) -> bool {
        packet.encode(self.version, &mut self.broker).is_ok()
    }

    /// Sends a packet to the client.
    pub fn client(&mut self, packet: Packet<'_>) -> bool {
        packet.encode(self.version, &mut self.client).is_ok()
    }
}

/// Topic and payload of all that any client has published.
type Published = Rc<RefCell<Vec<(String, Vec<u8>)>>>;

/// A broker with a fault.
pub struct Faulty {
    broker: InMemory,
    fault: &'static Fault,
    published: Published,
}

impl Faulty {
    /// Puts the fault into the broker.
    pub fn new(broker: InMemory, fault: &'static Fault) -> Faulty {
        Faulty { broker, fault, published: Rc::default() }
    }
}

impl Broker for Faulty {
    fn open(&self) -> Result<Box<dyn Connection>, String> {
        Ok(Box::new(End {
            inner: self.broker.open()?,
            fault: self.fault,
            version: Version::V5,
            up: Vec::new(),
            down: Vec::new(),
            to_client: Vec::new(),
            leaked: self.published.borrow().len(),
            published: self.published.clone(),
        }))
    }

    fn advance(&self, time: Duration) {
        if !matches!(self.fault.kind, Kind::NoClock) {
            self.broker.advance(time);
        }
    }

    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    fn silence(&self) -> Duration {
        Duration::ZERO
    }
}

struct End {
    inner: Box<dyn Connection>,
    fault: &'static Fault,
    version: Version,
    /// Torn packets from and to the client.
    up: Vec<u8>,
    down: Vec<u8>,
    /// What the client is yet to receive.
    to_client: Vec<u8>,
    published: Published,
    leaked: usize,
}

impl Connection for End {
    fn send(&mut self, bytes: &[u8]) {
        self.up.extend_from_slice(bytes);
        loop {
            let whole = match Frame::parse(&self.up, u32::MAX) {
                Ok(Some(frame)) if frame.packet_len() <= self.up.len() => Some(frame),
                // A packet too large for the broker need not be whole.
                Ok(Some(frame)) if frame.packet_len() < 1024 * 1024 => return,
                Ok(None) => return,
                _ => None,
            };
            let len = whole.map_or(self.up.len(), |frame| frame.packet_len());
            let rest = self.up.split_off(len);
            let raw = std::mem::replace(&mut self.up, rest);
            let packet = whole.and_then(|frame| Packet::decode(self.version, &frame, &raw).ok());
            self.pass_up(packet, &raw);
        }
    }

    fn receive(&mut self, timeout: Duration, bytes: &mut Vec<u8>) -> Received {
        let received = self.inner.receive(timeout, &mut self.down);
        while let Ok(Some(frame)) = Frame::parse(&self.down, u32::MAX)
            && frame.packet_len() <= self.down.len()
        {
            let rest = self.down.split_off(frame.packet_len());
            let raw = std::mem::replace(&mut self.down, rest);
            self.pass_down(&frame, &raw);
        }
        self.leak();
        if !self.to_client.is_empty() {
            bytes.append(&mut self.to_client);
            return Received::Bytes;
        }
        match (received, &self.fault.kind) {
            (Received::Closed, Kind::NeverCloses) | (Received::Bytes, _) => Received::Nothing,
            _ => received,
        }
    }

    fn close(&mut self) {
        self.inner.close();
    }
}

impl End {
    fn pass_up(&mut self, packet: Option<Packet<'_>>, raw: &[u8]) {
        let Some(packet) = packet else {
            if !matches!(self.fault.kind, Kind::OverlooksMalformed) {
                self.inner.send(raw);
            }
            return;
        };
        match packet {
            Packet::Connect(connect) => self.version = connect.version,
            Packet::Publish(Publish { topic, payload, .. }) => {
                self.published.borrow_mut().push((topic.to_owned(), payload.to_vec()));
            }
            _ => {}
        }
        let mut wires = Wires { version: self.version, broker: vec![], client: vec![] };
        match self.fault.kind {
            Kind::Up(change) if change(&packet, &mut wires) => self.inner.send(&wires.broker),
            _ => self.inner.send(raw),
        }
        self.to_client.extend(wires.client);
    }

    fn pass_down(&mut self, frame: &Frame, raw: &[u8]) {
        let mut wires = Wires { version: self.version, broker: vec![], client: vec![] };
        let packet = Packet::decode(self.version, frame, raw);
        match (&self.fault.kind, packet) {
            (Kind::Down(change), Ok(packet)) if change(&packet, &mut wires) => {
                self.to_client.extend(wires.client);
                self.inner.send(&wires.broker);
            }
            _ => self.to_client.extend_from_slice(raw),
        }
    }

    fn leak(&mut self) {
        let published = self.published.borrow();
        if matches!(self.fault.kind, Kind::Leaks) {
            for (topic, payload) in published.get(self.leaked..).unwrap_or_default() {
                let topic = if topic.is_empty() { "leaked" } else { topic };
                let packet = Packet::Publish(Publish::new(topic, payload));
                let _ = packet.encode(self.version, &mut self.to_client);
            }
        }
        self.leaked = published.len();
    }
}
