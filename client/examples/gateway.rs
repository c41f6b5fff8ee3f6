//! A gateway between devices and a broker that is not always there: what it has taken survives
//! an outage of the network, its own end at any moment, and a power cut, and arrives in order.
//!
//! ```text
//! echo "boiler/temperature 64.5" |
//!     cargo run -p whimbrel-client --example gateway -- mqtt://localhost queue.store
//! cargo run -p whimbrel-client --example gateway -- mqtt://localhost queue.store 100
//! ```
//! Each line of the input is a topic, a space and a payload. A number as last argument makes the
//! gateway invent so many readings instead. Each message is answered by a line once it is safe.

use std::error::Error;
use std::io::BufRead;
use std::path::Path;

use tokio::sync::mpsc;
use whimbrel_client::{Client, Events, Message, QoS, Status, Store};

/// What waits for the broker, in bytes of messages; when it is full, nothing more is read.
const MOST_BYTES: u64 = 256 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "mqtt://localhost".into());
    let path = args.next().unwrap_or_else(|| "queue.store".into());
    let readings: Option<u64> = args.next().map(|text| text.parse()).transpose()?;

    // `start` returns at once: the gateway takes messages whether the broker is there or not.
    let client = Client::builder(&url)?
        .client_id("gateway")
        .store(Store::new(Path::new(&path)).max_bytes(MOST_BYTES))
        .start()?;
    eprintln!("{} messages of an earlier run", client.undelivered());
    tokio::spawn(tell(client.events()));

    let mut lines = lines(readings);
    while let Some(line) = lines.recv().await {
        let Some((topic, payload)) = line.split_once(' ') else {
            eprintln!("no topic and payload: {line}");
            continue;
        };
        let message = Message::new(topic, payload.to_owned()).qos(QoS::ExactlyOnce);
        // Ready when the message is on disk; several tasks that do this share the disk's syncs.
        drop(client.publish(message).await?);
        println!("safe: {line}");
    }
    // What cannot be delivered now is delivered by the next run.
    if let Err(left) = client.disconnect().await {
        eprintln!("{left}, and wait for the next run");
    }
    Ok(())
}

async fn tell(mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            Status::Disconnected { why, retry_in: Some(wait) } => {
                eprintln!("{why}; next try in {} ms", wait.as_millis());
            }
            Status::StoreFailed { why, .. } => eprintln!("{why}"),
            Status::Undelivered { topic, why } => eprintln!("lost a message to {topic}: {why}"),
            _ => {}
        }
    }
}

/// Lines of the input, or so many invented ones. Reading blocks, and has a thread for that.
fn lines(invented: Option<u64>) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || match invented {
        Some(count) => {
            for number in 0..count {
                let temperature = 20.0 + (number as f64 / 10.0).sin();
                let line = format!("boiler/temperature {temperature:.2}");
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        }
        None => {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        }
    });
    lines
}
