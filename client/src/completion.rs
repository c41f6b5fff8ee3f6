//! What became of a message.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::Outcome;
use crate::state::{Shared, Ticket};

/// Tells what became of a message, when it is known: a future that may be awaited, polled from
/// time to time, or dropped by who does not care. The message goes its way in any case.
#[must_use = "a completion tells whether the message arrived; drop it to say that it does not matter"]
pub struct Completion {
    shared: Arc<Shared>,
    ticket: Ticket,
    is_done: bool,
}

impl Completion {
    pub(crate) const fn new(shared: Arc<Shared>, ticket: Ticket) -> Completion {
        Completion { shared, ticket, is_done: false }
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
