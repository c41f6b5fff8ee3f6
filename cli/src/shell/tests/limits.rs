//! Memory stays bounded, and the user is told.

use super::*;

fn limited(limits: Limits) -> Model {
    Model::new("mqtt://localhost".into(), limits, START_MS)
}

#[test]
fn topics_beyond_the_limit_are_counted_and_told() {
    let mut model = limited(Limits { nodes: 11, ..Limits::default() });
    for round in 0..3 {
        (0..20).for_each(|i| publish(&mut model, &format!("t{i:02}"), &[round]));
    }
    let root = model.topics.node(0);
    assert_eq!((root.topics, root.all.count(), model.topics.untracked()), (10, 60, 30));
    assert_eq!(model.topics.len(), 11);
    let text = "tree full (11): 30 messages not shown; x forgets all";
    assert!(seen(&mut model).contains(text), "{}", seen(&mut model));
    keys(&mut model, "x");
    publish(&mut model, "t19", b"1");
    assert!(model.topics.find("t19").is_some());
}

#[test]
fn a_topic_keeps_its_last_values() {
    let mut model = limited(Limits { values: 5, ..Limits::default() });
    (0..20).for_each(|i| publish(&mut model, "t", i.to_string().as_bytes()));
    let id = model.topics.find("t").unwrap();
    let kept: Vec<_> = model.topics.node(id).values.iter().map(|v| &*v.payload).collect();
    assert_eq!(kept, [b"15", b"16", b"17", b"18", b"19"]);
    assert!(!model.topics.is_short());
}

#[test]
fn the_memory_of_values_is_shared_and_bounded() {
    let limits = Limits { nodes: 1000, values: 50, payload_len: 4096, bytes: 1 << 20 };
    let mut model = limited(limits);
    let payload = [7; 5000];
    for _ in 0..20 {
        (0..100).for_each(|i| publish(&mut model, &format!("t/{i}"), &payload));
    }
    let values =
        || (0..100).map(|i| model.topics.node(model.topics.find(&format!("t/{i}")).unwrap()));
    let held: usize = values().flat_map(|node| &node.values).map(|v| v.heap_len()).sum();
    assert!(held <= limits.bytes, "{held}");
    assert!(values().all(|node| node.last().is_some_and(|last| last.len == 5000)));
    assert!(model.topics.is_short());
    // Beyond it each topic still has the beginning of its last value.
    (0..400).for_each(|i| publish(&mut model, &format!("u/{i}"), &payload));
    let id = model.topics.find("u/399").unwrap();
    assert_eq!(model.topics.node(id).last().unwrap().payload.len(), 256);
    let shown = screen(&mut model, 120, 24);
    assert!(shown.contains("values use 1 MiB, all that is allowed"), "{shown}");
    keys(&mut model, "/u/399<enter>j");
    assert!(screen(&mut model, 120, 24).contains("(the first 256 bytes kept)"));
}

#[test]
fn a_topic_of_many_levels_is_one_branch_of_64() {
    let mut model = limited(Limits::default());
    let deep = "/".repeat(65_000);
    publish(&mut model, &deep, b"1");
    assert_eq!(model.topics.len(), 65);
    let id = model.topics.find(&deep).unwrap();
    assert_eq!(model.topics.topic(id), deep);
    keys(&mut model, "E<end>");
    seen(&mut model);
}

#[test]
fn events_are_bounded() {
    let mut model = limited(Limits::default());
    (0..1000).for_each(|i| model.complain(format!("trouble {i}")));
    assert_eq!(model.events.len(), 100);
    assert_eq!(model.events.back().unwrap().1, "trouble 999");
}
