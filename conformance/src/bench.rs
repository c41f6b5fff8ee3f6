//! The test bench: where a test gets its clients, names and time from.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use whimbrel_codec::{Connect, Packet, Properties, Property, Publish, QoS, Version};

use crate::outcome::{Outcome, Stop, check};
use crate::peer::Client;
use crate::port::Broker;

/// A session expiry that outlives every test.
const KEEP: Properties<'static> = Properties::new(&[Property::SessionExpiryIntervalS(600)]);

/// What one run of one test works with.
pub struct Bench<'b> {
    pub(crate) broker: &'b dyn Broker,
    /// The version of the run.
    pub version: Version,
    /// Also demand what the standard only recommends: to say why a connection is closed.
    pub strict: bool,
    /// Makes client identifiers and topics this run's own.
    tag: String,
    next_client: Cell<u32>,
    /// Client identifiers whose sessions may be left over.
    sessions: RefCell<Vec<String>>,
    /// Topics with a retained message left over.
    retained: RefCell<Vec<String>>,
}

impl<'b> Bench<'b> {
    /// `tag` must be this run's own among all that use the broker: up to 12 letters and digits.
    pub fn new(broker: &'b dyn Broker, version: Version, strict: bool, tag: String) -> Bench<'b> {
        Bench {
            broker,
            version,
            strict,
            tag,
            next_client: Cell::new(0),
            sessions: RefCell::default(),
            retained: RefCell::default(),
        }
    }

    /// A client identifier of this run: `name` is up to 8 letters and digits.
    pub fn id(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// A topic name or filter of this run; `rest` may contain wildcards.
    pub fn topic(&self, rest: &str) -> String {
        format!("conformance/{}/{rest}", self.tag)
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        self.broker.advance(time);
    }

    /// Lets whole seconds pass.
    pub fn advance_s(&self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    /// A CONNECT with Clean Start.
    pub fn hello<'a>(&self, client_id: &'a str) -> Connect<'a> {
        Connect::new(self.version, client_id)
    }

    /// A CONNECT that resumes, or begins, a session that outlives its connection.
    pub fn resume<'a>(&self, client_id: &'a str) -> Connect<'a> {
        let properties = if self.version.is_v5() { KEEP } else { Properties::NONE };
        Connect { clean_start: false, properties, ..self.hello(client_id) }
    }

    /// A network connection on which nothing has been sent.
    pub fn open(&self) -> Outcome<Client<'_>> {
        let link = self.broker.open().map_err(Stop::Failed)?;
        Ok(Client::new(self, link))
    }

    /// A client of its own, with Clean Start.
    pub fn connect(&self) -> Outcome<Client<'_>> {
        self.next_client.set(self.next_client.get() + 1);
        let id = self.id(&format!("n{}", self.next_client.get()));
        self.connect_with(self.hello(&id))
    }

    /// A client whose CONNECT the broker accepts.
    pub fn connect_with(&self, connect: Connect<'_>) -> Outcome<Client<'_>> {
        let mut client = self.send_connect(connect)?;
        client.expect_accepted()?;
        Ok(client)
    }

    /// A client that has sent its CONNECT; the CONNACK is still to come.
    pub fn send_connect(&self, connect: Connect<'_>) -> Outcome<Client<'_>> {
        if self.outlives(&connect) {
            self.sessions.borrow_mut().push(connect.client_id.to_owned());
        }
        let mut client = self.open()?;
        client.version = connect.version;
        for property in connect.properties {
            if let Property::MaximumPacketSizeBytes(bytes) = property {
                client.maximum_packet_size_bytes = bytes as usize;
            }
        }
        client.send(Packet::Connect(connect))?;
        Ok(client)
    }

    /// A client of its own with one subscription, granted at the QoS it asked for.
    pub fn subscriber(&self, filter: &str, qos: QoS) -> Outcome<Client<'_>> {
        let mut client = self.connect()?;
        client.subscribe(filter, qos)?;
        Ok(client)
    }

    /// Publishes from a client of its own, and completes the flow.
    pub fn publish(&self, topic: &str, payload: &str, qos: QoS) -> Outcome {
        self.connect()?.publish(topic, payload, qos)
    }

    /// Publishes a retained message from a client of its own.
    pub fn retain(&self, topic: &str, payload: &str, qos: QoS) -> Outcome {
        let message = Publish { qos, retain: true, ..Publish::new(topic, payload.as_bytes()) };
        let reason = self.connect()?.publish_with(message)?;
        check(!reason.is_error(), "a retained message was refused")
    }

    /// Notes that `topic` may have a retained message to remove at the end.
    pub(crate) fn has_retained(&self, topic: &str) {
        self.retained.borrow_mut().push(topic.to_owned());
    }

    /// Leaves the broker as it was: ends sessions and removes retained messages.
    pub fn clean_up(&self) -> Outcome {
        for id in self.sessions.take() {
            let mut client = self.open()?;
            client.version = Version::V3_1_1;
            client.send(Packet::Connect(Connect::new(Version::V3_1_1, &id)))?;
            client.expect_connack()?;
            client.disconnect()?;
        }
        let topics = self.retained.take();
        if !topics.is_empty() {
            let mut client = self.connect()?;
            for topic in topics {
                let empty = Publish { retain: true, ..Publish::new(&topic, b"") };
                client.send(Packet::Publish(empty))?;
            }
            client.disconnect()?;
        }
        Ok(())
    }

    fn outlives(&self, connect: &Connect<'_>) -> bool {
        let expires = connect
            .properties
            .iter()
            .any(|property| matches!(property, Property::SessionExpiryIntervalS(1..)));
        !connect.client_id.is_empty() && (expires || !connect.clean_start)
    }
}
