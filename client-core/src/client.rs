//! The client as its driver sees it.

use alloc::vec::Vec;

use whimbrel_codec::{
    Auth, Connect, DecodeError, Disconnect, Frame, Packet, PacketId, Properties, Publish,
    ReasonCode, Subscription, Version,
};

use crate::connection::{Connection, State};
use crate::machine::Machine;
use crate::session::Session;
use crate::{Error, Event, Failure, Limits, Millis};

/// An emptied input buffer that is larger than this is given back.
const INPUT_KEPT_BYTES: usize = 64 * 1024;

/// One MQTT client: its session, and its network connection while there is one.
pub struct Client {
    machine: Machine,
    /// Bytes of the server that are not events yet, after the `consumed` that are.
    input: Vec<u8>,
    consumed: usize,
    /// How much of the machine's output the driver has written.
    transmitted: usize,
    failure: Option<Failure>,
}

impl Client {
    /// A client with a fresh session and no connection.
    pub const fn new(limits: Limits) -> Client {
        let machine = Machine {
            limits,
            session: Session::new(),
            connection: Connection::closed(),
            output: Vec::new(),
        };
        Client { machine, input: Vec::new(), consumed: 0, transmitted: 0, failure: None }
    }
}

/// Getters.
impl Client {
    /// True between CONNACK and the end of the connection.
    pub fn is_connected(&self) -> bool {
        self.machine.connection.state == State::Connected
    }

    /// True when the driver should close the network connection: now, as nothing is left to send.
    pub fn is_closed(&self) -> bool {
        match self.machine.connection.state {
            State::Closed => true,
            State::Closing => self.transmitted >= self.machine.output.len(),
            State::Connecting | State::Connected => false,
        }
    }

    /// QoS 1 and 2 messages of the application that the server has not acknowledged to the end.
    pub fn in_flight(&self) -> usize {
        self.machine.session.in_flight()
    }

    /// True while anything sent waits for an answer: messages in flight, SUBSCRIBE, UNSUBSCRIBE.
    pub fn awaits_answers(&self) -> bool {
        self.machine.session.awaits_answers()
    }

    /// False while the driver must write before it reads, so that a server that does not read
    /// cannot make the answers to it pile up.
    pub fn wants_bytes(&self) -> bool {
        let pending = self.machine.output.len() - self.transmitted;
        pending < self.machine.limits.max_output_bytes
    }
}

/// Inputs.
impl Client {
    /// Bytes that the server sent, in any pieces. Drain [`Client::poll_event`] before the next.
    pub fn handle_bytes(&mut self, now: Millis, bytes: &[u8]) {
        if self.consumed == self.input.len() {
            self.input.clear();
            if self.input.capacity() > INPUT_KEPT_BYTES {
                self.input = Vec::new();
            }
        } else {
            self.input.drain(..self.consumed);
        }
        self.consumed = 0;
        self.input.extend_from_slice(bytes);
        self.machine.connection.handle_received(now);
    }

    /// The driver has written the first `len` bytes of [`Client::poll_transmit`].
    pub fn handle_transmitted(&mut self, now: Millis, len: usize) {
        self.transmitted += len;
        self.machine.connection.handle_sent(now);
        if self.transmitted >= self.machine.output.len() {
            self.machine.output.clear();
            self.transmitted = 0;
        }
    }

    /// Time has passed; to be called at [`Client::poll_timeout`], and harmless at any other time.
    pub fn handle_timeout(&mut self, now: Millis) {
        if let Some(failure) = self.machine.handle_timeout(now) {
            self.transmitted = 0;
            self.failure = Some(failure);
        }
    }

    /// The network connection is gone. The session stays, for the next [`Client::connect`].
    pub fn handle_connection_lost(&mut self) {
        self.machine.close();
        self.transmitted = 0;
    }
}

/// Commands.
impl Client {
    /// Starts on a new network connection.
    ///
    /// Of the properties, receive maximum, maximum packet size and topic alias maximum are kept
    /// to. With a clean start, or when the server does not know the session, messages in flight
    /// are forgotten; otherwise they are sent again.
    pub fn connect(&mut self, now: Millis, connect: &Connect<'_>) -> Result<(), Error> {
        if self.machine.connection.state != State::Closed && !self.is_closed() {
            return Err(Error::AlreadyConnected);
        }
        self.machine.connect(now, connect)?;
        self.input.clear();
        self.consumed = 0;
        self.transmitted = 0;
        self.failure = None;
        Ok(())
    }

    /// Publishes. With QoS 1 and 2, the client chooses the identifier that
    /// [`Event::Published`] will name; `packet_id` and `dup` of `publish` are not used.
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, Error> {
        self.compact();
        self.machine.publish(publish)
    }

    /// Subscribes; [`Event::Subscribed`] names the same identifier.
    pub fn subscribe(
        &mut self,
        subscriptions: &[Subscription<'_>],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        self.compact();
        self.machine.subscribe(subscriptions, properties)
    }

    /// Unsubscribes; [`Event::Unsubscribed`] names the same identifier.
    pub fn unsubscribe(
        &mut self,
        filters: &[&str],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        self.compact();
        self.machine.unsubscribe(filters, properties)
    }

    /// Answers [`Event::Auth`], or asks to authenticate again; 5.0 only.
    pub fn authenticate(&mut self, auth: &Auth<'_>) -> Result<(), Error> {
        self.machine.authenticate(auth)
    }

    /// Not there yet: messages are acknowledged as they come.
    pub fn set_manual_acknowledgement(&mut self, _: bool) {}

    /// Not there yet: topics are sent as they are.
    pub fn set_automatic_topic_aliases(&mut self, _: u16) {}

    /// Not there yet: messages are acknowledged as they come.
    pub fn acknowledge(&mut self, _: PacketId, _: ReasonCode) -> Result<(), Error> {
        Ok(())
    }

    /// Ends the connection once everything before it is sent. No event follows.
    pub fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Error> {
        self.machine.disconnect(disconnect)
    }

    /// Cuts off what is written, so that the output's length is what waits.
    fn compact(&mut self) {
        if self.transmitted * 2 >= self.machine.output.len() {
            self.machine.output.drain(..self.transmitted);
            self.transmitted = 0;
        }
    }
}

/// Outputs.
impl Client {
    /// Bytes to write to the server. Tell [`Client::handle_transmitted`] how many were written.
    pub fn poll_transmit(&self) -> Option<&[u8]> {
        self.machine.output.get(self.transmitted..).filter(|bytes| !bytes.is_empty())
    }

    /// When to call [`Client::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.machine.connection.deadline()
    }

    /// The next event, and the answers that it asks for into [`Client::poll_transmit`].
    ///
    /// None when more bytes are needed, or while [`Client::wants_bytes`] is false.
    pub fn poll_event(&mut self) -> Option<Event<'_>> {
        if let Some(failure) = self.failure.take() {
            return Some(Event::Failed(failure));
        }
        let Client { machine, input, consumed, transmitted, .. } = self;
        loop {
            let open = matches!(machine.connection.state, State::Connecting | State::Connected);
            let pending = machine.output.len() - *transmitted;
            if !open || pending >= machine.limits.max_output_bytes {
                return None;
            }
            let rest = input.get(*consumed..).unwrap_or_default();
            let connection = &machine.connection;
            let max_size_bytes = connection.maximum_packet_size_bytes;
            let handled = match first_packet(rest, connection.version, max_size_bytes) {
                Ok(None) => return None,
                Ok(Some((packet, len))) => {
                    *consumed += len;
                    machine.handle_packet(packet)
                }
                Err(error) => Err(error),
            };
            if machine.connection.state == State::Closed {
                *transmitted = 0;
            }
            match handled {
                Ok(None) => {}
                Ok(Some(Event::Message(publish))) => {
                    let topic = machine.connection.topic(&publish);
                    return Some(Event::Message(Publish { topic, ..publish }));
                }
                Ok(Some(event)) => return Some(event),
                Err(error) => return Some(machine.fail(error)),
            }
        }
    }
}

/// The packet at the start of `bytes` and its length, once it is whole.
fn first_packet(
    bytes: &[u8],
    version: Version,
    max_size_bytes: u32,
) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    let Some(frame) = Frame::parse(bytes, max_size_bytes)? else { return Ok(None) };
    if bytes.len() < frame.packet_len() {
        return Ok(None);
    }
    Ok(Some((Packet::decode(version, &frame, bytes)?, frame.packet_len())))
}
