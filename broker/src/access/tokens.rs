//! Tokens while nobody logs in: keys that are fetched before they are needed, and tokens of
//! connected clients that are asked for again.

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

/// A client whose token is asked for again.
struct Held {
    /// Gone with its session, or with a new token.
    principal: Weak<Principal>,
    ticket: Ticket,
    again: CheckAgain,
}

/// All of them.
#[derive(Default)]
pub(super) struct Checks(Mutex<Vec<Held>>);

impl Checks {
    pub(super) fn push(&self, principal: &Arc<Principal>, ticket: Ticket, again: CheckAgain) {
        let principal = Arc::downgrade(principal);
        self.lock().push(Held { principal, ticket, again });
    }

    /// Asks again for those that are due.
    fn run(&self, known: &Known, now_s: u64, mailboxes: &[Mailbox]) {
        let (due, rest): (Vec<Held>, Vec<Held>) =
            std::mem::take(&mut *self.lock()).into_iter().partition(|one| one.again.at_s <= now_s);
        self.lock().extend(rest);
        for Held { principal, ticket, again } in due {
            let Some(alive) = principal.upgrade() else { continue };
            if let Some(again) = known.check_again(&again, &alive, now_s) {
                self.lock().push(Held { principal, ticket, again });
                continue;
            }
            tracing::warn!(target: AUDIT, user = &*alive.name, "its token holds no longer");
            if let Some(mailbox) = mailboxes.get(usize::from(ticket.shard)) {
                let what = "the token holds no longer";
                mailbox.control(Control::Revoked(ticket, what));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Held>> {
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
