//! What waits for the store and what does not, with a store whose disk is a boolean.

#[path = "harness/mod.rs"]
mod harness;

use std::sync::{Arc, Mutex};

use harness::{Broker, Got, LinkId, id, quiet};
use whimbrel_broker_core::Config;
use whimbrel_codec::{
    Ack, Connect, Packet, Properties, Property, Publish, QoS, ReasonCode, Version, Will,
};
use whimbrel_store::{
    Committed, Fetch, Fetched, MessageBody, MessageRecord, Position, Record, Records, SessionKey,
    Store, Ticket,
};

/// What all shards' stores share.
#[derive(Default)]
struct State {
    keys: u64,
    log: Vec<u8>,
    /// So much of it is durable.
    synced: u64,
    /// The disk takes everything at once.
    instant: bool,
    full: bool,
    pass: Option<u64>,
    restated: usize,
}

/// The log begins here, so that no position is 0.
const ORIGIN: u64 = 4096;

#[derive(Clone, Default)]
struct Disk(Arc<Mutex<State>>);

struct Journal {
    disk: Disk,
    batch: Vec<u8>,
    fetched: Vec<Fetched>,
    restated: Option<u64>,
}

impl Disk {
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock().expect("no panic"))
    }

    /// The log is durable from now on, up to here.
    fn sync(&self) {
        self.with(|state| state.synced = ORIGIN + state.log.len() as u64);
    }

    fn len(&self) -> usize {
        self.with(|state| state.log.len())
    }

    /// How many records there are for which `is` holds.
    fn count(&self, is: impl Fn(&Record<'_>) -> bool) -> usize {
        self.with(|state| {
            let records = Records::new(Position(ORIGIN), &state.log);
            records.map(|record| record.expect("a record").1).filter(|record| is(record)).count()
        })
    }
}

impl Store for Journal {
    fn is_durable(&self) -> bool {
        true
    }

    fn new_key(&mut self) -> SessionKey {
        self.disk.with(|state| {
            state.keys += 1;
            SessionKey(state.keys)
        })
    }

    fn message(&mut self, message: &MessageRecord<'_>) -> u32 {
        let offset = self.batch.len();
        message.encode(&mut self.batch);
        offset as u32
    }

    fn record(&mut self, record: &Record<'_>) {
        record.encode(&mut self.batch);
    }

    fn commit(&mut self) -> Option<Committed> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return None;
        }
        self.disk.with(|state| {
            let base = Position(ORIGIN + state.log.len() as u64);
            state.log.extend(batch);
            Some(Committed { base, ticket: Ticket(ORIGIN + state.log.len() as u64) })
        })
    }

    fn synced(&self) -> Ticket {
        self.disk.with(|state| match state.instant {
            true => Ticket(u64::MAX - 1),
            false => Ticket(state.synced),
        })
    }

    fn is_full(&self) -> bool {
        self.disk.with(|state| state.full)
    }

    fn backlog_bytes(&self) -> usize {
        0
    }

    fn fetch(&mut self, fetch: Fetch) {
        let bodies = self.disk.with(|state| {
            let body = |stored: &whimbrel_store::Stored| {
                let from = (stored.position.0 - ORIGIN) as usize;
                let bytes = state.log.get(from..from + stored.len as usize)?;
                Some(MessageBody::new(bytes.into()).expect("a message"))
            };
            fetch.wanted.iter().map(body).collect()
        });
        self.fetched.push(Fetched { token: fetch.token, bodies });
    }

    fn poll_fetched(&mut self) -> Option<Fetched> {
        self.fetched.pop()
    }

    fn read(&self, _: whimbrel_store::Stored) -> Option<MessageBody> {
        None
    }

    fn restating(&self) -> Option<u64> {
        self.disk.with(|state| state.pass.filter(|pass| self.restated != Some(*pass)))
    }

    fn restated(&mut self, pass: u64) {
        self.restated = Some(pass);
        self.disk.with(|state| state.restated += 1);
    }
}

fn broker(shards: u16, config: Config) -> (Broker, Disk) {
    let disk = Disk::default();
    let stores = disk.clone();
    let broker = Broker::with_stores(shards, config, move |_| {
        let disk = stores.clone();
        let (batch, fetched) = (Vec::new(), Vec::new());
        Box::new(Journal { disk, batch, fetched, restated: None })
    });
    (broker, disk)
}

/// A client with a session that stays, once the disk has its CONNACK.
fn durable(broker: &mut Broker, disk: &Disk, name: &str) -> LinkId {
    let link = connect(broker, name, true);
    assert_eq!(broker.received(link), [], "CONNACK does not wait");
    synced(broker, disk);
    let got = broker.received(link);
    assert!(matches!(got[..], [Got::ConnAck { reason: ReasonCode::Success, .. }]), "{got:?}");
    link
}

fn connect(broker: &mut Broker, name: &str, clean_start: bool) -> LinkId {
    let expiry = [Property::SessionExpiryIntervalS(3600)];
    let properties = Properties::new(&expiry);
    broker.connect(Connect { properties, clean_start, ..Connect::new(Version::V5, name) })
}

fn synced(broker: &mut Broker, disk: &Disk) {
    // A reply of another shard takes a second round.
    for _ in 0..3 {
        disk.sync();
        broker.settle();
    }
}

fn subscriber(broker: &mut Broker, disk: &Disk, name: &str, qos: QoS) -> LinkId {
    let link = durable(broker, disk, name);
    broker.subscribe(link, "t/#", qos);
    assert_eq!(broker.received(link), [], "SUBACK does not wait");
    synced(broker, disk);
    assert_eq!(broker.received(link), [Got::SubAck(1, vec![qos as u8])]);
    link
}

/// Two names whose sessions are in different shards of two.
fn apart(broker: &Broker) -> [String; 2] {
    let home = |shard: u16| {
        let names = (0..).map(|n| format!("client-{n}"));
        names.into_iter().find(|name| broker.shared.home_of(name).0 == shard).expect("one of them")
    };
    [home(0), home(1)]
}

#[test]
fn what_only_live_clean_sessions_get_touches_no_disk() {
    for shards in [1, 2] {
        let (mut broker, disk) = broker(shards, quiet());
        let names = ["a", "b", "c", "d"];
        let links = names.map(|name| broker.client(Version::V5, name));
        for link in links {
            broker.subscribe(link, "t/#", QoS::ExactlyOnce);
        }
        broker.publish(links[0], "t/1", b"x", QoS::AtLeastOnce, false);
        let got = broker.received(links[0]);
        assert!(got.contains(&Got::PubAck(1, ReasonCode::Success)), "{got:?}");
        assert_eq!(broker.publishes(links[3]).len(), 1);
        assert_eq!(disk.len(), 0);
    }
}

#[test]
fn puback_waits_for_the_disk_in_this_and_in_another_shard() {
    let (mut broker, disk) = broker(2, quiet());
    let [near, far] = apart(&broker);
    let far = subscriber(&mut broker, &disk, &far, QoS::AtLeastOnce);
    let publisher = broker.client(Version::V5, &near);
    broker.publish(publisher, "t/1", b"x", QoS::AtLeastOnce, false);
    // It reaches the live subscriber before.
    assert_eq!(broker.publishes(far).len(), 1);
    assert_eq!(broker.received(publisher), []);
    synced(&mut broker, &disk);
    assert_eq!(broker.received(publisher), [Got::PubAck(1, ReasonCode::Success)]);
    assert_eq!(disk.count(|record| matches!(record, Record::Message(_))), 1);
}

/// A payload that is shared between shards was stored once more by the other shard, and a restart
/// gave the message to its sessions twice.
#[test]
fn a_message_is_stored_once_for_all_shards_whatever_its_size() {
    for len in [10, 20_000] {
        let (mut broker, disk) = broker(2, quiet());
        let [near, far] = apart(&broker);
        let near = subscriber(&mut broker, &disk, &near, QoS::ExactlyOnce);
        let far = subscriber(&mut broker, &disk, &far, QoS::ExactlyOnce);
        let publisher = broker.client(Version::V5, "p");
        broker.publish(publisher, "t/1", &vec![b'x'; len], QoS::ExactlyOnce, false);
        synced(&mut broker, &disk);
        assert_eq!((broker.publishes(near).len(), broker.publishes(far).len()), (1, 1));
        assert_eq!(disk.count(|record| matches!(record, Record::Message(_))), 1);
    }
}

#[test]
fn acknowledgements_keep_their_order() {
    let (mut broker, disk) = broker(1, quiet());
    subscriber(&mut broker, &disk, "s", QoS::AtLeastOnce);
    let publisher = broker.client(Version::V5, "p");
    for (n, topic) in [(1, "t/1"), (2, "nobody"), (3, "t/3")] {
        let packet_id = Some(id(n));
        let publish = Publish { qos: QoS::AtLeastOnce, packet_id, ..Publish::new(topic, b"x") };
        broker.send(publisher, &Packet::Publish(publish));
    }
    assert_eq!(broker.received(publisher), []);
    synced(&mut broker, &disk);
    let acks = broker.received(publisher);
    let ids: Vec<u16> =
        acks.iter().map(|got| if let Got::PubAck(id, _) = got { *id } else { 0 }).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn every_step_of_qos_2_waits_for_the_one_before() {
    let (mut broker, disk) = broker(1, quiet());
    let subscriber = subscriber(&mut broker, &disk, "s", QoS::ExactlyOnce);
    let publisher = durable(&mut broker, &disk, "p");
    broker.publish(publisher, "t/1", b"x", QoS::ExactlyOnce, false);
    assert_eq!((broker.received(publisher), broker.received(subscriber)), (vec![], vec![]));
    synced(&mut broker, &disk);
    assert_eq!(broker.received(publisher), [Got::PubRec(1, ReasonCode::Success)]);
    let [delivered] = &broker.publishes(subscriber)[..] else { panic!("one message") };
    let packet_id = id(delivered.id);

    broker.send(publisher, &Packet::PubRel(Ack::new(id(1))));
    broker.send(subscriber, &Packet::PubRec(Ack::new(packet_id)));
    assert_eq!((broker.received(publisher), broker.received(subscriber)), (vec![], vec![]));
    synced(&mut broker, &disk);
    assert_eq!(broker.received(publisher), [Got::PubComp(1, ReasonCode::Success)]);
    assert_eq!(broker.received(subscriber), [Got::PubRel(packet_id.get(), ReasonCode::Success)]);
}

#[test]
fn a_repeated_qos_2_message_is_not_acknowledged_before_the_first_is_durable() {
    let (mut broker, disk) = broker(1, quiet());
    subscriber(&mut broker, &disk, "s", QoS::ExactlyOnce);
    let publisher = durable(&mut broker, &disk, "p");
    broker.publish(publisher, "t/1", b"x", QoS::ExactlyOnce, false);
    broker.cut(publisher);
    let publisher = connect(&mut broker, "p", false);
    broker.publish(publisher, "t/1", b"x", QoS::ExactlyOnce, false);
    assert_eq!(broker.received(publisher), []);
    synced(&mut broker, &disk);
    let got = broker.received(publisher);
    assert_eq!(got.last(), Some(&Got::PubRec(1, ReasonCode::Success)), "{got:?}");
    assert_eq!(disk.count(|record| matches!(record, Record::Message(_))), 1);
}

#[test]
fn a_connection_that_ends_before_its_connack_is_durable_gets_none() {
    let (mut broker, _) = broker(1, quiet());
    let first = connect(&mut broker, "c", true);
    let second = connect(&mut broker, "c", true);
    assert!(!broker.links[first].open && broker.links[second].open);
    assert_eq!(broker.received(first), []);
}

/// A runtime may look what there is to send without having been told: a connection that came from
/// another shard got its CONNACK too early that way.
#[test]
fn a_connack_that_waits_is_not_there_for_anybody() {
    let (mut broker, disk) = broker(1, quiet());
    let link = connect(&mut broker, "c", true);
    assert_eq!(broker.waiting(link), 0);
    broker.flush(link, usize::MAX);
    assert_eq!(broker.received(link), []);
    synced(&mut broker, &disk);
    assert_eq!(broker.received(link).len(), 1);
}

#[test]
fn a_full_store_refuses_what_it_would_have_to_keep() {
    let (mut broker, disk) = broker(1, quiet());
    let subscriber = subscriber(&mut broker, &disk, "s", QoS::AtLeastOnce);
    let publisher = broker.client(Version::V5, "p");
    let old = broker.client(Version::V3_1_1, "old");
    disk.with(|state| state.full = true);
    broker.publish(publisher, "t/1", b"x", QoS::AtLeastOnce, false);
    assert_eq!(broker.received(publisher), [Got::PubAck(1, ReasonCode::QuotaExceeded)]);
    assert_eq!(broker.publishes(subscriber), []);
    broker.publish(old, "t/2", b"y", QoS::AtLeastOnce, false);
    assert_eq!(broker.received(old), []);
    assert!(broker.links[old].paused, "it is held back");
    let refused = connect(&mut broker, "new", true);
    let got = broker.received(refused);
    assert!(matches!(got[..], [Got::ConnAck { reason: ReasonCode::QuotaExceeded, .. }]));
    disk.with(|state| state.full = false);
    synced(&mut broker, &disk);
    assert_eq!(broker.received(old), [Got::PubAck(1, ReasonCode::Success)]);
    broker.advance(1000);
    assert!(!broker.links[old].paused);
}

#[test]
fn what_waits_beyond_the_share_of_memory_is_read_back_in_order() {
    let config = Config { max_queue_memory_bytes: 500, max_inflight: 7, ..quiet() };
    let (mut broker, disk) = broker(2, config);
    let names = apart(&broker);
    for name in &names {
        let link = subscriber(&mut broker, &disk, name, QoS::AtLeastOnce);
        broker.disconnect(link);
    }
    disk.with(|state| state.instant = true);
    let publisher = broker.client(Version::V5, "p");
    for n in 0..1000_u32 {
        broker.publish(publisher, "t/1", &n.to_be_bytes(), QoS::AtLeastOnce, false);
        broker.received(publisher);
    }
    let used = broker.shared.memory_used_bytes();
    assert!(used < 10_000, "{used} bytes are in memory");
    for name in &names {
        let link = connect(&mut broker, name, false);
        let mut next = 0_u32;
        while next < 1000 {
            let publishes = broker.publishes(link);
            assert!(!publishes.is_empty(), "stuck at {next}");
            for publish in publishes {
                assert_eq!(publish.payload, next.to_be_bytes());
                broker.puback(link, publish.id);
                next += 1;
            }
        }
    }
}

#[test]
fn a_will_and_its_end_are_one_batch() {
    let (mut broker, disk) = broker(1, quiet());
    subscriber(&mut broker, &disk, "s", QoS::AtLeastOnce);
    let will = Will {
        topic: "t/will",
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::NONE,
    };
    let connect = Connect { will: Some(will), ..Connect::new(Version::V5, "w") };
    let link = broker.connect(connect);
    assert_eq!(broker.received(link), [], "the will is a promise too");
    synced(&mut broker, &disk);
    assert_eq!(broker.received(link).len(), 1);
    broker.cut(link);
    assert_eq!(disk.count(|record| matches!(record, Record::WillGone { .. })), 1);
    assert_eq!(disk.count(|record| matches!(record, Record::Ended { .. })), 1);
    assert_eq!(disk.count(|record| matches!(record, Record::Delivered { .. })), 1);
}

#[test]
fn a_pass_states_every_session() {
    let (mut broker, disk) = broker(2, quiet());
    let names: Vec<String> = (0..600).map(|n| format!("client-{n}")).collect();
    for name in &names {
        let link = durable(&mut broker, &disk, name);
        broker.subscribe(link, "t/#", QoS::AtLeastOnce);
    }
    let session = |record: &Record<'_>| matches!(record, Record::Session { .. });
    let before = disk.count(session);
    disk.with(|state| state.pass = Some(1));
    for _ in 0..10 {
        broker.advance(1);
    }
    assert_eq!(disk.with(|state| state.restated), 2);
    assert_eq!(disk.count(session) - before, names.len());
}
