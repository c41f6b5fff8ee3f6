//! Nanoseconds per operation with 100,000 subscriptions and a million retained messages.
//!
//! `cargo run --release -p whimbrel-topics --example speed`

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

use triomphe::ThinArc;
use whimbrel_topics::{Cursor, HasTopic, Retained, Route, Routes, SessionRef, SubscriptionOptions};

fn main() {
    routes();
    fan_out();
    retained(100_000);
    retained(1_000_000);
}

fn report(what: &str, count: usize, start: Instant) {
    println!("{what:<58} {:>8.0} ns", start.elapsed().as_nanos() as f64 / count as f64);
}

/// Visits 0..count in an order that defeats caches and prefetching.
fn shuffled(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |i| i * 611_953 % count)
}

fn routes() {
    let count = 100_000;
    let is_literal = |i: usize| i % 10 < 7;
    let filters: Vec<String> = (0..count)
        .map(|i| if is_literal(i) { format!("cmd/{i}") } else { format!("dev/{i}/+/x") })
        .collect();
    let topics: Vec<String> = (0..count)
        .map(|i| if is_literal(i) { format!("cmd/{i}") } else { format!("dev/{i}/a/x") })
        .collect();
    let routes = Routes::with_seed(1);
    for (what, literal) in [("subscribe, literal", true), ("subscribe, wildcard", false)] {
        let chosen: Vec<usize> = (0..count).filter(|&i| is_literal(i) == literal).collect();
        let start = Instant::now();
        for &i in &chosen {
            let who = SessionRef { shard: (i % 2) as u16, session: i as u32 };
            routes.subscribe(&filters[i], None, who, SubscriptionOptions::default());
        }
        report(what, chosen.len(), start);
    }
    let mut route = Route::default();
    for (what, literal) in
        [("resolve, literal matches", true), ("resolve, wildcard matches", false)]
    {
        let chosen: Vec<usize> = shuffled(count).filter(|&i| is_literal(i) == literal).collect();
        let start = Instant::now();
        for &i in &chosen {
            let hash = routes.topic_hash(&topics[i]);
            black_box(routes.resolve(&topics[i], hash, 0, &mut route));
            assert!(!route.is_empty());
        }
        report(what, chosen.len(), start);
    }
    let stamp = routes.resolve("cmd/0", routes.topic_hash("cmd/0"), 0, &mut route);
    let start = Instant::now();
    for topic in &topics {
        black_box(routes.is_current(routes.topic_hash(topic), stamp));
    }
    report("topic_hash and is_current", count, start);
    let start = Instant::now();
    for i in shuffled(count) {
        let who = SessionRef { shard: (i % 2) as u16, session: i as u32 };
        assert!(routes.unsubscribe(&filters[i], None, who));
    }
    report("unsubscribe, mixed", count, start);
}

fn fan_out() {
    let count = 100_000;
    let routes = Routes::with_seed(1);
    let start = Instant::now();
    for session in 0..count as u32 {
        let who = SessionRef { shard: 0, session };
        routes.subscribe("same/for/all", None, who, SubscriptionOptions::default());
    }
    report("subscribe, all to one filter", count, start);
    let hash = routes.topic_hash("same/for/all");
    let mut route = Route::default();
    let start = Instant::now();
    routes.resolve("same/for/all", hash, 0, &mut route);
    report("resolve it, per subscriber", route.local.len(), start);
    let who = SessionRef { shard: 0, session: 5 };
    routes.subscribe("#", None, who, SubscriptionOptions::default());
    let start = Instant::now();
    routes.resolve("same/for/all", hash, 0, &mut route);
    report("resolve it with one overlap, per subscriber", route.local.len(), start);
}

struct Message(ThinArc<(), u8>);

impl Message {
    fn new(topic: &str) -> Self {
        Self(ThinArc::from_header_and_slice((), topic.as_bytes()))
    }
}

impl HasTopic for Message {
    fn topic(&self) -> &str {
        std::str::from_utf8(&self.0.slice).unwrap_or_default()
    }

    fn topic_bytes(&self) -> &[u8] {
        &self.0.slice
    }
}

fn retained(count: usize) {
    println!("-- {count} retained");
    let topics: Vec<String> =
        (0..count).map(|i| format!("retained/{}/{}", i / 100, i % 100)).collect();
    let mut retained = Retained::new();
    let start = Instant::now();
    for topic in &topics {
        retained.insert(Message::new(topic));
    }
    report("insert in order, with making the message", count, start);
    let mut retained = Retained::new();
    let start = Instant::now();
    for i in shuffled(count) {
        retained.insert(Message::new(&topics[i]));
    }
    report("insert in random order, with making the message", count, start);
    let start = Instant::now();
    for i in shuffled(count) {
        retained.insert(Message::new(&topics[i]));
    }
    report("replace in random order", count, start);
    let start = Instant::now();
    for i in shuffled(count) {
        assert!(retained.get(&topics[i]).is_some());
    }
    report("get in random order", count, start);
    for filter in ["#", "retained/+/+", "retained/+/50", "retained/500/+"] {
        let start = Instant::now();
        let mut found = 0;
        let _ = retained.for_each_match(filter, &mut |message| {
            black_box(message);
            found += 1;
            ControlFlow::Continue(())
        });
        report(&format!("fetch {filter}, each of {found}"), found, start);
    }
    let start = Instant::now();
    let (mut cursor, mut found) = (Cursor::default(), 0);
    while !retained.scan("#", &mut cursor, 64, &mut |_| {
        found += 1;
        ControlFlow::Continue(())
    }) {}
    report("fetch # in steps of 64, each", found, start);
}
