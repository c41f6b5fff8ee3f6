//! One client that blocks its thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use whimbrel_client_core::{Event, Limits, Millis};
use whimbrel_codec::{
    Connect, Disconnect, PacketId, Properties, Property, Publish, ReasonCode, Subscription,
};

use super::Link;
use crate::{Address, Error};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
const BUFFER_LEN: usize = 64 * 1024;
/// How long to wait for the broker to close the connection after DISCONNECT.
const LINGER: Duration = Duration::from_millis(500);

/// What a client is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bounds of memory, and how long to wait for CONNACK.
    pub limits: Limits,
    /// How long to wait for the network connection, for each address of a name.
    pub connect_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { limits: Limits::default(), connect_timeout: Duration::from_secs(10) }
    }
}

/// What CONNACK said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Whether the broker knew the session.
    pub session_present: bool,
    /// How many messages in flight were forgotten because it did not.
    pub discarded: usize,
    /// The client identifier that the broker chose, if it was asked to.
    pub assigned_client_id: Option<String>,
}

/// One MQTT client on one thread.
pub struct Client {
    link: Link,
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    buffer: Box<[u8]>,
    settings: Settings,
    /// The moment that [`Millis`] count from.
    start: Instant,
    /// The link may have an event without reading more.
    undrained: bool,
    /// What to report once all that came before it is drained.
    error: Option<Error>,
}

impl Client {
    /// Connects and waits for CONNACK.
    pub fn connect(
        address: &Address,
        connect: &Connect<'_>,
        settings: &Settings,
    ) -> Result<(Client, Connected), Error> {
        let start = Instant::now();
        let timeout = settings.connect_timeout;
        let link = Link::connect(address, timeout, settings.limits, connect, Millis(0))?;
        let poll = Poll::new().map_err(Error::Lost)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(Error::Lost)?);
        let mut client = Client {
            link,
            poll,
            events: Events::with_capacity(8),
            waker,
            buffer: vec![0; BUFFER_LEN].into(),
            settings: *settings,
            start,
            undrained: false,
            error: None,
        };
        client.link.register(client.poll.registry(), SOCKET).map_err(Error::Lost)?;
        let connected = client.wait_for_connack()?;
        Ok((client, connected))
    }

    /// Connects again after an error; messages in flight are sent again if the session is present.
    pub fn reconnect(
        &mut self,
        address: &Address,
        connect: &Connect<'_>,
    ) -> Result<Connected, Error> {
        let now = self.now();
        self.link.reconnect(address, self.settings.connect_timeout, connect, now)?;
        self.undrained = false;
        self.error = None;
        self.link.register(self.poll.registry(), SOCKET).map_err(Error::Lost)?;
        self.wait_for_connack()
    }

    fn wait_for_connack(&mut self) -> Result<Connected, Error> {
        loop {
            match self.poll(Duration::from_secs(3600))? {
                Some(Event::Connected { ack, discarded }) => {
                    let assigned_client_id = ack.properties.iter().find_map(|p| match p {
                        Property::AssignedClientIdentifier(id) => Some(id.into()),
                        _ => None,
                    });
                    let session_present = ack.session_present;
                    return Ok(Connected { session_present, discarded, assigned_client_id });
                }
                Some(Event::Refused(ack)) => {
                    return Err(Error::Refused(ack.reason, reason_string(&ack.properties)));
                }
                Some(Event::Auth(_)) => {
                    return Err(Error::Refused(ReasonCode::BadAuthenticationMethod, None));
                }
                _ => {}
            }
        }
    }

    /// Messages in flight, and whether anything waits for an answer.
    pub fn core(&self) -> &whimbrel_client_core::Client<'static> {
        &self.link.client
    }

    /// Wakes [`Client::poll`] from another thread.
    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    /// Queues a message; see [`whimbrel_client_core::Client::publish`]. After
    /// `Error::Command(Full)`, poll and try again.
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, Error> {
        Ok(self.link.client.publish(publish)?)
    }

    /// Queues SUBSCRIBE; see [`whimbrel_client_core::Client::subscribe`].
    pub fn subscribe(
        &mut self,
        subscriptions: &[Subscription<'_>],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        Ok(self.link.client.subscribe(subscriptions, properties)?)
    }

    /// Queues UNSUBSCRIBE; see [`whimbrel_client_core::Client::unsubscribe`].
    pub fn unsubscribe(
        &mut self,
        filters: &[&str],
        properties: Properties<'_>,
    ) -> Result<PacketId, Error> {
        Ok(self.link.client.unsubscribe(filters, properties)?)
    }

    /// Writes what is queued and waits for the next event, at most `timeout`.
    ///
    /// None may come early: when something was written, a packet without an event came, or the
    /// waker was used. Everything that came before an error is returned before it.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Event<'_>>, Error> {
        if !self.undrained {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if let Err(error) = self.exchange(timeout) {
                self.error = Some(error);
            }
            self.undrained = true;
        }
        match self.link.poll_event() {
            Some(Event::Failed(failure)) => Err(failure.into()),
            Some(Event::Disconnected(disconnect)) => {
                let text = reason_string(&disconnect.properties);
                Err(Error::Disconnected(disconnect.reason, text))
            }
            Some(event) => Ok(Some(event)),
            None => {
                self.undrained = false;
                Ok(None)
            }
        }
    }

    /// Writes all that is queued; fails if the broker takes nothing for `timeout`.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), Error> {
        let mut deadline = Instant::now() + timeout;
        loop {
            let now = self.now();
            self.link.write(now)?;
            if !self.link.has_output() {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout);
            }
            self.wait(left)?;
            if self.link.is_writable() {
                deadline = Instant::now() + timeout;
            }
        }
    }

    /// Sends DISCONNECT after all that is queued, and closes.
    pub fn disconnect(mut self, disconnect: &Disconnect<'_>) -> Result<(), Error> {
        self.link.client.disconnect(disconnect)?;
        self.flush(self.settings.connect_timeout)?;
        self.link.close();
        // To close while bytes wait to be read resets the connection, and a reset can overtake
        // the DISCONNECT: the broker would publish the will message. It closes on DISCONNECT.
        let deadline = Instant::now() + LINGER;
        while !self.link.discard(&mut self.buffer) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.wait(left)?;
        }
        Ok(())
    }

    /// One round of waiting, writing and reading.
    fn exchange(&mut self, timeout: Duration) -> Result<(), Error> {
        let now = self.now();
        self.link.write(now)?;
        if !self.link.is_ready() {
            let due = self.link.client.poll_timeout().map(|at| now.until(at));
            self.wait(due.map_or(timeout, |ms| timeout.min(Duration::from_millis(ms + 1))))?;
        }
        let now = self.now();
        self.link.drive(now, &mut self.buffer)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), Error> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            result => result.map_err(Error::Lost)?,
        }
        for event in self.events.iter().filter(|event| event.token() == SOCKET) {
            self.link.handle_ready(event.is_readable(), event.is_writable());
        }
        Ok(())
    }

    fn now(&self) -> Millis {
        Millis(self.start.elapsed().as_millis() as u64)
    }
}

impl Drop for Client {
    /// What the client had to say last, such as why it gave the connection up.
    fn drop(&mut self) {
        let now = self.now();
        // Nobody is left to tell that it could not be said.
        let _ = self.link.write(now);
    }
}

fn reason_string(properties: &Properties<'_>) -> Option<String> {
    properties.iter().find_map(|property| match property {
        Property::ReasonString(text) => Some(text.into()),
        _ => None,
    })
}
