//! How long a large store takes to open: `cargo run --release --example open_speed DIRECTORY`.
//! A million retained messages, and 100,000 sessions with ten messages waiting for each.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use whimbrel_codec::QoS;
use whimbrel_store::{
    Directory, Durability, Entry, EntryQueue, Journal, Log, MessageRecord, Options, Position,
    Record, Recovered, Store, Stored, WallMs, restate,
};

const RETAINED: u64 = 1_000_000;
const SESSIONS: u64 = 100_000;
const QUEUED: usize = 10;

fn main() {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: open_speed DIRECTORY");
        std::process::exit(2);
    };
    let path = Path::new(&path).join("open-speed");
    if let Err(error) = measure(&path) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn measure(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (log, _) = open(path)?;
    let mut journal = log.journal(0);
    let stored = messages(&log, &mut journal)?;
    sessions(&log, &mut journal, &stored)?;
    log.stop()?;
    drop((log, journal));

    let (log, recovered) = timed("as it was written", path)?;
    let mut journal = log.journal(0);
    pass(&log, &mut journal, &recovered)?;
    log.stop()?;
    drop((log, journal));

    timed("after a pass", path)?;
    std::fs::remove_dir_all(path)?;
    Ok(())
}

fn open(path: &Path) -> Result<(Arc<Log>, Recovered), Box<dyn std::error::Error>> {
    let disk = Arc::new(Directory::open(path)?);
    let options = Options { durability: Durability::Os, ..Options::default() };
    Ok(Log::open(disk, options, 1)?)
}

fn timed(what: &str, path: &Path) -> Result<(Arc<Log>, Recovered), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let (log, recovered) = open(path)?;
    let queued: usize = recovered.sessions.iter().map(|session| session.queue.len()).sum();
    println!(
        "{what}: {:.2} s; {} retained, {} sessions, {queued} queued; {} MiB at most",
        start.elapsed().as_secs_f64(),
        recovered.retained.len(),
        recovered.sessions.len(),
        peak_kib() >> 10,
    );
    Ok((log, recovered))
}

/// The most memory that this process has had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

fn messages(log: &Log, journal: &mut Journal) -> Result<Vec<Stored>, Box<dyn std::error::Error>> {
    let mut stored = Vec::new();
    let mut batch = Vec::new();
    for number in 1..=RETAINED {
        let topic = format!("site/{}/device/{number}/state", number % 1000);
        let message = MessageRecord {
            topic: &topic,
            properties: &[],
            payload: &[b'x'; 100],
            qos: QoS::AtLeastOnce,
            expires: None,
            retained: Some(number),
        };
        batch.push((journal.message(&message), message.len()));
        if batch.len() == 1000 {
            let base = journal.commit().ok_or("nothing to commit")?.base;
            stored.extend(batch.drain(..).map(|(offset, len)| Stored {
                position: Position::here(0, offset).settled(base),
                len,
            }));
            log.work(0);
        }
    }
    Ok(stored)
}

fn sessions(
    log: &Log,
    journal: &mut Journal,
    stored: &[Stored],
) -> Result<(), Box<dyn std::error::Error>> {
    for number in 0..SESSIONS {
        let key = journal.new_key();
        journal.record(&Record::Session {
            key,
            client_id: &format!("device-{number}"),
            expiry_s: 3600,
            detached: Some(WallMs(1)),
            keeps_messages: true,
            will: None,
        });
        let mut entries = EntryQueue::default();
        for stored in stored.iter().skip(number as usize * 7).take(QUEUED) {
            entries.push(&Entry {
                stored: *stored,
                qos: QoS::AtLeastOnce,
                retain: false,
                dup: false,
                expires: None,
                group: None,
                ids: Vec::new(),
            });
        }
        journal.record(&Record::QueuedMany { key, entries });
        journal.commit().ok_or("nothing to commit")?;
        if number % 100 == 0 {
            log.work(0);
        }
    }
    Ok(())
}

/// States everything again, as a broker does.
fn pass(
    log: &Log,
    journal: &mut Journal,
    recovered: &Recovered,
) -> Result<(), Box<dyn std::error::Error>> {
    log.work(0);
    let pass = journal.restating().ok_or("no pass has begun")?;
    for session in &recovered.sessions {
        restate(session, &mut |record| journal.record(record));
        journal.commit();
    }
    for (index, stored) in recovered.retained.iter().enumerate() {
        journal.record(&Record::Retained { stored: *stored, number: index as u64 + 1 });
        if index % 1000 == 0 {
            journal.commit();
        }
    }
    journal.restated(pass);
    for _ in 0..5 {
        journal.commit();
        while log.work(0).did {}
    }
    Ok(())
}
