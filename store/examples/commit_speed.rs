//! How fast the log takes messages: `cargo run --release --example commit_speed DIRECTORY`.
//!
//! Each message is a body of 256 bytes, one *Delivered* and one *Acknowledged*. Messages come in
//! groups of 1 to 256; a group is one commit, and the next one waits until it is durable.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use whimbrel_codec::{PacketId, QoS};
use whimbrel_store::{
    Directory, Durability, Entry, Journal, Log, MessageRecord, Options, Position, Record,
    SessionKey, Store, Stored, Threads,
};

/// Each size of group is measured for so long.
const SECONDS: f64 = 2.0;

fn main() {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: commit_speed DIRECTORY");
        std::process::exit(2);
    };
    println!("durability  group  messages/s  CPU us/message  commit us");
    for durability in [Durability::Fsync, Durability::Os, Durability::Memory] {
        for group in [1, 16, 64, 256] {
            if let Err(error) = measure(Path::new(&path), durability, group) {
                eprintln!("{error}");
                std::process::exit(1);
            }
        }
    }
}

fn measure(
    path: &Path,
    durability: Durability,
    group: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let path = path.join(format!("speed-{durability:?}-{group}"));
    let disk = Arc::new(Directory::open(&path)?);
    // One pass would never end here: nobody states anything again.
    let options = Options { durability, pass_after_bytes: u64::MAX / 4, ..Options::default() };
    let (log, _) = Log::open(disk, options, 1)?;
    let threads = Threads::start(log.clone())?;
    let waiting = std::thread::current();
    log.set_wake(Box::new(move |_| waiting.unpark()));
    let mut journal = log.journal(0);
    let (start, cpu, mut messages, mut commits) = (Instant::now(), cpu_us(), 0, 0_u32);
    let mut committing = 0.0;
    while start.elapsed().as_secs_f64() < SECONDS {
        let begun = Instant::now();
        (0..group).for_each(|index| write(&mut journal, index as u16));
        let ticket = journal.commit().ok_or("an empty commit")?.ticket;
        committing += begun.elapsed().as_secs_f64();
        // As a broker that is told when it may answer.
        while durability == Durability::Fsync && journal.synced() < ticket {
            std::thread::park();
        }
        while log.backlog_bytes() > log.max_backlog_bytes() {
            std::thread::yield_now();
        }
        messages += group;
        commits += 1;
    }
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    let cpu = (cpu_us() - cpu) / messages as f64;
    let commit = committing * 1e6 / f64::from(commits);
    println!("{durability:<10?}  {group:>5}  {rate:>10.0}  {cpu:>14.2}  {commit:>9.1}");
    threads.stop()?;
    drop((journal, log));
    std::fs::remove_dir_all(path)?;
    Ok(())
}

fn write(journal: &mut Journal, index: u16) {
    let message = MessageRecord {
        topic: "sensors/kitchen/temperature",
        properties: &[],
        payload: &[b'x'; 256],
        qos: QoS::AtLeastOnce,
        expires: None,
        retained: None,
    };
    let offset = journal.message(&message);
    let stored = Stored { position: Position::here(0, offset), len: message.len() };
    let key = SessionKey(1);
    let Some(packet_id) = PacketId::new(index + 1) else { return };
    let entry = Entry {
        stored,
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        expires: None,
        group: None,
        ids: Vec::new(),
    };
    journal.record(&Record::Delivered { key, packet_id, entry });
    journal.record(&Record::Acknowledged { key, packet_id });
}

/// CPU time of all threads of this process so far.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|n| n.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) * 10_000.0
}
