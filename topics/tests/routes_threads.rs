//! Subscribing and resolving at the same time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use whimbrel_topics::{Route, Routes, SessionRef, Stamp, SubscriptionOptions};

/// After `subscribe` or `unsubscribe` has returned, a cached route that is still current tells
/// what it did, although the cache is filled at any moment in between.
fn a_current_route_is_never_stale(filter: &str, topic: &str) {
    let routes = Routes::with_seed(5);
    let (finished, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let hash = routes.topic_hash(topic);
    let who = SessionRef { shard: 0, session: 7 };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut cache: (Stamp, Route) = Default::default();
            let mut filled = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let before = finished.load(Ordering::Acquire);
                let current = routes.is_current(hash, cache.0);
                let subscribed = !cache.1.local.is_empty();
                if !current {
                    cache.0 = routes.resolve(topic, hash, 0, &mut cache.1);
                    filled += 1;
                } else if finished.load(Ordering::Acquire) == before && before % 2 == 0 {
                    // Between changes: an even number is written before the next one starts.
                    assert_eq!(subscribed, before / 2 % 2 == 1, "after change {}", before / 2);
                }
            }
            filled
        });
        for change in 1..=300_000_u64 {
            finished.store(2 * change - 1, Ordering::SeqCst);
            if change % 2 == 1 {
                routes.subscribe(filter, None, who, SubscriptionOptions::default());
            } else {
                routes.unsubscribe(filter, None, who);
            }
            finished.store(2 * change, Ordering::SeqCst);
            for _ in 0..change % 100 {
                std::hint::spin_loop();
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().is_ok_and(|filled| filled > 10), "the threads never met");
    });
}

#[test]
fn literal() {
    a_current_route_is_never_stale("a/b", "a/b");
}

#[test]
fn wildcard() {
    a_current_route_is_never_stale("a/+", "a/b");
}

/// A filter without wildcard outdates its own topic, and hardly any other.
#[test]
fn invalidation_is_precise() {
    let routes = Routes::with_seed(5);
    let who = SessionRef { shard: 0, session: 1 };
    let mut route = Route::default();
    let topics: Vec<String> = (0..1_000).map(|i| format!("cmd/{i}")).collect();
    let stamps: Vec<(u64, Stamp)> = topics
        .iter()
        .map(|topic| {
            let hash = routes.topic_hash(topic);
            (hash, routes.resolve(topic, hash, 0, &mut route))
        })
        .collect();
    let outdated =
        || stamps.iter().filter(|(hash, stamp)| !routes.is_current(*hash, *stamp)).count();
    let options = SubscriptionOptions::default();
    routes.subscribe("cmd/1", None, who, options);
    assert!((1..20).contains(&outdated()), "{}", outdated());
    // A member that joins an existing group is seen without invalidation.
    routes.subscribe("other", Some("g"), who, options);
    let before = outdated();
    routes.subscribe("other", Some("g"), SessionRef { session: 2, ..who }, options);
    routes.set_connected("other", "g", who, false);
    assert_eq!(outdated(), before);
    routes.subscribe("x/+", None, who, options);
    assert_eq!(outdated(), topics.len());
}
