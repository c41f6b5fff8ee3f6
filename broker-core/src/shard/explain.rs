//! What an operator asks: who is here, what a client may do and why, and whom a message would
//! reach. Nothing here is on a message's way.

use core::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

use whimbrel_auth::{Access, Action, Decision, Explanation, Method, Principal, Rights};
use whimbrel_codec::{QoS, ReasonCode, Version};
use whimbrel_topics::{Cursor, GroupRoute, Route, matches};

use super::shed::Pressure;
use super::subscribe::split;
use super::{Shard, sys};
use crate::message::Message;
use crate::session::{Outbound, Session};
use crate::{Config, ConnId, Millis, Shared};

/// Subscriptions of one session that are looked at to tell which of them match.
const LOOKED_AT: usize = 4096;
/// Retained messages that are looked at under one hold of the lock.
const PER_LOOK: usize = 64;
/// How often they are looked at for one question.
const LOOKS: usize = 100_000;

/// What a client wants to do, as an operator asks it; all shards are asked the same.
#[derive(Clone, Debug)]
pub struct Question {
    /// The client identifier.
    pub client_id: Box<str>,
    /// The name of its principal; none: whoever has a session with that client identifier.
    pub user: Option<Box<str>>,
    /// What it wants.
    pub wanted: Wanted,
    /// A valid topic name; for [`Wanted::Subscribe`] a valid topic filter, `$share/...` included.
    pub topic: Box<str>,
    /// 0 to 2.
    pub qos: u8,
    /// Most receivers that each shard lists.
    pub most: usize,
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Publish a message.
    Publish {
        /// It is to be retained.
        retain: bool,
        /// Length of its payload.
        payload_bytes: u64,
    },
    /// Subscribe.
    Subscribe,
}

/// What one shard answers to a [`Question`].
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The sessions with that client identifier, and that user if one was named.
    pub clients: Vec<Client>,
    /// Whether it may; none if another shard has to say, or if there are several such clients.
    pub judgement: Option<Judgement>,
    /// Sessions of this shard that would get the message.
    pub receivers: Vec<Receiver>,
    /// How many more there are.
    pub more: usize,
    /// Shared subscriptions whose turn is at a member in this shard.
    pub groups: Vec<Group>,
}

/// A client that has a session.
#[derive(Clone, Debug)]
pub struct Client {
    /// The client identifier.
    pub client_id: Box<str>,
    /// Who it has shown to be; none if nobody knows it.
    pub principal: Option<Arc<Principal>>,
    /// Its network connection, if it has one.
    pub conn: Option<ConnId>,
    /// From where it is connected, as far as its rights depend on it.
    pub address: Option<IpAddr>,
    /// Protocol version of its connection.
    pub version: Option<Version>,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// How many messages wait for it.
    pub queued: usize,
}

/// Whether a client may do something, and what decides.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// It may.
    pub allowed: bool,
    /// The limit that denies it, which then is all that decides.
    pub limit: Option<String>,
    /// What the rules say, if no limit comes before them.
    pub rules: Option<Explanation>,
    /// With which QoS: of a subscription the granted one.
    pub qos: u8,
    /// What happens nevertheless.
    pub note: Option<&'static str>,
}

/// A session that would get a message.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// The client identifier.
    pub client_id: Box<str>,
    /// The name of its principal; empty if nobody knows it.
    pub user: Box<str>,
    /// With which QoS.
    pub qos: u8,
    /// Which of its filters match; all that were found among its first 4,096.
    pub filters: Vec<Box<str>>,
    /// What would become of the message.
    pub fate: Fate,
}

/// What becomes of a message for one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is sent at once.
    Sent,
    /// It waits in the session's queue.
    Queued,
    /// It is dropped, and why.
    Dropped(&'static str),
}

/// A shared subscription that would get a message.
#[derive(Clone, Debug)]
pub struct Group {
    /// Identifies it.
    pub key: u32,
    /// The share name.
    pub name: Box<str>,
    /// How many members it has.
    pub members: usize,
    /// The one whose turn it is.
    pub next: Receiver,
}

/// What became of [`Shard::disconnect_client`].
#[derive(Clone, Debug, Default)]
pub struct DisconnectOutcome {
    /// Users that have a session with that client identifier; more than one: nobody was
    /// disconnected.
    pub users: Vec<Box<str>>,
    /// The one was connected.
    pub was_connected: bool,
}

impl Wanted {
    fn payload_bytes(self) -> u64 {
        match self {
            Wanted::Publish { payload_bytes, .. } => payload_bytes,
            Wanted::Subscribe => 0,
        }
    }
}

impl Shard {
    /// What this shard knows to answer.
    pub fn explain(&self, question: &Question) -> Answer {
        let found = self.sessions_of(question);
        let is_home = self.shared.home(&question.client_id) == self.id.0;
        let from = match found[..] {
            [slot] => self.sessions.get(slot as usize),
            _ => None,
        };
        let judgement = (is_home && found.len() < 2).then(|| self.judge(question, from));
        let mut answer = Answer { judgement, ..Answer::default() };
        answer.clients.extend(found.iter().filter_map(|slot| self.client(*slot)));
        if let Wanted::Publish { .. } = question.wanted {
            self.find_receivers(question, found.first().copied(), &mut answer);
        }
        answer
    }

    /// Clients that have a session here, at most this many from the slot `from` on; and where the
    /// next ones begin.
    pub fn clients(&self, from: usize, most: usize) -> (Vec<Client>, Option<usize>) {
        let end = self.sessions.capacity();
        let mut all = Vec::new();
        for slot in from..end {
            if all.len() == most {
                return (all, Some(slot));
            }
            all.extend(self.client(slot as u32));
        }
        (all, None)
    }

    /// Ends the connection of a client, whose session goes on as if it had lost it. `user` is the
    /// name of its principal; none: whoever has that client identifier.
    pub fn disconnect_client(
        &mut self,
        now: Millis,
        client_id: &str,
        user: Option<&str>,
    ) -> DisconnectOutcome {
        self.now = now;
        let found = self.slots_of(client_id, user);
        let mut sessions = found.iter().filter_map(|slot| self.sessions.get(*slot as usize));
        let users = sessions.clone().map(|session| session.owner().into()).collect::<Vec<_>>();
        let conn = sessions.next().and_then(|session| session.conn);
        let Some(conn) = conn.filter(|_| users.len() == 1) else {
            return DisconnectOutcome { users, was_connected: false };
        };
        let what = "an operator has ended the connection";
        self.disconnect(conn, ReasonCode::AdministrativeAction, what);
        DisconnectOutcome { users, was_connected: true }
    }

    fn sessions_of(&self, question: &Question) -> Vec<u32> {
        self.slots_of(&question.client_id, question.user.as_deref())
    }

    fn slots_of(&self, client_id: &str, user: Option<&str>) -> Vec<u32> {
        let hash = self.shared.routes.topic_hash(client_id);
        let same = |slot: &&u32| {
            let session = self.sessions.get(**slot as usize);
            session.is_some_and(|session| {
                *session.client_id == *client_id && user.is_none_or(|user| user == session.owner())
            })
        };
        self.by_client.iter_hash(hash).filter(same).copied().collect()
    }

    fn client(&self, slot: u32) -> Option<Client> {
        let session = self.sessions.get(slot as usize)?;
        let conn = session.conn.and_then(|id| self.conns.get(id.0 as usize));
        Some(Client {
            client_id: session.client_id.clone(),
            principal: session.rights.as_ref().map(|rights| rights.principal().clone()),
            conn: session.conn,
            address: session.rights.as_ref().and_then(|rights| rights.address()),
            version: conn.map(|conn| conn.version),
            subscriptions: session.subscriptions.len(),
            queued: session.outbound.as_ref().map_or(0, |outbound| outbound.waiting()),
        })
    }

    // ---- whether it may

    fn judge(&self, question: &Question, session: Option<&Session>) -> Judgement {
        let limit = match question.wanted {
            Wanted::Publish { payload_bytes, .. } => self.publish_limit(question, payload_bytes),
            Wanted::Subscribe => self.subscribe_limit(question, session),
        };
        let qos = question.qos;
        let retain = matches!(question.wanted, Wanted::Publish { retain: true, .. });
        if let Some(limit) = limit {
            return Judgement { allowed: false, limit: Some(limit), rules: None, qos, note: None };
        }
        let rights = session.and_then(|session| session.rights.clone());
        let rights = rights.unwrap_or_else(|| self.rights_of_unknown(question));
        let (action, topic, granted) = match question.wanted {
            Wanted::Publish { .. } => (Action::Publish, &*question.topic, None),
            Wanted::Subscribe => {
                let filter = split(&question.topic).map_or(&*question.topic, |(_, plain)| plain);
                (Action::Subscribe, filter, rights.authorize_subscribe(filter, qos))
            }
        };
        let qos = granted.unwrap_or(qos);
        let rules = rights.explain(&Access { action, topic, qos, retain });
        let allowed = rules.decision == Decision::Allowed;
        let note = self.note(question, retain).filter(|_| allowed);
        Judgement { allowed, limit: None, rules: Some(rules), qos, note }
    }

    /// Of somebody who has no session: whom the question names.
    fn rights_of_unknown(&self, question: &Question) -> Arc<Rights> {
        let principal = match question.user.as_deref().unwrap_or_default() {
            "" => Principal::new("", Method::Anonymous),
            user => Principal::new(user, Method::Password),
        };
        let rules = self.shared.rules();
        Arc::new(Rights::new(&rules, Arc::new(principal), &question.client_id, None))
    }

    fn publish_limit(&self, question: &Question, payload_bytes: u64) -> Option<String> {
        let topic = &*question.topic;
        if sys::is_sys(topic) {
            return Some("$SYS topics are the broker's".into());
        }
        let most = self.config.max_packet_size_bytes;
        let len = packet_len(topic, question.qos, payload_bytes);
        if len > u64::from(most) {
            let key = "limits.max_packet_size_bytes";
            return Some(format!("the packet has {len} bytes, and {key} is {most}"));
        }
        if self.has_too_many_levels(topic) {
            return Some(too_many_levels("topic name", &self.config));
        }
        let store = self.is_full() && question.qos > 0;
        store.then(|| "the store has no room for messages of QoS 1 and 2".into())
    }

    fn subscribe_limit(&self, question: &Question, session: Option<&Session>) -> Option<String> {
        let filter = &*question.topic;
        if self.has_too_many_levels(split(filter).map_or(filter, |(_, plain)| plain)) {
            return Some(too_many_levels("topic filter", &self.config));
        }
        let session = session?;
        let hash = |filter: &str| self.shared.routes.topic_hash(filter);
        let existed = session.subscriptions.contains(filter, hash);
        let most = session.bounds(&self.config).max_subscriptions;
        if !existed && session.subscriptions.len() >= most as usize {
            return Some(format!(
                "it has {most} subscriptions, as many as max_subscriptions allows it"
            ));
        }
        if session.durable && self.is_full() {
            return Some("the store has no room for subscriptions".into());
        }
        let short = !existed && self.pressure >= Pressure::Queues;
        short.then(|| "the broker is short of memory (limits.memory_budget_bytes)".into())
    }

    fn note(&self, question: &Question, retain: bool) -> Option<&'static str> {
        if !retain {
            return None;
        }
        let retained = self.shared.retained.read().unwrap_or_else(PoisonError::into_inner);
        let full = retained.len() as u64 >= self.config.max_retained_messages;
        let new = retained.get(&question.topic).is_none();
        (full && new).then_some("it is not retained: limits.max_retained_messages is reached")
    }

    // ---- whom it reaches

    fn find_receivers(&self, question: &Question, from: Option<u32>, answer: &mut Answer) {
        let routes = &self.shared.routes;
        let (topic, mut route) = (&*question.topic, Route::default());
        routes.resolve(topic, routes.topic_hash(topic), self.id.0, &mut route);
        for subscriber in &route.local {
            if !subscriber.receives(Some(subscriber.session) == from) {
                continue;
            }
            if answer.receivers.len() >= question.most {
                answer.more += 1;
                continue;
            }
            let qos = question.qos.min(subscriber.qos());
            answer.receivers.extend(self.receiver(subscriber.session, qos, question, None));
        }
        answer.groups.extend(route.groups.iter().filter_map(|group| self.group(group, question)));
    }

    fn group(&self, group: &GroupRoute, question: &Question) -> Option<Group> {
        let next = group.peek().filter(|member| member.who.shard == self.id.0)?;
        let qos = question.qos.min(next.options.qos);
        let (key, name) = (group.key(), group.name());
        let next = self.receiver(next.who.session, qos, question, Some(name))?;
        Some(Group { key, name: name.into(), members: group.member_count(), next })
    }

    /// `group`: through this shared subscription; none: through ordinary ones.
    fn receiver(
        &self,
        slot: u32,
        qos: u8,
        question: &Question,
        group: Option<&str>,
    ) -> Option<Receiver> {
        let Question { topic, wanted, .. } = question;
        let session = self.sessions.get(slot as usize)?;
        let through = |filter: &&str| {
            split(filter).is_ok_and(|(name, plain)| name == group && matches(plain, topic))
        };
        let filters = session.subscriptions.iter().take(LOOKED_AT).map(|one| &*one.filter);
        Some(Receiver {
            client_id: session.client_id.clone(),
            user: session.owner().into(),
            qos,
            filters: filters.filter(through).map(Into::into).collect(),
            fate: self.fate(session, QoS::from_u8(qos).unwrap_or_default(), wanted.payload_bytes()),
        })
    }

    /// As `deliver.rs` has it.
    fn fate(&self, session: &Session, qos: QoS, payload_bytes: u64) -> Fate {
        let conn = session.conn.and_then(|id| self.conns.get(id.0 as usize));
        match (conn, qos) {
            (None, QoS::AtMostOnce) => Fate::Dropped("it is not connected, and QoS 0 never waits"),
            (None, _) => self.queue_fate(session, payload_bytes),
            (Some(conn), QoS::AtMostOnce) => {
                let most = match self.pressure >= Pressure::SlowReaders {
                    true => 64 * 1024,
                    false => self.config.max_output_bytes,
                };
                match conn.output.len() > most as usize {
                    true => Fate::Dropped("it reads too slowly (limits.max_output_bytes)"),
                    false => Fate::Sent,
                }
            }
            (Some(conn), _) => {
                let outbound = session.outbound.as_deref();
                let at_once = outbound.map_or(0, Outbound::waiting) == 0
                    && outbound.is_none_or(|one| one.in_flight.has_room(conn.receive_maximum))
                    && conn.output.len() <= self.config.max_output_bytes as usize;
                if at_once { Fate::Sent } else { self.queue_fate(session, payload_bytes) }
            }
        }
    }

    fn queue_fate(&self, session: &Session, payload_bytes: u64) -> Fate {
        let outbound = session.outbound.as_deref();
        let waiting = outbound.map_or(0, Outbound::waiting);
        let bounds = session.bounds(&self.config);
        if waiting >= bounds.max_queued_messages as usize {
            return Fate::Dropped("its queue is full (max_queued_messages)");
        }
        let waiting_bytes = outbound.map_or(0, Outbound::waiting_bytes);
        if waiting_bytes.saturating_add(payload_bytes) > bounds.max_queued_bytes {
            return Fate::Dropped("its queue is full (max_queued_bytes)");
        }
        if self.pressure >= Pressure::Queues && session.durable_key().is_none() {
            return Fate::Dropped("the broker is short of memory (limits.memory_budget_bytes)");
        }
        Fate::Queued
    }
}

impl Shared {
    /// How many retained messages a subscription to this valid filter would bring, and whether all
    /// were counted: a search looks at 6.4 million at most. A shared subscription brings none.
    pub fn retained_count(&self, filter: &str) -> (usize, bool) {
        let Ok((None, filter)) = split(filter) else { return (0, true) };
        let (mut count, mut cursor) = (0, Cursor::default());
        for _ in 0..LOOKS {
            let retained = self.retained.read().unwrap_or_else(PoisonError::into_inner);
            retained.scan(filter, &mut cursor, PER_LOOK, &mut |_: &Message| {
                count += 1;
                ControlFlow::Continue(())
            });
            if cursor.is_done() {
                break;
            }
        }
        (count, cursor.is_done())
    }
}

/// Of a PUBLISH packet of 5.0 without properties, in bytes.
fn packet_len(topic: &str, qos: u8, payload_bytes: u64) -> u64 {
    let packet_id = if qos > 0 { 2 } else { 0 };
    let rest = (2 + topic.len() + packet_id + 1) as u64;
    let rest = rest.saturating_add(payload_bytes);
    let header = match rest {
        0..128 => 2,
        128..16_384 => 3,
        16_384..2_097_152 => 4,
        _ => 5,
    };
    rest.saturating_add(header)
}

fn too_many_levels(what: &str, config: &Config) -> String {
    format!("the {what} has more levels than limits.max_topic_levels, {}", config.max_topic_levels)
}
