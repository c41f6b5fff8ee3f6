//! The log through its public face: what was committed is there after a stop and after a crash.

use std::sync::Arc;

use whimbrel_codec::{PacketId, QoS};
use whimbrel_store::sim_disk::SimDisk;
use whimbrel_store::{
    Directory, Disk, Durability, Entry, Fetch, Journal, Log, MessageRecord, OpenError, Options,
    Position, Record, Recovered, SessionKey, Store, Stored, Threads, WallMs,
};

fn options() -> Options {
    Options { reserve_bytes: 4096, writers: 2, ..Options::default() }
}

fn open(disk: &SimDisk) -> (Arc<Log>, Recovered) {
    Log::open(Arc::new(disk.clone()), options(), 0x1234_5678_9abc_def0).expect("it opens")
}

fn message(payload: &[u8]) -> MessageRecord<'_> {
    MessageRecord {
        topic: "a/b",
        properties: &[],
        payload,
        qos: QoS::AtLeastOnce,
        expires: None,
        retained: None,
    }
}

fn id(n: u16) -> PacketId {
    PacketId::new(n).expect("not zero")
}

fn session(journal: &mut Journal, client_id: &str) -> SessionKey {
    let key = journal.new_key();
    journal.record(&Record::Session {
        key,
        client_id,
        expiry_s: 3600,
        detached: Some(WallMs(1000)),
        keeps_messages: true,
        will: None,
    });
    key
}

fn entry(stored: Stored) -> Entry {
    Entry {
        stored,
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        expires: None,
        group: None,
        ids: Vec::new(),
    }
}

/// Queues a message to a session and gives its place in the log.
fn queue(journal: &mut Journal, key: SessionKey, payload: &[u8]) -> Stored {
    let message = message(payload);
    let offset = journal.message(&message);
    let here = Position::here(journal.writer(), offset);
    let stored = Stored { position: here, len: message.len() };
    journal.record(&Record::Queued { key, entry: entry(stored) });
    let committed = journal.commit().expect("there is something");
    Stored { position: here.settled(committed.base), ..stored }
}

#[test]
fn what_was_committed_is_there_after_a_stop() {
    let disk = SimDisk::new();
    let (log, recovered) = open(&disk);
    assert!(recovered.sessions.is_empty());
    let mut journal = log.journal(0);
    let key = session(&mut journal, "one");
    let first = queue(&mut journal, key, b"first");
    let second = queue(&mut journal, key, b"second");
    journal.record(&Record::Sent { key, packet_id: id(1) });
    let ticket = journal.commit().expect("there is something").ticket;
    assert!(journal.synced() < ticket);
    log.work(0);
    assert!(journal.synced() >= ticket);
    log.stop().expect("it stops");
    drop((log, journal));

    let (log, recovered) = open(&disk);
    assert!(recovered.stopped);
    assert_eq!(recovered.cut_bytes, 0);
    let [session] = recovered.sessions.as_slice() else { panic!("one session") };
    assert_eq!((session.key, &*session.client_id), (key, "one"));
    assert_eq!(session.in_flight.len(), 1);
    assert_eq!(session.in_flight[0].entry, Some(entry(first)));
    assert_eq!(session.queue.iter().collect::<Vec<_>>(), [entry(second)]);
    assert_eq!(log.read(second).expect("it is there").record().payload, b"second");
}

#[test]
fn what_was_synced_survives_a_crash_and_the_rest_is_cut() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk);
    let mut journal = log.journal(0);
    let key = session(&mut journal, "one");
    queue(&mut journal, key, b"first");
    log.work(0);
    queue(&mut journal, key, &[7; 3000]);
    // Written, but the sync does not come to an end.
    disk.fail_syncs(true);
    log.work(1);
    let mut turn = 0;
    disk.crash(&mut |n| {
        turn += 1;
        turn % n
    });
    let (_, recovered) = open(&disk);
    assert!(!recovered.stopped);
    assert!(recovered.sessions[0].queue.len() <= 2);
    assert!(!recovered.sessions[0].queue.is_empty());
}

#[test]
fn a_second_broker_is_refused() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk);
    let second = Log::open(Arc::new(disk.clone()), options(), 2);
    assert!(matches!(second.map(|_| ()), Err(OpenError::InUse)));
    drop(log);
    open(&disk);
}

#[test]
fn bodies_are_fetched() {
    let disk = SimDisk::new();
    let (log, _) = open(&disk);
    let mut journal = log.journal(0);
    let key = session(&mut journal, "one");
    let wanted: Vec<Stored> =
        (0..100_u32).map(|n| queue(&mut journal, key, &n.to_le_bytes())).collect();
    journal.fetch(Fetch { token: 5, wanted });
    log.work_reads();
    assert!(journal.poll_fetched().is_none(), "nothing was written");
    log.work(0);
    log.work_reads();
    let fetched = journal.poll_fetched().expect("an answer");
    assert_eq!(fetched.token, 5);
    for (n, body) in fetched.bodies.iter().enumerate() {
        let body = body.as_ref().expect("it is there");
        assert_eq!(body.record().payload, (n as u32).to_le_bytes());
    }
}

#[test]
fn a_directory_and_threads_do_the_same() {
    let path = std::env::temp_dir().join(format!("whimbrel-store-{}", std::process::id()));
    let disk: Arc<dyn Disk> = Arc::new(Directory::open(&path).expect("a directory"));
    for round in 0..3_usize {
        let options = Options { durability: Durability::Fsync, ..options() };
        let (log, recovered) = Log::open(disk.clone(), options, 1).expect("it opens");
        assert_eq!(recovered.sessions.len(), round);
        assert_eq!(recovered.stopped, round > 0);
        let threads = Threads::start(log.clone()).expect("threads");
        let mut journal = log.journal(1);
        let key = session(&mut journal, "x");
        let stored = queue(&mut journal, key, b"hello");
        journal.fetch(Fetch { token: 1, wanted: vec![stored] });
        let fetched = loop {
            match journal.poll_fetched() {
                Some(fetched) => break fetched,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(fetched.bodies[0].as_ref().expect("read").record().payload, b"hello");
        threads.stop().expect("it stops");
    }
    std::fs::remove_dir_all(path).expect("removed");
}
