//! What came out, for people and for scripts.

use std::io::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

use super::Bench;
use crate::args::Setup;

/// Percentiles that are reported.
const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// What was measured.
pub struct Result {
    pub published: u64,
    /// New messages that came to subscribers; or connections made.
    pub received: u64,
    pub lost: u64,
    pub duplicates: u64,
    /// From the first publication to the last arrival.
    pub elapsed: Duration,
    pub latency_us: Histogram<u64>,
    pub memory_bytes: Option<u64>,
}

impl Result {
    /// Of the scenario `connect`.
    pub fn connections((elapsed, latency_us): (Duration, Histogram<u64>)) -> Result {
        Result {
            published: 0,
            received: latency_us.len(),
            lost: 0,
            duplicates: 0,
            elapsed,
            latency_us,
            memory_bytes: None,
        }
    }

    fn rate(&self) -> f64 {
        self.received as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// An empty record of microseconds, up to a minute.
pub fn histogram() -> Histogram<u64> {
    #[allow(clippy::expect_used)]
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order")
}

/// Writes a table or JSON to stdout.
pub fn print(args: &Bench, setup: &Setup<'_>, result: &Result, memory_before: Option<u64>) {
    let text = if args.json {
        json(args, setup, result, memory_before)
    } else {
        table(args, setup, result, memory_before)
    };
    // A reader that has seen enough is no error.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn json(args: &Bench, setup: &Setup<'_>, result: &Result, before: Option<u64>) -> String {
    let latency: serde_json::Map<_, _> = PERCENTILES
        .iter()
        .map(|p| (format!("p{p}"), json!(result.latency_us.value_at_percentile(*p))))
        .chain([("max".to_string(), json!(result.latency_us.max()))])
        .collect();
    let mut value = json!({
        "scenario": args.scenario.name(),
        "broker": setup.address.to_string(),
        "version": setup.version as u8,
        "clients": args.clients,
        "elapsed_s": result.elapsed.as_secs_f64(),
        "latency_us": latency,
        "memory_bytes": result.memory_bytes,
        "memory_before_bytes": before,
    });
    let more = if args.scenario == super::Scenario::Connect {
        json!({ "connections": result.received, "connections_per_s": result.rate() })
    } else {
        json!({
            "qos": args.qos.0 as u8,
            "payload_bytes": args.payload,
            "rate": args.rate,
            "published": result.published,
            "received": result.received,
            "lost": result.lost,
            "duplicates": result.duplicates,
            "messages_per_s": result.rate(),
        })
    };
    if let (Some(value), Some(more)) = (value.as_object_mut(), more.as_object()) {
        value.extend(more.clone());
    }
    value.to_string()
}

fn table(args: &Bench, setup: &Setup<'_>, result: &Result, before: Option<u64>) -> String {
    let mut rows = vec![("broker", setup.address.to_string())];
    if args.scenario == super::Scenario::Connect {
        rows.push(("scenario", "connect".into()));
        rows.push(("connections", result.received.to_string()));
        rows.push(("rate", format!("{:.0} connections/s", result.rate())));
    } else {
        let (clients, qos, payload) = (args.clients, args.qos.0 as u8, args.payload);
        let name = args.scenario.name();
        rows.push(("scenario", format!("{name}, {clients} clients, QoS {qos}, {payload} bytes")));
        rows.push(("published", result.published.to_string()));
        rows.push(("received", result.received.to_string()));
        rows.push(("lost", result.lost.to_string()));
        rows.push(("duplicates", result.duplicates.to_string()));
        rows.push(("throughput", format!("{:.0} messages/s received", result.rate())));
    }
    let latencies = PERCENTILES
        .map(|p| format!("p{p} {}", milliseconds(result.latency_us.value_at_percentile(p))))
        .join("  ");
    rows.push(("latency", format!("{latencies}  max {}", milliseconds(result.latency_us.max()))));
    let memory = match (result.memory_bytes, before) {
        (Some(bytes), Some(before)) => format!("{} (before: {})", size(bytes), size(before)),
        (Some(bytes), None) => size(bytes),
        (None, _) => "unknown: the broker has no $SYS topic for it; try --pid".into(),
    };
    rows.push(("memory", memory));
    let lines: Vec<_> = rows.iter().map(|(name, value)| format!("{name:<12}{value}")).collect();
    lines.join("\n")
}

fn milliseconds(us: u64) -> String {
    format!("{:.3} ms", us as f64 / 1e3)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}
