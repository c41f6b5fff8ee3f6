//! What comes to a client: how often, in which order, with which packet identifier.

use whimbrel_codec::QoS;
use whimbrel_topics::matches;

use super::{Check, Message};
use crate::client::{Delivered, Serial};

/// How often a session has got a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    once: u32,
    /// Without DUP, at least once.
    plain: u32,
    at_most_once: u32,
}

/// A delivery that the client has not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    serial: Option<Serial>,
    qos: QoS,
    link: usize,
    retain: bool,
}

impl Check {
    /// A PUBLISH came. `suppressed`: QoS 2, and the client knows the identifier, so its
    /// application does not see it. `most`: its receive maximum.
    pub fn received(
        &mut self,
        c: usize,
        link: usize,
        d: &Delivered,
        suppressed: bool,
        most: usize,
    ) {
        self.tick();
        self.delivered += 1;
        if d.qos != QoS::AtMostOnce {
            self.check_identifier(c, link, d, most);
        }
        let Some(serial) = d.serial.filter(|_| !suppressed) else { return };
        let Some(m) = self.messages.get(serial) else {
            return self.fail(2, format!("{} got message {serial}, which is none", self.names[c]));
        };
        if m.topic != d.topic || d.qos > m.qos || self.lives_too_long(m, d) {
            let what = format!("{} got {} as {d:?}", self.names[c], self.say(serial));
            return self.fail(2, what);
        }
        self.check_not_ended(c, serial, d);
        self.check_wanted(c, serial, d);
        if self.messages[serial].will {
            self.will_came(c, serial, d.retain);
        }
        if d.retain {
            self.retained_came(c, serial);
        } else {
            self.count(c, serial, d);
        }
        self.sessions[c].due.remove(&serial);
        self.group_got(c, serial, d);
    }

    /// The message expiry interval is what is left of the publisher's [MQTT-3.3.2-6]; a clock that
    /// went back has made it longer.
    fn lives_too_long(&self, m: &Message, d: &Delivered) -> bool {
        let back_s = self.went_back_ms.div_ceil(1000);
        let most = m.expiry_s.map(|s| u64::from(s) + back_s);
        d.expiry_s.map(u64::from) > most.or(d.expiry_s.map(u64::from))
    }

    /// After a crash a message may go on its way once more, to those who have subscribed since.
    fn was_meant_for(&self, c: usize, m: &Message) -> bool {
        let before = |since: u64| m.first_send.is_some_and(|sent| since < sent);
        m.first_send.is_some_and(|sent| sent > self.last_crash)
            || self.sessions[c].subs.values().all(|sub| {
                let from = sub.certain.map(|(_, since)| since);
                !matches(&sub.plain, &m.topic) || from.is_some_and(before)
            })
    }

    /// What the client has acknowledged, and the broker has noted for good, does not come again.
    fn check_not_ended(&mut self, c: usize, serial: Serial, d: &Delivered) {
        let session = &self.sessions[c];
        let shared = session.subs.values().any(|sub| sub.shared);
        let Some(since) = session.ended_durably.get(&(d.id, serial)) else { return };
        let m = &self.messages[serial];
        // Of a message that was published twice, the other one may have got the same identifier
        // from a broker that was started since.
        let copies = if m.qos == QoS::ExactlyOnce { m.fresh } else { m.sends };
        let certain = copies == 1 && !shared && !m.will && m.last_send < *since;
        if d.dup && !d.retain && certain {
            let what = format!(
                "{} got {} again, though its acknowledgement was handled before a SUBACK",
                self.names[c],
                self.say(serial)
            );
            self.fail(2, what);
        }
    }

    /// The client has sent what ends a delivery: PUBACK, or PUBCOMP.
    pub fn finished(&mut self, c: usize, id: u16) {
        let session = &mut self.sessions[c];
        if let Some(Held { serial: Some(serial), retain: false, .. }) = session.held.remove(&id) {
            session.ended.push((id, serial));
        }
    }

    /// Packet identifiers in flight are unique [MQTT-2.2.1-4], what is repeated carries DUP
    /// [MQTT-3.3.1-1], and no more is in flight than the client takes [MQTT-3.3.4-9].
    fn check_identifier(&mut self, c: usize, link: usize, d: &Delivered, most: usize) {
        let before_crash = self.last_link_before_crash;
        let shared = self.sessions[c].subs.values().any(|sub| sub.shared);
        let held = &mut self.sessions[c].held;
        let before =
            held.insert(d.id, Held { serial: d.serial, qos: d.qos, link, retain: d.retain });
        let crashed = before.is_some_and(|before| before.link <= before_crash);
        let in_flight = held.values().filter(|held| held.link == link).count();
        let name = &self.names[c];
        let wrong = match before {
            _ if in_flight > most => Some((7, format!("{in_flight} in flight, at most {most}"))),
            None => None,
            Some(before) if before.serial != d.serial || before.qos != d.qos => {
                // A QoS 1 delivery leaves before it is durable; one through a group may have gone
                // to another member.
                let forgotten = before.link != link && (crashed || shared);
                let allowed = before.qos == QoS::AtLeastOnce && forgotten;
                let what = format!("identifier of message {:?} used again", before.serial);
                (!allowed).then_some((7, what))
            }
            Some(before) if before.link == link => Some((2, "repeated at once".to_owned())),
            Some(_) if !d.dup && !crashed && !shared => {
                Some((2, "repeated without DUP".to_owned()))
            }
            Some(_) => None,
        };
        if let Some((invariant, wrong)) = wrong {
            self.fail(invariant, format!("{name} got {d:?}: {wrong}"));
        }
    }

    /// Somebody who may have been subscribed when the message was on its way, and not with no
    /// local to a message of its own [MQTT-3.8.3-3].
    fn check_wanted(&mut self, c: usize, serial: Serial, d: &Delivered) {
        let m = &self.messages[serial];
        let Some(sent) = m.first_send else {
            return self.fail(2, format!("{} came before it was sent", self.say(serial)));
        };
        let mut wanted = false;
        let mut own = false;
        for sub in self.sessions[c].subs.values() {
            let in_force = |(_, to): &(u64, Option<u64>)| to.is_none_or(|to| to > sent);
            let there = d.retain || sub.maybe.iter().any(in_force);
            if there && matches(&sub.plain, &m.topic) {
                let of_own = sub.no_local && m.publisher == c && !d.retain;
                own |= of_own;
                wanted |= !of_own;
            }
        }
        if !wanted {
            let why = if own { "in spite of no local" } else { "without a subscription" };
            let what = format!("{} got {} {why}", self.names[c], self.say(serial));
            self.fail(4, what);
        }
    }

    fn count(&mut self, c: usize, serial: Serial, d: &Delivered) {
        let crashes = self.crashes;
        let m = &self.messages[serial];
        // A repetition of QoS 2 is no new message; one of QoS 1 may be.
        let fresh = if m.qos == QoS::ExactlyOnce { m.fresh } else { m.sends };
        let session = &mut self.sessions[c];
        let shared = session.subs.values().any(|s| s.shared && matches(&s.plain, &m.topic));
        let first = !session.got.contains_key(&serial);
        let count = session.got.entry(serial).or_default();
        let (n, most) = match d.qos {
            QoS::ExactlyOnce => {
                count.once += 1;
                (count.once, m.fresh)
            }
            QoS::AtLeastOnce => {
                count.plain += u32::from(!d.dup);
                (count.plain, fresh + crashes)
            }
            QoS::AtMostOnce => {
                count.at_most_once += 1;
                (count.at_most_once, fresh + crashes)
            }
        };
        let key = (m.publisher, m.topic.clone(), m.qos, d.qos);
        let last = *session.last.get(&key).unwrap_or(&serial);
        session.last.insert(key, last.max(serial));
        if n > most && !(shared && d.qos != QoS::ExactlyOnce) {
            let what = format!(
                "{} got {} {n} times with QoS {}, at most {most} are right",
                self.names[c],
                self.say(serial),
                d.qos as u8
            );
            return self.fail(2, what);
        }
        let later = &self.messages[last];
        let m = &self.messages[serial];
        let wrong = first && !shared && !m.will && last > serial;
        if wrong && Some(m.last_send) < later.first_send && self.was_meant_for(c, m) {
            let what =
                format!("{} got {} after {}", self.names[c], self.say(serial), self.say(last));
            self.fail(3, what);
        }
    }

    /// One member of a group has got it; QoS 2 no other one may get.
    fn group_got(&mut self, c: usize, serial: Serial, d: &Delivered) {
        let m = &self.messages[serial];
        // A session that ends with its connection takes with it that it has got a message.
        let durable = self.sessions[c].expiry_least() > 0;
        let mut wrong = None;
        for (filter, sub) in &self.sessions[c].subs {
            if !sub.shared || !matches(&sub.plain, &m.topic) {
                continue;
            }
            let group = self.groups.entry(filter.clone()).or_default();
            group.due.remove(&serial);
            let got = group.got.entry(serial).or_default();
            *got += u32::from(d.qos == QoS::ExactlyOnce && durable);
            if *got > m.fresh {
                wrong = Some(filter.clone());
            }
        }
        if let Some(filter) = wrong {
            let what = format!("{filter}: {} came to members twice", self.say(serial));
            self.fail(2, what);
        }
    }
}
