//! What the broker as a process keeps in its data directory over any stop, and what it refuses.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use whimbrel_codec::{Property, Publish, QoS};

#[allow(dead_code)]
#[path = "support/peer.rs"]
mod peer;
#[allow(dead_code)]
mod support;

use peer::{KEPT, Opening, Peer};
use support::{Broker, new_folder, outcome, whimbrel};

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        Folder(new_folder())
    }

    fn data_dir(&self) -> String {
        self.0.join("data").display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(data_dir: &str, flags: &[&str]) -> Broker {
    Broker::with_flags(&[&["--shards", "2", "--data-dir", data_dir], flags].concat())
}

fn stop(broker: Broker, signal: &str) {
    broker.signal(signal);
    stopped(broker, signal);
}

fn stopped(mut broker: Broker, signal: &str) {
    assert_eq!(broker.wait(), if signal == "KILL" { None } else { Some(0) });
}

fn survives(signal: &str, flags: &[&str]) {
    let folder = Folder::new();
    let data_dir = folder.data_dir();
    let broker = start(&data_dir, flags);
    let mut keeper = Peer::kept(&broker, "keeper");
    assert!(!keeper.session_present);
    keeper.subscribe("a/#", QoS::AtLeastOnce, 0);
    keeper.subscribe("b/#", QoS::ExactlyOnce, 7);
    keeper.subscribe("will", QoS::AtLeastOnce, 0);
    let will = Opening { will: Some(("will", b"lost")), will_delay_s: 1, ..KEPT };
    let willing = Peer::connect(&broker, "willing", &will);
    let passing = Peer::connect(&broker, "passing", &Opening { clean: true, ..Opening::default() });
    let mut publisher = Peer::kept(&broker, "publisher");
    publisher.publish("a/in flight", b"1", QoS::AtLeastOnce);
    publisher.publish("b/released", b"2", QoS::ExactlyOnce);
    assert_eq!(keeper.message().topic, "a/in flight");
    let released = keeper.message();
    keeper.receive(&released);
    drop(keeper);
    for n in 0..20 {
        publisher.publish(&format!("a/{n}"), b"queued", QoS::AtLeastOnce);
        publisher.publish(&format!("b/{n}"), &[0xff, n], QoS::ExactlyOnce);
    }
    let retained = Publish { qos: QoS::AtLeastOnce, retain: true, ..Publish::new("r", &[0, 0xfe]) };
    publisher.publish_with(retained);
    publisher.publish_with(Publish { payload: b"", topic: "r/none", ..retained });

    broker.signal(signal);
    // They are connected to the end, but who is told to go goes.
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop((willing, passing, publisher));
    stopped(broker, signal);
    let broker = start(&data_dir, flags);

    let mut keeper = Peer::kept(&broker, "keeper");
    assert!(keeper.session_present);
    let messages = keeper.burst(41);
    assert_eq!(Some(keeper.pubrel()), released.packet_id, "PUBREL is repeated");
    keeper.complete(released.packet_id.unwrap());
    let of = |topic: &str| {
        let all: Vec<_> = messages.iter().filter(|got| got.topic == topic).collect();
        assert_eq!(all.len(), 1, "{topic}: {all:?}");
        all[0]
    };
    let first = of("a/in flight");
    assert!(first.dup && first.qos == QoS::AtLeastOnce && first.payload == b"1", "{first:?}");
    for n in 0..20 {
        let (a, b) = (of(&format!("a/{n}")), of(&format!("b/{n}")));
        assert_eq!((a.qos, &*a.payload), (QoS::AtLeastOnce, &b"queued"[..]));
        assert_eq!((b.qos, &*b.payload), (QoS::ExactlyOnce, &[0xff, n as u8][..]));
        assert_eq!(b.properties, ["SubscriptionIdentifier(7)"]);
    }
    keeper.acknowledge_all(&messages);
    assert_eq!(keeper.takes("will", b"lost").qos, QoS::AtLeastOnce);

    let mut other = Peer::kept(&broker, "publisher");
    assert!(other.session_present);
    other.subscribe("r/#", QoS::AtLeastOnce, 0);
    assert!(other.takes("r", &[0, 0xfe]).retain);
    other.has_all();
    other.publish("a/after", b"", QoS::AtLeastOnce);
    keeper.takes("a/after", b"");
    keeper.has_all();
    assert!(Peer::kept(&broker, "willing").session_present);
    assert!(!Peer::kept(&broker, "passing").session_present, "it ended with its connection");
    assert!(!Peer::connect(&broker, "keeper", &Opening { clean: true, ..KEPT }).session_present);
}

#[test]
fn sessions_queues_retained_messages_and_wills_survive_sigterm() {
    survives("TERM", &[]);
}

#[test]
fn sessions_queues_retained_messages_and_wills_survive_sigkill() {
    survives("KILL", &[]);
}

#[test]
fn with_durability_os_they_survive_the_end_of_the_process() {
    survives("KILL", &["--durability", "os"]);
}

#[test]
fn with_durability_memory_they_survive_a_stop_in_good_order() {
    survives("TERM", &["--durability", "memory"]);
}

#[test]
fn the_summary_says_what_is_kept_and_how() {
    for (durability, what) in
        [("fsync", "synced"), ("os", "NOT SYNCED"), ("memory", "NOT WAITED FOR")]
    {
        let folder = Folder::new();
        let data_dir = folder.data_dir();
        let broker = start(&data_dir, &["--durability", durability]);
        let end = format!(", kept in {data_dir}, {what}");
        assert!(broker.lines.iter().any(|line| line.ends_with(&end)), "{:?}", broker.lines);
    }
}

#[test]
fn many_stops_lose_nothing_and_repeat_nothing() {
    let folder = Folder::new();
    let data_dir = folder.data_dir();
    let broker = start(&data_dir, &[]);
    Peer::kept(&broker, "keeper").subscribe("n", QoS::AtLeastOnce, 0);
    stop(broker, "KILL");
    for n in 0..6u8 {
        let broker = start(&data_dir, &[]);
        Peer::kept(&broker, "publisher").publish("n", &[n], QoS::ExactlyOnce);
        stop(broker, if n % 2 == 0 { "KILL" } else { "TERM" });
    }
    let broker = start(&data_dir, &[]);
    let mut keeper = Peer::kept(&broker, "keeper");
    (0..6).for_each(|n| drop(keeper.takes("n", &[n])));
    keeper.has_all();
    stop(broker, "TERM");
    let broker = start(&data_dir, &[]);
    Peer::kept(&broker, "keeper").has_all();
}

/// `[MQTT-4.6.0-6]`
#[test]
fn the_queue_stays_behind_what_was_in_flight() {
    let folder = Folder::new();
    let data_dir = folder.data_dir();
    let broker = start(&data_dir, &[]);
    let mut keeper = Peer::kept(&broker, "keeper");
    keeper.subscribe("n", QoS::AtLeastOnce, 0);
    let mut publisher = Peer::kept(&broker, "publisher");
    publisher.publish("n", &[0], QoS::AtLeastOnce);
    keeper.message();
    drop(keeper);
    (1..9).for_each(|n| publisher.publish("n", &[n], QoS::AtLeastOnce));
    stop(broker, "KILL");
    let broker = start(&data_dir, &[]);
    let messages = Peer::kept(&broker, "keeper").burst(9);
    let order: Vec<u8> = messages.iter().map(|got| got.payload[0]).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn what_expires_while_the_broker_is_stopped_is_gone() {
    let folder = Folder::new();
    let data_dir = folder.data_dir();
    let broker = start(&data_dir, &[]);
    Peer::kept(&broker, "keeper").subscribe("n", QoS::AtLeastOnce, 0);
    drop(Peer::connect(&broker, "short", &Opening { expiry_s: 1, ..KEPT }));
    let mut publisher = Peer::kept(&broker, "publisher");
    let expiry = [Property::MessageExpiryIntervalS(1)];
    let properties = whimbrel_codec::Properties::new(&expiry);
    let message = Publish { qos: QoS::AtLeastOnce, properties, ..Publish::new("n", b"short") };
    publisher.publish_with(message);
    publisher.publish("n", b"long", QoS::AtLeastOnce);
    stop(broker, "TERM");
    std::thread::sleep(std::time::Duration::from_millis(2200));
    let broker = start(&data_dir, &[]);
    let mut keeper = Peer::kept(&broker, "keeper");
    keeper.takes("n", b"long");
    keeper.has_all();
    assert!(!Peer::kept(&broker, "short").session_present);
}

/// Starts a broker that is to be refused: one line on stderr, code 2.
fn refused(data_dir: &str) -> String {
    let flags = ["--port", "0", "--no-websocket", "--data-dir", data_dir];
    let (code, out, err) = outcome(&mut whimbrel(&flags));
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
    assert!(err.contains(data_dir), "{err}");
    err
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let folder = Folder::new();
    let data_dir = folder.data_dir();
    let broker = start(&data_dir, &[]);
    let error = refused(&data_dir);
    assert!(error.contains("another broker uses this data directory"), "{error}");
    Peer::kept(&broker, "undisturbed").has_all();
    stop(broker, "KILL");
    start(&data_dir, &[]);
}

/// A directory with ten messages, after a stop in good order, and the file of its log.
fn filled(data_dir: &str) -> PathBuf {
    let broker = start(data_dir, &[]);
    Peer::kept(&broker, "keeper").subscribe("n", QoS::AtLeastOnce, 0);
    let mut publisher = Peer::kept(&broker, "publisher");
    (0..10).for_each(|_| publisher.publish("n", &[b'x'; 500], QoS::AtLeastOnce));
    stop(broker, "TERM");
    let names = std::fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().path());
    let is_log = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("log-");
    names.filter(is_log).max().unwrap()
}

#[test]
fn a_damaged_file_is_refused_with_its_name_and_the_way_out() {
    let folder = Folder::new();
    let data_dir = folder.data_dir();
    let file = filled(&data_dir);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let error = refused(&data_dir);
    let name = file.file_name().unwrap().to_str().unwrap();
    for what in [name, "damaged at offset", "whimbrel store check", "whimbrel store repair"] {
        assert!(error.contains(what), "{what} is missing: {error}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was changed");
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let broker = start(&data_dir, &[]);
    let mut keeper = Peer::kept(&broker, "keeper");
    (0..10).for_each(|_| drop(keeper.takes("n", &[b'x'; 500])));
}

#[test]
fn a_missing_file_is_refused() {
    let folder = Folder::new();
    let data_dir = folder.data_dir();
    let file = filled(&data_dir);
    let aside = folder.0.join("aside");
    std::fs::rename(&file, &aside).unwrap();
    assert!(refused(&data_dir).contains("all segments (log-*) are missing"));
    std::fs::rename(&aside, &file).unwrap();
    let store = Path::new(&data_dir).join("STORE");
    std::fs::rename(&store, &aside).unwrap();
    assert!(refused(&data_dir).contains("the file STORE is missing"));
}

#[test]
fn without_a_data_directory_nothing_is_written() {
    let folder = Folder::new();
    let mut command = whimbrel(&["--port", "0", "--no-websocket"]);
    let broker = Broker::start(new_folder(), command.current_dir(&folder.0));
    let mut keeper = Peer::kept(&broker, "keeper");
    keeper.subscribe("n", QoS::AtLeastOnce, 0);
    let message = Publish { qos: QoS::AtLeastOnce, retain: true, ..Publish::new("n", b"x") };
    Peer::kept(&broker, "publisher").publish_with(message);
    keeper.takes("n", b"x");
    stop(broker, "TERM");
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
}
