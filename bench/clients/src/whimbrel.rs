//! whimbrel-client: in tasks of one thread, each message with its completion, as its documentation
//! shows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use whimbrel_client::{
    Builder, Bytes, Client, Completion, Filter, Message, QoS, Subscription, WhenFull,
};

use crate::measure::{Cost, Meter, received, resident_bytes};
use crate::{IN_FLIGHT, Load, REQUESTS, RESPONSES, Result, SESSION, SESSION_EXPIRY_S, TOPIC, raw};

/// More than may be on its way at QoS 0.
const QUEUE_MESSAGES: usize = 8192;

fn builder(port: u16, client_id: &str) -> Result<Builder> {
    let builder = Client::builder(&format!("mqtt://127.0.0.1:{port}"))?.client_id(client_id);
    Ok(builder.max_in_flight(IN_FLIGHT).receive_maximum(IN_FLIGHT))
}

fn run<T: Send + 'static>(task: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let task = runtime.spawn(task);
    runtime.block_on(task)?
}

pub fn publish(load: &Load) -> Result<Cost> {
    let load = load.clone();
    run(async move {
        let client = builder(load.port, "bench-publisher")?.connect().await?;
        publish_all(&client, &load, load.warm_up()).await?;
        let meter = Meter::start();
        publish_all(&client, &load, load.count).await?;
        Ok(meter.stop())
    })
}

/// Publishes and has everything acknowledged; after QoS 0 by one message of QoS 1.
async fn publish_all(client: &Client, load: &Load, count: u64) -> Result<()> {
    let (topic, payload): (Arc<str>, _) = (TOPIC.into(), Bytes::from(load.payload()));
    let message = Message::new(topic, payload).qos(QoS::from_u8(load.qos).unwrap_or_default());
    let mut completions: VecDeque<Completion> = VecDeque::new();
    for _ in 0..count {
        if completions.len() >= usize::from(IN_FLIGHT)
            && let Some(first) = completions.pop_front()
        {
            first.await?;
        }
        completions.push_back(client.publish(message.clone()).await?);
    }
    for completion in completions {
        completion.await?;
    }
    if load.qos == 0 {
        client.publish(message.qos(QoS::AtLeastOnce)).await?.await?;
    }
    Ok(())
}

pub fn receive(load: &Load) -> Result<Cost> {
    let load = load.clone();
    run(async move {
        let mut builder = builder(load.port, SESSION)?;
        if load.qos > 0 {
            builder = builder.clean_start(false).session_expiry_s(SESSION_EXPIRY_S);
        }
        let client = builder.connect().await?;
        let filter = Filter::new(TOPIC).qos(QoS::from_u8(load.qos).unwrap_or_default());
        let filter = filter.queue(QUEUE_MESSAGES, WhenFull::Wait);
        let mut messages = client.subscribe(filter).await?;
        let count = Arc::new(AtomicU64::new(0));
        let feed = (load.qos == 0).then(|| raw::feed(&load, count.clone()));
        take(&mut messages, load.warm_up(), &count).await?;
        let meter = Meter::start();
        take(&mut messages, load.count, &count).await?;
        received(&load, meter.stop(), feed)
    })
}

async fn take(messages: &mut Subscription, number: u64, count: &AtomicU64) -> Result<()> {
    for _ in 0..number {
        messages.next().await.ok_or("the subscription has ended")?;
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

pub fn requests(port: u16, count: u64) -> Result<Vec<Duration>> {
    run(async move {
        raw::answer(port)?;
        let client = builder(port, "bench-requester")?.connect().await?;
        let mut responses = client.subscribe(RESPONSES).await?;
        let topic: Arc<str> = REQUESTS.into();
        let mut times = Vec::new();
        for number in 0..count + count / 10 {
            let start = Instant::now();
            let request = Message::new(topic.clone(), Bytes::from_static(b"request"));
            drop(client.publish(request).await?);
            responses.next().await.ok_or("the subscription has ended")?;
            if number >= count / 10 {
                times.push(start.elapsed());
            }
        }
        Ok(times)
    })
}

/// Resident memory once all are connected and subscribed.
pub fn idle(port: u16, clients: u64) -> Result<u64> {
    run(async move {
        let mut kept = Vec::new();
        for number in 0..clients {
            let client = builder(port, &format!("bench-idle-{number}"))?.connect().await?;
            let messages = client.subscribe(format!("bench/idle/{number}")).await?;
            kept.push((client, messages));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let bytes = resident_bytes()?;
        let lost = kept.iter().filter(|(client, _)| !client.is_connected()).count();
        if lost > 0 {
            return Err(format!("{lost} clients have lost their connection").into());
        }
        Ok(bytes)
    })
}
