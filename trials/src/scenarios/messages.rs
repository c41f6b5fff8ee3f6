//! Messages from one client to another.

use whimbrel_client::{Filter, Message, QoS, WhenFull};

use super::stage::{
    Stage, arrived, as_text, message, next, numbers, publish, soon, subscribe, text, texts,
    until_end,
};
use super::{same, scenarios};
use crate::Failed;

const QUALITIES: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
/// More than any broker's receive maximum here.
const MANY: usize = 500;
const LARGE_BYTES: usize = 500_000;

scenarios! {
    "each QoS to each QoS" => each_qos_to_each_qos,
    "many at QoS 0 in order" => many_at_qos_0,
    "many at QoS 1 in order" => many_at_qos_1,
    "many at QoS 2 in order" => many_at_qos_2,
    "large payloads" => large_payloads,
    "empty payloads, any bytes" => any_payloads,
    "topics of all kinds" => topics_of_all_kinds,
    "wildcards" => wildcards,
    "retained messages" => retained_messages,
    "overlapping subscriptions" => overlapping_subscriptions,
    "unsubscribe" => unsubscribe,
    "several publishers at once" => several_publishers,
}

async fn each_qos_to_each_qos(stage: Stage) -> Result<(), Failed> {
    let publisher = stage.client("pub").await?;
    for granted in QUALITIES {
        let subscriber = stage.client(&format!("sub{}", granted as u8)).await?;
        let mut messages = subscribe(&subscriber, &stage.topic("x"), granted).await?;
        for qos in QUALITIES {
            publish(&publisher, message(&stage.topic("x"), "hello", qos)).await?;
            let got = next(&mut messages).await?;
            let wanted = (stage.topic("x"), "hello".to_owned(), qos.min(granted), false, false);
            let found = (got.topic.to_string(), as_text(&got), got.qos, got.retain, got.dup);
            same(found, wanted, "message")?;
        }
    }
    Ok(())
}

async fn many_at_qos_0(stage: Stage) -> Result<(), Failed> {
    many(stage, QoS::AtMostOnce).await
}

async fn many_at_qos_1(stage: Stage) -> Result<(), Failed> {
    many(stage, QoS::AtLeastOnce).await
}

async fn many_at_qos_2(stage: Stage) -> Result<(), Failed> {
    many(stage, QoS::ExactlyOnce).await
}

async fn many(stage: Stage, qos: QoS) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let filter = Filter::new(stage.topic("x")).qos(qos).queue(2 * MANY, WhenFull::Wait);
    let mut messages = soon("SUBACK", subscriber.subscribe(filter)).await??;
    let mut completions = Vec::new();
    for number in numbers(MANY) {
        let message = message(&stage.topic("x"), number, qos);
        completions.push(soon("room for a message", publisher.publish(message)).await??);
    }
    for completion in completions {
        arrived(completion).await?;
    }
    let mut found = Vec::new();
    while found.len() < MANY {
        found.push(text(&mut messages).await?);
    }
    same(found, numbers(MANY), "payloads")
}

async fn large_payloads(stage: Stage) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let mut messages = subscribe(&subscriber, &stage.topic("x"), QoS::ExactlyOnce).await?;
    for qos in QUALITIES {
        let payload: Vec<u8> = (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect();
        publish(&publisher, Message::new(stage.topic("x"), payload.clone()).qos(qos)).await?;
        let got = next(&mut messages).await?;
        same(got.payload.len(), payload.len(), "bytes")?;
        same(got.payload == payload, true, "the same bytes")?;
    }
    Ok(())
}

async fn any_payloads(stage: Stage) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let mut messages = subscribe(&subscriber, &stage.topic("x"), QoS::ExactlyOnce).await?;
    let payloads: [Vec<u8>; 4] = [vec![], vec![0], (0..=255).collect(), vec![0xff; 3]];
    for qos in QUALITIES {
        for payload in payloads.clone() {
            let message = Message::new(stage.topic("x"), payload.clone()).qos(qos);
            publish(&publisher, message).await?;
            same(next(&mut messages).await?.payload.to_vec(), payload, "payload")?;
        }
    }
    Ok(())
}

async fn topics_of_all_kinds(stage: Stage) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let mut messages = subscribe(&subscriber, &stage.topic("#"), QoS::AtLeastOnce).await?;
    let long = "l".repeat(200);
    for topic in ["ü/€/𝄞", "with space", "/", "//a", "$inside", "1.2", ">", "*", &long] {
        let topic = stage.topic(topic);
        publish(&publisher, message(&topic, "x", QoS::AtLeastOnce)).await?;
        same(next(&mut messages).await?.topic.to_string(), topic, "topic")?;
    }
    Ok(())
}

async fn wildcards(stage: Stage) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let topics = ["a", "a/b", "a/b/c", "a/", "b/b"];
    for (filter, wanted) in [
        ("a/#", vec!["a", "a/b", "a/b/c", "a/"]),
        ("a/+", vec!["a/b", "a/"]),
        ("+/b", vec!["a/b", "b/b"]),
        ("+/+/c", vec!["a/b/c"]),
    ] {
        // Messages published under one name cannot be of the round before.
        let round = |topic: &str| stage.topic(&format!("{}/{topic}", filter.len()));
        let mut messages = subscribe(&subscriber, &round(filter), QoS::AtLeastOnce).await?;
        let mut ends = subscribe(&subscriber, &round("end"), QoS::AtLeastOnce).await?;
        for topic in topics {
            publish(&publisher, message(&round(topic), topic, QoS::AtLeastOnce)).await?;
        }
        publish(&publisher, message(&round("end"), "end", QoS::AtLeastOnce)).await?;
        let mut found = Vec::new();
        while found.len() < wanted.len() {
            found.push(text(&mut messages).await?);
        }
        text(&mut ends).await?;
        same(found, wanted.into_iter().map(String::from).collect(), filter)?;
        soon("UNSUBACK", messages.unsubscribe()).await??;
        soon("UNSUBACK", ends.unsubscribe()).await??;
    }
    Ok(())
}

async fn retained_messages(stage: Stage) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let topic = stage.topic("x");
    for payload in ["old", "kept"] {
        publish(&publisher, message(&topic, payload, QoS::AtLeastOnce).retain(true)).await?;
    }
    let mut messages = subscribe(&subscriber, &topic, QoS::AtLeastOnce).await?;
    let got = next(&mut messages).await?;
    same((as_text(&got), got.retain), ("kept".into(), true), "retained message")?;
    publish(&publisher, message(&topic, "live", QoS::AtLeastOnce).retain(true)).await?;
    let got = next(&mut messages).await?;
    same((as_text(&got), got.retain), ("live".into(), false), "message as it is published")?;
    publish(&publisher, message(&topic, "", QoS::AtLeastOnce).retain(true)).await?;
    same(text(&mut messages).await?, String::new(), "message that removes it")?;
    let other = stage.client("other").await?;
    let mut messages = subscribe(&other, &topic, QoS::AtLeastOnce).await?;
    let found = until_end(&publisher, &topic, &mut messages).await?;
    same(texts(&found), vec![], "retained messages that are left")
}

/// One message for each stream, in 5.0; before, the broker may send one for each subscription,
/// which nothing tells apart.
async fn overlapping_subscriptions(stage: Stage) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let mut one = subscribe(&subscriber, &stage.topic("a/+"), QoS::AtLeastOnce).await?;
    let mut two = subscribe(&subscriber, &stage.topic("a/#"), QoS::ExactlyOnce).await?;
    for payload in ["1", "2", "3"] {
        publish(&publisher, message(&stage.topic("a/b"), payload, QoS::ExactlyOnce)).await?;
    }
    for messages in [&mut one, &mut two] {
        let mut found = texts(&until_end(&publisher, &stage.topic("a/b"), messages).await?);
        found.retain(|payload| payload != super::stage::END);
        if !stage.is_v5() {
            found.sort();
            found.dedup();
        }
        same(found, ["1", "2", "3"].map(String::from).into(), "messages of one stream")?;
    }
    Ok(())
}

async fn unsubscribe(stage: Stage) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let a = subscribe(&subscriber, &stage.topic("a"), QoS::AtLeastOnce).await?;
    let mut all = subscribe(&subscriber, &stage.topic("b"), QoS::AtLeastOnce).await?;
    soon("UNSUBACK", a.unsubscribe()).await??;
    let mut a = subscribe(&subscriber, &stage.topic("c"), QoS::AtLeastOnce).await?;
    publish(&publisher, message(&stage.topic("a"), "unwanted", QoS::AtLeastOnce)).await?;
    publish(&publisher, message(&stage.topic("c"), "wanted", QoS::AtLeastOnce)).await?;
    same(text(&mut a).await?, "wanted".into(), "message")?;
    let found = until_end(&publisher, &stage.topic("b"), &mut all).await?;
    same(texts(&found), vec![], "messages")
}

async fn several_publishers(stage: Stage) -> Result<(), Failed> {
    const EACH: usize = 50;
    let subscriber = stage.client("sub").await?;
    let mut messages = subscribe(&subscriber, &stage.topic("+"), QoS::ExactlyOnce).await?;
    let mut publishers = tokio::task::JoinSet::new();
    for name in ["a", "b", "c", "d"] {
        let (publisher, topic) = (stage.client(name).await?, stage.topic(name));
        publishers.spawn(async move {
            for number in numbers(EACH) {
                publish(&publisher, message(&topic, number, QoS::ExactlyOnce)).await?;
            }
            Ok::<(), Failed>(())
        });
    }
    let mut found = std::collections::BTreeMap::<String, Vec<String>>::new();
    for _ in 0..4 * EACH {
        let got = next(&mut messages).await?;
        found.entry(got.topic.to_string()).or_default().push(as_text(&got));
    }
    while let Some(ended) = publishers.join_next().await {
        ended??;
    }
    for (topic, payloads) in found {
        same(payloads, numbers(EACH), &topic)?;
    }
    Ok(())
}
