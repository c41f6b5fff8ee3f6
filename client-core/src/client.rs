//! The client as its driver sees it.

use whimbrel_codec::{
    Auth, Connect, DecodeError, Disconnect, Frame, Packet, PacketId, PacketType, Properties,
    Publish, ReasonCode, Subscription, Version,
};

use crate::buffer::Buffer;
use crate::connection::State;
use crate::machine::{Handled, Machine};
use crate::{Error, Event, Failure, Limits, Memory, Millis};

/// Growing memory offers at least so much for one reading, in bytes.
#[cfg(feature = "alloc")]
const READ_BYTES: usize = 4096;

/// One MQTT client: its session, and its network connection while there is one.
///
/// `'m` is how long the memory is lent; `'static` where it grows.
pub struct Client<'m> {
    machine: Machine<'m>,
    /// Bytes of the server that are not events yet.
    input: Buffer<'m>,
    failure: Option<Failure>,
}

#[cfg(feature = "alloc")]
impl Client<'static> {
    /// A client with a fresh session and no connection, whose memory grows as it is needed and as
    /// far as the limits allow. It holds none while there is nothing to keep.
    pub fn new(limits: Limits) -> Client<'static> {
        crate::memory::Pieces::growing(limits).client(limits)
    }
}

impl<'m> Client<'m> {
    /// A client with a fresh session and no connection, in the memory that is lent and no other.
    /// Where limits and memory differ, the smaller one counts.
    pub fn with_memory(memory: Memory<'m>, limits: Limits) -> Client<'m> {
        memory.client(limits)
    }

    pub(crate) fn of(machine: Machine<'m>, input: Buffer<'m>) -> Client<'m> {
        Client { machine, input, failure: None }
    }
}

/// Getters.
impl Client<'_> {
    /// True between CONNACK and the end of the connection.
    pub fn is_connected(&self) -> bool {
        self.machine.is_connected()
    }

    /// True when the driver should close the network connection: now, as nothing is left to send.
    pub fn is_closed(&self) -> bool {
        match self.machine.connection.state {
            State::Closed => true,
            State::Closing => self.machine.output.pending().is_empty(),
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

    /// Whether a QoS 1 or 2 message would go out at once: none waits, and the server's receive
    /// maximum allows it. Another one that is published waits here.
    pub fn has_send_quota(&self) -> bool {
        let receive_maximum = self.machine.connection.allowed.receive_maximum;
        self.is_connected() && self.machine.session.may_send(receive_maximum)
    }

    /// Messages of the server whose acknowledgement has not gone to [`Client::poll_transmit`].
    pub fn unacknowledged(&self) -> usize {
        self.machine.arrivals.len()
    }

    /// False while the driver must write before it reads, so that a server that does not read
    /// cannot make the answers to it pile up.
    pub fn wants_bytes(&self) -> bool {
        self.machine.output.has_answer_room()
    }
}

/// Inputs.
impl Client<'_> {
    /// Bytes that the server sent, in any pieces. Drain [`Client::poll_event`] before the next.
    ///
    /// Gives how many were taken: with growing memory all, with lent memory as many as fit; the
    /// rest is to be given again when the events are drained.
    pub fn handle_bytes(&mut self, now: Millis, bytes: &[u8]) -> usize {
        self.input.reset();
        self.machine.connection.handle_received(now);
        self.input.push(bytes)
    }

    /// Where the driver may read to from the socket instead of [`Client::handle_bytes`]: what is
    /// read here is not copied again. Never empty once the events are drained.
    pub fn input_space(&mut self) -> &mut [u8] {
        self.input.reset();
        // A long packet that has begun to come doubles the space each time.
        #[cfg(feature = "alloc")]
        self.input.reserve(self.input.len().max(READ_BYTES));
        if self.input.space().is_empty() {
            self.input.reserve(1);
        }
        self.input.space()
    }

    /// The server sent `len` bytes, which are at the start of [`Client::input_space`]. Drain
    /// [`Client::poll_event`] before the next.
    pub fn handle_read(&mut self, now: Millis, len: usize) {
        self.machine.connection.handle_received(now);
        self.input.advance(len);
    }

    /// The driver has written the first `len` bytes of [`Client::poll_transmit`].
    pub fn handle_transmitted(&mut self, now: Millis, len: usize) {
        self.machine.connection.handle_sent(now);
        self.machine.output.handle_transmitted(len);
        self.machine.transmit();
    }

    /// Time has passed; to be called at [`Client::poll_timeout`], and harmless at any other time.
    pub fn handle_timeout(&mut self, now: Millis) {
        match self.machine.handle_timeout(now) {
            Ok(idle) => {
                if idle {
                    self.input.shrink();
                }
            }
            Err(failure) => self.failure = Some(failure),
        }
    }

    /// The network connection is gone. The session stays, for the next [`Client::connect`].
    pub fn handle_connection_lost(&mut self) {
        self.machine.close();
        self.release_memory();
    }
}

/// Settings, which may be changed at any time.
impl Client<'_> {
    /// Acknowledgement by hand: QoS 1 and 2 messages are acknowledged only by
    /// [`Client::acknowledge`]. To be set before [`Client::connect`] for the receive maximum to be
    /// announced accordingly.
    pub fn set_manual_acknowledgement(&mut self, manual: bool) {
        self.machine.manual = manual;
    }

    /// At most `max` topics that come again and again are replaced by aliases where the server
    /// allows it; 0, as at the start: none. In force from the next [`Client::connect`].
    pub fn set_automatic_topic_aliases(&mut self, max: u16) {
        self.machine.automatic_aliases = max;
    }
}

/// Commands.
impl Client<'_> {
    /// Starts on a new network connection.
    ///
    /// Of the properties, receive maximum, maximum packet size and topic alias maximum are kept
    /// to; where there is less memory, less is announced. With a clean start, or when the server
    /// does not know the session, messages in flight are forgotten; otherwise they are sent again.
    pub fn connect(&mut self, now: Millis, connect: &Connect<'_>) -> Result<(), Error> {
        if self.machine.connection.state != State::Closed && !self.is_closed() {
            return Err(Error::AlreadyConnected);
        }
        self.machine.close();
        self.input.clear();
        self.machine.connect(now, connect, &mut self.input)?;
        self.failure = None;
        Ok(())
    }

    /// Publishes. With QoS 1 and 2, the client chooses the identifier that
    /// [`Event::Published`] will name; `packet_id` and `dup` of `publish` are not used.
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, Error> {
        self.machine.publish(publish)
    }

    /// Acknowledges a QoS 1 or 2 message, with acknowledgement by hand; in any order, but what
    /// goes out keeps the order of the messages. A reason from 0x80 on refuses it; before 5.0 that
    /// cannot be said, and the message counts as taken.
    pub fn acknowledge(&mut self, packet_id: PacketId, reason: ReasonCode) -> Result<(), Error> {
        self.machine.acknowledge(packet_id, reason)
    }

    /// Subscribes; [`Event::Subscribed`] names the same identifier.
    pub fn subscribe(
        &mut self,
        subscriptions: &[Subscription<'_>],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        self.machine.subscribe(subscriptions, properties)
    }

    /// Unsubscribes; [`Event::Unsubscribed`] names the same identifier.
    pub fn unsubscribe(
        &mut self,
        filters: &[&str],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        self.machine.unsubscribe(filters, properties)
    }

    /// Answers [`Event::Auth`], or asks to authenticate again; 5.0 only, and with the method that
    /// CONNECT has named.
    pub fn authenticate(&mut self, auth: &Auth<'_>) -> Result<(), Error> {
        self.machine.authenticate(auth)
    }

    /// Ends the connection once everything before it is sent. No event follows.
    pub fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Error> {
        self.machine.disconnect(disconnect)
    }

    /// Gives growing memory back that holds nothing. Done by itself when a ping is due and when
    /// the connection is lost.
    pub fn release_memory(&mut self) {
        self.machine.shrink();
        self.input.shrink();
    }
}

/// Going on after a restart: what was in flight, told to a fresh client before
/// [`Client::connect`], in the order in which the identifiers were given. See the crate's
/// documentation for what to write down when.
impl Client<'_> {
    /// A QoS 1 or 2 message of the application, with its identifier, that was neither
    /// [`Event::Received`] nor [`Event::Published`]; it is sent with DUP. `version` is that of the
    /// next [`Client::connect`].
    pub fn restore_published(
        &mut self,
        version: Version,
        publish: &Publish<'_>,
    ) -> Result<(), Error> {
        self.machine.restore_published(version, publish)
    }

    /// A message of the application that was [`Event::Received`] and not [`Event::Published`]:
    /// PUBREL is sent.
    pub fn restore_released(&mut self, packet_id: PacketId) -> Result<(), Error> {
        self.machine.restore_released(packet_id)
    }

    /// A QoS 2 message of the server that was taken and not [`Event::Released`]: it is not an
    /// event again.
    pub fn restore_received(&mut self, packet_id: PacketId) -> Result<(), Error> {
        self.machine.restore_received(packet_id)
    }
}

/// Outputs.
impl Client<'_> {
    /// Bytes to write to the server. Tell [`Client::handle_transmitted`] how many were written.
    pub fn poll_transmit(&self) -> Option<&[u8]> {
        Some(self.machine.output.pending()).filter(|bytes| !bytes.is_empty())
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
        let Client { machine, input, .. } = self;
        let (mut bytes, taken) = input.split();
        loop {
            let open = matches!(machine.connection.state, State::Connecting | State::Connected);
            if !open || !machine.output.has_answer_room() {
                return None;
            }
            let handled = match whole_frame(bytes, machine) {
                Ok(None) => return None,
                Ok(Some(frame)) => {
                    if let Some(proof) = proof(machine, &frame, bytes) {
                        return Some(Event::Auth(proof));
                    }
                    let packet = bytes;
                    bytes = bytes.get(frame.packet_len()..).unwrap_or_default();
                    *taken += frame.packet_len();
                    handle(machine, &frame, packet)
                }
                Err(error) => Err(error),
            };
            match handled {
                Ok(None) => {}
                Ok(Some(Event::Message(publish))) => {
                    let topic = machine.topic(&publish);
                    return Some(Event::Message(Publish { topic, ..publish }));
                }
                Ok(Some(event)) => return Some(event),
                Err(error) => return Some(machine.fail(error)),
            }
        }
    }
}

/// The packet at the start of `bytes`, once it is whole.
#[inline]
fn whole_frame(bytes: &[u8], machine: &Machine<'_>) -> Result<Option<Frame>, DecodeError> {
    let max_size_bytes = machine.connection.announced.maximum_packet_size_bytes;
    let frame = Frame::parse(bytes, max_size_bytes)?;
    Ok(frame.filter(|frame| frame.packet_len() <= bytes.len()))
}

/// What CONNACK says to the exchange of CONNECT; CONNACK itself is taken after that.
fn proof<'a>(machine: &mut Machine<'_>, frame: &Frame, packet: &'a [u8]) -> Option<Auth<'a>> {
    let connecting = machine.connection.state == State::Connecting;
    if frame.packet_type != PacketType::ConnAck || !connecting {
        return None;
    }
    let Ok(Packet::ConnAck(ack)) = Packet::decode(machine.version(), frame, packet) else {
        return None;
    };
    let tells = !ack.reason.is_error() && machine.authentication.tells(&ack);
    tells.then_some(Auth { reason: ack.reason, properties: ack.properties })
}

#[inline]
fn handle<'a>(machine: &mut Machine<'_>, frame: &Frame, packet: &'a [u8]) -> Handled<'a> {
    let version = machine.version();
    if frame.packet_type == PacketType::Publish && machine.is_connected() {
        return machine.handle_publish(Packet::decode_publish(version, frame, packet)?);
    }
    machine.handle_packet(Packet::decode(version, frame, packet)?)
}
