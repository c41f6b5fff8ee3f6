//! The fixed parts of the files: names, `STORE`, headers of segments and frames, the index of a
//! packed segment (`format.md`).

/// The one format that this code writes; it reads those before it.
pub(crate) const FORMAT: u32 = 2;
/// Positions begin here, so that 0 can stand for "none".
pub(crate) const FIRST_POSITION: u64 = 4096;
/// No log gets so long; what says so is damaged. So sums of positions do not overflow.
pub(crate) const LAST_POSITION: u64 = 1 << 62;
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
/// A packed segment's index: one entry.
pub(crate) const INDEX_ENTRY_BYTES: usize = 20;

pub(crate) const STORE_FILE: &str = "STORE";
pub(crate) const STORE_TMP: &str = "STORE.tmp";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const RESERVE_FILE: &str = "reserve";
pub(crate) const TMP_SUFFIX: &str = ".tmp";

const MAGIC: &[u8; 8] = b"WHIMBREL";

/// The file that begins at `start`.
pub(crate) fn segment_name(start: u64) -> String {
    format!("log-{start:016x}")
}

/// Where the segment of this name begins; none: it is no segment's name.
pub(crate) fn segment_start(name: &str) -> Option<u64> {
    let start = u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()?;
    let possible = (FIRST_POSITION..LAST_POSITION).contains(&start);
    (possible && segment_name(start) == name).then_some(start)
}

/// The text of `STORE`.
pub(crate) fn store_text(identity: u64) -> String {
    text_of(FORMAT, identity)
}

fn text_of(format: u32, identity: u64) -> String {
    format!("whimbrel store\nformat {format}\nid {identity:016x}\n")
}

/// What is wrong with a file that says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// It was made by a later version.
    Later(u32),
    /// It is not what it should be.
    Damaged(&'static str),
}

/// The identity that `STORE` holds.
pub(crate) fn parse_store(text: &[u8]) -> Result<u64, Foreign> {
    let bad = Foreign::Damaged("this is not how a store's file STORE looks");
    let text = std::str::from_utf8(text).map_err(|_| bad)?;
    let rest = text.strip_prefix("whimbrel store\nformat ").ok_or(bad)?;
    let (format, rest) = rest.split_once('\n').ok_or(bad)?;
    let format = format.parse::<u32>().map_err(|_| bad)?;
    if format > FORMAT {
        return Err(Foreign::Later(format));
    }
    if format == 0 {
        return Err(bad);
    }
    let id = rest.strip_prefix("id ").and_then(|id| id.strip_suffix('\n')).ok_or(bad)?;
    let identity = u64::from_str_radix(id, 16).map_err(|_| bad)?;
    // Exactly as it was written, so that no damaged byte goes unseen.
    if text == text_of(format, identity) { Ok(identity) } else { Err(bad) }
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Frames,
    Packed,
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub kind: Kind,
    pub start: u64,
    /// Of a packed segment; 0 else.
    pub end: u64,
    pub identity: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(self.kind as u32).to_le_bytes());
        for field in [self.start, self.end, self.identity] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.resize(SEGMENT_HEADER_BYTES as usize - 4, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        header.copy_from_slice(&out);
        header
    }

    pub(crate) fn decode(
        header: &[u8; SEGMENT_HEADER_BYTES as usize],
    ) -> Result<SegmentHeader, Foreign> {
        let body = header.get(..SEGMENT_HEADER_BYTES as usize - 4).unwrap_or_default();
        if !body.starts_with(MAGIC) {
            return Err(Foreign::Damaged("this is not the beginning of a segment"));
        }
        if crc32fast::hash(body) != u32_at(header, 60) {
            return Err(Foreign::Damaged("the checksum of the segment's header is wrong"));
        }
        if u32_at(header, 8) > FORMAT {
            return Err(Foreign::Later(u32_at(header, 8)));
        }
        let kind = match u32_at(header, 12) {
            0 => Kind::Frames,
            1 => Kind::Packed,
            _ => return Err(Foreign::Damaged("there is no such kind of segment")),
        };
        Ok(SegmentHeader {
            kind,
            start: u64_at(header, 16),
            end: u64_at(header, 24),
            identity: u64_at(header, 32),
        })
    }
}

/// The first bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Of the records.
    pub len: u32,
    crc: u32,
    pub position: u64,
    /// Everything before this was durable when the frame was written.
    pub synced: u64,
}

impl FrameHeader {
    pub(crate) fn decode(bytes: &[u8]) -> FrameHeader {
        FrameHeader {
            len: u32_at(bytes, 0),
            crc: u32_at(bytes, 4),
            position: u64_at(bytes, 8),
            synced: u64_at(bytes, 16),
        }
    }

    /// Bytes of the frame.
    pub(crate) fn total(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.len)
    }

    /// Whether `frame`, which begins with this header, is whole.
    pub(crate) fn verify(&self, frame: &[u8], identity: u64) -> bool {
        frame_crc(frame, identity) == self.crc
    }
}

/// Fills in the header of a frame, for which room is at its front.
pub(crate) fn seal_frame(frame: &mut [u8], position: u64, synced: u64, identity: u64) {
    let len = (frame.len() - FRAME_HEADER_BYTES) as u32;
    put(frame, 0, &len.to_le_bytes());
    put(frame, 8, &position.to_le_bytes());
    put(frame, 16, &synced.to_le_bytes());
    let crc = frame_crc(frame, identity);
    put(frame, 4, &crc.to_le_bytes());
}

/// Begins with the store's identity, which no client knows: so bytes that somebody published are
/// never taken for a frame.
fn frame_crc(frame: &[u8], identity: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(identity as u32);
    hasher.update(frame.get(..4).unwrap_or_default());
    hasher.update(frame.get(8..).unwrap_or_default());
    hasher.finalize()
}

/// One message of a packed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub position: u64,
    /// In the file.
    pub place: u64,
    pub len: u32,
}

impl IndexEntry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.position.to_le_bytes());
        out.extend_from_slice(&self.place.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> IndexEntry {
        IndexEntry { position: u64_at(bytes, 0), place: u64_at(bytes, 8), len: u32_at(bytes, 16) }
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(*field.unwrap_or(&[0; 4]))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u64::from_le_bytes(*field.unwrap_or(&[0; 8]))
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}
