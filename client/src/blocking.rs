//! The client for programs without `async`: the same client, driven by a thread in the background.
//!
//! ```no_run
//! use whimbrel_client::{Filter, Message, QoS, blocking};
//!
//! let client = blocking::Client::connect(blocking::Client::builder("mqtt://localhost")?)?;
//! client.publish(Message::new("boiler/temperature", "64.5").qos(QoS::AtLeastOnce))?.wait()?;
//! for command in client.subscribe(Filter::new("boiler/set/#"))? {
//!     println!("{}: {:?}", command.topic, command.payload);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All clients of a process share one thread. None of this may be called by a task of a tokio
//! runtime, which it would block: it panics there.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder as RuntimeBuilder, Handle};
use tokio::time::timeout;
use whimbrel_codec::ReasonCode;

use crate::config::Builder;
use crate::{
    Connected, Error, Filter, Incoming, InvalidUrl, Message, Outcome, PublishError, RequestError,
    Status, SubscribeError, Undelivered,
};

static RUNTIME: Mutex<Option<Handle>> = Mutex::new(None);

/// Where the drivers of all blocking clients run.
fn runtime() -> Result<Handle, Error> {
    let mut shared = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*shared {
        return Ok(handle.clone());
    }
    let runtime = RuntimeBuilder::new_current_thread().enable_all().build().map_err(Error::Lost)?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("whimbrel-client".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .map_err(Error::Lost)?;
    Ok(shared.insert(handle).clone())
}

/// See [`crate::Client`].
#[derive(Clone)]
pub struct Client {
    client: crate::Client,
    runtime: Handle,
}

impl Client {
    /// See [`crate::Client::builder`].
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn builder(url: &str) -> Result<Builder, InvalidUrl> {
        crate::Client::builder(url)
    }

    /// See [`Builder::connect`].
    ///
    /// # Errors
    /// As there; or the thread cannot be started.
    pub fn connect(builder: Builder) -> Result<Client, Error> {
        Ok(Client::connect_with_info(builder)?.0)
    }

    /// See [`Builder::connect_with_info`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_with_info(builder: Builder) -> Result<(Client, Connected), Error> {
        let runtime = runtime()?;
        let (client, connected) = runtime.block_on(builder.connect_with_info())?;
        Ok((Client { client, runtime }, connected))
    }

    /// See [`Builder::start`].
    ///
    /// # Errors
    /// As there; or the thread cannot be started.
    pub fn start(builder: Builder) -> Result<Client, Error> {
        let runtime = runtime()?;
        let client = runtime.block_on(async { builder.start() })?;
        Ok(Client { client, runtime })
    }

    /// Publishes; waits while the queue is full. See [`crate::Client::publish`].
    ///
    /// # Errors
    /// As there.
    pub fn publish(&self, message: Message) -> Result<Completion, PublishError> {
        let completion = self.runtime.block_on(self.client.publish(message))?;
        Ok(Completion { completion, runtime: self.runtime.clone() })
    }

    /// See [`crate::Client::try_publish`].
    ///
    /// # Errors
    /// As there.
    pub fn try_publish(&self, message: Message) -> Result<Completion, PublishError> {
        let completion = self.client.try_publish(message)?;
        Ok(Completion { completion, runtime: self.runtime.clone() })
    }

    /// Subscribes, and waits until the broker grants it. See [`crate::Client::subscribe`].
    ///
    /// # Errors
    /// As there.
    pub fn subscribe(&self, filter: impl Into<Filter>) -> Result<Subscription, SubscribeError> {
        let subscription = self.runtime.block_on(self.client.subscribe(filter))?;
        Ok(Subscription { subscription, runtime: self.runtime.clone() })
    }

    /// See [`crate::Client::requester`].
    ///
    /// # Errors
    /// As there.
    pub fn requester(&self) -> Result<Requester, SubscribeError> {
        let requester = self.runtime.block_on(self.client.requester())?;
        Ok(Requester { requester, runtime: self.runtime.clone() })
    }

    /// What becomes of the connection, from now on.
    pub fn events(&self) -> Events {
        Events { events: self.client.events(), runtime: self.runtime.clone() }
    }

    /// See [`crate::Client::is_connected`].
    pub fn is_connected(&self) -> bool {
        self.client.is_connected()
    }

    /// See [`crate::Client::undelivered`].
    pub fn undelivered(&self) -> usize {
        self.client.undelivered()
    }

    /// Delivers what there is, and disconnects. See [`crate::Client::disconnect`].
    ///
    /// # Errors
    /// As there.
    pub fn disconnect(&self) -> Result<(), Undelivered> {
        self.runtime.block_on(self.client.disconnect())
    }

    /// Waits until the client has ended. See [`crate::Client::closed`].
    pub fn closed(&self) -> Option<Arc<Error>> {
        self.runtime.block_on(self.client.closed())
    }
}

/// Tells what became of a message; see [`crate::Completion`].
pub struct Completion {
    completion: crate::Completion,
    runtime: Handle,
}

impl Completion {
    /// Waits until it is known.
    ///
    /// # Errors
    /// Why the message has not arrived, or is not known to have.
    pub fn wait(self) -> Outcome {
        self.runtime.block_on(self.completion)
    }

    /// See [`crate::Completion::saved`].
    ///
    /// # Errors
    /// As there.
    pub fn saved(&mut self) -> Result<(), PublishError> {
        self.runtime.block_on(self.completion.saved())
    }

    /// As [`Completion::wait`], at most so long; gives itself back if it is not known by then.
    ///
    /// # Errors
    /// Itself.
    pub fn wait_timeout(mut self, patience: Duration) -> Result<Outcome, Completion> {
        match wait(&self.runtime, patience, &mut self.completion) {
            Some(outcome) => Ok(outcome),
            None => Err(self),
        }
    }
}

/// The messages of a filter; see [`crate::Subscription`]. As an iterator it waits for the next.
#[derive(Clone)]
pub struct Subscription {
    subscription: crate::Subscription,
    runtime: Handle,
}

impl Subscription {
    /// The next message that comes within `patience`: none if there is none, or if the stream has
    /// ended.
    pub fn next_timeout(&mut self, patience: Duration) -> Option<Incoming> {
        let next = std::pin::pin!(self.subscription.next());
        wait(&self.runtime, patience, next).flatten()
    }

    /// See [`crate::Subscription::unsubscribe`].
    ///
    /// # Errors
    /// As there.
    pub fn unsubscribe(self) -> Result<ReasonCode, SubscribeError> {
        self.runtime.block_on(self.subscription.unsubscribe())
    }
}

impl Iterator for Subscription {
    type Item = Incoming;

    fn next(&mut self) -> Option<Incoming> {
        self.runtime.block_on(self.subscription.next())
    }
}

/// Sends requests; see [`crate::Requester`].
#[derive(Clone)]
pub struct Requester {
    requester: crate::Requester,
    runtime: Handle,
}

impl Requester {
    /// See [`crate::Requester::request`].
    ///
    /// # Errors
    /// As there.
    pub fn request(&self, request: Message, patience: Duration) -> Result<Incoming, RequestError> {
        self.runtime.block_on(self.requester.request(request, patience))
    }
}

/// What becomes of the connection. As an iterator it waits for the next.
pub struct Events {
    events: crate::Events,
    runtime: Handle,
}

impl Iterator for Events {
    type Item = Status;

    fn next(&mut self) -> Option<Status> {
        self.runtime.block_on(self.events.next())
    }
}

fn wait<F: Future + Unpin>(runtime: &Handle, patience: Duration, future: F) -> Option<F::Output> {
    runtime.block_on(async { timeout(patience, future).await }).ok()
}
