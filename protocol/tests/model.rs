//! The flows against naive models: whatever comes in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use whimbrel_codec::{PacketId, QoS};
use whimbrel_protocol::{
    AliasError, InFlight, IncomingAliases, IncomingIds, Outgoing, OutgoingAlias, OutgoingAliases,
};

fn id(n: u16) -> PacketId {
    PacketId::new(n).expect("not 0")
}

// ---- deliveries in flight

#[derive(Clone, Debug)]
enum Step {
    Begin(QoS),
    /// An acknowledgement for the delivery at this place of those in flight.
    PubAck(usize),
    PubRec(usize),
    PubRecError(usize),
    PubComp(usize),
    /// An acknowledgement that the peer made up.
    Stray(u16, u8),
    /// The deliveries whose number leaves this rest modulo 3 are given up.
    Extract(u32),
    Shrink,
    /// Deliveries that end at once: the identifiers move on.
    Skip(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)].prop_map(Step::Begin),
        3 => (0usize..40).prop_map(Step::PubAck),
        3 => (0usize..40).prop_map(Step::PubRec),
        1 => (0usize..40).prop_map(Step::PubRecError),
        3 => (0usize..40).prop_map(Step::PubComp),
        1 => (1u16..=u16::MAX, 0u8..4).prop_map(|(n, kind)| Step::Stray(n, kind)),
        1 => (0u32..3).prop_map(Step::Extract),
        1 => Just(Step::Shrink),
        1 => (0u16..16_000).prop_map(Step::Skip),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Published(u32),
    PublishedOnce(u32),
    Released,
}

fn is(delivery: &InFlight<u32>) -> Is {
    match delivery {
        InFlight::Published(n) => Is::Published(*n),
        InFlight::PublishedOnce(n) => Is::PublishedOnce(*n),
        InFlight::Released => Is::Released,
    }
}

/// The model: a list, searched from the front.
#[derive(Default)]
struct Model {
    list: Vec<(u16, Is)>,
    next: u32,
}

impl Model {
    fn at(&self, place: usize) -> Option<u16> {
        (!self.list.is_empty()).then(|| self.list[place % self.list.len()].0)
    }

    fn acknowledge(&mut self, out: &mut Outgoing<u32>, n: u16, kind: u8) {
        let found = self.list.iter().position(|&(id, _)| id == n);
        let was = found.map(|at| self.list[at].1);
        let mut ends = false;
        match kind {
            0 => {
                let expected = if let Some(Is::Published(d)) = was { Some(d) } else { None };
                ends = expected.is_some();
                assert_eq!(out.puback(id(n)), expected);
            }
            1 => {
                let expected = match was {
                    Some(Is::PublishedOnce(d)) => Some(Some(d)),
                    Some(Is::Released) => Some(None),
                    _ => None,
                };
                assert_eq!(out.pubrec(id(n)), expected);
                if let (Some(_), Some(at)) = (expected, found) {
                    self.list[at].1 = Is::Released;
                }
            }
            2 => {
                let expected = if let Some(Is::PublishedOnce(d)) = was { Some(d) } else { None };
                ends = expected.is_some();
                assert_eq!(out.pubrec_error(id(n)), expected);
            }
            _ => {
                ends = was == Some(Is::Released);
                assert_eq!(out.pubcomp(id(n)), ends);
            }
        }
        if let (true, Some(at)) = (ends, found) {
            self.list.remove(at);
        }
    }

    fn begin(&mut self, out: &mut Outgoing<u32>, qos: QoS) -> u16 {
        self.next += 1;
        let given = out.begin(qos, self.next).get();
        // [MQTT-2.2.1-3] Not while it is in flight.
        assert!(self.list.iter().all(|&(id, _)| id != given), "{given} is in flight");
        let is = if qos == QoS::ExactlyOnce { Is::PublishedOnce } else { Is::Published };
        self.list.push((given, is(self.next)));
        given
    }

    fn check(&self, out: &Outgoing<u32>) {
        // [MQTT-4.6.0-1] In the order of sending.
        let seen: Vec<(u16, Is)> = out.iter().map(|(id, d)| (id.get(), is(d))).collect();
        assert_eq!(seen, self.list);
        assert_eq!(usize::from(out.in_flight()), self.list.len());
        for &(n, was) in &self.list {
            assert_eq!(out.get(id(n)).map(is), Some(was));
        }
        assert!(!out.has_room(out.in_flight()));
    }
}

proptest! {
    #[test]
    fn outgoing_is_like_a_list(
        start in prop_oneof![Just(0u16), 65_500u16..65_534, any::<u16>()],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut out = Outgoing::default();
        let mut model = Model::default();
        for n in 0..start {
            let given = out.begin(QoS::AtLeastOnce, u32::from(n));
            out.puback(given);
        }
        for step in steps {
            match step {
                Step::Begin(qos) => {
                    if out.has_room(u16::MAX) {
                        model.begin(&mut out, qos);
                    }
                }
                Step::PubAck(at) => {
                    if let Some(n) = model.at(at) { model.acknowledge(&mut out, n, 0) }
                }
                Step::PubRec(at) => {
                    if let Some(n) = model.at(at) { model.acknowledge(&mut out, n, 1) }
                }
                Step::PubRecError(at) => {
                    if let Some(n) = model.at(at) { model.acknowledge(&mut out, n, 2) }
                }
                Step::PubComp(at) => {
                    if let Some(n) = model.at(at) { model.acknowledge(&mut out, n, 3) }
                }
                Step::Stray(n, kind) => model.acknowledge(&mut out, n, kind),
                Step::Extract(rest) => {
                    let matches = |d: Is| match d {
                        Is::Published(n) | Is::PublishedOnce(n) => n % 3 == rest,
                        Is::Released => false,
                    };
                    let taken: Vec<Is> =
                        out.extract(|d| matches(is(d))).iter().map(is).collect();
                    let expected: Vec<Is> =
                        model.list.iter().map(|&(_, d)| d).filter(|&d| matches(d)).collect();
                    prop_assert_eq!(taken, expected);
                    model.list.retain(|&(_, d)| !matches(d));
                }
                Step::Shrink => out.shrink(),
                Step::Skip(count) => {
                    for _ in 0..count {
                        if !out.has_room(u16::MAX) {
                            break;
                        }
                        let given = model.begin(&mut out, QoS::AtLeastOnce);
                        prop_assert!(out.puback(id(given)).is_some());
                        model.list.pop();
                    }
                }
            }
            model.check(&out);
        }
    }

    #[test]
    fn incoming_ids_are_like_a_set(
        steps in prop::collection::vec((any::<bool>(), 1u16..40, any::<bool>()), 1..300),
    ) {
        let (mut ids, mut model) = (IncomingIds::default(), BTreeSet::new());
        for (receive, n, high) in steps {
            let n = if high { u16::MAX - n } else { n };
            if receive {
                // [MQTT-4.3.3-10]
                prop_assert_eq!(ids.receive(id(n)), model.insert(n));
            } else {
                // [MQTT-4.3.3-11]
                prop_assert_eq!(ids.release(id(n)), model.remove(&n));
            }
            prop_assert_eq!(ids.contains(id(n)), model.contains(&n));
            prop_assert_eq!(ids.len(), model.len());
            prop_assert_eq!(ids.is_empty(), model.is_empty());
            prop_assert!(ids.iter().map(PacketId::get).eq(model.iter().copied()));
        }
    }

    /// A peer that applies the aliases always sees the true topic `[MQTT-3.1.2-26]`.
    #[test]
    fn aliases_stand_for_their_topics(
        maximum in prop_oneof![0u16..5, 60u16..70, Just(u16::MAX)],
        topics in prop::collection::vec(0usize..90, 1..400),
    ) {
        let mut sender = OutgoingAliases::new(maximum);
        let mut receiver = IncomingAliases::default();
        let mut known = 0;
        for at in topics {
            // Few of them often, many of them seldom; some too short to gain.
            let at = if at > 60 { at % 3 } else { at };
            let topic = if at % 10 == 9 { format!("{at}") } else { format!("topic/{at}") };
            let seen = match sender.choose(&topic) {
                OutgoingAlias::None => topic.clone(),
                OutgoingAlias::New(alias) => {
                    let seen = receiver.resolve(alias, maximum, &topic);
                    seen.expect("an alias within the maximum").to_owned()
                }
                OutgoingAlias::Known(alias) => {
                    known += 1;
                    receiver.resolve(alias, maximum, "").expect("an alias that was set").to_owned()
                }
            };
            prop_assert_eq!(seen, topic);
        }
        prop_assert!(maximum > 0 || known == 0);
    }

    /// `[MQTT-3.3.2-8]`, `[MQTT-3.3.2-9]`, `[MQTT-3.3.2-10]`
    #[test]
    fn incoming_aliases_are_like_a_map(
        maximum in 0u16..8,
        steps in prop::collection::vec((0u16..10, 0usize..5), 1..100),
    ) {
        let (mut aliases, mut model) = (IncomingAliases::default(), BTreeMap::new());
        for (alias, topic) in steps {
            let topic = ["", "a", "b/c", "d", "é"][topic];
            let expected = if alias == 0 || alias > maximum {
                Err(AliasError::Invalid)
            } else if topic.is_empty() {
                model.get(&alias).copied().ok_or(AliasError::Unknown)
            } else {
                model.insert(alias, topic);
                Ok(topic)
            };
            prop_assert_eq!(aliases.resolve(alias, maximum, topic), expected);
        }
    }
}

/// A topic that comes again and again is worth an alias, whatever else passes by.
#[test]
fn a_busy_topic_keeps_its_alias() {
    let mut sender = OutgoingAliases::new(2);
    assert_eq!(sender.choose("busy/topic"), OutgoingAlias::New(1));
    for at in 0..1000 {
        sender.choose(&format!("passing/{}", at % 500));
        assert_eq!(sender.choose("busy/topic"), OutgoingAlias::Known(1), "after {at}");
    }
}

/// A peer that never ends one delivery cannot make the ring grow without end.
#[test]
fn the_ring_has_an_end() {
    let mut out = Outgoing::default();
    let first = out.begin(QoS::AtLeastOnce, 0);
    let mut begun = 1;
    while out.has_room(u16::MAX) {
        let next = out.begin(QoS::AtLeastOnce, begun);
        assert_eq!(out.puback(next), Some(begun));
        begun += 1;
        assert!(begun < 65_535);
    }
    assert_eq!(out.in_flight(), 1);
    assert_eq!(out.puback(first), Some(0));
    assert!(out.has_room(1));
}
