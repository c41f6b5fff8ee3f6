//! Requests and their responses (5.0, section 4.10).

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use whimbrel_codec::{Property, QoS};

use crate::{Client, Filter, Incoming, Message, PublishError, SubscribeError, Subscription};

/// Sends requests and finds the response of each, any number of them at a time. Made by
/// [`Client::requester`]; clones share one response topic.
#[derive(Clone)]
pub struct Requester {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    response_topic: Arc<str>,
    /// Correlation data of the next request. It begins anywhere, so that a late response to a
    /// process before this one answers nothing.
    next: AtomicU64,
    pending: Pending,
    responses: AbortHandle,
}

#[derive(Clone, Default)]
struct Pending(Arc<Mutex<HashMap<u64, oneshot::Sender<Incoming>>>>);

/// Why a request has no response.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// It was not published.
    Publish(PublishError),
    /// No response came in time. The request may have been carried out.
    Timeout,
    /// The client has ended, or the broker has taken the response topic away.
    Closed,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Publish(error) => error.fmt(f),
            RequestError::Timeout => f.write_str("no response came in time"),
            RequestError::Closed => f.write_str("no responses come any more"),
        }
    }
}

impl std::error::Error for RequestError {}

impl Requester {
    pub(crate) async fn new(client: &Client, topic: Arc<str>) -> Result<Requester, SubscribeError> {
        let filter = Filter::new(topic.clone()).qos(QoS::AtLeastOnce);
        let subscription = client.subscribe(filter).await?;
        let pending = Pending::default();
        let responses = client.spawn_task(answer(subscription, pending.clone()));
        Ok(Requester {
            inner: Arc::new(Inner {
                client: client.clone(),
                response_topic: topic,
                next: AtomicU64::new(RandomState::new().hash_one(0)),
                pending,
                responses,
            }),
        })
    }

    /// Where responses come to.
    pub fn response_topic(&self) -> &str {
        &self.inner.response_topic
    }

    /// Publishes `request`, with a response topic and correlation data added, and waits for its
    /// response. Nothing is left behind if the future is dropped.
    ///
    /// # Errors
    /// The request was not published; no response came within `patience`; or the client ended.
    pub async fn request(
        &self,
        request: Message,
        patience: Duration,
    ) -> Result<Incoming, RequestError> {
        let inner = &self.inner;
        if inner.responses.is_finished() {
            return Err(RequestError::Closed);
        }
        let number = inner.next.fetch_add(1, Ordering::Relaxed);
        let request = request
            .property(Property::ResponseTopic(&inner.response_topic))
            .property(Property::CorrelationData(&number.to_be_bytes()));
        let (sender, response) = oneshot::channel();
        inner.pending.lock().insert(number, sender);
        let _forget = Forget(&inner.pending, number);
        let exchange = async {
            let completion = inner.client.publish(request).await?;
            // A response says all; a refusal comes instead of it.
            let (mut response, mut refusal) = (pin!(response), pin!(refusal(completion)));
            poll_fn(|cx| {
                if let Poll::Ready(response) = response.as_mut().poll(cx) {
                    return Poll::Ready(response.map_err(|_| RequestError::Closed));
                }
                refusal.as_mut().poll(cx).map(|error| Err(RequestError::Publish(error)))
            })
            .await
        };
        timeout(patience, exchange).await.unwrap_or(Err(RequestError::Timeout))
    }
}

impl From<PublishError> for RequestError {
    fn from(error: PublishError) -> RequestError {
        RequestError::Publish(error)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.responses.abort();
    }
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Incoming>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that nobody waits for any more.
struct Forget<'a>(&'a Pending, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// Ready only if the message was not published.
async fn refusal(completion: crate::Completion) -> PublishError {
    match completion.await {
        Ok(_) => std::future::pending().await,
        Err(error) => error,
    }
}

/// Gives each response to who waits for it.
async fn answer(mut responses: Subscription, pending: Pending) {
    while let Some(response) = responses.next().await {
        let number = response.correlation_data().and_then(|data| data.try_into().ok());
        let Some(number) = number.map(u64::from_be_bytes) else { continue };
        if let Some(sender) = pending.lock().remove(&number) {
            // Who gave up just now does not want it.
            let _ = sender.send(response);
        }
    }
    pending.lock().clear();
}
