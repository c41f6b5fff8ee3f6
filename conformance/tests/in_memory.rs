//! All tests against the broker's core in memory, with a clock that the tests move; and the tests
//! themselves tested, against brokers with faults.

#[path = "memory/faults.rs"]
mod faults;
#[path = "memory/faulty.rs"]
mod faulty;
#[path = "memory/world.rs"]
mod world;

use std::collections::BTreeSet;

use faulty::Faulty;
use whimbrel_broker_core::Config;
use whimbrel_conformance::outcome::Stop;
use whimbrel_conformance::runner;
use world::InMemory;

/// A packet above the broker's limit must be possible.
fn config() -> Config {
    Config { max_packet_size_bytes: 1024 * 1024, ..Config::default() }
}

fn run(shards: u16, config: &Config) {
    let runs = runner::select("", None);
    let finished = runner::run_all(&runs, 2, true, || InMemory::new(shards, config.clone()));
    let mut failures = String::new();
    for (run, outcome) in &finished {
        match outcome {
            Ok(()) => {}
            Err(Stop::Failed(why)) => {
                failures += &format!("FAILED  {}\n        {why}\n", run.name())
            }
            Err(Stop::Skipped(why)) => println!("skipped {}: {why}", run.name()),
        }
    }
    assert_eq!(finished.len(), runs.len());
    assert!(failures.is_empty(), "with {shards} shards:\n{failures}");
}

#[test]
fn the_core_conforms_with_one_shard() {
    run(1, &config());
}

/// What crosses shards takes another way.
#[test]
fn the_core_conforms_with_three_shards() {
    run(3, &config());
}

/// Limits that a client has to keep to, all of them low.
#[test]
fn the_core_conforms_with_tight_limits() {
    let tight = Config {
        max_packet_size_bytes: 70_000,
        max_connect_size_bytes: 70_000,
        receive_maximum: 5,
        max_inflight: 10,
        topic_alias_maximum: 2,
        max_keep_alive_s: 5,
        max_session_expiry_s: 3600,
        sys_interval_s: 1,
        client_state_messages: true,
        ..Config::default()
    };
    run(1, &tight);
}

/// No test passes whatever the broker does, and no fault of the list goes unnoticed.
#[test]
fn every_test_notices_a_fault_and_every_fault_is_noticed() {
    let runs = runner::select("", None);
    // Otherwise a test of it would be skipped.
    let config = Config { max_keep_alive_s: 5, ..config() };
    // Those of WebSocket are skipped in memory.
    let mut blind: BTreeSet<String> =
        runner::run_all(&runs, 2, true, || InMemory::new(1, config.clone()))
            .iter()
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|(run, _)| run.name())
            .collect();
    assert!(blind.len() > runs.len() - 5, "most tests run in memory");
    let mut unnoticed = Vec::new();
    for fault in faults::FAULTS {
        let finished = runner::run_all(&runs, 2, true, || {
            Faulty::new(InMemory::new(1, config.clone()), fault)
        });
        let failed: Vec<String> = finished
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Err(Stop::Failed(_))))
            .map(|(run, _)| run.name())
            .collect();
        println!("{:4} tests notice: {}", failed.len(), fault.name);
        if failed.is_empty() {
            unnoticed.push(fault.name);
        }
        for name in failed {
            blind.remove(&name);
        }
    }
    assert!(unnoticed.is_empty(), "faults that no test notices: {unnoticed:#?}");
    assert!(blind.is_empty(), "tests that notice no fault: {blind:#?}");
}
