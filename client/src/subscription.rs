//! The messages of one topic filter, as a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};

use futures_core::Stream;
use tokio::sync::oneshot;
use whimbrel_codec::{QoS, ReasonCode};

use crate::client::Owner;
use crate::state::{Left, Phase, Queue, Shared};
use crate::{Incoming, PropertyList, SubscribeError};

/// The messages of one topic filter, in the order of the broker. Ends when the client does, or
/// when the broker takes the subscription away.
///
/// A clone takes from the same queue: each message goes to one of them, so that several consumers
/// share the work. To give each consumer every message, subscribe several times.
///
/// When the last clone is dropped, UNSUBSCRIBE is sent; except for a session that is to outlive
/// the client, where the subscription stays, and what comes by it is left unacknowledged until
/// the filter is subscribed again or [`Subscription::unsubscribe`] was called.
#[derive(Clone)]
pub struct Subscription {
    inner: Arc<Inner>,
}

struct Inner {
    handle: Arc<Owner>,
    key: usize,
    filter: Arc<str>,
    queue: Arc<Queue>,
    manual_ack: bool,
    /// None before SUBACK.
    granted: OnceLock<QoS>,
}

impl Subscription {
    pub(crate) fn new(
        handle: Arc<Owner>,
        key: usize,
        filter: Arc<str>,
        queue: Arc<Queue>,
        manual_ack: bool,
    ) -> Subscription {
        let granted = OnceLock::new();
        Subscription { inner: Arc::new(Inner { handle, key, filter, queue, manual_ack, granted }) }
    }

    pub(crate) fn set_granted(&self, reason: ReasonCode) {
        // Only asked for once.
        let _ = self.inner.granted.set(QoS::from_u8(reason as u8).unwrap_or_default());
    }

    /// The topic filter.
    pub fn filter(&self) -> &str {
        &self.inner.filter
    }

    /// The QoS that the broker granted.
    pub fn granted_qos(&self) -> QoS {
        self.inner.granted.get().copied().unwrap_or_default()
    }

    /// QoS 0 messages that were dropped because the queue was full.
    pub fn missed(&self) -> u64 {
        self.inner.queue.missed()
    }

    /// The next message; none when there will be no more. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Incoming> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let Inner { handle, queue, manual_ack, .. } = &*self.inner;
        poll_queue(handle.shared(), queue, *manual_ack, Arc::strong_count(&self.inner), cx)
    }

    /// The next message if it is here already: for work that is done once for many messages.
    pub fn try_next(&mut self) -> Option<Incoming> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => message,
            Poll::Pending => None,
        }
    }

    /// Ends the subscription at the broker, and waits for its answer.
    ///
    /// # Errors
    /// The broker refuses; or the client has ended.
    pub async fn unsubscribe(self) -> Result<ReasonCode, SubscribeError> {
        let shared = self.inner.handle.shared();
        let (sender, answer) = oneshot::channel();
        let left = {
            let mut state = shared.lock();
            if let Some(error) = state.closed_error() {
                return Err(error);
            }
            let left = state.inbox.leave(self.inner.key, &self.inner.queue);
            let filter = self.inner.filter.clone();
            if left.is_last {
                state.inbox.unsubscribe(filter, PropertyList::new(), Some(sender));
            } else {
                // Others go on with it.
                let _ = sender.send(Ok(ReasonCode::Success));
            }
            state.wake_driver();
            left
        };
        self.inner.forget(left);
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(shared.lock().closed_error().unwrap_or(SubscribeError::Closed(None))),
        }
    }
}

impl Stream for Subscription {
    type Item = Incoming;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.poll(cx)
    }
}

impl Inner {
    /// Acknowledges what nobody will take.
    fn forget(&self, left: Left) {
        acknowledge(left.messages);
        if left.is_last {
            let unclaimed = self.handle.shared().lock().inbox.forget_unclaimed(&self.filter);
            acknowledge(unclaimed);
        }
    }
}

pub(crate) fn acknowledge(messages: Vec<Incoming>) {
    for mut message in messages {
        // A connection that is gone has forgotten it as well.
        let _ = message.ack();
    }
}

/// The next message of a queue that has so many consumers, acknowledged if the application is not
/// to do it.
pub(crate) fn poll_queue(
    shared: &Shared,
    queue: &Queue,
    manual_ack: bool,
    consumers: usize,
    cx: &mut Context<'_>,
) -> Poll<Option<Incoming>> {
    loop {
        let Some((mut message, driver_waits)) = ready!(queue.poll(consumers, cx)) else {
            return Poll::Ready(None);
        };
        if driver_waits {
            shared.wake_driver();
        }
        let is_current = match &message.token {
            Some(token) if manual_ack => token.is_current(),
            _ => message.ack().is_ok(),
        };
        if is_current {
            return Poll::Ready(Some(message));
        }
        // Its connection was lost just now: like those that still wait, it is delivered when
        // it is known that the broker does not send it again.
        let state = shared.lock();
        let comes_again = match state.phase {
            Phase::Online => state.inbox.session_present(),
            Phase::Closed(_) => shared.config.session_is_kept(),
            Phase::Offline => {
                queue.hold_one(message);
                continue;
            }
        };
        if !comes_again {
            return Poll::Ready(Some(Incoming { token: None, ..message }));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let shared = self.handle.shared();
        let mut state = shared.lock();
        let mut left = state.inbox.leave(self.key, &self.queue);
        // Its queue may have been full.
        state.wake_driver();
        // What was never granted is not a part of the session that is kept.
        let stays = shared.config.session_is_kept() && self.granted.get().is_some();
        if left.is_last && stays {
            let messages = state.inbox.put_back(left.messages);
            left = Left { is_last: false, messages };
        }
        if left.is_last {
            state.inbox.unsubscribe(self.filter.clone(), PropertyList::new(), None);
        }
        drop(state);
        self.forget(left);
    }
}
