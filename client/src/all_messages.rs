//! Everything that comes, as one stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use crate::Incoming;
use crate::client::Owner;
use crate::state::Queue;
use crate::subscription::{acknowledge, poll_queue};

/// All messages that the broker sends to this client, each once and in the order of the broker,
/// whatever subscription brought them: also those of a session that outlived another process. For
/// tools and gateways, which care about the order across filters more than about the filter.
///
/// A message is acknowledged when it is taken, if it is not to be done by hand
/// ([`AllMessages::manual_ack`]). Subscriptions with a stream of their own get it as well, and it
/// is acknowledged when all have done so. Ends when the client does, or when another one is asked
/// for.
pub struct AllMessages {
    handle: Arc<Owner>,
    queue: Arc<Queue>,
    manual_ack: bool,
}

impl AllMessages {
    pub(crate) const fn new(handle: Arc<Owner>, queue: Arc<Queue>) -> AllMessages {
        AllMessages { handle, queue, manual_ack: false }
    }

    /// From now on, the application acknowledges each message with [`Incoming::ack`], as with
    /// [`Filter::manual_ack`](crate::Filter::manual_ack).
    pub fn manual_ack(mut self) -> AllMessages {
        self.manual_ack = true;
        self
    }

    /// The next message; none when there will be no more. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Incoming> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The next message if it is here already: for work that is done once for many messages, such
    /// as a flush of what was written before all are acknowledged.
    pub fn try_next(&mut self) -> Option<Incoming> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => message,
            Poll::Pending => None,
        }
    }

    /// QoS 0 messages that were dropped because the queue was full.
    pub fn missed(&self) -> u64 {
        self.queue.missed()
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        poll_queue(self.handle.shared(), &self.queue, self.manual_ack, 1, cx)
    }
}

impl Stream for AllMessages {
    type Item = Incoming;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.poll(cx)
    }
}

impl Drop for AllMessages {
    fn drop(&mut self) {
        let mut state = self.handle.shared().lock();
        let taken = state.inbox.leave_all(&self.queue);
        // It may have been full.
        state.wake_driver();
        drop(state);
        acknowledge(taken);
    }
}
