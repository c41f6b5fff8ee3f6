//! A shard: the connections and sessions of one thread.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;
use whimbrel_codec::{
    DecodeError, Disconnect, Frame, Packet, PacketType, Properties, Property, ReasonCode,
};
use whimbrel_store::Store;

use crate::cache::RouteCache;
use crate::conn::{Conn, NO_SESSION, Peer, State};
use crate::encode::Encoder;
use crate::event::{Event, Why};
use crate::output::{Chunks, Pool};
use crate::session::Session;
use crate::stats::Count;
use crate::timers::Timers;
use crate::{Config, ConnId, Mail, Millis, ShardId, Shared};

mod access;
mod ack;
mod authenticate;
mod close;
mod connect;
mod deliver;
mod durable;
mod explain;
mod publish;
mod quota;
mod restate;
mod restore;
mod retained;
mod shed;
mod spilled;
mod subscribe;
mod sys;
mod timeout;

pub use explain::{
    Answer, Client, DisconnectOutcome, Fate, Group, Judgement, Question, Receiver, Wanted,
};
pub use quota::TurnedAway;
pub use restore::ReadMessage;

/// What the runtime is to do.
#[derive(Debug)]
pub enum Action {
    /// [`Shard::output`] of this connection has grown: send it, once, unless the socket is known
    /// to take nothing; then send when it does.
    Send(ConnId),
    /// Write what [`Shard::output`] holds, close the socket, then call [`Shard::handle_closed`].
    Close {
        /// Which connection.
        conn: ConnId,
        /// The peer should be able to read the last packet: do not reset the connection.
        linger: bool,
    },
    /// The client's session lives in another shard. Take the socket out of this one and call
    /// [`Shard::handle_closed`] here; there call [`Shard::handle_open`], then
    /// [`Shard::handle_bytes`] with `bytes`.
    Move {
        /// Which connection.
        conn: ConnId,
        /// The shard to move to.
        to: ShardId,
        /// All bytes that it has sent.
        bytes: Vec<u8>,
    },
    /// Stop reading this socket.
    Pause(ConnId),
    /// Go on reading it.
    Resume(ConnId),
    /// For the log.
    Event(Box<Event>),
}

/// The connections and sessions of one thread.
pub struct Shard {
    id: ShardId,
    now: Millis,
    shared: Arc<Shared>,
    config: Arc<Config>,
    durable: durable::Durable,
    conns: Slab<Conn>,
    sessions: Slab<Session>,
    /// Slots of `sessions` by client identifier.
    by_client: HashTable<u32>,
    cache: RouteCache,
    encoder: Encoder,
    pool: Pool,
    conn_timers: Timers,
    session_timers: Timers,
    fired: Vec<u32>,
    /// By shard; the own one stays empty.
    mail: Vec<Mail>,
    mail_polled: usize,
    dirty: Vec<ConnId>,
    actions: VecDeque<Action>,
    /// Closed, and their slots not yet free: an action that waits may still name them.
    closed: Vec<ConnId>,
    paused: Vec<ConnId>,
    /// When the paused are looked at.
    resume_at: Option<Millis>,
    /// Not read until this time, with their serial numbers, because of their rate.
    throttled: BinaryHeap<Reverse<(Millis, ConnId, u32)>>,
    /// In the order in which they were opened; most of those that have not sent CONNECT.
    pending: VecDeque<(ConnId, u32)>,
    /// How many have not.
    pending_count: usize,
    /// Bytes in outputs, tails and subscriptions; published to [`Shared`] once per tick.
    buffered: usize,
    pressure: shed::Pressure,
    /// When the connections with the largest buffers are looked for.
    shed_at: Option<Millis>,
    retained_expiry: retained::Expiries,
    sys: sys::Sys,
    /// Retained messages looked at in this tick.
    looked: usize,
    /// Those whose search for retained messages goes on in the next tick.
    searching: Vec<ConnId>,
    /// Retained messages that were just looked up.
    found: Vec<crate::Message>,
    /// Properties of the PUBLISH that is being handled, as they are forwarded.
    forwarded: Vec<u8>,
    /// State of the generator of assigned client identifiers.
    random: u64,
    /// Connections opened so far.
    opened: u32,
    shutting_down: bool,
    /// The first slot of `sessions` that has not taken up changed rules; none if all have.
    under_new_rules: Option<usize>,
}

/// What a packet leads to.
enum Flow {
    Continue,
    /// Nothing more is taken from this connection.
    Ended,
    Move(ShardId),
}

impl Shard {
    /// A shard without connections. `seed` should be unpredictable: client identifiers that the
    /// broker assigns come from it.
    pub fn new(
        id: ShardId,
        shared: Arc<Shared>,
        config: Arc<Config>,
        store: Box<dyn Store>,
        seed: u64,
        now: Millis,
    ) -> Shard {
        let shards = usize::from(shared.shards());
        Shard {
            id,
            now,
            conns: Slab::new(),
            sessions: Slab::new(),
            by_client: HashTable::new(),
            cache: RouteCache::new(),
            encoder: Encoder::default(),
            pool: Pool::default(),
            conn_timers: Timers::new(now),
            session_timers: Timers::new(now),
            fired: Vec::new(),
            mail: (0..shards).map(|_| Mail::default()).collect(),
            mail_polled: 0,
            dirty: Vec::new(),
            actions: VecDeque::new(),
            closed: Vec::new(),
            paused: Vec::new(),
            resume_at: None,
            throttled: BinaryHeap::new(),
            pending: VecDeque::new(),
            pending_count: 0,
            buffered: 0,
            pressure: shed::Pressure::None,
            shed_at: None,
            retained_expiry: retained::Expiries::default(),
            sys: sys::Sys::new(now, &config),
            looked: 0,
            searching: Vec::new(),
            found: Vec::new(),
            forwarded: Vec::new(),
            random: seed,
            opened: 0,
            shutting_down: false,
            under_new_rules: None,
            shared,
            config,
            durable: durable::Durable::new(store),
        }
    }

    // ---- inputs

    /// A network connection was opened.
    pub fn handle_open(&mut self, now: Millis, peer: Peer) -> ConnId {
        self.now = now;
        self.opened = self.opened.wrapping_add(1);
        let conn = Conn::new(now, self.opened, peer, self.config.max_connect_size_bytes);
        let id = ConnId(self.conns.insert(conn) as u32);
        self.conn_timers.arm(id.0, now.plus_s(self.config.connect_timeout_s.into()));
        self.count_open(id, &peer);
        self.count_pending(id);
        id
    }

    /// Bytes came. All of them are taken: whole packets are handled, the beginning of a torn one
    /// is kept.
    pub fn handle_bytes(&mut self, now: Millis, id: ConnId, bytes: &[u8]) {
        self.now = now;
        self.count(Count::BytesReceived, bytes.len() as u64);
        if self.take_bytes(id, bytes) {
            self.meter_bytes(id, bytes.len());
        }
    }

    /// True if the client has a rate to keep.
    fn take_bytes(&mut self, id: ConnId, mut bytes: &[u8]) -> bool {
        let Some(conn) = self.conn(id) else { return false };
        let metered = conn.metered;
        if conn.state == State::Authenticates || conn.throttled {
            // Read before the runtime was told to wait.
            conn.tail.extend_from_slice(bytes);
            self.buffered += bytes.len();
            return metered;
        }
        if !conn.tail.is_empty() {
            let mut tail = std::mem::take(&mut conn.tail);
            self.buffered -= tail.len();
            if !self.complete(id, &mut tail, &mut bytes) {
                return metered;
            }
            let taken = self.packets(id, &tail, bytes);
            debug_assert_eq!(taken, tail.len());
            self.pool.give(tail);
        }
        let taken = self.packets(id, bytes, &[]);
        let rest = bytes.get(taken..).unwrap_or_default();
        if !rest.is_empty() {
            self.keep_tail(id, rest);
        }
        if self.conns.get(id.0 as usize).is_some_and(|conn| self.is_behind(conn)) {
            self.pause(id);
        }
        metered
    }

    /// The socket took `n` bytes of [`Shard::output`].
    pub fn handle_written(&mut self, now: Millis, id: ConnId, n: usize) {
        self.now = now;
        self.count(Count::BytesSent, n as u64);
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        let held = conn.output.held();
        conn.output.written(n, &mut self.pool);
        conn.taken = conn.taken.wrapping_add(n as u32);
        self.buffered -= held - conn.output.held();
        let (session, state) = (conn.session, conn.state);
        let waits = conn.extra.as_ref().is_some_and(|extra| !extra.retained.is_empty());
        if state == State::Connected && conn.output.len() < self.low_water() {
            if waits {
                self.send_retained(id);
            }
            self.pump(session);
        }
    }

    /// The socket is gone, for whatever reason. Called once for each connection.
    pub fn handle_closed(&mut self, now: Millis, id: ConnId) {
        self.now = now;
        if self.conns.get(id.0 as usize).is_none() {
            return;
        }
        self.settle_pending(id);
        self.end_conn(id, Why::Lost, None);
        self.release_all(id);
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        let output = std::mem::take(&mut conn.output);
        self.buffered -= output.held();
        self.closed.push(id);
    }

    /// Mail of another shard came; it is left empty.
    pub fn handle_mail(&mut self, now: Millis, mail: &mut Mail) {
        self.now = now;
        let recorded = mail.take_recorded();
        mail.drain(|to, retain, publication| {
            self.receive(to, retain, publication);
            self.reply_when_recorded(publication);
        });
        if !recorded.is_empty() {
            self.handle_recorded(&recorded);
        }
    }

    // ---- commands

    /// Tells all clients that the broker stops, and closes their connections.
    pub fn shut_down(&mut self, now: Millis) {
        self.now = now;
        self.shutting_down = true;
        let all: Vec<ConnId> = self.conns.iter().map(|(id, _)| ConnId(id as u32)).collect();
        for id in all {
            self.disconnect(id, ReasonCode::ServerShuttingDown, "the broker shuts down");
        }
    }

    /// Limits that hold from now on.
    pub fn reconfigure(&mut self, config: Arc<Config>) {
        self.sys.reconfigure(self.now, &config);
        self.config = config;
        for at in 0..self.conns.capacity() {
            match self.conns.get_mut(at).map(|conn| (conn.state, conn)) {
                Some((State::Connected, _)) => {
                    self.take_limits(ConnId(at as u32));
                }
                Some((_, conn)) => conn.max_incoming_size = self.config.max_connect_size_bytes,
                None => {}
            }
        }
    }

    // ---- outputs

    /// What to do next; drained at the end of a tick.
    pub fn poll_action(&mut self, now: Millis) -> Option<Action> {
        self.now = now;
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let Some(id) = self.dirty.pop() else {
                self.publish_buffered();
                self.looked = 0;
                for id in self.closed.drain(..) {
                    self.conns.try_remove(id.0 as usize);
                }
                return None;
            };
            let Some(conn) = self.conns.get_mut(id.0 as usize) else { continue };
            conn.dirty = false;
            if conn.output.len() > 0 && conn.state != State::Ended && !conn.gated {
                if conn.output.len() > shed::UNWATCHED && !conn.watched {
                    self.watch(id);
                }
                return Some(Action::Send(id));
            }
        }
    }

    /// What waits to be sent on a connection.
    pub fn output(&self, id: ConnId) -> Chunks<'_> {
        match self.conns.get(id.0 as usize) {
            // Whoever asks: it waits for the disk.
            Some(conn) if !conn.gated => conn.output.chunks(),
            _ => Chunks::none(),
        }
    }

    /// Mail for another shard, each destination once per round; take all of it. The first call of
    /// a round ends the batch of records, for mail says where its messages are in the store.
    pub fn poll_mail(&mut self) -> Option<(ShardId, &mut Mail)> {
        if self.mail_polled == 0 {
            self.commit();
        }
        while self.mail_polled < self.mail.len() {
            let at = self.mail_polled;
            self.mail_polled += 1;
            if self.mail.get(at).is_some_and(|mail| !mail.is_empty()) {
                return self.mail.get_mut(at).map(|mail| (ShardId(at as u16), mail));
            }
        }
        self.mail_polled = 0;
        None
    }

    /// When [`Shard::handle_timeout`] is next needed.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let timers = [self.conn_timers.next(), self.session_timers.next(), self.sys.next()];
        let search = (!self.searching.is_empty()).then_some(self.now);
        let restate = self.restate_timeout();
        let rules = self.rules_timeout();
        let others = [self.retained_expiry.next(), self.resume_at, search, restate, rules];
        let short = [self.throttle_timeout(), self.shed_at];
        timers.into_iter().chain(others).chain(short).flatten().min()
    }

    // ---- getters

    /// Index of the listener that a connection came to.
    pub fn listener(&self, id: ConnId) -> u16 {
        self.conns.get(id.0 as usize).map_or(0, |conn| conn.listener)
    }

    /// Open connections, those that have not sent CONNECT included.
    pub fn connection_count(&self) -> usize {
        self.conns.len() - self.closed.len()
    }

    /// Sessions, connected or not.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    // ---- bytes to packets

    /// Fills `tail`, the beginning of a packet, from the front of `bytes`. False if the rest is
    /// still missing (then the tail is kept) or the packet is no packet.
    fn complete(&mut self, id: ConnId, tail: &mut Vec<u8>, bytes: &mut &[u8]) -> bool {
        loop {
            let missing = match Frame::parse(tail, self.max_packet_size(id)) {
                Ok(Some(frame)) => frame.packet_len().saturating_sub(tail.len()),
                Ok(None) => 1,
                // The same error comes again where packets are taken.
                Err(_) => return true,
            };
            if missing == 0 {
                return true;
            }
            let Some((now, later)) = bytes.split_at_checked(missing) else {
                tail.extend_from_slice(bytes);
                self.buffered += tail.len();
                if let Some(conn) = self.conn(id) {
                    conn.tail = std::mem::take(tail);
                }
                self.shed_tail(id);
                return false;
            };
            tail.extend_from_slice(now);
            *bytes = later;
        }
    }

    /// Handles the whole packets at the start of `bytes` and gives their length together. `later`
    /// came behind `bytes`: it goes along when the connection moves.
    fn packets(&mut self, id: ConnId, bytes: &[u8], later: &[u8]) -> usize {
        let mut taken = 0;
        loop {
            let now = self.now;
            let Some(conn) = self.conn(id) else { return bytes.len() };
            let max_packet_size = conn.max_incoming_size;
            match conn.state {
                State::Ended => return bytes.len(),
                State::Authenticates => return taken,
                _ if conn.throttled => return taken,
                _ => {}
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            let frame = match Frame::parse(rest, max_packet_size) {
                Ok(Some(frame)) if frame.packet_len() <= rest.len() => frame,
                Ok(_) => return taken,
                Err(error) => {
                    self.fail(id, rest, error);
                    return bytes.len();
                }
            };
            if conn.state == State::Connected {
                conn.last_packet = now;
            }
            let flow = match conn.state {
                State::AwaitsConnect => self.first_packet(id, &frame, rest),
                State::AwaitsAuth => self.auth_before_connack(id, &frame, rest),
                _ => self.packet(id, &frame, rest),
            };
            match flow {
                Flow::Continue => taken += frame.packet_len(),
                Flow::Ended => return bytes.len(),
                Flow::Move(to) => {
                    self.actions.push_back(Action::Move {
                        conn: id,
                        to,
                        bytes: [rest, later].concat(),
                    });
                    return bytes.len();
                }
            }
        }
    }

    fn packet(&mut self, id: ConnId, frame: &Frame, bytes: &[u8]) -> Flow {
        let Some(conn) = self.conn(id) else { return Flow::Ended };
        let version = conn.version;
        if frame.packet_type == PacketType::Publish {
            match Packet::decode_publish(version, frame, bytes) {
                Ok(publish) => self.publish_packet(id, &publish),
                Err(error) => self.fail(id, bytes, error),
            }
            return self.flow(id);
        }
        let packet = match Packet::decode(version, frame, bytes) {
            Ok(packet) => packet,
            Err(error) => {
                self.fail(id, bytes, error);
                return Flow::Ended;
            }
        };
        match packet {
            Packet::Publish(publish) => self.publish_packet(id, &publish),
            Packet::PubAck(ack) => self.puback(id, &ack),
            Packet::PubRec(ack) => self.pubrec(id, &ack),
            Packet::PubRel(ack) => self.pubrel(id, &ack),
            Packet::PubComp(ack) => self.pubcomp(id, &ack),
            Packet::Subscribe(subscribe) => self.subscribe(id, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(id, &unsubscribe),
            Packet::PingReq => self.reply(id, &Packet::PingResp),
            Packet::Disconnect(disconnect) => self.client_disconnect(id, &disconnect),
            Packet::Auth(auth) => self.auth(id, &auth),
            // [MQTT-3.1.0-2]
            Packet::Connect(_) => {
                self.disconnect(id, ReasonCode::ProtocolError, "a second CONNECT")
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.disconnect(id, ReasonCode::ProtocolError, "a packet that only servers send");
            }
        }
        self.flow(id)
    }

    #[inline]
    fn flow(&mut self, id: ConnId) -> Flow {
        match self.conn(id) {
            Some(conn) if conn.state == State::Connected => Flow::Continue,
            _ => Flow::Ended,
        }
    }

    fn first_packet(&mut self, id: ConnId, frame: &Frame, bytes: &[u8]) -> Flow {
        // [MQTT-3.1.0-1]
        if frame.packet_type != PacketType::Connect {
            // Without a CONNECT there is no answer, not even a refusal.
            self.refused(id, None, ReasonCode::ProtocolError, "the first packet is not CONNECT");
            return Flow::Ended;
        }
        match Packet::decode(whimbrel_codec::Version::V5, frame, bytes) {
            Ok(Packet::Connect(connect)) => {
                let packet = bytes.get(..frame.packet_len()).unwrap_or(bytes);
                self.connect(id, &connect, packet)
            }
            Ok(_) => Flow::Ended,
            Err(error) => {
                self.fail(id, bytes, error);
                Flow::Ended
            }
        }
    }

    /// The peer sent what is no packet.
    fn fail(&mut self, id: ConnId, bytes: &[u8], error: DecodeError) {
        let Some(conn) = self.conn(id) else { return };
        match conn.state {
            State::AwaitsConnect | State::Authenticates => self.refuse_bytes(id, bytes, error),
            State::AwaitsAuth => self.refused(id, None, error.reason, error.what),
            State::Connected => self.disconnect(id, error.reason, error.what),
            State::Ended => {}
        }
    }

    #[inline]
    fn max_packet_size(&self, id: ConnId) -> u32 {
        self.conns.get(id.0 as usize).map_or(0, |conn| conn.max_incoming_size)
    }

    fn keep_tail(&mut self, id: ConnId, rest: &[u8]) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        if conn.state == State::Ended {
            return;
        }
        // No more than is there: what a header announces may never come.
        conn.tail = rest.to_vec();
        self.buffered += rest.len();
        self.shed_tail(id);
    }

    // ---- common to all packets

    #[inline]
    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.0 as usize)
    }

    /// The session of a connection.
    #[inline]
    fn session_of(&mut self, id: ConnId) -> Option<(u32, &mut Session)> {
        let slot = self.conns.get(id.0 as usize)?.session;
        Some((slot, self.sessions.get_mut(slot as usize)?))
    }

    /// Appends a packet to a connection's output. One that is too large for the client goes
    /// without its reason string, or not at all `[MQTT-3.1.2-24]`.
    fn reply(&mut self, id: ConnId, packet: &Packet<'_>) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        let version = conn.version;
        let Some(packet) = fitting(packet, conn) else { return };
        let buf = conn.output.buf(&mut self.pool);
        let before = buf.len();
        // The broker's own packets fit; one that does not would be a fault of the broker.
        if packet.encode(version, buf).is_err() {
            buf.truncate(before);
        }
        let n = buf.len() - before;
        conn.output.appended(n);
        self.buffered += n;
        self.mark_dirty(id);
    }

    #[inline]
    fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.0 as usize)
            && !std::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// Ends a connection for the broker's reasons; a 5.0 client is told `[MQTT-4.13.1-1]`.
    fn disconnect(&mut self, id: ConnId, reason: ReasonCode, what: &'static str) {
        let Some(conn) = self.conn(id) else { return };
        let told = conn.state == State::Connected && conn.version.is_v5();
        if told {
            let text = [Property::ReasonString(what)];
            let packet = Disconnect { reason, properties: Properties::new(&text) };
            self.reply(id, &Packet::Disconnect(packet));
        }
        self.end_conn(id, Why::Broker(reason, what), Some(true));
    }

    #[inline]
    fn count(&self, count: Count, n: u64) {
        self.shared.stats.add(self.id.0, count, n);
    }

    /// Whether a topic name or topic filter has more levels than are accepted.
    fn has_too_many_levels(&self, text: &str) -> bool {
        // Few are long enough for their levels to be worth counting.
        let most = usize::from(self.config.max_topic_levels);
        text.len() >= most && text.bytes().filter(|&b| b == b'/').count() >= most
    }

    /// Below this much output a connection is given more of what waits for it.
    fn low_water(&self) -> usize {
        (self.config.max_output_bytes as usize / 4).max(4096)
    }

    /// The next number of a splitmix64 sequence.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A session belongs to a principal's name and a client identifier together.
    fn find_session(&self, owner: &str, client_id: &str) -> Option<u32> {
        let hash = self.shared.routes.topic_hash(client_id);
        let same = |slot: &u32| {
            let session = self.sessions.get(*slot as usize);
            session.is_some_and(|s| *s.client_id == *client_id && s.owner() == owner)
        };
        self.by_client.find(hash, same).copied()
    }

    fn event(&mut self, event: Event) {
        self.actions.push_back(Action::Event(Box::new(event)));
    }

    fn reason_string<'a>(&mut self, id: ConnId, text: &'a [Property<'a>]) -> Properties<'a> {
        match self.conn(id) {
            // [MQTT-3.1.2-29]
            Some(conn) if conn.version.is_v5() && conn.problem_information => Properties::new(text),
            _ => Properties::NONE,
        }
    }

    fn is_connected(&self, session: u32) -> bool {
        session != NO_SESSION
            && self.sessions.get(session as usize).is_some_and(|s| s.conn.is_some())
    }
}

/// The packet, or what of it the client accepts.
fn fitting<'a>(packet: &Packet<'a>, conn: &Conn) -> Option<Packet<'a>> {
    let mut packet = *packet;
    if !fits(&packet, conn) {
        drop_reason_string(&mut packet);
    }
    fits(&packet, conn).then_some(packet)
}

/// The bytes of [`fitting`].
fn encoded(packet: &Packet<'_>, conn: &Conn) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    fitting(packet, conn)?.encode(conn.version, &mut bytes).ok()?;
    Some(bytes)
}

fn fits(packet: &Packet<'_>, conn: &Conn) -> bool {
    conn.max_packet_size == u32::MAX
        || packet.encoded_len(conn.version).is_ok_and(|len| len <= conn.max_packet_size as usize)
}

/// A reason string is the only property that the broker puts in these packets.
fn drop_reason_string(packet: &mut Packet<'_>) {
    match packet {
        // [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.6.2-2] [MQTT-3.7.2-2]
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.properties = Properties::NONE
        }
        // [MQTT-3.9.2-1]
        Packet::SubAck(ack) => ack.properties = Properties::NONE,
        // [MQTT-3.14.2-3]
        Packet::Disconnect(disconnect) => disconnect.properties = Properties::NONE,
        // [MQTT-3.2.2-19]
        Packet::ConnAck(ack) if ack.reason.is_error() => ack.properties = Properties::NONE,
        _ => {}
    }
}
