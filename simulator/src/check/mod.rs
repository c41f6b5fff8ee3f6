//! The checker: it is told what clients send and get, and of what happens to the broker, and says
//! when the broker has broken a promise.
//!
//! Invariants, by the numbers that a violation names:
//!
//! 1. what was acknowledged reaches every session that matched it and still exists
//!    ([`Check::acked`], [`Check::finish`]);
//! 2. QoS 2 comes exactly once, QoS 1 at least once, and what is repeated carries DUP
//!    (`delivery.rs`);
//! 3. first deliveries have the order of publishing (`delivery.rs`);
//! 4. session present tells the truth, and a session is complete (`sessions.rs`);
//! 5. one will for each lost connection, none before its delay, none that was withdrawn
//!    (`wills.rs`);
//! 6. the retained message is the last acknowledged write, or a later one (`retained.rs`);
//! 7. limits hold, packet identifiers in flight are unique, and memory is given back
//!    (`delivery.rs`, and `world/quiet.rs` for what the broker itself counts);
//! 8. nothing panics (`world/mod.rs`).
//!
//! Time is the order of calls: *event* numbers. Nothing is assumed that a client could not know,
//! but for when the broker saw a connection end, and which batch was durable by then.

mod delivery;
mod retained;
mod sessions;
mod wills;

use std::collections::BTreeMap;

use whimbrel_codec::{QoS, ReasonCode};
use whimbrel_topics::{matches, parse_shared};

use crate::client::Serial;

use sessions::Session;
pub use sessions::{Closing, Fact};
use wills::Will;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Number of the invariant.
    pub invariant: u8,
    /// What happened.
    pub what: String,
}

/// A message, a will included.
#[derive(Clone, Debug)]
pub struct Message {
    /// Index of the client.
    pub publisher: usize,
    /// Topic name.
    pub topic: String,
    /// As published.
    pub qos: QoS,
    /// It is to be retained.
    pub retain: bool,
    /// Message expiry interval, in seconds.
    pub expiry_s: Option<u32>,
    /// Removes what is retained.
    pub empty: bool,
    /// It is a will.
    pub will: bool,
    first_send: Option<u64>,
    last_send: u64,
    first_wall: u64,
    /// PUBLISH packets.
    sends: u32,
    /// Those that were not repetitions.
    fresh: u32,
    acked: Option<u64>,
    refused: bool,
}

impl Message {
    /// One that was not sent.
    pub fn new(publisher: usize, topic: &str, qos: QoS) -> Message {
        Message {
            publisher,
            topic: topic.to_owned(),
            qos,
            retain: false,
            expiry_s: None,
            empty: false,
            will: false,
            first_send: None,
            last_send: 0,
            first_wall: 0,
            sends: 0,
            fresh: 0,
            acked: None,
            refused: false,
        }
    }

    /// It has got its acknowledgement.
    pub fn is_finished(&self) -> bool {
        self.acked.is_some() || self.refused
    }
}

/// A group of a shared subscription, by its whole filter.
#[derive(Default)]
struct Group {
    due: BTreeMap<Serial, QoS>,
    got: BTreeMap<Serial, u32>,
    /// A member may have taken with it what was sent before this event.
    exempt_before: u64,
    /// A member has subscribed with QoS 0, and whoever is chosen may lose a message.
    lossy: bool,
}

/// The checker.
pub struct Check {
    event: u64,
    wall: u64,
    wall_max: u64,
    /// How far the wall clock was set back, all in all.
    went_back_ms: u64,
    /// When the broker was started last.
    started_wall: u64,
    /// Crashes so far.
    crashes: u32,
    /// Connections up to this one were opened before the last crash.
    last_link_before_crash: usize,
    last_link: usize,
    /// Event of the last crash.
    last_crash: u64,
    names: Vec<String>,
    messages: Vec<Message>,
    sessions: Vec<Session>,
    groups: BTreeMap<String, Group>,
    wills: Vec<Will>,
    by_topic: BTreeMap<String, Vec<Serial>>,
    /// What is certain once a ticket is reached.
    pending: Vec<(u64, Fact)>,
    violation: Option<Violation>,
    /// Acknowledgements do not wait for other shards, so what is on its way to a session may come
    /// after the end of its subscription.
    pub hasty: bool,
    /// Deliveries looked at.
    pub delivered: u64,
}

impl Check {
    /// For these clients.
    pub fn new(names: Vec<String>) -> Check {
        Check {
            event: 1,
            wall: 0,
            wall_max: 0,
            went_back_ms: 0,
            started_wall: 0,
            crashes: 0,
            last_link_before_crash: 0,
            last_link: 0,
            last_crash: 0,
            sessions: names.iter().map(|_| Session::default()).collect(),
            names,
            messages: Vec::new(),
            groups: BTreeMap::new(),
            wills: Vec::new(),
            by_topic: BTreeMap::new(),
            pending: Vec::new(),
            violation: None,
            hasty: false,
            delivered: 0,
        }
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes a violation, unless there is one.
    pub fn fail(&mut self, invariant: u8, what: String) {
        self.violation.get_or_insert(Violation { invariant, what });
    }

    /// A message by its number.
    pub fn message(&self, serial: Serial) -> &Message {
        &self.messages[serial]
    }

    /// What a message is, in words.
    pub fn say(&self, serial: Serial) -> String {
        let Some(m) = self.messages.get(serial) else { return format!("message {serial}") };
        let kind = if m.will { "will" } else { "message" };
        let retain = if m.retain { ", retain" } else { "" };
        let publisher = self.names.get(m.publisher).map_or("", String::as_str);
        format!("{kind} {serial} of {publisher} to {} (QoS {}{retain})", m.topic, m.qos as u8)
    }

    fn tick(&mut self) -> u64 {
        self.event += 1;
        self.event
    }

    // ---- publishing

    /// A new message; gives its number.
    pub fn add(&mut self, message: Message) -> Serial {
        let serial = self.messages.len();
        if message.retain {
            self.by_topic.entry(message.topic.clone()).or_default().push(serial);
        }
        self.messages.push(message);
        serial
    }

    /// A client sends a PUBLISH; `again`: it repeats one of a session that goes on.
    pub fn publish_sent(&mut self, serial: Serial, again: bool) {
        let (event, wall) = (self.tick(), self.wall);
        let m = &mut self.messages[serial];
        if m.first_send.is_none() {
            m.first_send = Some(event);
            m.first_wall = wall;
        }
        // A clock that was set back may have it expire earlier than the first sending says.
        m.first_wall = m.first_wall.min(wall);
        m.last_send = event;
        m.sends += 1;
        m.fresh += u32::from(!again);
    }

    /// PUBACK or PUBREC came: from now on the message must reach everybody who was there from
    /// before it was sent.
    pub fn acked(&mut self, serial: Serial, reason: ReasonCode) {
        let event = self.tick();
        let m = &mut self.messages[serial];
        if reason.is_error() {
            m.refused = true;
            return;
        }
        if m.acked.is_some() {
            return;
        }
        m.acked = Some(event);
        let Some(sent) = m.first_send else { return };
        if reason == ReasonCode::NoMatchingSubscribers {
            self.check_nobody_matches(serial, sent);
        }
        self.make_due(serial, sent);
    }

    /// Whoever was certainly subscribed since before `since` has to get the message.
    fn make_due(&mut self, serial: Serial, since: u64) {
        let m = self.messages[serial].clone();
        if m.empty || m.qos == QoS::AtMostOnce {
            return;
        }
        let mut groups = Vec::new();
        for (c, session) in self.sessions.iter_mut().enumerate() {
            if !session.is_certain(self.wall) {
                continue;
            }
            let mut due = QoS::AtMostOnce;
            for (filter, sub) in &session.subs {
                let Some((qos, from)) = sub.certain else { continue };
                let own = sub.no_local && m.publisher == c;
                if from >= since || own || !matches(&sub.plain, &m.topic) {
                    continue;
                }
                if sub.shared {
                    groups.push((filter.clone(), qos.min(m.qos)));
                } else {
                    due = due.max(qos.min(m.qos));
                }
            }
            if due > QoS::AtMostOnce && !session.got.contains_key(&serial) {
                session.due.insert(serial, due);
            }
        }
        for (filter, qos) in groups {
            let group = self.groups.entry(filter).or_default();
            if qos > QoS::AtMostOnce
                && !group.lossy
                && since > group.exempt_before
                && !group.got.contains_key(&serial)
            {
                group.due.insert(serial, qos);
            }
        }
    }

    fn check_nobody_matches(&mut self, serial: Serial, sent: u64) {
        let m = &self.messages[serial];
        let there = self.sessions.iter().enumerate().find(|(c, session)| {
            session.is_certain(self.wall)
                && session.subs.values().any(|sub| {
                    let before = sub.certain.is_some_and(|(_, from)| from < sent);
                    before && *c != m.publisher && matches(&sub.plain, &m.topic)
                })
        });
        if let Some((c, _)) = there {
            let what = format!(
                "{} was answered with no matching subscribers, but {} is subscribed",
                self.say(serial),
                self.names[c]
            );
            self.fail(1, what);
        }
    }

    // ---- time and stops

    /// The wall clock is there now.
    pub fn set_wall(&mut self, wall: u64) {
        self.went_back_ms += self.wall.saturating_sub(wall);
        self.wall = wall;
        self.wall_max = self.wall_max.max(wall);
        for c in 0..self.sessions.len() {
            if self.sessions[c].may_have_expired(wall) {
                self.void(c, false);
            }
        }
        self.wills_due();
    }

    /// What was recorded before this ticket is durable.
    pub fn durable(&mut self, synced: u64) {
        let pending = std::mem::take(&mut self.pending);
        let (done, waiting) = pending.into_iter().partition(|(ticket, _)| *ticket <= synced);
        self.pending = waiting;
        let done: Vec<(u64, Fact)> = done;
        for (_, fact) in done {
            match fact {
                Fact::Closed { client, epoch } => self.closed_durably(client, epoch),
                Fact::WillGone { will } => self.wills[will].gone_durably = true,
            }
        }
    }

    /// A fact that is certain with this ticket.
    pub fn certain_with(&mut self, ticket: u64, fact: Fact) {
        self.pending.push((ticket, fact));
    }

    /// The broker is there again. `crashed`: it was not stopped in good order; then what was not
    /// durable may or may not be there.
    pub fn restarted(&mut self, stopped_wall: u64, wall: u64, crashed: bool) {
        self.tick();
        self.crashes += u32::from(crashed);
        if crashed {
            self.last_link_before_crash = self.last_link;
            self.last_crash = self.event;
        }
        self.started_wall = wall;
        let now = (stopped_wall.min(wall), stopped_wall.max(wall));
        if !crashed {
            self.durable(u64::MAX);
        }
        self.pending.clear();
        for c in 0..self.sessions.len() {
            if crashed {
                self.session_crashed(c, now);
            }
            self.sessions[c].clock_was_set(wall);
        }
        self.wills_restarted(now, wall, crashed);
        self.set_wall(wall);
    }

    // ---- the end

    /// Everything has come to rest: what is still due was lost. `dropped`: so many messages were
    /// dropped because of limits.
    pub fn finish(&mut self, dropped: u64) {
        let mut missing = Vec::new();
        for (c, session) in self.sessions.iter().enumerate() {
            let lost = session.due.keys().filter(|serial| !self.has_expired(**serial));
            missing.extend(lost.map(|serial| (self.names[c].clone(), *serial)));
        }
        for (filter, group) in &self.groups {
            let lost = group.due.keys().filter(|serial| !self.has_expired(**serial));
            missing.extend(lost.map(|serial| (filter.clone(), *serial)));
        }
        if missing.len() as u64 > dropped {
            let (who, serial) = &missing[0];
            let invariant = if self.messages[*serial].will { 5 } else { 1 };
            let what = format!(
                "{} has not reached {who}; {} missing, {dropped} dropped",
                self.say(*serial),
                missing.len()
            );
            self.fail(invariant, what);
        }
    }

    /// Messages that somebody still has to get.
    pub fn due_count(&self) -> usize {
        let sessions: usize = self.sessions.iter().map(|session| session.due.len()).sum();
        sessions + self.groups.values().map(|group| group.due.len()).sum::<usize>()
    }

    fn has_expired(&self, serial: Serial) -> bool {
        let m = &self.messages[serial];
        let begun = if m.will { 0 } else { m.first_wall };
        m.expiry_s.is_some_and(|s| self.wall_max + 1000 > begun + u64::from(s) * 1000)
    }
}

/// The filter of a subscription without its group, and whether it has one.
fn split(filter: &str) -> (&str, bool) {
    match parse_shared(filter) {
        Ok(Some(shared)) => (shared.filter, true),
        _ => (filter, false),
    }
}
