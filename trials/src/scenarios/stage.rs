//! Where a scenario plays: one broker, and what scenarios do all the time.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::time::timeout;
use whimbrel_client::{
    Address, Backoff, Builder, Client, Completion, Events, Filter, Incoming, Message, QoS, Status,
    Subscription, Url, Version,
};

use crate::Failed;
use crate::relay::Relay;

/// How long a single thing may take. A broker that leaves something out is noticed by it.
pub(super) const SOON: Duration = Duration::from_secs(4);
/// The payload of the message behind which nothing else is to come.
pub(super) const END: &str = "end";

/// A broker, and how to speak to it.
#[derive(Clone)]
pub struct Place {
    /// With user name and password.
    pub url: String,
    /// The version of MQTT.
    pub version: Version,
    /// Differs from run to run, where sessions of a former run may be there.
    pub run: String,
}

impl Place {
    /// The same behind a relay.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn behind(&self, relay: &Relay) -> Result<Place, Failed> {
        let (scheme, rest) = self.url.split_once("://").ok_or("no scheme")?;
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let path = rest.find('/').map_or("", |at| rest.split_at(at).1);
        let at = if user.is_empty() { "" } else { "@" };
        let url = format!("{scheme}://{user}{at}{}{path}", relay.address);
        Ok(Place { url, ..self.clone() })
    }

    /// Where the broker listens.
    ///
    /// # Errors
    /// The URL names no TCP port.
    pub fn socket(&self) -> Result<SocketAddr, Failed> {
        let url: Url = self.url.parse()?;
        let (Address::Tcp { host, port } | Address::WebSocket { host, port, .. }) = url.address
        else {
            return Err("a relay needs a TCP port".into());
        };
        let found = (host.as_str(), port).to_socket_addrs()?.next();
        Ok(found.ok_or("the host has no address")?)
    }
}

/// One scenario's share of a broker.
#[derive(Clone)]
pub struct Stage {
    pub(super) place: Place,
    prefix: String,
}

impl Stage {
    pub(super) fn new(place: &Place, number: usize) -> Stage {
        Stage { place: place.clone(), prefix: format!("trials{}n{number}", place.run) }
    }

    pub(super) const fn is_v5(&self) -> bool {
        self.place.version.is_v5()
    }

    /// A topic that no other scenario uses.
    pub(super) fn topic(&self, suffix: &str) -> String {
        format!("{}/{suffix}", self.prefix)
    }

    /// A client with a clean session, to be connected.
    pub(super) fn builder(&self, name: &str) -> Result<Builder, Failed> {
        self.builder_at(&self.place, name)
    }

    pub(super) fn builder_at(&self, place: &Place, name: &str) -> Result<Builder, Failed> {
        let backoff =
            Backoff { first: Duration::from_millis(20), most: Duration::from_millis(200) };
        Ok(Client::builder(&place.url)?
            .version(place.version)
            .client_id(format!("{}{name}", self.prefix))
            .backoff(backoff)
            .connect_timeout(SOON))
    }

    /// A client whose session is taken up and outlives it.
    pub(super) fn keeper(&self, name: &str) -> Result<Builder, Failed> {
        self.keeper_at(&self.place, name)
    }

    pub(super) fn keeper_at(&self, place: &Place, name: &str) -> Result<Builder, Failed> {
        Ok(self.builder_at(place, name)?.clean_start(false).session_expiry_s(600))
    }

    /// A connected client with a clean session.
    pub(super) async fn client(&self, name: &str) -> Result<Client, Failed> {
        connect(self.builder(name)?).await
    }

    /// A relay to the broker, and the broker behind it.
    pub(super) async fn relay(&self) -> Result<(Relay, Place), Failed> {
        let relay = Relay::healthy(self.place.socket()?).await?;
        let place = self.place.behind(&relay)?;
        Ok((relay, place))
    }
}

pub(super) async fn connect(builder: Builder) -> Result<Client, Failed> {
    soon("CONNACK", builder.connect()).await?.map_err(Into::into)
}

/// What comes of it, in time.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, Failed> {
    let late = |_| format!("{what} did not come in {} s", SOON.as_secs());
    Ok(timeout(SOON, future).await.map_err(late)?)
}

/// Subscribes, and fails if less than what was asked for is granted.
pub(super) async fn subscribe(
    client: &Client,
    filter: &str,
    qos: QoS,
) -> Result<Subscription, Failed> {
    let wanted = Filter::new(filter).qos(qos);
    let subscription = soon("SUBACK", client.subscribe(wanted)).await??;
    super::same(subscription.granted_qos(), qos, "granted QoS")?;
    Ok(subscription)
}

/// Publishes, and waits until it is known to have arrived.
pub(super) async fn publish(client: &Client, message: Message) -> Result<(), Failed> {
    let completion = soon("room for a message", client.publish(message)).await??;
    arrived(completion).await
}

/// Waits until a message is known to have arrived.
pub(super) async fn arrived(completion: Completion) -> Result<(), Failed> {
    soon("the acknowledgement", completion).await??;
    Ok(())
}

/// The next message.
pub(super) async fn next(subscription: &mut Subscription) -> Result<Incoming, Failed> {
    let next = soon("a message", subscription.next()).await?;
    next.ok_or_else(|| "the subscription has ended".into())
}

/// The next payload, as text.
pub(super) async fn text(subscription: &mut Subscription) -> Result<String, Failed> {
    Ok(as_text(&next(subscription).await?))
}

pub(super) fn as_text(message: &Incoming) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

/// Publishes [`END`] and gives what comes before it.
pub(super) async fn until_end(
    publisher: &Client,
    topic: &str,
    subscription: &mut Subscription,
) -> Result<Vec<Incoming>, Failed> {
    publish(publisher, message(topic, END, QoS::AtLeastOnce)).await?;
    let mut found = Vec::new();
    loop {
        let message = next(subscription).await?;
        if message.payload == END {
            return Ok(found);
        }
        found.push(message);
    }
}

pub(super) fn texts(messages: &[Incoming]) -> Vec<String> {
    messages.iter().map(as_text).collect()
}

pub(super) fn message(topic: &str, payload: impl Into<String>, qos: QoS) -> Message {
    Message::new(topic, payload.into()).qos(qos)
}

/// Payloads `0`, `1`, and so on.
pub(super) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Waits for an event of the connection.
pub(super) async fn event(
    events: &mut Events,
    what: &str,
    fits: impl Fn(&Status) -> bool,
) -> Result<(), Failed> {
    loop {
        let status = soon(what, events.next()).await?;
        if fits(&status.ok_or("the client has ended")?) {
            return Ok(());
        }
    }
}
