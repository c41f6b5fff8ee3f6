//! Limits of some clients only: who may come in, how fast they may send, and who is banned.

use core::net::{IpAddr, SocketAddr};
use std::cmp::Reverse;

use whimbrel_auth::Refusal;
use whimbrel_codec::{Connect, ReasonCode};

use super::{Action, Shard};
use crate::conn::{Peer, State};
use crate::event::{Event, Why};
use crate::quota::{Culprit, Excess, Limit, Per, Policy, Subject, first, source};
use crate::session::Bounds;
use crate::stats::Count;
use crate::{ConnId, Millis};

/// Why a connection is not to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Its address is banned, which was told when the ban began.
    Banned,
    /// It would go beyond this limit of a table.
    Limit(&'static str),
}

impl Shard {
    // ---- coming in

    /// Whether a connection from there may be opened. To be asked once for each, before anything is
    /// spent on it. One of a proxy has no address yet: [`Shard::handle_source`] asks again. A
    /// connection that comes from another shard was asked for there.
    ///
    /// # Errors
    /// Why not: close the socket.
    pub fn may_open(&mut self, now: Millis, peer: &Peer) -> Result<(), TurnedAway> {
        self.now = now;
        let bans = &self.shared.quotas.bans;
        if bans.may_be(now)
            && let Some(address) = self.bannable(peer.address.map(|address| address.ip()))
            && bans.is_banned(now, &Culprit::Address(address))
        {
            self.count(Count::RefusedBanned, 1);
            return Err(TurnedAway::Banned);
        }
        let subject = opening_of(peer);
        let checked = self.shared.quotas.check(now, &self.config.limits, &subject, None);
        checked.map_err(|excess| {
            self.count(Count::RefusedLimit, 1);
            TurnedAway::Limit(match excess {
                Excess::Connections => "max_connections of its listener or address",
                Excess::ConnectRate => "max_connects_per_s of its listener or address",
            })
        })
    }

    /// A proxy has told from where a connection comes that was opened without an address. Called
    /// before its first bytes; the connection may end here, as it would have in
    /// [`Shard::may_open`].
    pub fn handle_source(&mut self, id: ConnId, source: SocketAddr) {
        let Some(opening) = self.conn(id).and_then(|conn| conn.opening.as_mut()) else { return };
        if opening.peer.address.replace(source) == Some(source) {
            return;
        }
        let peer = opening.peer;
        let bans = &self.shared.quotas.bans;
        if bans.may_be(self.now)
            && let Some(address) = self.bannable(Some(source.ip()))
            && bans.is_banned(self.now, &Culprit::Address(address))
        {
            self.count(Count::RefusedBanned, 1);
            let why = Why::Broker(ReasonCode::Banned, "banned for a while");
            return self.end_conn(id, why, Some(false));
        }
        // The others were judged when it was opened.
        let by_address = |limit: &&Limit| limit.per == Per::Address || limit.of.address.is_some();
        let limits: Vec<Limit> = self.config.limits.iter().filter(by_address).cloned().collect();
        if self.shared.quotas.check(self.now, &limits, &opening_of(&peer), None).is_err() {
            self.count(Count::RefusedLimit, 1);
            let what = "more connections than its address may have";
            return self.refused(id, None, ReasonCode::QuotaExceeded, what);
        }
        self.count_open(id, &peer);
    }

    /// Counts a connection that is open now.
    pub(super) fn count_open(&mut self, id: ConnId, peer: &Peer) {
        if self.config.limits.is_empty() {
            return;
        }
        let quota = self.conn(id).and_then(|conn| conn.quota.take());
        let mut quota = quota.unwrap_or_default();
        quota.address = peer.address.map(|address| address.ip());
        let subject = opening_of(peer);
        self.shared.quotas.hold(self.now, &self.config.limits, &subject, &mut quota);
        if let Some(conn) = self.conn(id) {
            conn.quota = Some(quota);
        }
    }

    /// Whether the client, which is known by now, may come in.
    pub(super) fn may_enter(
        &mut self,
        id: ConnId,
        user: &str,
        client_id: &str,
    ) -> Result<(), (ReasonCode, &'static str)> {
        self.check_flapping(id, user, client_id)?;
        if self.config.limits.is_empty() {
            return Ok(());
        }
        let Some(conn) = self.conns.get(id.0 as usize) else { return Ok(()) };
        let address = conn.quota.as_ref().and_then(|quota| quota.address);
        let subject = Subject { listener: conn.listener, address, client: Some((user, client_id)) };
        // It takes the place of one that it has.
        let session = self.find_session(user, client_id);
        let old = session.and_then(|slot| self.sessions.get(slot as usize)?.conn);
        let old = old.and_then(|old| self.conns.get(old.0 as usize));
        let replaced = old.and_then(|old| old.quota.as_deref());
        let checked = self.shared.quotas.check(self.now, &self.config.limits, &subject, replaced);
        checked.map_err(|excess| {
            self.count(Count::RefusedLimit, 1);
            match excess {
                Excess::Connections => (ReasonCode::QuotaExceeded, "too many connections"),
                Excess::ConnectRate => {
                    (ReasonCode::ConnectionRateExceeded, "too many connections in a short time")
                }
            }
        })
    }

    /// What the tables say of a client that was let in, or of one when they have changed. Gives
    /// how many deliveries it may have in flight.
    pub(super) fn take_limits(&mut self, id: ConnId) -> u16 {
        let config = &self.config;
        let (limits, max_inflight) = (&config.limits, config.max_inflight);
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return max_inflight };
        conn.max_incoming_size = config.max_packet_size_bytes;
        let Some(session) = self.sessions.get_mut(conn.session as usize) else {
            return max_inflight;
        };
        session.bounds = None;
        if limits.is_empty() && conn.quota.is_none() {
            return max_inflight;
        }
        let mut quota = conn.quota.take().unwrap_or_default();
        let client = Some((session.owner(), &*session.client_id));
        let subject = Subject { listener: conn.listener, address: quota.address, client };
        self.shared.quotas.release_client(self.now, &mut quota);
        self.shared.quotas.hold(self.now, limits, &subject, &mut quota);
        conn.metered = quota.is_metered();
        conn.quota = Some(quota);
        conn.max_incoming_size =
            first(limits, &subject, |v| v.max_packet_size_bytes).unwrap_or(conn.max_incoming_size);
        let max_inflight = first(limits, &subject, |v| v.max_inflight).unwrap_or(max_inflight);
        let subscriptions = first(limits, &subject, |values| values.max_subscriptions);
        let messages = first(limits, &subject, |values| values.max_queued_messages);
        let bytes = first(limits, &subject, |values| values.max_queued_bytes);
        if subscriptions.is_some() || messages.is_some() || bytes.is_some() {
            let general = Bounds::of(config);
            session.bounds = Some(Box::new(Bounds {
                max_subscriptions: subscriptions.unwrap_or(general.max_subscriptions),
                max_queued_messages: messages.unwrap_or(general.max_queued_messages),
                max_queued_bytes: bytes.unwrap_or(general.max_queued_bytes),
            }));
        }
        max_inflight
    }

    /// The client has gone; its socket may still be open.
    pub(super) fn release_client(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        conn.metered = false;
        if let Some(quota) = &mut conn.quota {
            self.shared.quotas.release_client(self.now, quota);
        }
    }

    /// The socket is closed.
    pub(super) fn release_all(&mut self, id: ConnId) {
        let quota = self.conn(id).and_then(|conn| conn.quota.take());
        if let Some(mut quota) = quota {
            self.shared.quotas.release_all(self.now, &mut quota);
        }
    }

    // ---- those that have not sent CONNECT

    /// Beyond the limit the oldest goes: who is slow on purpose is there longest.
    pub(super) fn count_pending(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id.0 as usize) else { return };
        self.pending.push_back((id, conn.serial));
        self.pending_count += 1;
        let most = self.config.max_pending_connections as usize / usize::from(self.shared.shards());
        if self.pending_count > most.max(1) {
            self.close_oldest_pending();
        }
        if self.pending.len() > 2 * self.pending_count + 64 {
            let conns = &self.conns;
            self.pending.retain(|&(id, serial)| {
                let conn = conns.get(id.0 as usize).filter(|conn| conn.serial == serial);
                conn.and_then(|conn| conn.opening.as_ref()).is_some_and(|opening| opening.pending)
            });
        }
    }

    fn close_oldest_pending(&mut self) {
        while let Some((id, serial)) = self.pending.pop_front() {
            let conn = self.conns.get(id.0 as usize).filter(|conn| conn.serial == serial);
            if conn.and_then(|conn| conn.opening.as_ref()).is_some_and(|opening| opening.pending) {
                let what = "too many connections have not sent CONNECT";
                self.count(Count::ClosedPending, 1);
                let (client_id, reason) = (None, ReasonCode::ServerBusy);
                self.event(Event::Refused { conn: id, client_id, reason, what });
                return self.end_conn(id, Why::Broker(reason, what), Some(false));
            }
        }
    }

    /// Its CONNECT has come, or it has gone.
    pub(super) fn settle_pending(&mut self, id: ConnId) {
        let opening = self.conn(id).and_then(|conn| conn.opening.as_mut());
        if opening.is_some_and(|opening| std::mem::take(&mut opening.pending)) {
            self.pending_count -= 1;
        }
    }

    // ---- rates

    /// A PUBLISH of a client with a rate.
    #[cold]
    pub(super) fn meter_message(&mut self, id: ConnId) {
        let quota = self.conns.get(id.0 as usize).and_then(|conn| conn.quota.as_ref());
        if let Some(until) = quota.and_then(|quota| quota.message(self.now)) {
            self.throttle(id, until);
        }
    }

    /// Bytes of a client with a rate.
    #[cold]
    pub(super) fn meter_bytes(&mut self, id: ConnId, n: usize) {
        let quota = self.conns.get(id.0 as usize).and_then(|conn| conn.quota.as_ref());
        if let Some(until) = quota.and_then(|quota| quota.bytes(self.now, n as u64)) {
            self.throttle(id, until);
        }
    }

    /// Nothing more is taken from the client for a while; the network holds it back.
    fn throttle(&mut self, id: ConnId, until: Millis) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        if conn.state != State::Connected || std::mem::replace(&mut conn.throttled, true) {
            return;
        }
        self.throttled.push(Reverse((until, id, conn.serial)));
        if !conn.paused {
            self.actions.push_back(Action::Pause(id));
        }
        self.count(Count::Throttled, 1);
    }

    /// When somebody may send on.
    pub(super) fn throttle_timeout(&self) -> Option<Millis> {
        self.throttled.peek().map(|Reverse((until, ..))| *until)
    }

    pub(super) fn release_throttled(&mut self) {
        while self.throttle_timeout().is_some_and(|until| until <= self.now) {
            let Some(Reverse((_, id, serial))) = self.throttled.pop() else { return };
            let now = self.now;
            let Some(conn) = self.conn(id) else { continue };
            if conn.serial != serial || !conn.throttled || conn.state != State::Connected {
                continue;
            }
            conn.throttled = false;
            // It could not show that it is alive.
            conn.last_packet = now;
            let tail = std::mem::take(&mut conn.tail);
            self.buffered -= tail.len();
            self.take_bytes(id, &tail);
            if self.conn(id).is_some_and(|conn| !conn.throttled && !conn.paused) {
                self.actions.push_back(Action::Resume(id));
            }
        }
    }

    // ---- bans

    /// The address as it is banned; none if it is not to be.
    fn bannable(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        let exempt = |ip: &IpAddr| ip.to_canonical().is_loopback() && !self.config.ban_loopback;
        address.filter(|ip| !exempt(ip)).map(source)
    }

    fn opening_address(&self, id: ConnId) -> Option<IpAddr> {
        let opening = self.conns.get(id.0 as usize)?.opening.as_ref()?;
        self.bannable(opening.peer.address.map(|address| address.ip()))
    }

    /// Whether nobody is to be asked about this CONNECT: too many like it have failed.
    pub(super) fn is_banned(&self, id: ConnId, connect: &Connect<'_>) -> bool {
        let bans = &self.shared.quotas.bans;
        if !bans.may_be(self.now) {
            return false;
        }
        let Some(address) = self.opening_address(id) else { return false };
        bans.is_banned(self.now, &Culprit::Address(address))
            || bans.is_banned(self.now, &login(address, connect))
    }

    /// A login has failed.
    pub(super) fn failed_login(&mut self, id: ConnId, connect: &Connect<'_>, refusal: Refusal) {
        if !matches!(refusal, Refusal::BadUserNameOrPassword | Refusal::NotAuthorized) {
            return;
        }
        self.count(Count::FailedLogins, 1);
        let Some(address) = self.opening_address(id) else { return };
        let (all, one) = (Culprit::Address(address), login(address, connect));
        let most = self.config.max_failed_logins_per_address;
        self.strike(&all, self.failures(most), "too many failed logins");
        let most = self.config.max_failed_logins;
        self.strike(&one, self.failures(most), "too many failed logins");
    }

    /// A login has not failed.
    pub(super) fn forgive_login(&self, id: ConnId, connect: &Connect<'_>) {
        let bans = &self.shared.quotas.bans;
        let policy = self.failures(self.config.max_failed_logins);
        if bans.may_have_failed(self.now, policy)
            && let Some(address) = self.opening_address(id)
        {
            bans.forgive(&login(address, connect));
        }
    }

    fn failures(&self, most: u16) -> Policy {
        let config = &self.config;
        let window_s = config.failed_logins_window_s.into();
        Policy { most: most.into(), window_s, ban_s: config.ban_s.into() }
    }

    fn check_flapping(
        &mut self,
        id: ConnId,
        user: &str,
        client_id: &str,
    ) -> Result<(), (ReasonCode, &'static str)> {
        let config = &self.config;
        if config.max_reconnects == 0 {
            return Ok(());
        }
        let Some(address) = self.opening_address(id) else { return Ok(()) };
        let culprit = Culprit::Client(address, user.into(), client_id.into());
        let policy = Policy {
            // One more than may be.
            most: u32::from(config.max_reconnects) + 1,
            window_s: config.reconnects_window_s.into(),
            ban_s: config.ban_s.into(),
        };
        self.strike(&culprit, policy, "it connects too often");
        if self.shared.quotas.bans.is_banned(self.now, &culprit) {
            self.count(Count::RefusedBanned, 1);
            return Err((ReasonCode::Banned, "banned for a while"));
        }
        Ok(())
    }

    fn strike(&mut self, culprit: &Culprit, policy: Policy, why: &'static str) {
        if !self.shared.quotas.bans.strike(self.now, culprit, policy) {
            return;
        }
        self.count(Count::Bans, 1);
        let (address, user, client_id) = match culprit {
            Culprit::Address(address) => (*address, None, None),
            Culprit::Login(address, user) => (*address, Some(user.clone()), None),
            Culprit::Client(address, user, client_id) => {
                (*address, Some(user.clone()), Some(client_id.clone()))
            }
        };
        let for_s = self.config.ban_s;
        self.event(Event::Banned { address, user, client_id, for_s, why });
    }
}

fn login(address: IpAddr, connect: &Connect<'_>) -> Culprit {
    Culprit::Login(address, connect.user_name.unwrap_or_default().into())
}

fn opening_of(peer: &Peer) -> Subject<'static> {
    let address = peer.address.map(|address| address.ip());
    Subject { listener: peer.listener, address, client: None }
}
