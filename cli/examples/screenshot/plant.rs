//! A small plant: its messages are made up, and look alive.

use std::time::{Duration, Instant};

use whimbrel_client::{Client, Message, QoS};

/// Between two rounds of messages, on average.
const ROUND: Duration = Duration::from_millis(250);

/// Publishes until the process ends.
pub fn run(port: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map(|runtime| runtime.block_on(publish(port)));
    // The picture would be empty.
    eprintln!("the plant has stopped: {ended:?}");
}

async fn publish(port: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder(&format!("mqtt://localhost:{port}"))?.connect().await?;
    for message in labels() {
        client.publish(message.qos(QoS::AtLeastOnce).retain(true)).await?.await?;
    }
    let begin = Instant::now();
    for round in 0.. {
        for message in readings(round, begin.elapsed().as_secs_f64()) {
            // Whether one arrives does not matter.
            drop(client.publish(message).await?);
        }
        // Neither faster nor slower would look alive.
        tokio::time::sleep(ROUND.mul_f64(1.0 + 0.6 * (round as f64 / 5.0).sin())).await;
    }
    Ok(())
}

/// What is retained.
fn labels() -> Vec<Message> {
    let mut labels = vec![
        Message::new("plant/boiler/mode", "heating"),
        Message::new("plant/hall/light", "on"),
        Message::new("fleet/truck-7/driver", "Ada"),
        // {"open": true, "battery": 87}
        Message::new("plant/hall/door", &b"\xa2\x64open\xf5\x67battery\x18\x57"[..]),
    ];
    labels.extend((1..4).map(|pump| Message::new(format!("plant/pump/{pump}/state"), "running")));
    labels
}

/// The values of one moment, in seconds since the start.
fn readings(round: u64, at: f64) -> Vec<Message> {
    // As irregular as noise needs to be in a picture.
    let noise = |seed: u64| ((round * 7919 + seed * 104_729) % 1000) as f64 / 1000.0 - 0.5;
    let boiler = 64.0 + 3.5 * (at / 3.0).sin() + noise(1);
    let mut readings = vec![
        Message::new("plant/boiler/temperature", format!("{boiler:.1}")),
        Message::new("plant/boiler/pressure", format!("{:.2}", 1.8 + boiler / 300.0)),
        Message::new("meter/power", format!(r#"{{"w": {:.0}}}"#, 8400.0 + 900.0 * noise(2))),
    ];
    for pump in 1..4_u64 {
        let phase = at / 4.0 + pump as f64;
        let rpm = 1450.0 + 40.0 * phase.sin() + 10.0 * noise(pump);
        readings.push(Message::new(format!("plant/pump/{pump}/rpm"), format!("{rpm:.0}")));
        let vibration = 1.6 + 0.7 * (phase * 1.7).sin() + 0.5 * noise(pump + 9);
        let bearing = 48.0 + 2.0 * (phase * 3.0).cos() + noise(pump + 20);
        let health = format!(
            "{{\n  \"vibration_mm_s\": {vibration:.2},\n  \"bearing_c\": {bearing:.1},\n  \
             \"alarm\": false\n}}"
        );
        readings.push(
            Message::new(format!("plant/pump/{pump}/health"), health)
                .qos(QoS::AtLeastOnce)
                .content_type("application/json")
                .user_property("firmware", "2.4.1"),
        );
    }
    if round.is_multiple_of(4) {
        let (lat, speed) = (52.52 + at / 4000.0, 61.0 + 8.0 * noise(5));
        let position = format!(r#"{{"lat": {lat:.4}, "lon": 13.4050, "km_h": {speed:.0}}}"#);
        readings.push(Message::new("fleet/truck-7/position", position));
        readings
            .push(Message::new("plant/hall/co2_ppm", format!("{:.0}", 520.0 + 30.0 * noise(6))));
    }
    readings
}
