//! Feeds a dashboard: the last value of every topic below a filter, printed once a second. Shows
//! the blocking client; nothing here is `async`.
//!
//! ```text
//! cargo run -p whimbrel-client --example dashboard -- mqtt://localhost 'sensors/#' 5
//! ```
//! The last argument is for how many seconds; without it there is no end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use whimbrel_client::{Filter, blocking};

const REFRESH: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "mqtt://localhost".into());
    let filter = args.next().unwrap_or_else(|| "sensors/#".into());
    let seconds: u64 = args.next().map_or(Ok(u64::MAX), |text| text.parse())?;

    let client = blocking::Client::connect(blocking::Client::builder(&url)?)?;
    // Only the last value counts: should we be slow, older ones may be missed.
    let mut values = client.subscribe(Filter::new(filter))?;
    let mut board: BTreeMap<String, (String, u64)> = BTreeMap::new();
    for _ in 0..seconds {
        let refresh = Instant::now() + REFRESH;
        while let Some(message) = values.next_timeout(refresh - Instant::now().min(refresh)) {
            let value = String::from_utf8_lossy(&message.payload).into_owned();
            let entry = board.entry(message.topic.to_string()).or_default();
            *entry = (value, entry.1 + 1);
        }
        for (topic, (value, count)) in &board {
            println!("{topic:40} {value:>12} ({count})");
        }
        println!();
    }
    client.disconnect()?;
    Ok(())
}
