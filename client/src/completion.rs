//! What became of a message.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::state::{Shared, Ticket};
use crate::{Outcome, PublishError};

/// Tells what became of a message, when it is known: a future that may be awaited, polled from
/// time to time, or dropped by who does not care. The message goes its way in any case.
pub struct Completion {
    shared: Arc<Shared>,
    ticket: Ticket,
    is_done: bool,
}

impl Completion {
    pub(crate) const fn new(shared: Arc<Shared>, ticket: Ticket) -> Completion {
        Completion { shared, ticket, is_done: false }
    }

    /// Waits until the message is safe: in the store, or delivered. Without a store, and with QoS 0
    /// that is not kept, it is as safe as it can be at once.
    ///
    /// # Errors
    /// The client ended before.
    pub async fn saved(&mut self) -> Result<(), PublishError> {
        poll_fn(|cx| self.shared.lock().outbox.poll_saved(&self.ticket, cx)).await
    }

    /// Takes the message back if this is dropped before it is safe.
    pub(crate) async fn once_saved(self) -> Result<Completion, PublishError> {
        let mut unsaved = Unsaved(Some(self));
        if let Some(completion) = &mut unsaved.0 {
            completion.saved().await?;
        }
        unsaved.0.take().ok_or(PublishError::Closed(None))
    }
}

impl Future for Completion {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = self.shared.lock().outbox.poll(&self.ticket, cx);
        self.is_done |= outcome.is_ready();
        outcome
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if !self.is_done && matches!(self.ticket, Ticket::Slot(_)) {
            self.shared.lock().outbox.forget(&self.ticket);
        }
    }
}

struct Unsaved(Option<Completion>);

impl Drop for Unsaved {
    fn drop(&mut self) {
        if let Some(mut completion) = self.0.take() {
            completion.shared.lock().outbox.retract(&completion.ticket);
            completion.is_done = true;
        }
    }
}
