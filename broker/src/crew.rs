//! The threads that run the shards: all shards on one thread while that is enough, each on a thread
//! of its own when it is not.
//!
//! A thread that sleeps costs much to wake, most of all on another core. A broker with little to do
//! would pay that for every message that goes from one shard to another, and for every shard that
//! something comes to. So the first thread runs all shards in turn as long as it finds time to
//! sleep, watching the other shards' polls through its own; the others wait. When it is busy nearly
//! all the time, each thread takes its shard. When all of them together have been busy for less
//! than half of one thread's time, they go back.
//!
//! A shard's state is behind a lock that is taken when it changes hands, never in between.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::Events;
use whimbrel_broker_core::Millis;

use crate::event_loop::{EVENTS, EventLoop, Peers};
use crate::mailbox::Mailbox;

/// When shards change hands.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Over this time the first thread's load is measured while it runs all shards.
    pub(crate) busy_window: Duration,
    /// Busier than this, the shards part.
    pub(crate) busy: f64,
    /// Over this time the load of all threads is measured while each has its shard.
    pub(crate) idle_window: Duration,
    /// Together less busy than this part of one thread's time, the shards come together.
    pub(crate) idle: f64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            busy_window: Duration::from_millis(10),
            busy: 0.9,
            // Watching a poll costs the kernel a look at each of its sockets, so not too often.
            idle_window: Duration::from_secs(2),
            idle: 0.5,
        }
    }
}

/// The threads of a broker and the shards that they run.
pub(crate) struct Crew {
    peers: Arc<Peers>,
    pace: Pace,
    seats: Vec<Mutex<Seat>>,
    /// The first thread runs all shards.
    together: AtomicBool,
    /// Tells the other threads that `together` has changed.
    parted: (Mutex<()>, Condvar),
    /// By thread: nanoseconds in which it did not sleep, since the broker started.
    busy_ns: Vec<AtomicU64>,
    /// How often the shards came together or parted.
    changes: AtomicU64,
}

/// A shard and what its poll last told.
struct Seat {
    shard: EventLoop,
    events: Events,
    /// When its next tick is due, as of its last one.
    deadline: Millis,
}

/// Why a thread has stopped running what it ran.
#[derive(PartialEq, Eq)]
enum Stop {
    /// The broker shuts down.
    Done,
    /// Shards change hands.
    HandsChange,
}

impl Crew {
    pub(crate) fn new(peers: Arc<Peers>, shards: Vec<EventLoop>, pace: Pace) -> Crew {
        let busy_ns = shards.iter().map(|_| AtomicU64::new(0)).collect();
        let together = AtomicBool::new(shards.len() > 1);
        let seats = shards.into_iter().map(Seat::new).map(Mutex::new).collect();
        let changes = AtomicU64::new(0);
        Crew { peers, pace, seats, together, parted: Default::default(), busy_ns, changes }
    }

    /// What thread `id` does until the broker has shut down.
    ///
    /// # Errors
    /// Only if a poll itself fails.
    pub(crate) fn work(&self, id: usize) -> io::Result<()> {
        loop {
            let stop = match (self.is_together(), id) {
                (true, 0) => self.run_all(),
                (true, _) => self.wait(),
                (false, _) => self.run_one(id),
            };
            if !matches!(stop, Ok(Stop::HandsChange)) {
                // The others must not wait for shards that nobody hands over any more.
                self.part();
                return stop.map(drop);
            }
        }
    }

    fn is_together(&self) -> bool {
        self.together.load(Ordering::SeqCst)
    }

    fn seat(&self, id: usize) -> Option<MutexGuard<'_, Seat>> {
        Some(self.seats.get(id)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    // ---- apart

    fn run_one(&self, id: usize) -> io::Result<Stop> {
        let Some(mut seat) = self.seat(id) else { return Ok(Stop::Done) };
        let mailbox = self.peers.mailboxes.get(id);
        let alone = self.seats.len() == 1;
        let reviews = id == 0 && !alone;
        let window = self.pace.idle_window;
        let mut review = Review::new(window, self.busy());
        while !seat.shard.is_done() {
            if self.is_together() {
                return Ok(Stop::HandsChange);
            }
            let mut timeout = self.timeout(seat.deadline);
            if reviews {
                timeout = Some(timeout.map_or(window, |timeout| timeout.min(window)));
            }
            if timeout != Some(Duration::ZERO) && !mailbox.is_none_or(Mailbox::fall_asleep) {
                timeout = Some(Duration::ZERO);
            }
            seat.poll(timeout)?;
            mailbox.inspect(|mailbox| mailbox.wake_up());
            let woke = (!alone).then(Instant::now);
            seat.work();
            if let (Some(woke), Some(busy_ns)) = (woke, self.busy_ns.get(id)) {
                busy_ns.fetch_add(woke.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
            if reviews && review.load(|| self.busy()).is_some_and(|load| load < self.pace.idle) {
                self.join();
            }
        }
        Ok(Stop::Done)
    }

    /// Has the first thread run all shards from now on.
    fn join(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.together.store(true, Ordering::SeqCst);
        self.peers.mailboxes.iter().for_each(Mailbox::nudge);
    }

    /// How long until `deadline`; none: until something happens.
    fn timeout(&self, deadline: Millis) -> Option<Duration> {
        match deadline {
            Millis::NEVER => None,
            Millis(0) => Some(Duration::ZERO),
            Millis(ms) => Some(Duration::from_millis(ms.saturating_sub(self.peers.now().0))),
        }
    }

    /// How often the shards came together or parted.
    #[cfg(test)]
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Time in which threads did not sleep, all together.
    fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.iter().map(|ns| ns.load(Ordering::Relaxed)).sum())
    }

    // ---- together

    /// Waits for a shard to run.
    fn wait(&self) -> io::Result<Stop> {
        let (lock, changed) = &self.parted;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let until = changed.wait_while(guard, |()| self.is_together());
        drop(until.unwrap_or_else(PoisonError::into_inner));
        Ok(Stop::HandsChange)
    }

    /// Has each thread run its own shard from now on.
    fn part(&self) {
        let (lock, changed) = &self.parted;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.together.store(false, Ordering::SeqCst);
        drop(guard);
        changed.notify_all();
    }

    fn run_all(&self) -> io::Result<Stop> {
        let mut seats: Vec<_> = (0..self.seats.len()).filter_map(|id| self.seat(id)).collect();
        let Some((first, others)) = seats.split_first_mut() else { return Ok(Stop::Done) };
        if let Err(error) = others.iter().try_for_each(|other| first.shard.watch(&other.shard)) {
            tracing::error!("cannot run all shards on one thread: {error}");
            // Those that are not watched cannot be unwatched, which is as good.
            others.iter().for_each(|other| drop(first.shard.unwatch(&other.shard)));
            self.part();
            return Ok(Stop::HandsChange);
        }
        for other in others.iter_mut() {
            // What came before it was watched is not told.
            other.poll(Some(Duration::ZERO))?;
            other.work();
        }
        let mut slept = Duration::ZERO;
        let mut review = Review::new(self.pace.busy_window, slept);
        while !first.shard.is_done() || others.iter().any(|other| !other.shard.is_done()) {
            slept += self.sleep(first, others)?;
            first.work();
            for other in others.iter_mut() {
                other.poll_if_told(&first.events)?;
                if other.has_work(first.shard.now()) {
                    other.work();
                }
            }
            Self::exchange_mail(first, others);
            if review.load(|| slept).is_some_and(|idle| idle < 1.0 - self.pace.busy) {
                for other in others.iter() {
                    first.shard.unwatch(&other.shard)?;
                }
                self.part();
                return Ok(Stop::HandsChange);
            }
        }
        Ok(Stop::Done)
    }

    /// Sleeps until there is something to do for any shard, and tells how long that was.
    fn sleep(&self, first: &mut Seat, others: &[MutexGuard<'_, Seat>]) -> io::Result<Duration> {
        let deadline = others.iter().map(|other| other.deadline).fold(first.deadline, Millis::min);
        let mut timeout = self.timeout(deadline);
        let mailboxes = &self.peers.mailboxes;
        // Each must have said that it sleeps before the first looks for mail.
        let asleep = mailboxes.iter().filter(|mailbox| mailbox.fall_asleep()).count();
        if asleep < mailboxes.len() {
            timeout = Some(Duration::ZERO);
        }
        let start = (timeout != Some(Duration::ZERO)).then(Instant::now);
        first.poll(timeout)?;
        mailboxes.iter().for_each(Mailbox::wake_up);
        Ok(start.map_or(Duration::ZERO, |start| start.elapsed()))
    }

    /// What the shards have for each other is handed over at once: between them there is no sleep.
    fn exchange_mail(first: &mut Seat, others: &mut [MutexGuard<'_, Seat>]) {
        let others = others.iter_mut().map(|other| &mut **other);
        for seat in std::iter::once(first).chain(others) {
            if seat.has_mail() {
                seat.work_mail();
            }
        }
    }
}

impl Seat {
    fn new(shard: EventLoop) -> Seat {
        Seat { shard, events: Events::with_capacity(EVENTS), deadline: Millis(0) }
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.shard.poll(&mut self.events, timeout)
    }

    /// Polls if `told`, the events of the poll that watches this one, says so; or if the last poll
    /// may not have told all, for which no event comes.
    fn poll_if_told(&mut self, told: &Events) -> io::Result<()> {
        let token = self.shard.watch_token();
        if self.may_have_more() || told.iter().any(|event| event.token() == token) {
            self.poll(Some(Duration::ZERO))
        } else {
            self.events.clear();
            Ok(())
        }
    }

    fn may_have_more(&self) -> bool {
        self.events.iter().count() == EVENTS
    }

    fn has_work(&self, now: Millis) -> bool {
        !self.events.is_empty() || self.deadline <= now || self.has_mail()
    }

    fn has_mail(&self) -> bool {
        self.shard.mailbox().is_some_and(Mailbox::is_full)
    }

    fn work(&mut self) {
        self.shard.work(&self.events);
        self.deadline = if self.may_have_more() { Millis(0) } else { self.shard.deadline() };
    }

    fn work_mail(&mut self) {
        self.shard.work_mail();
        self.deadline = self.deadline.min(self.shard.deadline());
    }
}

/// Measures over one window of time after the other which part of it something took.
struct Review {
    window: Duration,
    began: Instant,
    /// What it had taken when the window began.
    before: Duration,
}

impl Review {
    fn new(window: Duration, taken: Duration) -> Review {
        Review { window, began: Instant::now(), before: taken }
    }

    /// The part of the window that it took, at the end of a window; `taken` is all that it ever
    /// took.
    fn load(&mut self, taken: impl FnOnce() -> Duration) -> Option<f64> {
        let elapsed = self.began.elapsed();
        if elapsed < self.window {
            return None;
        }
        let taken = taken();
        let load = taken.saturating_sub(self.before).as_secs_f64() / elapsed.as_secs_f64();
        *self = Review::new(self.window, taken);
        Some(load)
    }
}
