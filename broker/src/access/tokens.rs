//! Tokens while nobody logs in: keys that are fetched before they are needed, and tokens of
//! connected clients that are asked for again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use whimbrel_auth::{CheckAgain, Principal, Ticket};

use super::gate::{Known, now_s};
use crate::log::AUDIT;
use crate::mailbox::{Control, Mailbox};

/// How often it is looked what is due.
const EVERY: Duration = Duration::from_secs(1);

/// Most threads that ask at once.
const ASKING_THREADS: usize = 8;

/// The token of a connected client that is asked for again.
#[derive(Clone)]
struct Held {
    /// Gone if the client was not let in after all.
    principal: Weak<Principal>,
    again: CheckAgain,
}

/// All of them, each as long as its connection.
#[derive(Default)]
pub(super) struct Checks(Mutex<State>);

#[derive(Default)]
struct State {
    held: HashMap<Ticket, Held>,
    /// When which is due, the next first; some of them may be gone or due later by now.
    order: BinaryHeap<Reverse<(u64, Ticket)>>,
}

impl Checks {
    /// What holds for this connection from now on.
    pub(super) fn set(
        &self,
        ticket: Ticket,
        principal: &Arc<Principal>,
        again: Option<CheckAgain>,
    ) {
        let Some(again) = again else { return self.end(ticket) };
        let mut state = self.lock();
        state.order.push(Reverse((again.at_s, ticket)));
        state.held.insert(ticket, Held { principal: Arc::downgrade(principal), again });
    }

    /// The connection is no more, or does not need it.
    pub(super) fn end(&self, ticket: Ticket) {
        self.lock().held.remove(&ticket);
    }

    /// Asks again for those that are due.
    fn run(&self, known: &Known, now_s: u64, mailboxes: &[Mailbox]) {
        let due = self.due(now_s);
        let each = due.len().div_ceil(ASKING_THREADS).max(1);
        std::thread::scope(|scope| {
            for some in due.chunks(each) {
                let work = || some.iter().for_each(|one| self.ask(one, known, mailboxes));
                let thread = std::thread::Builder::new().name("whimbrel-asks".into());
                if thread.spawn_scoped(scope, work).is_err() {
                    work();
                }
            }
        });
    }

    fn due(&self, now_s: u64) -> Vec<(Ticket, Held)> {
        let mut state = self.lock();
        let mut due = Vec::new();
        while let Some(Reverse((at_s, ticket))) = state.order.peek().copied()
            && at_s <= now_s
        {
            state.order.pop();
            match state.held.get(&ticket) {
                Some(held) if held.principal.strong_count() == 0 => {
                    state.held.remove(&ticket);
                }
                Some(held) if held.again.at_s <= now_s => due.push((ticket, held.clone())),
                _ => {}
            }
        }
        due
    }

    fn ask(&self, (ticket, held): &(Ticket, Held), known: &Known, mailboxes: &[Mailbox]) {
        let alive = held.principal.upgrade();
        let again = alive.as_ref();
        let again = again.and_then(|alive| known.check_again(&held.again, alive, now_s()));
        {
            // Meanwhile the connection may have ended, or shown another token.
            let mut state = self.lock();
            let same = |now: &&mut Held| now.principal.ptr_eq(&held.principal);
            let Some(now) = state.held.get_mut(ticket).filter(same) else { return };
            if let Some(again) = again {
                let at_s = again.at_s;
                now.again = again;
                return state.order.push(Reverse((at_s, *ticket)));
            }
            state.held.remove(ticket);
        }
        let Some(alive) = alive else { return };
        tracing::warn!(target: AUDIT, user = &*alive.name, "its token holds no longer");
        if let Some(mailbox) = mailboxes.get(usize::from(ticket.shard)) {
            mailbox.control(Control::Revoked(*ticket, "the token holds no longer"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that does it.
pub(super) struct Keeper {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

impl Keeper {
    pub(super) fn start(
        known: impl Fn() -> Arc<Known> + Send + 'static,
        checks: Arc<Checks>,
        mailboxes: Arc<[Mailbox]>,
    ) -> std::io::Result<Keeper> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("whimbrel-tokens".into());
        let thread = thread.spawn(move || keep(&known, &checks, &mailboxes, &stopped))?;
        Ok(Keeper { thread, stop })
    }

    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that keeps tokens has panicked");
        }
    }
}

fn keep(
    known: &dyn Fn() -> Arc<Known>,
    checks: &Checks,
    mailboxes: &[Mailbox],
    stopped: &Receiver<()>,
) {
    loop {
        let now = known();
        now.refresh(now_s());
        now.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        checks.run(&now, now_s(), mailboxes);
        drop(now);
        if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
