//! The clients of a run. They give up futures in the middle of things, as applications do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use whimbrel_client::{
    Backoff, Builder, Client, Completion, Filter, Message, QoS, Subscription, WhenFull,
};

use super::Scene;
use super::ledger::Role;
use crate::Failed;

/// Messages of a publisher whose outcome is not known.
const OUTSTANDING: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts all clients, the subscribers first.
pub(super) async fn start(
    scene: &Arc<Scene>,
    seed: u64,
    tasks: &mut JoinSet<Result<(), Failed>>,
) -> Result<(), Failed> {
    for (number, role) in Role::subscribers().into_iter().enumerate() {
        let client = builder(scene, &format!("subscriber-{number}"), role)?.start()?;
        let mut filter = Filter::new("chaos/+").qos(role.qos).queue(1024, WhenFull::Wait);
        if role.manual_ack {
            filter = filter.manual_ack();
        }
        let subscription = timeout(SUBSCRIBE_TIMEOUT, client.subscribe(filter)).await??;
        let rng = fastrand::Rng::with_seed(seed ^ 0x5ab ^ number as u64);
        tasks.spawn(subscriber(scene.clone(), number, role, subscription, rng));
    }
    for (number, role) in Role::publishers().into_iter().enumerate() {
        let client = builder(scene, &format!("publisher-{number}"), role)?.start()?;
        let (sender, completions) = mpsc::channel(OUTSTANDING);
        let rng = fastrand::Rng::with_seed(seed ^ 0x9ab ^ number as u64);
        tasks.spawn(publisher(scene.clone(), number, role.qos, client, sender, rng));
        tasks.spawn(outcomes(scene.clone(), number, completions));
    }
    Ok(())
}

fn builder(scene: &Scene, name: &str, role: Role) -> Result<Builder, Failed> {
    let backoff = Backoff { first: Duration::from_millis(2), most: Duration::from_millis(50) };
    let builder = Client::builder(&format!("mqtt://{}", scene.relay.address))?
        .client_id(name)
        .keep_alive_s(1)
        .connect_timeout(CONNECT_TIMEOUT)
        .backoff(backoff);
    Ok(match role.is_kept {
        true => builder.clean_start(false).session_expiry_s(3600),
        false => builder.session_expiry_s(0),
    })
}

/// Publishes numbers until the run ends.
async fn publisher(
    scene: Arc<Scene>,
    number: usize,
    qos: QoS,
    client: Client,
    completions: mpsc::Sender<Completion>,
    mut rng: fastrand::Rng,
) -> Result<(), Failed> {
    let topic: Arc<str> = format!("chaos/{number}").into();
    let mut next = 1u64;
    while !scene.is_ending() {
        // Before the message, so that each that is taken has its place.
        let place = completions.reserve().await?;
        let mut payload = next.to_string();
        payload.extend(std::iter::repeat_n(' ', rng.usize(..200)));
        let message = Message::new(topic.clone(), payload).qos(qos);
        // Given up now and then: then it was not published, and comes again.
        let patience = match rng.u32(..4) {
            0 => Duration::from_micros(rng.u64(..500)),
            _ => Duration::from_secs(3600),
        };
        match timeout(patience, client.publish(message)).await {
            Err(_) => continue,
            Ok(completion) => place.send(completion?),
        }
        scene.ledger().handle_taken(number);
        next += 1;
        if rng.u32(..20) == 0 {
            sleep(Duration::from_millis(rng.u64(..10))).await;
        }
    }
    Ok(())
}

/// Waits for the outcome of each message of a publisher, in order.
async fn outcomes(
    scene: Arc<Scene>,
    number: usize,
    mut completions: mpsc::Receiver<Completion>,
) -> Result<(), Failed> {
    while let Some(completion) = completions.recv().await {
        let outcome = completion.await.map(drop);
        scene.ledger().handle_outcome(number, outcome);
    }
    scene.ledger().handle_end(number);
    Ok(())
}

/// Takes messages for ever.
async fn subscriber(
    scene: Arc<Scene>,
    number: usize,
    role: Role,
    mut messages: Subscription,
    mut rng: fastrand::Rng,
) -> Result<(), Failed> {
    loop {
        let patience = match rng.u32(..4) {
            0 => Duration::from_micros(rng.u64(..200)),
            _ => Duration::from_secs(3600),
        };
        let Ok(message) = timeout(patience, messages.next()).await else { continue };
        let mut message = message.ok_or("a subscription has ended")?;
        let text = str::from_utf8(&message.payload)?;
        let publisher = message.topic.rsplit('/').next().unwrap_or_default().parse()?;
        scene.ledger().handle_received(number, publisher, text.trim_end().parse()?);
        // The connection may have gone: the message comes again.
        if role.manual_ack && message.ack().is_err() {
            continue;
        }
        if rng.u32(..500) == 0 {
            sleep(Duration::from_millis(rng.u64(..30))).await;
        }
    }
}
