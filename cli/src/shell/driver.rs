//! Brings the model together with a terminal and a client.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_core::Stream;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::time::Instant;
use whimbrel_client::{
    Client, Events, Filter, Incoming, Message, Outcome, QoS, Status, SubscribeError, Subscription,
    WhenFull,
};
use whimbrel_codec::{Properties, Property, Publish};

use super::dialog::Draft;
use super::model::{Action, Connection, Model};
use super::screen::Screen;
use super::view;
use crate::topic;

/// Between two drawings, at least: 15 a second are more than anybody can read.
const FRAME: Duration = Duration::from_millis(66);
/// So much more time than drawing takes passes between two drawings, on any machine.
const REST: u32 = 9;
/// Messages taken in before the time and the keys are looked at again.
const BATCH: usize = 512;
/// Messages that wait for the view; then nothing more is read from the broker.
const QUEUE: usize = 4096;
/// Keys that wait, at most.
const INPUTS: usize = 256;
/// Retained messages that are being removed at the same time.
const REMOVALS: usize = 64;

/// What a task of the driver has to tell.
enum Done {
    Subscribed(String, Result<Subscription, String>),
    Unsubscribed(String, Result<(), String>),
    Published(String, Result<(), String>),
    Removed(String, Result<(), String>),
}

/// Everything at work.
pub struct Driver {
    model: Model,
    screen: Screen,
    client: Client,
    events: Events,
    subscriptions: Vec<Subscription>,
    done: UnboundedReceiver<Done>,
    tell: UnboundedSender<Done>,
    next_frame: Instant,
}

impl Driver {
    /// Of a client that is connected.
    pub fn new(model: Model, screen: Screen, client: Client) -> Driver {
        let (tell, done) = unbounded_channel();
        Driver {
            events: client.events(),
            model,
            screen,
            client,
            subscriptions: Vec::new(),
            done,
            tell,
            next_frame: Instant::now(),
        }
    }

    /// Until the user quits or a signal comes. The terminal is given back, then the client
    /// disconnects.
    pub async fn run(mut self, filters: &[String], qos: QoS) -> io::Result<()> {
        let mut signals = Signals::new()?;
        let mut inputs = read_inputs();
        let size = self.screen.terminal.size()?;
        self.model.handle_resize(size.width, size.height);
        self.model.handle_connection(Connection::Connected);
        for filter in filters {
            self.act(Action::Subscribe { filter: filter.clone(), qos });
        }
        let result = self.turn(&mut signals, &mut inputs).await;
        drop(self.screen);
        // Nobody is left to wait for what the broker does not take.
        let _ = self.client.disconnect().await;
        result
    }

    async fn turn(
        &mut self,
        signals: &mut Signals,
        inputs: &mut Receiver<io::Result<Event>>,
    ) -> io::Result<()> {
        loop {
            let wake = match self.model.has_changed() {
                true => self.next_frame,
                // Ages are shown in whole seconds.
                false => Instant::now() + Duration::from_millis(1000 - now_ms() % 1000),
            };
            tokio::select! {
                () = signals.wait() => return Ok(()),
                Some(input) = inputs.recv() => {
                    if let Some(action) = self.model.handle_input(&input?)
                        && self.act(action)
                    {
                        return Ok(());
                    }
                }
                Some(done) = self.done.recv() => self.handle_done(done),
                Some(status) = self.events.next() => self.handle_status(status),
                () = poll_fn(|cx| take_messages(&mut self.subscriptions, &mut self.model, cx)) => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            self.model.handle_time(now_ms());
            self.draw_if_due()?;
        }
    }

    fn draw_if_due(&mut self) -> io::Result<()> {
        let start = Instant::now();
        if start < self.next_frame || !self.model.take_changed() {
            return Ok(());
        }
        self.model.refresh();
        let model = &self.model;
        self.screen.terminal.draw(|frame| view::draw(frame, model))?;
        self.next_frame = Instant::now() + FRAME.max(start.elapsed() * REST);
        Ok(())
    }

    /// Does what the model wants; true if that is to end.
    fn act(&mut self, action: Action) -> bool {
        let (client, tell) = (self.client.clone(), self.tell.clone());
        // Who does not listen any more is about to end.
        let tell = move |done| drop(tell.send(done));
        match action {
            Action::Quit => return true,
            Action::Publish(draft) => {
                let topic = draft.topic.clone();
                self.model.tell(format!("publishing to {topic}"));
                tokio::spawn(async move {
                    let result = publish(&client, draft).await;
                    tell(Done::Published(topic, result));
                });
            }
            Action::Remove(topics) => drop(tokio::spawn(remove(client, topics, tell))),
            Action::Subscribe { filter, qos } => {
                self.model.handle_subscribing(&filter, qos);
                let wanted = Filter::new(filter.as_str())
                    .qos(qos)
                    .retain_as_published(true)
                    .queue(QUEUE, WhenFull::Wait);
                tokio::spawn(async move {
                    let result = client.subscribe(wanted).await;
                    tell(Done::Subscribed(filter, result.map_err(refusal)));
                });
            }
            Action::Unsubscribe(filter) => {
                let index = self.subscriptions.iter().position(|s| s.filter() == filter);
                match index.map(|index| self.subscriptions.remove(index)) {
                    Some(subscription) => drop(tokio::spawn(async move {
                        let result = subscription.unsubscribe().await.map(drop);
                        tell(Done::Unsubscribed(filter, result.map_err(refusal)));
                    })),
                    None => self.model.handle_unsubscribed(&filter),
                }
            }
        }
        false
    }

    fn handle_done(&mut self, done: Done) {
        let model = &mut self.model;
        match done {
            Done::Subscribed(filter, Ok(subscription)) => {
                // It may have been given up while SUBACK was on its way.
                if model.filters().contains(&filter.as_str()) {
                    model.handle_suback(&filter, Ok(subscription.granted_qos()));
                    self.subscriptions.push(subscription);
                }
            }
            Done::Subscribed(filter, Err(why)) => model.handle_suback(&filter, Err(why)),
            Done::Unsubscribed(filter, result) => {
                model.handle_unsubscribed(&filter);
                if let Err(why) = result {
                    model.complain(format!("{filter} may still be subscribed to: {why}"));
                }
            }
            Done::Published(topic, Ok(())) => model.tell(format!("published to {topic}")),
            Done::Published(topic, Err(why)) => {
                model.complain(format!("not published to {topic}: {why}"));
            }
            Done::Removed(topic, Ok(())) => model.handle_removed(&topic),
            Done::Removed(topic, Err(why)) => {
                model.complain(format!("{topic} is still retained: {why}"));
            }
        }
    }

    fn handle_status(&mut self, status: Status) {
        let now_ms = now_ms();
        self.model.handle_time(now_ms);
        match status {
            Status::Connected(_) => self.model.handle_connection(Connection::Connected),
            Status::Disconnected { why, retry_in } => {
                let why = why.to_string();
                self.model.handle_connection(match retry_in {
                    Some(wait) => {
                        Connection::Waiting { until_ms: now_ms + wait.as_millis() as u64, why }
                    }
                    None => Connection::Closed { why },
                });
            }
            Status::Renewed => self.model.push_event("the broker took a new token".into()),
            Status::RenewalFailed { why, .. } => {
                self.model.complain(format!("no new token yet: {why}"));
            }
            Status::Missed { filter } => {
                self.model.complain(format!("messages of {filter} were dropped: too many"));
            }
            _ => {}
        }
    }
}

/// Until the broker has it.
async fn publish(client: &Client, draft: Draft) -> Result<(), String> {
    let message = Message::new(draft.topic, draft.payload).qos(draft.qos).retain(draft.retain);
    let completion = client.publish(message).await.map_err(|error| error.to_string())?;
    succeeded(completion.await)
}

/// Why, in few words.
fn refusal(error: SubscribeError) -> String {
    match error {
        SubscribeError::Refused(reason) => reason.to_string(),
        error => error.to_string(),
    }
}

fn succeeded(outcome: Outcome) -> Result<(), String> {
    match outcome {
        Ok(reason) if reason.is_error() => Err(reason.to_string()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// An empty retained message takes the place of each one `[MQTT-3.3.1-10]`.
async fn remove(client: Client, topics: Vec<String>, tell: impl Fn(Done)) {
    for some in topics.chunks(REMOVALS) {
        let mut waiting = Vec::new();
        for topic in some {
            let empty = Message::new(topic.as_str(), "").qos(QoS::AtLeastOnce).retain(true);
            match client.publish(empty).await {
                Ok(completion) => waiting.push((topic, completion)),
                Err(error) => tell(Done::Removed(topic.clone(), Err(error.to_string()))),
            }
        }
        for (topic, completion) in waiting {
            tell(Done::Removed(topic.clone(), succeeded(completion.await)));
        }
    }
}

/// Gives the model what has come, some of it at a time.
fn take_messages(
    subscriptions: &mut Vec<Subscription>,
    model: &mut Model,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut taken = 0;
    let mut index = 0;
    while index < subscriptions.len() && taken < BATCH {
        match Pin::new(&mut subscriptions[index]).poll_next(cx) {
            Poll::Ready(Some(message)) => {
                if taken == 0 {
                    model.handle_time(now_ms());
                }
                taken += 1;
                if !subscriptions[..index]
                    .iter()
                    .any(|s| topic::matches(s.filter(), &message.topic))
                {
                    give(model, &message);
                }
            }
            // The broker has taken the subscription away, or the client has ended.
            Poll::Ready(None) => {
                let ended = subscriptions.remove(index);
                model.handle_suback(ended.filter(), Err("the subscription has ended".into()));
                taken += 1;
            }
            Poll::Pending => index += 1,
        }
    }
    if taken > 0 { Poll::Ready(()) } else { Poll::Pending }
}

fn give(model: &mut Model, message: &Incoming) {
    let properties: Vec<Property<'_>> = message.properties.iter().collect();
    model.handle_message(&Publish {
        qos: message.qos,
        retain: message.retain,
        properties: Properties::new(&properties),
        ..Publish::new(&message.topic, &message.payload)
    });
}

/// The signals that end the shell.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Signals> {
        let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
        let [terminate, hangup, interrupt] = kinds.map(signal);
        Ok(Signals([terminate?, hangup?, interrupt?]))
    }

    async fn wait(&mut self) {
        let [terminate, hangup, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Keys are read on a thread of their own, which ends with the process.
fn read_inputs() -> Receiver<io::Result<Event>> {
    let (sender, receiver) = channel(INPUTS);
    std::thread::spawn(move || {
        loop {
            let input = event::read();
            let is_end = input.is_err();
            if sender.blocking_send(input).is_err() || is_end {
                return;
            }
        }
    });
    receiver
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |time| time.as_millis() as u64)
}
