//! Reading the whole store and judging it: what is whole, what was torn, what is damaged, what is
//! missing. Opening stops at the first damage; the tools go on.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::OpenError;
use crate::collect::Collected;
use crate::disk::{Disk, DiskFile};
use crate::layout::{
    FIRST_POSITION, Foreign, Kind, LAST_POSITION, SEGMENT_HEADER_BYTES, STORE_FILE, SegmentHeader,
    parse_store, segment_name, segment_start,
};
use crate::scan::{Ending, Frames, Window};
use crate::segments::{PackedIndex, Segment};

/// Is told each thing that is wrong, in order; an error ends the survey.
pub(crate) type OnProblem<'a> = dyn FnMut(OpenError) -> Result<(), OpenError> + 'a;

/// What a store's files hold.
pub(crate) struct Survey {
    pub identity: u64,
    /// Those that can be read, ascending. The end of each is known.
    pub segments: Vec<Arc<Segment>>,
    /// The end was torn.
    pub torn: Option<Torn>,
    /// From here on there are frames without a gap up to the end.
    pub chain_start: u64,
    /// What is missing before `chain_start`; equal: nothing is.
    pub gap_from: u64,
    pub end: u64,
    /// What frames say that was durable.
    pub synced: u64,
    pub collected: Collected,
    pub frames: u64,
    /// Where segments begin that are damaged.
    pub damaged: Vec<u64>,
}

/// An end that is to be cut off.
pub(crate) struct Torn {
    /// Files that hold nothing but what was torn.
    pub remove: Vec<String>,
    /// How much there is of it, in all files.
    pub bytes: u64,
}

/// The files of a store.
pub(crate) struct Files {
    /// Where each segment begins, ascending.
    pub starts: Vec<u64>,
    pub store: bool,
    pub tmp: Vec<String>,
}

/// An error of the file system.
pub(crate) fn failed(file: &str, doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    let file = file.to_owned();
    move |error| OpenError::Io { file, doing, error }
}

pub(crate) fn list(disk: &dyn Disk) -> Result<Files, OpenError> {
    let names = disk.list().map_err(failed("", "list"))?;
    let mut starts: Vec<u64> = names.iter().filter_map(|name| segment_start(name)).collect();
    starts.sort_unstable();
    let store = names.iter().any(|name| name == STORE_FILE);
    let tmp = names.into_iter().filter(|name| name.ends_with(crate::layout::TMP_SUFFIX)).collect();
    Ok(Files { starts, store, tmp })
}

/// The identity that the file `STORE` holds.
pub(crate) fn read_store(disk: &dyn Disk) -> Result<u64, OpenError> {
    let file = disk.open(STORE_FILE).map_err(failed(STORE_FILE, "open"))?;
    let size = file.size().map_err(failed(STORE_FILE, "read"))?;
    // It has some 50 bytes; what is longer is something else.
    let mut text = vec![0; size.min(200) as usize];
    file.read_at(0, &mut text).map_err(failed(STORE_FILE, "read"))?;
    parse_store(&text).map_err(|foreign| foreign_error(STORE_FILE, foreign))
}

fn foreign_error(file: &str, foreign: Foreign) -> OpenError {
    let file = file.to_owned();
    match foreign {
        Foreign::Later(format) => OpenError::LaterFormat { file, format },
        Foreign::Damaged(what) => OpenError::Damaged { file, offset: 0, what },
    }
}

/// A segment's file before it is known what it holds.
struct Raw {
    start: u64,
    file: Arc<dyn DiskFile>,
    size: u64,
}

struct Surveyor<'a> {
    raw: Vec<Raw>,
    on_problem: &'a mut OnProblem<'a>,
    survey: Survey,
}

/// Reads everything.
pub(crate) fn survey<'a>(
    disk: &dyn Disk,
    starts: &[u64],
    identity: u64,
    on_problem: &'a mut OnProblem<'a>,
) -> Result<Survey, OpenError> {
    let mut raw = Vec::with_capacity(starts.len());
    for start in starts {
        let name = segment_name(*start);
        let file = disk.open(&name).map_err(failed(&name, "open"))?;
        let size = file.size().map_err(failed(&name, "read"))?;
        raw.push(Raw { start: *start, file, size });
    }
    let survey = Survey {
        identity,
        segments: Vec::new(),
        torn: None,
        chain_start: FIRST_POSITION,
        gap_from: FIRST_POSITION,
        end: FIRST_POSITION,
        synced: 0,
        collected: Collected::new(identity),
        frames: 0,
        damaged: Vec::new(),
    };
    let mut surveyor = Surveyor { raw, on_problem, survey };
    for index in 0..surveyor.raw.len() {
        if !surveyor.segment(index)? {
            break;
        }
    }
    Ok(surveyor.survey)
}

impl Surveyor<'_> {
    /// Reads one segment; says whether to go on with the next.
    fn segment(&mut self, index: usize) -> Result<bool, OpenError> {
        let Some(raw) = self.raw.get(index) else { return Ok(false) };
        let (start, file) = (raw.start, raw.file.clone());
        let name = segment_name(start);
        let header = match self.header(raw).map_err(failed(&name, "read"))? {
            Ok(header) => header,
            Err(Foreign::Damaged(_)) if index > 0 && !self.evidence(index, start, start)? => {
                return Ok(self.cut(index, start));
            }
            Err(foreign) => {
                self.damaged(start, foreign_error(&name, foreign))?;
                // Its frames may tell what they hold all the same.
                let next = self.raw.get(index + 1).map(|next| next.start);
                let mut frames = Frames::new(&file, (start, next), start, self.survey.identity)
                    .map_err(failed(&name, "read"))?;
                if !frames.seek(start).map_err(failed(&name, "read"))? {
                    return match next {
                        Some(next) => self.packed((start, next), &file).map(|()| true),
                        None => Ok(true),
                    };
                }
                SegmentHeader { kind: Kind::Frames, start, end: 0, identity: 0 }
            }
        };
        if start < self.survey.end && !self.survey.segments.is_empty() {
            let what = "the segment before reaches into this one";
            self.damaged(start, OpenError::Damaged { file: name.clone(), offset: 0, what })?;
        }
        if start != self.survey.end {
            self.survey.gap_from = self.survey.end;
            self.restart_chain(start);
        }
        match header.kind {
            Kind::Frames => self.frames(index, &file),
            Kind::Packed => self.packed((start, header.end), &file).map(|()| true),
        }
    }

    fn header(&self, raw: &Raw) -> io::Result<Result<SegmentHeader, Foreign>> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        if raw.size < SEGMENT_HEADER_BYTES {
            return Ok(Err(Foreign::Damaged("the file is too short for a segment")));
        }
        raw.file.read_at(0, &mut bytes)?;
        Ok(SegmentHeader::decode(&bytes).and_then(|header| {
            if header.start != raw.start {
                Err(Foreign::Damaged("the segment begins elsewhere than its name says"))
            } else if header.identity != self.survey.identity {
                Err(Foreign::Damaged("the segment belongs to another store"))
            } else if header.kind == Kind::Packed
                && !(header.start..LAST_POSITION).contains(&header.end)
            {
                Err(Foreign::Damaged("the segment ends before it begins"))
            } else {
                Ok(header)
            }
        }))
    }

    fn damaged(&mut self, start: u64, error: OpenError) -> Result<(), OpenError> {
        if self.survey.damaged.last() != Some(&start) {
            self.survey.damaged.push(start);
        }
        (self.on_problem)(error)
    }

    fn restart_chain(&mut self, start: u64) {
        self.survey.chain_start = start;
        self.survey.collected.restart();
    }

    fn frames(&mut self, index: usize, file: &Arc<dyn DiskFile>) -> Result<bool, OpenError> {
        let Some(raw) = self.raw.get(index) else { return Ok(false) };
        let start = raw.start;
        let next = self.raw.get(index + 1).map(|next| next.start);
        let name = segment_name(start);
        let read = |error| OpenError::Io { file: name.clone(), doing: "read", error };
        let mut frames =
            Frames::new(file, (start, next), start, self.survey.identity).map_err(read)?;
        loop {
            while let Some(frame) = frames.next().map_err(read)? {
                self.survey.synced = self.survey.synced.max(frame.synced);
                self.survey.frames += 1;
                let collected = self.survey.collected.frame(&frame);
                if let Err((position, what)) = collected {
                    let offset = position - start + SEGMENT_HEADER_BYTES;
                    let file = name.clone();
                    self.damaged(start, OpenError::Damaged { file, offset, what })?;
                }
            }
            let end = frames.position();
            self.survey.end = end;
            if next == Some(end) {
                break;
            }
            let ending = frames.ending().map_err(read)?;
            if ending == Ending::Clean && next.is_none() {
                break;
            }
            let here =
                ending != Ending::Clean && frames.evidence_behind(end + 1, end).map_err(read)?;
            if !here && !self.evidence(index + 1, 0, end)? {
                self.push_frames(start, file);
                self.torn_in(index, &ending);
                return Ok(false);
            }
            if ending == Ending::Clean {
                // What follows is missing, or was of no use any more.
                break;
            }
            let offset = end - start + SEGMENT_HEADER_BYTES;
            let what = "there is no whole frame, but what follows was durable";
            self.damaged(start, OpenError::Damaged { file: name.clone(), offset, what })?;
            self.survey.collected.hole();
            if !frames.seek(end + 1).map_err(read)? {
                self.survey.end = next.unwrap_or(end);
                break;
            }
        }
        self.push_frames(start, file);
        Ok(true)
    }

    fn push_frames(&mut self, start: u64, file: &Arc<dyn DiskFile>) {
        let segment = Segment::frames(start, self.survey.end, file.clone());
        self.survey.segments.push(Arc::new(segment));
    }

    fn packed(
        &mut self,
        (start, end): (u64, u64),
        file: &Arc<dyn DiskFile>,
    ) -> Result<(), OpenError> {
        let name = segment_name(start);
        let read = |error| OpenError::Io { file: name.clone(), doing: "read", error };
        self.survey.end = end;
        self.survey.gap_from = start;
        self.restart_chain(end);
        let mut window = Window::new(file).map_err(read)?;
        let mut wrong = None;
        match PackedIndex::load(&mut window, (start, end), &mut |_| {}).map_err(read)? {
            Ok(index) => {
                wrong = index.verify(file).map_err(read)?.err();
                let segment = Segment::packed((start, end), file.clone(), index);
                self.survey.segments.push(Arc::new(segment));
            }
            Err(error) => wrong = wrong.or(Some(error)),
        }
        match wrong {
            Some((offset, what)) => {
                self.damaged(start, OpenError::Damaged { file: name.clone(), offset, what })
            }
            None => Ok(()),
        }
    }

    /// Whether a frame in a segment from `index` on says that more than `position` was durable.
    /// Of the first of them, what stands before `from` is not looked at.
    fn evidence(&self, index: usize, from: u64, position: u64) -> Result<bool, OpenError> {
        for (at, raw) in self.raw.iter().enumerate().skip(index) {
            let name = segment_name(raw.start);
            // A segment is packed only when it is old.
            let header = self.header(raw).map_err(failed(&name, "read"))?;
            if header.is_ok_and(|header| header.kind == Kind::Packed) {
                return Ok(true);
            }
            let next = self.raw.get(at + 1).map(|next| next.start);
            let bounds = (raw.start, next);
            let found = Frames::new(&raw.file, bounds, raw.start, self.survey.identity)
                .and_then(|mut frames| frames.evidence_behind(raw.start.max(from), position));
            if found.map_err(failed(&name, "read"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The end of a segment was torn: with it goes all that follows.
    fn torn_in(&mut self, index: usize, ending: &Ending) {
        let here = if let Ending::Broken(bytes) = ending { *bytes } else { 0 };
        self.cut(index + 1, self.survey.end);
        if let Some(torn) = &mut self.survey.torn {
            torn.bytes += here;
        }
    }

    /// Everything from a segment on was torn.
    fn cut(&mut self, index: usize, end: u64) -> bool {
        let behind = self.raw.get(index..).unwrap_or_default();
        let remove = behind.iter().map(|raw| segment_name(raw.start)).collect();
        let bytes = behind.iter().map(|raw| raw.size).sum();
        self.survey.torn = Some(Torn { remove, bytes });
        self.survey.end = end;
        false
    }
}

/// Which pass counts, and from where on the log is to be read.
pub(crate) struct LastPass {
    pub began: u64,
    /// Bytes that it took; 0: there was none.
    pub bytes: u64,
}

impl Survey {
    /// The last pass that has ended and of which nothing is missing.
    pub(crate) fn last_pass(&self) -> Result<LastPass, OpenError> {
        let began: &HashMap<u64, u64> = &self.collected.passes_began;
        let whole = self.collected.passes_ended.iter().rev();
        let mut whole = whole.filter(|ended| began.get(&ended.pass) == Some(&ended.began));
        if let Some(ended) = whole.next() {
            return Ok(LastPass {
                began: ended.began,
                bytes: ended.position.saturating_sub(ended.began),
            });
        }
        if self.chain_start != FIRST_POSITION {
            return Err(OpenError::Missing { from: self.gap_from, to: self.chain_start });
        }
        Ok(LastPass { began: FIRST_POSITION, bytes: 0 })
    }
}
