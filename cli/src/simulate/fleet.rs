//! The file that describes a fleet, checked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use whimbrel_codec::QoS;

use super::document::{Document, Mistake};
use super::field::Field;
use super::payload::{Format, Payload};
use super::template::Template;
use crate::topic;

/// Devices of a group, at most.
const COUNT_MAX: u32 = 1_000_000;

/// Names that every template may use, besides the group's fields.
const NAMES: [&str; 3] = ["index", "group", "client_id"];
/// Names that a reply may use too: what it replies to.
const REPLY_NAMES: [&str; 2] = ["topic", "payload"];

/// All groups, ready to be made into devices.
pub struct Fleet {
    pub seed: Option<u64>,
    /// Over which the first connections are spread.
    pub ramp: Duration,
    pub groups: Vec<Group>,
}

/// Devices of one kind.
pub struct Group {
    pub name: String,
    pub count: u32,
    pub first_index: u32,
    pub client_id: Template,
    pub user_name: Option<Template>,
    pub password: Option<Template>,
    pub keep_alive_s: u16,
    pub clean_start: bool,
    pub session_expiry_s: Option<u32>,
    pub fields: BTreeMap<String, Field>,
    pub will: Option<Message>,
    pub sleep: Option<Sleep>,
    pub publish: Vec<Publish>,
    pub subscribe: Vec<Subscribe>,
}

/// What is sent where.
pub struct Message {
    pub topic: Template,
    pub payload: Payload,
    pub qos: QoS,
    pub retain: bool,
}

/// A message that is sent again and again.
pub struct Publish {
    pub message: Message,
    pub when: When,
}

/// When a message is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Once after each connect.
    OnConnect,
    /// Again after each interval, which differs by up to this part of it.
    Every { interval: Duration, jitter: f64 },
}

/// What a device listens to.
pub struct Subscribe {
    pub filter: Template,
    pub qos: QoS,
    pub reply: Option<Reply>,
}

/// An answer to what comes.
pub struct Reply {
    /// None: the response topic of the request (5.0).
    pub topic: Option<Template>,
    pub payload: Payload,
    pub qos: QoS,
    pub retain: bool,
    pub delay_s: Between,
}

/// A device that is away for a while, again and again.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    pub awake_s: Between,
    pub asleep_s: Between,
    /// Goes without DISCONNECT, so that the broker publishes its will.
    #[serde(default)]
    pub abrupt: bool,
}

/// A number, or any between two: `5` or `[4, 6]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Between {
    pub low: f64,
    pub high: f64,
}

impl Between {
    /// One of them.
    pub fn pick(self, random: &mut fastrand::Rng) -> Duration {
        let seconds = self.low + random.f64() * (self.high - self.low);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Between {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Between, D::Error> {
        struct Numbers;

        impl<'de> Visitor<'de> for Numbers {
            type Value = Between;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds, or [least, most]")
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Between, E> {
                self.visit_f64(seconds as f64)
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Between, E> {
                between(seconds, seconds)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Between, A::Error> {
                let missing = || de::Error::custom("expected two numbers: [least, most]");
                let low = list.next_element::<f64>()?.ok_or_else(missing)?;
                let high = list.next_element::<f64>()?.ok_or_else(missing)?;
                if list.next_element::<f64>()?.is_some() {
                    return Err(missing());
                }
                between(low, high)
            }
        }

        fn between<E: de::Error>(low: f64, high: f64) -> Result<Between, E> {
            // A year and more is a slip of the unit.
            if (0.0..=1e8).contains(&low) && (low..=1e8).contains(&high) {
                return Ok(Between { low, high });
            }
            Err(E::custom("seconds must not be negative, and the least stands first"))
        }

        deserializer.deserialize_any(Numbers)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetInFile {
    seed: Option<u64>,
    #[serde(default)]
    ramp_s: Between,
    group: Vec<GroupInFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupInFile {
    name: String,
    count: u32,
    #[serde(default = "one")]
    first_index: u32,
    client_id: Option<String>,
    user_name: Option<String>,
    password: Option<String>,
    #[serde(default = "sixty")]
    keep_alive_s: u16,
    #[serde(default = "yes")]
    clean_start: bool,
    session_expiry_s: Option<u32>,
    #[serde(default)]
    fields: BTreeMap<String, Field>,
    will: Option<MessageInFile>,
    sleep: Option<Sleep>,
    #[serde(default)]
    publish: Vec<PublishInFile>,
    #[serde(default)]
    subscribe: Vec<SubscribeInFile>,
}

fn one() -> u32 {
    1
}

fn sixty() -> u16 {
    60
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageInFile {
    topic: String,
    payload: Option<toml::Value>,
    format: Option<Format>,
    #[serde(default)]
    qos: Level,
    #[serde(default)]
    retain: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishInFile {
    topic: String,
    payload: Option<toml::Value>,
    format: Option<Format>,
    #[serde(default)]
    qos: Level,
    #[serde(default)]
    retain: bool,
    every_s: Option<f64>,
    rate_per_s: Option<f64>,
    jitter: Option<f64>,
    #[serde(default)]
    on_connect: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeInFile {
    filter: String,
    #[serde(default)]
    qos: Level,
    reply: Option<ReplyInFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyInFile {
    topic: Option<String>,
    payload: Option<toml::Value>,
    format: Option<Format>,
    #[serde(default)]
    qos: Level,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    delay_s: Between,
}

/// A quality of service.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "u8")]
struct Level(QoS);

impl TryFrom<u8> for Level {
    type Error = &'static str;

    fn try_from(qos: u8) -> Result<Level, &'static str> {
        QoS::from_u8(qos).map(Level).ok_or("expected 0, 1 or 2")
    }
}

impl Fleet {
    /// From the text of a file of this name.
    pub fn parse(name: &str, text: &str) -> Result<Fleet, Mistake> {
        let document = Document::new(name, text);
        let file: FleetInFile = document.read()?;
        let check = |(index, group): (usize, GroupInFile)| {
            let checked = Check { key: format!("group[{index}]"), names: names(&group) };
            checked.group(group).map_err(|(key, what)| document.mistake(&key, what))
        };
        let groups: Vec<Group> =
            file.group.into_iter().enumerate().map(check).collect::<Result<_, _>>()?;
        for (index, group) in groups.iter().enumerate() {
            if groups.iter().take(index).any(|earlier| earlier.name == group.name) {
                let key = format!("group[{index}].name");
                return Err(document.mistake(&key, "another group has this name"));
            }
        }
        let ramp = Duration::try_from_secs_f64(file.ramp_s.high).unwrap_or_default();
        Ok(Fleet { seed: file.seed, ramp, groups })
    }
}

/// A key and what is wrong with its value.
type Wrong = (String, String);

fn names(group: &GroupInFile) -> Vec<String> {
    NAMES.iter().map(|name| (*name).to_string()).chain(group.fields.keys().cloned()).collect()
}

/// Checks what stands below one key.
struct Check {
    key: String,
    /// What templates may name.
    names: Vec<String>,
}

impl Check {
    fn group(&self, group: GroupInFile) -> Result<Group, Wrong> {
        if group.count > COUNT_MAX {
            return self.wrong("count", format!("at most {COUNT_MAX}"));
        }
        for (name, field) in &group.fields {
            if NAMES.contains(&name.as_str()) || REPLY_NAMES.contains(&name.as_str()) {
                return self.wrong(&format!("fields.{name}"), "the name has a meaning already");
            }
            field.check().map_err(|what| self.at(&format!("fields.{name}"), what))?;
        }
        let client_id = group.client_id.as_deref().unwrap_or("{group}-{index}");
        let client_id = self.fixed("client_id", client_id, &["index", "group"])?;
        if group.count > 1 && !client_id.names().any(|name| name == "index") {
            return self.wrong("client_id", "without {index} all devices would be the same client");
        }
        let optional = |key: &str, text: &Option<String>| {
            text.as_deref().map(|text| self.fixed(key, text, &NAMES)).transpose()
        };
        let publish = group.publish.into_iter().enumerate();
        let subscribe = group.subscribe.into_iter().enumerate();
        let below = |key: String| Check { key, names: self.names.clone() };
        Ok(Group {
            user_name: optional("user_name", &group.user_name)?,
            password: optional("password", &group.password)?,
            will: match group.will {
                Some(will) => Some(below(self.path("will")).will(will)?),
                None => None,
            },
            publish: publish
                .map(|(index, publish)| {
                    below(self.path(&format!("publish[{index}]"))).publish(publish)
                })
                .collect::<Result<_, _>>()?,
            subscribe: subscribe
                .map(|(index, subscribe)| {
                    below(self.path(&format!("subscribe[{index}]"))).subscribe(subscribe)
                })
                .collect::<Result<_, _>>()?,
            name: group.name,
            count: group.count,
            first_index: group.first_index,
            client_id,
            keep_alive_s: group.keep_alive_s,
            clean_start: group.clean_start,
            session_expiry_s: group.session_expiry_s,
            fields: group.fields,
            sleep: group.sleep,
        })
    }

    fn will(&self, will: MessageInFile) -> Result<Message, Wrong> {
        Ok(Message {
            topic: self.topic("topic", &will.topic)?,
            payload: self.payload(will.payload.as_ref(), will.format, true)?,
            qos: will.qos.0,
            retain: will.retain,
        })
    }

    fn publish(&self, publish: PublishInFile) -> Result<Publish, Wrong> {
        Ok(Publish {
            when: self.when(&publish)?,
            message: Message {
                topic: self.topic("topic", &publish.topic)?,
                payload: self.payload(publish.payload.as_ref(), publish.format, false)?,
                qos: publish.qos.0,
                retain: publish.retain,
            },
        })
    }

    fn when(&self, publish: &PublishInFile) -> Result<When, Wrong> {
        let jitter = publish.jitter.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&jitter) {
            return self.wrong("jitter", "must be between 0 and 1, a part of the interval");
        }
        let (key, interval_s) = match (publish.on_connect, publish.every_s, publish.rate_per_s) {
            (true, None, None) => return Ok(When::OnConnect),
            (false, Some(every_s), None) => ("every_s", every_s),
            (false, None, Some(rate)) => ("rate_per_s", 1.0 / rate),
            _ => {
                return self
                    .wrong("topic", "give one of every_s, rate_per_s and on_connect = true");
            }
        };
        if !(1e-6..=1e8).contains(&interval_s) {
            return self.wrong(key, "must be greater than 0, and at most a million a second");
        }
        Ok(When::Every { interval: Duration::from_secs_f64(interval_s), jitter })
    }

    fn subscribe(&self, subscribe: SubscribeInFile) -> Result<Subscribe, Wrong> {
        let filter = self.fixed("filter", &subscribe.filter, &NAMES)?;
        let example = filter.fill(&mut |_| "x".into());
        if !topic::is_filter(&example) {
            return self.wrong("filter", "is no topic filter: # stands last, + and # stand alone");
        }
        let mut names = self.names.clone();
        names.extend(REPLY_NAMES.map(String::from));
        let below = Check { key: self.path("reply"), names };
        let reply = subscribe.reply.map(|reply| below.reply(reply)).transpose()?;
        Ok(Subscribe { filter, qos: subscribe.qos.0, reply })
    }

    fn reply(&self, reply: ReplyInFile) -> Result<Reply, Wrong> {
        let topic = reply.topic.as_deref().map(|text| self.topic("topic", text)).transpose()?;
        Ok(Reply {
            topic,
            payload: self.payload(reply.payload.as_ref(), reply.format, false)?,
            qos: reply.qos.0,
            retain: reply.retain,
            delay_s: reply.delay_s,
        })
    }

    /// A topic name, once it is filled.
    fn topic(&self, key: &str, text: &str) -> Result<Template, Wrong> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let template = self.fixed(key, text, &names)?;
        let example = template.fill(&mut |_| "x".into());
        if !topic::is_name(&example) {
            return self.wrong(key, "is no topic: it must not be empty or contain + or #");
        }
        Ok(template)
    }

    /// Without `payload`: all fields, or nothing if there are none.
    fn payload(
        &self,
        value: Option<&toml::Value>,
        format: Option<Format>,
        is_will: bool,
    ) -> Result<Payload, Wrong> {
        let fields = || self.names.iter().filter(|name| !is_reserved(name));
        let payload = match value {
            Some(value) => Payload::parse(value, format),
            None if is_will || fields().next().is_none() => Template::parse("").map(Payload::Text),
            None => Payload::of_fields(fields(), format),
        };
        let payload = payload.map_err(|what| self.at("payload", what))?;
        for name in payload.names() {
            self.known("payload", name, self.names.iter().map(String::as_str))?;
        }
        Ok(payload)
    }

    /// A template with these names only.
    fn fixed(&self, key: &str, text: &str, names: &[&str]) -> Result<Template, Wrong> {
        let template = Template::parse(text).map_err(|what| self.at(key, what))?;
        for name in template.names() {
            self.known(key, name, names.iter().copied())?;
        }
        Ok(template)
    }

    fn known<'n>(
        &self,
        key: &str,
        name: &str,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> Result<(), Wrong> {
        if names.clone().any(|known| known == name) {
            return Ok(());
        }
        let names: Vec<String> = names.map(|name| format!("{{{name}}}")).collect();
        self.wrong(key, format!("{{{name}}} is not known here; there are {}", names.join(", ")))
    }

    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.key)
    }

    fn at(&self, key: &str, what: String) -> Wrong {
        (self.path(key), what)
    }

    fn wrong<T>(&self, key: &str, what: impl Into<String>) -> Result<T, Wrong> {
        Err(self.at(key, what.into()))
    }
}

fn is_reserved(name: &str) -> bool {
    NAMES.contains(&name) || REPLY_NAMES.contains(&name)
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
