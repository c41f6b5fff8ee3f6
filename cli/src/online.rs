//! A client as the tools use it: on a runtime of one thread, with a word about what goes wrong.

use std::future::{Future, pending};
use std::sync::Arc;

use whimbrel_client::{
    Builder, Client, Connected, Error, Events, Incoming, Message, Status, SubscribeError,
};
use whimbrel_codec::{Properties, Publish, ReasonCode};

use crate::args::Setup;
use crate::failure::Failure;

/// Runs a tool to its end.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(1, format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

/// Connects; the first attempt must succeed.
pub async fn connect<'a>(
    setup: &'a Setup<'a>,
    builder: Builder,
) -> Result<(Client, Watch<'a>), Failure> {
    let connected = builder.connect_with_info().await;
    let (client, connected) = connected.map_err(|error| setup.failure(&error))?;
    told(setup, &connected);
    let events = client.events();
    Ok((client, Watch { setup, events }))
}

fn told(setup: &Setup<'_>, connected: &Connected) {
    setup.debug(|| format!("CONNACK received, session present: {}", connected.session_present));
}

/// Tells the user what becomes of the connection.
pub struct Watch<'a> {
    setup: &'a Setup<'a>,
    events: Events,
}

impl Watch<'_> {
    /// Ready when the connection has ended for good. Nothing is lost if the future is dropped.
    pub async fn failure(&mut self) -> Failure {
        loop {
            match self.events.next().await {
                Some(Status::Disconnected { why, retry_in }) => {
                    if retry_in.is_none() || is_final(&why) {
                        return self.setup.failure(&why);
                    }
                    self.setup.warn(&format!("{why}; connecting again"));
                }
                Some(Status::Connected(connected)) => told(self.setup, &connected),
                Some(Status::Subscribed { filter, reason }) => {
                    self.setup.debug(|| format!("SUBACK received, {filter}: {reason}"));
                    if reason.is_error() {
                        self.setup.warn(&format!("the broker did not grant {filter}: {reason}"));
                    }
                }
                Some(Status::RenewalFailed { why, .. }) => self.setup.warn(&why.to_string()),
                Some(_) => {}
                // The client ends as asked.
                None => pending().await,
            }
        }
    }
}

/// Errors that a person has to look at: connecting again would most likely only repeat them.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Disconnected(reason, _) => {
            !matches!(reason, ReasonCode::ServerShuttingDown | ReasonCode::ServerBusy)
        }
        Error::Refused(reason, _) => {
            !matches!(reason, ReasonCode::ServerUnavailable | ReasonCode::ServerBusy)
        }
        Error::WebSocket(_) | Error::Tls(_) => true,
        error => error.is_final(),
    }
}

/// The failure of a client that has ended, perhaps because of an error.
pub fn closed(setup: &Setup<'_>, why: Option<&Arc<Error>>) -> Failure {
    match why {
        Some(error) => setup.failure(error),
        None => setup.failed(1, "the client has ended"),
    }
}

/// Why there is no subscription to `what`.
pub fn not_subscribed(setup: &Setup<'_>, what: &str, error: &SubscribeError) -> Failure {
    match error {
        SubscribeError::Refused(reason) => {
            setup.failed(*reason as u8, format!("the broker did not grant {what}: {reason}"))
        }
        SubscribeError::Closed(why) => closed(setup, why.as_ref()),
        error => setup.failed(1, error.to_string()),
    }
}

/// Hands a received message to `use_it` as the packet that brought it.
pub fn with_packet<R>(message: &Incoming, use_it: impl FnOnce(&Publish<'_>) -> R) -> R {
    let properties: Vec<_> = message.properties.iter().collect();
    use_it(&Publish {
        qos: message.qos,
        retain: message.retain,
        dup: message.dup,
        packet_id: message.packet_id,
        properties: Properties::new(&properties),
        ..Publish::new(&message.topic, &message.payload)
    })
}

/// A message to be published.
pub fn message(publish: &Publish<'_>) -> Message {
    let message = Message::new(publish.topic, publish.payload.to_vec())
        .qos(publish.qos)
        .retain(publish.retain);
    publish.properties.iter().fold(message, Message::property)
}
