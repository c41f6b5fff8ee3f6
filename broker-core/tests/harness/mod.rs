//! A whole broker in memory: shards, the mail between them, sockets that are buffers, and a clock
//! that goes when told to.
#![allow(dead_code, reason = "each test uses a part")]

use std::collections::HashMap;
use std::sync::Arc;

use whimbrel_auth::{Authenticator, Rules};
use whimbrel_broker_core::{
    Action, Config, ConnId, Count, Event, Mail, Millis, Peer, Shard, ShardId, Shared,
};
use whimbrel_codec::{
    Ack, Connect, Disconnect, Filters, Frame, Packet, PacketId, Properties, Property, Publish, QoS,
    ReasonCode, Subscribe, Subscription, Topics, Unsubscribe, Version,
};
use whimbrel_store::{MemoryStore, Store};

/// A client's end of a network connection.
pub type LinkId = usize;

/// What the broker sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    ConnAck { session_present: bool, reason: ReasonCode },
    Publish(Delivered),
    PubAck(u16, ReasonCode),
    PubRec(u16, ReasonCode),
    PubRel(u16, ReasonCode),
    PubComp(u16, ReasonCode),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    PingResp,
    Disconnect(ReasonCode),
    Auth(ReasonCode, Vec<u8>),
    Other,
}

/// A PUBLISH of the broker.
#[derive(Clone, Default, PartialEq)]
pub struct Delivered {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    /// 0 with QoS 0.
    pub id: u16,
    pub expiry_s: Option<u32>,
    pub subscription_ids: Vec<u32>,
    /// Length of the whole packet.
    pub packet_len: usize,
}

/// A long payload is not worth printing.
impl std::fmt::Debug for Delivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Delivered { topic, payload, qos, retain, dup, id, expiry_s, .. } = self;
        let name = String::from_utf8_lossy(payload.get(..20).unwrap_or(payload));
        write!(f, "{:?} ({} bytes) to {topic} {qos:?} {id}", name.trim(), payload.len())?;
        write!(f, ", retain {retain}, dup {dup}, expiry {expiry_s:?}")?;
        write!(f, ", subscriptions {:?}", self.subscription_ids)
    }
}

pub struct Link {
    pub shard: u16,
    pub peer: Peer,
    pub conn: ConnId,
    pub version: Version,
    /// The socket is open on both sides.
    pub open: bool,
    /// The socket takes nothing.
    pub stalled: bool,
    /// The broker does not read.
    pub paused: bool,
    /// Bytes that came and were not looked at.
    pub received: Vec<u8>,
    aliases: HashMap<u16, String>,
}

pub struct Broker {
    pub shards: Vec<Shard>,
    pub shared: Arc<Shared>,
    pub links: Vec<Link>,
    pub now: Millis,
    pub events: Vec<Event>,
    by_conn: HashMap<(u16, ConnId), LinkId>,
    /// Batches that were read, to be filled again as a runtime does.
    spare: Vec<Mail>,
}

pub fn quiet() -> Config {
    Config { sys_interval_s: 0, ..Config::default() }
}

pub fn id(n: u16) -> PacketId {
    PacketId::new(n).expect("not 0")
}

impl Broker {
    pub fn new(shards: u16, config: Config) -> Broker {
        Broker::with_stores(shards, config, |_| Box::new(MemoryStore))
    }

    pub fn with_stores(
        shards: u16,
        config: Config,
        store: impl Fn(u16) -> Box<dyn Store>,
    ) -> Broker {
        Broker::with_shared(Shared::new(shards, 7), config, store)
    }

    /// Where these decide who may connect and what those may do.
    pub fn with_access(shards: u16, authenticator: Arc<dyn Authenticator>, rules: Rules) -> Broker {
        Broker::with_all(shards, authenticator, rules, quiet())
    }

    /// The same with these limits.
    pub fn with_all(
        shards: u16,
        authenticator: Arc<dyn Authenticator>,
        rules: Rules,
        config: Config,
    ) -> Broker {
        let shared = Shared::with_access(shards, 7, authenticator, Arc::new(rules));
        Broker::with_shared(shared, config, |_| Box::new(MemoryStore))
    }

    pub fn with_shared(
        shared: Arc<Shared>,
        config: Config,
        store: impl Fn(u16) -> Box<dyn Store>,
    ) -> Broker {
        let shards = shared.shards();
        let config = Arc::new(config);
        let now = Millis(1_000_000);
        let shard = |at| {
            let (shared, config) = (shared.clone(), config.clone());
            Shard::new(ShardId(at), shared, config, store(at), at.into(), now)
        };
        let shards = (0..shards).map(shard).collect();
        let (links, events, by_conn) = (Vec::new(), Vec::new(), HashMap::new());
        Broker { shards, shared, links, now, events, by_conn, spare: Vec::new() }
    }

    // ---- sockets

    /// A new connection, to this shard at first.
    pub fn open(&mut self, shard: u16, version: Version) -> LinkId {
        self.open_from(Peer::MEMORY, shard, version)
    }

    /// The same from elsewhere, whether it may be opened or not.
    pub fn open_from(&mut self, peer: Peer, shard: u16, version: Version) -> LinkId {
        let shard = shard % self.shards.len() as u16;
        let conn = self.shards[usize::from(shard)].handle_open(self.now, peer);
        self.links.push(Link {
            shard,
            peer,
            conn,
            version,
            open: true,
            stalled: false,
            paused: false,
            received: Vec::new(),
            aliases: HashMap::new(),
        });
        self.by_conn.insert((shard, conn), self.links.len() - 1);
        self.links.len() - 1
    }

    /// Bytes of the client, and all that follows from them.
    pub fn bytes(&mut self, link: LinkId, bytes: &[u8]) {
        let Link { shard, conn, open, .. } = self.links[link];
        if open {
            self.shards[usize::from(shard)].handle_bytes(self.now, conn, bytes);
            self.settle();
        }
    }

    pub fn send(&mut self, link: LinkId, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.links[link].version, &mut bytes).expect("a packet that can be encoded");
        self.bytes(link, &bytes);
    }

    /// The network connection is lost.
    pub fn cut(&mut self, link: LinkId) {
        let Link { shard, conn, open, .. } = self.links[link];
        if open {
            self.links[link].open = false;
            self.by_conn.remove(&(shard, conn));
            self.shards[usize::from(shard)].handle_closed(self.now, conn);
            self.settle();
        }
    }

    /// The socket takes what waits, up to `most` bytes.
    pub fn flush(&mut self, link: LinkId, most: usize) {
        let Link { shard, conn, open, .. } = self.links[link];
        if !open {
            return;
        }
        let shard = &mut self.shards[usize::from(shard)];
        let before = self.links[link].received.len();
        for chunk in shard.output(conn) {
            self.links[link].received.extend_from_slice(chunk);
        }
        self.links[link].received.truncate(before.saturating_add(most));
        let n = self.links[link].received.len() - before;
        shard.handle_written(self.now, conn, n);
    }

    /// What [`Broker::flush`] would take.
    pub fn waiting(&self, link: LinkId) -> usize {
        let Link { shard, conn, .. } = self.links[link];
        self.shards[usize::from(shard)].output(conn).map(<[u8]>::len).sum()
    }

    /// Actions and mail, until there are none.
    pub fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..self.shards.len() {
                self.shards[at].handle_store(self.now);
                while let Some(action) = self.shards[at].poll_action(self.now) {
                    quiet = false;
                    self.act(at as u16, action);
                }
                let mut batches: Vec<(ShardId, Mail)> = Vec::new();
                while let Some((to, mail)) = self.shards[at].poll_mail() {
                    let mut batch = self.spare.pop().unwrap_or_default();
                    std::mem::swap(&mut batch, mail);
                    batches.push((to, batch));
                }
                for (to, mut mail) in batches {
                    quiet = false;
                    self.shards[usize::from(to.0)].handle_mail(self.now, &mut mail);
                    assert!(mail.is_empty());
                    self.spare.push(mail);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn act(&mut self, shard: u16, action: Action) {
        let link_of = |conn: &ConnId| self.by_conn.get(&(shard, *conn)).copied();
        match action {
            Action::Send(conn) => {
                let link = link_of(&conn).expect("a connection that is open");
                if !self.links[link].stalled {
                    self.flush(link, usize::MAX);
                }
            }
            Action::Close { conn, .. } => {
                let Some(link) = link_of(&conn) else { return };
                if !self.links[link].stalled {
                    self.flush(link, usize::MAX);
                }
                self.links[link].open = false;
                self.by_conn.remove(&(shard, conn));
                self.shards[usize::from(shard)].handle_closed(self.now, conn);
            }
            Action::Move { conn, to, bytes } => {
                let link = link_of(&conn).expect("a connection that is open");
                self.by_conn.remove(&(shard, conn));
                self.shards[usize::from(shard)].handle_closed(self.now, conn);
                let peer = self.links[link].peer;
                let conn = self.shards[usize::from(to.0)].handle_open(self.now, peer);
                self.links[link].shard = to.0;
                self.links[link].conn = conn;
                self.by_conn.insert((to.0, conn), link);
                self.shards[usize::from(to.0)].handle_bytes(self.now, conn, &bytes);
            }
            Action::Pause(conn) => {
                if let Some(link) = link_of(&conn) {
                    self.links[link].paused = true;
                }
            }
            Action::Resume(conn) => {
                if let Some(link) = link_of(&conn) {
                    self.links[link].paused = false;
                }
            }
            Action::Event(event) => self.events.push(*event),
        }
    }

    // ---- time

    /// Time passes, and timers fire when they are due.
    pub fn advance(&mut self, ms: u64) {
        let end = Millis(self.now.0 + ms);
        loop {
            let due = self.shards.iter().filter_map(Shard::poll_timeout).min();
            self.now = due.unwrap_or(end).clamp(self.now, end);
            for shard in &mut self.shards {
                shard.handle_timeout(self.now);
            }
            self.settle();
            if self.now >= end {
                return;
            }
        }
    }

    // ---- what came

    /// The packets that have come whole.
    pub fn received(&mut self, link: LinkId) -> Vec<Got> {
        let link = &mut self.links[link];
        let mut all = Vec::new();
        let mut at = 0;
        while let Some(frame) = Frame::parse(&link.received[at..], u32::MAX).expect("a packet") {
            if link.received.len() - at < frame.packet_len() {
                break;
            }
            let bytes = &link.received[at..];
            let packet = Packet::decode(link.version, &frame, bytes).expect("a packet");
            all.push(got(&packet, frame.packet_len(), &mut link.aliases));
            at += frame.packet_len();
        }
        link.received.drain(..at);
        all
    }

    pub fn publishes(&mut self, link: LinkId) -> Vec<Delivered> {
        let publish = |got| if let Got::Publish(publish) = got { Some(publish) } else { None };
        self.received(link).into_iter().filter_map(publish).collect()
    }

    pub fn count(&self, count: Count) -> u64 {
        self.shared.stats.get(count)
    }

    // ---- short for what tests do all the time

    pub fn connect(&mut self, connect: Connect<'_>) -> LinkId {
        let link = self.open(0, connect.version);
        self.send(link, &Packet::Connect(connect));
        link
    }

    pub fn client(&mut self, version: Version, name: &str) -> LinkId {
        let link = self.connect(Connect::new(version, name));
        let got = self.received(link);
        assert!(matches!(got[..], [Got::ConnAck { reason: ReasonCode::Success, .. }]), "{got:?}");
        link
    }

    pub fn subscribe(&mut self, link: LinkId, filter: &str, qos: QoS) {
        self.subscribe_with(link, &[Subscription::new(filter, qos)], None);
    }

    pub fn subscribe_with(&mut self, link: LinkId, filters: &[Subscription<'_>], id: Option<u32>) {
        let properties: Vec<_> = id.map(Property::SubscriptionIdentifier).into_iter().collect();
        let subscribe = Subscribe {
            packet_id: PacketId::MIN,
            properties: whimbrel_codec::Properties::new(&properties),
            filters: Filters::new(filters),
        };
        self.send(link, &Packet::Subscribe(subscribe));
    }

    pub fn unsubscribe(&mut self, link: LinkId, filter: &str) {
        let filters = [filter];
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::MIN,
            properties: Default::default(),
            filters: Topics::new(&filters),
        };
        self.send(link, &Packet::Unsubscribe(unsubscribe));
    }

    /// A QoS above 0 goes with packet identifier 1.
    pub fn publish(&mut self, link: LinkId, topic: &str, payload: &[u8], qos: QoS, retain: bool) {
        let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        let publish = Publish { qos, retain, packet_id, ..Publish::new(topic, payload) };
        self.send(link, &Packet::Publish(publish));
    }

    pub fn puback(&mut self, link: LinkId, n: u16) {
        self.send(link, &Packet::PubAck(Ack::new(id(n))));
    }

    pub fn disconnect(&mut self, link: LinkId) {
        self.send(link, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    }
}

fn got(packet: &Packet<'_>, packet_len: usize, aliases: &mut HashMap<u16, String>) -> Got {
    match packet {
        Packet::ConnAck(p) => Got::ConnAck { session_present: p.session_present, reason: p.reason },
        Packet::Publish(p) => Got::Publish(delivered(p, packet_len, aliases)),
        Packet::PubAck(ack) => Got::PubAck(ack.packet_id.get(), ack.reason),
        Packet::PubRec(ack) => Got::PubRec(ack.packet_id.get(), ack.reason),
        Packet::PubRel(ack) => Got::PubRel(ack.packet_id.get(), ack.reason),
        Packet::PubComp(ack) => Got::PubComp(ack.packet_id.get(), ack.reason),
        Packet::SubAck(p) => Got::SubAck(p.packet_id.get(), p.codes.bytes().to_vec()),
        Packet::UnsubAck(p) => Got::UnsubAck(p.packet_id.get(), p.codes.bytes().to_vec()),
        Packet::PingResp => Got::PingResp,
        Packet::Disconnect(p) => Got::Disconnect(p.reason),
        Packet::Auth(p) => Got::Auth(p.reason, auth_data(&p.properties)),
        _ => Got::Other,
    }
}

fn auth_data(properties: &Properties<'_>) -> Vec<u8> {
    let data = properties.iter().find_map(|property| match property {
        Property::AuthenticationData(data) => Some(data.to_vec()),
        _ => None,
    });
    data.unwrap_or_default()
}

fn delivered(p: &Publish<'_>, packet_len: usize, aliases: &mut HashMap<u16, String>) -> Delivered {
    let mut it = Delivered {
        topic: p.topic.to_owned(),
        payload: p.payload.to_vec(),
        qos: p.qos,
        retain: p.retain,
        dup: p.dup,
        id: p.packet_id.map_or(0, PacketId::get),
        packet_len,
        ..Delivered::default()
    };
    for property in p.properties {
        match property {
            Property::MessageExpiryIntervalS(s) => it.expiry_s = Some(s),
            Property::SubscriptionIdentifier(n) => it.subscription_ids.push(n),
            Property::TopicAlias(alias) if p.topic.is_empty() => {
                it.topic = aliases.get(&alias).expect("an alias that was set").clone();
            }
            Property::TopicAlias(alias) => {
                aliases.insert(alias, p.topic.to_owned());
            }
            _ => {}
        }
    }
    it.subscription_ids.sort_unstable();
    it
}
