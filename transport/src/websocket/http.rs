//! What both ends of the opening handshake share: the HTTP head and its header fields.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::Header;
use sha1::{Digest, Sha1};

/// The longest HTTP head in bytes, its empty line included.
pub(super) const HEAD_LEN_MAX: usize = 8 * 1024;
/// The most header fields of a head; browsers send about fifteen.
pub(super) const HEADERS_MAX: usize = 64;

/// The sub-protocol of MQTT over WebSocket `[MQTT-6.0.0-3]`.
pub(super) const MQTT: &str = "mqtt";

/// An HTTP head as it comes in.
#[derive(Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens stand in it.
        write!(f, "Head({} bytes)", self.bytes.len())
    }
}

/// More than [`HEAD_LEN_MAX`] bytes without an end.
#[derive(Debug)]
pub(super) struct HeadTooLong;

impl Head {
    /// Takes what belongs to the head. Once it is whole, says how many bytes of `input` were its.
    pub(super) fn extend(&mut self, input: &[u8]) -> Result<Option<usize>, HeadTooLong> {
        let had = self.bytes.len();
        self.bytes.extend(input.iter().take(HEAD_LEN_MAX.saturating_sub(had)));
        // An end that is torn begins at most three bytes back; what lies before is searched once.
        let from = had.saturating_sub(3);
        let fresh = self.bytes.get(from..).unwrap_or_default();
        match fresh.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(position) => {
                self.bytes.truncate(from + position + 4);
                Ok(Some(self.bytes.len() - had))
            }
            None if self.bytes.len() == HEAD_LEN_MAX => Err(HeadTooLong),
            None => Ok(None),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The only field called `name`, trimmed; an error if there are several or it is not UTF-8.
pub(super) fn single<'h>(headers: &[Header<'h>], name: &str) -> Result<Option<&'h str>, ()> {
    let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(header), None) => {
            std::str::from_utf8(header.value).map(|value| Some(value.trim())).map_err(|_| ())
        }
        _ => Err(()),
    }
}

/// The members of the comma-separated list that all fields called `name` make together.
pub(super) fn list<'h>(headers: &[Header<'h>], name: &str) -> impl Iterator<Item = &'h str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .flat_map(|value| value.split(',').map(str::trim))
}

/// Whether that list has `token`, in upper or lower case.
pub(super) fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    list(headers, name).any(|member| member.eq_ignore_ascii_case(token))
}

/// The `Sec-WebSocket-Accept` that proves that `key` was read (RFC 6455 section 4.2.2).
pub(super) fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_head_ends_at_its_empty_line_however_torn() {
        let bytes = b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest";
        for split in 0..=bytes.len() {
            let (first, second) = bytes.split_at(split);
            let mut head = Head::default();
            let taken = match head.extend(first).unwrap() {
                Some(taken) => taken,
                None => split + head.extend(second).unwrap().unwrap(),
            };
            assert_eq!(&bytes[taken..], b"rest");
            assert_eq!(head.as_bytes(), &bytes[..taken]);
        }
    }

    #[test]
    fn a_head_never_exceeds_its_limit() {
        let mut head = Head::default();
        assert!(head.extend(&[b'a'; HEAD_LEN_MAX - 1]).unwrap().is_none());
        assert!(head.extend(b"b\r\n\r\n").is_err());
        assert_eq!(head.as_bytes().len(), HEAD_LEN_MAX);

        let mut whole = vec![b'a'; HEAD_LEN_MAX - 4];
        whole.extend(b"\r\n\r\n");
        assert_eq!(Head::default().extend(&whole).unwrap(), Some(HEAD_LEN_MAX));
    }
}
