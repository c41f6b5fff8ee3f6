//! What was published and what arrived, checked as it happens, so that it stays small.

use std::collections::BTreeSet;

use whimbrel_client::{PublishError, QoS};

use crate::Failed;

/// Violations that are told.
const MOST_TOLD: usize = 10;

/// A client of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) qos: QoS,
    /// Its session outlives its connections.
    pub(super) is_kept: bool,
    /// A subscriber that acknowledges by itself.
    pub(super) manual_ack: bool,
    /// A publisher whose process is killed.
    pub(super) crashes: bool,
}

impl Role {
    const fn new(qos: QoS, is_kept: bool) -> Role {
        Role { qos, is_kept, manual_ack: false, crashes: false }
    }

    pub(super) fn publishers() -> Vec<Role> {
        let qualities = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        qualities
            .into_iter()
            .flat_map(|qos| [Role::new(qos, true), Role::new(qos, false)])
            .collect()
    }

    pub(super) fn crashing() -> [Role; 2] {
        let qualities = [QoS::AtLeastOnce, QoS::ExactlyOnce];
        qualities.map(|qos| Role { crashes: true, ..Role::new(qos, true) })
    }

    pub(super) fn subscribers() -> Vec<Role> {
        let manual = Role { manual_ack: true, ..Role::new(QoS::AtLeastOnce, true) };
        let mut roles = Role::publishers();
        roles.push(manual);
        roles
    }
}

/// All publishers, all subscribers, and what has come from each to each.
pub(super) struct Ledger {
    publishers: Vec<Published>,
    subscribers: Vec<Role>,
    /// For each subscriber one for each publisher.
    streams: Vec<Vec<Stream>>,
    /// A broker that is killed may send QoS 0 again, of what it had not acknowledged.
    broker_dies: bool,
    violations: Vec<String>,
    received: u64,
    repeated: u64,
}

struct Published {
    role: Role,
    /// Messages are numbered from 1; so many were taken by the client.
    taken: u64,
    /// So many outcomes are known.
    known: u64,
    /// The last that arrived.
    last_arrived: u64,
    /// Those of which nobody knows whether they arrived.
    given_up: BTreeSet<u64>,
    has_ended: bool,
}

#[derive(Default)]
struct Stream {
    last: u64,
    /// Left out before `last`.
    missing: BTreeSet<u64>,
}

impl Ledger {
    pub(super) fn new(publishers: Vec<Role>, subscribers: Vec<Role>, broker_dies: bool) -> Ledger {
        let streams = |_: &Role| publishers.iter().map(|_| Stream::default()).collect();
        Ledger {
            streams: subscribers.iter().map(streams).collect(),
            publishers: publishers.into_iter().map(Published::new).collect(),
            subscribers,
            broker_dies,
            violations: Vec::new(),
            received: 0,
            repeated: 0,
        }
    }

    /// The client has taken the next message of a publisher.
    pub(super) fn handle_taken(&mut self, publisher: usize) {
        self.publishers[publisher].taken += 1;
    }

    /// What became of the next message of a publisher; outcomes are waited for in order.
    pub(super) fn handle_outcome(&mut self, publisher: usize, outcome: Result<(), PublishError>) {
        let from = &mut self.publishers[publisher];
        from.known += 1;
        let number = from.known;
        match outcome {
            Ok(()) => from.last_arrived = number,
            Err(error) if from.role.may_give_up(&error) => {
                from.given_up.insert(number);
            }
            Err(error) => self.violate(format!("publisher {publisher}: {number}: {error}")),
        }
    }

    /// Nobody knows whether the client had taken the next message when its process was killed.
    pub(super) fn handle_uncertain(&mut self, publisher: usize) {
        let from = &mut self.publishers[publisher];
        from.taken += 1;
        from.known += 1;
        from.given_up.insert(from.known);
    }

    /// A publisher takes no more messages, and all outcomes are known.
    pub(super) fn handle_end(&mut self, publisher: usize) {
        self.publishers[publisher].has_ended = true;
    }

    /// A subscriber has taken a message.
    pub(super) fn handle_received(&mut self, subscriber: usize, publisher: usize, number: u64) {
        self.received += 1;
        let (from, to) = (self.publishers[publisher].role, self.subscribers[subscriber]);
        let stream = &mut self.streams[subscriber][publisher];
        let last = stream.last;
        if number > last {
            if from.loses_nothing_to(to) {
                stream.missing.extend(last + 1..number);
            }
            stream.last = number;
            if number > last + 1 && from.loses_nothing_to(to) && !from.may_lose() {
                self.violate(format!("{publisher} to {subscriber}: {number} after {last}: lost"));
            }
        } else if stream.missing.contains(&number) {
            self.violate(format!("{publisher} to {subscriber}: {number} after {last}: order"));
        } else if from.repeats_to(to) || (self.broker_dies && from.repeats_as_qos_0_to(to)) {
            self.repeated += 1;
        } else {
            self.violate(format!("{publisher} to {subscriber}: {number} after {last}: doubled"));
        }
    }

    fn violate(&mut self, what: String) {
        if self.violations.len() < MOST_TOLD {
            self.violations.push(what);
        }
    }

    /// Whether all has come that is to come.
    pub(super) fn is_complete(&self) -> bool {
        let mut all = self.streams.iter().zip(&self.subscribers);
        self.publishers.iter().all(|from| from.has_ended)
            && all.all(|(streams, to)| {
                let mut each = streams.iter().zip(&self.publishers);
                each.all(|(stream, from)| {
                    !from.role.loses_nothing_to(*to) || stream.last >= from.last_arrived
                })
            })
    }

    /// Fails if something was lost, doubled or out of order.
    pub(super) fn check(&self) -> Result<(), Failed> {
        let mut found = self.violations.clone();
        for (subscriber, streams) in self.streams.iter().enumerate() {
            for (publisher, (stream, from)) in streams.iter().zip(&self.publishers).enumerate() {
                // Outcomes may still be on their way.
                let arrived =
                    |number: &&u64| **number <= from.known && !from.given_up.contains(number);
                if let Some(number) = stream.missing.iter().find(arrived) {
                    found.push(format!("{publisher} to {subscriber}: {number} arrived: lost"));
                }
            }
        }
        if found.is_empty() { Ok(()) } else { Err(found.join("; ").into()) }
    }

    /// Grows whenever something happens.
    pub(super) fn progress(&self) -> u64 {
        let of = |from: &Published| from.taken + from.known;
        self.received + self.publishers.iter().map(of).sum::<u64>()
    }

    /// Published, given up, received and repeated.
    pub(super) fn totals(&self) -> [u64; 4] {
        let given_up = |from: &Published| from.given_up.len() as u64;
        let given_up: u64 = self.publishers.iter().map(given_up).sum();
        let known: u64 = self.publishers.iter().map(|from| from.known).sum();
        [known - given_up, given_up, self.received, self.repeated]
    }

    /// Who is how far.
    pub(super) fn describe(&self) -> String {
        let publishers = self.publishers.iter().map(|from| {
            let Role { qos, is_kept, .. } = from.role;
            format!("QoS {} kept {is_kept}: {} of {}", qos as u8, from.known, from.taken)
        });
        let subscribers = self.streams.iter().zip(&self.subscribers).map(|(streams, to)| {
            let last: Vec<u64> = streams.iter().map(|stream| stream.last).collect();
            format!("QoS {} kept {}: {last:?}", to.qos as u8, to.is_kept)
        });
        publishers.chain(subscribers).collect::<Vec<_>>().join("; ")
    }
}

impl Published {
    const fn new(role: Role) -> Published {
        let given_up = BTreeSet::new();
        Published { role, taken: 0, known: 0, last_arrived: 0, given_up, has_ended: false }
    }
}

impl Role {
    /// Whether a publisher may be told this: QoS 0 is lost with its connection, and QoS 2 with its
    /// session.
    fn may_give_up(self, error: &PublishError) -> bool {
        match error {
            PublishError::ConnectionLost => self.qos == QoS::AtMostOnce,
            PublishError::SessionLost => self.qos == QoS::ExactlyOnce && !self.is_kept,
            _ => false,
        }
    }

    /// Whether some messages of a publisher may never arrive.
    fn may_lose(self) -> bool {
        self.crashes
            || self.qos == QoS::AtMostOnce
            || (self.qos == QoS::ExactlyOnce && !self.is_kept)
    }

    /// Whether what is acknowledged to this publisher arrives at the subscriber in any case.
    fn loses_nothing_to(self, to: Role) -> bool {
        self.qos > QoS::AtMostOnce && to.qos > QoS::AtMostOnce && to.is_kept
    }

    /// Whether the publisher sends again what the subscriber may have got at QoS 0.
    fn repeats_as_qos_0_to(self, to: Role) -> bool {
        self.qos > QoS::AtMostOnce && to.qos == QoS::AtMostOnce
    }

    /// Whether the subscriber may get a message of this publisher twice.
    fn repeats_to(self, to: Role) -> bool {
        self.qos == QoS::AtLeastOnce || self.qos.min(to.qos) == QoS::AtLeastOnce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QOS_1: Role = Role::new(QoS::AtLeastOnce, true);
    const QOS_2: Role = Role::new(QoS::ExactlyOnce, true);

    fn received(from: Role, to: Role, numbers: &[u64]) -> Result<(), Failed> {
        let mut ledger = Ledger::new(vec![from], vec![to], false);
        for number in numbers {
            ledger.handle_taken(0);
            ledger.handle_outcome(0, Ok(()));
            ledger.handle_received(0, 0, *number);
        }
        ledger.check()
    }

    #[test]
    fn what_is_in_order_is_fine() {
        assert!(received(QOS_2, QOS_2, &[1, 2, 3]).is_ok());
    }

    #[test]
    fn duplicates_are_for_qos_1() {
        assert!(received(QOS_2, QOS_2, &[1, 2, 2]).is_err());
        assert!(received(QOS_1, QOS_2, &[1, 2, 1, 2, 3]).is_ok());
        assert!(received(QOS_2, QOS_1, &[1, 2, 2]).is_ok());
        assert!(received(Role::new(QoS::AtMostOnce, true), QOS_2, &[1, 1]).is_err());
        assert!(received(QOS_2, Role::new(QoS::AtMostOnce, true), &[1, 1]).is_err());
    }

    #[test]
    fn what_is_left_out_is_lost() {
        assert!(received(QOS_1, QOS_1, &[1, 3]).is_err());
        assert!(received(QOS_1, Role::new(QoS::AtLeastOnce, false), &[1, 3]).is_ok());
        assert!(received(Role::new(QoS::AtMostOnce, true), QOS_1, &[1, 3]).is_ok());
    }

    #[test]
    fn a_lost_session_is_no_excuse_for_others() {
        let clean = Role::new(QoS::ExactlyOnce, false);
        let mut ledger = Ledger::new(vec![clean], vec![QOS_2], false);
        for outcome in [Ok(()), Err(PublishError::SessionLost), Ok(())] {
            ledger.handle_taken(0);
            ledger.handle_outcome(0, outcome);
        }
        ledger.handle_received(0, 0, 1);
        ledger.handle_end(0);
        assert!(!ledger.is_complete());
        ledger.handle_received(0, 0, 3);
        assert!(ledger.is_complete());
        assert!(ledger.check().is_ok());
        assert_eq!(ledger.totals(), [2, 1, 2, 0]);
        let mut ledger = Ledger::new(vec![QOS_2], vec![QOS_2], false);
        ledger.handle_taken(0);
        ledger.handle_outcome(0, Err(PublishError::SessionLost));
        assert!(ledger.check().is_err());
    }

    #[test]
    fn after_a_crash_one_message_is_uncertain() {
        let mut ledger = Ledger::new(vec![Role::crashing()[1]], vec![QOS_2], false);
        ledger.handle_taken(0);
        ledger.handle_outcome(0, Ok(()));
        ledger.handle_uncertain(0);
        ledger.handle_received(0, 0, 3);
        assert!(ledger.check().is_err(), "1 was taken");
        let mut ledger = Ledger::new(vec![Role::crashing()[1]], vec![QOS_2], false);
        ledger.handle_uncertain(0);
        ledger.handle_received(0, 0, 2);
        assert!(ledger.check().is_ok());
    }

    #[test]
    fn what_comes_late_is_out_of_order() {
        let clean = Role::new(QoS::ExactlyOnce, false);
        let mut ledger = Ledger::new(vec![clean], vec![QOS_2], false);
        ledger.handle_received(0, 0, 2);
        assert!(ledger.check().is_ok());
        ledger.handle_received(0, 0, 1);
        assert!(ledger.check().is_err());
    }
}
