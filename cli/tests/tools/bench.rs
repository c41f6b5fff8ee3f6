use std::path::PathBuf;

use serde_json::Value;

use crate::broker::{Broker, free_port};
use crate::tool::{on, run};

/// Without warm-up, and in a second.
fn bench(broker: &Broker, words: &[&str]) -> Value {
    let usual = ["--json", "--duration", "1", "--warm-up", "0", "-n", "3"];
    let out = on(broker, "bench", &[&usual, words].concat());
    serde_json::from_str(&out.ok()).unwrap()
}

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("whimbrel-bench-{}-{name}", std::process::id()))
}

#[test]
fn every_scenario_counts_its_messages() {
    let broker = Broker::start();
    for (scenario, fan) in [("pairs", 1), ("fan-out", 3), ("fan-in", 1), ("shared", 1)] {
        for (qos, version) in [("0", "5"), ("1", "5"), ("2", "311")] {
            if scenario == "shared" && version == "311" {
                continue;
            }
            let words = [scenario, "-q", qos, "--version", version, "--rate", "300"];
            let result = bench(&broker, &words);
            let published = result["published"].as_u64().unwrap();
            assert!((150..=300).contains(&published), "{result}");
            assert_eq!(result["received"], published * fan, "{result}");
            assert_eq!((&result["lost"], &result["duplicates"]), (&0.into(), &0.into()));
            assert!(result["latency_us"]["p99"].as_u64().unwrap() > 0, "{result}");
            let steps = result["timeline"]["counts"].as_array().unwrap();
            let counted: u64 = steps.iter().map(|count| count.as_u64().unwrap()).sum();
            assert_eq!(counted, published * fan);
        }
    }
}

#[test]
fn lone_messages_and_requests_wait_for_each_other() {
    let broker = Broker::start();
    for scenario in ["latency", "request"] {
        let result = bench(&broker, &[scenario, "-q", "1", "-V", "5"]);
        let published = result["published"].as_u64().unwrap();
        assert!(published > 3, "{result}");
        assert_eq!((&result["lost"], &result["out_of_order"]), (&0.into(), &0.into()));
        assert_eq!(result["received"], published);
    }
    // Ten a second are far from what it can do.
    let paced = bench(&broker, &["latency", "--rate", "10"]);
    assert!(paced["published"].as_u64().unwrap() <= 10, "{paced}");
}

#[test]
fn retained_messages_are_stored_fetched_and_removed() {
    let broker = Broker::start();
    for qos in ["0", "1"] {
        let result = bench(&broker, &["retained", "--messages", "500", "-q", qos]);
        for key in ["published", "received"] {
            assert_eq!(result[key], 500, "{result}");
        }
        assert_eq!(result["lost"], 0);
        assert!(result["published_per_s"].as_f64().unwrap() > 0.0);
    }
    let left = on(&broker, "sub", &["-t", "bench/#", "-W", "1", "-v"]);
    assert_eq!((left.code, left.stdout.as_str()), (Some(27), ""));
}

#[test]
fn connections_are_counted() {
    let broker = Broker::start();
    let pid = broker.pid().to_string();
    let result = bench(&broker, &["connect", "--pid", &pid, "--rate", "100"]);
    assert_eq!((&result["connections"], &result["refused"]), (&3.into(), &0.into()));
    assert_eq!(result["connect_us"]["count"], 3);
    assert!(result["memory_bytes"].as_u64().unwrap() > 100_000, "{result}");
    assert!(result["cpu_s"].is_number() && result["published"].is_null(), "{result}");
}

#[test]
fn refusals_are_told() {
    // The limit is one of the listener that was configured last.
    let broker = Broker::with("max_connections 2\nallow_anonymous true");
    let unix = broker.unix.display().to_string();
    let out = run("bench", &["connect", "-n", "5", "--json", "--unix", &unix]);
    let result: Value = serde_json::from_str(&out.stdout).unwrap();
    let (connections, refused) = (&result["connections"], &result["refused"]);
    assert_eq!(connections.as_u64().unwrap() + refused.as_u64().unwrap(), 5, "{result}");
    assert!(refused.as_u64().unwrap() >= 1, "{result}");
    let told: u64 = result["refusals"].as_object().unwrap().values().flat_map(Value::as_u64).sum();
    assert_eq!(refused, told);
    out.fails(1, "connections were refused");
    run("bench", &["pairs", "-n", "5", "--unix", &unix]).fails(1, "Error: ");
    let port = free_port().to_string();
    run("bench", &["connect", "-p", &port]).fails(1, "is a broker running there?");
}

#[test]
fn a_table_without_json() {
    let broker = Broker::start();
    let out = on(&broker, "bench", &["--duration", "1", "-n", "1"]).ok();
    for row in [
        "scenario      pairs, 1 client, QoS 0, 64 bytes, MQTT 3.1.1\n",
        "lost          0\n",
        "out of order  0\n",
        "throughput    ",
        "latency p99.9 ",
    ] {
        assert!(out.contains(row), "{out}");
    }
}

#[test]
fn results_are_kept_compared_and_drawn() {
    let broker = Broker::start();
    let (first, svg, png) = (file("first.json"), file("plot.svg"), file("plot.png"));
    let path = |path: &PathBuf| path.display().to_string();
    let (first_path, svg_path, png_path) = (path(&first), path(&svg), path(&png));
    let short = ["--duration", "1", "--warm-up", "0", "-n", "2", "--rate", "500"];
    let kept = ["-o", &first_path, "--name", "first & last"];
    on(&broker, "bench", &[&short[..], &kept].concat()).ok();
    let compared = ["--compare", &first_path, "--plot", &svg_path];
    let table = on(&broker, "bench", &[&short[..], &compared].concat()).ok();
    let names = table.lines().find(|line| line.starts_with("name")).unwrap();
    assert!(names.contains("first & last") && names.contains(&broker.port.to_string()));
    let text = std::fs::read_to_string(&svg).unwrap();
    for label in ["first &amp; last", "Latency by percentile", "99 %", "time", "per second"] {
        assert!(text.contains(label), "{label} is missing");
    }
    on(&broker, "bench", &[&short[..], &["connect", "--plot", &png_path]].concat()).ok();
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
    for file in [first, svg, png] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn wrong_use_is_told_before_anything_is_measured() {
    let not_json = file("not.json");
    std::fs::write(&not_json, "{}").unwrap();
    let not_json = not_json.display().to_string();
    for (words, what) in [
        (&["--plot", "a.gif"][..], ".svg or .png"),
        (&["--compare", "/missing.json"], "cannot read /missing.json"),
        (&["--compare", &not_json], "not the result of a bench"),
        (&["--pid", "4294967295"], "/proc has no such process"),
        (&["-i", "x"], "use -I"),
        (&["--payload", "19"], "20..=16777216"),
    ] {
        run("bench", words).fails(1, what);
    }
    std::fs::remove_file(not_json).unwrap();
}

#[test]
fn every_key_of_the_result_is_documented() {
    let broker = Broker::start();
    let result = bench(&broker, &["pairs", "--rate", "100"]);
    let text = std::fs::read_to_string("../docs/bench.md").unwrap();
    let distribution = result["latency_us"].as_object().unwrap().keys();
    let keys: Vec<_> = result.as_object().unwrap().keys().chain(distribution).collect();
    assert!(keys.len() > 40, "{keys:?}");
    let missing: Vec<_> = keys.iter().filter(|key| !text.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/bench.md does not explain {missing:?}");
}

#[test]
fn other_transports_are_measured_too() {
    let broker = Broker::start();
    let url = format!("ws://127.0.0.1:{}/mqtt", broker.websocket_port);
    let unix = broker.unix.display().to_string();
    for (words, transport) in [(["-L", &url], "ws"), (["--unix", &unix], "unix")] {
        let usual = ["--json", "--duration", "1", "--warm-up", "0", "--rate", "100", "-q", "1"];
        let out = run("bench", &[&usual[..], &words].concat()).ok();
        let result: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&result["transport"], &result["lost"]), (&transport.into(), &0.into()));
        assert!(result["received"].as_u64().unwrap() > 50, "{result}");
    }
}
