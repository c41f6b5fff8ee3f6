//! Wills: one for each connection that was lost, not before its delay; none after a DISCONNECT
//! that withdrew it.

use super::{Check, Closing, Fact};
use crate::client::Serial;

/// The broker may take so long to publish one that is due.
const SLACK_MS: u64 = 3000;

/// A will that a CONNECT has brought.
pub(super) struct Will {
    serial: Serial,
    client: usize,
    link: usize,
    delay_s: u32,
    /// CONNACK has come.
    armed: bool,
    /// The broker has accepted the connection.
    opened: bool,
    /// The client has sent DISCONNECT without will.
    withdrawing: bool,
    /// The client has sent another CONNECT.
    succeeded: bool,
    /// That CONNECT, or a session expiry before the delay, may have ended the session.
    hastened: bool,
    /// When the connection ended, at the earliest and at the latest, and the event.
    closed: Option<(u64, u64)>,
    closed_event: u64,
    /// It must not be published.
    withdrawn: bool,
    pub gone_durably: bool,
    /// Those who must get it have been told to wait for it, or nobody must.
    settled: bool,
}

impl Check {
    /// A CONNECT with this will is sent.
    pub fn will_sent(&mut self, c: usize, link: usize, serial: Serial, delay_s: u32) {
        self.publish_sent(serial, false);
        self.wills.push(Will {
            serial,
            client: c,
            link,
            delay_s,
            armed: false,
            opened: false,
            withdrawing: false,
            succeeded: false,
            hastened: false,
            closed: None,
            closed_event: 0,
            withdrawn: false,
            gone_durably: false,
            settled: false,
        });
    }

    fn wills_of(&mut self, c: usize) -> impl Iterator<Item = &mut Will> {
        self.wills.iter_mut().filter(move |will| will.client == c && !will.settled)
    }

    /// Any CONNECT is sent: it takes the place of a will that still waits.
    pub fn connect_replaces_will(&mut self, c: usize, clean: bool) {
        for will in self.wills_of(c) {
            will.succeeded = true;
            will.hastened |= clean;
        }
    }

    /// CONNACK came.
    pub fn will_armed(&mut self, c: usize, link: usize) {
        self.wills_of(c).filter(|will| will.link == link).for_each(|will| will.armed = true);
    }

    /// The broker has accepted the connection.
    pub fn will_opened(&mut self, c: usize, link: usize) {
        self.wills_of(c).filter(|will| will.link == link).for_each(|will| will.opened = true);
    }

    /// DISCONNECT without will is sent.
    pub fn will_withdrawing(&mut self, c: usize, link: usize) {
        self.wills_of(c).filter(|w| w.link == link).for_each(|will| will.withdrawing = true);
    }

    /// The broker has seen the connection end.
    pub fn will_closed(
        &mut self,
        c: usize,
        link: usize,
        closing: Closing,
        short: bool,
    ) -> Option<Fact> {
        let (event, wall) = (self.tick(), self.wall);
        let found = self
            .wills
            .iter_mut()
            .enumerate()
            .find(|(_, will)| will.client == c && will.link == link && will.closed.is_none());
        let (index, will) = found?;
        will.closed = Some((wall, wall));
        will.closed_event = event;
        will.hastened |= short;
        if matches!(closing, Closing::Normal(_)) {
            will.withdrawn = true;
            return Some(Fact::WillGone { will: index });
        }
        None
    }

    pub(super) fn wills_restarted(&mut self, now: (u64, u64), wall: u64, crashed: bool) {
        let event = self.event;
        if wall < now.1 {
            // One that was published and is not on disk may wait again, and be replaced.
            for session in &mut self.sessions {
                session.due.retain(|serial, _| !self.messages[*serial].will);
            }
        }
        for will in &mut self.wills {
            let expiry_s = self.sessions[will.client].expiry_least();
            // What came before the clock was set back seems to come too early.
            will.hastened |= (crashed && expiry_s <= will.delay_s) || wall < now.1;
            match &mut will.closed {
                None if crashed && (will.opened || will.armed) => {
                    will.closed = Some(now);
                    will.closed_event = event;
                }
                None => {}
                Some((first, last)) => {
                    *first = (*first).min(wall);
                    if crashed {
                        *last = (*last).max(now.1);
                    }
                }
            }
            if crashed && will.withdrawn && !will.gone_durably {
                // Nobody knows.
                will.withdrawn = false;
                will.withdrawing = true;
            }
        }
    }

    /// Those that must have been published by now.
    pub(super) fn wills_due(&mut self) {
        let (wall, started) = (self.wall, self.started_wall);
        for index in 0..self.wills.len() {
            let will = &self.wills[index];
            let Some((_, last)) = will.closed.filter(|_| !will.settled) else { continue };
            let by = (last + u64::from(will.delay_s) * 1000).max(started) + SLACK_MS;
            if wall < by {
                continue;
            }
            let must = will.armed && !will.withdrawing && !will.succeeded && !will.withdrawn;
            let (serial, since) = (will.serial, will.closed_event);
            self.wills[index].settled = true;
            if must {
                self.make_due(serial, since);
            }
        }
    }

    /// The session's expiry may come before the delay of its will.
    pub fn ends_before(&self, c: usize, delay_s: u32) -> bool {
        self.sessions[c].expiry_least() <= delay_s
    }

    /// A will came to somebody.
    pub(super) fn will_came(&mut self, c: usize, serial: Serial, retain: bool) {
        let wall = self.wall;
        let Some(will) = self.wills.iter().find(|will| will.serial == serial) else { return };
        let early = will.closed.is_some_and(|(first, _)| {
            !will.hastened && !will.succeeded && wall < first + u64::from(will.delay_s) * 1000
        });
        let wrong = match will.closed {
            _ if retain => None,
            _ if will.withdrawn => Some("after it was withdrawn"),
            None => Some("while its connection is open"),
            Some(_) if early => Some("before its delay"),
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            let what = format!("{} got {} {wrong}", self.names[c], self.say(serial));
            self.fail(5, what);
        }
    }

    /// The longest delay of wills that wait, in seconds.
    pub fn longest_will_delay_s(&self) -> u32 {
        self.wills.iter().filter(|will| !will.settled).map(|will| will.delay_s).max().unwrap_or(0)
    }

    /// The delay of the will of a connection.
    pub fn will_delay_s(&self, link: usize) -> u32 {
        self.wills.iter().rev().find(|will| will.link == link).map_or(0, |will| will.delay_s)
    }
}
