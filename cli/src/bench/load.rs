//! The clients, all on one thread: what they do, and the counting of it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use whimbrel_client::{
    Bytes, Client, Error, Filter, Message, PublishError, Subscription, WhenFull,
};
use whimbrel_codec::QoS;

use super::Bench;
use super::scenario::{Plan, Scenario};
use super::tally::{ConnectTally, Tally};
use crate::args::Setup;
use crate::failure::Failure;

/// Connections that wait for CONNACK at one time.
const CONNECTING_MAX: usize = 100;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT_NS: u64 = CONNECT_TIMEOUT.as_nanos() as u64;
/// Silence after which what has not arrived counts as lost.
pub const SILENCE: Duration = Duration::from_secs(2);
/// How often the progress bar is attended to.
const TICK: Duration = Duration::from_millis(100);

/// All clients of a bench.
pub struct Load<'a> {
    pub args: &'a Bench,
    pub setup: &'a Setup<'a>,
    pub counts: Rc<Counts>,
    pub publishers: Vec<Client>,
    pub subscribers: Vec<Client>,
    idle: Vec<Client>,
}

/// What all tasks share.
pub struct Counts {
    pub plan: Plan,
    start: Instant,
    pub connects: RefCell<ConnectTally>,
    pub tally: RefCell<Tally>,
    rooms: Vec<Room>,
    /// Why something that was accepted at first did not last.
    trouble: RefCell<Option<String>>,
}

/// Where a publisher waits until one of its messages has come to all.
#[derive(Default)]
struct Room {
    notify: Notify,
    /// It goes on when fewer messages are under way.
    awaited: Cell<Option<u64>>,
}

impl Counts {
    /// Nanoseconds since the start of the bench.
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn instant(&self, ns: u64) -> Instant {
        self.start + Duration::from_nanos(ns)
    }

    /// A message has come to a subscriber, at this time or just before.
    pub fn receive(&self, subscriber: u32, payload: &[u8], now_ns: u64) {
        let mut tally = self.tally.borrow_mut();
        let Some(publisher) = tally.receive(subscriber, payload, now_ns) else { return };
        let Some(room) = self.rooms.get(publisher as usize) else { return };
        if room.awaited.get().is_some_and(|window| tally.has_room(publisher, window)) {
            room.awaited.set(None);
            room.notify.notify_one();
        }
    }

    /// What was accepted did not last.
    pub fn trouble(&self, why: String) {
        self.trouble.borrow_mut().get_or_insert(why);
    }

    /// The first trouble, if there was any.
    pub fn take_trouble(&self) -> Option<String> {
        self.trouble.borrow_mut().take()
    }
}

impl<'a> Load<'a> {
    /// No client yet.
    pub fn new(args: &'a Bench, setup: &'a Setup<'a>, plan: Plan) -> Load<'a> {
        let counts = Counts {
            start: Instant::now(),
            connects: RefCell::new(ConnectTally::new(0)),
            tally: RefCell::new(plan.tally()),
            rooms: (0..plan.publishers).map(|_| Room::default()).collect(),
            trouble: RefCell::default(),
            plan,
        };
        let counts = Rc::new(counts);
        let (publishers, subscribers, idle) = (Vec::new(), Vec::new(), Vec::new());
        Load { args, setup, counts, publishers, subscribers, idle }
    }

    /// Connects all. A refusal is an error, unless connections are what is measured.
    pub async fn connect(&mut self) -> Result<(), Failure> {
        let total = self.counts.plan.clients();
        let bar = bar(u64::from(total), "connecting {wide_bar} {pos}/{len}");
        let permits = Arc::new(Semaphore::new(CONNECTING_MAX));
        let begin = self.counts.now_ns();
        *self.counts.connects.borrow_mut() = ConnectTally::new(begin);
        let mut attempts = Vec::with_capacity(total as usize);
        for index in 0..total {
            let due_ns = begin + self.connect_after(index, total).as_nanos() as u64;
            if due_ns > self.counts.now_ns() {
                sleep_until(self.counts.instant(due_ns)).await;
            }
            // Nobody closes it.
            let permit = permits.clone().acquire_owned().await.ok();
            let attempt = self.open(index);
            attempts.push(spawn_local(async move {
                let result = attempt.await;
                drop(permit);
                result
            }));
            bar.set_position(u64::from(index));
        }
        let mut failure = None;
        for (index, attempt) in (0..).zip(attempts) {
            match finished(attempt).await? {
                Ok(client) => self.keep(index, client),
                Err(error) => failure = Some(error),
            }
        }
        bar.finish_and_clear();
        let only_connects = self.counts.plan.scenario == Scenario::Connect;
        match failure {
            Some(error) if !only_connects || self.counts.connects.borrow().accepted() == 0 => {
                Err(self.setup.failure(&error))
            }
            _ => Ok(()),
        }
    }

    /// When a connection is to be made, from the begin.
    fn connect_after(&self, index: u32, total: u32) -> Duration {
        let only_connects = self.counts.plan.scenario == Scenario::Connect;
        if only_connects && self.args.rate > 0 {
            return Duration::from_secs_f64(f64::from(index) / self.args.rate as f64);
        }
        Duration::from_secs(self.args.ramp) * index / total.max(1)
    }

    fn open(&self, index: u32) -> impl Future<Output = Result<Client, Error>> + use<> {
        let prefix = self.args.connection.id_prefix.as_deref().unwrap_or("bench-");
        let builder = self
            .setup
            .builder()
            .client_id(format!("{prefix}{}-{index}", std::process::id()))
            .connect_timeout(CONNECT_TIMEOUT)
            .drain_timeout(SILENCE)
            .max_in_flight(u16::MAX)
            .receive_maximum(u16::MAX)
            .topic_aliases(0, 0)
            .reconnect(false);
        let counts = self.counts.clone();
        async move {
            let since_ns = counts.now_ns();
            let mut result = builder.clone().connect().await;
            while has_no_room(&result) && counts.now_ns() - since_ns < CONNECT_TIMEOUT_NS {
                sleep(Duration::from_millis(1)).await;
                result = builder.clone().connect().await;
            }
            match &result {
                Ok(_) => counts.connects.borrow_mut().accept(since_ns, counts.now_ns()),
                Err(error) => counts.connects.borrow_mut().refuse(error.to_string()),
            }
            result
        }
    }

    fn keep(&mut self, index: u32, client: Client) {
        let Plan { publishers, subscribers, .. } = self.counts.plan;
        let list = match index {
            index if index < publishers => &mut self.publishers,
            index if index < publishers + subscribers => &mut self.subscribers,
            _ => &mut self.idle,
        };
        list.push(client);
    }

    /// Subscribes whoever is to hear something.
    pub async fn subscribe(&self) -> Result<(), Failure> {
        let plan = &self.counts.plan;
        for (number, client) in (0..).zip(&self.subscribers) {
            let subscription = self.subscription(client, plan.filter(number)).await?;
            if plan.scenario == Scenario::Request {
                spawn_local(respond(
                    self.counts.clone(),
                    client.clone(),
                    subscription,
                    plan.response_topic(number),
                ));
                let requester = self.publishers.get(number as usize);
                let Some(requester) = requester else { continue };
                let responses = self.subscription(requester, plan.response_topic(number)).await?;
                spawn_local(listen(self.counts.clone(), number, responses));
            } else {
                spawn_local(listen(self.counts.clone(), number, subscription));
            }
        }
        Ok(())
    }

    /// Nothing that comes is dropped on this side.
    pub async fn subscription(
        &self,
        client: &Client,
        filter: String,
    ) -> Result<Subscription, Failure> {
        let name = filter.clone();
        let filter = Filter::new(filter).qos(self.args.qos.0).queue(4096, WhenFull::Wait);
        let subscribed = client.subscribe(filter).await;
        subscribed.map_err(|error| self.setup.failed(1, format!("{name}: {error}")))
    }

    /// Publishes for the warm-up and the duration, then waits for what is under way. `measure` is
    /// called at the end of the warm-up.
    pub async fn publish(&self, measure: impl FnOnce()) -> Result<(), Failure> {
        let warm_up = Duration::from_secs(self.args.warm_up);
        let begin = Instant::now();
        let end = begin + warm_up + Duration::from_secs(self.args.duration);
        self.counts.tally.borrow_mut().measure_from(u64::MAX);
        let mut tasks = Vec::new();
        for (index, client) in (0..).zip(&self.publishers) {
            let pace = Pace {
                rate: self.args.rate,
                publishers: self.counts.plan.publishers,
                begin_ns: self.counts.now_ns(),
            };
            tasks.push(spawn_local(publisher(
                self.counts.clone(),
                client.clone(),
                index,
                self.message(index),
                pace,
                Until { end, window: self.window() },
            )));
        }
        sleep_until(begin + warm_up).await;
        measure();
        let measured_from = self.counts.now_ns();
        self.counts.tally.borrow_mut().measure_from(measured_from);
        self.show(begin + warm_up, end).await;
        for task in tasks {
            finished(task).await?;
        }
        self.settle().await;
        Ok(())
    }

    /// Without stamp.
    pub fn message(&self, publisher: u32) -> Message {
        let payload = vec![0; self.args.payload as usize];
        let mut message =
            Message::new(self.counts.plan.topic(publisher), payload).qos(self.args.qos.0);
        for property in &self.setup.lists.publish {
            message = message.property(*property);
        }
        message
    }

    /// Messages of a publisher that may be under way. None: as many as the rate makes.
    fn window(&self) -> Option<u64> {
        match self.counts.plan.scenario {
            Scenario::Latency | Scenario::Request => Some(1),
            _ if self.args.rate == 0 => Some(self.args.window),
            _ => None,
        }
    }

    async fn show(&self, begin: Instant, end: Instant) {
        let bar = bar((end - begin).as_millis() as u64, "{msg} {wide_bar} {eta}");
        let mut shown = (begin, self.counts.tally.borrow().arrived());
        while Instant::now() < end {
            sleep_until(end.min(shown.0 + TICK)).await;
            let now = Instant::now();
            let arrived = self.counts.tally.borrow().arrived();
            let rate = (arrived - shown.1) as f64 / (now - shown.0).as_secs_f64().max(1e-3);
            bar.set_position((now - begin).as_millis() as u64);
            bar.set_message(format!("{rate:.0} messages/s"));
            shown = (now, arrived);
        }
        bar.finish_and_clear();
    }

    /// Waits until everything has come, or nothing comes any more.
    pub async fn settle(&self) {
        let (mut arrived, mut since) = (self.counts.tally.borrow().arrived(), Instant::now());
        while self.counts.tally.borrow().missing() > 0 && since.elapsed() < SILENCE {
            sleep(Duration::from_millis(1)).await;
            let now_arrived = self.counts.tally.borrow().arrived();
            if now_arrived > arrived {
                (arrived, since) = (now_arrived, Instant::now());
            }
        }
    }

    /// Ends all connections as they should end, and counts those that have ended before.
    pub async fn disconnect(&mut self) {
        let all = [&mut self.publishers, &mut self.subscribers, &mut self.idle];
        let mut tasks = Vec::new();
        for client in all.into_iter().flat_map(std::mem::take) {
            if !client.is_connected() {
                self.counts.connects.borrow_mut().disconnect();
            }
            // What goes wrong now changes no figure.
            tasks.push(spawn_local(async move {
                let _ = client.disconnect().await;
            }));
        }
        for task in tasks {
            let _ = task.await;
        }
    }
}

/// A Unix socket whose backlog is full refuses at once, where TCP waits.
fn has_no_room(result: &Result<Client, Error>) -> bool {
    matches!(result, Err(Error::Connect(_, io)) if io.kind() == std::io::ErrorKind::WouldBlock)
}

/// The result of a task that nobody aborts.
pub async fn finished<T>(task: JoinHandle<T>) -> Result<T, Failure> {
    task.await.map_err(|error| Failure::new(1, format!("a client of the bench failed: {error}")))
}

/// Counts what comes to a subscriber.
pub async fn listen(counts: Rc<Counts>, number: u32, mut subscription: Subscription) {
    while let Some(message) = subscription.next().await {
        // Looked at once for what has come together.
        let now_ns = counts.now_ns();
        let mut next = Some(message);
        while let Some(message) = next {
            counts.receive(number, &message.payload, now_ns);
            next = subscription.try_next();
        }
    }
}

async fn respond(
    counts: Rc<Counts>,
    client: Client,
    mut requests: Subscription,
    response_topic: String,
) {
    let topic: Arc<str> = response_topic.into();
    while let Some(request) = requests.next().await {
        let response = Message::new(topic.clone(), request.payload.clone()).qos(request.qos);
        match client.publish(response).await {
            // The requester tells whether it arrived.
            Ok(completion) => drop(completion),
            Err(error) => return counts.trouble(error.to_string()),
        }
    }
}

/// When messages are due: those of all publishers follow each other at equal distances.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Of all publishers together; 0: at once.
    rate: u64,
    publishers: u32,
    begin_ns: u64,
}

impl Pace {
    fn due_ns(self, publisher: u32, number: u64) -> u64 {
        if self.rate == 0 {
            return 0;
        }
        let place = number as f64 * f64::from(self.publishers) + f64::from(publisher);
        self.begin_ns + (place * 1e9 / self.rate as f64) as u64
    }
}

#[derive(Clone, Copy)]
struct Until {
    end: Instant,
    window: Option<u64>,
}

async fn publisher(
    counts: Rc<Counts>,
    client: Client,
    index: u32,
    message: Message,
    pace: Pace,
    until: Until,
) {
    let mut payload = message.payload.to_vec();
    let message = Message { payload: Bytes::new(), ..message };
    let end_ns = (until.end - counts.start).as_nanos() as u64;
    let mut first = None;
    for number in 0.. {
        // Looked at as rarely as can be: it costs as much as a message.
        let mut now_ns = counts.now_ns();
        let due_ns = pace.due_ns(index, number);
        if due_ns > now_ns {
            sleep_until(counts.instant(due_ns.min(end_ns))).await;
            now_ns = counts.now_ns();
        }
        let is_open = |window| counts.tally.borrow().has_room(index, window);
        if let Some(window) = until.window.filter(|window| !is_open(*window)) {
            wait_for_room(&counts, index, window, until.end).await;
            now_ns = counts.now_ns();
        }
        if now_ns >= end_ns {
            break;
        }
        counts.tally.borrow_mut().publish(index, now_ns).write(&mut payload);
        let payload = Bytes::copy_from_slice(&payload);
        match client.publish(Message { payload, ..message.clone() }).await {
            Ok(completion) if first.is_none() && message.qos > QoS::AtMostOnce => {
                first = Some(completion);
            }
            Ok(completion) => drop(completion),
            Err(PublishError::Closed(None)) => break,
            Err(error) => return counts.trouble(error.to_string()),
        }
    }
    // What the broker says to the first message tells why none arrives.
    if let Some(completion) = first
        && let Ok(Err(error)) = timeout(SILENCE, completion).await
    {
        counts.trouble(error.to_string());
    }
}

async fn wait_for_room(counts: &Counts, index: u32, window: u64, end: Instant) {
    let Some(room) = counts.rooms.get(index as usize) else { return };
    while !counts.tally.borrow().has_room(index, window) && Instant::now() < end {
        room.awaited.set(Some(window));
        let wait = end.saturating_duration_since(Instant::now()).min(SILENCE);
        if timeout(wait, room.notify.notified()).await.is_err() {
            // What is lost must not close the window for ever.
            return;
        }
    }
}

/// Only on a terminal; elsewhere it draws nothing.
pub fn bar(len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(len);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_take_turns_at_the_rate_of_all() {
        let pace = Pace { rate: 1000, publishers: 2, begin_ns: 5 };
        let due = |publisher, number| pace.due_ns(publisher, number);
        assert_eq!(
            [due(0, 0), due(1, 0), due(0, 1), due(1, 1)],
            [5, 1_000_005, 2_000_005, 3_000_005]
        );
        assert_eq!(Pace { rate: 0, ..pace }.due_ns(1, 9), 0);
    }
}
