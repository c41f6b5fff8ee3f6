//! How much memory the broker uses.

use std::time::{Duration, Instant};

use whimbrel_client::Event;
use whimbrel_client::single::{Client, Settings};
use whimbrel_codec::{Connect, Disconnect, Properties, QoS, ReasonCode, Subscription};

use crate::args::Setup;

/// Where brokers publish the bytes that they use.
const TOPICS: [&str; 2] = ["$SYS/broker/memory/resident", "$SYS/broker/heap/current"];
const PATIENCE: Duration = Duration::from_millis(300);

/// Bytes: RSS of the process if it is named, otherwise what `$SYS` says. None if neither tells.
pub fn read(pid: Option<u32>, setup: &Setup<'_>) -> Option<u64> {
    match pid {
        Some(pid) => rss(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?),
        None => ask(setup),
    }
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

fn ask(setup: &Setup<'_>) -> Option<u64> {
    let id = format!("bench-memory-{}", std::process::id());
    let connect = Connect { client_id: &id, clean_start: true, will: None, ..setup.connect() };
    let (mut client, _) = Client::connect(&setup.address, &connect, &Settings::default()).ok()?;
    let topics = TOPICS.map(|topic| Subscription::new(topic, QoS::AtMostOnce));
    client.subscribe(&topics, Properties::NONE).ok()?;
    let until = Instant::now() + PATIENCE;
    let mut found = None;
    while found.is_none() && Instant::now() < until {
        if let Some(Event::Message(message)) = client.poll(PATIENCE).ok()? {
            found = std::str::from_utf8(message.payload).ok().and_then(|text| text.parse().ok());
        }
    }
    // The figure is there or not, however the connection ends.
    let _ = client.disconnect(&Disconnect::new(ReasonCode::Success));
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn rss_is_read_from_proc() {
        assert_eq!(super::rss("Name:\tx\nVmRSS:\t    12 kB\nThreads:\t1\n"), Some(12 * 1024));
        assert_eq!(super::rss("Name:\tx\n"), None);
    }
}
