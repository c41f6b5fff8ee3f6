//! `whimbrel store check` and `whimbrel store repair`.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use whimbrel_store::Directory;
use whimbrel_store::tool::{self, Finding, Report};

use super::disks::ReadOnly;
use super::{EXIT_BAD, expect_store, open_failure, open_unchanged};
use crate::failure::Failure;

/// Times that a store is repaired again at most.
const REPAIRS_MAX: usize = 4;

/// Prints what is there and what is wrong.
pub fn check(dir: &Path) -> Result<(), Failure> {
    expect_store(dir)?;
    let mut report = tool::check(&ReadOnly::new(dir)).map_err(|error| open_failure(dir, &error))?;
    let mut lines = Vec::new();
    let mut opened = None;
    if report.findings.is_empty() {
        // Nobody knows better whether it opens than who opens it.
        match open_unchanged(dir) {
            Ok((_log, recovered)) => opened = Some(recovered),
            Err(failure) => report.findings.push(Finding {
                file: String::new(),
                offset: 0,
                what: failure.message,
            }),
        }
    }
    summarize(&report, &mut lines);
    if let Some(recovered) = &opened {
        let subscriptions: usize =
            recovered.sessions.iter().map(|session| session.subscriptions.len()).sum();
        put(&mut lines, "subscriptions", subscriptions);
        let stop = if recovered.stopped {
            "in good order"
        } else {
            "not in good order: what was sent last may be sent again"
        };
        put(&mut lines, "last stop", stop);
    }
    if report.torn_bytes > 0 {
        let torn = format!("{} bytes, which the broker will cut off", report.torn_bytes);
        put(&mut lines, "torn end", torn);
    }
    let findings = report.findings.len();
    let verdict = match findings {
        0 => "well, the broker would start".to_owned(),
        _ => format!("damaged, {}", count(findings as u64, "finding")),
    };
    lines.insert(0, format!("{}: {verdict}", dir.display()));
    lines.extend(report.findings.iter().map(|finding| format!("  ! {finding}")));
    print(&lines)?;
    if findings == 0 {
        return Ok(());
    }
    let dir = dir.display();
    Err(Failure::new(
        EXIT_BAD,
        format!(
            "{dir}: the broker would not start on this store; `whimbrel store repair {dir}` saves \
             what can be saved"
        ),
    ))
}

fn summarize(report: &Report, lines: &mut Vec<String>) {
    let packed = report.packed_segments;
    let packed = if packed > 0 { format!(" ({packed} packed)") } else { String::new() };
    put(lines, "segments", format!("{}{packed}, {} bytes", report.segments, report.bytes));
    put(lines, "records", format!("{} in {} frames", report.records, report.frames));
    put(lines, "sessions", report.sessions);
    put(lines, "queued", report.queued);
    put(lines, "in flight", report.in_flight);
    put(lines, "retained", report.retained);
}

/// Makes the store one that can be opened.
pub fn repair(dir: &Path) -> Result<(), Failure> {
    expect_store(dir)?;
    let disk = Directory::open(dir).map_err(|error| failed(dir, &error))?;
    let mut repaired = tool::repair(&disk).map_err(|error| open_failure(dir, &error))?;
    let nothing =
        repaired.findings.is_empty() && repaired.lost.is_empty() && repaired.moved.is_empty();
    // A file that was put aside can show what is wrong with the one before it.
    let mut opened = open_unchanged(dir);
    for _ in 0..REPAIRS_MAX {
        if opened.is_ok() {
            break;
        }
        let more = tool::repair(&disk).map_err(|error| open_failure(dir, &error))?;
        repaired.findings.extend(more.findings);
        repaired.lost.extend(more.lost);
        repaired.moved.extend(more.moved);
        repaired.saved = more.saved;
        opened = open_unchanged(dir);
    }
    let verdict = match (&opened, nothing) {
        (Ok(_), true) => "well, nothing was changed",
        (Ok(_), false) => "repaired, the broker can start",
        (Err(_), _) => "not repaired",
    };
    let mut lines = vec![format!("{}: {verdict}", dir.display())];
    lines.extend(repaired.findings.iter().map(|finding| format!("  found: {finding}")));
    lines.extend(repaired.lost.iter().map(|lost| format!("  lost:  {lost}")));
    lines.extend(repaired.moved.iter().map(|name| format!("  aside: {name}")));
    let (sessions, retained, queued) = repaired.saved;
    lines.push(format!(
        "  kept:  {}, {}, {}",
        count(sessions, "session"),
        count(retained, "retained message"),
        count(queued, "waiting message"),
    ));
    print(&lines)?;
    opened.map(drop)
}

fn failed(dir: &Path, error: &io::Error) -> Failure {
    Failure::new(EXIT_BAD, format!("{}: {error}", dir.display()))
}

fn put(lines: &mut Vec<String>, name: &str, value: impl Display) {
    lines.push(format!("  {name:<14} {value}"));
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// A reader that has seen enough (`| head`) is no error.
fn print(lines: &[String]) -> Result<(), Failure> {
    let mut text = lines.join("\n");
    text.push('\n');
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(EXIT_BAD, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
