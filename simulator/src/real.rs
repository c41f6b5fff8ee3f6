//! A client of `client-core`, beside those that the simulator makes up itself. It is gone when its
//! process crashes; what [`Client`] keeps of the session is what it has written down.

use whimbrel_client_core as core;
use whimbrel_codec::{Properties, Property, Publish, QoS, ReasonCode};

use crate::Mutation;
use crate::check::Check;
use crate::client::{Client, Delivered, Got, packet_id, payload};
use crate::rng::Rng;

/// What a client of `client-core` is like.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    /// It acknowledges by hand, in any order.
    pub manual: bool,
    /// Its memory is lent.
    pub lent: bool,
    /// Automatic topic aliases.
    pub aliases: u16,
    /// It writes down what must survive its process.
    pub keeps_record: bool,
}

impl Ways {
    /// What chance says. `lent`: whether memory may be lent.
    pub fn new(rng: &mut Rng, lent: bool) -> Ways {
        Ways {
            manual: rng.one_in(3),
            lent: lent && rng.one_in(2),
            aliases: *rng.pick(&[0, 2, 64]),
            keeps_record: !rng.one_in(4),
        }
    }
}

/// What the process of a client has.
pub struct Real {
    /// The client.
    pub client: core::Client<'static>,
    /// What its application has not acknowledged.
    pub waiting: Vec<Delivered>,
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (in_flight, waiting) = (self.client.in_flight(), self.waiting.len());
        write!(f, "{in_flight} in flight, {waiting} to be acknowledged")
    }
}

impl Real {
    /// A process that has just begun, with what was written down.
    pub fn start(
        of: &Client,
        ways: Ways,
        check: &Check,
        max_payload_bytes: u64,
        mutation: Option<Mutation>,
    ) -> Result<Real, core::Error> {
        let limits = core::Limits::default();
        let mut client = if ways.lent { lent(limits) } else { core::Client::new(limits) };
        client.set_manual_acknowledgement(ways.manual);
        client.set_automatic_topic_aliases(ways.aliases);
        let forgets = mutation == Some(Mutation::RestartForgetsPublished);
        for outgoing in of.outgoing.iter().filter(|_| !forgets) {
            let id = packet_id(outgoing.id);
            let again = mutation == Some(Mutation::RestartPublishesReleased);
            if outgoing.released && !again {
                client.restore_released(id)?;
                continue;
            }
            with_publish(check, outgoing.serial, max_payload_bytes, |publish| {
                let publish = Publish { packet_id: Some(id), ..*publish };
                client.restore_published(of.habits.version, &publish)
            })?;
        }
        let forgets = mutation == Some(Mutation::RestartForgetsReceived);
        for id in of.received.keys().filter(|_| !forgets) {
            client.restore_received(packet_id(*id))?;
        }
        Ok(Real { client, waiting: Vec::new() })
    }

    /// Nothing is left to be done for it.
    pub fn is_idle(&self) -> bool {
        let sent = self.client.poll_transmit().is_none() && !self.client.awaits_answers();
        sent && self.waiting.is_empty() && self.client.unacknowledged() == 0
    }
}

/// Memory for the packets of this simulator; a few are leaked in a run.
fn lent(limits: core::Limits) -> core::Client<'static> {
    fn leak<T: Clone>(item: T, len: usize) -> &'static mut [T] {
        Box::leak(vec![item; len].into_boxed_slice())
    }
    let memory = core::Memory {
        input: leak(0, 2048),
        output: leak(0, 4096),
        in_flight: leak(0, 9 * 1700),
        outgoing: leak(None, 32),
        incoming: leak(0, 24),
        arrivals: leak(core::ArrivalSlot::EMPTY, 24),
        incoming_aliases: leak(core::AliasSlot::EMPTY, 4),
        incoming_topics: leak(0, 64),
        outgoing_aliases: leak(core::AliasSlot::EMPTY, 4),
        outgoing_topics: leak(0, 64),
        ..core::Memory::default()
    };
    core::Client::with_memory(memory, limits)
}

/// Calls `with` with the packet of a message, without identifier and DUP.
pub fn with_publish<T>(
    check: &Check,
    serial: usize,
    max_payload_bytes: u64,
    with: impl FnOnce(&Publish<'_>) -> T,
) -> T {
    let m = check.message(serial);
    let len = (serial as u64 * 7919 % max_payload_bytes) as usize;
    let text = if m.empty { Vec::new() } else { payload(serial, len) };
    let list: Vec<Property<'_>> =
        m.expiry_s.into_iter().map(Property::MessageExpiryIntervalS).collect();
    with(&Publish {
        qos: m.qos,
        retain: m.retain,
        properties: Properties::new(&list),
        ..Publish::new(&m.topic, &text)
    })
}

/// What a packet of the broker is to tell the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Connected(bool),
    Refused(ReasonCode),
    Message(Delivered),
    Received(u16),
    Released(u16),
    Published(u16, ReasonCode),
    Subscribed(u16),
    Unsubscribed(u16),
    Disconnected(ReasonCode),
    Other(String),
}

impl Told {
    /// By the rules, before the packet is dealt with.
    pub fn by(client: &Client, got: &Got) -> Told {
        let flight = |id: &u16| client.outgoing.iter().find(|outgoing| outgoing.id == *id);
        match got {
            Got::ConnAck { reason, .. } if reason.is_error() => Told::Refused(*reason),
            Got::ConnAck { present, .. } => Told::Connected(*present),
            Got::Publish(d) if d.qos == QoS::ExactlyOnce && client.received.contains_key(&d.id) => {
                Told::Nothing
            }
            Got::Publish(d) => Told::Message(d.clone()),
            Got::PubAck(id, reason) => match flight(id) {
                Some(_) => Told::Published(*id, *reason),
                None => Told::Nothing,
            },
            Got::PubRec(id, reason) => match flight(id) {
                Some(_) if reason.is_error() => Told::Published(*id, *reason),
                Some(outgoing) if !outgoing.released => Told::Received(*id),
                _ => Told::Nothing,
            },
            Got::PubRel(id) if client.received.contains_key(id) => Told::Released(*id),
            Got::PubComp(id, reason) if flight(id).is_some() => Told::Published(*id, *reason),
            Got::PubRel(_) | Got::PubComp(..) | Got::Other => Told::Nothing,
            Got::SubAck(id, _) => Told::Subscribed(*id),
            Got::UnsubAck(id) => Told::Unsubscribed(*id),
            Got::Disconnect(reason) => Told::Disconnected(*reason),
            Got::Broken(what) => Told::Other(what.clone()),
        }
    }

    /// What the client has told.
    pub fn of(event: &core::Event<'_>) -> Told {
        match event {
            core::Event::Connected { ack, .. } => Told::Connected(ack.session_present),
            core::Event::Refused(ack) => Told::Refused(ack.reason),
            core::Event::Message(publish) => Told::Message(crate::client::delivered(publish)),
            core::Event::Received(id) => Told::Received(id.get()),
            core::Event::Released(id) => Told::Released(id.get()),
            core::Event::Published(ack) => Told::Published(ack.packet_id.get(), ack.reason),
            core::Event::Subscribed(ack) => Told::Subscribed(ack.packet_id.get()),
            core::Event::Unsubscribed(ack) => Told::Unsubscribed(ack.packet_id.get()),
            core::Event::Disconnected(disconnect) => Told::Disconnected(disconnect.reason),
            other => Told::Other(format!("{other:?}")),
        }
    }
}
