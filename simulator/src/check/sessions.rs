//! What is known of each client's session: whether it is there, until when, and its subscriptions.

use std::collections::{BTreeMap, VecDeque};

use whimbrel_codec::QoS;

use super::{Check, split};
use crate::client::Serial;

/// The broker may take so long to notice that a session's time is over.
const SLACK_MS: u64 = 3000;
/// A session expiry that never comes.
const NEVER_S: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Exists {
    #[default]
    No,
    /// It has ended, but a crash could bring it back.
    Ending,
    Maybe,
    Yes,
}

/// A session as the checker knows it.
#[derive(Default)]
pub(super) struct Session {
    pub exists: Exists,
    /// Counts sessions of this client.
    epoch: u32,
    /// Session expiry in seconds: at least, at most.
    expiry: (u32, u32),
    /// The same before the last DISCONNECT, until that is durable.
    expiry_before: Option<(u32, u32)>,
    /// CONNECT was sent and CONNACK has not come.
    pending: Option<Pending>,
    /// The connection that the broker has accepted.
    open: Option<usize>,
    /// Wall time at which it ends: at the earliest, at the latest.
    ends: Option<(u64, u64)>,
    pub subs: BTreeMap<String, Sub>,
    pub got: BTreeMap<Serial, super::delivery::Count>,
    pub due: BTreeMap<Serial, QoS>,
    /// The last message by publisher, topic, and QoS as published and as delivered.
    pub last: BTreeMap<(usize, String, QoS, QoS), Serial>,
    /// Deliveries that the client has not acknowledged, by packet identifier.
    pub held: BTreeMap<u16, super::delivery::Held>,
    /// Deliveries that the client has ended on this connection.
    pub ended: Vec<(u16, Serial)>,
    /// Those of them that came before each SUBSCRIBE without SUBACK.
    before_subscribe: VecDeque<Vec<(u16, Serial)>>,
    /// Those that the broker has noted for good, with the event since when that is known.
    pub ended_durably: BTreeMap<(u16, Serial), u64>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    link: usize,
    clean: bool,
    expiry_s: u32,
    sent_wall: u64,
}

/// A subscription.
pub(super) struct Sub {
    /// The filter without its group.
    pub plain: String,
    pub shared: bool,
    pub no_local: bool,
    /// It is in force, with this QoS, since this event.
    pub certain: Option<(QoS, u64)>,
    /// It may have been in force: from, to.
    pub maybe: Vec<(u64, Option<u64>)>,
}

/// Something that a crash cannot change once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The end of a connection, and of the session if it ended too.
    Closed {
        /// Its index.
        client: usize,
        /// Which of its sessions.
        epoch: u32,
    },
    /// A will was withdrawn or published.
    WillGone {
        /// Its index.
        will: usize,
    },
}

/// How the broker saw a connection end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// DISCONNECT without will, with this session expiry if it gave one.
    Normal(Option<u32>),
    /// DISCONNECT with will.
    WithWill(Option<u32>),
    /// In any other way.
    Lost,
}

fn at(wall: u64, expiry_s: u32) -> u64 {
    if expiry_s == NEVER_S { u64::MAX } else { wall + u64::from(expiry_s) * 1000 }
}

fn hull(a: (u32, u32), b: (u32, u32)) -> (u32, u32) {
    (a.0.min(b.0), a.1.max(b.1))
}

impl Session {
    /// It is there for sure, and will be a moment longer.
    pub fn is_certain(&self, wall: u64) -> bool {
        self.exists == Exists::Yes && self.ends.is_none_or(|(first, _)| first > wall)
    }

    pub fn may_have_expired(&self, wall: u64) -> bool {
        self.exists == Exists::Yes && self.ends.is_some_and(|(first, _)| first <= wall)
    }

    /// Whoever lost its connection in what is now the future has lost it now.
    pub fn clock_was_set(&mut self, wall: u64) {
        if let Some((first, _)) = &mut self.ends {
            *first = (*first).min(at(wall, self.expiry.0));
        }
    }

    /// Session expiry, at least.
    pub fn expiry_least(&self) -> u32 {
        self.expiry.0
    }

    fn restart(&mut self) {
        self.got.clear();
        self.last.clear();
        self.held.clear();
        self.due.clear();
        self.ended_durably.clear();
    }
}

impl Check {
    /// The session may have ended: nothing is due to it any more. `forgotten`: by the client too.
    pub(super) fn void(&mut self, c: usize, forgotten: bool) {
        let event = self.event;
        let session = &mut self.sessions[c];
        session.due.clear();
        if matches!(session.exists, Exists::Yes) {
            session.exists = Exists::Maybe;
        }
        if forgotten {
            session.restart();
        }
        for (filter, sub) in &mut session.subs {
            sub.certain = None;
            if sub.shared {
                let group = self.groups.entry(filter.clone()).or_default();
                group.due.clear();
                group.exempt_before = event;
            }
        }
    }

    /// CONNECT is sent.
    pub fn connect_sent(&mut self, c: usize, link: usize, clean: bool, expiry_s: u32) {
        self.tick();
        if clean {
            self.void(c, true);
        }
        let sent_wall = self.wall;
        self.last_link = link;
        let session = &mut self.sessions[c];
        session.ended.clear();
        session.before_subscribe.clear();
        session.pending = Some(Pending { link, clean, expiry_s, sent_wall });
    }

    /// The broker has accepted the connection.
    pub fn broker_opened(&mut self, c: usize, link: usize, present: bool) {
        let pending = self.sessions[c].pending.filter(|pending| pending.link == link);
        let Some(pending) = pending else { return };
        if !present {
            // Until CONNACK says so, a crash may bring the old one back.
            self.void(c, true);
            self.sessions[c].epoch += 1;
        }
        let session = &mut self.sessions[c];
        session.expiry = match session.exists {
            Exists::No | Exists::Ending => (pending.expiry_s, pending.expiry_s),
            _ => hull(session.expiry, (pending.expiry_s, pending.expiry_s)),
        };
        if session.exists != Exists::Yes {
            session.exists = Exists::Maybe;
        }
        session.open = Some(link);
    }

    /// CONNACK with success came.
    pub fn connack(&mut self, c: usize, link: usize, present: bool) {
        self.tick();
        let (wall, started) = (self.wall, self.started_wall);
        let session = &mut self.sessions[c];
        let Some(pending) = session.pending.take_if(|pending| pending.link == link) else { return };
        let over = session.ends.is_some_and(|(_, last)| {
            last.max(started).saturating_add(SLACK_MS) < pending.sent_wall
        });
        let wrong = match (present, session.exists) {
            (true, _) if pending.clean => Some("session present after Clean Start"),
            (true, Exists::No | Exists::Ending) => Some("session present, but there was none"),
            (true, _) if over => Some("session present, but its expiry had passed"),
            (false, Exists::Yes) if !session.may_have_expired(wall) => {
                Some("the session is gone, though it was acknowledged and has not expired")
            }
            _ => None,
        };
        // The broker may have lost the connection while CONNACK was on its way.
        let closed = session.open != Some(link);
        if !closed {
            session.expiry = (pending.expiry_s, pending.expiry_s);
            session.expiry_before = None;
            session.ends = None;
        }
        if let Some(wrong) = wrong {
            let what = format!("{}: {wrong}", self.names[c]);
            self.fail(4, what);
        }
        let session = &mut self.sessions[c];
        if !present {
            session.subs.clear();
        }
        let there = session.ends.is_none_or(|(first, _)| first > wall);
        session.exists = if there { Exists::Yes } else { Exists::Maybe };
    }

    /// The broker has seen the connection end. Gives what is certain when that is durable.
    pub fn broker_closed(&mut self, c: usize, link: usize, closing: Closing) -> Option<Fact> {
        self.tick();
        if self.sessions[c].open != Some(link) {
            return None;
        }
        self.sessions[c].open = None;
        self.end_connection(c, closing);
        Some(Fact::Closed { client: c, epoch: self.sessions[c].epoch })
    }

    fn end_connection(&mut self, c: usize, closing: Closing) {
        let wall = self.wall;
        let session = &mut self.sessions[c];
        if let Closing::Normal(Some(expiry_s)) | Closing::WithWill(Some(expiry_s)) = closing {
            session.expiry_before = Some(session.expiry);
            session.expiry = (expiry_s, expiry_s);
        }
        let (least, most) = session.expiry;
        session.ends = Some((at(wall, least), at(wall, most)));
        if least == 0 {
            self.void(c, false);
        }
        if most == 0 {
            self.sessions[c].exists = Exists::Ending;
        }
    }

    pub(super) fn closed_durably(&mut self, c: usize, epoch: u32) {
        let session = &mut self.sessions[c];
        if session.epoch == epoch && session.open.is_none() {
            session.expiry_before = None;
            if session.exists == Exists::Ending {
                session.exists = Exists::No;
            }
        }
    }

    /// What was not durable may be undone: an end of a connection, a change of the expiry.
    pub(super) fn session_crashed(&mut self, c: usize, now: (u64, u64)) {
        let session = &mut self.sessions[c];
        if let Some(before) = session.expiry_before.take() {
            session.expiry = hull(session.expiry, before);
        }
        session.open = None;
        if let Some(pending) = session.pending {
            session.expiry = hull(session.expiry, (pending.expiry_s, pending.expiry_s));
        }
        let (least, most) = session.expiry;
        let ends = (at(now.0, least), at(now.1, most));
        session.exists = match session.exists {
            Exists::No => Exists::No,
            _ if most == 0 => Exists::No,
            Exists::Ending => Exists::Maybe,
            exists => exists,
        };
        session.ends = Some(match session.ends {
            Some((first, last)) => (first.min(ends.0), last.max(ends.1)),
            None => ends,
        });
        if least == 0 {
            self.void(c, false);
        }
    }

    // ---- subscriptions

    /// SUBSCRIBE is sent.
    pub fn subscribe_sent(&mut self, c: usize, filter: &str, qos: QoS, no_local: bool) {
        let event = self.tick();
        let session = &mut self.sessions[c];
        session.before_subscribe.push_back(std::mem::take(&mut session.ended));
        let (plain, shared) = split(filter);
        let sub = self.sessions[c].subs.entry(filter.to_owned()).or_insert_with(|| Sub {
            plain: plain.to_owned(),
            shared,
            no_local,
            certain: None,
            maybe: Vec::new(),
        });
        if shared && qos == QoS::AtMostOnce {
            let group = self.groups.entry(filter.to_owned()).or_default();
            group.lossy = true;
            group.due.clear();
        }
        // Until it is acknowledged it is one or the other.
        if let Some((was, _)) = &mut sub.certain {
            *was = (*was).min(qos);
        }
        sub.no_local &= no_local;
        if sub.maybe.last().is_none_or(|(_, to)| to.is_some()) {
            sub.maybe.push((event, None));
        }
    }

    /// SUBACK came.
    pub fn suback(&mut self, c: usize, filter: &str, qos: QoS, code: u8) {
        let event = self.tick();
        let session = &mut self.sessions[c];
        // What came before the SUBSCRIBE was handled, and SUBACK has waited for the disk.
        let before = session.before_subscribe.pop_front().unwrap_or_default();
        if code & 0x80 == 0 {
            session.ended_durably.extend(before.into_iter().map(|ended| (ended, event)));
        }
        let Some(sub) = session.subs.get_mut(filter) else { return };
        if code & 0x80 == 0 {
            // A higher QoS holds for what is published from now on.
            let before = sub.certain.filter(|(was, _)| *was >= qos);
            sub.certain = Some((qos, before.map_or(event, |(_, since)| since)));
        }
    }

    /// UNSUBSCRIBE is sent.
    pub fn unsubscribe_sent(&mut self, c: usize, filter: &str) {
        let event = self.tick();
        if self.hasty {
            self.sessions[c].due.clear();
        }
        let Some(sub) = self.sessions[c].subs.get_mut(filter) else { return };
        sub.certain = None;
        if sub.shared {
            let group = self.groups.entry(filter.to_owned()).or_default();
            group.due.clear();
            group.exempt_before = event;
        }
    }

    /// UNSUBACK came.
    pub fn unsuback(&mut self, c: usize, filter: &str) {
        let event = self.tick();
        let Some(sub) = self.sessions[c].subs.get_mut(filter) else { return };
        if let Some((_, to)) = sub.maybe.last_mut() {
            to.get_or_insert(event);
        }
    }

    /// The client has no session left that anybody remembers.
    pub fn has_certainly_no_session(&self, c: usize) -> bool {
        matches!(self.sessions[c].exists, Exists::No | Exists::Ending)
    }
}
