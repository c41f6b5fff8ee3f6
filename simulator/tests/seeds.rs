//! A small budget of seeds: what everybody runs before a commit. Many more go through the binary.

use whimbrel_simulator::{Options, run};

/// Seeds of the everyday test.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=250;

#[test]
fn a_few_seeds() {
    for seed in SEEDS {
        let outcome = run(Options::new(seed));
        assert_eq!(outcome.violation, None, "whimbrel-simulator --seed {seed} --verbose");
    }
}

#[test]
fn a_seed_decides_everything() {
    for seed in [3, 17, 112] {
        let options = Options { trace_lines: usize::MAX, ..Options::new(seed) };
        let (one, other) = (run(options), run(options));
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.operations, other.operations, "seed {seed}");
        assert!(one.trace.len() > 300, "seed {seed}: {} lines", one.trace.len());
    }
}

/// A run without anything in it would find nothing either.
#[test]
fn there_is_something_to_see() {
    let (mut restarts, mut delivered) = (0, 0);
    for seed in 1..=50 {
        let outcome = run(Options::new(seed));
        restarts += outcome.restarts;
        delivered += outcome.delivered;
    }
    assert!(restarts > 200, "{restarts} restarts");
    assert!(delivered > 5000, "{delivered} deliveries");
}
