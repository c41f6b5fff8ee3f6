//! A model of shards and of what the store must give back, for the tests that drive the log with
//! random operations.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use whimbrel_codec::{PacketId, QoS};
use whimbrel_store::sim_disk::SimDisk;
use whimbrel_store::{
    Durability, Entry, EntryQueue, InFlightRecovered, Journal, Log, MessageRecord, OpenError,
    Options, Position, Record, Recovered, SessionKey, SessionRecovered, Store, Stored,
    SubscriptionRecovered, WallMs, WillRecord, WillRecovered,
};

pub const IDENTITY: u64 = 0x0123_4567_89ab_cdef;
pub const WRITERS: u16 = 2;

/// Small numbers, so that a short test sees many segments and passes.
pub fn small_options(events: &Events) -> Options {
    let events = events.clone();
    Options {
        durability: Durability::Fsync,
        segment_bytes: 3000,
        pass_after_bytes: 4000,
        reserve_bytes: 2048,
        writers: WRITERS,
        on_event: Box::new(move |event| {
            events.0.lock().expect("a lock").push(event.to_string());
        }),
        ..Options::default()
    }
}

/// What the log told.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    pub fn count(&self, word: &str) -> usize {
        self.0.lock().expect("a lock").iter().filter(|event| event.contains(word)).count()
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().expect("a lock").clone()
    }
}

pub struct Rng(pub u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 20) % n.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Debug)]
pub struct Session {
    rest: SessionRecovered,
    queue: Vec<Entry>,
    next_id: u16,
}

/// What one shard holds.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    pub sessions: BTreeMap<u64, Session>,
    pub retained: BTreeMap<String, (u64, Stored)>,
    /// Messages on their way, and their publishers.
    pub routing: BTreeMap<Stored, SessionKey>,
    pub reached: Vec<(Position, SessionKey)>,
}

/// A state of a shard that was committed.
struct Snapshot {
    ticket: u64,
    writer: u16,
    shard: Shard,
}

/// Two shards on one log on one disk.
pub struct World {
    pub disk: SimDisk,
    pub events: Events,
    pub rng: Rng,
    pub log: Arc<Log>,
    pub journals: Vec<Journal>,
    pub shards: Vec<Shard>,
    history: Vec<Snapshot>,
    /// Payloads by position.
    pub bodies: BTreeMap<Position, Vec<u8>>,
    /// Of messages in batches that are not committed.
    fresh: Vec<(Position, Vec<u8>)>,
    /// For the other shard.
    mail: Vec<(u16, Stored)>,
    number: u64,
    pub now_ms: u64,
    count: u64,
    pub durability: Durability,
}

pub fn open(disk: &SimDisk, events: &Events) -> Result<(Arc<Log>, Recovered), OpenError> {
    Log::open(Arc::new(disk.clone()), small_options(events), IDENTITY)
}

impl World {
    pub fn new(seed: u64) -> World {
        let disk = SimDisk::new();
        let events = Events::default();
        let (log, _) = open(&disk, &events).expect("a new store");
        World {
            journals: (0..WRITERS).map(|writer| log.journal(writer)).collect(),
            shards: vec![Shard::default(); WRITERS.into()],
            history: Vec::new(),
            bodies: BTreeMap::new(),
            fresh: Vec::new(),
            mail: Vec::new(),
            number: 0,
            now_ms: 0,
            count: 0,
            rng: Rng::new(seed),
            durability: Durability::Fsync,
            disk,
            events,
            log,
        }
    }

    /// One shard does something, and perhaps commits.
    pub fn step(&mut self) {
        let writer = self.rng.below(WRITERS.into());
        for _ in 0..self.rng.below(4) {
            self.change(writer);
        }
        if self.rng.one_in(2) {
            self.commit(writer);
        }
    }

    /// A tick of a shard: all its mail, and a commit.
    pub fn tick(&mut self, writer: usize) {
        let mail: Vec<Stored> = {
            let (mine, rest) = std::mem::take(&mut self.mail)
                .into_iter()
                .partition(|(to, _)| usize::from(*to) == writer);
            self.mail = rest;
            let mine: Vec<(u16, Stored)> = mine;
            mine.into_iter().map(|(_, stored)| stored).collect()
        };
        for stored in mail {
            self.queue_to_some(writer, stored);
        }
        if let Some(pass) = self.journals[writer].restating() {
            // What is under way to others is stated by them.
            self.restate(writer);
            self.journals[writer].restated(pass);
        }
        let Some(committed) = self.journals[writer].commit() else { return };
        let settle = |stored: &mut Stored| {
            if stored.position.writer() == Some(writer as u16) {
                stored.position = stored.position.settled(committed.base);
            }
        };
        let shard = &mut self.shards[writer];
        for session in shard.sessions.values_mut() {
            session.queue.iter_mut().for_each(|entry| settle(&mut entry.stored));
            let in_flight = session.rest.in_flight.iter_mut();
            in_flight
                .filter_map(|delivery| delivery.entry.as_mut())
                .for_each(|entry| settle(&mut entry.stored));
        }
        shard.retained.values_mut().for_each(|(_, stored)| settle(stored));
        for (position, _) in &mut shard.reached {
            let mut stored = Stored { position: *position, len: 0 };
            settle(&mut stored);
            *position = stored.position;
        }
        let routing = std::mem::take(&mut shard.routing);
        shard.routing = routing
            .into_iter()
            .map(|(mut stored, from)| {
                settle(&mut stored);
                (stored, from)
            })
            .collect();
        for (to, stored) in &mut self.mail {
            let _ = to;
            settle(stored);
        }
        let (mine, rest) = std::mem::take(&mut self.fresh)
            .into_iter()
            .partition(|(position, _)| position.writer() == Some(writer as u16));
        self.fresh = rest;
        let mine: Vec<(Position, Vec<u8>)> = mine;
        for (position, payload) in mine {
            self.bodies.insert(position.settled(committed.base), payload);
        }
        let (ticket, shard) = (committed.ticket.0, shard.clone());
        self.history.push(Snapshot { ticket, writer: writer as u16, shard });
    }

    pub fn commit(&mut self, writer: usize) {
        self.tick(writer);
    }

    fn change(&mut self, writer: usize) {
        match self.rng.below(20) {
            0 => self.new_session(writer),
            1 => self.end_session(writer),
            2 => self.subscriptions(writer),
            3 | 4 => self.connection(writer),
            5..=9 => self.publish(writer),
            10 | 11 => self.sent(writer),
            12..=14 => self.acknowledged(writer),
            15 => self.received(writer),
            16 => self.retained(writer),
            17 => self.routed(writer),
            18 => self.delivered(writer),
            _ => self.dropped(writer),
        }
    }

    fn any_session(&mut self, writer: usize) -> Option<SessionKey> {
        let count = self.shards[writer].sessions.len();
        let index = self.rng.below(count);
        self.shards[writer].sessions.keys().nth(index).map(|key| SessionKey(*key))
    }

    fn session(&mut self, writer: usize, key: SessionKey) -> &mut Session {
        self.shards[writer].sessions.get_mut(&key.0).expect("it is there")
    }

    fn new_session(&mut self, writer: usize) {
        if self.shards[writer].sessions.len() > 5 {
            return;
        }
        let key = self.journals[writer].new_key();
        let rest = SessionRecovered {
            key,
            client_id: format!("client {}", key.0).into(),
            principal: None,
            expiry_s: 60,
            detached: None,
            keeps_messages: true,
            will: self.some_will(),
            subscriptions: Vec::new(),
            in_flight: Default::default(),
            queue: EntryQueue::default(),
            received: Vec::new(),
        };
        let session = Session { rest, queue: Vec::new(), next_id: 1 };
        self.journals[writer].record(&session_record(&session));
        self.shards[writer].sessions.insert(key.0, session);
    }

    fn some_will(&mut self) -> Option<WillRecovered> {
        self.rng.one_in(3).then(|| WillRecovered {
            topic: "will".into(),
            properties: Box::new([1, 2]),
            payload: vec![9; 20].into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            delay_s: 5,
            expiry_s: Some(7),
        })
    }

    fn end_session(&mut self, writer: usize) {
        if !self.rng.one_in(3) {
            return;
        }
        let Some(key) = self.any_session(writer) else { return };
        self.journals[writer].record(&Record::Ended { key });
        self.shards[writer].sessions.remove(&key.0);
    }

    fn subscriptions(&mut self, writer: usize) {
        let Some(key) = self.any_session(writer) else { return };
        let filter: Box<str> = format!("filter/{}", self.rng.below(3)).into();
        let subscription = SubscriptionRecovered {
            filter: filter.clone(),
            qos: QoS::ExactlyOnce,
            no_local: self.rng.one_in(2),
            retain_as_published: self.rng.one_in(2),
            id: self.rng.below(9) as u32,
            group: None,
        };
        let remove = self.rng.one_in(3);
        if remove {
            self.journals[writer].record(&Record::Unsubscribed { key, filter: &filter });
        } else {
            self.journals[writer].record(&subscribed(key, &subscription));
        }
        let all = &mut self.session(writer, key).rest.subscriptions;
        let at = all.iter().position(|other| other.filter == filter);
        match (at, remove) {
            (Some(at), true) => drop(all.remove(at)),
            (Some(at), false) => all[at] = subscription,
            (None, true) => {}
            (None, false) => all.push(subscription),
        }
    }

    fn connection(&mut self, writer: usize) {
        let Some(key) = self.any_session(writer) else { return };
        match self.rng.below(3) {
            0 => {
                let at = WallMs(1000 + self.rng.below(100) as u64);
                self.journals[writer].record(&Record::Detached { key, at, expiry_s: 70 });
                let rest = &mut self.session(writer, key).rest;
                (rest.detached, rest.expiry_s) = (Some(at), 70);
            }
            1 => {
                let will = self.some_will();
                let record = will.as_ref().map(will_record);
                self.journals[writer].record(&Record::Connected {
                    key,
                    expiry_s: 80,
                    will: record,
                });
                let rest = &mut self.session(writer, key).rest;
                (rest.detached, rest.expiry_s, rest.will) = (None, 80, will);
            }
            _ => {
                self.journals[writer].record(&Record::WillGone { key });
                self.session(writer, key).rest.will = None;
            }
        }
    }

    /// Appends a message to the batch.
    fn message(&mut self, writer: usize, topic: &str, retained: Option<u64>) -> Stored {
        self.count += 1;
        let mut payload = self.count.to_le_bytes().to_vec();
        payload.resize(8 + self.rng.below(300), 5);
        let message = MessageRecord {
            topic,
            properties: &[3, 4],
            payload: &payload,
            qos: QoS::AtLeastOnce,
            expires: None,
            retained,
        };
        let offset = self.journals[writer].message(&message);
        let position = Position::here(writer as u16, offset);
        self.fresh.push((position, payload.clone()));
        Stored { position, len: message.len() }
    }

    fn publish(&mut self, writer: usize) {
        if self.log.is_full() {
            return;
        }
        let stored = self.message(writer, "a/topic", None);
        self.queue_to_some(writer, stored);
        let other = (writer + 1) % usize::from(WRITERS);
        if self.rng.one_in(2) {
            self.mail.push((other as u16, stored));
            if let Some(from) = self.any_session(writer).filter(|_| self.rng.one_in(2)) {
                self.journals[writer].record(&Record::Routing { stored, from, group: None });
                self.shards[writer].routing.insert(stored, from);
            }
            // Mail goes when the batch was committed.
            self.tick(writer);
        }
    }

    fn entry(&mut self, stored: Stored) -> Entry {
        Entry {
            stored,
            qos: if self.rng.one_in(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce },
            retain: self.rng.one_in(4),
            dup: self.rng.one_in(4),
            expires: self.rng.one_in(4).then_some(WallMs(5000)),
            group: None,
            ids: if self.rng.one_in(4) { vec![1, 200] } else { Vec::new() },
        }
    }

    fn queue_to_some(&mut self, writer: usize, stored: Stored) {
        let keys: Vec<u64> = self.shards[writer].sessions.keys().copied().collect();
        for key in keys.into_iter().map(SessionKey) {
            if self.rng.one_in(2) {
                let entry = self.entry(stored);
                self.journals[writer].record(&Record::Queued { key, entry: entry.clone() });
                self.session(writer, key).queue.push(entry);
                self.shards[writer].reached.push((stored.position, key));
            }
        }
    }

    fn next_id(&mut self, writer: usize, key: SessionKey) -> Option<PacketId> {
        let session = self.session(writer, key);
        if session.rest.in_flight.len() > 10 {
            return None;
        }
        session.next_id = session.next_id % 1000 + 1;
        PacketId::new(session.next_id)
    }

    fn sent(&mut self, writer: usize) {
        let Some(key) = self.any_session(writer) else { return };
        if self.session(writer, key).queue.is_empty() {
            return;
        }
        let Some(packet_id) = self.next_id(writer, key) else { return };
        self.journals[writer].record(&Record::Sent { key, packet_id });
        let session = self.session(writer, key);
        let entry = Some(session.queue.remove(0));
        session.rest.in_flight.push_back(InFlightRecovered { packet_id, entry });
    }

    fn delivered(&mut self, writer: usize) {
        let Some(key) = self.any_session(writer) else { return };
        if self.log.is_full() {
            return;
        }
        let Some(packet_id) = self.next_id(writer, key) else { return };
        let stored = self.message(writer, "b", None);
        let entry = self.entry(stored);
        let delivered = Record::Delivered { key, packet_id, entry: entry.clone() };
        self.journals[writer].record(&delivered);
        self.shards[writer].reached.push((stored.position, key));
        let in_flight = InFlightRecovered { packet_id, entry: Some(entry) };
        self.session(writer, key).rest.in_flight.push_back(in_flight);
    }

    fn dropped(&mut self, writer: usize) {
        let Some(key) = self.any_session(writer) else { return };
        if self.session(writer, key).queue.is_empty() {
            return;
        }
        self.journals[writer].record(&Record::Dropped { key });
        let entry = self.session(writer, key).queue.remove(0);
        // As messages of a shared subscription are handed over to a session elsewhere.
        if entry.stored.position.writer().is_none() && self.rng.one_in(2) {
            self.mail.push(((writer as u16 + 1) % WRITERS, entry.stored));
        }
    }

    fn acknowledged(&mut self, writer: usize) {
        let Some(key) = self.any_session(writer) else { return };
        let count = self.session(writer, key).rest.in_flight.len();
        if count == 0 {
            return;
        }
        let index = self.rng.below(count);
        let release = self.rng.one_in(4);
        let delivery = &mut self.session(writer, key).rest.in_flight[index];
        let packet_id = delivery.packet_id;
        if release {
            delivery.entry = None;
            self.journals[writer].record(&Record::Released { key, packet_id });
        } else {
            self.session(writer, key).rest.in_flight.remove(index);
            self.journals[writer].record(&Record::Acknowledged { key, packet_id });
        }
    }

    fn received(&mut self, writer: usize) {
        let Some(key) = self.any_session(writer) else { return };
        let packet_id = PacketId::new(self.rng.below(5) as u16 + 1).expect("not zero");
        let received = &mut self.session(writer, key).rest.received;
        if let Some(at) = received.iter().position(|id| *id == packet_id) {
            received.remove(at);
            self.journals[writer].record(&Record::ReceivedReleased { key, packet_id });
        } else {
            received.push(packet_id);
            self.journals[writer].record(&Record::Received { key, packet_id });
        }
    }

    fn retained(&mut self, writer: usize) {
        let topic = format!("retained/{writer}/{}", self.rng.below(5));
        self.number += 1;
        let number = self.number;
        if self.rng.one_in(3) || self.log.is_full() {
            self.journals[writer].record(&Record::Unretained { topic: &topic, number });
            self.shards[writer].retained.remove(&topic);
        } else {
            let stored = self.message(writer, &topic, Some(number));
            self.shards[writer].retained.insert(topic, (number, stored));
        }
    }

    fn routed(&mut self, writer: usize) {
        let routing = std::mem::take(&mut self.shards[writer].routing);
        for (stored, from) in routing {
            if stored.position.writer().is_some() {
                self.shards[writer].routing.insert(stored, from);
                continue;
            }
            self.journals[writer]
                .record(&Record::Routed { position: stored.position, group: None });
        }
    }

    /// States everything again, as a shard does in a pass.
    fn restate(&mut self, writer: usize) {
        self.routed(writer);
        let journal = &mut self.journals[writer];
        for session in self.shards[writer].sessions.values() {
            let key = session.rest.key;
            journal.record(&session_record(session));
            for subscription in &session.rest.subscriptions {
                journal.record(&subscribed(key, subscription));
            }
            for delivery in &session.rest.in_flight {
                let packet_id = delivery.packet_id;
                journal.record(&match &delivery.entry {
                    Some(entry) => Record::Delivered { key, packet_id, entry: entry.clone() },
                    None => Record::Released { key, packet_id },
                });
            }
            let mut entries = EntryQueue::default();
            let mut each = session.queue.iter().peekable();
            while let Some(entry) = each.peek().filter(|e| e.stored.position.writer().is_none()) {
                entries.push(entry);
                each.next();
            }
            if !entries.is_empty() {
                journal.record(&Record::QueuedMany { key, entries });
            }
            for entry in each {
                journal.record(&Record::Queued { key, entry: entry.clone() });
            }
            for packet_id in &session.rest.received {
                journal.record(&Record::Received { key, packet_id: *packet_id });
            }
        }
        for (number, stored) in self.shards[writer].retained.values() {
            journal.record(&Record::Retained { stored: *stored, number: *number });
        }
    }

    /// Compares with what a store has given back, and goes on from there. `synced` is the last
    /// ticket that was reached.
    pub fn reopened(&mut self, log: Arc<Log>, recovered: &Recovered, synced: u64) {
        let mut cuts: Vec<u64> = self.history.iter().map(|snapshot| snapshot.ticket).collect();
        cuts.retain(|ticket| *ticket > synced);
        cuts.insert(0, synced);
        let found = cuts.iter().rev().find(|cut| self.matches(**cut, recovered).is_ok());
        let Some(cut) = found.copied() else {
            let why = self.matches(synced, recovered);
            panic!(
                "no state since {synced} is what was recovered: {why:?}\n{:#?}",
                self.events.all()
            );
        };
        self.history.retain(|snapshot| snapshot.ticket <= cut);
        for writer in 0..WRITERS {
            self.shards[usize::from(writer)] = self.state(writer, cut);
        }
        self.bodies.retain(|position, _| position.0 < cut);
        self.mail.clear();
        self.fresh.clear();
        self.journals = (0..WRITERS).map(|writer| log.journal(writer)).collect();
        self.log = log;
        self.now_ms = 0;
        self.read_all();
        // The broker ends what was on its way, and says so.
        for unrouted in &recovered.unrouted {
            let position = unrouted.stored.position;
            self.journals[0].record(&Record::Routed { position, group: None });
        }
        for shard in &mut self.shards {
            shard.routing.clear();
            shard.reached.clear();
        }
        for writer in 0..WRITERS {
            self.tick(writer.into());
        }
        if recovered.unrouted.is_empty() {
            return;
        }
        // Both histories are to know that nothing is on its way any more.
        for writer in 0..WRITERS {
            let shard = self.shards[usize::from(writer)].clone();
            let ticket = self.history.last().map_or(0, |last| last.ticket);
            self.history.push(Snapshot { ticket, writer, shard });
        }
    }

    fn state(&self, writer: u16, cut: u64) -> Shard {
        let mut all = self.history.iter().rev();
        let last = all.find(|snapshot| snapshot.writer == writer && snapshot.ticket <= cut);
        last.map(|snapshot| snapshot.shard.clone()).unwrap_or_default()
    }

    /// Whether what was recovered is the state at a ticket.
    pub fn matches(&self, cut: u64, recovered: &Recovered) -> Result<(), String> {
        let shards: Vec<Shard> = (0..WRITERS).map(|writer| self.state(writer, cut)).collect();
        let mut sessions: Vec<SessionRecovered> =
            shards.iter().flat_map(|shard| shard.sessions.values().map(whole)).collect();
        sessions.sort_by_key(|session| session.key);
        if sessions != recovered.sessions {
            return Err(format!("{:#?}\n instead of {sessions:#?}", recovered.sessions));
        }
        let mut retained: Vec<Stored> = shards
            .iter()
            .flat_map(|shard| shard.retained.values().map(|(_, stored)| *stored))
            .collect();
        retained.sort();
        if retained != recovered.retained {
            return Err(format!("retained {:?} instead of {retained:?}", recovered.retained));
        }
        let mut routing: Vec<(Stored, SessionKey)> = shards
            .iter()
            .flat_map(|shard| shard.routing.iter().map(|(stored, from)| (*stored, *from)))
            .collect();
        routing.sort_by_key(|(stored, _)| *stored);
        let unrouted: Vec<(Stored, SessionKey)> =
            recovered.unrouted.iter().map(|one| (one.stored, one.from)).collect();
        if routing != unrouted {
            return Err(format!("on their way: {unrouted:?} instead of {routing:?}"));
        }
        for one in &recovered.unrouted {
            let all = shards.iter().flat_map(|shard| shard.reached.iter());
            let mut keys: Vec<SessionKey> = all
                .filter(|(position, _)| *position == one.stored.position)
                .map(|(_, key)| *key)
                .collect();
            let mut reached = one.reached.clone();
            keys.sort();
            keys.dedup();
            reached.sort();
            if keys != reached {
                return Err(format!("reached {reached:?} instead of {keys:?}"));
            }
        }
        Ok(())
    }

    /// Everything that is alive and written can be read and is right.
    pub fn read_all(&self) {
        let shards = self.shards.iter();
        let entries =
            shards.clone().flat_map(|shard| shard.sessions.values()).flat_map(|session| {
                let in_flight = session.rest.in_flight.iter();
                let in_flight = in_flight.filter_map(|delivery| delivery.entry.as_ref());
                session.queue.iter().chain(in_flight).map(|entry| entry.stored)
            });
        let retained = shards.flat_map(|shard| shard.retained.values().map(|(_, stored)| *stored));
        for stored in entries.chain(retained) {
            if stored.position.writer().is_some() {
                continue;
            }
            let body = match self.log.read(stored) {
                Ok(body) => body,
                Err(error) => panic!("{stored:?}: {error}\n{:#?}", self.events.all()),
            };
            assert_eq!(body.record().payload, self.bodies[&stored.position], "{stored:?}");
        }
    }
}

fn whole(session: &Session) -> SessionRecovered {
    let mut whole = session.rest.clone();
    session.queue.iter().for_each(|entry| whole.queue.push(entry));
    whole
}

fn session_record(session: &Session) -> Record<'_> {
    let rest = &session.rest;
    Record::Session {
        key: rest.key,
        client_id: &rest.client_id,
        expiry_s: rest.expiry_s,
        detached: rest.detached,
        keeps_messages: rest.keeps_messages,
        will: rest.will.as_ref().map(will_record),
    }
}

fn will_record(will: &WillRecovered) -> WillRecord<'_> {
    WillRecord {
        topic: &will.topic,
        properties: &will.properties,
        payload: &will.payload,
        qos: will.qos,
        retain: will.retain,
        delay_s: will.delay_s,
        expiry_s: will.expiry_s,
    }
}

fn subscribed(key: SessionKey, subscription: &SubscriptionRecovered) -> Record<'_> {
    Record::Subscribed {
        key,
        filter: &subscription.filter,
        qos: subscription.qos,
        no_local: subscription.no_local,
        retain_as_published: subscription.retain_as_published,
        id: subscription.id,
        group: subscription.group,
    }
}
