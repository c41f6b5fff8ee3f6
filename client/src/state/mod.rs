//! What the handles of a client and its driver share, behind one lock that is held for moments.
//!
//! Invariants worth naming:
//! - Whoever changes what the driver has to act on wakes it under the same lock under which the
//!   driver found nothing to do before it slept: no wake-up can be lost.
//! - Nothing waits while the lock is held, and no code of the application runs under it.
//! - A packet identifier means something only together with the number of its connection.

mod inbox;
mod outbox;
mod queue;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use whimbrel_client_core::{Client as Core, Error as CommandError, Millis};
use whimbrel_codec::{PacketId, PacketType, QoS, ReasonCode};

pub(crate) use inbox::{Inbox, Left, Wanted};
pub(crate) use outbox::{Kept, Outbox, Ticket};
pub(crate) use queue::Queue;

use crate::config::Config;
use crate::store::{File, Keeper, Recovered, Store, StoreError};
use crate::{AckError, Error, Message, PublishError, Status, SubscribeError};

/// Status messages that a slow listener may fall behind.
const STATUS_LEN: usize = 64;

pub(crate) struct Shared {
    pub(crate) config: Config,
    state: Mutex<State>,
    /// Told when there may be room in the outbox.
    pub(crate) room: Notify,
    /// Made for the first listener: it is the largest part of an idle client.
    status: OnceLock<broadcast::Sender<Status>>,
    /// What [`Millis`] count from.
    start: Instant,
    /// Where the driver runs.
    pub(crate) runtime: Handle,
}

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// No CONNACK yet, or no more.
    Offline,
    Online,
    /// For good, perhaps because of an error.
    Closed(Option<Arc<Error>>),
}

/// How the client is to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    /// Messages that have not left by then stay behind.
    pub(crate) deadline: Instant,
    pub(crate) disconnect_sent: bool,
    /// Without DISCONNECT.
    pub(crate) is_abrupt: bool,
}

pub(crate) struct State {
    pub(crate) core: Core<'static>,
    pub(crate) phase: Phase,
    pub(crate) closing: Option<Closing>,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
    /// The connection is about to be given up for the next one: nothing new is sent on it.
    pub(crate) is_leaving: bool,
    /// The sleeping driver.
    driver: Option<Waker>,
    /// Counts connections.
    pub(crate) connection: u64,
    /// The identifier that the broker chose for an empty one.
    pub(crate) assigned_client_id: Option<String>,
    /// The broker's basis for response topics.
    pub(crate) response_information: Option<String>,
    /// A connection has been accepted before, so the session may be there.
    pub(crate) connected_before: bool,
    /// Messages that were not delivered when the client ended.
    pub(crate) left: usize,
}

impl Shared {
    pub(crate) fn new(config: Config, runtime: Handle) -> Shared {
        let mut core = Core::new(config.limits);
        core.set_manual_acknowledgement(true);
        core.set_automatic_topic_aliases(config.topic_aliases_out);
        let state = State {
            core,
            phase: Phase::Offline,
            closing: None,
            outbox: Outbox::new(config.queue_messages, config.queue_bytes),
            inbox: Inbox::new(config.version.is_v5()),
            is_leaving: false,
            driver: None,
            connection: 0,
            assigned_client_id: None,
            response_information: None,
            connected_before: false,
            left: 0,
        };
        Shared {
            config,
            state: Mutex::new(state),
            room: Notify::new(),
            status: OnceLock::new(),
            start: Instant::now(),
            runtime,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a fault of ours in one call; the others go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Millis {
        self.millis(Instant::now())
    }

    pub(crate) fn millis(&self, at: Instant) -> Millis {
        Millis(at.saturating_duration_since(self.start).as_millis() as u64)
    }

    pub(crate) fn instant(&self, at: Millis) -> Instant {
        // One more, as what is left of a millisecond was cut off.
        self.start + Duration::from_millis(at.0 + 1)
    }

    pub(crate) fn wake_driver(&self) {
        self.lock().wake_driver();
    }

    /// Where this client can await responses.
    pub(crate) fn response_topic(&self) -> String {
        let state = self.lock();
        let basis = state.response_information.as_deref().unwrap_or("responses");
        let id = state.assigned_client_id.as_ref().unwrap_or(&self.config.client_id);
        let id = match id.is_empty() || id.contains(['+', '#', '/']) {
            true => format!("{:016x}", RandomState::new().hash_one(id)),
            false => id.clone(),
        };
        format!("{}/{id}", basis.trim_end_matches('/'))
    }

    fn status(&self) -> &broadcast::Sender<Status> {
        self.status.get_or_init(|| broadcast::channel(STATUS_LEN).0)
    }

    /// Nobody may be listening.
    pub(crate) fn tell(&self, status: Status) {
        if let Some(listeners) = self.status.get() {
            let _ = listeners.send(status);
        }
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Status> {
        self.status().subscribe()
    }

    /// Wakes who waits for room if there is some: they take it in turn, each waking the next. With
    /// a store, not all wait for the same room.
    pub(crate) fn offer_room(&self, outbox: &Outbox) {
        if outbox.waiting == 0 || !outbox.has_room() {
            return;
        }
        match self.config.store {
            Some(_) => self.room.notify_waiters(),
            None => self.room.notify_one(),
        }
    }

    /// Goes on with what was in the store, and writes what is to be kept from now on.
    pub(crate) fn restore(
        self: &Arc<Shared>,
        store: &Store,
        file: File,
        recovered: Recovered,
    ) -> Result<(), Error> {
        let shared = Arc::downgrade(self);
        let report = move |report| {
            if let Some(shared) = shared.upgrade() {
                let mut state = shared.lock();
                state.outbox.handle_report(report);
                state.wake_driver();
            }
        };
        let keeper = Keeper::start(file, &recovered, store.max_bytes, report);
        let failed = |error: io::Error| StoreError::Failed(store.path.clone(), error.to_string());
        let keeper = keeper.map_err(|error| Error::Store(Arc::new(failed(error))))?;
        let mut state = self.lock();
        let State { core, outbox, connected_before, .. } = &mut *state;
        *connected_before = recovered.has_session;
        for packet_id in &recovered.arrivals {
            core.restore_received(*packet_id)?;
        }
        let kept = Kept::new(keeper, store.keeps_qos0, &recovered, self.status().clone());
        outbox.restore(kept, recovered, core, self.config.version)?;
        Ok(())
    }

    /// Takes a message, or gives it back while there is no room.
    pub(crate) fn try_publish(
        &self,
        message: Message,
    ) -> Result<Result<Ticket, Message>, PublishError> {
        let mut state = self.lock();
        let taken = state.try_publish(message)?;
        if taken.is_ok() {
            self.offer_room(&state.outbox);
        }
        Ok(taken)
    }

    pub(crate) fn close(&self, deadline: Instant) {
        self.end(deadline, false);
    }

    /// As when the process dies.
    pub(crate) fn abort(&self) {
        self.end(Instant::now(), true);
    }

    fn end(&self, deadline: Instant, is_abrupt: bool) {
        let mut state = self.lock();
        if state.closing.is_none_or(|closing| deadline < closing.deadline) {
            let disconnect_sent = state.closing.is_some_and(|closing| closing.disconnect_sent);
            state.closing = Some(Closing { deadline, disconnect_sent, is_abrupt });
        }
        state.wake_driver();
        drop(state);
        self.room.notify_waiters();
    }
}

impl State {
    pub(crate) fn wake_driver(&mut self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    /// The driver found nothing to do under this lock, and sleeps.
    pub(crate) fn driver_sleeps(&mut self, waker: &Waker) {
        match &mut self.driver {
            Some(own) => own.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(crate) fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online)
    }

    /// No more messages are taken.
    pub(crate) fn is_ending(&self) -> bool {
        self.closing.is_some() || matches!(self.phase, Phase::Closed(_))
    }

    /// The error of whoever comes too late to subscribe.
    pub(crate) fn closed_error(&self) -> Option<SubscribeError> {
        match &self.phase {
            Phase::Closed(why) => Some(SubscribeError::Closed(why.clone())),
            _ if self.closing.is_some() => Some(SubscribeError::Closed(None)),
            _ => None,
        }
    }

    fn try_publish(&mut self, message: Message) -> Result<Result<Ticket, Message>, PublishError> {
        if let Phase::Closed(why) = &self.phase {
            return Err(PublishError::Closed(why.clone()));
        }
        if self.closing.is_some() {
            return Err(PublishError::Closed(None));
        }
        let online = self.is_online() && !self.is_leaving;
        let taken = self.outbox.publish(&mut self.core, online, message)?;
        if taken.is_ok() && online {
            self.wake_driver();
        }
        Ok(taken)
    }

    /// Gives the core what waits, as far as it takes it.
    pub(crate) fn flush(&mut self, now: Instant) {
        if !self.is_online() {
            return;
        }
        self.inbox.flush(&mut self.core);
        if self.is_leaving && self.closing.is_none() {
            return;
        }
        self.outbox.flush(&mut self.core, now);
    }

    /// The connection is gone.
    pub(crate) fn handle_lost(&mut self, session_stays: bool) {
        if self.is_online() {
            self.phase = Phase::Offline;
        }
        self.connection += 1;
        self.is_leaving = false;
        self.core.handle_connection_lost();
        self.outbox.handle_lost();
        self.inbox.handle_lost(session_stays);
    }

    /// Nothing will happen any more: everything that waits learns it.
    pub(crate) fn handle_closed(&mut self, why: Option<Arc<Error>>) {
        self.left = self.outbox.undelivered();
        self.phase = Phase::Closed(why.clone());
        self.outbox.handle_closed(why.as_ref());
        self.inbox.handle_closed();
    }
}

/// The duty to acknowledge a message.
#[derive(Clone, Debug)]
pub(crate) struct AckToken {
    shared: ByAddress,
    connection: u64,
    packet_id: PacketId,
    qos: QoS,
    /// If the message went to several subscriptions.
    shares: Option<Arc<Shares>>,
    /// Whose copy this is then.
    pub(crate) receiver: Weak<Queue>,
}

/// Changed under the lock of the state alone.
#[derive(Debug)]
struct Shares {
    /// How many subscriptions have not acknowledged.
    left: AtomicUsize,
    /// One has.
    is_taken: AtomicBool,
}

/// Without the state's contents in `Debug`.
#[derive(Clone)]
struct ByAddress(Arc<Shared>);

impl std::fmt::Debug for ByAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl AckToken {
    pub(crate) fn new(
        shared: Arc<Shared>,
        connection: u64,
        packet_id: PacketId,
        qos: QoS,
        subscriptions: usize,
    ) -> AckToken {
        let shares = (subscriptions > 1).then(|| {
            let (left, is_taken) = (subscriptions.into(), false.into());
            Arc::new(Shares { left, is_taken })
        });
        let receiver = Weak::new();
        AckToken { shared: ByAddress(shared), connection, packet_id, qos, shares, receiver }
    }

    /// Whether the connection that brought the message is still there.
    pub(crate) fn is_current(&self) -> bool {
        let state = self.shared.0.lock();
        state.connection == self.connection && state.is_online()
    }

    /// True if others have the message too, who are to acknowledge it then.
    pub(crate) fn leave(&self) -> bool {
        let Some(shares) = &self.shares else { return false };
        let has_others = shares.left.load(Ordering::Relaxed) > 1;
        if has_others {
            shares.left.fetch_sub(1, Ordering::Relaxed);
        }
        has_others
    }

    /// Whether a subscription has acknowledged the message.
    pub(crate) fn is_taken(&self) -> bool {
        self.shares.as_ref().is_some_and(|shares| shares.is_taken.load(Ordering::Relaxed))
    }

    pub(crate) fn answer(&self, reason: ReasonCode) -> Result<(), AckError> {
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
        if !reason.belongs_in(PacketType::PubAck) {
            return Err(AckError::Invalid(CommandError::ReasonInvalid));
        }
        let mut state = self.shared.0.lock();
        if state.connection != self.connection || !state.is_online() {
            return Err(AckError::ConnectionLost);
        }
        if let Some(shares) = &self.shares {
            shares.is_taken.store(true, Ordering::Relaxed);
            if shares.left.fetch_sub(1, Ordering::Relaxed) > 1 {
                if self.qos == QoS::ExactlyOnce {
                    state.inbox.note_taken(self.packet_id, &self.receiver);
                }
                return Ok(());
            }
        }
        state.inbox.forget_taken(self.packet_id);
        match state.core.acknowledge(self.packet_id, reason) {
            Ok(()) => {
                if self.qos == QoS::ExactlyOnce && !reason.is_error() {
                    state.outbox.handle_arrival(self.packet_id, true);
                }
                state.wake_driver();
                Ok(())
            }
            Err(CommandError::NotConnected) => Err(AckError::ConnectionLost),
            Err(error) => Err(AckError::Invalid(error)),
        }
    }
}
