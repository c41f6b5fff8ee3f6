//! Reports as text: one beneath the other for people, several side by side.

use super::report::Report;

/// A table of one report, or of several side by side.
pub fn table(reports: &[&Report]) -> String {
    let columns: Vec<Vec<(&str, String)>> = reports.iter().map(|report| rows(report)).collect();
    // In the order of their first appearance: scenarios differ in what they measure.
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in columns.iter().flatten() {
        if !names.contains(name) {
            names.push(name);
        }
    }
    if let [report] = reports
        && report.name == report.settings.broker
    {
        names.retain(|name| *name != "name");
    }
    let cell = |column: &Vec<(&str, String)>, name: &str| {
        let found = column.iter().find(|(of, _)| *of == name);
        found.map_or_else(|| "-".to_string(), |(_, value)| value.clone())
    };
    let mut lines: Vec<String> = names.iter().map(|name| format!("{name:<14}")).collect();
    for (index, column) in columns.iter().enumerate() {
        let cells: Vec<String> = names.iter().map(|name| cell(column, name)).collect();
        let last = index + 1 == columns.len();
        let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0) + 2;
        for (line, cell) in lines.iter_mut().zip(cells) {
            *line += &if last { cell } else { format!("{cell:<width$}") };
        }
    }
    lines.join("\n")
}

/// Name and value of all that is known.
fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("name", report.name.clone()),
        ("broker", report.settings.broker.clone()),
        ("scenario", scenario(report)),
    ];
    connections(report, &mut rows);
    messages(report, &mut rows);
    let (times, what) = report.times();
    for (name, us) in [
        ("latency p50", times.p50),
        ("latency p90", times.p90),
        ("latency p99", times.p99),
        ("latency p99.9", times.p99_9),
        ("latency max", times.max),
    ] {
        let unit = if what == "latency" { "" } else { what };
        rows.push((name, format!("{} {unit}", milliseconds(us)).trim_end().to_string()));
    }
    process(report, &mut rows);
    rows
}

/// What was done, in one line.
pub fn scenario(report: &Report) -> String {
    let settings = &report.settings;
    let version = match settings.version {
        3 => "3.1",
        4 => "3.1.1",
        _ => "5.0",
    };
    let clients = count(u64::from(settings.clients), "client");
    if report.is_about_connections() {
        return format!("{}, {clients}, MQTT {version}", settings.scenario);
    }
    let rate = match settings.rate {
        0 => String::new(),
        rate => format!(", {rate}/s"),
    };
    format!(
        "{}, {clients}, QoS {}, {} bytes{rate}, MQTT {version}",
        settings.scenario, settings.qos, settings.payload_bytes
    )
}

fn connections(report: &Report, rows: &mut Vec<(&'static str, String)>) {
    let connections = &report.connections;
    if report.is_about_connections() {
        rows.push(("connections", connections.connections.to_string()));
        rows.push(("rate", format!("{:.0} connections/s", connections.connections_per_s)));
    }
    if report.is_about_connections() || connections.refused > 0 {
        let reasons: Vec<String> = connections
            .refusals
            .iter()
            .map(|(reason, times)| format!("{times} {reason}"))
            .collect();
        let reasons =
            if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        rows.push(("refused", format!("{}{reasons}", connections.refused)));
    }
    if connections.disconnected > 0 {
        rows.push(("disconnected", connections.disconnected.to_string()));
    }
}

fn messages(report: &Report, rows: &mut Vec<(&'static str, String)>) {
    let messages = &report.messages;
    let retained = report.settings.scenario == "retained";
    let (sent, came) = if retained { ("stored", "fetched") } else { ("published", "received") };
    for (name, value) in [
        (sent, messages.published),
        (came, messages.received),
        ("lost", messages.lost),
        ("duplicates", messages.duplicates),
        ("out of order", messages.out_of_order),
    ] {
        if let Some(value) = value {
            rows.push((name, value.to_string()));
        }
    }
    if retained && let Some(rate) = messages.published_per_s {
        rows.push(("storing", format!("{rate:.0} messages/s")));
    }
    if let Some(rate) = messages.messages_per_s {
        let name = if retained { "fetching" } else { "throughput" };
        rows.push((name, format!("{rate:.0} messages/s")));
    }
}

fn process(report: &Report, rows: &mut Vec<(&'static str, String)>) {
    let process = &report.broker_process;
    if let (Some(cpu_s), Some(each_us)) = (process.cpu_s, process.cpu_us_per_message) {
        let unit = if report.is_about_connections() { "connection" } else { "message" };
        rows.push(("CPU", format!("{each_us:.2} us/{unit} ({cpu_s:.2} s)")));
    }
    let memory = match (process.memory_bytes, process.memory_before_bytes) {
        (Some(bytes), Some(before)) => format!("{} (before: {})", size(bytes), size(before)),
        (Some(bytes), None) => size(bytes),
        (None, _) => "unknown: the broker has no $SYS topic for it; try --pid".into(),
    };
    rows.push(("memory", memory));
}

/// "1 client", "2 clients".
fn count(number: u64, unit: &str) -> String {
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// With as many digits as say something.
pub fn milliseconds(us: u64) -> String {
    let ms = us as f64 / 1e3;
    match us {
        0..10_000 => format!("{ms:.3} ms"),
        10_000..100_000 => format!("{ms:.1} ms"),
        _ => format!("{ms:.0} ms"),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Report, Settings};
    use super::*;

    fn report(name: &str, lost: Option<u64>) -> Report {
        let settings = Settings {
            scenario: if lost.is_some() { "pairs".into() } else { "connect".into() },
            broker: "localhost:1883".into(),
            clients: 1,
            version: 4,
            qos: 1,
            payload_bytes: 64,
            ..Settings::default()
        };
        let mut report = Report::new(name.into(), settings);
        report.messages.published = lost;
        report.messages.lost = lost;
        report
    }

    #[test]
    fn one_report_is_a_list() {
        let text = table(&[&report("localhost:1883", Some(7))]);
        assert!(!text.contains("name"), "{text}");
        assert!(text.contains("scenario      pairs, 1 client, QoS 1, 64 bytes, MQTT 3.1.1\n"));
        assert!(text.contains("lost          7\n"), "{text}");
    }

    #[test]
    fn several_stand_side_by_side_and_say_what_only_one_has() {
        let text = table(&[&report("a", Some(7)), &report("b", None)]);
        assert!(text.contains("name          a "), "{text}");
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("lost").ends_with(" -") && line("connections").contains(" - "), "{text}");
        assert!(line("latency max").ends_with("time to connect"), "{text}");
    }

    #[test]
    fn refusals_say_why() {
        let mut refused = report("a", None);
        refused.connections.refused = 3;
        refused.connections.refusals.insert("not authorized".into(), 3);
        assert!(table(&[&refused]).contains("refused       3 (3 not authorized)"));
    }

    #[test]
    fn times_have_the_digits_that_matter() {
        assert_eq!([7, 12_345, 123_456].map(milliseconds), ["0.007 ms", "12.3 ms", "123 ms"]);
    }
}
