//! What a bench has measured, as the JSON that `--json` writes and `--compare` reads.
//! `docs/bench.md` documents the keys.

use std::collections::BTreeMap;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::environment::Environment;
use crate::failure::Failure;

/// The value of the key `format`; changes when a key changes its meaning.
const FORMAT: &str = "whimbrel-bench 1";

/// All figures of one run. None: not measured, or not what the scenario is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    format: String,
    /// What plots and tables call the run.
    pub name: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    #[serde(flatten)]
    pub settings: Settings,
    #[serde(flatten)]
    pub connections: Connections,
    #[serde(flatten)]
    pub messages: Messages,
    #[serde(flatten)]
    pub broker_process: BrokerProcess,
    /// Messages received, or connections made, over time.
    pub timeline: Timeline,
    pub environment: Environment,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    pub scenario: String,
    /// Address of the broker, without credentials.
    pub broker: String,
    /// tcp, tls, ws, wss or unix.
    pub transport: String,
    /// Protocol version as CONNECT has it: 3, 4 (3.1.1) or 5.
    pub version: u8,
    pub clients: u32,
    pub publishers: u32,
    pub subscribers: u32,
    pub qos: u8,
    pub payload_bytes: u32,
    /// Messages (or connections) per second that were asked for; 0: as many as go.
    pub rate: u64,
    /// Messages of a publisher under way at one time, without a rate.
    pub window: u64,
    pub duration_s: u64,
    pub warm_up_s: u64,
    pub ramp_s: u64,
}

/// Of all connections that the bench made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connections {
    /// Accepted by the broker.
    pub connections: u64,
    /// From the first to the last, per second.
    pub connections_per_s: f64,
    /// Neither accepted nor answered in time, or refused.
    pub refused: u64,
    /// How many for which reason.
    pub refusals: BTreeMap<String, u64>,
    /// Accepted, and lost before the end.
    pub disconnected: u64,
    /// From the begin of the TCP connection to CONNACK.
    pub connect_us: Distribution,
}

/// Of the messages sent after the warm-up; `lost`, `duplicates` and `out_of_order` of all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Messages {
    pub published: Option<u64>,
    pub received: Option<u64>,
    pub lost: Option<u64>,
    pub duplicates: Option<u64>,
    pub out_of_order: Option<u64>,
    /// From the first publication to the last arrival.
    pub elapsed_s: Option<f64>,
    pub published_per_s: Option<f64>,
    /// Received, at all subscribers together.
    pub messages_per_s: Option<f64>,
    /// From publish to arrival; of requests, from the request to its response.
    pub latency_us: Option<Distribution>,
}

/// What the broker used, and the bench beside it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BrokerProcess {
    /// Before the first connection.
    pub memory_before_bytes: Option<u64>,
    /// At the end, with all connections open.
    pub memory_bytes: Option<u64>,
    /// User and system time of the broker while messages (or connections) were measured.
    pub cpu_s: Option<f64>,
    /// The same for each message received, or for each connection.
    pub cpu_us_per_message: Option<f64>,
    /// Processor time of the bench itself in the same time.
    pub bench_cpu_s: Option<f64>,
}

/// Counts in steps of equal length.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timeline {
    pub step_s: f64,
    pub counts: Vec<u64>,
}

/// Times in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Distribution {
    pub count: u64,
    pub min: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    #[serde(rename = "p99.9")]
    pub p99_9: u64,
    #[serde(rename = "p99.99")]
    pub p99_99: u64,
    pub max: u64,
    /// Percentile, and the time within which so many were.
    pub percentiles: Vec<(f64, u64)>,
    /// Upper end of a step, and how many were in it; twenty steps for each power of ten.
    pub histogram: Vec<(u64, u64)>,
}

impl Distribution {
    /// Of what was recorded in microseconds.
    pub fn new(recorded: &Histogram<u64>) -> Distribution {
        let at = |percentile| recorded.value_at_percentile(percentile);
        let mut histogram: BTreeMap<i32, u64> = BTreeMap::new();
        for step in recorded.iter_recorded() {
            let us = step.value_iterated_to().max(1) as f64;
            *histogram.entry((us.log10() * 20.0).ceil() as i32).or_default() +=
                step.count_since_last_iteration();
        }
        let upper = |step: i32| 10_f64.powf(f64::from(step) / 20.0).round() as u64;
        // A histogram without values has no minimum.
        let min = if recorded.is_empty() { 0 } else { recorded.min() };
        let percentiles = recorded.iter_quantiles(5);
        Distribution {
            count: recorded.len(),
            min,
            mean: (recorded.mean() * 10.0).round() / 10.0,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            max: recorded.max(),
            percentiles: percentiles
                .map(|step| (percent(step.quantile_iterated_to()), step.value_iterated_to()))
                .collect(),
            histogram: histogram.into_iter().map(|(step, count)| (upper(step), count)).collect(),
        }
    }
}

/// Without the digits that only binary fractions make.
fn percent(part: f64) -> f64 {
    (part * 1e8).round() / 1e6
}

/// An empty record of microseconds, up to a minute.
pub fn histogram() -> Histogram<u64> {
    #[allow(clippy::expect_used)]
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order")
}

impl Report {
    /// Without figures.
    pub fn new(name: String, settings: Settings) -> Report {
        Report {
            format: FORMAT.into(),
            name,
            started_at: jiff::Timestamp::now().round(jiff::Unit::Second).map_or_else(
                // Only the end of time cannot be rounded.
                |_| String::new(),
                |time| time.to_string(),
            ),
            settings,
            connections: Connections::default(),
            messages: Messages::default(),
            broker_process: BrokerProcess::default(),
            timeline: Timeline::default(),
            environment: Environment::default(),
        }
    }

    /// One that an earlier run has written.
    pub fn read(path: &Path) -> Result<Report, Failure> {
        let place = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read {place}: {error}")))?;
        let unusable = |what: String| {
            Failure::usage(format!(
                "{place}: {what}; give a file written by `whimbrel bench --json`"
            ))
        };
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| unusable(format!("not JSON: {error}")))?;
        match value.get("format").and_then(|format| format.as_str()) {
            Some(FORMAT) => {}
            Some(other) => return Err(unusable(format!("of another format, \"{other}\""))),
            None => return Err(unusable("not the result of a bench".into())),
        }
        serde_json::from_value(value).map_err(|error| unusable(error.to_string()))
    }

    /// One line.
    pub fn to_json(&self) -> String {
        // Only maps whose keys are no strings cannot be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether connections are what it is about.
    pub fn is_about_connections(&self) -> bool {
        self.messages.published.is_none()
    }

    /// The times that it is about, and what they are.
    pub fn times(&self) -> (&Distribution, &'static str) {
        match &self.messages.latency_us {
            Some(latency) if self.settings.scenario == "request" => (latency, "round trip"),
            Some(latency) => (latency, "latency"),
            None => (&self.connections.connect_us, "time to connect"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut recorded = histogram();
        (1..=1000).for_each(|us| recorded.record(us).unwrap());
        let mut report = Report::new("x".into(), Settings::default());
        report.messages.published = Some(1000);
        report.messages.latency_us = Some(Distribution::new(&recorded));
        report
    }

    #[test]
    fn distributions_tell_percentiles() {
        let latency = report().messages.latency_us.unwrap();
        assert_eq!((latency.count, latency.min, latency.max), (1000, 1, 1000));
        assert_eq!((latency.p50, latency.p90, latency.p99), (500, 900, 990));
        assert_eq!(latency.mean, 500.5);
        let counted: u64 = latency.histogram.iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 1000);
        assert_eq!(latency.histogram.last(), Some(&(1000, 109)));
        assert_eq!(latency.percentiles.last(), Some(&(100.0, 1000)));
        assert_eq!(Distribution::new(&histogram()).min, 0);
    }

    #[test]
    fn a_report_is_read_back() {
        let path = std::env::temp_dir().join(format!("whimbrel-report-{}", std::process::id()));
        std::fs::write(&path, report().to_json()).unwrap();
        let read = Report::read(&path).unwrap();
        assert_eq!(read.to_json(), report().to_json());
        for (text, what) in [
            ("{", "not JSON"),
            ("{}", "not the result of a bench"),
            ("{\"format\": \"whimbrel-bench 7\"}", "another format"),
            ("{\"format\": \"whimbrel-bench 1\"}", "missing field"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Report::read(&path).unwrap_err().message;
            assert!(message.contains(what), "{message}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Report::read(&path).unwrap_err().message.contains("cannot read"));
    }
}
