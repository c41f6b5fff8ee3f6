//! What the model knows of a client: its session, and what it must receive.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use whimbrel_codec::{QoS, Version};

use crate::harness::{Delivered, LinkId};
use crate::ops::Options;

/// A message as published.
pub struct Message {
    pub topic: &'static str,
    pub payload: Vec<u8>,
    pub qos: QoS,
    /// In seconds of the model's clock.
    pub expires_s: Option<u64>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Message { topic, payload, qos, expires_s } = self;
        let name = String::from_utf8_lossy(payload);
        write!(f, "{} ({} bytes) to {topic} {qos:?}", name.trim(), payload.len())?;
        expires_s.map_or(Ok(()), |at| write!(f, " until {at}"))
    }
}

/// A message that a client must receive.
#[derive(Clone, Debug)]
pub struct Due {
    pub message: Rc<Message>,
    pub qos: QoS,
    pub retain: bool,
    /// Subscription identifiers, sorted.
    pub ids: Vec<u32>,
    /// It may also be lost: too large for the client, or another member of the group has it.
    pub optional: bool,
}

impl Due {
    /// More than a small client accepts.
    pub fn is_long(&self) -> bool {
        self.message.payload.len() > 100
    }

    /// Clients before 5.0 get no subscription identifiers.
    pub fn ids_are(&self, got: &Delivered) -> bool {
        got.subscription_ids.is_empty() || got.subscription_ids == self.ids
    }
}

/// A delivery that the client knows of and has not ended.
#[derive(Clone, Debug)]
pub struct InFlight {
    pub id: u16,
    pub due: Due,
    /// The client has sent PUBREC.
    pub released: bool,
    /// It came on this connection.
    pub here: bool,
}

/// What the client has still to send: PUBACK, PUBREC or PUBCOMP.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Ack(u16),
    Rec(u16),
    Comp(u16),
}

#[derive(Debug)]
pub struct Will {
    pub message: Rc<Message>,
    pub retain: bool,
    pub delay_s: u64,
    pub due_s: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Session {
    pub expiry_s: u32,
    pub ends_s: Option<u64>,
    pub subscriptions: BTreeMap<&'static str, (Options, u32)>,
    /// In the order of publishing.
    pub due: VecDeque<Due>,
    pub in_flight: Vec<InFlight>,
    /// Packet identifiers whose delivery is to be repeated on this connection, in order.
    pub repeat: VecDeque<u16>,
    /// Something that the broker sent was lost on the way.
    pub lost: bool,
    /// QoS 2 messages of the client: identifier, topic, payload.
    pub unreleased: VecDeque<(u16, &'static str, Vec<u8>)>,
    pub will: Option<Will>,
}

#[derive(Debug)]
pub struct Connection {
    pub link: LinkId,
    pub version: Version,
    pub receive_maximum: usize,
    pub small: bool,
    pub stalled: bool,
    pub answers: VecDeque<Answer>,
    /// Acknowledgements of the broker that are still to come: packet type's letter and identifier.
    pub acks: Vec<(char, u16)>,
    /// Session present, as CONNACK must say; none once it has come.
    pub connack: Option<bool>,
    pub aliases: Vec<&'static str>,
}

#[derive(Debug, Default)]
pub struct Client {
    pub connection: Option<Connection>,
    pub session: Option<Session>,
    /// Of the client's own messages; never used again, so never in flight twice.
    pub last_id: u16,
}

impl Session {
    /// The repetition of `id` has come: all before it must have been repeated or given up.
    pub fn repeated(&mut self, id: u16, small: bool) {
        while let Some(next) = self.repeat.pop_front() {
            if next == id {
                return;
            }
            let at = self.in_flight.iter().position(|f| f.id == next);
            let Some(at) = at else { continue };
            let skipped = self.in_flight.remove(at);
            let may = skipped.due.optional || (small && skipped.due.is_long() && !skipped.released);
            assert!(may, "{id} is repeated before {skipped:?}");
        }
        panic!(
            "{id} is repeated, and was not in flight or has been repeated: {:?}",
            self.in_flight
        );
    }

    /// Takes the first that is due with this topic and kind of QoS. Those that may be lost and are
    /// not it are passed over for good.
    pub fn take_due(&mut self, got: &Delivered, may_skip: impl Fn(&Due) -> bool) -> Option<Due> {
        let qos0 = |qos| qos == QoS::AtMostOnce;
        let same = |due: &Due| due.message.topic == got.topic && qos0(due.qos) == qos0(got.qos);
        let places = self.due.iter().enumerate().filter(|(_, due)| same(due));
        let is_it = |due: &Due| due.message.payload == got.payload;
        // A message may be due live and retained, and the first time have been too large.
        let as_due = |due: &Due| {
            is_it(due) && (due.qos, due.retain) == (got.qos, got.retain) && due.ids_are(got)
        };
        let sure = places.clone().find(|(_, due)| as_due(due) && !due.optional);
        let exact = places.clone().find(|(_, due)| as_due(due));
        let any = places.clone().find(|(_, due)| is_it(due));
        let (at, _) = sure.or(exact).or(any)?;
        let passed: Vec<usize> = places.map(|(place, _)| place).take_while(|p| *p < at).collect();
        if !passed.iter().all(|&place| may_skip(&self.due[place])) {
            return None;
        }
        let due = self.due.remove(at);
        for place in passed.into_iter().rev() {
            self.due.remove(place);
        }
        due
    }
}
