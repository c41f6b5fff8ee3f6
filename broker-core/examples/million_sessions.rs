//! A million sessions in memory, without sockets: what each costs.
//!
//! `cargo run --release -p whimbrel-broker-core --example million_sessions [COUNT]` prints resident
//! bytes per session and time per CONNECT. Each kind runs in a process of its own, so that none
//! finds the memory of another.

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use whimbrel_broker_core::{Action, Config, ConnId, Millis, Peer, Shard, ShardId, Shared};
use whimbrel_codec::{Connect, Filters, Packet, PacketId, QoS, Subscribe, Subscription, Version};
use whimbrel_store::MemoryStore;

const NOW: Millis = Millis(1000);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Connected, clean start, keep alive 60 s.
    Idle,
    /// The same with one subscription.
    Subscribed,
    /// Not connected, persistent, with one subscription.
    Offline,
}

const KINDS: [(&str, Kind); 3] =
    [("idle", Kind::Idle), ("subscribed", Kind::Subscribed), ("offline", Kind::Offline)];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let count = args.first().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    match args.get(1) {
        Some(kind) => {
            let kind = KINDS.iter().find(|(name, _)| name == kind);
            let (name, kind) = kind.expect("idle, subscribed or offline");
            let (bytes, ns, _shard) = run(*kind, count);
            println!("{name:<12}{bytes:6} B per session {ns:8} ns each");
        }
        None => {
            let binary = std::env::current_exe().expect("this program's path");
            for (name, _) in KINDS {
                let count = count.to_string();
                let status = Command::new(&binary).args([&count, name]).status();
                assert!(status.is_ok_and(|status| status.success()), "{name} failed");
            }
        }
    }
}

/// Bytes and nanoseconds per session, and the shard that holds them.
pub fn run(kind: Kind, count: usize) -> (u64, u128, Shard) {
    let config = Arc::new(Config { sys_interval_s: 0, ..Config::default() });
    let shared = Shared::new(1, 7);
    let mut shard = Shard::new(ShardId(0), shared, config, Box::new(MemoryStore), 7, NOW);
    let mut bytes = Vec::with_capacity(4096);
    // What is allocated once is not a session's.
    session(&mut shard, kind, usize::MAX, &mut bytes);
    let before = rss_bytes();
    let start = Instant::now();
    for at in 0..count {
        session(&mut shard, kind, at, &mut bytes);
    }
    let ns = start.elapsed().as_nanos() / count.max(1) as u128;
    let bytes = rss_bytes().saturating_sub(before) / count.max(1) as u64;
    assert_eq!(shard.session_count(), count + 1);
    (bytes, ns, shard)
}

fn session(shard: &mut Shard, kind: Kind, at: usize, bytes: &mut Vec<u8>) {
    let version = Version::V3_1_1;
    let name = format!("device-{at:08}");
    let conn = shard.handle_open(NOW, Peer::MEMORY);
    let clean_start = kind != Kind::Offline;
    let connect = Connect { clean_start, keep_alive_s: 60, ..Connect::new(version, &name) };
    send(shard, conn, &Packet::Connect(connect), bytes);
    if kind != Kind::Idle {
        let filter = format!("cmd/{at}");
        let filters = [Subscription::new(&filter, QoS::AtLeastOnce)];
        let subscribe = Subscribe {
            packet_id: PacketId::MIN,
            properties: Default::default(),
            filters: Filters::new(&filters),
        };
        send(shard, conn, &Packet::Subscribe(subscribe), bytes);
    }
    if kind == Kind::Offline {
        shard.handle_closed(NOW, conn);
        drain(shard);
    }
}

fn send(shard: &mut Shard, conn: ConnId, packet: &Packet<'_>, bytes: &mut Vec<u8>) {
    bytes.clear();
    packet.encode(Version::V3_1_1, bytes).expect("a small packet");
    shard.handle_bytes(NOW, conn, bytes);
    drain(shard);
}

fn drain(shard: &mut Shard) {
    while let Some(action) = shard.poll_action(NOW) {
        if let Action::Send(conn) = action {
            let n = shard.output(conn).map(<[u8]>::len).sum();
            shard.handle_written(NOW, conn, n);
        }
    }
}

fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("resident pages in /proc/self/statm") * 4096
}
