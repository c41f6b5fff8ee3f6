//! rumqttc: its asynchronous client, the event loop polled by a task of one thread.
//!
//! As its documentation advises, one loop polls and does little in between. Where a task is both to
//! send and to poll, it sends from the poll loop without a channel in between, which is quickest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

use crate::measure::{Cost, Meter, resident_bytes};
use crate::{IN_FLIGHT, Load, REQUESTS, RESPONSES, Result, SESSION, SESSION_EXPIRY_S, TOPIC, raw};

fn options(port: u16, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(60));
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
    options
}

fn quality(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

fn run<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}

/// Polls until a packet fits.
async fn wait(events: &mut EventLoop, mut fits: impl FnMut(Packet) -> bool) -> Result<()> {
    loop {
        if let Event::Incoming(packet) = events.poll().await?
            && fits(packet)
        {
            return Ok(());
        }
    }
}

async fn connected(events: &mut EventLoop) -> Result<()> {
    wait(events, |packet| matches!(packet, Packet::ConnAck(_))).await
}

async fn subscribed(client: &AsyncClient, events: &mut EventLoop, filter: &str) -> Result<()> {
    client.subscribe(filter, QoS::AtMostOnce).await?;
    wait(events, |packet| matches!(packet, Packet::SubAck(_))).await
}

pub fn publish(load: &Load) -> Result<Cost> {
    run(async {
        let (client, mut events) =
            AsyncClient::new(options(load.port, "bench-publisher"), IN_FLIGHT.into());
        connected(&mut events).await?;
        publish_all(&client, &mut events, load, load.warm_up()).await?;
        let meter = Meter::start();
        publish_all(&client, &mut events, load, load.count).await?;
        Ok(meter.stop())
    })
}

/// Publishes and has everything acknowledged; after QoS 0 by one message of QoS 1.
async fn publish_all(
    client: &AsyncClient,
    events: &mut EventLoop,
    load: &Load,
    count: u64,
) -> Result<()> {
    let (payload, qos) = (Bytes::from(load.payload()), quality(load.qos));
    let sender = client.clone();
    let sending = async move {
        for _ in 0..count {
            sender.publish(TOPIC, qos, false, payload.clone()).await?;
        }
        if qos == QoS::AtMostOnce {
            sender.publish(TOPIC, QoS::AtLeastOnce, false, payload).await?;
        }
        Ok::<_, rumqttc::v5::ClientError>(())
    };
    let sending = tokio::spawn(sending);
    let mut left = if load.qos == 0 { 1 } else { count };
    wait(events, |packet| {
        left -= u64::from(matches!(packet, Packet::PubAck(_) | Packet::PubComp(_)));
        left == 0
    })
    .await?;
    Ok(sending.await??)
}

pub fn receive(load: &Load) -> Result<Cost> {
    run(async {
        let mut options = options(load.port, SESSION);
        if load.qos > 0 {
            options.set_clean_start(false);
            options.set_session_expiry_interval(Some(SESSION_EXPIRY_S));
        }
        let (client, mut events) = AsyncClient::new(options, IN_FLIGHT.into());
        connected(&mut events).await?;
        let received = Arc::new(AtomicU64::new(0));
        let mut feed = None;
        if load.qos == 0 {
            subscribed(&client, &mut events, TOPIC).await?;
            feed = Some(raw::feed(load, received.clone()));
        }
        let count = |packet: Packet, upto| {
            matches!(packet, Packet::Publish(_))
                && received.fetch_add(1, Ordering::Relaxed) + 1 == upto
        };
        wait(&mut events, |packet| count(packet, load.warm_up())).await?;
        let meter = Meter::start();
        wait(&mut events, |packet| count(packet, load.warm_up() + load.count)).await?;
        crate::measure::received(load, meter.stop(), feed)
    })
}

pub fn requests(port: u16, count: u64) -> Result<Vec<Duration>> {
    run(async {
        raw::answer(port)?;
        let (client, mut events) = AsyncClient::new(options(port, "bench-requester"), 10);
        connected(&mut events).await?;
        subscribed(&client, &mut events, RESPONSES).await?;
        let payload = Bytes::from_static(b"request");
        let mut times = Vec::new();
        for number in 0..count + count / 10 {
            let start = Instant::now();
            client.try_publish(REQUESTS, QoS::AtMostOnce, false, payload.clone())?;
            wait(&mut events, |packet| matches!(packet, Packet::Publish(_))).await?;
            if number >= count / 10 {
                times.push(start.elapsed());
            }
        }
        Ok(times)
    })
}

/// Resident memory once all are connected and subscribed.
pub fn idle(port: u16, clients: u64) -> Result<u64> {
    run(async {
        let mut kept = Vec::new();
        for number in 0..clients {
            let name = format!("bench-idle-{number}");
            let (client, mut events) = AsyncClient::new(options(port, &name), 10);
            connected(&mut events).await?;
            subscribed(&client, &mut events, &format!("bench/idle/{number}")).await?;
            let polling = tokio::spawn(async move { while events.poll().await.is_ok() {} });
            kept.push((client, polling));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let bytes = resident_bytes()?;
        let ended = kept.iter().filter(|(_, polling)| polling.is_finished()).count();
        if ended > 0 { Err(format!("{ended} clients have ended").into()) } else { Ok(bytes) }
    })
}
