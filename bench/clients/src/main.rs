//! One task for one client library: what it cost as a line of JSON.
//!
//! `bench-clients LIBRARY TASK PORT [QOS PAYLOAD_BYTES] COUNT`, with the library one of `whimbrel`,
//! `rumqttc` and `paho`, and the task one of `publish`, `receive`, `request` and `idle`. MQTT 5.0
//! over TCP to a broker on loopback.

mod measure;
mod paho;
mod raw;
mod rumqtt;
mod whimbrel;

use std::error::Error;

use measure::{Cost, Percentiles};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What a library is to send or to receive.
#[derive(Clone, Debug)]
pub struct Load {
    pub port: u16,
    pub qos: u8,
    pub payload_bytes: usize,
    /// Messages that are measured.
    pub count: u64,
}

impl Load {
    /// Messages before those that are measured.
    pub fn warm_up(&self) -> u64 {
        self.count / 10
    }

    pub fn payload(&self) -> Vec<u8> {
        vec![b'x'; self.payload_bytes]
    }
}

/// Messages of QoS 1 and 2 that a library may have in flight: enough that none waits for the broker.
pub const IN_FLIGHT: u16 = 1000;
pub const TOPIC: &str = "bench/messages";
pub const REQUESTS: &str = "bench/requests";
pub const RESPONSES: &str = "bench/responses";
/// The session whose queue is filled before it is received from.
pub const SESSION: &str = "bench-session";
pub const SESSION_EXPIRY_S: u32 = 600;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let line = match words[..] {
        [library, task @ ("publish" | "receive"), port, qos, payload_bytes, count] => {
            let load = Load {
                port: port.parse()?,
                qos: qos.parse()?,
                payload_bytes: payload_bytes.parse()?,
                count: count.parse()?,
            };
            messages(library, task, &load)?.to_json(load.count)
        }
        [library, "request", port, count] => requests(library, port.parse()?, count.parse()?)?,
        [library, "idle", port, count] => idle(library, port.parse()?, count.parse()?)?,
        _ => return Err("usage: bench-clients LIBRARY TASK PORT [QOS PAYLOAD_BYTES] COUNT".into()),
    };
    println!("{line}");
    Ok(())
}

fn messages(library: &str, task: &str, load: &Load) -> Result<Cost> {
    if task == "receive" && load.qos > 0 {
        raw::fill_session(load)?;
    }
    match (library, task) {
        ("whimbrel", "publish") => whimbrel::publish(load),
        ("whimbrel", _) => whimbrel::receive(load),
        ("rumqttc", "publish") => rumqtt::publish(load),
        ("rumqttc", _) => rumqtt::receive(load),
        ("paho", "publish") => paho::publish(load),
        ("paho", _) => paho::receive(load),
        _ => Err("no such library".into()),
    }
}

fn requests(library: &str, port: u16, count: u64) -> Result<String> {
    let round_trips_us = match library {
        "whimbrel" => whimbrel::requests(port, count),
        "rumqttc" => rumqtt::requests(port, count),
        "paho" => paho::requests(port, count),
        _ => Err("no such library".into()),
    }?;
    Ok(Percentiles::of(round_trips_us).to_json())
}

fn idle(library: &str, port: u16, clients: u64) -> Result<String> {
    let before_bytes = measure::resident_bytes()?;
    let after_bytes = match library {
        "whimbrel" => whimbrel::idle(port, clients),
        "rumqttc" => rumqtt::idle(port, clients),
        "paho" => paho::idle(port, clients),
        _ => Err("no such library".into()),
    }?;
    let each = after_bytes.saturating_sub(before_bytes) / clients;
    Ok(format!("{{\"bytes_per_client\": {each}}}"))
}
