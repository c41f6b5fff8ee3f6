//! Counts what happens in a bench. Times are parameters, in nanoseconds since its start.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::report::{Connections, Distribution, Messages, Timeline, histogram};
use super::stamp::{Arrival, Sequence, Stamp};

const SECOND_NS: u64 = 1_000_000_000;
/// Steps of a timeline, at most; it is made coarser before it gets longer.
const STEPS_MAX: usize = 200;

/// What the protocol promises about the messages of one publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// They come to each subscriber in order.
    Ordered,
    /// They come in any order: by a shared subscription, or retained under several topics.
    Unordered,
}

/// What has been counted so far.
pub struct Tally {
    delivery: Delivery,
    /// What each message is to be multiplied with to get its arrivals.
    copies: u64,
    /// Messages sent before are not measured.
    measured_from_ns: u64,
    /// When retained messages were asked for, which is what they come after.
    fetch_from_ns: Option<u64>,
    publishers: Vec<Publisher>,
    /// By subscriber if a message comes to several, otherwise by publisher.
    sequences: Vec<Sequence>,
    published: u64,
    received: u64,
    duplicates: u64,
    out_of_order: u64,
    last_arrival_ns: u64,
    latency_us: Histogram<u64>,
    timeline: Steps,
}

#[derive(Clone, Copy, Debug, Default)]
struct Publisher {
    sent: u64,
    /// At all its subscribers together.
    arrived: u64,
}

impl Tally {
    /// Nothing yet. A message comes once, or `copies` times if there is only one publisher.
    pub fn new(publishers: u32, copies: u32, delivery: Delivery) -> Tally {
        Tally {
            delivery,
            copies: u64::from(copies),
            measured_from_ns: 0,
            fetch_from_ns: None,
            publishers: vec![Publisher::default(); publishers as usize],
            sequences: vec![Sequence::default(); publishers.max(copies) as usize],
            published: 0,
            received: 0,
            duplicates: 0,
            out_of_order: 0,
            last_arrival_ns: 0,
            latency_us: histogram(),
            timeline: Steps::new(0),
        }
    }

    /// The begin of what is measured.
    pub fn measure_from(&mut self, now_ns: u64) {
        self.measured_from_ns = now_ns;
        self.last_arrival_ns = now_ns;
        self.timeline = Steps::new(now_ns);
    }

    /// Everything has been sent; now it is asked for, and its latency counts from here.
    pub fn fetch_from(&mut self, now_ns: u64) {
        self.fetch_from_ns = Some(now_ns);
        self.last_arrival_ns = now_ns;
        self.timeline = Steps::new(now_ns);
    }

    /// The stamp of this publisher's next message, which is sent now.
    pub fn publish(&mut self, publisher: u32, now_ns: u64) -> Stamp {
        let mut stamp = Stamp { publisher, sequence: 0, sent_ns: now_ns };
        if let Some(publisher) = self.publishers.get_mut(publisher as usize) {
            stamp.sequence = publisher.sent;
            publisher.sent += 1;
        }
        if now_ns >= self.measured_from_ns {
            self.published += 1;
        }
        stamp
    }

    /// Whether this publisher has fewer than `window` messages under way.
    pub fn has_room(&self, publisher: u32, window: u64) -> bool {
        let Some(publisher) = self.publishers.get(publisher as usize) else { return false };
        publisher.sent * self.copies < publisher.arrived + window * self.copies
    }

    /// A payload has come to a subscriber. The publisher, if it was new.
    pub fn receive(&mut self, subscriber: u32, payload: &[u8], now_ns: u64) -> Option<u32> {
        let stamp = Stamp::read(payload)?;
        let publisher = self.publishers.get_mut(stamp.publisher as usize)?;
        let index = if self.copies > 1 { subscriber } else { stamp.publisher };
        match self.sequences.get_mut(index as usize)?.take(stamp.sequence) {
            Arrival::Duplicate => {
                self.duplicates += 1;
                return None;
            }
            Arrival::Late if self.delivery == Delivery::Ordered => self.out_of_order += 1,
            Arrival::Late | Arrival::InOrder => {}
        }
        publisher.arrived += 1;
        self.last_arrival_ns = self.last_arrival_ns.max(now_ns);
        if stamp.sent_ns >= self.measured_from_ns {
            self.received += 1;
            let since_ns = self.fetch_from_ns.unwrap_or(stamp.sent_ns);
            self.latency_us.saturating_record(now_ns.saturating_sub(since_ns) / 1000);
            self.timeline.count(now_ns);
        }
        Some(stamp.publisher)
    }

    /// Of all publishers and all time.
    pub fn sent(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.sent).sum()
    }

    /// Of all publishers and all time.
    pub fn arrived(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.arrived).sum()
    }

    /// Messages that have not come (yet).
    pub fn missing(&self) -> u64 {
        (self.sent() * self.copies).saturating_sub(self.arrived())
    }

    /// The figures, and received messages over time.
    pub fn figures(&self) -> (Messages, Timeline) {
        let since = |from_ns, to_ns: u64| seconds(to_ns.saturating_sub(from_ns));
        let fetch_from_ns = self.fetch_from_ns.unwrap_or(self.measured_from_ns);
        let elapsed_s = since(fetch_from_ns, self.last_arrival_ns);
        let sent_in_s = match self.fetch_from_ns {
            Some(fetch_from_ns) => since(self.measured_from_ns, fetch_from_ns),
            None => elapsed_s,
        };
        let ordered = self.delivery == Delivery::Ordered;
        let messages = Messages {
            published: Some(self.published),
            received: Some(self.received),
            lost: Some(self.missing()),
            duplicates: Some(self.duplicates),
            out_of_order: ordered.then_some(self.out_of_order),
            elapsed_s: Some(elapsed_s),
            published_per_s: Some(per_second(self.published, sent_in_s)),
            messages_per_s: Some(per_second(self.received, elapsed_s)),
            latency_us: Some(Distribution::new(&self.latency_us)),
        };
        (messages, self.timeline.figures())
    }
}

/// Connections as they are made.
pub struct ConnectTally {
    start_ns: u64,
    last_ns: u64,
    accepted: u64,
    disconnected: u64,
    refusals: BTreeMap<String, u64>,
    connect_us: Histogram<u64>,
    timeline: Steps,
}

impl ConnectTally {
    /// None yet.
    pub fn new(now_ns: u64) -> ConnectTally {
        ConnectTally {
            start_ns: now_ns,
            last_ns: now_ns,
            accepted: 0,
            disconnected: 0,
            refusals: BTreeMap::new(),
            connect_us: histogram(),
            timeline: Steps::new(now_ns),
        }
    }

    /// CONNACK has come.
    pub fn accept(&mut self, since_ns: u64, now_ns: u64) {
        self.accepted += 1;
        self.last_ns = now_ns;
        self.connect_us.saturating_record(now_ns.saturating_sub(since_ns) / 1000);
        self.timeline.count(now_ns);
    }

    /// There will be none, and why.
    pub fn refuse(&mut self, reason: String) {
        *self.refusals.entry(reason).or_default() += 1;
    }

    /// One that was accepted is gone.
    pub fn disconnect(&mut self) {
        self.disconnected += 1;
    }

    /// How many were accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The figures, and connections over time.
    pub fn figures(&self) -> (Connections, Timeline) {
        let elapsed_s = seconds(self.last_ns.saturating_sub(self.start_ns));
        let connections = Connections {
            connections: self.accepted,
            connections_per_s: per_second(self.accepted, elapsed_s),
            refused: self.refusals.values().sum(),
            refusals: self.refusals.clone(),
            disconnected: self.disconnected,
            connect_us: Distribution::new(&self.connect_us),
        };
        (connections, self.timeline.figures())
    }
}

/// Counts over time.
struct Steps {
    start_ns: u64,
    step_ns: u64,
    counts: Vec<u64>,
}

impl Steps {
    fn new(start_ns: u64) -> Steps {
        Steps { start_ns, step_ns: SECOND_NS / 20, counts: Vec::new() }
    }

    fn count(&mut self, now_ns: u64) {
        let elapsed_ns = now_ns.saturating_sub(self.start_ns);
        while elapsed_ns / self.step_ns >= STEPS_MAX as u64 {
            self.step_ns *= 2;
            self.counts = self.counts.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        let index = (elapsed_ns / self.step_ns) as usize;
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
    }

    fn figures(&self) -> Timeline {
        Timeline { step_s: seconds(self.step_ns), counts: self.counts.clone() }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS as f64
}

fn per_second(count: u64, elapsed_s: f64) -> f64 {
    if elapsed_s > 0.0 { count as f64 / elapsed_s } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(stamp: Stamp) -> Vec<u8> {
        let mut payload = vec![0; 64];
        stamp.write(&mut payload);
        payload
    }

    #[test]
    fn what_was_sent_in_the_warm_up_is_not_measured_but_must_not_be_lost() {
        let mut tally = Tally::new(2, 1, Delivery::Ordered);
        tally.measure_from(1000);
        let early = tally.publish(0, 999);
        let (first, second) = (tally.publish(0, 1000), tally.publish(1, 2000));
        assert_eq!(tally.receive(0, &payload(early), 2_000_000), Some(0));
        assert_eq!(tally.receive(0, &payload(first), 5_001_000), Some(0));
        let (messages, timeline) = tally.figures();
        assert_eq!((messages.published, messages.received), (Some(2), Some(1)));
        assert_eq!(messages.lost, Some(1));
        // In steps of the histogram.
        assert!((5000..5005).contains(&messages.latency_us.unwrap().max));
        assert_eq!(timeline.counts, [1]);
        tally.receive(0, &payload(second), 6_000_000);
        assert_eq!(tally.figures().0.lost, Some(0));
    }

    #[test]
    fn repetitions_and_disorder_are_counted_for_each_subscriber() {
        let mut tally = Tally::new(1, 2, Delivery::Ordered);
        let stamps: Vec<_> = (0..3).map(|now_ns| payload(tally.publish(0, now_ns))).collect();
        for (subscriber, order) in [(0, &[0, 2, 1, 1][..]), (1, &[0, 1, 2])] {
            for index in order {
                tally.receive(subscriber, &stamps[*index], 9);
            }
        }
        let messages = tally.figures().0;
        assert_eq!((messages.received, messages.lost), (Some(6), Some(0)));
        assert_eq!((messages.duplicates, messages.out_of_order), (Some(1), Some(1)));
    }

    #[test]
    fn subscribers_that_share_see_repetitions_of_each_other() {
        let mut tally = Tally::new(1, 1, Delivery::Unordered);
        let stamps: Vec<_> = (0..3).map(|now_ns| payload(tally.publish(0, now_ns))).collect();
        for (subscriber, index) in [(0, 1), (1, 0), (2, 2), (0, 0)] {
            tally.receive(subscriber, &stamps[index], 9);
        }
        let messages = tally.figures().0;
        assert_eq!((messages.received, messages.duplicates), (Some(3), Some(1)));
        assert_eq!(messages.out_of_order, None);
    }

    #[test]
    fn what_is_fetched_counts_from_when_it_was_asked_for() {
        let mut tally = Tally::new(1, 1, Delivery::Ordered);
        tally.measure_from(0);
        let stamp = payload(tally.publish(0, 10));
        tally.fetch_from(SECOND_NS / 2);
        tally.receive(0, &stamp, SECOND_NS);
        let messages = tally.figures().0;
        assert!((500_000..501_000).contains(&messages.latency_us.unwrap().max));
        assert_eq!((messages.published_per_s, messages.messages_per_s), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn a_window_closes_and_opens() {
        let mut tally = Tally::new(1, 2, Delivery::Ordered);
        let stamps = [tally.publish(0, 1), tally.publish(0, 2)].map(payload);
        assert!(!tally.has_room(0, 2) && tally.has_room(0, 3));
        tally.receive(0, &stamps[0], 9);
        assert!(tally.has_room(0, 2));
        assert_eq!(tally.missing(), 3);
    }

    #[test]
    fn what_is_not_of_the_bench_is_ignored() {
        let mut tally = Tally::new(1, 1, Delivery::Ordered);
        assert_eq!(tally.receive(0, b"hello", 1), None);
        let foreign = Stamp { publisher: 7, sequence: 0, sent_ns: 0 };
        assert_eq!(tally.receive(0, &payload(foreign), 1), None);
        assert_eq!(tally.arrived(), 0);
    }

    #[test]
    fn a_long_timeline_gets_coarser() {
        let mut steps = Steps::new(0);
        for second in 0..100 {
            (0..second).for_each(|_| steps.count(second * SECOND_NS));
        }
        let timeline = steps.figures();
        assert!(timeline.counts.len() <= STEPS_MAX && timeline.step_s > 0.05);
        assert_eq!(timeline.counts.iter().sum::<u64>(), 99 * 100 / 2);
    }

    #[test]
    fn connections_are_counted_by_what_became_of_them() {
        let mut tally = ConnectTally::new(0);
        tally.accept(0, 2_000_000);
        tally.accept(0, SECOND_NS);
        tally.refuse("not authorized".into());
        tally.disconnect();
        let connections = tally.figures().0;
        assert_eq!((connections.connections, connections.refused), (2, 1));
        assert_eq!((connections.disconnected, connections.connections_per_s), (1, 2.0));
    }
}
