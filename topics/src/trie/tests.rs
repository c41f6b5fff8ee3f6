use proptest::prelude::*;

use super::*;
use crate::filter::matches;
use crate::routes::{SessionRef, SubscriptionOptions};
use crate::subscribers::Subscriber;

const WHO: SessionRef = SessionRef { shard: 0, session: 1 };

fn add(trie: &mut Trie, filter: &str, seed: &Seed) {
    let subscriber = Subscriber::new(WHO, SubscriptionOptions::default());
    trie.add(filter, seed, |subscribers| subscribers.subscribe(subscriber));
}

fn remove(trie: &mut Trie, filter: &str, seed: &Seed) -> bool {
    trie.remove(filter, seed, |subscribers| subscribers.unsubscribe(WHO))
}

fn found(trie: &Trie, topic: &str, seed: &Seed) -> (usize, usize) {
    let mut found = 0;
    let steps = trie.walk(topic, seed, |subscribers| found += usize::from(!subscribers.is_empty()));
    (found, steps)
}

fn live(trie: &Trie) -> usize {
    trie.nodes.len() - trie.free.len() - 1
}

/// Panics unless the invariants of all nodes hold.
fn check(trie: &Trie) {
    assert_eq!(trie.children.len(), live(trie));
    for (id, node) in trie.nodes.iter().enumerate() {
        let id = id as u32;
        if trie.free.contains(&id) {
            continue;
        }
        let children: Vec<u32> =
            trie.children.iter().copied().filter(|&child| trie.node(child).parent == id).collect();
        assert_eq!(node.children / ONE_CHILD, children.len() as u32);
        assert_eq!(node.children_xor, children.iter().fold(0, |xor, child| xor ^ child));
        let has = |level: &[u8]| {
            children.iter().any(|&child| first_level(trie.node(child).label.as_bytes()) == level)
        };
        assert_eq!(node.children & HAS_PLUS != 0, has(PLUS));
        assert_eq!(node.children & HAS_HASH != 0, has(HASH));
        assert!(id == ROOT || !node.subscribers.is_empty() || children.len() >= 2);
    }
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "+", "+", "$a", "a-level-that-is-not-inline"])
}

fn filter() -> impl Strategy<Value = String> {
    (prop::collection::vec(level(), 1..6), any::<bool>()).prop_map(|(mut levels, all)| {
        if all {
            levels.push("#");
        }
        levels.join("/")
    })
}

proptest! {
    #[test]
    fn finds_what_matches_and_keeps_its_shape(
        changes in prop::collection::vec((any::<bool>(), filter()), 1..60),
        topics in prop::collection::vec(filter(), 1..8),
    ) {
        let seed = Seed::new(7);
        let mut trie = Trie::new();
        let mut model = std::collections::BTreeSet::new();
        for (adds, filter) in changes {
            if filter.is_empty() {
                continue;
            }
            if adds {
                add(&mut trie, &filter, &seed);
                model.insert(filter);
            } else {
                prop_assert_eq!(remove(&mut trie, &filter, &seed), model.remove(&filter));
            }
            check(&trie);
            prop_assert!(live(&trie) <= 2 * model.len());
            for topic in &topics {
                let topic = topic.replace(['+', '#'], "b");
                let expected = model.iter().filter(|filter| matches(filter, &topic)).count();
                prop_assert_eq!(found(&trie, &topic, &seed).0, expected, "{}", topic);
            }
        }
        for filter in &model {
            prop_assert!(remove(&mut trie, filter, &seed));
            check(&trie);
        }
        prop_assert!(trie.is_empty());
        prop_assert_eq!(trie.nodes.len(), 1);
    }
}

#[test]
fn the_longest_filters_cost_linear_steps() {
    let seed = Seed::new(1);
    let mut trie = Trie::new();
    let levels = 32_767;
    let plus = "+/".repeat(levels);
    let letters = "a/".repeat(levels);
    let slashes = "/".repeat(65_533);
    let mixed = "+/a/".repeat(levels / 2);
    for filter in [&plus, &mixed, &format!("{letters}#"), &format!("{slashes}/+")] {
        add(&mut trie, filter, &seed);
    }
    check(&trie);
    // Matches `+/+/...` and `a/a/.../#`.
    let (matching, steps) = found(&trie, &letters, &seed);
    assert_eq!(matching, 2);
    assert!(steps < 5 * levels, "{steps}");
    let (matching, steps) = found(&trie, &format!("{slashes}/x"), &seed);
    assert_eq!(matching, 1);
    assert!(steps < 3 * 65_535, "{steps}");
    for filter in [&plus, &mixed, &format!("{letters}#"), &format!("{slashes}/+")] {
        assert!(remove(&mut trie, filter, &seed));
    }
    assert!(trie.is_empty());
}

/// One filter that ends at every level: a chain of nodes as deep as they come.
#[test]
fn a_deep_chain_is_walked_and_dropped_without_recursion() {
    let seed = Seed::new(1);
    let mut trie = Trie::new();
    let depth = 3_000;
    for levels in 1..depth {
        add(&mut trie, &format!("{}+", "a/".repeat(levels)), &seed);
    }
    check(&trie);
    let topic = "a/".repeat(depth) + "a";
    let (matching, steps) = found(&trie, &topic, &seed);
    assert_eq!(matching, 0);
    assert!(steps < 10 * depth, "{steps}");
}

/// Every combination of `a` and `+` on ten levels: a walk sees each node at most once.
#[test]
fn branching_costs_no_more_than_the_nodes_there_are() {
    let seed = Seed::new(1);
    let mut trie = Trie::new();
    for bits in 0..1024_u32 {
        let levels: Vec<&str> =
            (0..10).map(|bit| if bits >> bit & 1 == 1 { "+" } else { "a" }).collect();
        add(&mut trie, &levels.join("/"), &seed);
    }
    let (matching, steps) = found(&trie, "a/a/a/a/a/a/a/a/a/a", &seed);
    assert_eq!(matching, 1024);
    assert!(steps <= 2 * (live(&trie) + 1), "{steps} of {}", live(&trie));
    let (matching, steps) = found(&trie, &"a/".repeat(32_000), &seed);
    assert_eq!(matching, 0);
    assert!(steps <= 2 * (live(&trie) + 1), "{steps}");
}
