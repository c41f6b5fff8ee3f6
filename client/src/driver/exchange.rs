//! One network connection: bytes of the core out, bytes of the broker in, and time.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until, timeout};
use whimbrel_client_core::{Error as CommandError, Event};
use whimbrel_codec::{ConnAck, Disconnect, Properties, Property, ReasonCode};

use super::First;
use super::authentication::{Authentication, Renewal};
use crate::error::reason_string;
use crate::login::Attempt;
use crate::net::Link;
use crate::state::{Closing, Phase, Shared, State};
use crate::{Connected, Error, PropertyList, Status};

/// Bytes read at a time. The buffer is one for a thread, so an idle connection has none.
const READ_LEN: usize = 64 * 1024;
/// Bytes of the core's output taken at a time.
const WRITE_LEN: usize = 64 * 1024;
/// Rounds before other tasks get their turn.
const ROUNDS: usize = 16;
/// How long to wait for the broker to close the connection after DISCONNECT.
const LINGER: Duration = Duration::from_millis(500);
/// An output buffer that is larger is given back before the task sleeps.
const OUTPUT_KEPT_BYTES: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_LEN]);
}

pub(super) struct Exchange {
    shared: Arc<Shared>,
    link: Link,
    /// On its way to the socket, after the `written` bytes that are there.
    output: Vec<u8>,
    written: usize,
    /// Something was taken that is not known to be written.
    is_unconfirmed: bool,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    /// None if CONNECT has said all that there is to say.
    authentication: Option<Box<Authentication>>,
    /// When to leave at the latest, for a new connection.
    leaves_by: Option<Instant>,
    /// DISCONNECT is said for its sake.
    has_left: bool,
    /// Nothing was read, for the consumers' sake.
    is_full: bool,
    /// The core has events that it gives when there is room for what they lead to.
    has_events: bool,
}

/// What is done once the lock is given back, or the core no longer lent.
#[derive(Default)]
struct After {
    connected: Option<Connected>,
    error: Option<Error>,
}

impl Exchange {
    pub(super) fn new(shared: Arc<Shared>, link: Link, attempt: Attempt) -> Exchange {
        Exchange {
            authentication: Authentication::new(shared.clone(), attempt),
            shared,
            link,
            output: Vec::new(),
            written: 0,
            is_unconfirmed: true,
            timer: None,
            leaves_by: None,
            has_left: false,
            is_full: false,
            has_events: false,
        }
    }

    /// Ready when the connection has ended: as asked, or by an error.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        first: &mut Option<First>,
        accepted: &mut Option<Instant>,
    ) -> Poll<Result<(), Error>> {
        for _ in 0..ROUNDS {
            let mut progress = self.poll_write(cx)?;
            let (read, connected) = self.poll_read(cx)?;
            progress |= read;
            if let Some(connected) = connected {
                *accepted = Some(Instant::now());
                self.shared.tell(Status::Connected(connected.clone()));
                if let Some(first) = first.take() {
                    // Who waited may have given up; the client then ends by itself.
                    let _ = first.send(Ok(connected));
                }
            }
            progress |= self.poll_authentication(cx)?;
            if !progress {
                ready!(self.poll_idle(cx))?;
            }
            if self.is_over() {
                let ends = self.shared.lock().closing.is_some() && !self.has_left;
                return Poll::Ready(if ends { Ok(()) } else { Err(Error::TokenEnds) });
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// DISCONNECT is written, or waits in vain for a store that fails or a broker that does not
    /// read.
    fn is_over(&self) -> bool {
        let state = self.shared.lock();
        let said = self.has_left || state.closing.is_some_and(|c| c.disconnect_sent);
        let is_late = self.ends_by(&state).is_some_and(|at| at <= Instant::now());
        let is_blocked = !self.output.is_empty();
        match is_late {
            true => said || is_blocked,
            false => said && !is_blocked && state.core.is_closed(),
        }
    }

    /// When this connection is to end at the latest.
    fn ends_by(&self, state: &State) -> Option<Instant> {
        state.closing.map(|closing| closing.deadline).or(self.leaves_by)
    }

    /// Writes what there is, as far as the socket takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let mut progress = false;
        for _ in 0..ROUNDS {
            if self.written == self.output.len() {
                self.output.clear();
                self.written = 0;
                // Before more is taken: with a busy publisher there always is more.
                self.poll_confirm(cx)?;
                if !self.fill()? {
                    return Ok(progress);
                }
            }
            let rest = self.output.get(self.written..).unwrap_or_default();
            match self.link.poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(Error::Lost(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(len)) => self.written += len,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(progress),
            }
            progress = true;
        }
        Ok(true)
    }

    /// Finds out whether what was taken is with the system.
    fn poll_confirm(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if (self.is_unconfirmed || self.link.has_pending())
            && let Poll::Ready(result) = self.link.poll_flush(cx)
        {
            result?;
            self.is_unconfirmed = false;
            self.shared.lock().outbox.handle_written();
        }
        Ok(())
    }

    /// Takes output of the core; true if there was some.
    fn fill(&mut self) -> Result<bool, Error> {
        let now = Instant::now();
        let shared = self.shared.clone();
        let mut state = shared.lock();
        state.flush(now);
        self.shared.offer_room(&state.outbox);
        self.disconnect_if_due(&mut state, now)?;
        self.has_left |= self.leave_if_due(&mut state, now)?;
        let State { core, outbox, .. } = &mut *state;
        let Some(bytes) = core.poll_transmit() else { return Ok(false) };
        let len = outbox.allowed(bytes.len()).min(WRITE_LEN);
        let bytes = bytes.get(..len).unwrap_or(bytes);
        if bytes.is_empty() {
            return Ok(false);
        }
        self.output.extend_from_slice(bytes);
        let len = bytes.len();
        core.handle_transmitted(self.shared.millis(now), len);
        outbox.handle_taken(len);
        self.is_unconfirmed = true;
        Ok(true)
    }

    /// Sends DISCONNECT once nothing is left to deliver, or there is no more time for it.
    fn disconnect_if_due(&self, state: &mut State, now: Instant) -> Result<(), Error> {
        let Some(Closing { deadline, disconnect_sent: false, is_abrupt }) = state.closing else {
            return Ok(());
        };
        if self.has_left {
            return Ok(());
        }
        if is_abrupt {
            return Err(Error::Lost(io::ErrorKind::ConnectionAborted.into()));
        }
        if !state.outbox.is_done() && now < deadline {
            return Ok(());
        }
        if !state.is_online() {
            // Nothing can be said before CONNACK; who waits for it until the end gives up.
            return if now < deadline { Ok(()) } else { Err(Error::Timeout) };
        }
        let mut properties = self.shared.config.disconnect_properties.clone();
        let is_given = properties.iter().any(|p| matches!(p, Property::SessionExpiryIntervalS(_)));
        let ends = !self.shared.config.session_is_kept() && self.shared.config.version.is_v5();
        if ends && !is_given {
            properties.push(Property::SessionExpiryIntervalS(0));
        }
        let reason = ReasonCode::Success;
        let sent = state.core.disconnect(&Disconnect { reason, properties: properties.view() });
        match sent {
            Ok(()) => {
                state.closing = Some(Closing { deadline, disconnect_sent: true, is_abrupt });
            }
            Err(CommandError::Full) if now < deadline => {}
            // There is no room for it while the store fails.
            Err(CommandError::Full) => return Err(Error::Timeout),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Sends DISCONNECT for the sake of a new connection; true if it did. That one goes on with the
    /// session; a session that does not stay is first brought to where nothing is lost with it.
    fn leave_if_due(&self, state: &mut State, now: Instant) -> Result<bool, Error> {
        let Some(leaves_by) = self.leaves_by.filter(|_| !self.has_left) else { return Ok(false) };
        let is_ready = self.shared.config.session_stays() || state.outbox.is_calm();
        if state.closing.is_some() || !state.is_online() || (!is_ready && now < leaves_by) {
            return Ok(false);
        }
        match state.core.disconnect(&Disconnect::new(ReasonCode::Success)) {
            Ok(()) => Ok(true),
            Err(CommandError::Full) if now < leaves_by => Ok(false),
            Err(CommandError::Full) => Err(Error::TokenEnds),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads once; true if there was something.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<(bool, Option<Connected>), Error> {
        {
            let shared = self.shared.clone();
            let mut state = shared.lock();
            if !state.core.wants_bytes() {
                return Ok((false, None));
            }
            if self.has_events {
                return Ok((true, self.drain(&mut state)?));
            }
            // CONNACK is read in any case.
            self.is_full = state.is_online() && state.inbox.is_full();
            if self.is_full {
                return Ok((false, None));
            }
        }
        BUFFER.with_borrow_mut(|buffer| match self.link.poll_read(cx, buffer) {
            Poll::Pending => Ok((false, None)),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(bytes)) => {
                let shared = self.shared.clone();
                let now = shared.now();
                let mut state = shared.lock();
                state.core.handle_bytes(now, bytes);
                Ok((true, self.drain(&mut state)?))
            }
        })
    }

    /// Acts on the core's events.
    fn drain(&mut self, state: &mut State) -> Result<Option<Connected>, Error> {
        let mut after = After::default();
        let State { core, outbox, inbox, connection, .. } = state;
        while after.error.is_none()
            && let Some(event) = core.poll_event()
        {
            match event {
                Event::Message(publish) => inbox.deliver(&publish, &self.shared, *connection),
                Event::Published(ack) => outbox.handle_published(&ack),
                Event::Received(packet_id) => outbox.handle_received(packet_id),
                Event::Released(packet_id) => outbox.handle_arrival(packet_id, false),
                Event::Subscribed(ack) => {
                    if let Some((filter, reason)) = inbox.handle_suback(&ack) {
                        self.shared.tell(Status::Subscribed { filter, reason });
                    }
                }
                Event::Unsubscribed(ack) => inbox.handle_unsuback(&ack),
                Event::Connected { ack, discarded } => {
                    let authentication = self.authentication.as_mut();
                    after.error = authentication.and_then(|a| a.handle_connected().err());
                    if after.error.is_none() {
                        let assumed = self.shared.config.assumes_session();
                        // The core may have taken the session for ended before the broker did.
                        let goes_on = (ack.session_present || assumed) && discarded == 0;
                        outbox.handle_connected(goes_on);
                        inbox.handle_connected(&ack);
                        after.connected = Some(connected(&ack));
                    }
                }
                Event::Auth(auth) => {
                    let data = auth_data(&auth.properties);
                    let authentication = self.authentication.as_mut();
                    after.error = authentication.and_then(|a| match auth.reason {
                        ReasonCode::Success => a.handle_success(&data).err(),
                        _ => a.handle_challenge(data).err(),
                    });
                }
                Event::Refused(ack) => {
                    let text = reason_string(&ack.properties);
                    after.error = Some(Error::Refused(ack.reason, text));
                }
                Event::Disconnected(disconnect) => {
                    let text = reason_string(&disconnect.properties);
                    after.error = Some(Error::Disconnected(disconnect.reason, text));
                }
                Event::Failed(failure) => after.error = Some(Error::Failed(failure)),
            }
        }
        if matches!(after.error, Some(Error::Login(_))) {
            // Whoever it is gets nothing of what waits.
            core.handle_connection_lost();
        }
        for packet_id in inbox.take_owed() {
            if core.acknowledge(packet_id, ReasonCode::Success).is_ok() {
                outbox.handle_arrival(packet_id, true);
            }
        }
        self.has_events = !core.wants_bytes();
        for filter in inbox.take_missed() {
            self.shared.tell(Status::Missed { filter });
        }
        self.act(state, after)
    }

    fn act(&mut self, state: &mut State, after: After) -> Result<Option<Connected>, Error> {
        if let Some(error) = after.error {
            return Err(error);
        }
        let Some(mut connected) = after.connected else { return Ok(None) };
        if connected.client_id.is_empty() {
            let id = state.assigned_client_id.as_ref();
            connected.client_id = id.unwrap_or(&self.shared.config.client_id).clone();
        } else {
            state.assigned_client_id = Some(connected.client_id.clone());
        }
        let basis = connected.properties.iter().find_map(|property| match property {
            Property::ResponseInformation(basis) => Some(basis.into()),
            _ => None,
        });
        state.response_information = basis;
        state.phase = Phase::Online;
        state.connected_before = true;
        Ok(Some(connected))
    }

    /// What authentication has to say, at its beginning and when a token ends.
    fn poll_authentication(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let Some(authentication) = &mut self.authentication else { return Ok(false) };
        let Poll::Ready(renewal) = authentication.poll(cx)? else { return Ok(false) };
        if let Renewal::ByNewConnection(life) = renewal
            && self.shared.config.reconnects
        {
            self.leaves_by = Some(life.ends_at);
            self.shared.lock().is_leaving = !self.shared.config.session_stays();
        }
        Ok(true)
    }

    /// Sleeps if there is nothing to do: pending then, and ready to go on otherwise.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        // Between the last look and this lock something may have changed.
        if self.is_full && !state.inbox.is_full() {
            return Poll::Ready(Ok(()));
        }
        if self.written == self.output.len() {
            state.flush(Instant::now());
            let State { core, outbox, .. } = &mut *state;
            if core.poll_transmit().is_some_and(|bytes| outbox.allowed(bytes.len()) > 0) {
                return Poll::Ready(Ok(()));
            }
            if self.output.capacity() > OUTPUT_KEPT_BYTES {
                self.output = Vec::new();
            }
        }
        let core = state.core.poll_timeout().map(|at| shared.instant(at));
        let end = self.ends_by(&state);
        let renewal = self.authentication.as_ref().and_then(|a| a.next_renewal());
        let next = [core, end, state.outbox.next_expiry(), renewal];
        state.driver_sleeps(cx.waker());
        let next = next.into_iter().flatten().min();
        drop(state);
        ready!(self.poll_timer(cx, next));
        self.handle_time().map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Ready(Ok(())))
    }

    /// Ready when the timer has run out. A timer that is early only looks again: so the deadline,
    /// which moves with every packet, costs nothing.
    fn poll_timer(&mut self, cx: &mut Context<'_>, next: Option<Instant>) -> Poll<()> {
        let Some(next) = next else { return Poll::Pending };
        match &mut self.timer {
            Some((at, timer)) if next < *at => {
                *at = next;
                timer.as_mut().reset(next);
            }
            Some(_) => {}
            None => self.timer = Some((next, Box::pin(sleep_until(next)))),
        }
        if let Some((_, timer)) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
        }
        self.timer = None;
        Poll::Ready(())
    }

    fn handle_time(&mut self) -> Result<(), Error> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        let now = Instant::now();
        state.outbox.expire(now);
        shared.offer_room(&state.outbox);
        let now = shared.millis(now);
        if state.inbox.is_full() {
            // Nothing is read for the consumers' sake, which is no silence of the broker.
            state.core.handle_bytes(now, &[]);
        }
        state.core.handle_timeout(now);
        self.drain(&mut state).map(drop)
    }

    /// Takes what the core had to say last, such as why it gave the connection up. From now on
    /// nothing can be acknowledged: whoever takes a message must not take it for the last time.
    pub(super) fn finish(&mut self) {
        // There is no more to it than what could be taken.
        let _ = self.fill();
        self.shared.lock().phase = Phase::Offline;
    }

    /// Says good-bye. To close while bytes wait to be read resets the connection, and a reset can
    /// overtake the DISCONNECT: the broker would publish the will message. It closes on DISCONNECT.
    pub(super) async fn close(&mut self) {
        let farewell = poll_fn(|cx| {
            while self.written < self.output.len() {
                let rest = self.output.get(self.written..).unwrap_or_default();
                match ready!(self.link.poll_write(cx, rest)) {
                    Ok(len) if len > 0 => self.written += len,
                    _ => return Poll::Ready(()),
                }
            }
            if ready!(self.link.poll_flush(cx)).is_err() {
                return Poll::Ready(());
            }
            if ready!(self.link.poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            BUFFER.with_borrow_mut(|buffer| {
                while ready!(self.link.poll_read(cx, buffer)).is_ok() {}
                Poll::Ready(())
            })
        });
        // A broker that does not close keeps nobody waiting.
        let _ = timeout(LINGER, farewell).await;
    }
}

/// With the identifier that the broker has assigned, if it has.
fn connected(ack: &ConnAck<'_>) -> Connected {
    let client_id = ack.properties.iter().find_map(|property| match property {
        Property::AssignedClientIdentifier(id) => Some(id.into()),
        _ => None,
    });
    Connected {
        session_present: ack.session_present,
        client_id: client_id.unwrap_or_default(),
        properties: PropertyList::copy_of(&ack.properties),
    }
}

fn auth_data(properties: &Properties<'_>) -> Vec<u8> {
    let data = properties.iter().find_map(|property| match property {
        Property::AuthenticationData(data) => Some(data.to_vec()),
        _ => None,
    });
    data.unwrap_or_default()
}
