//! One device without I/O: what it does when, and what it says.
//!
//! Time is a parameter: `now` since the start of the simulation, `unix_ms` for what messages say.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use whimbrel_codec::QoS;

use super::field::Generator;
use super::fleet::{Group, Message, When};
use super::payload::Payload;
use super::template::Template;
use crate::topic;

/// How far a device may be behind its plan; what should have been sent before is left out.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// A device of a group.
pub struct Device {
    group: Arc<Group>,
    index: u32,
    client_id: String,
    random: fastrand::Rng,
    generators: BTreeMap<String, Generator>,
    state: State,
    /// For each message of the group, when it is due next.
    due: Vec<Option<Duration>>,
    /// What is sent as soon as the device is connected.
    births: VecDeque<usize>,
    was_connected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Connects at this time.
    Away(Duration),
    Connecting,
    /// Goes to sleep at this time, if it does.
    Awake(Option<Duration>),
}

/// What a device wants to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Connect,
    Publish(Outgoing),
    /// `abrupt`: without DISCONNECT.
    Disconnect {
        abrupt: bool,
    },
}

/// A message of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    /// Which request it answers (5.0).
    pub correlation_data: Option<Vec<u8>>,
}

/// A message that came to a device.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// Of 5.0.
    pub response_topic: Option<&'a str>,
}

impl Device {
    /// The device of this index, which connects at `start`. The same seed makes the same device.
    pub fn new(group: Arc<Group>, index: u32, seed: u64, start: Duration) -> Device {
        let mut device = Device {
            index,
            client_id: String::new(),
            random: fastrand::Rng::with_seed(mix(seed, &group.name, index)),
            generators: group
                .fields
                .iter()
                .map(|(name, field)| (name.clone(), Generator::new(field.clone())))
                .collect(),
            state: State::Away(start),
            due: vec![None; group.publish.len()],
            births: VecDeque::new(),
            was_connected: false,
            group,
        };
        device.client_id = device.fixed(&device.group.client_id);
        device
    }

    /// Its client identifier.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The group that it is of.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// A text of the group with what stays the same for this device filled in.
    pub fn fixed(&self, template: &Template) -> String {
        template.fill(&mut |name| self.constant(name).unwrap_or_default())
    }

    /// The message that the broker publishes if the device is lost.
    pub fn will(&mut self, unix_ms: i64) -> Option<Outgoing> {
        let group = Arc::clone(&self.group);
        group.will.as_ref().map(|will| self.message(will, unix_ms))
    }

    /// When [`Device::poll`] has something to do. None: it waits for the connection.
    pub fn next_at(&self) -> Option<Duration> {
        match self.state {
            State::Away(until) => Some(until),
            State::Connecting => None,
            State::Awake(_) if !self.births.is_empty() => Some(Duration::ZERO),
            State::Awake(until) => self.due.iter().copied().flatten().chain(until).min(),
        }
    }

    /// What is to be done now, one thing at a time.
    pub fn poll(&mut self, now: Duration, unix_ms: i64) -> Option<Action> {
        match self.state {
            State::Away(until) if until <= now => {
                self.state = State::Connecting;
                Some(Action::Connect)
            }
            State::Away(_) | State::Connecting => None,
            State::Awake(until) => self.poll_awake(now, unix_ms, until),
        }
    }

    fn poll_awake(
        &mut self,
        now: Duration,
        unix_ms: i64,
        until: Option<Duration>,
    ) -> Option<Action> {
        if let Some(index) = self.births.pop_front() {
            return self.publish(index, unix_ms);
        }
        if until.is_some_and(|until| until <= now) {
            return self.fall_asleep(now);
        }
        let due = self.due.iter().enumerate().filter_map(|(index, due)| Some((index, (*due)?)));
        let (index, planned) = due.min_by_key(|(_, due)| *due)?;
        if planned > now {
            return None;
        }
        let next = (planned + self.interval(index)).max(now.saturating_sub(BEHIND_MAX));
        if let Some(due) = self.due.get_mut(index) {
            *due = Some(next);
        }
        self.publish(index, unix_ms)
    }

    fn fall_asleep(&mut self, now: Duration) -> Option<Action> {
        let sleep = self.group.sleep?;
        self.state = State::Away(now + sleep.asleep_s.pick(&mut self.random));
        Some(Action::Disconnect { abrupt: sleep.abrupt })
    }

    /// The connection that [`Action::Connect`] asked for is there, or there again.
    pub fn handle_connected(&mut self, now: Duration) {
        let until = self.group.sleep.map(|sleep| now + sleep.awake_s.pick(&mut self.random));
        self.state = State::Awake(until);
        self.births.clear();
        for index in 0..self.due.len() {
            match self.group.publish.get(index).map(|publish| publish.when) {
                Some(When::OnConnect) => self.births.push_back(index),
                // At any time within the interval, so that devices do not speak in step.
                Some(When::Every { .. }) => {
                    let begin = self.due.get(index).copied().flatten();
                    if begin.is_none_or(|due| due <= now) || !self.was_connected {
                        let wait = self.interval(index).mul_f64(self.random.f64());
                        if let Some(due) = self.due.get_mut(index) {
                            *due = Some(now + wait);
                        }
                    }
                }
                None => {}
            }
        }
        self.was_connected = true;
    }

    /// The connection is lost, and somebody makes a new one.
    pub fn handle_lost(&mut self) {
        if matches!(self.state, State::Awake(_)) {
            self.state = State::Connecting;
        }
    }

    /// The answer to a message that came, and how long the device takes for it.
    pub fn handle_command(
        &mut self,
        command: Command<'_>,
        unix_ms: i64,
    ) -> Option<(Duration, Outgoing)> {
        let group = Arc::clone(&self.group);
        let reply = group.subscribe.iter().find_map(|subscribe| {
            let filter = self.fixed(&subscribe.filter);
            let bare = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
            let filter = bare.map_or(filter.as_str(), |(_, filter)| filter);
            subscribe.reply.as_ref().filter(|_| topic::matches(filter, command.topic))
        })?;
        let known = [
            ("topic", json!(command.topic)),
            ("payload", json!(String::from_utf8_lossy(command.payload))),
        ];
        let topic = match &reply.topic {
            Some(topic) => self.fixed(topic),
            None => command.response_topic.filter(|topic| topic::is_name(topic))?.to_string(),
        };
        let payload = self.fill(&reply.payload, unix_ms, &known);
        let outgoing = Outgoing {
            topic,
            payload,
            qos: reply.qos,
            retain: reply.retain,
            correlation_data: None,
        };
        Some((reply.delay_s.pick(&mut self.random), outgoing))
    }

    fn publish(&mut self, index: usize, unix_ms: i64) -> Option<Action> {
        let group = Arc::clone(&self.group);
        let publish = group.publish.get(index)?;
        Some(Action::Publish(self.message(&publish.message, unix_ms)))
    }

    fn interval(&mut self, index: usize) -> Duration {
        let when = self.group.publish.get(index).map(|publish| publish.when);
        let Some(When::Every { interval, jitter }) = when else { return Duration::MAX };
        interval.mul_f64(1.0 + (self.random.f64() * 2.0 - 1.0) * jitter)
    }

    fn message(&mut self, message: &Message, unix_ms: i64) -> Outgoing {
        Outgoing {
            topic: self.fixed(&message.topic),
            payload: self.fill(&message.payload, unix_ms, &[]),
            qos: message.qos,
            retain: message.retain,
            correlation_data: None,
        }
    }

    /// A field has one value in a message, however often the message names it.
    fn fill(&mut self, payload: &Payload, unix_ms: i64, known: &[(&str, Value)]) -> Vec<u8> {
        let mut values: BTreeMap<String, Value> = BTreeMap::new();
        payload.fill(&mut |name| {
            if let Some((_, value)) = known.iter().find(|(known, _)| *known == name) {
                return value.clone();
            }
            if let Some(value) = self.constant(name).or_else(|| values.get(name).cloned()) {
                return value;
            }
            let generator = self.generators.get_mut(name);
            let next = generator.map(|generator| generator.next(&mut self.random, unix_ms));
            let value = next.unwrap_or_default();
            values.insert(name.into(), value.clone());
            value
        })
    }

    fn constant(&self, name: &str) -> Option<Value> {
        match name {
            "index" => Some(json!(self.index)),
            "group" => Some(json!(self.group.name)),
            "client_id" => Some(json!(self.client_id)),
            _ => None,
        }
    }
}

/// A seed for each device, which does not depend on how many there are (FNV-1a).
fn mix(seed: u64, group: &str, index: u32) -> u64 {
    let bytes = group.bytes().chain(index.to_le_bytes()).chain(seed.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
