//! Threads for what takes its time: checking a password is made to cost tens of milliseconds.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use whimbrel_auth::{Attempt, CheckAgain, Outcome, Random, Refusal, Refused, Ticket};

use super::gate::Known;
use super::tokens::Checks;
use crate::mailbox::Mailbox;

/// Attempts that may wait; each holds no more than a CONNECT.
const MOST_WAITING: usize = 4096;
/// Threads that may wait for somebody else.
const ASKING_THREADS: usize = 8;
/// Threads that carry messages go before those that check passwords.
const NICENESS: i32 = 10;

/// An attempt that a thread is to judge.
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) attempt: Attempt,
    /// As it was when the attempt came.
    pub(super) known: Arc<Known>,
    /// After waiting longer than this it is refused unjudged: its client is about to be closed.
    pub(super) patience: Duration,
}

/// The threads and what waits for them.
#[derive(Default)]
pub(super) struct Workers {
    /// What only takes the processor's time.
    computing: Arc<Queue>,
    /// What may have to wait for somebody else: the others are not to wait with it.
    asking: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Instant, Job)>,
    closed: bool,
}

impl Workers {
    pub(super) fn start(&self, mailboxes: &Arc<[Mailbox]>, checks: &Arc<Checks>) -> io::Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let computing = std::iter::repeat_n(&self.computing, cores.div_ceil(2));
        let asking = std::iter::repeat_n(&self.asking, ASKING_THREADS);
        for (at, queue) in computing.chain(asking).enumerate() {
            let (queue, mailboxes, checks) = (queue.clone(), mailboxes.clone(), checks.clone());
            let thread = std::thread::Builder::new().name(format!("whimbrel-auth-{at}"));
            threads.push(thread.spawn(move || queue.work(&mailboxes, &checks))?);
        }
        Ok(())
    }

    /// What waits is not judged any more.
    pub(super) fn stop(&self) {
        for queue in [&self.computing, &self.asking] {
            queue.lock().closed = true;
            queue.filled.notify_all();
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that authenticates has panicked");
            }
        }
    }

    /// The refusal if there is no room. `asks`: somebody may have to be asked over the network.
    pub(super) fn push(&self, job: Job, asks: bool) -> Result<(), Outcome> {
        let queue = if asks { &self.asking } else { &self.computing };
        let mut state = queue.lock();
        if state.jobs.len() >= MOST_WAITING {
            return Err(Refused::new(Refusal::Busy, "too many attempts wait").into());
        }
        state.jobs.push_back((Instant::now(), job));
        drop(state);
        queue.filled.notify_one();
        Ok(())
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(Instant, Job)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, mailboxes: &[Mailbox], checks: &Checks) {
        // On Linux it holds for this thread alone; elsewhere it is not asked for.
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::nice(NICENESS) {
            tracing::warn!("cannot lower the priority of a thread that authenticates: {error}");
        }
        while let Some((since, job)) = self.next() {
            let (outcome, again) = judge(since, &job);
            if let Outcome::Accepted { principal, .. } = &outcome {
                checks.set(job.ticket, principal, again);
            }
            if let Some(mailbox) = mailboxes.get(usize::from(job.ticket.shard)) {
                mailbox.outcome(job.ticket, outcome);
            }
        }
    }
}

fn judge(since: Instant, job: &Job) -> (Outcome, Option<CheckAgain>) {
    if since.elapsed() > job.patience {
        let detail = "it waited too long to be judged";
        return (Refused::new(Refusal::Busy, detail).into(), None);
    }
    let mut random: Random = [0; 32];
    match getrandom::fill(&mut random) {
        Ok(()) => job.known.decide(&job.attempt, &random),
        Err(error) => {
            let detail = format!("the system gives no random bytes: {error}");
            (Refused::new(Refusal::Unavailable, detail).into(), None)
        }
    }
}
