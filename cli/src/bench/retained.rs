//! The scenario `retained`: store messages, then fetch them all.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};
use whimbrel_client::{Bytes, Client, Message};
use whimbrel_codec::QoS;

use super::load::{Counts, Load, SILENCE, bar, finished, listen};
use crate::failure::Failure;

/// How often the progress bar is attended to.
const TICK: Duration = Duration::from_millis(20);

/// Stores, then fetches by a subscription of its own; removes what was stored in the end.
pub async fn store_and_fetch(load: &Load<'_>, measure: impl FnOnce()) -> Result<(), Failure> {
    let begin_ns = load.counts.now_ns();
    load.counts.tally.borrow_mut().measure_from(begin_ns);
    measure();
    each_publisher(load, "storing {wide_bar} {pos}/{len}", Store::Stamped).await?;
    let fetch_ns = load.counts.now_ns();
    load.counts.tally.borrow_mut().fetch_from(fetch_ns);
    let fetched = fetch(load).await;
    // Also if that went wrong: nothing is to be left behind.
    each_publisher(load, "removing {wide_bar} {pos}/{len}", Store::Removed).await?;
    fetched
}

async fn fetch(load: &Load<'_>) -> Result<(), Failure> {
    let Some(client) = load.subscribers.first() else { return Ok(()) };
    let subscription = load.subscription(client, load.counts.plan.filter(0)).await?;
    let listener = spawn_local(listen(load.counts.clone(), 0, subscription));
    let total = load.counts.tally.borrow().sent();
    let bar = bar(total, "fetching {wide_bar} {pos}/{len}");
    let (mut arrived, mut since) = (0, Instant::now());
    while arrived < total && since.elapsed() < SILENCE {
        sleep(TICK).await;
        let now = load.counts.tally.borrow().arrived();
        if now > arrived {
            (arrived, since) = (now, Instant::now());
            bar.set_position(now);
        }
    }
    bar.finish_and_clear();
    // Takes the subscription along, so that what is removed next is not fetched.
    listener.abort();
    Ok(())
}

/// What stands under each topic afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Stamped,
    Removed,
}

async fn each_publisher(load: &Load<'_>, what: &str, store: Store) -> Result<(), Failure> {
    let bar = bar(u64::from(load.args.messages), what);
    let publishers = load.counts.plan.publishers;
    let mut tasks = Vec::new();
    for (index, client) in (0..).zip(&load.publishers) {
        let topics = (index..load.args.messages).step_by(publishers.max(1) as usize);
        let task = publisher(
            load.counts.clone(),
            client.clone(),
            (index, topics.count() as u64),
            load.message(index),
            store,
            bar.clone(),
        );
        tasks.push(spawn_local(task));
    }
    for task in tasks {
        if let Err(error) = finished(task).await? {
            return Err(load.setup.failed(1, error));
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Returns when the broker has all of it.
async fn publisher(
    counts: Rc<Counts>,
    client: Client,
    (index, topics): (u32, u64),
    message: Message,
    store: Store,
    bar: indicatif::ProgressBar,
) -> Result<(), String> {
    let mut payload = message.payload.to_vec();
    for number in 0..topics {
        let topic = format!("{}/{number}", message.topic);
        let payload = match store {
            Store::Stamped => {
                counts.tally.borrow_mut().publish(index, counts.now_ns()).write(&mut payload);
                Bytes::copy_from_slice(&payload)
            }
            Store::Removed => Bytes::new(),
        };
        // The last one is acknowledged, and so the broker has all those before it.
        let is_last = number + 1 == topics;
        let qos = if is_last { message.qos.max(QoS::AtLeastOnce) } else { message.qos };
        let retained =
            Message { topic: topic.into(), payload, qos, retain: true, ..message.clone() };
        let completion = client.publish(retained).await.map_err(|error| error.to_string())?;
        if is_last {
            completion.await.map_err(|error| error.to_string())?;
        }
        bar.inc(1);
    }
    Ok(())
}
