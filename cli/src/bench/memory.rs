//! How much memory the broker uses, if it says so.

use std::time::Duration;

use tokio::time::timeout;

use crate::args::Setup;

/// Where brokers publish the bytes that they use.
const TOPICS: [&str; 2] = ["$SYS/broker/memory/resident", "$SYS/broker/heap/current"];
const PATIENCE: Duration = Duration::from_millis(300);

/// Bytes, by `$SYS`. None if the broker does not tell.
pub async fn ask(setup: &Setup<'_>) -> Option<u64> {
    let id = format!("bench-memory-{}", std::process::id());
    let client = setup.builder().client_id(id).reconnect(false).connect().await.ok()?;
    let mut found = None;
    for topic in TOPICS {
        // A broker may refuse it.
        let Ok(mut figures) = client.subscribe(topic).await else { continue };
        if let Ok(Some(message)) = timeout(PATIENCE, figures.next()).await {
            found = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse().ok());
        }
        if found.is_some() {
            break;
        }
    }
    // The figure is there or not, however the connection ends.
    let _ = client.disconnect().await;
    found
}
