//! Retained messages: what stands at a topic is its last acknowledged write, or a later one.
//!
//! Each topic under `r/` has one client that writes to it, so the order of writing is known.

use std::collections::BTreeMap;

use whimbrel_topics::matches;

use super::Check;
use crate::client::Serial;

impl Check {
    /// Whether a later write was acknowledged before `event`.
    fn is_superseded(&self, serial: Serial, event: u64) -> Option<Serial> {
        let m = &self.messages[serial];
        let later = self.by_topic.get(&m.topic).into_iter().flatten();
        later.copied().find(|other| {
            let other = &self.messages[*other];
            other.acked.is_some_and(|acked| acked < event)
                && other.first_send.is_some_and(|sent| sent > m.last_send)
        })
    }

    /// A retained message came because of a subscription.
    pub(super) fn retained_came(&mut self, c: usize, serial: Serial) {
        let m = &self.messages[serial];
        if !m.topic.starts_with("r/") {
            return;
        }
        let subs = self.sessions[c].subs.values();
        let subs = subs.filter(|sub| !sub.shared && matches(&sub.plain, &m.topic));
        let Some(since) = subs.flat_map(|sub| &sub.maybe).map(|(from, _)| *from).min() else {
            return;
        };
        if let Some(later) = self.is_superseded(serial, since) {
            let what = format!(
                "{} got {} as retained, but {} was acknowledged before it subscribed",
                self.names[c],
                self.say(serial),
                self.say(later)
            );
            self.fail(6, what);
        }
    }

    /// All is quiet: this is what stands there.
    pub fn check_retained(&mut self, there: &BTreeMap<String, Serial>) {
        let now = self.tick();
        let topics: Vec<String> =
            self.by_topic.keys().filter(|topic| topic.starts_with("r/")).cloned().collect();
        for topic in topics {
            let sent = |serial: &&Serial| self.messages[**serial].first_send.is_some();
            let writes: Vec<Serial> = self.by_topic[&topic].iter().filter(sent).copied().collect();
            let possible: Vec<Serial> =
                writes.iter().copied().filter(|w| self.is_superseded(*w, now).is_none()).collect();
            let acked = |w: &Serial| self.messages[*w].acked.is_some();
            let none_is_right =
                possible.iter().any(|w| self.messages[*w].empty) || !writes.iter().any(acked);
            let wrong = match there.get(&topic) {
                Some(serial) if !possible.contains(serial) => Some(self.say(*serial)),
                None if !none_is_right => Some("nothing".to_owned()),
                _ => None,
            };
            if let Some(wrong) = wrong {
                let right: Vec<String> = possible.iter().map(|w| self.say(*w)).collect();
                let what = format!("{topic} holds {wrong}, not one of {}", right.join(", "));
                self.fail(6, what);
            }
        }
    }

    /// Topics that something was ever retained at.
    pub fn retained_topics(&self) -> Vec<String> {
        self.by_topic.keys().cloned().collect()
    }
}
