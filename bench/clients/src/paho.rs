//! paho-mqtt: its asynchronous client, over the threads of the C library.
//!
//! As its documentation advises for many messages, delivery tokens are kept and waited for later,
//! and messages come by a callback, which is quicker than its queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use paho_mqtt::{
    AsyncClient, ConnectOptions, ConnectOptionsBuilder, CreateOptionsBuilder, DeliveryToken,
    MQTT_VERSION_5, Message, PersistenceType, PropertyCode, properties,
};

use crate::measure::{Cost, Meter, received, resident_bytes};
use crate::{IN_FLIGHT, Load, REQUESTS, RESPONSES, Result, SESSION, SESSION_EXPIRY_S, TOPIC, raw};

fn client(port: u16, client_id: &str) -> Result<AsyncClient> {
    let options = CreateOptionsBuilder::new()
        .mqtt_version(MQTT_VERSION_5)
        .server_uri(format!("mqtt://127.0.0.1:{port}"))
        .client_id(client_id)
        .persistence(PersistenceType::None)
        .max_buffered_messages(i32::from(IN_FLIGHT))
        .finalize();
    Ok(AsyncClient::new(options)?)
}

fn options() -> ConnectOptionsBuilder {
    let mut options = ConnectOptionsBuilder::new_v5();
    options.clean_start(true).max_inflight(IN_FLIGHT.into());
    options.keep_alive_interval(Duration::from_secs(60));
    options
}

fn connected(port: u16, client_id: &str, options: ConnectOptions) -> Result<AsyncClient> {
    let client = client(port, client_id)?;
    client.connect(options).wait()?;
    Ok(client)
}

pub fn publish(load: &Load) -> Result<Cost> {
    let client = connected(load.port, "bench-publisher", options().finalize())?;
    publish_all(&client, load, load.warm_up())?;
    let meter = Meter::start();
    publish_all(&client, load, load.count)?;
    Ok(meter.stop())
}

/// Publishes and has everything acknowledged; after QoS 0 by one message of QoS 1.
fn publish_all(client: &AsyncClient, load: &Load, count: u64) -> Result<()> {
    let payload = load.payload();
    let mut tokens: VecDeque<DeliveryToken> = VecDeque::new();
    for _ in 0..count {
        if tokens.len() >= usize::from(IN_FLIGHT)
            && let Some(first) = tokens.pop_front()
        {
            first.wait()?;
        }
        let message = Message::new(TOPIC, payload.as_slice(), i32::from(load.qos));
        tokens.push_back(client.publish(message));
    }
    for token in tokens {
        token.wait()?;
    }
    if load.qos == 0 {
        client.publish(Message::new(TOPIC, payload, 1)).wait()?;
    }
    Ok(())
}

pub fn receive(load: &Load) -> Result<Cost> {
    let client = client(load.port, SESSION)?;
    let (count, upto) = (Arc::new(AtomicU64::new(0)), load.warm_up() + load.count);
    let (done, waiting) = mpsc::channel();
    let (counter, warm_up) = (count.clone(), load.warm_up());
    client.set_message_callback(move |_, message| {
        if message.is_none() {
            return;
        }
        let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
        if number == warm_up || number == upto {
            // Nobody waits once the measuring has ended.
            let _ = done.send(());
        }
    });
    let mut options = options();
    if load.qos > 0 {
        options.clean_start(false);
        options.properties(properties![PropertyCode::SessionExpiryInterval => SESSION_EXPIRY_S]);
    }
    client.connect(options.finalize()).wait()?;
    let mut feed = None;
    if load.qos == 0 {
        client.subscribe(TOPIC, 0).wait()?;
        feed = Some(raw::feed(load, count));
    }
    waiting.recv()?;
    let meter = Meter::start();
    waiting.recv()?;
    received(load, meter.stop(), feed)
}

pub fn requests(port: u16, count: u64) -> Result<Vec<Duration>> {
    raw::answer(port)?;
    let client = client(port, "bench-requester")?;
    let (sender, responses) = mpsc::channel();
    client.set_message_callback(move |_, message| {
        if message.is_some() {
            let _ = sender.send(());
        }
    });
    client.connect(options().finalize()).wait()?;
    client.subscribe(RESPONSES, 0).wait()?;
    let mut times = Vec::new();
    for number in 0..count + count / 10 {
        let start = Instant::now();
        client.publish(Message::new(REQUESTS, "request", 0));
        responses.recv()?;
        if number >= count / 10 {
            times.push(start.elapsed());
        }
    }
    Ok(times)
}

/// Resident memory once all are connected and subscribed.
pub fn idle(port: u16, clients: u64) -> Result<u64> {
    let mut kept = Vec::new();
    for number in 0..clients {
        let client = connected(port, &format!("bench-idle-{number}"), options().finalize())?;
        client.subscribe(format!("bench/idle/{number}"), 0).wait()?;
        kept.push(client);
    }
    std::thread::sleep(Duration::from_millis(200));
    let bytes = resident_bytes()?;
    let lost = kept.iter().filter(|client| !client.is_connected()).count();
    // Dropping more than about 278 of them blocks for ever.
    std::mem::forget(kept);
    if lost > 0 {
        Err(format!("{lost} clients have lost their connection").into())
    } else {
        Ok(bytes)
    }
}
