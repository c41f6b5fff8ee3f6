//! Messages that wait to be taken from one subscription.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use whimbrel_codec::QoS;

use crate::{Filter, Incoming, WhenFull};

/// No queue grows beyond this: nothing more is read from the broker before. Only a broker before
/// 5.0, which knows no receive maximum, can get there.
const MOST_MESSAGES: usize = 65_536;

/// Filled by the driver, emptied by any number of consumers.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    max_qos0: usize,
    when_full: WhenFull,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// Taken, and nothing more is to be read for now.
    Full,
    /// Dropped, the first since one was taken.
    Missed,
    /// Dropped, like the one before.
    MissedMore,
}

#[derive(Default)]
struct Inner {
    messages: VecDeque<Incoming>,
    /// Messages among them that nobody would send again.
    qos0: usize,
    /// Not acknowledged when their connection was lost: the next one tells whether they come again.
    held: Vec<Incoming>,
    wakers: Vec<Waker>,
    /// QoS 0 messages that were dropped.
    missed: u64,
    /// The last message was dropped, and none has been taken since.
    is_missing: bool,
    /// The driver does not read until a message is taken.
    driver_waits: bool,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(filter: &Filter) -> Queue {
        Queue::with(filter.queue_messages, filter.when_full)
    }

    pub(crate) fn with(max_qos0: usize, when_full: WhenFull) -> Queue {
        Queue { inner: Mutex::default(), max_qos0, when_full }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message, unless it is to be dropped.
    pub(crate) fn push(&self, message: Incoming) -> Pushed {
        let mut inner = self.lock();
        if message.qos == QoS::AtMostOnce {
            if inner.qos0 >= self.max_qos0 && self.when_full == WhenFull::Drop {
                inner.missed += 1;
                let more = std::mem::replace(&mut inner.is_missing, true);
                return if more { Pushed::MissedMore } else { Pushed::Missed };
            }
            inner.qos0 += 1;
        }
        inner.messages.push_back(message);
        inner.wake();
        if self.is_full_with(&inner) { Pushed::Full } else { Pushed::Taken }
    }

    /// Whether the driver must not read on; then it is woken when a message is taken.
    pub(crate) fn is_full(&self) -> bool {
        let mut inner = self.lock();
        inner.driver_waits = self.is_full_with(&inner);
        inner.driver_waits
    }

    fn is_full_with(&self, inner: &Inner) -> bool {
        let waits = self.when_full == WhenFull::Wait && inner.qos0 >= self.max_qos0;
        !inner.closed && (waits || inner.messages.len() >= MOST_MESSAGES)
    }

    /// The next message, and whether the driver waits for that. There are so many consumers.
    pub(crate) fn poll(
        &self,
        consumers: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(Incoming, bool)>> {
        let mut inner = self.lock();
        if let Some(message) = inner.messages.pop_front() {
            if message.qos == QoS::AtMostOnce {
                inner.qos0 -= 1;
            }
            inner.is_missing = false;
            let driver_waits = std::mem::take(&mut inner.driver_waits);
            return Poll::Ready(Some((message, driver_waits)));
        }
        if inner.closed {
            return Poll::Ready(None);
        }
        if !inner.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            // Each consumer waits in one place, so some have stopped waiting where they did.
            if inner.wakers.len() >= consumers {
                inner.wake();
            }
            inner.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(crate) fn missed(&self) -> u64 {
        self.lock().missed
    }

    /// What is not acknowledged is held until it is known whether it comes again.
    pub(crate) fn hold(&self) {
        let mut inner = self.lock();
        let (kept, held) =
            inner.messages.drain(..).partition(|message| message.qos == QoS::AtMostOnce);
        let held: VecDeque<_> = held;
        inner.messages = kept;
        inner.held.extend(held);
    }

    /// As [`Queue::hold`], for one that was taken and could not be acknowledged.
    pub(crate) fn hold_one(&self, message: Incoming) {
        // It was taken before those that are held already.
        self.lock().held.insert(0, message);
    }

    /// It comes again, or not: then it is delivered from here.
    pub(crate) fn release(&self, comes_again: bool) {
        let mut inner = self.lock();
        let held = std::mem::take(&mut inner.held);
        if comes_again || held.is_empty() {
            return;
        }
        for message in held.into_iter().rev() {
            inner.messages.push_front(Incoming { token: None, ..message });
        }
        inner.wake();
    }

    /// Ends the stream once it is empty.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let held = std::mem::take(&mut inner.held);
        inner.messages.extend(held);
        inner.wake();
    }

    /// What nobody will take.
    pub(crate) fn drain(&self) -> Vec<Incoming> {
        let mut inner = self.lock();
        inner.qos0 = 0;
        let mut left: Vec<_> = inner.messages.drain(..).collect();
        left.append(&mut inner.held);
        left
    }
}

impl Inner {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PropertyList;

    fn message(id: u16) -> Incoming {
        Incoming {
            topic: "t".into(),
            payload: bytes::Bytes::new(),
            qos: QoS::AtLeastOnce,
            retain: false,
            dup: false,
            packet_id: whimbrel_codec::PacketId::new(id),
            properties: PropertyList::new(),
            token: None,
        }
    }

    /// A consumer has taken it, and cannot acknowledge it any more when the others are held.
    #[test]
    fn what_is_taken_while_the_connection_is_lost_keeps_its_place() {
        let queue = Queue::with(1, WhenFull::Drop);
        for id in 1..=3 {
            queue.push(message(id));
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || match queue.poll(1, &mut cx) {
            Poll::Ready(Some((message, _))) => message,
            other => panic!("expected a message, got {other:?}"),
        };
        let taken = next();
        queue.hold();
        queue.hold_one(taken);
        queue.release(false);
        let ids: Vec<_> = (0..3).map(|_| next().packet_id.map(|id| id.get())).collect();
        assert_eq!(ids, [Some(1), Some(2), Some(3)]);
    }
}
