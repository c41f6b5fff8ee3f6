//! A sensor on battery or a poor network: readings are never lost to a short outage, an old one
//! is not worth sending, and everybody sees whether the sensor is there.
//!
//! ```text
//! cargo run -p whimbrel-client --example sensor -- mqtt://localhost boiler 10
//! ```
//! The last argument is how many readings to take; without it there is no end.

use std::time::Duration;

use whimbrel_client::{Client, Message, PublishError, QoS, Status};

const INTERVAL: Duration = Duration::from_millis(200);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "mqtt://localhost".into());
    let name = args.next().unwrap_or_else(|| "boiler".into());
    let readings: u64 = args.next().map_or(Ok(u64::MAX), |text| text.parse())?;

    let status = format!("sensors/{name}/status");
    let say = |text: &'static str| Message::new(&*status, text).qos(QoS::AtLeastOnce).retain(true);
    // `start` returns at once: a sensor measures whether the broker is there or not.
    let client = Client::builder(&url)?
        .client_id(format!("sensor-{name}"))
        .keep_alive_s(300)
        .will(say("lost"), 5)
        .queue(1000, 1 << 20)
        .start()?;

    let mut events = client.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Status::Disconnected { why, retry_in: Some(wait) } = event {
                eprintln!("{why}; next try in {} ms", wait.as_millis());
            }
        }
    });

    client.publish(say("online")).await?;
    let topic: std::sync::Arc<str> = format!("sensors/{name}/temperature").into();
    for reading in 0..readings {
        let temperature = 20.0 + (reading as f64 / 10.0).sin();
        let message = Message::new(topic.clone(), format!("{temperature:.2}"))
            .qos(QoS::AtLeastOnce)
            // After a minute nobody wants it any more.
            .expiry_s(60);
        match client.try_publish(message) {
            // What becomes of one reading is not waited for.
            Ok(completion) => drop(completion),
            Err(PublishError::Full) => eprintln!("the broker is away for long: a reading is lost"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(INTERVAL).await;
    }
    client.publish(say("offline")).await?;
    client.disconnect().await?;
    Ok(())
}
