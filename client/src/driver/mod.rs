//! The task that keeps a client connected. It lives as long as the client, so what it needs only
//! now and then is in boxes: thousands of clients of one process wait most of the time.

mod authentication;
mod exchange;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use whimbrel_codec::ReasonCode;

use crate::login::Attempt;
use crate::net::{self, Link};
use crate::state::{Phase, Shared};
use crate::{Connected, Error, Status};
use exchange::Exchange;

/// A session that is taken over sooner than this after CONNECT, and not for the third time in a
/// row, is taken back: it may have been an earlier attempt of our own that reached the broker late.
const SETTLED: Duration = Duration::from_secs(5);
const TAKE_BACKS: u32 = 2;

type First = oneshot::Sender<Result<Connected, Error>>;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// Waits for the first attempt, which then must succeed.
    first: Option<First>,
    /// Attempts that failed, and connections that did not last, one after another.
    failures: u32,
    /// How long it was to the last attempt. A connection that lasted no longer counts as failed:
    /// a broker that accepts and at once gives up is not to be stormed.
    waited: Duration,
    /// When the broker accepted the last connection, if it did.
    accepted: Option<Instant>,
    /// When the last connection began.
    began: Instant,
    /// How often in a row the session was taken over.
    take_overs: u32,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, first: Option<First>) -> Driver {
        Driver {
            shared,
            first,
            failures: 0,
            waited: Duration::ZERO,
            accepted: None,
            began: Instant::now(),
            take_overs: 0,
        }
    }

    /// Ends when the client does.
    pub(crate) async fn run(&mut self) {
        let why = loop {
            let Err(error) = self.connection().await else { break None };
            {
                let mut state = self.shared.lock();
                state.handle_lost(self.shared.config.session_stays());
            }
            if let Some(first) = self.first.take() {
                self.close_store().await;
                // Nobody may wait for it any more.
                let _ = first.send(Err(error));
                break None;
            }
            if error.is_about_login() {
                self.shared.config.login.handle_refused();
            }
            let wait = self.wait_after(&error);
            let taken_back = self.may_take_back(&error);
            let is_final = error.is_final() && !taken_back;
            let error = Arc::new(error);
            if is_final || !self.shared.config.reconnects {
                let why = error.clone();
                self.shared.tell(Status::Disconnected { why, retry_in: None });
                break Some(error);
            }
            self.shared.tell(Status::Disconnected { why: error, retry_in: Some(wait) });
            if Box::pin(self.unless_ended(sleep(wait))).await.is_none() {
                break None;
            }
        };
        self.close_store().await;
        self.end(why);
    }

    /// Everything that waits learns that nothing will happen any more.
    fn end(&self, why: Option<Arc<Error>>) {
        self.shared.lock().handle_closed(why);
        self.shared.room.notify_waiters();
        self.shared.tell(Status::Closed);
    }

    fn may_take_back(&mut self, error: &Error) -> bool {
        let taken = matches!(error, Error::Disconnected(ReasonCode::SessionTakenOver, _));
        self.take_overs = if taken { self.take_overs + 1 } else { 0 };
        taken && self.began.elapsed() < SETTLED && self.take_overs <= TAKE_BACKS
    }

    /// How long until the next attempt.
    fn wait_after(&mut self, error: &Error) -> Duration {
        if matches!(error, Error::TokenEnds) {
            return Duration::ZERO;
        }
        let lasts = |accepted: Instant| accepted.elapsed() >= self.waited;
        if self.accepted.take().is_some_and(lasts) {
            self.failures = 0;
        }
        self.failures += 1;
        self.waited = self.shared.config.backoff.wait(self.failures);
        self.waited
    }

    /// Writes what is left to write, and lets the file go.
    async fn close_store(&self) {
        let ended = self.shared.lock().outbox.stop_store();
        if let Some(ended) = ended {
            // An error only says that the thread has ended before.
            let _ = ended.await;
        }
    }

    /// One connection from its beginning to its end; fine if the client is to end.
    async fn connection(&mut self) -> Result<(), Error> {
        let opening = Box::pin(self.unless_ended(open(&self.shared)));
        let Some(opened) = opening.await else { return Ok(()) };
        let mut exchange = self.begin(opened?)?;
        let result = poll_fn(|cx| exchange.poll(cx, &mut self.first, &mut self.accepted)).await;
        exchange.finish();
        Box::pin(exchange.close()).await;
        result
    }

    /// Has CONNECT sent as the first on this link.
    fn begin(&mut self, (link, attempt): (Link, Attempt)) -> Result<Exchange, Error> {
        self.began = Instant::now();
        let shared = self.shared.clone();
        let mut state = shared.lock();
        let id = state.assigned_client_id.clone();
        let id = id.as_deref().unwrap_or(&shared.config.client_id);
        let again = state.connected_before;
        let now = shared.now();
        shared
            .config
            .with_connect(id, again, &attempt.shown, |connect| state.core.connect(now, connect))?;
        drop(state);
        Ok(Exchange::new(shared, link, attempt))
    }

    /// Does something without a connection; none if the client is to end first. Meanwhile what
    /// expires in the queue is taken out.
    async fn unless_ended<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut timer = pin!(sleep(Duration::ZERO));
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            loop {
                let now = Instant::now();
                let mut state = self.shared.lock();
                state.outbox.expire(now);
                self.shared.offer_room(&state.outbox);
                let closing = state.closing;
                if closing.is_some_and(|c| c.deadline <= now || state.outbox.is_done()) {
                    return Poll::Ready(None);
                }
                let deadline = closing.map(|closing| closing.deadline);
                let next = [deadline, state.outbox.next_expiry()].into_iter().flatten().min();
                state.driver_sleeps(cx.waker());
                drop(state);
                let Some(next) = next else { return Poll::Pending };
                timer.set(sleep_until(next));
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

/// Its runtime has ended, or code of the application has panicked in it, such as a connector.
impl Drop for Driver {
    fn drop(&mut self) {
        let has_ended = matches!(self.shared.lock().phase, Phase::Closed(_));
        if !has_ended {
            self.end(None);
        }
    }
}

async fn open(shared: &Shared) -> Result<(Link, Attempt), Error> {
    let attempt = shared.config.login.begin().await?;
    let link = net::connect(&shared.config, attempt.shown.bearer.as_deref()).await?;
    Ok((link, attempt))
}
