//! A device that carries out commands: each is acknowledged only when it is done, so a command
//! that a crash interrupts comes again, and one that cannot be done is answered as such.
//!
//! ```text
//! cargo run -p whimbrel-client --example commands -- mqtt://localhost pump
//! whimbrel pub -V 5 -q 1 -t devices/pump/set -m on
//! ```
//! Ends at the command `exit`.

use std::time::Duration;

use whimbrel_client::{Client, Filter, Incoming, Message, QoS, ReasonCode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "mqtt://localhost".into());
    let name = args.next().unwrap_or_else(|| "pump".into());

    // The broker keeps the session for a day: commands wait there while the device is away.
    let client = Client::builder(&url)?
        .client_id(format!("device-{name}"))
        .clean_start(false)
        .session_expiry_s(24 * 3600)
        // One command at a time.
        .receive_maximum(1)
        .connect()
        .await?;
    let filter = Filter::new(format!("devices/{name}/set")).qos(QoS::AtLeastOnce).manual_ack();
    let mut commands = client.subscribe(filter).await?;
    println!("waiting for commands on {}", commands.filter());

    while let Some(mut command) = commands.next().await {
        let done = carry_out(&command).await;
        // An acknowledgement after a lost connection is too late: the command comes again.
        let answered = match &done {
            Ok(_) => command.ack(),
            Err(_) => command.reject(ReasonCode::ImplementationSpecificError),
        };
        if let Err(error) = answered {
            eprintln!("{error}");
            continue;
        }
        let state = done.unwrap_or_else(|error| error);
        println!("{state}");
        let report = Message::new(format!("devices/{name}/state"), state.clone());
        client.publish(report.qos(QoS::AtLeastOnce).retain(true)).await?.await?;
        if state == "exit" {
            break;
        }
    }
    client.disconnect().await?;
    Ok(())
}

async fn carry_out(command: &Incoming) -> Result<String, String> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    match &command.payload[..] {
        b"on" | b"off" | b"exit" => Ok(String::from_utf8_lossy(&command.payload).into_owned()),
        other => Err(format!("unknown command {:?}", String::from_utf8_lossy(other))),
    }
}
