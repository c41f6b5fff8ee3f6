//! The loop of one shard: a poll and a core, on whatever thread `crew.rs` gives it.
//!
//! A tick: poll; one read for each socket that is ready; accept; mail; timers; then everything the
//! core wants done, with one send for each connection that has something to send; then mail for
//! other shards. Sockets are registered for edges of both directions once, so nothing is told to
//! the poll again however traffic flows:
//!
//! - a read that fills the buffer may have left bytes for which no edge will come: the socket is
//!   read again in the next tick (`ready`); a shorter read has drained it;
//! - a write that takes less than offered has filled the socket: an edge will come (`Blocked`);
//! - a connection is registered at the end of the tick that accepted it, if it is still here then:
//!   one whose CONNECT sends it to another shard, or that ended, never was.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use whimbrel_broker_core::{Action, ConnId, Millis, Shard, Shared};

use crate::config::Config;
use crate::connection::{Connections, Flag};
use crate::listen::Acceptor;
use crate::log::EventLog;
use crate::mailbox::{Control, Inbox, Mailbox, Moved};
use crate::tls::TlsListener;

mod accept;
mod certificates;
mod read;
mod write;

pub(crate) use accept::Speaks;

/// The largest read.
const BUFFER_BYTES: usize = 64 * 1024;
/// Events taken from one poll.
pub(crate) const EVENTS: usize = 128;
/// How long a closing connection may take to read what was sent to it.
const LINGER_MS: u64 = 2000;
/// How long clients may take to go when the broker shuts down.
const SHUT_DOWN_MS: u64 = 3000;
/// How soon a full mailbox of another shard is looked at again.
const CONGESTED_MS: u64 = 1;
/// How often the resident memory of the process is looked up.
const MEMORY_MS: u64 = 1000;

/// Tokens count down from here for what is no connection.
pub(crate) const WAKER: Token = Token(usize::MAX);
const FIRST_ACCEPTOR: usize = usize::MAX - 1;
/// More listeners than this nobody has.
const FIRST_WATCHED: usize = usize::MAX - 100_000;

/// What all shards share besides [`Shared`].
pub(crate) struct Peers {
    /// By shard.
    pub(crate) mailboxes: Arc<[Mailbox]>,
    /// By listener; none for a plain one.
    pub(crate) tls: Vec<Option<Arc<TlsListener>>>,
    pub(crate) shared: Arc<Shared>,
    /// When the broker was started.
    pub(crate) epoch: Instant,
    /// The same in milliseconds since 1970. The core counts from there: so it can tell times of
    /// before, and the clock does not go back while it runs.
    pub(crate) epoch_ms: u64,
}

impl Peers {
    pub(crate) fn now(&self) -> Millis {
        Millis(self.epoch_ms + self.epoch.elapsed().as_millis() as u64)
    }
}

/// A shard's loop.
pub(crate) struct EventLoop {
    id: usize,
    poll: Poll,
    core: Shard,
    peers: Arc<Peers>,
    now: Millis,
    tick: u16,
    connections: Connections,
    acceptors: Vec<accept::Accepting>,
    buffer: Box<[u8]>,
    /// To be read in the next tick without an event.
    ready: Vec<ConnId>,
    ready_now: Vec<ConnId>,
    /// Their next bytes belong to a handshake of TLS, of which a tick does but a few.
    handshakes: VecDeque<ConnId>,
    /// The next of those whose certificates are to be checked again.
    recheck: Option<u32>,
    /// To be written at the end of the tick though the core does not ask for it.
    again: Vec<ConnId>,
    again_now: Vec<ConnId>,
    /// Accepted or moved here in this tick, not registered yet.
    fresh: Vec<ConnId>,
    /// Their sockets are gone, which the core is told once its actions are drained: before, their
    /// numbers must not be used again.
    gone: Vec<ConnId>,
    closing: VecDeque<(Millis, ConnId)>,
    /// Connections on their way, by shard.
    leaving: Vec<Vec<Moved>>,
    inbox: Inbox,
    max_mailbox_bytes: usize,
    max_store_backlog_bytes: usize,
    /// Another shard's mailbox is too full to read more, or the store is behind.
    congested: bool,
    memory_due: Millis,
    /// Bytes of a layer to send before those of MQTT.
    head: Vec<u8>,
    /// What is to be encrypted, if it does not lie in one piece.
    gathered: Vec<u8>,
    sealed: Vec<u8>,
    log: EventLog,
    stop_by: Option<Millis>,
}

impl EventLoop {
    /// The loop of the shard `id`, which is to run on a thread of its own.
    pub(crate) fn new(
        id: usize,
        poll: Poll,
        core: Shard,
        peers: Arc<Peers>,
        config: &Config,
        acceptors: Vec<(u16, Acceptor, accept::Speaks)>,
    ) -> io::Result<EventLoop> {
        let mut listening = Vec::new();
        for (at, (listener, acceptor, speaks)) in acceptors.into_iter().enumerate() {
            let (registry, token) = (poll.registry(), Token(FIRST_ACCEPTOR - at));
            listening.push(accept::Accepting::new(listener, acceptor, speaks, registry, token)?);
        }
        Ok(EventLoop {
            id,
            poll,
            core,
            leaving: peers.mailboxes.iter().map(|_| Vec::new()).collect(),
            peers,
            now: Millis::default(),
            tick: 0,
            connections: Connections::default(),
            acceptors: listening,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            ready: Vec::new(),
            ready_now: Vec::new(),
            handshakes: VecDeque::new(),
            recheck: None,
            again: Vec::new(),
            again_now: Vec::new(),
            fresh: Vec::new(),
            gone: Vec::new(),
            closing: VecDeque::new(),
            inbox: Inbox::default(),
            max_mailbox_bytes: bounded(config.max_mailbox_bytes),
            max_store_backlog_bytes: bounded(config.max_store_backlog_bytes),
            congested: false,
            memory_due: Millis::default(),
            head: Vec::new(),
            gathered: Vec::new(),
            sealed: Vec::new(),
            log: EventLog::default(),
            stop_by: None,
        })
    }

    /// Whether the broker has shut down and nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        self.stop_by.is_some_and(|deadline| self.connections.len() == 0 || self.now >= deadline)
    }

    /// Waits for events, at most this long.
    ///
    /// # Errors
    /// Only if the poll itself fails.
    pub(crate) fn poll(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result,
        }
    }

    /// A tick, after the poll.
    pub(crate) fn work(&mut self, events: &Events) {
        self.now = self.peers.now();
        self.tick = self.tick.wrapping_add(1);
        self.congested = self.congested && self.is_congested();
        // What is put there from now on is for the next tick: each socket is read once in one.
        if !self.congested {
            std::mem::swap(&mut self.ready, &mut self.ready_now);
        }
        self.handle_events(events);
        self.read_ready();
        self.accept();
        self.shake_hands();
        self.check_certificates();
        self.work_mail();
    }

    /// The part of a tick that mail makes necessary.
    pub(crate) fn work_mail(&mut self) {
        self.handle_inbox();
        self.core.handle_store(self.now);
        self.handle_timeouts();
        self.drain();
        self.register_fresh();
        self.send_mail();
    }

    /// When its last tick began.
    pub(crate) fn now(&self) -> Millis {
        self.now
    }

    /// Where mail for this shard comes.
    pub(crate) fn mailbox(&self) -> Option<&Mailbox> {
        self.peers.mailboxes.get(self.id)
    }

    /// Has the poll of this shard tell that `other` has events.
    pub(crate) fn watch(&self, other: &EventLoop) -> io::Result<()> {
        let (fd, token) = (other.poll.as_raw_fd(), other.watch_token());
        self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Ends [`EventLoop::watch`].
    pub(crate) fn unwatch(&self, other: &EventLoop) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&other.poll.as_raw_fd()))
    }

    /// What an event of `other`'s poll looks like in the poll that watches it.
    pub(crate) fn watch_token(&self) -> Token {
        Token(FIRST_WATCHED - self.id)
    }

    /// When the next tick is due, if nothing happens before; 0: at once.
    pub(crate) fn deadline(&self) -> Millis {
        let readable = !self.ready.is_empty() || !self.handshakes.is_empty();
        let at_once =
            !self.again.is_empty() || self.recheck.is_some() || (!self.congested && readable);
        if at_once {
            return Millis(0);
        }
        let congested = self.congested.then_some(Millis(self.now.0 + CONGESTED_MS));
        let closing = self.closing.front().map(|(deadline, _)| *deadline);
        let others = [self.core.poll_timeout(), congested, closing, self.stop_by];
        let accepting = self.acceptors.iter().filter(|_| !self.congested);
        let due = others.into_iter().chain(accepting.map(|acceptor| acceptor.due())).flatten();
        due.min().unwrap_or(Millis::NEVER)
    }

    fn handle_events(&mut self, events: &Events) {
        for event in events {
            let Token(token) = event.token();
            if let Ok(slot) = u32::try_from(token) {
                let id = ConnId(slot);
                if event.is_writable() {
                    self.handle_writable(id);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.handle_readable(id, event.is_read_closed() || event.is_error());
                }
            } else if let Some(acceptor) =
                self.acceptors.get_mut(FIRST_ACCEPTOR.wrapping_sub(token))
            {
                acceptor.handle_readable();
            }
        }
    }

    fn handle_inbox(&mut self) {
        let mut inbox = std::mem::take(&mut self.inbox);
        if self.peers.mailboxes.get(self.id).is_some_and(|mailbox| mailbox.receive(&mut inbox)) {
            self.core.handle_mail(self.now, &mut inbox.mail);
            for moved in inbox.moved.drain(..) {
                self.arrive(moved);
            }
            for (ticket, outcome) in inbox.outcomes.drain(..) {
                self.core.handle_authenticated(self.now, ticket, outcome);
            }
            for control in inbox.control.drain(..) {
                match control {
                    Control::Revoked(ticket, what) => {
                        self.core.handle_revoked(self.now, ticket, what);
                    }
                    Control::RulesChanged => self.core.rules_changed(self.now),
                    Control::ShutDown => self.shut_down(),
                    Control::Reconfigure(config) => self.reconfigure(&config),
                    Control::CheckCertificates => self.recheck = Some(0),
                    Control::Ask(ask, reply) => {
                        // Who asked may not wait any more.
                        let answer = ask.reply(self.now, &mut self.core, &self.connections);
                        let _ = reply.send(answer);
                    }
                }
            }
        }
        self.inbox = inbox;
    }

    fn shut_down(&mut self) {
        self.acceptors.clear();
        self.core.shut_down(self.now);
        self.stop_by = Some(Millis(self.now.0 + SHUT_DOWN_MS));
    }

    fn reconfigure(&mut self, config: &Config) {
        self.max_mailbox_bytes = bounded(config.max_mailbox_bytes);
        self.max_store_backlog_bytes = bounded(config.max_store_backlog_bytes);
        self.core.reconfigure(Arc::new(config.core.clone()));
    }

    fn handle_timeouts(&mut self) {
        while let Some((deadline, id)) = self.closing.front().copied()
            && deadline <= self.now
        {
            self.closing.pop_front();
            if self.connections.get(id).is_some_and(|connection| connection.is_due(deadline)) {
                self.lose(id);
            }
        }
        if self.core.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            if self.id == 0 && self.memory_due <= self.now {
                self.memory_due = Millis(self.now.0 + MEMORY_MS);
                crate::process::publish_memory(&self.peers.shared);
            }
            self.core.handle_timeout(self.now);
        }
        self.log.handle_timeout(self.now);
    }

    /// Does all that the core wants done. Closing connections makes new work (wills), so it goes
    /// on until there is none.
    fn drain(&mut self) {
        std::mem::swap(&mut self.again, &mut self.again_now);
        while let Some(id) = self.again_now.pop() {
            self.send_again(id);
        }
        loop {
            while let Some(action) = self.core.poll_action(self.now) {
                self.act(action);
            }
            if self.gone.is_empty() {
                return;
            }
            while let Some(id) = self.gone.pop() {
                self.core.handle_closed(self.now, id);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(id) => self.send(id),
            Action::Close { conn, linger } => self.close(conn, linger),
            Action::Move { conn, to, bytes } => self.depart(conn, usize::from(to.0), bytes),
            Action::Pause(id) => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.set(Flag::Paused);
                }
            }
            Action::Resume(id) => self.resume(id),
            Action::Event(event) => self.log.event(self.now, &event, &self.connections),
        }
    }

    /// The socket is gone, or is dropped now; the core learns of it at the end of the tick.
    fn lose(&mut self, id: ConnId) {
        if self.connections.remove(id).is_some() {
            self.gone.push(id);
        }
    }

    fn register_fresh(&mut self) {
        let mut lost = false;
        while let Some(id) = self.fresh.pop() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let token = Token(id.0 as usize);
            if let Err(error) = connection.socket.register(self.poll.registry(), token) {
                tracing::error!("cannot watch a connection: {error}");
                self.lose(id);
                lost = true;
            } else {
                connection.set(Flag::Registered);
            }
        }
        if lost {
            self.drain();
        }
    }

    fn send_mail(&mut self) {
        while let Some((to, mail)) = self.core.poll_mail() {
            let to = usize::from(to.0);
            if let (Some(mailbox), Some(leaving)) =
                (self.peers.mailboxes.get(to), self.leaving.get_mut(to))
            {
                mailbox.send(mail, leaving);
                self.congested |= mailbox.len_bytes() > self.max_mailbox_bytes;
            }
        }
        for (mailbox, leaving) in self.peers.mailboxes.iter().zip(&mut self.leaving) {
            if !leaving.is_empty() {
                mailbox.send(&mut Default::default(), leaving);
            }
        }
        self.congested |= self.is_store_behind();
    }

    fn is_congested(&self) -> bool {
        let others = self.peers.mailboxes.iter().enumerate().filter(|(at, _)| *at != self.id);
        let full = |(_, mailbox): (_, &Mailbox)| mailbox.len_bytes() > self.max_mailbox_bytes;
        others.into_iter().any(full) || self.is_store_behind()
    }

    /// The disk is slower than the clients.
    fn is_store_behind(&self) -> bool {
        self.core.store_backlog_bytes() > self.max_store_backlog_bytes
    }
}

fn bounded(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
