//! What `whimbrel store check` and `whimbrel store repair` do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::layout::{
    FIRST_POSITION, FRAME_HEADER_BYTES, Foreign, Kind, SEGMENT_HEADER_BYTES, STORE_FILE,
    SegmentHeader, TMP_SUFFIX, seal_frame, segment_name,
};
use crate::message::MESSAGE;
use crate::pack::packed_front;
use crate::recovery::{lock, write_store};
use crate::replay::{Bodies, each_record, replay};
use crate::restate::restate;
use crate::segments::{PackedIndex, Segment};
use crate::survey::{Survey, failed, list, read_store, survey};
use crate::{EntryQueue, OpenError, Position, Record, SessionKey, SessionRecovered, Stored};

/// Something that is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which file; empty: the store as a whole.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.file.as_str() {
            "" => f.write_str(&self.what),
            file => write!(f, "{file}, offset {}: {}", self.offset, self.what),
        }
    }
}

/// What is in a store, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// All that is wrong.
    pub findings: Vec<Finding>,
    /// Bytes of a torn end, which is no damage: opening cuts it off.
    pub torn_bytes: u64,
    /// Files of the log.
    pub segments: u64,
    /// Those of them that are packed.
    pub packed_segments: u64,
    /// Bytes in all of them.
    pub bytes: u64,
    /// Frames that are whole.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Sessions that are alive.
    pub sessions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Messages that wait for sessions.
    pub queued: u64,
    /// Deliveries in flight.
    pub in_flight: u64,
}

/// What a repair has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was wrong.
    pub findings: Vec<Finding>,
    /// Files that were put aside, by their new names.
    pub moved: Vec<String>,
    /// What could not be saved, in plain words.
    pub lost: Vec<String>,
    /// Sessions, retained messages and waiting messages that were saved.
    pub saved: (u64, u64, u64),
}

/// Reads all of a store that nobody uses, and changes nothing.
///
/// # Errors
/// The store is in use, was made by a later version, or cannot be read at all.
pub fn check(disk: &dyn Disk) -> Result<Report, OpenError> {
    let _lock = lock(disk)?;
    let mut report = Report::default();
    let Some((survey, mut findings)) = look(disk)? else {
        report.findings.push(whole("there is no store here"));
        return Ok(report);
    };
    report.segments = survey.segments.len() as u64;
    report.packed_segments =
        survey.segments.iter().filter(|segment| segment.packed.is_some()).count() as u64;
    report.bytes = survey.segments.iter().filter_map(|segment| segment.file.size().ok()).sum();
    report.frames = survey.frames;
    report.records = survey.collected.records;
    report.torn_bytes = survey.torn.as_ref().map_or(0, |torn| torn.bytes);
    if let Err(error) = survey.last_pass() {
        findings.push(finding(&error));
    }
    let mut state = State::of(survey)?;
    let missing = state.drop_unreadable()?;
    findings.extend(missing.into_iter().map(|what| whole(&what)));
    report.findings = findings;
    (report.sessions, report.retained, report.queued) = state.counts();
    report.in_flight = state.sessions.iter().map(|one| one.in_flight.len() as u64).sum();
    Ok(report)
}

/// Makes a store that is damaged one that can be opened, with all that can be saved. Files that
/// are damaged are put aside under another name; nothing is deleted.
///
/// # Errors
/// The store is in use, was made by a later version, cannot be read at all, or not be written.
pub fn repair(disk: &dyn Disk) -> Result<Repaired, OpenError> {
    let _lock = lock(disk)?;
    let mut repaired = Repaired::default();
    let Some((mut survey, findings)) = look(disk)? else {
        repaired.findings.push(whole("there is no store here"));
        return Ok(repaired);
    };
    let wrong = survey.last_pass().err();
    repaired.findings = findings;
    repaired.findings.extend(wrong.as_ref().map(finding));
    let (identity, end) = (survey.identity, survey.end);
    let number = survey.collected.last_pass.saturating_add(1);
    let torn = survey.torn.take();
    let damaged = std::mem::take(&mut survey.damaged);
    let mut state = State::of(survey)?;
    repaired.lost = state.drop_unreadable()?;
    if repaired.findings.is_empty() && repaired.lost.is_empty() {
        repaired.saved = state.counts();
        return Ok(repaired);
    }
    // A torn end holds nothing that was acknowledged, but here nothing is deleted.
    for name in torn.iter().flat_map(|torn| torn.remove.iter()) {
        repaired.moved.push(put_aside(disk, name)?);
    }
    let wanted = state.wanted();
    for start in damaged {
        let segment = state.segments.iter().find(|segment| segment.start == start);
        repaired.moved.push(salvage(disk, segment, start, identity, &wanted)?);
    }
    if read_store(disk).is_err() {
        if disk.list().map_err(failed("", "list"))?.iter().any(|name| name == STORE_FILE) {
            repaired.moved.push(put_aside(disk, STORE_FILE)?);
        }
        write_store(disk, identity).map_err(failed(STORE_FILE, "make"))?;
    }
    write_state(disk, &state, (number, end), identity, &mut repaired)?;
    repaired.saved = state.counts();
    Ok(repaired)
}

fn whole(what: &str) -> Finding {
    Finding { file: String::new(), offset: 0, what: what.to_owned() }
}

fn finding(error: &OpenError) -> Finding {
    match error {
        OpenError::Damaged { file, offset, what } => {
            Finding { file: file.clone(), offset: *offset, what: (*what).to_owned() }
        }
        OpenError::Missing { from, to } => {
            whole(&format!("the log is missing from position {from:#x} to {to:#x}"))
        }
        error => whole(&error.to_string()),
    }
}

/// Everything that can be read; none: there is no store.
fn look(disk: &dyn Disk) -> Result<Option<(Survey, Vec<Finding>)>, OpenError> {
    let files = list(disk)?;
    if !files.store && files.starts.is_empty() {
        return Ok(None);
    }
    let mut findings = Vec::new();
    let identity = match read_store(disk) {
        Ok(identity) => identity,
        Err(error @ OpenError::LaterFormat { .. }) => return Err(error),
        Err(error) => {
            let missing = !files.store;
            findings.push(finding(if missing { &OpenError::NoStore } else { &error }));
            identity_of_segments(disk, &files.starts)?.ok_or(error)?
        }
    };
    if files.starts.is_empty() {
        findings.push(whole("all segments (log-*) are missing"));
    }
    let mut problems = Vec::new();
    let mut go_on = |problem| match problem {
        error @ (OpenError::LaterFormat { .. } | OpenError::Io { .. }) => Err(error),
        error => {
            problems.push(finding(&error));
            Ok(())
        }
    };
    let survey = survey(disk, &files.starts, identity, &mut go_on)?;
    findings.append(&mut problems);
    Ok(Some((survey, findings)))
}

fn identity_of_segments(disk: &dyn Disk, starts: &[u64]) -> Result<Option<u64>, OpenError> {
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for start in starts {
        let name = segment_name(*start);
        let file = disk.open(&name).map_err(failed(&name, "open"))?;
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        if file.read_at(0, &mut header).is_ok() {
            match SegmentHeader::decode(&header) {
                Ok(header) => *votes.entry(header.identity).or_default() += 1,
                Err(Foreign::Later(format)) => {
                    return Err(OpenError::LaterFormat { file: name, format });
                }
                Err(Foreign::Damaged(_)) => {}
            }
        }
    }
    Ok(votes.into_iter().max_by_key(|(_, count)| *count).map(|(identity, _)| identity))
}

/// What is alive, as far as it can be told.
struct State {
    segments: Vec<Arc<Segment>>,
    sessions: Vec<SessionRecovered>,
    retained: Vec<(Stored, u64)>,
    routing: Vec<(Stored, SessionKey, Option<u32>)>,
    /// What is known to be lost.
    lost: Vec<String>,
}

impl State {
    fn of(survey: Survey) -> Result<State, OpenError> {
        let Survey { segments, collected, identity, .. } = survey;
        // Even if its first frame is damaged, all that a pass has stated stands behind it.
        let from = collected.passes_ended.last().map_or(FIRST_POSITION, |ended| ended.began);
        let mut replayed = replay(&segments, from, identity)?;
        let mut table = collected.retained;
        let mut bodies = Bodies::new(&segments);
        let mut lost = Vec::new();
        let mut retained = std::mem::take(&mut replayed.retained);
        retained.sort_unstable();
        for (stored, number) in retained {
            match bodies.read(stored) {
                Ok(Some(body)) => table.set(body.record().topic, number, Some(stored)),
                Ok(None) | Err(OpenError::MissingMessage { .. }) => lost.push(format!(
                    "a retained message, position {:#x}, cannot be read; its topic is not known",
                    stored.position.0
                )),
                Err(error) => return Err(error),
            }
        }
        let routing = collected.routing.into_iter();
        let mut routing: Vec<_> =
            routing.map(|((_, group), way)| (way.stored, way.from, group)).collect();
        routing.sort_unstable();
        let sessions = replayed.finish();
        Ok(State { sessions, retained: table.finish_numbered(), routing, segments, lost })
    }

    /// Messages to which something refers, ascending.
    fn wanted(&self) -> Vec<Stored> {
        let mut wanted: Vec<Stored> = self.retained.iter().map(|(stored, _)| *stored).collect();
        wanted.extend(self.routing.iter().map(|(stored, ..)| *stored));
        for session in &self.sessions {
            wanted.extend(session.queue.iter().map(|entry| entry.stored));
            let in_flight = session.in_flight.iter().filter_map(|one| one.entry.as_ref());
            wanted.extend(in_flight.map(|entry| entry.stored));
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// Forgets messages that cannot be read, and says which.
    fn drop_unreadable(&mut self) -> Result<Vec<String>, OpenError> {
        let mut lost = std::mem::take(&mut self.lost);
        let mut bodies = Bodies::new(&self.segments);
        let mut gone = Vec::new();
        for stored in self.wanted() {
            match bodies.read(stored) {
                Ok(Some(_)) => {}
                Ok(None) | Err(OpenError::MissingMessage { .. }) => gone.push(stored),
                Err(error) => return Err(error),
            }
        }
        if gone.is_empty() {
            return Ok(lost);
        }
        let is_gone = |stored: &Stored| gone.binary_search(stored).is_ok();
        let before = self.retained.len();
        self.retained.retain(|(stored, _)| !is_gone(stored));
        self.routing.retain(|(stored, ..)| !is_gone(stored));
        let retained = before - self.retained.len();
        if retained > 0 {
            lost.push(format!("{retained} retained messages cannot be read"));
        }
        for session in &mut self.sessions {
            let mut queue = EntryQueue::default();
            let kept = session.queue.iter().filter(|entry| !is_gone(&entry.stored));
            kept.for_each(|entry| queue.push(&entry));
            let mut count = session.queue.len() - queue.len() + session.in_flight.len();
            session.queue = queue;
            session
                .in_flight
                .retain(|one| !one.entry.as_ref().is_some_and(|entry| is_gone(&entry.stored)));
            count -= session.in_flight.len();
            if count > 0 {
                let client = &session.client_id;
                lost.push(format!("{count} messages for client {client:?} cannot be read"));
            }
        }
        Ok(lost)
    }

    fn counts(&self) -> (u64, u64, u64) {
        let queued = self.sessions.iter().map(|session| session.queue.len() as u64).sum();
        (self.sessions.len() as u64, self.retained.len() as u64, queued)
    }
}

/// Gives a file a name under which nobody looks for it.
fn put_aside(disk: &dyn Disk, name: &str) -> Result<String, OpenError> {
    let names = disk.list().map_err(failed("", "list"))?;
    let mut aside = format!("{name}.damaged");
    let mut count = 2;
    while names.contains(&aside) {
        aside = format!("{name}.damaged-{count}");
        count += 1;
    }
    disk.rename(name, &aside).map_err(failed(name, "rename"))?;
    Ok(aside)
}

/// Puts a damaged segment aside, and in its place one with all messages that are whole.
fn salvage(
    disk: &dyn Disk,
    segment: Option<&Arc<Segment>>,
    start: u64,
    identity: u64,
    wanted: &[Stored],
) -> Result<String, OpenError> {
    let name = segment_name(start);
    let mut messages = Vec::new();
    if let Some(segment) = segment {
        messages = messages_in(segment, identity)?;
        // A message may be whole in a frame that is not.
        let inside = wanted.iter().map(|stored| (stored.position.0, stored.len));
        messages.extend(inside.filter(|(at, _)| start <= *at && *at < segment.end()));
        messages.sort_unstable();
        messages.dedup();
    }
    let mut made = None;
    if let Some(segment) = segment.filter(|_| !messages.is_empty()) {
        let tmp = name.clone() + TMP_SUFFIX;
        let _ = disk.remove(&tmp);
        let header = SegmentHeader { kind: Kind::Packed, start, end: segment.end(), identity };
        let file = disk.create(&tmp).map_err(failed(&tmp, "make"))?;
        write_packed(&*file, segment, &header, &messages)
            .and_then(|()| file.sync())
            .map_err(failed(&tmp, "write"))?;
        made = Some(tmp);
    }
    let aside = put_aside(disk, &name)?;
    if let Some(tmp) = made {
        disk.rename(&tmp, &name).map_err(failed(&tmp, "rename"))?;
    }
    disk.sync_dir().map_err(failed("", "sync"))?;
    Ok(aside)
}

/// Position and length of each message that is whole.
fn messages_in(segment: &Arc<Segment>, identity: u64) -> Result<Vec<(u64, u32)>, OpenError> {
    let mut messages = Vec::new();
    if segment.packed.is_some() {
        let name = segment.name();
        let mut window = crate::scan::Window::new(&segment.file).map_err(failed(&name, "read"))?;
        let bounds = (segment.start, segment.end());
        let each = &mut |entry: crate::layout::IndexEntry| {
            messages.push((entry.position, entry.len));
        };
        let _ = PackedIndex::load(&mut window, bounds, each).map_err(failed(&name, "read"))?;
    } else {
        let one = std::slice::from_ref(segment);
        each_record(one, segment.start, identity, &mut |raw| {
            if raw.kind() == MESSAGE {
                messages.push((raw.position.0, raw.len()));
            }
            Ok(())
        })?;
    }
    messages.retain(|(position, len)| {
        segment.read(Stored { position: Position(*position), len: *len }).is_ok()
    });
    Ok(messages)
}

fn write_packed(
    file: &dyn DiskFile,
    segment: &Segment,
    header: &SegmentHeader,
    messages: &[(u64, u32)],
) -> std::io::Result<()> {
    let mut bytes = packed_front(header, messages);
    let mut at = 0;
    for (position, len) in messages {
        let body = segment.read(Stored { position: Position(*position), len: *len });
        bytes.extend_from_slice(body.map_err(std::io::Error::other)?.bytes());
        if bytes.len() > 1 << 20 {
            file.write_at(at, &bytes)?;
            at += bytes.len() as u64;
            bytes.clear();
        }
    }
    file.write_at(at, &bytes)
}

/// Writes all that is alive as a pass of its own, in a new segment at the end.
fn write_state(
    disk: &dyn Disk,
    state: &State,
    (number, start): (u64, u64),
    identity: u64,
    repaired: &mut Repaired,
) -> Result<(), OpenError> {
    let name = segment_name(start);
    let names = disk.list().map_err(failed("", "list"))?;
    if names.contains(&name) {
        repaired.moved.push(put_aside(disk, &name)?);
    }
    let tmp = name.clone() + TMP_SUFFIX;
    let _ = disk.remove(&tmp);
    let file = disk.create(&tmp).map_err(failed(&tmp, "make"))?;
    let header = SegmentHeader { kind: Kind::Frames, start, end: 0, identity }.encode();
    let mut position = start;
    let mut write = |records: &[u8]| -> std::io::Result<()> {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(records);
        seal_frame(&mut frame, position, start, identity);
        file.write_at(SEGMENT_HEADER_BYTES + position - start, &frame)?;
        position += frame.len() as u64;
        Ok(())
    };
    let written = (|| {
        file.write_at(0, &header)?;
        let mut records = Vec::new();
        Record::PassBegan { pass: number }.encode(&mut records);
        write(&records)?;
        for session in &state.sessions {
            records.clear();
            restate(session, &mut |record| record.encode(&mut records));
            write(&records)?;
        }
        for (stored, number) in &state.retained {
            records.clear();
            Record::Retained { stored: *stored, number: *number }.encode(&mut records);
            write(&records)?;
        }
        for (stored, from, group) in &state.routing {
            records.clear();
            let (stored, from, group) = (*stored, *from, *group);
            Record::Routing { stored, from, group }.encode(&mut records);
            write(&records)?;
        }
        records.clear();
        Record::PassEnded { pass: number, began: Position(start) }.encode(&mut records);
        write(&records)?;
        file.sync()?;
        disk.rename(&tmp, &name)?;
        disk.sync_dir()
    })();
    written.map_err(failed(&name, "write"))
}
