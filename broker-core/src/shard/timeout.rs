//! What happens because time has passed.

use whimbrel_codec::ReasonCode;
use whimbrel_protocol::keep_alive_deadline_ms;
use whimbrel_store::WallMs;

use super::{Action, Shard};
use crate::conn::{Conn, State};
use crate::event::{Event, Why};
use crate::stats::Count;
use crate::{ConnId, Millis};

/// A publisher into a broker short of memory is not read for this long.
const PAUSE_MS: u64 = 100;
/// Subscriptions of one connection whose retained messages are still to be sent, before it is read
/// on.
const MAX_SCANS: usize = 1000;

impl Shard {
    /// Time has passed: keep alives, session expiries, wills, retained messages, `$SYS`.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.now = now;
        let mut fired = std::mem::take(&mut self.fired);
        self.conn_timers.fire(now, &mut fired);
        for slot in fired.drain(..) {
            self.conn_due(ConnId(slot));
        }
        self.session_timers.fire(now, &mut fired);
        for slot in fired.drain(..) {
            self.session_due(slot);
        }
        self.fired = fired;
        self.expire_retained();
        self.search_on();
        self.take_up_rules();
        self.publish_sys();
        self.release_throttled();
        self.shed_largest();
        if self.resume_at.is_some_and(|at| at <= now) {
            self.read_on();
        }
    }

    fn conn_due(&mut self, id: ConnId) {
        if self.is_blocked(id) {
            return;
        }
        let connect_timeout_s = self.config.connect_timeout_s;
        let now = self.now;
        let Some(conn) = self.conn(id) else { return };
        let deadline = match conn.state {
            State::AwaitsConnect | State::Authenticates | State::AwaitsAuth => {
                Some(conn.last_packet.plus_s(connect_timeout_s.into()))
            }
            State::Connected => {
                if conn.throttled {
                    // It is not read, so it cannot show that it is alive.
                    conn.last_packet = now;
                }
                // What a paused client sent may be lying there unread.
                let unread_s = if conn.paused { u32::from(conn.keep_alive_s) * 2 } else { 0 };
                keep_alive_deadline_ms(conn.last_packet.0, conn.keep_alive_s)
                    .map(|at| Millis(at).plus_s(unread_s))
            }
            State::Ended => None,
        };
        let state = conn.state;
        if state == State::Connected && self.proof_ends(id) {
            let what = "the proof of identity has expired";
            return self.disconnect(id, ReasonCode::NotAuthorized, what);
        }
        match deadline {
            Some(deadline) if deadline > now => self.conn_timers.arm(id.0, deadline),
            Some(_) if state != State::Connected => self.connect_timed_out(id),
            // [MQTT-3.1.2-22]
            Some(_) => self.disconnect(id, ReasonCode::KeepAliveTimeout, "keep alive"),
            None => {}
        }
        self.give_back_memory(id);
    }

    /// Whether what the client has shown of itself holds no longer; looked at again when it ends.
    fn proof_ends(&mut self, id: ConnId) -> bool {
        let Some((_, session)) = self.session_of(id) else { return false };
        let rights = session.rights.as_ref();
        let Some(expires_s) = rights.and_then(|rights| rights.principal().expires_s) else {
            return false;
        };
        let at = self.shared.here_at(WallMs(expires_s.saturating_mul(1000)));
        if at > self.now {
            self.conn_timers.arm(id.0, at);
        }
        at <= self.now
    }

    fn connect_timed_out(&mut self, id: ConnId) {
        let (reason, what) = (ReasonCode::MaximumConnectTime, "no CONNECT came in time");
        self.count(Count::ConnectsRefused, 1);
        self.event(Event::Refused { conn: id, client_id: None, reason, what });
        self.end_conn(id, Why::Broker(reason, what), Some(false));
    }

    /// A session that had a burst and is quiet now holds nothing of it.
    fn give_back_memory(&mut self, id: ConnId) {
        let Some((_, session)) = self.session_of(id) else { return };
        if session.outbound.as_ref().is_some_and(|outbound| outbound.is_empty()) {
            session.outbound = None;
        }
        if session.incoming.as_ref().is_some_and(|incoming| incoming.is_empty()) {
            session.incoming = None;
        }
    }

    /// Back-pressure: what the connection has sent is handled, more is read later.
    pub(super) fn pause(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.0 as usize)
            && conn.state == State::Connected
            && !std::mem::replace(&mut conn.paused, true)
        {
            if !conn.throttled {
                self.actions.push_back(Action::Pause(id));
            }
            self.paused.push(id);
            self.resume_at.get_or_insert(Millis(self.now.0 + PAUSE_MS));
        }
    }

    /// Who asks for much and takes no answer is not read either. Where retained messages wait for
    /// acknowledgements and not for the socket, only reading can help.
    #[inline]
    pub(super) fn is_behind(&self, conn: &Conn) -> bool {
        let scans = conn.extra.as_ref().map_or(0, |extra| extra.retained.len());
        conn.output.len() > self.config.max_output_bytes as usize
            || (scans > MAX_SCANS && conn.output.len() >= self.low_water())
    }

    fn read_on(&mut self) {
        let mut paused = std::mem::take(&mut self.paused);
        paused.retain(|&id| {
            let Some(conn) = self.conns.get(id.0 as usize).filter(|conn| conn.paused) else {
                return false;
            };
            if conn.state == State::Connected && self.is_behind(conn) {
                return true;
            }
            if let Some(conn) = self.conns.get_mut(id.0 as usize) {
                conn.paused = false;
                if !conn.throttled {
                    self.actions.push_back(Action::Resume(id));
                }
            }
            false
        });
        self.resume_at = (!paused.is_empty()).then(|| Millis(self.now.0 + PAUSE_MS));
        self.paused = paused;
    }
}
