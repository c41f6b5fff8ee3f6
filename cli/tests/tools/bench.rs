use serde_json::Value;

use crate::broker::Broker;
use crate::tool::on;

fn bench(broker: &Broker, words: &[&str]) -> Value {
    let out = on(broker, "bench", &[&["--json", "--duration", "1", "-n", "3"], words].concat());
    serde_json::from_str(&out.ok()).unwrap()
}

#[test]
fn every_scenario_counts_its_messages() {
    let broker = Broker::start();
    for (scenario, fan) in [("pairs", 1), ("fan-out", 3), ("fan-in", 1)] {
        for (qos, version) in [("0", "311"), ("1", "5"), ("2", "311")] {
            let words = [scenario, "-q", qos, "--version", version, "--rate", "300"];
            let result = bench(&broker, &words);
            let published = result["published"].as_u64().unwrap();
            assert!((200..=300).contains(&published), "{result}");
            assert_eq!(result["received"], published * fan, "{result}");
            assert_eq!((&result["lost"], &result["duplicates"]), (&0.into(), &0.into()));
            assert!(result["latency_us"]["p99"].as_u64().unwrap() > 0, "{result}");
        }
    }
}

#[test]
fn connections_are_counted() {
    let broker = Broker::start();
    let pid = std::process::id().to_string();
    let result = bench(&broker, &["connect", "--pid", &pid]);
    assert_eq!(result["connections"], 3);
    assert!(result["memory_bytes"].as_u64().unwrap() > 100_000, "{result}");
}

#[test]
fn a_table_without_json() {
    let broker = Broker::start();
    let out = on(&broker, "bench", &["--duration", "1", "-n", "1"]).ok();
    for row in ["scenario    pairs, 1 clients", "lost        0", "throughput  ", "latency     p50"]
    {
        assert!(out.contains(row), "{out}");
    }
}
