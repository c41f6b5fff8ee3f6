//! Connections and sessions: refused, lost, taken up and left.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;
use whimbrel_client::{Client, Error, Filter, Message, QoS, Status};

use super::stage::{
    END, Stage, arrived, as_text, connect, event, message, next, numbers, publish, soon, subscribe,
    text, texts, until_end,
};
use super::{holds, same, scenarios};
use crate::Failed;
use crate::relay::{End, Fate, Way};

scenarios! {
    "connect and disconnect" => connect_and_disconnect,
    "a wrong password is refused" => wrong_password,
    "an empty client identifier" => empty_client_identifier,
    "the broker chooses a client identifier" (v5) => assigned_client_identifier,
    "a clean session is forgotten" => clean_session,
    "a kept session keeps subscriptions and messages" => kept_session,
    "a kept session is taken up by another process" => another_process,
    "a lost connection: subscriptions go on" => subscriptions_go_on,
    "a lost connection: publishes go on at QoS 1" => publishes_go_on_at_qos_1,
    "a lost connection: publishes go on at QoS 2" => publishes_go_on_at_qos_2,
    "a lost connection: messages come again at QoS 1" => messages_come_again_at_qos_1,
    "a lost connection: messages come once at QoS 2" => messages_come_once_at_qos_2,
    "what is not acknowledged comes again" => unacknowledged,
    "publishing while the broker is away" => publishing_while_away,
    "torn packets" => torn_packets,
    "a will when the connection is lost" => will_of_the_lost,
    "no will after disconnecting" => no_will_of_the_leaving,
    "a session is taken over" => taken_over,
    "an idle connection stays" => idle_connection,
    "a silent connection is noticed" => silent_connection,
}

async fn connect_and_disconnect(stage: Stage) -> Result<(), Failed> {
    for _ in 0..3 {
        let client = stage.client("c").await?;
        holds(client.is_connected(), "not connected")?;
        soon("the end", client.disconnect()).await??;
        holds(!client.is_connected(), "connected after DISCONNECT")?;
    }
    Ok(())
}

async fn wrong_password(stage: Stage) -> Result<(), Failed> {
    let builder = stage.builder("c")?.password("ann", "wrong");
    match soon("CONNACK", builder.connect()).await? {
        Ok(_) => Err("the connection was accepted".into()),
        Err(Error::Refused(..)) => Ok(()),
        Err(error) => Err(format!("not refused in so many words: {error}").into()),
    }
}

async fn empty_client_identifier(stage: Stage) -> Result<(), Failed> {
    let one = connect(stage.builder("")?.client_id("")).await?;
    let two = connect(stage.builder("")?.client_id("")).await?;
    let mut messages = subscribe(&two, &stage.topic("x"), QoS::AtLeastOnce).await?;
    publish(&one, message(&stage.topic("x"), "hello", QoS::AtLeastOnce)).await?;
    same(text(&mut messages).await?, "hello".into(), "payload")
}

async fn assigned_client_identifier(stage: Stage) -> Result<(), Failed> {
    let builder = stage.builder("")?.client_id("");
    let (_client, connected) = soon("CONNACK", builder.connect_with_info()).await??;
    holds(!connected.client_id.is_empty(), "none was told")
}

async fn clean_session(stage: Stage) -> Result<(), Failed> {
    let subscriber = stage.client("sub").await?;
    let _messages = subscribe(&subscriber, &stage.topic("x"), QoS::AtLeastOnce).await?;
    soon("the end", subscriber.disconnect()).await??;
    let publisher = stage.client("pub").await?;
    publish(&publisher, message(&stage.topic("x"), "lost", QoS::AtLeastOnce)).await?;
    let (subscriber, connected) =
        soon("CONNACK", stage.builder("sub")?.connect_with_info()).await??;
    holds(!connected.session_present, "the session is present")?;
    let mut messages = subscribe(&subscriber, &stage.topic("x"), QoS::AtLeastOnce).await?;
    let found = until_end(&publisher, &stage.topic("x"), &mut messages).await?;
    same(texts(&found), vec![], "messages")
}

async fn kept_session(stage: Stage) -> Result<(), Failed> {
    const MANY: usize = 100;
    let topic = stage.topic("x");
    let keeper = connect(stage.keeper("keeper")?).await?;
    drop(subscribe(&keeper, &topic, QoS::ExactlyOnce).await?);
    soon("the end", keeper.disconnect()).await??;
    let publisher = stage.client("pub").await?;
    for (at, number) in numbers(MANY).into_iter().enumerate() {
        let qos = if at % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        publish(&publisher, message(&topic, number, qos)).await?;
    }
    let (keeper, connected) =
        soon("CONNACK", stage.keeper("keeper")?.connect_with_info()).await??;
    holds(connected.session_present, "the session is gone")?;
    let mut messages = subscribe(&keeper, &topic, QoS::ExactlyOnce).await?;
    let found = until_end(&publisher, &topic, &mut messages).await?;
    same(texts(&found), numbers(MANY), "messages of the queue")
}

/// The broker sends what it has kept before the client subscribes again.
async fn another_process(stage: Stage) -> Result<(), Failed> {
    let topic = stage.topic("x");
    let keeper = connect(stage.keeper("keeper")?).await?;
    drop(subscribe(&keeper, &topic, QoS::AtLeastOnce).await?);
    soon("the end", keeper.disconnect()).await??;
    let publisher = stage.client("pub").await?;
    for number in numbers(10) {
        publish(&publisher, message(&topic, number, QoS::AtLeastOnce)).await?;
    }
    let keeper = connect(stage.keeper("keeper")?).await?;
    sleep(Duration::from_millis(300)).await;
    let mut messages = subscribe(&keeper, &topic, QoS::AtLeastOnce).await?;
    let found = until_end(&publisher, &topic, &mut messages).await?;
    same(texts(&found), numbers(10), "messages of the queue")?;
    soon("UNSUBACK", messages.unsubscribe()).await??;
    soon("the end", keeper.disconnect()).await??;
    publish(&publisher, message(&topic, "unwanted", QoS::AtLeastOnce)).await?;
    let keeper = connect(stage.keeper("keeper")?).await?;
    let mut messages = subscribe(&keeper, &topic, QoS::AtLeastOnce).await?;
    let found = until_end(&publisher, &topic, &mut messages).await?;
    same(texts(&found), vec![], "messages after UNSUBSCRIBE")
}

async fn subscriptions_go_on(stage: Stage) -> Result<(), Failed> {
    let (relay, place) = stage.relay().await?;
    let publisher = stage.client("pub").await?;
    let kinds = [stage.builder_at(&place, "clean")?, stage.keeper_at(&place, "kept")?];
    for (number, builder) in kinds.into_iter().enumerate() {
        let topic = stage.topic(&number.to_string());
        let subscriber = connect(builder).await?;
        let mut events = subscriber.events();
        let mut messages = subscribe(&subscriber, &topic, QoS::AtLeastOnce).await?;
        for _ in 0..3 {
            relay.cut();
            event(&mut events, "the loss", |e| matches!(e, Status::Disconnected { .. })).await?;
            event(&mut events, "a connection", |e| matches!(e, Status::Connected(_))).await?;
            // Stands once another subscription of the same client was acknowledged.
            drop(subscribe(&subscriber, &stage.topic("other"), QoS::AtMostOnce).await?);
            let found = until_end(&publisher, &topic, &mut messages).await?;
            same(texts(&found), vec![], "messages before the end")?;
        }
    }
    Ok(())
}

async fn publishes_go_on_at_qos_1(stage: Stage) -> Result<(), Failed> {
    publishes_go_on(stage, QoS::AtLeastOnce).await
}

async fn publishes_go_on_at_qos_2(stage: Stage) -> Result<(), Failed> {
    publishes_go_on(stage, QoS::ExactlyOnce).await
}

/// Cuts the publisher's connection at several places; every message arrives, in order.
async fn publishes_go_on(stage: Stage, qos: QoS) -> Result<(), Failed> {
    const MANY: usize = 150;
    let subscriber = stage.client("sub").await?;
    let mut messages = subscribe(&subscriber, &stage.topic("x"), qos).await?;
    let (relay, place) = stage.relay().await?;
    let publisher = connect(stage.keeper_at(&place, "pub")?).await?;
    let mut completions = Vec::new();
    for (at, number) in numbers(MANY).into_iter().enumerate() {
        if at % 30 == 20 {
            let (way, end) = match at % 60 {
                20 => (Way::ToBroker, End::Close),
                _ => (Way::ToClient, End::Reset),
            };
            // The connection after this one ends in the middle of things as well.
            relay.set_next_fate(Fate { end: Some((way, 500 + at as u64, end)), ..Fate::default() });
            relay.cut();
        }
        let message = message(&stage.topic("x"), number, qos);
        completions.push(soon("room for a message", publisher.publish(message)).await??);
    }
    for completion in completions {
        arrived(completion).await?;
    }
    // By the same client: only then it comes last.
    publish(&publisher, message(&stage.topic("x"), END, qos)).await?;
    let mut found = Vec::new();
    loop {
        let payload = text(&mut messages).await?;
        if payload == END {
            break;
        }
        found.push(payload);
    }
    if qos == QoS::AtLeastOnce {
        let mut seen = BTreeSet::new();
        found.retain(|payload| seen.insert(payload.clone()));
    }
    same(found, numbers(MANY), "messages")
}

async fn messages_come_again_at_qos_1(stage: Stage) -> Result<(), Failed> {
    let mut found = received_through_cuts(&stage, QoS::AtLeastOnce).await?;
    let mut seen = BTreeSet::new();
    found.retain(|payload| seen.insert(payload.clone()));
    same(found, numbers(CUT_MESSAGES), "messages")
}

async fn messages_come_once_at_qos_2(stage: Stage) -> Result<(), Failed> {
    let found = received_through_cuts(&stage, QoS::ExactlyOnce).await?;
    same(found, numbers(CUT_MESSAGES), "messages")
}

const CUT_MESSAGES: usize = 150;

/// What a subscriber gets whose connection is cut again and again.
async fn received_through_cuts(stage: &Stage, qos: QoS) -> Result<Vec<String>, Failed> {
    let (relay, place) = stage.relay().await?;
    let subscriber = connect(stage.keeper_at(&place, "sub")?).await?;
    let mut messages = subscribe(&subscriber, &stage.topic("x"), qos).await?;
    let publisher = stage.client("pub").await?;
    for number in numbers(CUT_MESSAGES) {
        drop(publisher.publish(message(&stage.topic("x"), number, qos)).await?);
    }
    publish(&publisher, message(&stage.topic("x"), END, qos)).await?;
    let mut found = Vec::new();
    loop {
        let payload = text(&mut messages).await?;
        if payload == END {
            return Ok(found);
        }
        if found.len() % 40 == 15 {
            let end = Some((Way::ToClient, 300 + 10 * found.len() as u64, End::Reset));
            relay.set_next_fate(Fate { end, ..Fate::default() });
            relay.cut();
        }
        found.push(payload);
    }
}

async fn unacknowledged(stage: Stage) -> Result<(), Failed> {
    let (relay, place) = stage.relay().await?;
    let subscriber = connect(stage.keeper_at(&place, "sub")?).await?;
    let filter = Filter::new(stage.topic("x")).qos(QoS::AtLeastOnce).manual_ack();
    let mut messages = soon("SUBACK", subscriber.subscribe(filter)).await??;
    let publisher = stage.client("pub").await?;
    for number in numbers(3) {
        publish(&publisher, message(&stage.topic("x"), number, QoS::AtLeastOnce)).await?;
    }
    let mut first = next(&mut messages).await?;
    let mut held = vec![next(&mut messages).await?, next(&mut messages).await?];
    first.ack()?;
    // Until the acknowledgement is at the broker, it may send the first one again.
    sleep(Duration::from_millis(200)).await;
    relay.cut();
    let mut again = vec![next(&mut messages).await?, next(&mut messages).await?];
    same(texts(&again), texts(&held), "messages that come again")?;
    holds(again.iter().all(|message| message.dup), "they come without DUP")?;
    holds(
        held.iter_mut().all(|message| message.ack().is_err()),
        "an old message can be acknowledged",
    )?;
    for message in &mut again {
        message.ack()?;
    }
    publish(&publisher, message(&stage.topic("x"), END, QoS::AtLeastOnce)).await?;
    same(text(&mut messages).await?, END.into(), "the next message")
}

async fn publishing_while_away(stage: Stage) -> Result<(), Failed> {
    let subscriber = stage.client("sub").await?;
    let mut messages = subscribe(&subscriber, &stage.topic("x"), QoS::AtLeastOnce).await?;
    let (relay, place) = stage.relay().await?;
    relay.refuse(true);
    let publisher = stage.builder_at(&place, "pub")?.start()?;
    let mut completions = Vec::new();
    for number in numbers(100) {
        let message = message(&stage.topic("x"), number, QoS::AtLeastOnce);
        completions.push(soon("room in the queue", publisher.publish(message)).await??);
    }
    relay.refuse(false);
    for completion in completions {
        arrived(completion).await?;
    }
    let found = until_end(&publisher, &stage.topic("x"), &mut messages).await?;
    same(texts(&found), numbers(100), "messages of the queue")
}

async fn torn_packets(stage: Stage) -> Result<(), Failed> {
    let (relay, place) = stage.relay().await?;
    relay.set_fate(Fate { torn: Some(7), ..Fate::default() });
    let client = connect(stage.builder_at(&place, "c")?).await?;
    let mut messages = subscribe(&client, &stage.topic("x"), QoS::ExactlyOnce).await?;
    let payload = "torn ".repeat(1000);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publish(&client, message(&stage.topic("x"), payload.clone(), qos)).await?;
        same(text(&mut messages).await?, payload.clone(), "payload")?;
    }
    Ok(())
}

async fn with_will(stage: &Stage) -> Result<(crate::relay::Relay, Client), Failed> {
    let (relay, place) = stage.relay().await?;
    let will = message(&stage.topic("will"), "lost", QoS::AtLeastOnce);
    let builder = stage.builder_at(&place, "mortal")?.will(will, 0).reconnect(false);
    Ok((relay, connect(builder).await?))
}

async fn will_of_the_lost(stage: Stage) -> Result<(), Failed> {
    let watcher = stage.client("watcher").await?;
    let mut wills = subscribe(&watcher, &stage.topic("will"), QoS::AtLeastOnce).await?;
    let (relay, _mortal) = with_will(&stage).await?;
    relay.cut();
    let will = next(&mut wills).await?;
    same((as_text(&will), will.qos), ("lost".into(), QoS::AtLeastOnce), "the will")
}

async fn no_will_of_the_leaving(stage: Stage) -> Result<(), Failed> {
    let watcher = stage.client("watcher").await?;
    let mut wills = subscribe(&watcher, &stage.topic("will"), QoS::AtLeastOnce).await?;
    let (_relay, mortal) = with_will(&stage).await?;
    soon("the end", mortal.disconnect()).await??;
    // A will would have come by the time that something else has gone both ways.
    sleep(Duration::from_millis(300)).await;
    let found = until_end(&watcher, &stage.topic("will"), &mut wills).await?;
    same(texts(&found), vec![], "wills")
}

async fn taken_over(stage: Stage) -> Result<(), Failed> {
    let first = connect(stage.builder("c")?.reconnect(false)).await?;
    let second = stage.client("c").await?;
    let why = soon("the end of the first", first.closed()).await?;
    holds(why.is_some(), "the first was not told")?;
    let mut messages = subscribe(&second, &stage.topic("x"), QoS::AtLeastOnce).await?;
    publish(&second, Message::new(stage.topic("x"), "mine").qos(QoS::AtLeastOnce)).await?;
    same(text(&mut messages).await?, "mine".into(), "payload")
}

async fn idle_connection(stage: Stage) -> Result<(), Failed> {
    let client = connect(stage.builder("idle")?.keep_alive_s(1)).await?;
    let mut messages = subscribe(&client, &stage.topic("x"), QoS::AtLeastOnce).await?;
    let mut events = client.events();
    if let Ok(told) = tokio::time::timeout(Duration::from_secs(4), events.next()).await {
        return Err(format!("it did not last for four keep alive intervals: {told:?}").into());
    }
    publish(&client, message(&stage.topic("x"), "awake", QoS::AtLeastOnce)).await?;
    same(text(&mut messages).await?, "awake".into(), "payload")
}

async fn silent_connection(stage: Stage) -> Result<(), Failed> {
    let (relay, place) = stage.relay().await?;
    let client = connect(stage.builder_at(&place, "c")?.keep_alive_s(1)).await?;
    let mut events = client.events();
    relay.end(End::Blackhole(Duration::from_secs(60)));
    let swallowed = client.publish(message(&stage.topic("x"), "x", QoS::AtLeastOnce)).await?;
    event(&mut events, "the loss", |e| matches!(e, Status::Disconnected { .. })).await?;
    event(&mut events, "a connection", |e| matches!(e, Status::Connected(_))).await?;
    arrived(swallowed).await
}
