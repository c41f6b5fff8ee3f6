//! Limits of either side, kept by the other.

use std::time::Duration;

use tokio::time::timeout;
use whimbrel_client::{Filter, Message, Property, PublishError, QoS, Status};

use super::stage::{
    Stage, arrived, as_text, connect, message, next, numbers, publish, soon, subscribe, text,
    texts, until_end,
};
use super::{holds, same, scenarios};
use crate::Failed;

scenarios! {
    "the broker's receive maximum" => receive_maximum_of_the_broker,
    "the client's receive maximum" (v5) => receive_maximum_of_the_client,
    "the broker's maximum packet size" (v5) => maximum_packet_size_of_the_broker,
    "the client's maximum packet size" (v5) => maximum_packet_size_of_the_client,
    "a slow consumer slows its broker down" => slow_consumer,
}

/// More at once than it takes: the rest waits in the client.
async fn receive_maximum_of_the_broker(stage: Stage) -> Result<(), Failed> {
    let publisher = stage.client("pub").await?;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut completions = Vec::new();
        for number in numbers(200) {
            let message = message(&stage.topic("x"), number, qos);
            completions.push(soon("room for a message", publisher.publish(message)).await??);
        }
        for completion in completions {
            arrived(completion).await?;
        }
    }
    Ok(())
}

async fn receive_maximum_of_the_client(stage: Stage) -> Result<(), Failed> {
    let slow = connect(stage.builder("slow")?.receive_maximum(2)).await?;
    let filter = Filter::new(stage.topic("x")).qos(QoS::AtLeastOnce).manual_ack();
    let mut messages = soon("SUBACK", slow.subscribe(filter)).await??;
    let publisher = stage.client("pub").await?;
    for number in numbers(6) {
        publish(&publisher, message(&stage.topic("x"), number, QoS::AtLeastOnce)).await?;
    }
    let mut held = vec![next(&mut messages).await?, next(&mut messages).await?];
    let third = timeout(Duration::from_millis(300), messages.next()).await;
    holds(third.is_err(), "a message beyond the receive maximum")?;
    let mut found = texts(&held);
    while found.len() < 6 {
        held.remove(0).ack()?;
        held.push(next(&mut messages).await?);
        found.extend(held.last().map(as_text));
    }
    same(found, numbers(6), "payloads")
}

/// A message that the broker would not take is refused here, and the connection stays.
async fn maximum_packet_size_of_the_broker(stage: Stage) -> Result<(), Failed> {
    let (client, connected) = soon("CONNACK", stage.builder("c")?.connect_with_info()).await??;
    let most = connected.properties.iter().find_map(|property| match property {
        Property::MaximumPacketSizeBytes(bytes) => Some(bytes as usize),
        _ => None,
    });
    let most = most.ok_or("the broker names no maximum packet size")?;
    let mut events = client.events();
    let large = Message::new(stage.topic("x"), vec![0; most]).qos(QoS::AtLeastOnce);
    let outcome = match soon("an answer", client.publish(large)).await? {
        Ok(completion) => soon("an outcome", completion).await?.map(drop),
        Err(error) => Err(error),
    };
    match outcome {
        Err(PublishError::Invalid(_)) => {}
        other => return Err(format!("not told to be too large: {other:?}").into()),
    }
    let mut messages = subscribe(&client, &stage.topic("x"), QoS::AtLeastOnce).await?;
    let fits = most - stage.topic("x").len() - 20;
    publish(&client, Message::new(stage.topic("x"), vec![0; fits]).qos(QoS::AtLeastOnce)).await?;
    same(next(&mut messages).await?.payload.len(), fits, "bytes of what fits")?;
    let lost = async {
        while let Some(status) = events.next().await {
            if matches!(status, Status::Disconnected { .. }) {
                return;
            }
        }
    };
    holds(timeout(Duration::from_millis(50), lost).await.is_err(), "the connection was lost")
}

async fn maximum_packet_size_of_the_client(stage: Stage) -> Result<(), Failed> {
    let subscriber = connect(stage.builder("sub")?.max_packet_size_bytes(500)).await?;
    let mut messages = subscribe(&subscriber, &stage.topic("x"), QoS::ExactlyOnce).await?;
    let publisher = stage.client("pub").await?;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publish(&publisher, message(&stage.topic("x"), "x".repeat(1000), qos)).await?;
        publish(&publisher, message(&stage.topic("x"), "small", qos)).await?;
    }
    let found = until_end(&publisher, &stage.topic("x"), &mut messages).await?;
    same(texts(&found), vec!["small".to_owned(); 3], "messages that fit")
}

/// Who takes nothing for a while gets everything later, in order.
async fn slow_consumer(stage: Stage) -> Result<(), Failed> {
    const MANY: usize = 300;
    let slow = connect(stage.builder("slow")?.receive_maximum(10)).await?;
    let mut messages = subscribe(&slow, &stage.topic("x"), QoS::AtLeastOnce).await?;
    let publisher = stage.client("pub").await?;
    for number in numbers(MANY) {
        publish(&publisher, message(&stage.topic("x"), number, QoS::AtLeastOnce)).await?;
    }
    let mut found = Vec::new();
    while found.len() < MANY {
        found.push(text(&mut messages).await?);
    }
    same(found, numbers(MANY), "payloads")
}
