//! CONNECT (section 3.1): who may come in, takeover, resume.

use std::sync::Arc;

use whimbrel_auth::{Principal, Refused, Rights};
use whimbrel_codec::{
    ConnAck, Connect, DecodeError, Packet, Properties, Property, ReasonCode, Version,
};
use whimbrel_protocol::{InFlight, OutgoingAliases};
use whimbrel_topics::validate_topic_name;

use super::access::may_publish;
use super::authenticate::told;
use super::shed::Pressure;
use super::{Flow, Shard};
use crate::conn::State;
use crate::event::{Event, Why};
use crate::message::Publication;
use crate::session::{Session, Will};
use crate::stats::Count;
use crate::{ConnId, Millis, ShardId};

/// Why a CONNECT is refused.
struct Refusal {
    reason: ReasonCode,
    what: &'static str,
}

const fn refusal(reason: ReasonCode, what: &'static str) -> Refusal {
    Refusal { reason, what }
}

/// What the properties of a CONNECT ask for.
pub(super) struct Wishes<'a> {
    session_expiry_s: u32,
    receive_maximum: u16,
    max_packet_size: u32,
    topic_alias_maximum: u16,
    response_information: bool,
    problem_information: bool,
    pub(super) method: Option<&'a str>,
    pub(super) data: Option<&'a [u8]>,
}

impl Shard {
    /// `packet`: the whole CONNECT.
    pub(super) fn connect(&mut self, id: ConnId, connect: &Connect<'_>, packet: &[u8]) -> Flow {
        if let Err(refusal) = self.check_connect(connect) {
            self.refuse(id, connect, &refusal);
            return Flow::Ended;
        }
        let assigned = connect.client_id.is_empty().then(|| self.assign_client_id());
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let home = self.shared.home(client_id);
        self.settle_pending(id);
        if home != self.id.0 {
            if let Some(conn) = self.conn(id) {
                conn.state = State::Ended;
            }
            return Flow::Move(ShardId(home));
        }
        if self.is_banned(id, connect) {
            self.refuse_banned(id, connect);
            return Flow::Ended;
        }
        self.ask(id, connect, packet, assigned.map(Into::into))
    }

    /// The client is who it says: its session, or a new one, and CONNACK. `data`: authentication
    /// data for it.
    pub(super) fn admit(
        &mut self,
        id: ConnId,
        connect: &Connect<'_>,
        assigned: Option<Box<str>>,
        principal: Arc<Principal>,
        data: Option<&[u8]>,
    ) -> Flow {
        let mut wishes = Wishes::of(connect);
        wishes.data = data;
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let opening = self.conn(id).and_then(|conn| conn.opening.as_ref());
        let address = opening.and_then(|opening| opening.peer.address).map(|a| a.ip());
        let rights = self.rights_of(principal, client_id, address);
        // While the authenticator was asked, things may have changed.
        let checked = self.check_connect(connect).and_then(|()| check_will_right(connect, &rights));
        if let Err(refusal) = checked {
            self.refuse(id, connect, &refusal);
            return Flow::Ended;
        }
        let owner = rights.as_ref().map_or("", |rights| &rights.principal().name);
        if let Err((reason, what)) = self.may_enter(id, owner, client_id) {
            self.refuse(id, connect, &refusal(reason, what));
            return Flow::Ended;
        }
        // Who has a session may come and take what waits, which makes room.
        let new = wishes.session_expiry_s > 0 && self.find_session(owner, client_id).is_none();
        if new && self.is_full() {
            let refusal = refusal(ReasonCode::QuotaExceeded, "the store has no room");
            self.refuse(id, connect, &refusal);
            return Flow::Ended;
        }
        let mark = self.records();
        let (slot, session_present) = self.open_session(id, client_id, rights, connect, &wishes);
        self.open_conn(id, slot, connect, &wishes, session_present);
        // An earlier CONNECT may have ended the session that this one wants to be without.
        let may_come_back = self.waits() && {
            let hash = self.shared.routes.topic_hash(client_id);
            self.durable.may_bring_back(hash)
        };
        if self.records() != mark || session_present || may_come_back {
            self.gate(id);
        }
        if !self.accept(id, connect, &wishes, assigned.as_deref(), session_present) {
            let what = "the CONNACK is larger than the client accepts";
            self.refused(id, Some(client_id.into()), ReasonCode::PacketTooLarge, what);
            return Flow::Ended;
        }
        self.log_connected(id, slot, connect, session_present);
        if session_present {
            self.resume(id, slot);
        }
        Flow::Continue
    }

    fn check_connect(&self, connect: &Connect<'_>) -> Result<(), Refusal> {
        if self.shutting_down {
            // CONNACK has no code of its own for it (section 3.2.2.2).
            return Err(refusal(ReasonCode::ServerUnavailable, "the broker shuts down"));
        }
        let connections = self.shared.stats.get(Count::Connections);
        if connections >= self.config.max_connections.into() {
            return Err(refusal(ReasonCode::ServerBusy, "the broker has its most connections"));
        }
        if self.pressure >= Pressure::Connects {
            return Err(refusal(ReasonCode::ServerBusy, "the broker is short of memory"));
        }
        // [MQTT-3.1.3-8] of 3.1.1; in 3.1 a client identifier is never empty.
        let may_be_empty = match connect.version {
            Version::V3_1 => false,
            Version::V3_1_1 => connect.clean_start,
            Version::V5 => true,
        };
        if connect.client_id.is_empty() && !may_be_empty {
            return Err(refusal(ReasonCode::ClientIdNotValid, "an empty client identifier"));
        }
        if connect.client_id.len() > self.config.max_client_id_bytes.into() {
            return Err(refusal(ReasonCode::ClientIdNotValid, "the client identifier is too long"));
        }
        check_will(connect)
    }

    /// An identifier of this shard, so that the connection need not move.
    fn assign_client_id(&mut self) -> String {
        loop {
            let id = format!("whimbrel-{:016x}", self.next_random());
            if self.shared.home(&id) == self.id.0 && self.find_session("", &id).is_none() {
                return id;
            }
        }
    }

    /// The client's session, kept or made, and whether it was there [MQTT-3.1.2-4] to
    /// [MQTT-3.1.2-6].
    fn open_session(
        &mut self,
        id: ConnId,
        client_id: &str,
        rights: Option<Arc<Rights>>,
        connect: &Connect<'_>,
        wishes: &Wishes<'_>,
    ) -> (u32, bool) {
        let owner = rights.as_ref().map_or("", |rights| &rights.principal().name);
        if let Some(slot) = self.find_session(owner, client_id)
            && let Some(old) = self.sessions.get(slot as usize).and_then(|s| s.conn)
        {
            // [MQTT-3.1.4-3]
            self.disconnect(old, ReasonCode::SessionTakenOver, "another connection of this client");
        }
        // Taking over may have ended the session.
        let mut existing = self.find_session(owner, client_id);
        // Its time, or its will's, may be over though its timer has not fired.
        let now = self.now;
        let due = |session: &Session| session.conn.is_none() && session.deadline() <= now;
        if let Some(slot) = existing
            && self.sessions.get(slot as usize).is_some_and(due)
        {
            self.session_due(slot);
            existing = self.find_session(owner, client_id);
        }
        if connect.clean_start
            && let Some(slot) = existing.take()
        {
            self.end_session(slot);
        }
        let slot = match existing {
            Some(slot) => slot,
            None => self.insert_session(client_id),
        };
        let will = self.will(connect);
        if let Some(session) = self.sessions.get_mut(slot as usize) {
            session.conn = Some(id);
            session.expiry_s = wishes.session_expiry_s.min(self.config.max_session_expiry_s);
            session.ends = Millis::NEVER;
            // [MQTT-3.1.3-9] A will that still waited is not published.
            session.will = will;
        }
        self.take_rights(slot, rights, existing.is_some());
        if self.durable.on {
            self.record_opened(slot, existing.is_some());
        }
        (slot, existing.is_some())
    }

    /// A session that outlives its connection is in the store; one that does not is there for its
    /// will.
    fn record_opened(&mut self, slot: u32, existed: bool) {
        let Some(session) = self.sessions.get(slot as usize) else { return };
        let (keeps, has_will) = (session.expiry_s > 0, session.will.is_some());
        match (existed, session.key.is_some()) {
            (true, true) => self.record_connected(slot),
            _ if keeps || has_will => self.record_session(slot, keeps),
            _ => {}
        }
    }

    pub(super) fn insert_session(&mut self, client_id: &str) -> u32 {
        let slot = self.sessions.insert(Session::new(client_id)) as u32;
        let routes = &self.shared.routes;
        let sessions = &self.sessions;
        self.by_client.insert_unique(routes.topic_hash(client_id), slot, |&other| {
            sessions.get(other as usize).map_or(0, |s| routes.topic_hash(&s.client_id))
        });
        self.count(Count::Sessions, 1);
        slot
    }

    fn will(&mut self, connect: &Connect<'_>) -> Option<Box<Will>> {
        let will = connect.will.as_ref()?;
        let mut delay_s = 0;
        let mut expiry_s = None;
        for property in will.properties {
            match property {
                Property::WillDelayIntervalS(s) => delay_s = s,
                Property::MessageExpiryIntervalS(s) => expiry_s = Some(s),
                _ => {}
            }
        }
        let mut forwarded = Vec::new();
        super::publish::forwardable(&will.properties, &mut forwarded);
        let mut p = Publication::new(will.topic, &forwarded, will.payload, will.qos, Millis::NEVER);
        let message = self.keep(&mut p);
        Some(Box::new(Will { message, retain: will.retain, delay_s, expiry_s, due: Millis::NEVER }))
    }

    fn open_conn(
        &mut self,
        id: ConnId,
        slot: u32,
        connect: &Connect<'_>,
        wishes: &Wishes<'_>,
        session_present: bool,
    ) {
        let max = self.config.max_keep_alive_s;
        let keep_alive_s = match connect.keep_alive_s {
            0 => max,
            wanted if max > 0 => wanted.min(max),
            wanted => wanted,
        };
        let now = self.now;
        let rights = self.sessions.get(slot as usize).and_then(|session| session.rights.as_ref());
        let limited = rights.is_some_and(|rights| !rights.is_unlimited());
        self.keep_enhanced(id, wishes.method);
        let Some(conn) = self.conn(id) else { return };
        conn.state = State::Connected;
        conn.limited = limited;
        conn.recheck = limited && session_present;
        conn.last_packet = now;
        conn.version = connect.version;
        conn.session = slot;
        conn.keep_alive_s = keep_alive_s;
        conn.max_packet_size = wishes.max_packet_size;
        conn.problem_information = wishes.problem_information;
        let max_inflight = self.take_limits(id);
        let Some(conn) = self.conn(id) else { return };
        conn.receive_maximum = wishes.receive_maximum.min(max_inflight);
        if wishes.topic_alias_maximum > 0 {
            let aliases = OutgoingAliases::new(wishes.topic_alias_maximum);
            conn.extra().outgoing_aliases = Some(aliases);
        }
        if let Some(at) = whimbrel_protocol::keep_alive_deadline_ms(now.0, keep_alive_s) {
            self.conn_timers.arm(id.0, Millis(at));
        }
        self.count(Count::Connections, 1);
        self.count(Count::ConnectsAccepted, 1);
    }

    /// Sends CONNACK `[MQTT-3.2.0-1]`. False if the client does not accept a packet so large.
    fn accept(
        &mut self,
        id: ConnId,
        connect: &Connect<'_>,
        wishes: &Wishes<'_>,
        assigned: Option<&str>,
        session_present: bool,
    ) -> bool {
        let config = self.config.clone();
        let max_packet_size = self.max_packet_size(id);
        let mut list = Vec::new();
        let response;
        if connect.version.is_v5() {
            // [MQTT-3.2.2-16]
            list.extend(assigned.map(Property::AssignedClientIdentifier));
            if wishes.session_expiry_s > config.max_session_expiry_s {
                list.push(Property::SessionExpiryIntervalS(config.max_session_expiry_s));
            }
            if config.receive_maximum < u16::MAX {
                list.push(Property::ReceiveMaximum(config.receive_maximum));
            }
            list.push(Property::MaximumPacketSizeBytes(max_packet_size));
            if config.topic_alias_maximum > 0 {
                list.push(Property::TopicAliasMaximum(config.topic_alias_maximum));
            }
            let keep_alive_s = self.conn(id).map_or(0, |conn| conn.keep_alive_s);
            if keep_alive_s != connect.keep_alive_s {
                list.push(Property::ServerKeepAliveS(keep_alive_s));
            }
            if wishes.response_information && !config.response_information.is_empty() {
                let client_id = assigned.unwrap_or(connect.client_id);
                response = format!("{}/{client_id}", config.response_information);
                list.push(Property::ResponseInformation(&response));
            }
            // [MQTT-4.12.0-5]
            list.extend(wishes.method.map(Property::AuthenticationMethod));
            if wishes.method.is_some() {
                list.extend(wishes.data.map(Property::AuthenticationData));
            }
        }
        let properties = Properties::new(&list);
        let reason = ReasonCode::Success;
        self.reply(id, &Packet::ConnAck(ConnAck { session_present, reason, properties }));
        self.conn(id).is_some_and(|conn| conn.output.len() > 0)
    }

    fn log_connected(
        &mut self,
        id: ConnId,
        slot: u32,
        connect: &Connect<'_>,
        session_present: bool,
    ) {
        let keep_alive_s = self.conn(id).map_or(0, |conn| conn.keep_alive_s);
        let Some(session) = self.sessions.get(slot as usize) else { return };
        let client_id = session.client_id.clone();
        let user = session.owner().into();
        self.set_groups_connected(slot, true);
        self.client_state(&client_id, true);
        self.event(Event::Connected {
            conn: id,
            client_id,
            user,
            version: connect.version,
            clean_start: connect.clean_start,
            session_present,
            keep_alive_s,
        });
    }

    /// Repeats what was in flight [MQTT-4.4.0-1], then goes on with what waits.
    fn resume(&mut self, id: ConnId, slot: u32) {
        let receive_maximum = self.conn(id).map_or(0, |conn| conn.receive_maximum);
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        if let Some(outbound) = &mut session.outbound {
            outbound.to_repeat = outbound.in_flight.iter().map(|(id, _)| id).collect();
        }
        let due = session.retained.take();
        self.repeat(slot, receive_maximum.into());
        self.pump(slot);
        if let (Some(due), Some(conn)) = (due, self.conn(id)) {
            conn.extra().retained = *due;
            self.send_retained(id);
        }
    }

    /// Repeats at most `most` of the deliveries that an earlier connection left in flight.
    pub(super) fn repeat(&mut self, slot: u32, most: usize) {
        let mut sent = 0;
        while sent < most {
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            let (Some(id), Some(outbound)) = (session.conn, &mut session.outbound) else { return };
            let Some(packet_id) = outbound.to_repeat.pop_front() else {
                outbound.to_repeat.shrink_to_fit();
                return;
            };
            if self.is_withheld(id, slot, packet_id) {
                self.forget(slot, packet_id);
                continue;
            }
            let Some(session) = self.sessions.get_mut(slot as usize) else { return };
            let Some(outbound) = &mut session.outbound else { return };
            // QoS 1 waits for nothing, or a new delivery would overtake it `[MQTT-4.6.0-1]`.
            let sends = match outbound.in_flight.get(packet_id) {
                Some(InFlight::Released) => {
                    let ack = whimbrel_codec::Ack::new(packet_id);
                    self.reply_when_durable(id, &Packet::PubRel(ack));
                    true
                }
                Some(InFlight::Published(_)) => self.send_in_flight(slot, packet_id, true),
                Some(InFlight::PublishedOnce(_)) => self.send_when_durable(slot, packet_id, true),
                None => continue,
            };
            sent += usize::from(sends);
        }
    }

    // ---- refusing

    fn refuse(&mut self, id: ConnId, connect: &Connect<'_>, refusal: &Refusal) {
        if let Some(conn) = self.conn(id) {
            conn.version = connect.version;
            conn.max_packet_size = Wishes::of(connect).max_packet_size;
        }
        self.send_refusal(id, refusal.reason, refusal.what, &[]);
        self.refused(id, Some(connect.client_id.into()), refusal.reason, refusal.what);
    }

    /// Too many like it have failed; that was told once.
    fn refuse_banned(&mut self, id: ConnId, connect: &Connect<'_>) {
        if let Some(conn) = self.conn(id) {
            conn.version = connect.version;
            conn.max_packet_size = Wishes::of(connect).max_packet_size;
        }
        let (reason, what) = (ReasonCode::Banned, "banned for a while");
        self.send_refusal(id, reason, what, &[]);
        self.count(Count::ConnectsRefused, 1);
        self.count(Count::RefusedBanned, 1);
        self.end_conn(id, Why::Broker(reason, what), Some(true));
    }

    /// The authenticator refused `[MQTT-4.12.0-4]`.
    pub(super) fn refuse_attempt(&mut self, id: ConnId, connect: &Connect<'_>, refused: Refused) {
        let wishes = Wishes::of(connect);
        if let Some(conn) = self.conn(id) {
            conn.version = connect.version;
            conn.max_packet_size = wishes.max_packet_size;
        }
        self.failed_login(id, connect, refused.refusal);
        let (reason, what) = told(refused.refusal);
        let mut more = Vec::new();
        if let (Some(method), Some(data)) = (wishes.method, &refused.data) {
            more = vec![Property::AuthenticationMethod(method), Property::AuthenticationData(data)];
        }
        self.send_refusal(id, reason, what, &more);
        self.count(Count::ConnectsRefused, 1);
        self.event(Event::Unauthenticated {
            conn: id,
            client_id: connect.client_id.into(),
            user: connect.user_name.map(Into::into),
            reason,
            detail: refused.detail,
        });
        self.end_conn(id, Why::Broker(reason, what), Some(true));
    }

    /// What should be a CONNECT is none. Its version, as far as can be seen, decides how that is
    /// told (section 3.1.4).
    pub(super) fn refuse_bytes(&mut self, id: ConnId, bytes: &[u8], error: DecodeError) {
        let level = connect_level(bytes);
        let unsupported = error.reason == ReasonCode::UnsupportedProtocolVersion;
        let v5 = level.is_some_and(|level| level >= 5);
        if let Some(conn) = self.conn(id) {
            conn.version = if v5 { Version::V5 } else { Version::V3_1_1 };
        }
        if v5 || unsupported {
            self.send_refusal(id, error.reason, error.what, &[]);
        }
        self.refused(id, None, error.reason, error.what);
    }

    fn send_refusal(
        &mut self,
        id: ConnId,
        reason: ReasonCode,
        what: &'static str,
        more: &[Property<'_>],
    ) {
        let mut list = vec![Property::ReasonString(what)];
        list.extend_from_slice(more);
        let properties = Properties::new(&list);
        // [MQTT-3.2.2-6]
        self.reply(id, &Packet::ConnAck(ConnAck { session_present: false, reason, properties }));
    }

    /// The connection ends without having been accepted; what its client is told was sent before.
    pub(super) fn refused(
        &mut self,
        id: ConnId,
        client_id: Option<Box<str>>,
        reason: ReasonCode,
        what: &'static str,
    ) {
        self.count(Count::ConnectsRefused, 1);
        self.event(Event::Refused { conn: id, client_id, reason, what });
        self.end_conn(id, Why::Broker(reason, what), Some(true));
    }
}

impl<'a> Wishes<'a> {
    pub(super) fn of(connect: &Connect<'a>) -> Wishes<'a> {
        let v5 = connect.version.is_v5();
        let mut wishes = Wishes {
            session_expiry_s: if v5 || connect.clean_start { 0 } else { u32::MAX },
            receive_maximum: u16::MAX,
            max_packet_size: u32::MAX,
            topic_alias_maximum: 0,
            response_information: false,
            problem_information: true,
            method: None,
            data: None,
        };
        for property in connect.properties {
            match property {
                Property::SessionExpiryIntervalS(s) => wishes.session_expiry_s = s,
                Property::ReceiveMaximum(n) => wishes.receive_maximum = n,
                Property::MaximumPacketSizeBytes(n) => wishes.max_packet_size = n,
                Property::TopicAliasMaximum(n) => wishes.topic_alias_maximum = n,
                Property::RequestResponseInformation(n) => wishes.response_information = n == 1,
                Property::RequestProblemInformation(n) => wishes.problem_information = n == 1,
                Property::AuthenticationMethod(method) => wishes.method = Some(method),
                Property::AuthenticationData(data) => wishes.data = Some(data),
                _ => {}
            }
        }
        wishes
    }
}

/// Whether the client may leave its will.
fn check_will_right(connect: &Connect<'_>, rights: &Option<Arc<Rights>>) -> Result<(), Refusal> {
    match (&connect.will, rights) {
        (Some(will), Some(rights)) if !may_publish(rights, will.topic, will.qos, will.retain) => {
            Err(refusal(ReasonCode::NotAuthorized, "not authorized to leave this will"))
        }
        _ => Ok(()),
    }
}

fn check_will(connect: &Connect<'_>) -> Result<(), Refusal> {
    let Some(will) = &connect.will else { return Ok(()) };
    if validate_topic_name(will.topic).is_err() {
        return Err(refusal(ReasonCode::TopicNameInvalid, "the will's topic is no topic name"));
    }
    if super::sys::is_sys(will.topic) {
        return Err(refusal(ReasonCode::NotAuthorized, "$SYS topics are the broker's"));
    }
    let utf8 = will.properties.iter().any(|p| p == Property::PayloadFormatIndicator(1));
    if utf8 && std::str::from_utf8(will.payload).is_err() {
        return Err(refusal(ReasonCode::PayloadFormatInvalid, "the will's payload is not UTF-8"));
    }
    Ok(())
}

/// The protocol level of what begins like a CONNECT.
fn connect_level(bytes: &[u8]) -> Option<u8> {
    if bytes.first()? >> 4 != 1 {
        return None;
    }
    let header = bytes.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0)? + 2;
    let body = bytes.get(header..)?;
    let name = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    (body.get(2..2 + name)? == b"MQTT").then(|| body.get(2 + name).copied())?
}
