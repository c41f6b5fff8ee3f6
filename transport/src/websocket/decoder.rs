//! Frames to MQTT bytes, in the caller's buffer.

use std::ops::Range;

use super::control::{Control, parse_close};
use super::frame::{HEADER_LEN_MAX, Opcode, Start, apply_mask};
use super::{End, Violation};

/// Which end of the connection we are: a server takes masked frames only, a client unmasked only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We are the server; frames come from a client.
    Server,
    /// We are the client; frames come from a server.
    Client,
}

/// Decodes the frames of one connection after its opening handshake.
///
/// Holds at most a torn frame header, and behind a pointer a torn control frame and the pong or
/// close frame that waits to be sent; payload is never kept.
#[derive(Debug)]
pub struct Decoder {
    phase: Phase,
    /// Answers and torn control frames; `None` on a connection that is idle.
    control: Option<Box<Control>>,
    /// Bytes of the current message, counted only if there is a maximum and then within it.
    message_len: u32,
    /// The longest message in bytes; `u32::MAX` means no limit.
    message_len_max: u32,
    role: Role,
    /// A data frame without FIN came, its last continuation did not.
    in_message: bool,
    /// We have asked for the close of the connection or answered the peer's.
    closing: bool,
}

/// What one call of `handle_bytes` made of its bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'b> {
    /// MQTT bytes, to be handled before `end`.
    pub mqtt: &'b [u8],
    /// Set once, when nothing more will come.
    pub end: Option<End>,
}

/// Where in the stream of frames the next byte belongs.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Header { len: u8, bytes: [u8; HEADER_LEN_MAX] },
    Payload { left: u64, key: [u8; 4], opcode: Opcode },
    Ended,
}

const NEXT_FRAME: Phase = Phase::Header { len: 0, bytes: [0; HEADER_LEN_MAX] };

impl Decoder {
    /// A decoder at the first frame. `message_len_max` in bytes ends the connection with 1009 on a
    /// longer message; MQTT needs no such limit, as payload is not collected.
    pub fn new(role: Role, message_len_max: Option<u32>) -> Decoder {
        Decoder {
            phase: NEXT_FRAME,
            control: None,
            message_len: 0,
            message_len_max: message_len_max.unwrap_or(u32::MAX),
            role,
            in_message: false,
            closing: false,
        }
    }

    /// Decodes all of `bytes`, which it overwrites. The payload of one frame stays where it is;
    /// that of further ones moves up to it, so that the caller gets one slice however small the
    /// frames.
    pub fn handle_bytes<'b>(&mut self, bytes: &'b mut [u8]) -> Decoded<'b> {
        let mut mqtt = 0..0;
        let end = self.decode(bytes, &mut mqtt).err();
        if let Some(end) = &end {
            self.phase = Phase::Ended;
            if let Some(code) = end.answer() {
                self.close(code);
            }
        }
        let bytes: &'b [u8] = bytes;
        Decoded { mqtt: bytes.get(mqtt).unwrap_or_default(), end }
    }

    /// Command: a close frame with status `code` goes out next, unless one did already.
    pub fn close(&mut self, code: u16) {
        if !self.closing {
            self.closing = true;
            self.control_mut().close = Some(code);
        }
    }

    /// Whether a pong or close frame waits to be sent.
    pub fn has_output(&self) -> bool {
        self.control.as_ref().is_some_and(|c| c.pong.is_some() || c.close.is_some())
    }

    /// Appends the pong and close frames that wait; it may be called at a frame's border only.
    /// `mask` gives the mask key of each frame: random for a client, `None` for a server.
    pub fn poll_output(&mut self, mask: &mut impl FnMut() -> Option<[u8; 4]>, out: &mut Vec<u8>) {
        self.drain(true, mask, out);
    }

    /// Whether a close frame of ours is asked for, waits, or has been sent.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether a close frame of ours has been handed out by [`Decoder::poll_output`]: nothing may
    /// follow it.
    pub fn is_close_sent(&self) -> bool {
        self.closing && self.control.as_ref().is_none_or(|control| control.close.is_none())
    }

    /// Appends what waits, the close frame only if `may_close`: it must follow the data.
    pub(super) fn drain(
        &mut self,
        may_close: bool,
        mask: &mut impl FnMut() -> Option<[u8; 4]>,
        out: &mut Vec<u8>,
    ) {
        if let Some(control) = &mut self.control {
            control.drain(may_close, mask, out);
            self.drop_empty_control();
        }
    }

    fn decode(&mut self, bytes: &mut [u8], mqtt: &mut Range<usize>) -> Result<(), End> {
        let mut at = 0;
        while at < bytes.len() {
            match self.phase {
                Phase::Header { .. } => {
                    let header = bytes.get(at..).unwrap_or_default();
                    at += self.handle_header(header).map_err(End::Violation)?;
                    if let Phase::Payload { left: 0, opcode, .. } = self.phase {
                        self.finish_frame(opcode, &[])?;
                    }
                }
                Phase::Payload { left, key, opcode } => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    let piece = at..at + len;
                    at = piece.end;
                    let payload = bytes.get_mut(piece.clone()).unwrap_or_default();
                    let left = left - len as u64;
                    self.phase = Phase::Payload { left, key: apply_mask(payload, key), opcode };
                    if opcode.is_control() {
                        self.handle_control(opcode, left == 0, payload)?;
                    } else {
                        append(bytes, mqtt, piece);
                        if left == 0 {
                            self.phase = NEXT_FRAME;
                        }
                    }
                }
                Phase::Ended => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes header bytes from the front of `input` and says how many. One call takes either the
    /// first two or the rest, so that a bad frame is known from its first two bytes.
    fn handle_header(&mut self, input: &[u8]) -> Result<usize, Violation> {
        let Phase::Header { len, bytes } = &mut self.phase else { return Ok(0) };
        let have = usize::from(*len);
        let want = match *bytes {
            [first, second, ..] if have >= 2 => Start::parse(first, second)?.header_len(),
            _ => 2,
        };
        let mut taken = 0;
        for (slot, byte) in bytes.iter_mut().take(want).skip(have).zip(input) {
            *slot = *byte;
            taken += 1;
        }
        *len += taken;
        let (whole, bytes) = (usize::from(*len) == want, *bytes);
        if whole {
            let [first, second, ..] = bytes;
            let start = Start::parse(first, second)?;
            if want == 2 {
                self.check(start)?;
            }
            if start.header_len() == want {
                let (left, key) = start.finish(&bytes)?;
                self.begin_frame(start, left)?;
                self.phase = Phase::Payload { left, key, opcode: start.opcode };
            }
        }
        Ok(usize::from(taken))
    }

    /// The rules on a frame's first two bytes that depend on the connection.
    fn check(&self, start: Start) -> Result<(), Violation> {
        match (self.role, start.masked) {
            (Role::Server, false) => return Err(Violation::NotMasked),
            (Role::Client, true) => return Err(Violation::Masked),
            _ => {}
        }
        match (start.opcode, self.in_message) {
            // [MQTT-6.0.0-1]
            (Opcode::Text, _) => Err(Violation::Text),
            (Opcode::Continuation, false) => Err(Violation::NothingToContinue),
            (Opcode::Binary, true) => Err(Violation::MessageInterleaved),
            _ => Ok(()),
        }
    }

    /// Keeps account of messages when a frame's header is whole.
    fn begin_frame(&mut self, start: Start, len: u64) -> Result<(), Violation> {
        if start.opcode.is_control() {
            return Ok(());
        }
        if self.message_len_max != u32::MAX {
            let before = if start.opcode == Opcode::Binary { 0 } else { self.message_len };
            self.message_len = u32::try_from(len)
                .ok()
                .and_then(|len| before.checked_add(len))
                .filter(|len| *len <= self.message_len_max)
                .ok_or(Violation::MessageTooLong)?;
        }
        self.in_message = !start.fin;
        Ok(())
    }

    /// A piece of a control frame's payload, the last one if `last`.
    fn handle_control(&mut self, opcode: Opcode, last: bool, piece: &[u8]) -> Result<(), End> {
        let is_torn = self.control.as_ref().is_some_and(|c| !c.torn.as_slice().is_empty());
        if last && !is_torn {
            return self.finish_frame(opcode, piece);
        }
        let torn = &mut self.control_mut().torn;
        torn.extend(piece);
        if last {
            let whole = std::mem::take(torn);
            self.finish_frame(opcode, whole.as_slice())?;
            self.drop_empty_control();
        }
        Ok(())
    }

    /// The frame is whole; `payload` is that of a control frame, empty for data.
    fn finish_frame(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), End> {
        self.phase = NEXT_FRAME;
        match opcode {
            // After a close frame of ours nothing may be sent, not even a pong.
            Opcode::Ping if !self.closing => self.control_mut().pong = Some(payload.into()),
            Opcode::Close => {
                let code = parse_close(payload).map_err(End::Violation)?;
                return Err(End::PeerClosed { code });
            }
            _ => {}
        }
        Ok(())
    }

    fn control_mut(&mut self) -> &mut Control {
        self.control.get_or_insert_default()
    }

    fn drop_empty_control(&mut self) {
        if self.control.as_ref().is_some_and(|control| control.is_empty()) {
            self.control = None;
        }
    }
}

/// Makes `piece` of `bytes` the end of the `mqtt` range, which lies before it.
fn append(bytes: &mut [u8], mqtt: &mut Range<usize>, piece: Range<usize>) {
    if mqtt.start == mqtt.end {
        *mqtt = piece;
    } else {
        let len = piece.len();
        if mqtt.end != piece.start {
            bytes.copy_within(piece, mqtt.end);
        }
        mqtt.end += len;
    }
}
