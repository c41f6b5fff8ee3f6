//! Asks a running broker through its control socket, and shows its answers.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// The broker has five seconds to collect its answer.
const TIME: Duration = Duration::from_secs(10);

/// The broker's answer.
///
/// # Errors
/// If nobody answers there, or the broker says that it cannot, in one line.
pub fn ask(socket: &Path, request: &Value) -> Result<Value, String> {
    let at = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "; only the broker's own user may ask",
            _ => "; is a broker running with this `control_socket`?",
        };
        format!("cannot connect to the control socket {at}: {error}{hint}")
    })?;
    let line = exchange(&mut stream, request)
        .map_err(|error| format!("no answer from the control socket {at}: {error}"))?;
    let answer: Value = serde_json::from_str(&line)
        .map_err(|error| format!("the control socket {at} answers what is no JSON: {error}"))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer),
    }
}

fn exchange(stream: &mut UnixStream, request: &Value) -> io::Result<String> {
    stream.set_read_timeout(Some(TIME))?;
    stream.set_write_timeout(Some(TIME))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// The answer to `explain`, for people.
pub fn explained(answer: &Value) -> String {
    let mut out = text(answer, "text").to_owned();
    if let Some(note) = answer.get("note").and_then(Value::as_str) {
        let _ = write!(out, "\n  {note}");
    }
    let _ = match answer.get("client").filter(|client| !client.is_null()) {
        Some(client) => write!(out, "\nclient: {}", client_line(client)),
        None => write!(out, "\nclient: not known to the broker; this is what the rules say"),
    };
    if let Some(retained) = answer.get("retained") {
        let _ = write!(out, "\ngranted with QoS {}", number(answer, "qos"));
        let least = if retained["all_counted"] == false { "at least " } else { "" };
        let _ = match number(retained, "count") {
            0 => write!(out, "\nno retained message matches"),
            1 => write!(out, "\n1 retained message matches"),
            n => write!(out, "\n{least}{} retained messages match", grouped(n)),
        };
    }
    if answer.get("receivers").is_some() {
        receivers(&mut out, answer);
    }
    out
}

fn receivers(out: &mut String, answer: &Value) {
    let (listed, groups) = (list(answer, "receivers"), list(answer, "groups"));
    let (more, more_groups) = (number(answer, "more_receivers"), number(answer, "more_groups"));
    if listed.is_empty() && groups.is_empty() && more + more_groups == 0 {
        out.push_str("\nnobody would get it");
        return;
    }
    out.push_str("\nwho would get it:");
    for receiver in listed {
        let _ = write!(out, "\n  {}", receiver_line(receiver));
    }
    if more > 0 {
        let _ = write!(out, "\n  and {} more", grouped(more));
    }
    for group in groups {
        let next = receiver_line(&group["next"]);
        let members = match number(group, "members") {
            1 => "its only member".to_owned(),
            n => format!("one of {} members, next", grouped(n)),
        };
        let _ = write!(out, "\n  group {}: {members}: {next}", printable(text(group, "name")));
    }
    if more_groups > 0 {
        let _ = write!(out, "\n  and {} more groups", grouped(more_groups));
    }
}

/// `sensor-7 (ann), QoS 1, through plant/#: sent`
fn receiver_line(receiver: &Value) -> String {
    let mut out = name(receiver);
    let _ = write!(out, ", QoS {}", number(receiver, "qos"));
    let filters: Vec<String> =
        list(receiver, "filters").iter().filter_map(Value::as_str).map(printable).collect();
    if !filters.is_empty() {
        let _ = write!(out, ", through {}", filters.join(" and "));
    }
    let _ = write!(out, ": {}", text(receiver, "fate"));
    if let Some(why) = receiver.get("why").and_then(Value::as_str) {
        let _ = write!(out, ", {why}");
    }
    out
}

/// `sensor-7 (ann), by password, groups ops and staff, connected from 10.0.0.7:5123`
fn client_line(client: &Value) -> String {
    let mut out = name(client);
    let _ = match text(client, "method") {
        "anonymous" => write!(out, ", anonymous"),
        method => write!(out, ", by {method}"),
    };
    let groups: Vec<String> =
        list(client, "groups").iter().filter_map(Value::as_str).map(printable).collect();
    if !groups.is_empty() {
        let _ = write!(out, ", groups {}", groups.join(" and "));
    }
    let connected = client["connected"] == true;
    out.push_str(if connected { ", connected" } else { ", not connected" });
    if let Some(address) = client.get("address").and_then(Value::as_str) {
        let _ = write!(out, " from {address}");
    }
    out
}

/// `sensor-7 (ann)`
fn name(client: &Value) -> String {
    let (id, user) = (printable(text(client, "client")), printable(text(client, "user")));
    if user.is_empty() { id } else { format!("{id} ({user})") }
}

/// Names come from clients: nothing that steers a terminal.
fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `1,234,567`
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_numbers_can_be_read() {
        let shown = [0, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn what_is_left_out_is_counted_and_names_cannot_steer_a_terminal() {
        let receiver = json!({
            "client": "a\u{1b}[2J", "user": "", "qos": 1, "filters": ["t/#"], "fate": "queued",
        });
        let answer = json!({
            "allowed": true, "text": "allowed: there are no rules", "client": null,
            "receivers": [receiver], "more_receivers": 1234, "groups": [], "more_groups": 0,
        });
        assert_eq!(
            explained(&answer),
            "allowed: there are no rules\n\
             client: not known to the broker; this is what the rules say\n\
             who would get it:\n  \
             a\\u{1b}[2J, QoS 1, through t/#: queued\n  \
             and 1,234 more"
        );
    }
}
