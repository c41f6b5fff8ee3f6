//! What shards hand each other: one mailbox per shard, filled by all others.
//!
//! A sender comes at most once per tick, with everything it has. It pays for a wake-up only when
//! the receiver sleeps in its poll.
//!
//! No wake-up is lost: the receiver says that it sleeps and *then* looks for mail; a sender puts
//! mail in and *then* looks whether the receiver sleeps. With sequentially consistent order one of
//! the two sees the other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use whimbrel_auth::{Outcome, Ticket};
use whimbrel_broker_core::{Mail, Peer};

use crate::config::Config;
use crate::control::{Ask, Reply};
use crate::layer::Layer;
use crate::socket::Socket;

/// What waits for a shard.
#[derive(Default)]
pub(crate) struct Inbox {
    /// Messages for its sessions.
    pub(crate) mail: Mail,
    /// Connections whose sessions it holds.
    pub(crate) moved: Vec<Moved>,
    /// What became of attempts to connect.
    pub(crate) outcomes: Vec<(Ticket, Outcome)>,
    /// What the process wants of it.
    pub(crate) control: Vec<Control>,
}

/// A connection on its way to its home shard.
pub(crate) struct Moved {
    pub(crate) socket: Socket,
    pub(crate) layer: Option<Box<Layer>>,
    pub(crate) peer: Peer,
    /// MQTT bytes that came already.
    pub(crate) bytes: Vec<u8>,
}

/// What the process wants of a shard.
#[derive(Clone)]
pub(crate) enum Control {
    /// Tell the clients, and end.
    ShutDown,
    /// A connection's proof of identity holds no longer.
    Revoked(Ticket, &'static str),
    /// What clients may do has changed.
    RulesChanged,
    /// Limits have changed.
    Reconfigure(Arc<Config>),
    /// What is asked of client certificates has changed.
    CheckCertificates,
    /// An operator asks something.
    Ask(Arc<Ask>, Sender<Reply>),
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.mail.is_empty()
            && self.moved.is_empty()
            && self.outcomes.is_empty()
            && self.control.is_empty()
    }

    fn len_bytes(&self) -> usize {
        self.mail.len_bytes() + self.moved.iter().map(|moved| moved.bytes.len()).sum::<usize>()
    }
}

/// The mailbox of one shard. `wake` ends the poll in which it sleeps.
pub(crate) struct Mailbox<W = mio::Waker> {
    inbox: Mutex<Inbox>,
    /// Whether there is anything in it, so that looking costs no lock.
    full: AtomicBool,
    asleep: AtomicBool,
    /// Bytes in it after the last change.
    len_bytes: AtomicUsize,
    waker: W,
}

/// Ends the sleep of a shard.
pub(crate) trait Wake {
    /// May be called from any thread.
    fn wake(&self);
}

impl Wake for mio::Waker {
    fn wake(&self) {
        if let Err(error) = self.wake() {
            tracing::error!("cannot wake a shard: {error}");
        }
    }
}

impl<W: Wake> Mailbox<W> {
    pub(crate) fn new(waker: W) -> Mailbox<W> {
        Mailbox {
            inbox: Mutex::default(),
            full: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            len_bytes: AtomicUsize::new(0),
            waker,
        }
    }

    /// Hands over all that `mail` and `moved` hold and leaves them empty.
    pub(crate) fn send(&self, mail: &mut Mail, moved: &mut Vec<Moved>) {
        let mut inbox = self.lock();
        if inbox.mail.is_empty() {
            std::mem::swap(&mut inbox.mail, mail);
        } else {
            inbox.mail.append(mail);
        }
        inbox.moved.append(moved);
        self.filled(inbox);
    }

    pub(crate) fn control(&self, control: Control) {
        let mut inbox = self.lock();
        inbox.control.push(control);
        self.filled(inbox);
    }

    /// What became of an attempt to connect.
    pub(crate) fn outcome(&self, ticket: Ticket, outcome: Outcome) {
        let mut inbox = self.lock();
        inbox.outcomes.push((ticket, outcome));
        self.filled(inbox);
    }

    fn filled(&self, inbox: MutexGuard<'_, Inbox>) {
        self.len_bytes.store(inbox.len_bytes(), SeqCst);
        drop(inbox);
        self.full.store(true, SeqCst);
        if self.asleep.swap(false, SeqCst) {
            self.waker.wake();
        }
    }

    /// Swaps what waits with `inbox`, which is empty; false if nothing waits.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> bool {
        debug_assert!(inbox.is_empty());
        if !self.full.swap(false, SeqCst) {
            return false;
        }
        std::mem::swap(&mut *self.lock(), inbox);
        self.len_bytes.store(0, SeqCst);
        !inbox.is_empty()
    }

    /// The receiver is about to sleep. False if there is mail: then it must not.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, SeqCst);
        if self.full.load(SeqCst) {
            self.wake_up();
            return false;
        }
        true
    }

    /// The receiver sleeps no more.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, SeqCst);
    }

    /// Whether something waits.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(SeqCst)
    }

    /// Has the receiver look at what is not in the mailbox: its store.
    pub(crate) fn poke(&self) {
        self.full.store(true, SeqCst);
        if self.asleep.swap(false, SeqCst) {
            self.waker.wake();
        }
    }

    /// Wakes the receiver though there is nothing for it.
    pub(crate) fn nudge(&self) {
        self.waker.wake();
    }

    /// Bytes that wait.
    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes.load(SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing in here is half-changed when a thread panics.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    impl Wake for Sender<()> {
        fn wake(&self) {
            let _ = self.send(());
        }
    }

    /// Receives until `expected` controls came, asleep whenever the mailbox allows it.
    fn receive_all(mailbox: &Mailbox<Sender<()>>, woken: &Receiver<()>, expected: usize) -> usize {
        let (mut count, mut sleeps) = (0, 0);
        let mut inbox = Inbox::default();
        while count < expected {
            if mailbox.fall_asleep() {
                sleeps += 1;
                woken.recv_timeout(Duration::from_secs(10)).expect("a wake-up was lost");
                mailbox.wake_up();
            }
            if mailbox.receive(&mut inbox) {
                count += inbox.control.drain(..).count();
            }
        }
        sleeps
    }

    #[test]
    fn no_wake_up_is_lost_and_nothing_else() {
        const EACH: usize = 50_000;
        let (waker, woken) = channel();
        let mailbox = Mailbox::new(waker);
        std::thread::scope(|scope| {
            for sender in 0..3 {
                let mailbox = &mailbox;
                scope.spawn(move || {
                    for n in 0..EACH {
                        mailbox.control(Control::ShutDown);
                        if (n + sender) % 64 == 0 {
                            std::thread::sleep(Duration::from_micros(1));
                        }
                    }
                });
            }
            let sleeps = receive_all(&mailbox, &woken, 3 * EACH);
            assert!(sleeps > 0, "the receiver never slept: the test shows nothing");
        });
        assert!(!mailbox.receive(&mut Inbox::default()));
    }

    #[test]
    fn one_who_is_awake_is_not_woken() {
        let (waker, woken) = channel();
        let mailbox = Mailbox::new(waker);
        mailbox.control(Control::ShutDown);
        assert!(woken.try_recv().is_err());
        assert!(!mailbox.fall_asleep(), "there is mail");
        assert!(mailbox.receive(&mut Inbox::default()));
        assert!(mailbox.fall_asleep());
        mailbox.control(Control::ShutDown);
        mailbox.control(Control::ShutDown);
        assert_eq!(woken.try_iter().count(), 1);
    }
}
