use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::filter::matches;

#[derive(Clone, Debug, PartialEq)]
struct Message {
    topic: String,
    payload: u32,
}

impl HasTopic for Message {
    fn topic(&self) -> &str {
        &self.topic
    }
}

fn message(topic: &str, payload: u32) -> Message {
    Message { topic: topic.into(), payload }
}

fn level() -> impl Strategy<Value = &'static str> {
    // Around `/` and `$` in byte order, and prefixes of each other.
    prop::sample::select(vec!["", "a", "ab", "a b", "b", "!", "$s", "é", "12345678", "123456789"])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn topic_filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![2 => level(), 1 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, all)| {
            if all {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

fn found(retained: &Retained<Message>, filter: &str) -> Vec<Message> {
    let mut found = Vec::new();
    let flow = retained.for_each_match(filter, &mut |message| {
        found.push(message.clone());
        ControlFlow::Continue(())
    });
    assert!(flow.is_continue());
    found
}

/// Panics unless the invariants hold.
fn check(retained: &Retained<Message>) {
    assert!(retained.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
    assert_eq!(retained.chunks.iter().map(Vec::len).sum::<usize>(), retained.len());
    let topics: Vec<_> = retained.chunks.iter().flatten().map(|m| by_levels(&m.topic)).collect();
    assert!(topics.is_sorted_by(|a, b| a < b));
}

fn by_levels(topic: &str) -> Vec<&[u8]> {
    topic.split('/').map(str::as_bytes).collect()
}

proptest! {
    #[test]
    fn exact_and_wildcard_look_ups(
        changes in prop::collection::vec((prop::bool::weighted(0.8), topic()), 0..120),
        filters in prop::collection::vec(topic_filter(), 1..20),
    ) {
        let mut retained = Retained::new();
        let mut model = BTreeMap::new();
        for (payload, (insert, topic)) in changes.iter().enumerate() {
            let new = message(topic, payload as u32);
            if *insert {
                prop_assert_eq!(retained.insert(new.clone()), model.insert(topic, new));
            } else {
                prop_assert_eq!(retained.remove(topic), model.remove(topic));
            }
            prop_assert_eq!(retained.get(topic), model.get(topic));
            prop_assert_eq!(retained.len(), model.len());
            check(&retained);
        }
        for filter in &filters {
            let mut expected: Vec<Message> =
                model.values().filter(|message| matches(filter, &message.topic)).cloned().collect();
            expected.sort_by(|a, b| by_levels(&a.topic).cmp(&by_levels(&b.topic)));
            prop_assert_eq!(found(&retained, filter), expected, "{}", filter);
        }
    }

    /// What is there all the time is seen once, what never is not at all, nothing twice.
    #[test]
    fn a_cursor_survives_changes(
        topics in prop::collection::vec(topic(), 0..80),
        changes in prop::collection::vec((any::<bool>(), topic()), 0..80),
        filter in topic_filter(),
        max in 1..6_usize,
        breaks in any::<bool>(),
    ) {
        let mut retained = Retained::new();
        for topic in &topics {
            retained.insert(message(topic, 0));
        }
        let mut always: BTreeSet<String> = topics.iter().cloned().collect();
        let mut ever = always.clone();
        let mut seen = Vec::new();
        let mut cursor = Cursor::default();
        let mut changes = changes.into_iter();
        loop {
            let mut visited = 0;
            let done = retained.scan(&filter, &mut cursor, max, &mut |message| {
                visited += 1;
                seen.push(message.topic.clone());
                if breaks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let most = if breaks { 1 } else { max };
            prop_assert!(visited <= most);
            if done {
                break;
            }
            if let Some((insert, topic)) = changes.next() {
                if insert {
                    retained.insert(message(&topic, 1));
                    ever.insert(topic);
                } else {
                    retained.remove(&topic);
                    always.remove(&topic);
                }
            }
        }
        prop_assert!(cursor.is_done());
        let distinct: BTreeSet<String> = seen.iter().cloned().collect();
        prop_assert_eq!(distinct.len(), seen.len());
        for topic in &distinct {
            prop_assert!(matches(&filter, topic) && ever.contains(topic));
        }
        for topic in always.iter().filter(|topic| matches(&filter, topic)) {
            prop_assert!(distinct.contains(topic), "{} of {}", topic, filter);
        }
    }
}

#[test]
fn chunks_keep_their_shape_whatever_order_messages_go_in() {
    let topic = |i: usize| format!("t/{i:03}");
    for step in [1, 7, 333] {
        let mut retained = Retained::new();
        for i in 0..500 {
            assert!(retained.insert(message(&topic(i * step % 500), 0)).is_none());
            check(&retained);
        }
        for i in 0..500 {
            // From the middle on, so that chunks become empty between full ones.
            let topic = topic((250 + i * step) % 500);
            assert!(retained.remove(&topic).is_some(), "{topic}");
            check(&retained);
        }
        assert!(retained.chunks.is_empty());
    }
}

/// Calls of `scan` with `max` = 1 count the messages that a filter looks at.
fn looked_at(retained: &Retained<Message>, filter: &str) -> usize {
    let mut cursor = Cursor::default();
    let mut calls = 1;
    while !retained.scan(filter, &mut cursor, 1, &mut |_| ControlFlow::Continue(())) {
        calls += 1;
    }
    calls
}

#[test]
fn a_selective_filter_looks_at_little() {
    let mut retained = Retained::new();
    for device in 0..1_000 {
        for sensor in 0..100 {
            retained.insert(message(&format!("site/{device}/{sensor}/value"), 0));
        }
    }
    assert_eq!(found(&retained, "site/500/+/value").len(), 100);
    assert!(looked_at(&retained, "site/500/+/value") <= 102);
    assert!(looked_at(&retained, "site/500/#") <= 102);
    // Skips from device to device instead of reading all 100,000.
    assert_eq!(found(&retained, "site/+/50/value").len(), 1_000);
    assert!(looked_at(&retained, "site/+/50/value") <= 4_000);
    assert!(looked_at(&retained, "other/#") <= 2);
    assert!(looked_at(&retained, "+/+/+/nothing") <= 200_100);
}

#[test]
fn the_longest_topics_and_filters() {
    let mut retained = Retained::new();
    let longest = ["a/".repeat(32_767), "/".repeat(65_535), "a".repeat(65_535)];
    for topic in &longest {
        retained.insert(message(topic, 0));
    }
    assert_eq!(found(&retained, &"+/".repeat(32_767)).len(), 1);
    assert_eq!(found(&retained, &format!("{}+", "+/".repeat(32_767))).len(), 1);
    assert_eq!(found(&retained, &format!("{}#", "+/".repeat(32_767))).len(), 2);
    assert_eq!(found(&retained, "#").len(), 3);
    for topic in &longest {
        assert_eq!(retained.remove(topic), Some(message(topic, 0)));
    }
    assert!(retained.is_empty());
}
