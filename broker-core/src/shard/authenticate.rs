//! Who a client is (sections 3.15, 4.12): what takes its time, what takes several steps, and what
//! is shown again later.

use std::sync::Arc;

use whimbrel_auth::{
    Attempt, Exchange, Outcome, Principal, Proof, Refusal, Refused, Secret, Ticket,
};
use whimbrel_codec::{
    Auth, Connect, Disconnect, Frame, Packet, PacketType, Properties, Property, ReasonCode, Version,
};

use super::connect::Wishes;
use super::{Action, Flow, Shard};
use crate::ConnId;
use crate::conn::{Enhanced, State};
use crate::event::Why;

impl Shard {
    // ---- inputs

    /// What the layers below MQTT have shown of a connection's client. Called before its first
    /// bytes, in each shard to which it comes.
    pub fn handle_proof(&mut self, id: ConnId, proof: Arc<Proof>) {
        if let Some(opening) = self.conn(id).and_then(|conn| conn.opening.as_mut()) {
            opening.proof = Some(proof);
        }
    }

    /// Whether nothing of the connection's client has been looked at yet.
    #[inline]
    pub fn is_new(&self, id: ConnId) -> bool {
        let conn = self.conns.get(id.0 as usize);
        conn.is_some_and(|conn| conn.state == State::AwaitsConnect && conn.tail.is_empty())
    }

    /// What became of an attempt that [`whimbrel_auth::Authenticator::begin`] did not answer at
    /// once.
    pub fn handle_authenticated(&mut self, now: crate::Millis, ticket: Ticket, outcome: Outcome) {
        self.now = now;
        let id = ConnId(ticket.conn);
        let Some(conn) = self.conn(id).filter(|conn| conn.serial == ticket.serial) else { return };
        match conn.state {
            State::Authenticates => self.resume_connect(id, outcome),
            State::Connected => self.reauthenticated(id, outcome),
            State::AwaitsConnect | State::AwaitsAuth | State::Ended => {}
        }
    }

    /// The proof of a connected client no longer holds, `what` says why.
    pub fn handle_revoked(&mut self, now: crate::Millis, ticket: Ticket, what: &'static str) {
        self.now = now;
        let id = ConnId(ticket.conn);
        if self.conn(id).is_some_and(|conn| conn.serial == ticket.serial) {
            self.disconnect(id, ReasonCode::NotAuthorized, what);
        }
    }

    // ---- before CONNACK

    /// Asks who the client is. `packet`: the whole CONNECT.
    pub(super) fn ask(
        &mut self,
        id: ConnId,
        connect: &Connect<'_>,
        packet: &[u8],
        assigned: Option<Box<str>>,
    ) -> Flow {
        let data = Wishes::of(connect).data;
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let attempt = self.attempt(id, connect, client_id, data, None);
        self.submit(id, connect, packet, assigned, attempt)
    }

    /// Hands an attempt to the authenticator, which answers at once or later.
    fn submit(
        &mut self,
        id: ConnId,
        connect: &Connect<'_>,
        packet: &[u8],
        assigned: Option<Box<str>>,
        attempt: Attempt,
    ) -> Flow {
        let authenticator = self.shared.authenticator.clone();
        match authenticator.begin(self.ticket(id), attempt) {
            Some(outcome) => self.conclude(id, connect, packet, assigned, outcome),
            None => {
                self.park(id, packet, assigned, None, State::Authenticates);
                // What follows waits where it is.
                self.actions.push_back(Action::Pause(id));
                Flow::Continue
            }
        }
    }

    fn attempt(
        &mut self,
        id: ConnId,
        connect: &Connect<'_>,
        client_id: &str,
        data: Option<&[u8]>,
        exchange: Option<Exchange>,
    ) -> Attempt {
        let opening = self.conn(id).and_then(|conn| conn.opening.as_ref());
        let (peer, proof) = opening.map(|o| (o.peer, o.proof.clone())).unzip();
        Attempt {
            client_id: client_id.into(),
            user_name: connect.user_name.map(Into::into),
            password: connect.password.map(|password| Secret(password.into())),
            method: Wishes::of(connect).method.map(Into::into),
            data: data.map(|data| Secret(data.into())),
            listener: peer.map_or(u16::MAX, |peer| peer.listener),
            address: peer.and_then(|peer| peer.address),
            proof: proof.flatten(),
            exchange,
            current: None,
        }
    }

    pub(super) fn ticket(&self, id: ConnId) -> Ticket {
        let serial = self.conns.get(id.0 as usize).map_or(0, |conn| conn.serial);
        Ticket { shard: self.id.0, conn: id.0, serial }
    }

    /// Keeps the CONNECT until more is known.
    fn park(
        &mut self,
        id: ConnId,
        packet: &[u8],
        assigned: Option<Box<str>>,
        exchange: Option<Exchange>,
        state: State,
    ) {
        let Some(conn) = self.conn(id) else { return };
        conn.state = state;
        if let Some(opening) = &mut conn.opening {
            opening.connect = packet.to_vec();
            opening.assigned = assigned;
            opening.exchange = exchange;
        }
    }

    fn resume_connect(&mut self, id: ConnId, outcome: Outcome) {
        let Some(conn) = self.conn(id) else { return };
        conn.state = State::AwaitsConnect;
        let tail = std::mem::take(&mut conn.tail);
        let Some(opening) = &mut conn.opening else { return };
        let packet = std::mem::take(&mut opening.connect);
        let assigned = opening.assigned.take();
        self.buffered -= tail.len();
        self.actions.push_back(Action::Resume(id));
        if let Some(connect) = decode(&packet)
            && matches!(self.conclude(id, &connect, &packet, assigned, outcome), Flow::Continue)
        {
            self.take_bytes(id, &tail);
        }
    }

    /// Lets the client in, asks it for more, or refuses it.
    fn conclude(
        &mut self,
        id: ConnId,
        connect: &Connect<'_>,
        packet: &[u8],
        assigned: Option<Box<str>>,
        outcome: Outcome,
    ) -> Flow {
        match outcome {
            Outcome::Accepted { principal, data } => {
                self.forgive_login(id, connect);
                self.admit(id, connect, assigned, principal, data.as_deref())
            }
            Outcome::Continue { exchange, data } => {
                if let Some(conn) = self.conn(id) {
                    conn.version = connect.version;
                }
                let wishes = Wishes::of(connect);
                self.send_auth(id, ReasonCode::ContinueAuthentication, wishes.method, Some(&data));
                self.park(id, packet, assigned, Some(exchange), State::AwaitsAuth);
                Flow::Continue
            }
            Outcome::Refused(refused) => {
                self.refuse_attempt(id, connect, refused);
                Flow::Ended
            }
        }
    }

    /// `[MQTT-4.12.0-2]` `[MQTT-4.12.0-5]`
    fn send_auth(
        &mut self,
        id: ConnId,
        reason: ReasonCode,
        method: Option<&str>,
        data: Option<&[u8]>,
    ) {
        let mut list = Vec::new();
        list.extend(method.map(Property::AuthenticationMethod));
        list.extend(data.map(Property::AuthenticationData));
        self.reply(id, &Packet::Auth(Auth { reason, properties: Properties::new(&list) }));
    }

    /// A packet while the client is to authenticate on `[MQTT-3.1.2-30]`.
    pub(super) fn auth_before_connack(&mut self, id: ConnId, frame: &Frame, bytes: &[u8]) -> Flow {
        let opening = self.conn(id).and_then(|conn| conn.opening.as_mut());
        let Some(opening) = opening else { return Flow::Ended };
        let packet = std::mem::take(&mut opening.connect);
        let (assigned, exchange) = (opening.assigned.take(), opening.exchange.take());
        let Some(connect) = decode(&packet) else { return Flow::Ended };
        let what = match Packet::decode(Version::V5, frame, bytes) {
            Ok(Packet::Auth(auth)) => {
                match self.check_auth(&auth, Wishes::of(&connect).method) {
                    // [MQTT-4.12.0-3]
                    Ok(data) if auth.reason == ReasonCode::ContinueAuthentication => {
                        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
                        let attempt = self.attempt(id, &connect, client_id, data, exchange);
                        return self.submit(id, &connect, &packet, assigned, attempt);
                    }
                    Ok(_) => "this AUTH does not continue the authentication",
                    Err(what) => what,
                }
            }
            Ok(Packet::Disconnect(Disconnect { reason, .. })) => {
                self.end_conn(id, Why::Client(reason), Some(false));
                return Flow::Ended;
            }
            Ok(_) => "another packet than AUTH before CONNACK",
            Err(error) => error.what,
        };
        let refused = Refused::new(Refusal::ProtocolError, what);
        self.refuse_attempt(id, &connect, refused);
        Flow::Ended
    }

    /// The authentication data of an AUTH of the right method `[MQTT-4.12.0-5]`.
    fn check_auth<'a>(
        &self,
        auth: &Auth<'a>,
        method: Option<&str>,
    ) -> Result<Option<&'a [u8]>, &'static str> {
        let (mut same, mut data) = (false, None);
        for property in auth.properties {
            match property {
                Property::AuthenticationMethod(named) => same = Some(named) == method,
                Property::AuthenticationData(bytes) => data = Some(bytes),
                _ => {}
            }
        }
        if same { Ok(data) } else { Err("an AUTH of another authentication method") }
    }

    // ---- after CONNACK

    /// Remembers what re-authentication needs; called when the client is let in.
    pub(super) fn keep_enhanced(&mut self, id: ConnId, method: Option<&str>) {
        let Some(conn) = self.conn(id) else { return };
        let Some(opening) = conn.opening.take() else { return };
        if let Some(method) = method {
            let (peer, proof) = (opening.peer, opening.proof);
            let method = method.into();
            let enhanced = Enhanced { method, peer, proof, exchange: None, asks: false };
            conn.extra().enhanced = Some(Box::new(enhanced));
        }
    }

    /// AUTH of a connected client: it shows again who it is `[MQTT-4.12.1-1]`.
    pub(super) fn auth(&mut self, id: ConnId, auth: &Auth<'_>) {
        const FAULT: ReasonCode = ReasonCode::ProtocolError;
        let enhanced = |shard: &mut Shard| {
            let extra = shard.conn(id)?.extra.as_mut()?;
            extra.enhanced.take()
        };
        // [MQTT-4.12.0-7]
        let Some(mut enhanced) = enhanced(self) else {
            return self.disconnect(id, FAULT, "AUTH without an authentication method");
        };
        let data = match self.check_auth(auth, Some(&enhanced.method)) {
            Ok(data) => data,
            Err(what) => return self.disconnect(id, FAULT, what),
        };
        let begins = auth.reason == ReasonCode::Reauthenticate && enhanced.exchange.is_none();
        let continues =
            auth.reason == ReasonCode::ContinueAuthentication && enhanced.exchange.is_some();
        if enhanced.asks || !(begins || continues) {
            return self.disconnect(id, FAULT, "this AUTH does not continue an authentication");
        }
        let Some((_, session)) = self.session_of(id) else { return };
        let attempt = Attempt {
            client_id: session.client_id.clone(),
            user_name: None,
            password: None,
            method: Some(enhanced.method.clone()),
            data: data.map(|data| Secret(data.into())),
            listener: enhanced.peer.listener,
            address: enhanced.peer.address,
            proof: enhanced.proof.clone(),
            exchange: enhanced.exchange.take(),
            current: session.rights.as_ref().map(|rights| rights.principal().clone()),
        };
        enhanced.asks = true;
        if let Some(conn) = self.conn(id) {
            conn.extra().enhanced = Some(enhanced);
        }
        let authenticator = self.shared.authenticator.clone();
        if let Some(outcome) = authenticator.begin(self.ticket(id), attempt) {
            self.reauthenticated(id, outcome);
        }
    }

    fn reauthenticated(&mut self, id: ConnId, outcome: Outcome) {
        let extra = self.conn(id).and_then(|conn| conn.extra.as_mut());
        let Some(enhanced) = extra.and_then(|extra| extra.enhanced.as_mut()) else { return };
        if !std::mem::take(&mut enhanced.asks) {
            return;
        }
        let method = enhanced.method.clone();
        let address = enhanced.peer.address;
        match outcome {
            Outcome::Accepted { principal, data } => {
                if !self.is_same_principal(id, &principal) {
                    let what = "re-authentication as somebody else";
                    return self.disconnect(id, ReasonCode::NotAuthorized, what);
                }
                let Some((slot, session)) = self.session_of(id) else { return };
                let client_id = session.client_id.clone();
                let rights = self.rights_of(principal, &client_id, address.map(|a| a.ip()));
                self.take_rights(slot, rights, true);
                self.send_auth(id, ReasonCode::Success, Some(&method), data.as_deref());
            }
            Outcome::Continue { exchange, data } => {
                enhanced.exchange = Some(exchange);
                let reason = ReasonCode::ContinueAuthentication;
                self.send_auth(id, reason, Some(&method), Some(&data));
            }
            // [MQTT-4.12.1-2]
            Outcome::Refused(refused) => {
                let (reason, what) = told(refused.refusal);
                self.denied(id, "re-authenticate", &refused.detail);
                self.disconnect(id, reason, what);
            }
        }
    }

    fn is_same_principal(&mut self, id: ConnId, principal: &Principal) -> bool {
        self.session_of(id).is_some_and(|(_, session)| session.owner() == &*principal.name)
    }
}

/// A CONNECT that was understood before.
fn decode(packet: &[u8]) -> Option<Connect<'_>> {
    let frame = Frame::parse(packet, u32::MAX).ok()??;
    match (frame.packet_type, Packet::decode(Version::V5, &frame, packet)) {
        (PacketType::Connect, Ok(Packet::Connect(connect))) => Some(connect),
        _ => None,
    }
}

/// What a refused client is told.
pub(super) fn told(refusal: Refusal) -> (ReasonCode, &'static str) {
    match refusal {
        Refusal::UnknownMethod => {
            let what = "the authentication method is not known here";
            (ReasonCode::BadAuthenticationMethod, what)
        }
        Refusal::BadUserNameOrPassword => {
            (ReasonCode::BadUserNameOrPassword, "bad user name or password")
        }
        Refusal::NotAuthorized => (ReasonCode::NotAuthorized, "not authorized"),
        Refusal::Unavailable => {
            (ReasonCode::ServerUnavailable, "authentication is not available now")
        }
        Refusal::Busy => (ReasonCode::ServerBusy, "too many clients authenticate at once"),
        Refusal::Banned => (ReasonCode::Banned, "banned for a while"),
        Refusal::QuotaExceeded => (ReasonCode::QuotaExceeded, "too many connections"),
        Refusal::ProtocolError => {
            (ReasonCode::ProtocolError, "the authentication data are not of the method")
        }
    }
}
