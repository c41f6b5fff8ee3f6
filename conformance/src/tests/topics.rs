//! Topic names and filters (section 4.7).

use super::prelude::*;

/// Subscribes to `filter` and publishes to each of `topics`; those of `expected` must come.
fn matches(t: &Bench<'_>, filter: &str, topics: &[&str], expected: &[&str]) -> Outcome {
    let mut s = t.subscriber(&t.topic(filter), AtLeastOnce)?;
    let mut p = t.connect()?;
    for topic in topics {
        p.publish(&t.topic(topic), topic, AtLeastOnce)?;
    }
    for topic in expected {
        s.expect_payload(topic).map_err(|stop| stop.of(format!("filter {filter:?}")))?;
    }
    s.expect_nothing().map_err(|stop| stop.of(format!("filter {filter:?}")))
}

pub const TESTS: &[Test] = &[
    all("a_hash_matches_its_parent_and_all_below", &["MQTT-4.7.1-1"], &["MQTT-4.7.1-2"], |t| {
        let topics = ["a", "a/b", "a/b/c", "a/", "b", "ab", "A", "b/a"];
        matches(t, "a/#", &topics, &["a", "a/b", "a/b/c", "a/"])?;
        matches(t, "#", &topics, &topics)
    }),
    all("a_plus_matches_one_level", &["MQTT-4.7.1-2"], &["MQTT-4.7.1-3"], |t| {
        let topics = ["a", "a/", "/a", "a/b", "b/a", "a/b/c", "a//c", "/"];
        matches(t, "+", &topics, &["a"])?;
        matches(t, "a/+", &topics, &["a/", "a/b"])?;
        matches(t, "+/+", &topics, &["a/", "/a", "a/b", "b/a", "/"])?;
        matches(t, "a/+/c", &topics, &["a/b/c", "a//c"])?;
        matches(t, "+/#", &topics, &topics)?;
        matches(t, "+/a/#", &topics, &["/a", "b/a"])
    }),
    all("topics_are_compared_as_they_are", &["MQTT-4.7.3-4"], &["MQTT-4.7.3-4"], |t| {
        // Case, spaces, empty levels, and the two ways to write é.
        let topics = ["a", "A", " a", "a ", "a/", "/a", "a//b", "a/b", "\u{e9}", "e\u{301}"];
        for topic in topics {
            matches(t, topic, &topics, &[topic])?;
        }
        Ok(())
    }),
    both(
        "a_leading_wildcard_does_not_match_dollar_topics",
        &["MQTT-4.7.2-1"],
        &["MQTT-4.7.2-1"],
        |t| {
            let topic = format!("${}/x", t.id("dollar"));
            let mut s = t.connect()?;
            s.subscribe("#", AtMostOnce)?;
            s.subscribe("+/x", AtMostOnce)?;
            s.subscribe("+/#", AtMostOnce)?;
            let mut p = t.connect()?;
            // Whether clients may publish there at all is the server's choice.
            p.send(Packet::Publish(Publish::new(&topic, b"hidden")))?;
            let _ = p.ping();
            let came = s.drain()?.into_iter().find(|message| message.topic.starts_with('$'));
            equal("message of a $ topic", came, None)
        },
    ),
    both("topics_have_many_levels", &["MQTT-4.7.1-1"], &["MQTT-4.7.1-2"], |t| {
        let deep = "l/".repeat(100);
        matches(t, &deep, &[&deep], &[&deep])?;
        matches(t, &"+/".repeat(100), &[&deep], &[&deep])?;
        matches(t, "l/#", &[&deep], &[&deep])
    }),
];
