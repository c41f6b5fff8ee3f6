//! Control frames: the one that is torn, and the answers that wait to be sent.

use super::Violation;
use super::frame::{CONTROL_LEN_MAX, Opcode, close_frame, frame};

/// What only a few connections have at a time, so that it stands behind one pointer.
///
/// Only the latest ping is answered (section 5.5.3 allows it), so a flood of them needs no memory.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// The payload so far of a control frame that is not whole yet.
    pub(super) torn: Payload,
    /// The answer to the latest ping.
    pub(super) pong: Option<Payload>,
    /// The status code of the close frame to send.
    pub(super) close: Option<u16>,
}

impl Control {
    pub(super) fn is_empty(&self) -> bool {
        self.torn.len == 0 && self.pong.is_none() && self.close.is_none()
    }

    /// Appends the frames that wait, the close frame only if `may_close`.
    pub(super) fn drain(
        &mut self,
        may_close: bool,
        mask: &mut impl FnMut() -> Option<[u8; 4]>,
        out: &mut Vec<u8>,
    ) {
        if let Some(pong) = self.pong.take() {
            frame(Opcode::Pong, pong.as_slice(), mask(), out);
        }
        if may_close && let Some(code) = self.close.take() {
            close_frame(code, mask(), out);
        }
    }
}

/// Up to 125 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    len: u8,
    bytes: [u8; CONTROL_LEN_MAX],
}

impl Default for Payload {
    fn default() -> Payload {
        Payload { len: 0, bytes: [0; CONTROL_LEN_MAX] }
    }
}

impl Payload {
    /// Appends what fits; the frame header has already been held to the limit.
    pub(super) fn extend(&mut self, piece: &[u8]) {
        let free = self.bytes.iter_mut().skip(usize::from(self.len));
        for (slot, byte) in free.zip(piece) {
            *slot = *byte;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Payload {
        let mut payload = Payload::default();
        payload.extend(bytes);
        payload
    }
}

/// The status code of a close frame's payload (section 5.5.1), `None` if it is empty.
pub(super) fn parse_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::CloseTruncated),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // 1004-1006 and 1015 must not be sent; the others below 3000 mean nothing yet.
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Violation::CloseCode);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::CloseReason)?;
            Ok(Some(code))
        }
    }
}
