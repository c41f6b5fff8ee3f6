//! The frame format of RFC 6455 section 5.2: header, mask, and the frames we send.

use super::{Violation, close_code};

/// The longest header: two bytes, a 64-bit length, a mask key.
pub(super) const HEADER_LEN_MAX: usize = 14;
/// The longest payload of a control frame.
pub(super) const CONTROL_LEN_MAX: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASK: u8 = 0x80;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        self as u8 >= Opcode::Close as u8
    }
}

/// The first two bytes of a frame, which say how long the rest of its header is.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) opcode: Opcode,
    pub(super) fin: bool,
    pub(super) masked: bool,
    len: u8,
}

impl Start {
    /// Applies the rules that need no state.
    pub(super) fn parse(first: u8, second: u8) -> Result<Start, Violation> {
        if first & RESERVED != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Violation::ReservedOpcode),
        };
        let (fin, len) = (first & FIN != 0, second & !MASK);
        if opcode.is_control() && !fin {
            return Err(Violation::ControlFragmented);
        }
        if opcode.is_control() && usize::from(len) > CONTROL_LEN_MAX {
            return Err(Violation::ControlTooLong);
        }
        Ok(Start { opcode, fin, masked: second & MASK != 0, len })
    }

    /// Length of the whole header, these two bytes included.
    pub(super) fn header_len(self) -> usize {
        let extended = match self.len {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if self.masked { 4 } else { 0 }
    }

    /// Payload length and mask key (zero if there is none) of a whole header.
    pub(super) fn finish(self, header: &[u8; HEADER_LEN_MAX]) -> Result<(u64, [u8; 4]), Violation> {
        let [_, _, a, b, c, d, e, f, g, h, i, j, k, l] = *header;
        let (len, least, key) = match self.len {
            126 => (u64::from(u16::from_be_bytes([a, b])), 126, [c, d, e, f]),
            127 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 1 << 16, [i, j, k, l]),
            len => (u64::from(len), 0, [a, b, c, d]),
        };
        if len >> 63 != 0 {
            return Err(Violation::LengthTooLarge);
        }
        if len < least {
            return Err(Violation::LengthNotMinimal);
        }
        Ok((len, if self.masked { key } else { [0; 4] }))
    }
}

/// Masks or unmasks `bytes` (section 5.3), eight at a time, and returns the key for the bytes that
/// follow them in the same frame.
pub(super) fn apply_mask(bytes: &mut [u8], mut key: [u8; 4]) -> [u8; 4] {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let len = bytes.len();
    let (chunks, tail) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, k) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= k;
    }
    key.rotate_left(len % 4);
    key
}

/// Appends the header of an unmasked binary frame, as a server sends it, of `len` payload bytes.
pub fn frame_header(len: usize, out: &mut Vec<u8>) {
    header(Opcode::Binary, len, None, out);
}

/// Appends a close frame with status `code`; [`close_code::NO_STATUS`] gives one without payload.
/// A client passes its mask key.
pub fn close_frame(code: u16, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let payload = code.to_be_bytes();
    frame(Opcode::Close, if code == close_code::NO_STATUS { &[] } else { &payload }, mask, out);
}

/// Appends a whole frame.
pub(super) fn frame(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    header(opcode, payload.len(), mask, out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let (Some(key), Some(copy)) = (mask, out.get_mut(start..)) {
        apply_mask(copy, key);
    }
}

fn header(opcode: Opcode, len: usize, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let bit = if mask.is_some() { MASK } else { 0 };
    out.push(FIN | opcode as u8);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ ..126), _) => out.push(bit | len),
        (_, Ok(len)) => {
            out.push(bit | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(bit | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(mask.as_ref().map_or(&[], |key| key.as_slice()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_the_same_whole_and_torn() {
        let key = [0x11, 0x22, 0x44, 0x88];
        for len in 0..40 {
            let plain: Vec<u8> = (0..len).collect();
            let naive: Vec<u8> =
                plain.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            for split in 0..=plain.len() {
                let mut bytes = plain.clone();
                let (front, back) = bytes.split_at_mut(split);
                let next = apply_mask(front, key);
                apply_mask(back, next);
                assert_eq!(bytes, naive, "length {len} split at {split}");
            }
        }
    }

    #[test]
    fn lengths_take_the_fewest_bytes() {
        for (len, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            frame_header(len, &mut out);
            assert_eq!(out, header);
        }
    }

    #[test]
    fn close_frames() {
        let mut out = Vec::new();
        close_frame(1001, None, &mut out);
        close_frame(close_code::NO_STATUS, None, &mut out);
        close_frame(1000, Some([0xff; 4]), &mut out);
        assert_eq!(out, b"\x88\x02\x03\xe9\x88\x00\x88\x82\xff\xff\xff\xff\xfc\x17");
    }
}
