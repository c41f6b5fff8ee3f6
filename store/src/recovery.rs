//! Opening a store: a new one is made, one that is there is verified and read.

use std::any::Any;
use std::io;
use std::sync::Arc;

use crate::disk::Disk;
use crate::event::Event;
use crate::layout::{
    FIRST_POSITION, Kind, LOCK_FILE, SEGMENT_HEADER_BYTES, STORE_FILE, STORE_TMP, SegmentHeader,
    segment_name, store_text,
};
use crate::log::Options;
use crate::passes::PassState;
use crate::replay::{Bodies, Replay, replay, unrouted};
use crate::segments::{Segment, Segments};
use crate::survey::{Files, Survey, Torn, failed, list, read_store, survey};
use crate::write::Current;
use crate::{OpenError, Position, Recovered, Stored};

/// A store that was opened.
pub(crate) struct Opened {
    pub lock: Box<dyn Any + Send + Sync>,
    pub identity: u64,
    pub segments: Segments,
    pub current: Current,
    pub end: u64,
    pub next_key: u64,
    pub pass: PassState,
    pub recovered: Recovered,
}

/// What [`Log::open`](crate::Log::open) does.
pub(crate) fn open(
    disk: &dyn Disk,
    options: &Options,
    new_identity: u64,
) -> Result<Opened, OpenError> {
    let lock = lock(disk)?;
    let files = list(disk)?;
    for name in &files.tmp {
        disk.remove(name).map_err(failed(name, "remove"))?;
    }
    let files = make_if_new(disk, options, files, new_identity)?;
    let identity = read_store(disk)?;
    let mut survey = survey(disk, &files.starts, identity, &mut Err)?;
    let last_pass = survey.last_pass()?;
    let torn = survey.torn.take();
    let (end, synced, last) = (survey.end, survey.synced, survey.segments.last().cloned());
    let replayed = replay(&survey.segments, last_pass.began, identity)?;
    let pass = PassState {
        number: survey.collected.last_pass,
        began: last_pass.began,
        ended_began: last_pass.began,
        bytes: last_pass.bytes,
        ..PassState::default()
    };
    let next_key = survey.collected.last_key.saturating_add(1);
    let segments = Segments::default();
    survey.segments.iter().for_each(|segment| segments.insert(segment.clone()));
    let mut recovered = recovered(survey, replayed, options)?;

    // Nothing is changed before all is known to be well.
    let last = last.filter(|last| last.packed.is_none() && last.end() == end);
    if let Some(torn) = torn {
        recovered.cut_bytes = torn.bytes;
        cut(disk, options, &torn, last.as_deref())?;
    }
    let current = last_segment(disk, last, (end, identity))?;
    make_durable(disk, (synced, end), &current)?;
    segments.insert(current.segment.clone());
    current.segment.set_end(u64::MAX);
    Ok(Opened { lock, identity, segments, current, end, next_key, pass, recovered })
}

/// Locks the store, so that nobody else uses it.
pub(crate) fn lock(disk: &dyn Disk) -> Result<Box<dyn Any + Send + Sync>, OpenError> {
    disk.lock(LOCK_FILE).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse,
        _ => OpenError::Io { file: LOCK_FILE.into(), doing: "lock", error },
    })
}

fn make_if_new(
    disk: &dyn Disk,
    options: &Options,
    files: Files,
    identity: u64,
) -> Result<Files, OpenError> {
    match (files.store, files.starts.as_slice()) {
        (true, []) => Err(OpenError::NoSegments),
        (true, _) => Ok(files),
        (false, [] | [FIRST_POSITION]) => {
            let name = segment_name(FIRST_POSITION);
            if !files.starts.is_empty() {
                // The making of a store was not finished, if there is nothing in it.
                let file = disk.open(&name).map_err(failed(&name, "open"))?;
                if file.size().map_err(failed(&name, "read"))? > SEGMENT_HEADER_BYTES {
                    return Err(OpenError::NoStore);
                }
                disk.remove(&name).map_err(failed(&name, "remove"))?;
            }
            make(disk, identity)?;
            (options.on_event)(Event::Created { identity });
            list(disk)
        }
        (false, _) => Err(OpenError::NoStore),
    }
}

fn make(disk: &dyn Disk, identity: u64) -> Result<(), OpenError> {
    make_segment(disk, FIRST_POSITION, identity)?;
    disk.sync_dir().map_err(failed("", "sync"))?;
    write_store(disk, identity).map_err(failed(STORE_FILE, "make"))
}

/// Makes the file `STORE`.
pub(crate) fn write_store(disk: &dyn Disk, identity: u64) -> io::Result<()> {
    let file = disk.create(STORE_TMP)?;
    file.write_at(0, store_text(identity).as_bytes())?;
    file.sync()?;
    disk.rename(STORE_TMP, STORE_FILE)?;
    disk.sync_dir()
}

/// Makes a segment without frames.
fn make_segment(disk: &dyn Disk, start: u64, identity: u64) -> Result<Arc<Segment>, OpenError> {
    let name = segment_name(start);
    let file = disk.create(&name).map_err(failed(&name, "make"))?;
    let header = SegmentHeader { kind: Kind::Frames, start, end: 0, identity };
    file.write_at(0, &header.encode())
        .and_then(|()| file.sync())
        .map_err(failed(&name, "write"))?;
    Ok(Arc::new(Segment::frames(start, start, file)))
}

/// Cuts off an end that was torn. The last file goes first, so that what remains has a torn end
/// at any time.
fn cut(
    disk: &dyn Disk,
    options: &Options,
    torn: &Torn,
    last: Option<&Segment>,
) -> Result<(), OpenError> {
    for name in torn.remove.iter().rev() {
        disk.remove(name).map_err(failed(name, "remove"))?;
        disk.sync_dir().map_err(failed("", "sync"))?;
    }
    if let Some(last) = last {
        let offset = last.end() - last.start + SEGMENT_HEADER_BYTES;
        last.file.truncate(offset).map_err(failed(&last.name(), "cut"))?;
        if torn.bytes > 0 {
            let (file, bytes) = (last.name(), torn.bytes);
            (options.on_event)(Event::Cut { file, offset, bytes });
        }
    }
    Ok(())
}

/// The segment that will grow.
fn last_segment(
    disk: &dyn Disk,
    last: Option<Arc<Segment>>,
    (end, identity): (u64, u64),
) -> Result<Current, OpenError> {
    let segment = match last {
        Some(last) => last,
        None => make_segment(disk, end, identity)?,
    };
    let size = segment.file.size().map_err(failed(&segment.name(), "read"))?;
    Ok(Current { segment, size, fresh: false })
}

/// What was read may be in the system's memory only, and the system may think that it is on
/// disk if a sync has failed before. So what nobody says was durable is written again.
fn make_durable(
    disk: &dyn Disk,
    (synced, end): (u64, u64),
    current: &Current,
) -> Result<(), OpenError> {
    let segment = &current.segment;
    let name = segment.name();
    let place = |position: u64| position - segment.start + SEGMENT_HEADER_BYTES;
    // The segment's header is as new as its first frame.
    let mut at = if synced > segment.start { place(synced.min(end)) } else { 0 };
    let end = place(end);
    let mut buffer = Vec::new();
    let mut write = || {
        while at < end {
            buffer.resize((end - at).min(1 << 20) as usize, 0);
            segment.file.read_at(at, &mut buffer)?;
            segment.file.write_at(at, &buffer)?;
            at += buffer.len() as u64;
        }
        segment.file.sync()
    };
    write().map_err(failed(&name, "write"))?;
    disk.sync_dir().map_err(failed("", "sync"))
}

fn recovered(
    survey: Survey,
    mut replayed: Replay,
    options: &Options,
) -> Result<Recovered, OpenError> {
    let Survey { segments, collected, identity, chain_start, .. } = survey;
    let mut table = collected.retained;
    let mut stated = std::mem::take(&mut replayed.retained);
    stated.sort_unstable();
    let mut bodies = Bodies::new(&segments);
    for (stored, number) in stated {
        match bodies.read(stored)? {
            Some(body) => {
                let record = body.record();
                let number = record.retained.unwrap_or_default().max(number);
                table.set(record.topic, number, Some(stored));
            }
            None => (options.on_event)(Event::Unreadable {
                file: "the log".into(),
                offset: stored.position.0,
                what: "there is no such retained message".into(),
            }),
        }
    }
    let sessions = replayed.finish();
    let unrouted = unrouted(&segments, chain_start, identity, &collected.routing, &sessions)?;
    let last_retained = table.last;
    let retained = table.finish();
    let mut covered = Covered { segments: &segments, last: (0, 0) };
    retained.iter().try_for_each(|stored| covered.check(*stored))?;
    for session in &sessions {
        let in_flight = session.in_flight.iter().filter_map(|delivery| delivery.entry.as_ref());
        in_flight.into_iter().try_for_each(|entry| covered.check(entry.stored))?;
        session.queue.iter().try_for_each(|entry| covered.check(entry.stored))?;
    }
    Ok(Recovered {
        sessions,
        retained,
        last_retained,
        unrouted,
        stopped: collected.stopped,
        cut_bytes: 0,
    })
}

/// Whether the place of a message is in a segment that is there.
struct Covered<'a> {
    segments: &'a [Arc<Segment>],
    /// Where the segment looked at last begins and ends.
    last: (u64, u64),
}

impl Covered<'_> {
    fn check(&mut self, stored: Stored) -> Result<(), OpenError> {
        let Position(position) = stored.position;
        if self.last.0 <= position && position < self.last.1 {
            return Ok(());
        }
        let behind = self.segments.partition_point(|segment| segment.start <= position);
        let segment = behind.checked_sub(1).and_then(|index| self.segments.get(index));
        match segment.filter(|segment| position < segment.end()) {
            Some(segment) => {
                self.last = (segment.start, segment.end());
                Ok(())
            }
            None => Err(OpenError::MissingMessage { position }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FRAME_HEADER_BYTES, seal_frame};
    use crate::sim_disk::SimDisk;
    use crate::{Log, tool};

    const IDENTITY: u64 = 5;

    /// Frames whose checksums are right, of records that are not.
    fn store(random: &mut dyn FnMut(usize) -> usize) -> SimDisk {
        let disk = SimDisk::new();
        disk.set_content(STORE_FILE, store_text(IDENTITY).into_bytes());
        let mut start = FIRST_POSITION;
        for _ in 0..=random(2) {
            let header = SegmentHeader { kind: Kind::Frames, start, end: 0, identity: IDENTITY };
            let mut file = header.encode().to_vec();
            let mut position = start;
            for _ in 0..random(6) {
                let mut frame = vec![0; FRAME_HEADER_BYTES];
                for _ in 0..random(5) {
                    let len = random(12);
                    let in_batch = if random(4) == 0 { 0x80 } else { 0 };
                    frame.extend([random(26) as u8 | in_batch, len as u8]);
                    frame.extend((0..len).map(|_| match random(3) {
                        0 => random(256) as u8,
                        _ => random(4) as u8,
                    }));
                }
                let synced = [0, start, position].get(random(3)).copied();
                seal_frame(&mut frame, position, synced.unwrap_or(0), IDENTITY);
                position += frame.len() as u64;
                file.extend(frame);
            }
            disk.set_content(&segment_name(start), file);
            start = position + [0, 0, 100].get(random(3)).copied().unwrap_or(0);
        }
        disk
    }

    #[test]
    fn records_that_nobody_would_write_never_panic() {
        let mut seed = 0x1234_5678_9abc_def1_u64;
        let mut random = |n: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 33) as usize % n
        };
        let mut opened = 0;
        for _ in 0..20_000 {
            let disk = store(&mut random);
            let _ = tool::check(&disk);
            opened += usize::from(Log::open(Arc::new(disk.clone()), small(), 1).is_ok());
            let _ = tool::repair(&disk);
        }
        assert!(opened > 1000, "{opened} opened");
    }

    fn small() -> Options {
        Options { reserve_bytes: 10, ..Options::default() }
    }
}
