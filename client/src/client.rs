//! The client as the application holds it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use whimbrel_codec::ReasonCode;

use crate::config::{Builder, Config};
use crate::driver::Driver;
use crate::state::{Phase, Queue, Shared, Wanted};
use crate::store::{File, Recovered};
use crate::{
    Address, AllMessages, Completion, Connected, Error, Events, Filter, InvalidUrl, Message,
    PropertyList, PublishError, Requester, SubscribeError, Subscription, Undelivered, WhenFull,
};

/// An MQTT client that keeps itself connected. Clones are handles of the same client.
///
/// When the last handle and the last subscription are gone, the client delivers what it still has,
/// for at most the drain timeout, and disconnects. [`Client::disconnect`] does the same and tells
/// how it went.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Owner>,
}

/// An open store, and what was in it.
pub(crate) type Opened = (File, Recovered);

/// Ends the client when nobody holds it any more.
pub(crate) struct Owner(Arc<Shared>);

impl Owner {
    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close(Instant::now() + self.0.config.drain_timeout);
    }
}

impl Client {
    /// A client of the broker at `url`: `mqtt://[user[:password]@]host[:port]`, `mqtts` with TLS,
    /// `ws` and `wss` for WebSocket, `unix:/path`.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn builder(url: &str) -> Result<Builder, InvalidUrl> {
        Builder::from_url(url)
    }

    /// A client of the broker at `address`.
    pub fn builder_for(address: Address) -> Builder {
        Builder::from_address(address)
    }

    pub(crate) fn start(config: Config, opened: Option<Opened>) -> Result<Client, Error> {
        Client::spawn(config, opened, None)
    }

    pub(crate) async fn connect(
        config: Config,
        opened: Option<Opened>,
    ) -> Result<(Client, Connected), Error> {
        let (sender, first) = oneshot::channel();
        let client = Client::spawn(config, opened, Some(sender))?;
        match first.await {
            Ok(Ok(connected)) => Ok((client, connected)),
            Ok(Err(error)) => Err(error),
            // The runtime is shutting down.
            Err(_) => Err(Error::Timeout),
        }
    }

    fn spawn(
        config: Config,
        opened: Option<Opened>,
        first: Option<oneshot::Sender<Result<Connected, Error>>>,
    ) -> Result<Client, Error> {
        let shared = Arc::new(Shared::new(config, Handle::current()));
        if let (Some(store), Some((file, recovered))) = (&shared.config.store, opened) {
            shared.restore(store, file, recovered)?;
        }
        let mut driver = Driver::new(shared.clone(), first);
        tokio::spawn(async move { driver.run().await });
        Ok(Client { handle: Arc::new(Owner(shared)) })
    }

    /// A task beside the driver.
    pub(crate) fn spawn_task(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.shared().runtime.spawn(task).abort_handle()
    }

    fn shared(&self) -> &Arc<Shared> {
        self.handle.shared()
    }

    /// Publishes: waits until there is room, and gives a [`Completion`] that tells what becomes of
    /// the message. Messages of one task go out in order. Dropped before it is ready, nothing has
    /// been published. With a store, it waits until the message is safe there, and QoS 0 may
    /// overtake what is on disk alone.
    ///
    /// # Errors
    /// The message is not valid; or the client has ended.
    pub async fn publish(&self, message: Message) -> Result<Completion, PublishError> {
        let shared = self.shared();
        let mut message = message;
        loop {
            let mut room = pin!(shared.room.notified());
            match shared.try_publish(message)? {
                Ok(ticket) => {
                    let completion = Completion::new(shared.clone(), ticket);
                    return match shared.config.store {
                        Some(_) => completion.once_saved().await,
                        None => Ok(completion),
                    };
                }
                Err(back) => message = back,
            }
            {
                // Under the lock: what becomes free after this look wakes us.
                let mut state = shared.lock();
                if state.outbox.has_room_for(&message) || state.is_ending() {
                    continue;
                }
                room.as_mut().enable();
                state.outbox.waiting += 1;
            }
            let waiting = Waiting(shared);
            room.await;
            drop(waiting);
        }
    }

    /// As [`Client::publish`], without waiting. With a store, [`Completion::saved`] tells when the
    /// message is safe.
    ///
    /// # Errors
    /// As there, and [`PublishError::Full`].
    pub fn try_publish(&self, message: Message) -> Result<Completion, PublishError> {
        match self.shared().try_publish(message)? {
            Ok(ticket) => Ok(Completion::new(self.shared().clone(), ticket)),
            Err(_) => Err(PublishError::Full),
        }
    }

    /// Subscribes, and waits until the broker grants it. If the broker loses the session later,
    /// the client subscribes again by itself. Dropped before it is ready, there is no subscription.
    ///
    /// # Errors
    /// The filter is not valid; the broker does not grant it; or the client has ended.
    pub async fn subscribe(
        &self,
        filter: impl Into<Filter>,
    ) -> Result<Subscription, SubscribeError> {
        let filter = filter.into();
        let name = filter.filter.clone();
        let manual_ack = filter.manual_ack;
        let shared = self.shared();
        let Wanted { key, queue, answer } = {
            let mut state = shared.lock();
            if let Some(error) = state.closed_error() {
                return Err(error);
            }
            filter.properties.check().map_err(|error| SubscribeError::Invalid(error.into()))?;
            let wanted = state.inbox.subscribe(filter);
            state.wake_driver();
            wanted
        };
        // Leaves again if this future is dropped.
        let subscription = Subscription::new(self.handle.clone(), key, name, queue, manual_ack);
        let granted = answer.await.unwrap_or_else(|_| Err(self.closed_error()))?;
        subscription.set_granted(granted);
        Ok(subscription)
    }

    /// A stream of everything that comes, see [`AllMessages`]. Up to `queue_messages` of QoS 0
    /// wait in it to be taken; `when_full` says what happens then.
    pub fn all_messages(&self, queue_messages: usize, when_full: WhenFull) -> AllMessages {
        let queue = Arc::new(Queue::with(queue_messages.max(1), when_full));
        let mut state = self.shared().lock();
        state.inbox.give_all(&queue);
        // The one before may have been full.
        state.wake_driver();
        drop(state);
        AllMessages::new(self.handle.clone(), queue)
    }

    /// Subscribes without a stream of its own: what the filter brings is for
    /// [`Client::all_messages`]. SUBSCRIBE has exactly the filter's properties. The subscription
    /// stays, also when the broker loses the session.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn subscribe_for_all(
        &self,
        filter: impl Into<Filter>,
    ) -> Result<ReasonCode, SubscribeError> {
        let filter = filter.into();
        let answer = {
            let mut state = self.shared().lock();
            if let Some(error) = state.closed_error() {
                return Err(error);
            }
            filter.properties.check().map_err(|error| SubscribeError::Invalid(error.into()))?;
            let answer = state.inbox.subscribe_plain(filter);
            state.wake_driver();
            answer
        };
        answer.await.unwrap_or_else(|_| Err(self.closed_error()))
    }

    fn closed_error(&self) -> SubscribeError {
        self.shared().lock().closed_error().unwrap_or(SubscribeError::Closed(None))
    }

    /// Ends a subscription of the session that this process has not made, or not any more.
    ///
    /// # Errors
    /// The filter is not valid; the broker refuses; or the client has ended.
    pub async fn unsubscribe(
        &self,
        filter: &str,
        properties: PropertyList,
    ) -> Result<ReasonCode, SubscribeError> {
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.shared().lock();
            if let Some(error) = state.closed_error() {
                return Err(error);
            }
            properties.check().map_err(|error| SubscribeError::Invalid(error.into()))?;
            state.inbox.unsubscribe(filter.into(), properties, Some(sender));
            state.wake_driver();
        }
        answer.await.unwrap_or_else(|_| Err(self.closed_error()))
    }

    /// For requests and their responses (5.0): subscribes to a response topic of this client's
    /// own, below what the broker gives as response information, or else `responses`.
    ///
    /// # Errors
    /// Before 5.0 there is no such thing; otherwise as [`Client::subscribe`].
    pub async fn requester(&self) -> Result<Requester, SubscribeError> {
        if !self.shared().config.version.is_v5() {
            return Err(SubscribeError::NeedsV5);
        }
        let topic = self.shared().response_topic();
        Requester::new(self, topic.into()).await
    }

    /// What becomes of the connection, from now on.
    pub fn events(&self) -> Events {
        Events::new(self.shared().events())
    }

    /// Whether the broker is there at this moment.
    pub fn is_connected(&self) -> bool {
        self.shared().lock().is_online()
    }

    /// Messages that are queued or not acknowledged.
    pub fn undelivered(&self) -> usize {
        self.shared().lock().outbox.undelivered()
    }

    /// Takes no more messages, delivers those that there are, for at most the drain timeout, and
    /// disconnects. Subscriptions end.
    ///
    /// # Errors
    /// How many messages were left.
    pub async fn disconnect(&self) -> Result<(), Undelivered> {
        let mut events = self.events();
        let shared = self.shared();
        shared.close(Instant::now() + shared.config.drain_timeout);
        loop {
            {
                let state = shared.lock();
                if let Phase::Closed(_) = state.phase {
                    return match state.left {
                        0 => Ok(()),
                        messages => Err(Undelivered { messages }),
                    };
                }
            }
            if events.next().await.is_none() {
                return Ok(());
            }
        }
    }

    /// Ends at once and without DISCONNECT, as a device does that loses power: what was not
    /// delivered is lost, and the broker publishes the will message.
    pub fn abort(&self) {
        self.shared().abort();
    }

    /// Waits until the client has ended: none if it was asked to, or the error that ended it.
    pub async fn closed(&self) -> Option<Arc<Error>> {
        let mut events = self.events();
        loop {
            if let Phase::Closed(why) = &self.shared().lock().phase {
                return why.clone();
            }
            events.next().await?;
        }
    }
}

/// Counts a publisher that waits for room; one that gives up lets the next one look.
struct Waiting<'a>(&'a Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().outbox.waiting -= 1;
    }
}
