//! Devices with clients, all on one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};
use whimbrel_client::{
    Builder, Client, Events, Filter, Incoming, Login, Message, PublishError, Status,
};
use whimbrel_codec::{Property, QoS};

use super::device::{Action, Command, Device, Outgoing};
use super::fleet::Fleet;
use super::summary::{Counts, Summary};
use crate::args::Setup;
use crate::failure::Failure;

/// How long a device that goes waits for what is under way.
const DRAIN: Duration = Duration::from_secs(2);
/// How often the live line is drawn.
const TICK: Duration = Duration::from_millis(500);
/// Messages that wait for one device.
const WAITING_MAX: usize = 256;
/// Different reasons of failures that are told at once; all are in the summary.
const REASONS_TOLD: usize = 5;

/// What is to be run.
pub struct Plan<'a> {
    pub setup: &'a Setup<'a>,
    pub name: String,
    pub seed: u64,
    pub fleet: Fleet,
    pub duration: Option<Duration>,
}

/// What all devices share.
struct World {
    start: Instant,
    counts: RefCell<Vec<Counts>>,
    /// Acknowledgements that are awaited.
    awaited: RefCell<u64>,
    bar: ProgressBar,
    quiet: bool,
}

impl World {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn count(&self, group: usize, change: impl FnOnce(&mut Counts)) {
        if let Some(counts) = self.counts.borrow_mut().get_mut(group) {
            change(counts);
        }
    }

    fn fail(&self, group: usize, client_id: &str, why: &str) {
        let known = self.counts.borrow().iter().map(|c| c.failure_reasons.len()).sum::<usize>();
        let is_new = self.counts.borrow().iter().all(|c| !c.failure_reasons.contains_key(why));
        if is_new && known < REASONS_TOLD && !self.quiet {
            self.bar.suspend(|| eprintln!("Warning: {client_id}: {why}"));
        }
        self.count(group, |counts| {
            counts.failures += 1;
            *counts.failure_reasons.entry(why.into()).or_default() += 1;
        });
    }

    fn refuse(&self, group: usize, why: String) {
        self.count(group, |counts| {
            counts.refused += 1;
            *counts.refusal_reasons.entry(why).or_default() += 1;
        });
    }
}

/// Runs the fleet to its end.
pub async fn run(plan: Plan<'_>) -> Result<Summary, Failure> {
    let Plan { setup, name, seed, fleet, duration } = plan;
    let counts = fleet.groups.iter().map(|group| Counts {
        name: group.name.clone(),
        devices: u64::from(group.count),
        ..Counts::default()
    });
    let world = Rc::new(World {
        start: Instant::now(),
        counts: RefCell::new(counts.collect()),
        awaited: RefCell::new(0),
        bar: ProgressBar::new_spinner(),
        quiet: setup.is_quiet(),
    });
    let (stop, stopped) = watch::channel(false);
    let ramp = fleet.ramp;
    let mut tasks = Vec::new();
    for (number, group) in fleet.groups.into_iter().enumerate() {
        let group = Arc::new(group);
        for index in (group.first_index..).take(group.count as usize) {
            let mut start = fastrand::Rng::with_seed(seed ^ u64::from(index));
            let device = Device::new(group.clone(), index, seed, ramp.mul_f64(start.f64()));
            let life = Life {
                builder: builder_for(setup, &device),
                world: world.clone(),
                group: number,
                device,
                connection: None,
                replies: Vec::new(),
            };
            tasks.push(spawn_local(life.run(stopped.clone())));
        }
    }
    watch_over(&world, duration).await?;
    let elapsed_s = world.now().as_secs_f64();
    let connected: Vec<u64> = world.counts.borrow().iter().map(|c| c.connected).collect();
    // A device that has ended by itself listens no more.
    let _ = stop.send(true);
    for task in tasks {
        // One that failed has counted what it did.
        let _ = task.await;
    }
    settle(&world).await;
    let mut groups = world.counts.borrow().clone();
    groups.iter_mut().zip(connected).for_each(|(group, connected)| group.connected = connected);
    Ok(Summary {
        format: "whimbrel-simulate 1",
        fleet: name,
        broker: setup.address.to_string(),
        seed,
        elapsed_s,
        total: Counts::total(&groups),
        groups,
    })
}

/// Draws the live line until the time is over or a signal comes.
async fn watch_over(world: &World, duration: Option<Duration>) -> Result<(), Failure> {
    let failed = |error| Failure::new(1, format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    // A hundred years are for ever.
    let end = world.start + duration.unwrap_or(Duration::from_secs(100 * 365 * 86_400));
    let mut before = (Instant::now(), 0);
    loop {
        tokio::select! {
            () = sleep_until(end.min(before.0 + TICK)) => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
        let now = Instant::now();
        let total = Counts::total(&world.counts.borrow());
        let rate = (total.published - before.1) as f64 / (now - before.0).as_secs_f64().max(1e-3);
        world.bar.set_message(format!(
            "{:.0} s  {} of {} devices connected  {} published ({rate:.0}/s)  {} received  \
             {} failures",
            world.now().as_secs_f64(),
            total.connected,
            total.devices,
            total.published,
            total.received,
            total.failures + total.refused,
        ));
        world.bar.tick();
        before = (now, total.published);
        if now >= end {
            break;
        }
    }
    world.bar.finish_and_clear();
    Ok(())
}

/// Waits for the last acknowledgements, which the clients have drained already.
async fn settle(world: &World) {
    let until = Instant::now() + DRAIN;
    while *world.awaited.borrow() > 0 && Instant::now() < until {
        sleep(Duration::from_millis(1)).await;
    }
}

/// What the device connects with, but for its will, which may say something else each time.
fn builder_for(setup: &Setup<'_>, device: &Device) -> Builder {
    let group = device.group();
    let text = |template: &Option<_>| template.as_ref().map(|text| device.fixed(text));
    let (user_name, password) = (text(&group.user_name), text(&group.password));
    let mut builder = setup
        .builder()
        .client_id(device.client_id())
        .keep_alive_s(group.keep_alive_s)
        .clean_start(group.clean_start)
        .drain_timeout(DRAIN);
    if let Some(seconds) = group.session_expiry_s {
        builder = builder.session_expiry_s(seconds);
    }
    if user_name.is_some() || password.is_some() {
        builder = builder.login(Login::password(user_name, password.map(String::into_bytes)));
    }
    builder
}

fn message(outgoing: Outgoing) -> Message {
    let Outgoing { topic, payload, qos, retain, correlation_data } = outgoing;
    let message = Message::new(topic, payload).qos(qos).retain(retain);
    match correlation_data {
        Some(data) => message.property(Property::CorrelationData(&data)),
        None => message,
    }
}

/// A device, its client, and what comes to it.
struct Life {
    builder: Builder,
    world: Rc<World>,
    /// Its place among the groups.
    group: usize,
    device: Device,
    connection: Option<Connection>,
    /// When which answer is to be sent.
    replies: Vec<(Duration, Outgoing)>,
}

struct Connection {
    client: Client,
    events: Events,
    incoming: mpsc::Receiver<Incoming>,
    is_up: bool,
}

/// What a device waits for.
enum Wake {
    Time,
    Status(Option<Status>),
    Message(Incoming),
    Stop,
}

impl Life {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            self.act().await;
            match self.wait(&mut stopped).await {
                Wake::Time => {}
                Wake::Message(message) => self.handle_message(&message),
                Wake::Status(Some(status)) => {
                    if !self.handle_status(status) {
                        break;
                    }
                }
                Wake::Status(None) | Wake::Stop => break,
            }
        }
        if let Some(connection) = self.connection.take() {
            // What it could not deliver is not acknowledged, and so counted.
            let _ = connection.client.disconnect().await;
        }
    }

    async fn wait(&mut self, stopped: &mut watch::Receiver<bool>) -> Wake {
        let replies = self.replies.iter().map(|(at, _)| *at).filter(|_| self.is_up());
        let next = self.device.next_at().into_iter().chain(replies).min();
        let start = self.world.start;
        let time = async {
            match next {
                Some(next) => sleep_until(start + next).await,
                None => std::future::pending().await,
            }
        };
        let connection = &mut self.connection;
        let news = async {
            match connection {
                Some(connection) => tokio::select! {
                    status = connection.events.next() => Wake::Status(status),
                    Some(message) = connection.incoming.recv() => Wake::Message(message),
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => Wake::Stop,
            news = news => news,
            () = time => Wake::Time,
        }
    }

    fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.is_up)
    }

    /// Does all that is due.
    async fn act(&mut self) {
        while let Some(action) = self.device.poll(self.world.now(), unix_ms()) {
            match action {
                Action::Connect => self.connect(),
                Action::Publish(outgoing) => {
                    self.publish(outgoing);
                }
                Action::Disconnect { abrupt } => self.disconnect(abrupt).await,
            }
        }
        let now = self.world.now();
        if self.is_up() {
            let due = |(at, _): &mut (Duration, Outgoing)| *at <= now;
            let replies: Vec<_> = self.replies.extract_if(.., due).collect();
            for (_, reply) in replies {
                if self.publish(reply) {
                    self.world.count(self.group, |counts| counts.replies += 1);
                }
            }
        }
    }

    fn connect(&mut self) {
        let builder = match self.device.will(unix_ms()) {
            Some(will) => self.builder.clone().will(message(will), 0),
            None => self.builder.clone(),
        };
        let client = match builder.start() {
            Ok(client) => client,
            Err(error) => {
                return self.world.fail(self.group, self.device.client_id(), &error.to_string());
            }
        };
        let events = client.events();
        let (sender, incoming) = mpsc::channel(WAITING_MAX);
        for subscribe in &self.device.group().subscribe {
            let filter = Filter::new(self.device.fixed(&subscribe.filter)).qos(subscribe.qos);
            let (client, sender) = (client.clone(), sender.clone());
            let (world, group) = (self.world.clone(), self.group);
            spawn_local(async move {
                match client.subscribe(filter).await {
                    Ok(mut subscription) => {
                        // The subscription alone must not keep the client.
                        drop(client);
                        while let Some(message) = subscription.next().await {
                            if sender.send(message).await.is_err() {
                                return;
                            }
                        }
                    }
                    Err(whimbrel_client::SubscribeError::Closed(_)) => {}
                    Err(error) => world.refuse(group, error.to_string()),
                }
            });
        }
        self.connection = Some(Connection { client, events, incoming, is_up: false });
    }

    async fn disconnect(&mut self, abrupt: bool) {
        let Some(connection) = self.connection.take() else { return };
        self.replies.clear();
        self.world.count(self.group, |counts| {
            counts.sleeps += 1;
            counts.connected -= u64::from(connection.is_up);
        });
        if abrupt {
            connection.client.abort();
        } else {
            // What it could not deliver is not acknowledged, and so counted.
            let _ = connection.client.disconnect().await;
        }
    }

    /// False once the client has ended for good.
    fn handle_status(&mut self, status: Status) -> bool {
        let Some(connection) = &mut self.connection else { return true };
        match status {
            Status::Connected(_) => {
                connection.is_up = true;
                self.device.handle_connected(self.world.now());
                self.world.count(self.group, |counts| {
                    counts.connects += 1;
                    counts.connected += 1;
                });
                true
            }
            Status::Disconnected { why, retry_in } => {
                let was_up = std::mem::take(&mut connection.is_up);
                self.world.count(self.group, |counts| counts.connected -= u64::from(was_up));
                self.device.handle_lost();
                self.world.fail(self.group, self.device.client_id(), &why.to_string());
                retry_in.is_some()
            }
            Status::Closed => false,
            _ => true,
        }
    }

    fn handle_message(&mut self, message: &Incoming) {
        self.world.count(self.group, |counts| counts.received += 1);
        let command = Command {
            topic: &message.topic,
            payload: &message.payload,
            response_topic: message.response_topic(),
        };
        if let Some((delay, mut reply)) = self.device.handle_command(command, unix_ms()) {
            reply.correlation_data = message.correlation_data().map(<[u8]>::to_vec);
            self.replies.push((self.world.now() + delay, reply));
        }
    }

    /// Whether the client has taken it.
    fn publish(&mut self, outgoing: Outgoing) -> bool {
        let Some(connection) = &self.connection else { return false };
        let (qos, len) = (outgoing.qos, outgoing.payload.len() as u64);
        let completion = match connection.client.try_publish(message(outgoing)) {
            Ok(completion) => completion,
            Err(error) => {
                self.world.refuse(self.group, error.to_string());
                return false;
            }
        };
        self.world.count(self.group, |counts| {
            counts.published += 1;
            counts.published_bytes += len;
        });
        if qos == QoS::AtMostOnce {
            drop(completion);
            return true;
        }
        let (world, group) = (self.world.clone(), self.group);
        *world.awaited.borrow_mut() += 1;
        spawn_local(async move {
            match completion.await {
                Ok(_) => world.count(group, |counts| counts.acknowledged += 1),
                // The device has gone; its sessions may still deliver it.
                Err(PublishError::Closed(_)) => {}
                Err(error) => world.refuse(group, error.to_string()),
            }
            *world.awaited.borrow_mut() -= 1;
        });
        true
    }
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
