//! Who talks to whom: scenarios, and the topics and filters that make them.

use clap::ValueEnum;

use super::tally::{Delivery, Tally};

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Each publisher has one subscriber.
    Pairs,
    /// One publisher, many subscribers.
    FanOut,
    /// Many publishers, one subscriber.
    FanIn,
    /// Many publishers, and as many subscribers that share one subscription.
    Shared,
    /// Lone messages: each pair sends the next one only after the last has come.
    Latency,
    /// Requests and responses: each requester waits for the response of its responder.
    Request,
    /// Store retained messages, then fetch them all by one subscription.
    Retained,
    /// Only connect, many clients one after another.
    Connect,
}

impl Scenario {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Pairs => "pairs",
            Scenario::FanOut => "fan-out",
            Scenario::FanIn => "fan-in",
            Scenario::Shared => "shared",
            Scenario::Latency => "latency",
            Scenario::Request => "request",
            Scenario::Retained => "retained",
            Scenario::Connect => "connect",
        }
    }
}

/// The clients of a scenario: first the publishers, then the subscribers.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub publishers: u32,
    pub subscribers: u32,
    /// Clients that only connect.
    pub idle: u32,
    /// What all topics begin with.
    base: String,
}

impl Plan {
    /// With so many clients, as the flag counts them, below the topic `base`.
    pub fn new(scenario: Scenario, clients: u32, base: String) -> Plan {
        let (publishers, subscribers, idle) = match scenario {
            Scenario::Pairs | Scenario::Shared | Scenario::Latency | Scenario::Request => {
                (clients, clients, 0)
            }
            Scenario::FanOut => (1, clients, 0),
            Scenario::FanIn | Scenario::Retained => (clients, 1, 0),
            Scenario::Connect => (0, 0, clients),
        };
        Plan { scenario, publishers, subscribers, idle, base }
    }

    /// All of them together.
    pub fn clients(&self) -> u32 {
        self.publishers + self.subscribers + self.idle
    }

    /// Counts nothing yet.
    pub fn tally(&self) -> Tally {
        let copies = if self.scenario == Scenario::FanOut { self.subscribers } else { 1 };
        let delivery = match self.scenario {
            Scenario::Shared | Scenario::Retained => Delivery::Unordered,
            _ => Delivery::Ordered,
        };
        Tally::new(self.publishers, copies, delivery)
    }

    /// Where a publisher sends.
    pub fn topic(&self, publisher: u32) -> String {
        format!("{}/{publisher}", self.base)
    }

    /// Where a responder answers.
    pub fn response_topic(&self, publisher: u32) -> String {
        format!("{}/{publisher}/response", self.base)
    }

    /// What a subscriber asks for.
    pub fn filter(&self, subscriber: u32) -> String {
        match self.scenario {
            Scenario::Pairs | Scenario::Latency | Scenario::Request => self.topic(subscriber),
            Scenario::Shared => format!("$share/bench/{}/+", self.base),
            Scenario::FanOut | Scenario::FanIn | Scenario::Connect => format!("{}/+", self.base),
            Scenario::Retained => format!("{}/+/+", self.base),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic;

    #[test]
    fn every_publisher_is_heard_by_those_it_should_be() {
        let heard = |scenario, publisher: u32| {
            let plan = Plan::new(scenario, 3, "bench/1".into());
            let filters = (0..plan.subscribers).map(|subscriber| plan.filter(subscriber));
            let strip = |filter: String| filter.trim_start_matches("$share/bench/").to_string();
            let topic = plan.topic(publisher);
            filters.filter(|filter| topic::matches(&strip(filter.clone()), &topic)).count()
        };
        assert_eq!(heard(Scenario::Pairs, 1), 1);
        assert_eq!(heard(Scenario::Latency, 2), 1);
        assert_eq!(heard(Scenario::Request, 2), 1);
        assert_eq!(heard(Scenario::FanOut, 0), 3);
        assert_eq!(heard(Scenario::FanIn, 2), 1);
        assert_eq!(heard(Scenario::Shared, 0), 3);
    }

    #[test]
    fn responses_are_not_requests() {
        let plan = Plan::new(Scenario::Request, 2, "bench/1".into());
        assert!(!topic::matches(&plan.filter(0), &plan.response_topic(0)));
    }
}
