//! What 5.0 adds to messages and subscriptions; and shared subscriptions, which some offer before.

use std::time::Duration;

use tokio::time::sleep;
use whimbrel_client::{Filter, Message, Property, QoS, RetainHandling};

use super::stage::{
    END, Stage, as_text, connect, message, next, numbers, publish, soon, subscribe, text, texts,
    until_end,
};
use super::{holds, same, scenarios};
use crate::Failed;

scenarios! {
    "shared subscriptions" => shared_subscriptions,
    "request and response" (v5) => request_and_response,
    "properties of a message" (v5) => properties_of_a_message,
    "properties of a retained message" (v5) => properties_of_a_retained_message,
    "messages expire" (v5) => messages_expire,
    "a will with delay and properties" (v5) => will_with_delay,
    "options of a subscription" (v5) => options_of_a_subscription,
    "topic aliases" (v5) => topic_aliases,
}

async fn shared_subscriptions(stage: Stage) -> Result<(), Failed> {
    const MANY: usize = 60;
    let filter = format!("$share/group/{}", stage.topic("work"));
    let (one, two) = (stage.client("one").await?, stage.client("two").await?);
    let mut first = subscribe(&one, &filter, QoS::AtLeastOnce).await?;
    let mut second = subscribe(&two, &filter, QoS::AtLeastOnce).await?;
    let publisher = stage.client("pub").await?;
    for number in numbers(MANY) {
        publish(&publisher, message(&stage.topic("work"), number, QoS::AtLeastOnce)).await?;
    }
    let mut found = Vec::new();
    while found.len() < MANY {
        let got = soon("a message for one of both", async {
            tokio::select! { got = first.next() => got, got = second.next() => got }
        });
        found.push(as_text(&got.await?.ok_or("the subscription has ended")?));
    }
    found.sort_by_key(|number| number.parse::<usize>().unwrap_or_default());
    same(found, numbers(MANY), "messages of both")
}

async fn request_and_response(stage: Stage) -> Result<(), Failed> {
    let (asker, server) = (stage.client("ask").await?, stage.client("answer").await?);
    let mut requests = subscribe(&server, &stage.topic("questions"), QoS::AtLeastOnce).await?;
    let mut responses = subscribe(&asker, &stage.topic("answers"), QoS::AtLeastOnce).await?;
    for number in ["6", "7"] {
        let request = message(&stage.topic("questions"), number, QoS::AtLeastOnce)
            .property(Property::ResponseTopic(&stage.topic("answers")))
            .property(Property::CorrelationData(number.as_bytes()));
        publish(&asker, request).await?;
        let request = next(&mut requests).await?;
        let response = request.response("42").ok_or("the request names no response topic")?;
        publish(&server, response).await?;
        let response = next(&mut responses).await?;
        same(as_text(&response), "42".into(), "response")?;
        same(response.correlation_data(), Some(number.as_bytes()), "correlation data")?;
    }
    Ok(())
}

async fn properties_of_a_message(stage: Stage) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let mut messages = subscribe(&subscriber, &stage.topic("x"), QoS::ExactlyOnce).await?;
    let data: Vec<u8> = (0..=255).collect();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let message = message(&stage.topic("x"), "{}", qos)
            .content_type("application/json")
            .user_property("b", "1")
            .user_property("b", "2")
            .user_property("a", "ü")
            .property(Property::PayloadFormatIndicator(1))
            .property(Property::ResponseTopic("answer"))
            .property(Property::CorrelationData(&data));
        publish(&publisher, message).await?;
        let got = next(&mut messages).await?;
        let users = got.properties.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name.to_owned(), value.to_owned())),
            _ => None,
        });
        let wanted = [("b", "1"), ("b", "2"), ("a", "ü")].map(|(a, b)| (a.into(), b.into()));
        same(users.collect::<Vec<(String, String)>>(), wanted.into(), "user properties")?;
        same(got.content_type(), Some("application/json"), "content type")?;
        same(got.response_topic(), Some("answer"), "response topic")?;
        same(got.correlation_data(), Some(data.as_slice()), "correlation data")?;
        let format = Property::PayloadFormatIndicator(1);
        holds(got.properties.iter().any(|p| p == format), "no payload format indicator")?;
    }
    Ok(())
}

async fn properties_of_a_retained_message(stage: Stage) -> Result<(), Failed> {
    let client = stage.client("c").await?;
    let topic = stage.topic("x");
    let kept = message(&topic, "kept", QoS::AtLeastOnce).retain(true).expiry_s(100);
    publish(&client, kept.content_type("text/plain").user_property("k", "v")).await?;
    let mut messages = subscribe(&client, &topic, QoS::AtLeastOnce).await?;
    let got = next(&mut messages).await?;
    same((got.content_type(), got.user_property("k")), (Some("text/plain"), Some("v")), "both")?;
    holds(expiry_s(&got).is_some_and(|s| (90..=100).contains(&s)), "the expiry interval is wrong")?;
    publish(&client, message(&topic, "", QoS::AtLeastOnce).retain(true)).await
}

fn expiry_s(message: &whimbrel_client::Incoming) -> Option<u32> {
    message.properties.iter().find_map(|property| match property {
        Property::MessageExpiryIntervalS(seconds) => Some(seconds),
        _ => None,
    })
}

async fn messages_expire(stage: Stage) -> Result<(), Failed> {
    let topic = stage.topic("x");
    let keeper = connect(stage.keeper("keeper")?).await?;
    drop(subscribe(&keeper, &topic, QoS::AtLeastOnce).await?);
    soon("the end", keeper.disconnect()).await??;
    let publisher = stage.client("pub").await?;
    publish(&publisher, message(&topic, "short", QoS::AtLeastOnce).expiry_s(1)).await?;
    publish(&publisher, message(&topic, "long", QoS::AtLeastOnce).expiry_s(100)).await?;
    sleep(Duration::from_millis(2500)).await;
    let keeper = connect(stage.keeper("keeper")?).await?;
    let mut messages = subscribe(&keeper, &topic, QoS::AtLeastOnce).await?;
    let found = until_end(&publisher, &topic, &mut messages).await?;
    same(texts(&found), vec!["long".into()], "messages that are left")?;
    let left = found.first().and_then(expiry_s);
    holds(left.is_some_and(|s| (90..100).contains(&s)), "the expiry interval is not counted down")
}

async fn will_with_delay(stage: Stage) -> Result<(), Failed> {
    let watcher = stage.client("watcher").await?;
    let mut wills = subscribe(&watcher, &stage.topic("will"), QoS::AtLeastOnce).await?;
    let (relay, place) = stage.relay().await?;
    let will = message(&stage.topic("will"), "late", QoS::AtLeastOnce).user_property("k", "v");
    let mortal = stage.builder_at(&place, "mortal")?.will(will, 1).reconnect(false);
    let _mortal = connect(mortal.session_expiry_s(600)).await?;
    relay.cut();
    publish(&watcher, message(&stage.topic("will"), "first", QoS::AtLeastOnce)).await?;
    same(text(&mut wills).await?, "first".into(), "what comes before the will")?;
    let will = next(&mut wills).await?;
    same((as_text(&will), will.user_property("k")), ("late".into(), Some("v")), "the will")
}

async fn options_of_a_subscription(stage: Stage) -> Result<(), Failed> {
    let (client, other) = (stage.client("c").await?, stage.client("other").await?);
    let topic = stage.topic("x");
    publish(&other, message(&topic, "kept", QoS::AtLeastOnce).retain(true)).await?;
    let filter = Filter::new(topic.clone()).qos(QoS::AtLeastOnce).no_local(true);
    let filter = filter.retain_as_published(true).retain_handling(RetainHandling::DoNotSend);
    let mut messages = soon("SUBACK", client.subscribe(filter)).await??;
    publish(&client, message(&topic, "own", QoS::AtLeastOnce)).await?;
    publish(&other, message(&topic, "live", QoS::AtLeastOnce).retain(true)).await?;
    let found = until_end(&other, &topic, &mut messages).await?;
    let found: Vec<_> = found.iter().map(|got| (as_text(got), got.retain)).collect();
    same(found, vec![("live".into(), true)], "no local, retained as published, none of before")?;
    publish(&other, message(&topic, "", QoS::AtLeastOnce).retain(true)).await
}

async fn topic_aliases(stage: Stage) -> Result<(), Failed> {
    let (publisher, subscriber) = (stage.client("pub").await?, stage.client("sub").await?);
    let filter = Filter::new(stage.topic("#")).qos(QoS::AtLeastOnce);
    let mut messages = soon("SUBACK", subscriber.subscribe(filter)).await??;
    // More topics than aliases, each several times.
    for round in 0..3 {
        for number in 0..40 {
            let topic = stage.topic(&format!("a/rather/long/topic/{number}"));
            publish(&publisher, Message::new(topic.clone(), format!("{round}"))).await?;
            let got = next(&mut messages).await?;
            same((got.topic.to_string(), as_text(&got)), (topic, round.to_string()), "message")?;
        }
    }
    publish(&publisher, message(&stage.topic("x"), END, QoS::AtLeastOnce)).await?;
    same(text(&mut messages).await?, END.into(), "the next message")
}
