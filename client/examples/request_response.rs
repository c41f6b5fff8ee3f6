//! A service and its callers, over the broker: neither knows the other's address.
//!
//! ```text
//! cargo run -p whimbrel-client --example request_response -- mqtt://localhost
//! ```
//! Several services may share the work (`$share/...`); here two of them answer a hundred calls.

use std::time::Duration;

use whimbrel_client::{Client, Filter, Message, QoS, Subscription};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mqtt://localhost".into());

    let mut services = Vec::new();
    for _ in 0..2 {
        let client = Client::builder(&url)?.connect().await?;
        let filter = Filter::new("$share/adders/services/add").qos(QoS::AtLeastOnce);
        let requests = client.subscribe(filter).await?;
        services.push(tokio::spawn(serve(client, requests)));
    }

    let client = Client::builder(&url)?.connect().await?;
    let requester = client.requester().await?;
    let mut calls = Vec::new();
    for number in 0..100_u64 {
        let requester = requester.clone();
        calls.push(tokio::spawn(async move {
            let request = Message::new("services/add", format!("{number} {number}"));
            requester.request(request.qos(QoS::AtLeastOnce), Duration::from_secs(10)).await
        }));
    }
    for (number, call) in calls.into_iter().enumerate() {
        let response = call.await??;
        assert_eq!(response.payload, (2 * number).to_string());
    }
    println!("100 calls answered");
    services.iter().for_each(tokio::task::JoinHandle::abort);
    client.disconnect().await?;
    Ok(())
}

/// Answers each request: the sum of its two numbers.
async fn serve(client: Client, mut requests: Subscription) {
    while let Some(request) = requests.next().await {
        let text = String::from_utf8_lossy(&request.payload);
        let sum: u64 = text.split(' ').filter_map(|number| number.parse::<u64>().ok()).sum();
        let Some(response) = request.response(sum.to_string()) else { continue };
        if let Err(error) = client.publish(response).await {
            eprintln!("{error}");
        }
    }
}
