//! The PROXY protocol, versions 1 and 2: how a load balancer tells whose connection it passes on.
//!
//! A header stands before all else that comes, also before TLS. Whoever may send one may say what
//! it likes, so that the caller takes them from known addresses only.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::fmt;

/// Longest header of version 1, its line end included.
const V1_LEN_MAX: usize = 107;
const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_HEAD_LEN: usize = 16;
/// Addresses and ports of IPv4, of IPv6, and of Unix sockets.
const V2_ADDRESS_LENS: [u16; 3] = [12, 36, 216];
/// Longest header of version 2 with all that is appended to it.
const V2_LEN_MAX: usize = 4096;

/// Takes the header off the front of a connection. What is not needed of it is not kept.
#[derive(Debug, Default)]
pub struct Decoder {
    head: Vec<u8>,
    /// Bytes of a header of version 2 that are still to come and mean nothing here.
    skip: usize,
    source: Option<SocketAddr>,
}

/// A header that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many of the bytes at hand belonged to it.
    pub used: usize,
    /// Whose connection it is; none if the sender does not say: it is its own, as a health check.
    pub source: Option<SocketAddr>,
}

/// The bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PROXY protocol: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl Decoder {
    /// Input: what was read from the socket. None while the header is not whole.
    ///
    /// # Errors
    /// As soon as it cannot become a header.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Option<Header>, Malformed> {
        let mut used = 0;
        while self.skip == 0 {
            let Some(byte) = bytes.get(used) else { return Ok(None) };
            self.head.push(*byte);
            used += 1;
            if self.handle_head()? {
                break;
            }
        }
        let skipped = self.skip.min(bytes.len() - used);
        self.skip -= skipped;
        used += skipped;
        Ok((self.skip == 0).then_some(Header { used, source: self.source }))
    }

    /// Whether all that is needed is here.
    fn handle_head(&mut self) -> Result<bool, Malformed> {
        let head = self.head.as_slice();
        if starts(head, V1_START) {
            if let Some(line) = head.strip_suffix(b"\r\n") {
                self.source = v1(line)?;
                return Ok(true);
            }
            return match head.len() {
                V1_LEN_MAX => Err(Malformed("the line has more than 107 bytes")),
                _ => Ok(false),
            };
        }
        if !starts(head, V2_START) {
            return Err(Malformed("this address must begin with a header, and has none"));
        }
        let Some((start, rest)) = head.split_first_chunk::<V2_HEAD_LEN>() else {
            return Ok(false);
        };
        let [.., version_and_command, family, len_high, len_low] = *start;
        let len = u16::from_be_bytes([len_high, len_low]);
        let needed = address_len(version_and_command, family, len)?;
        if rest.len() < usize::from(needed) {
            return Ok(false);
        }
        self.source = address(rest);
        self.skip = usize::from(len) - rest.len();
        Ok(true)
    }
}

/// Whether `bytes` begins with `start`, as far as it goes.
fn starts(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(a, b)| a == b)
}

/// How many bytes of an address are to be kept.
fn address_len(version_and_command: u8, family: u8, len: u16) -> Result<u16, Malformed> {
    if V2_HEAD_LEN + usize::from(len) > V2_LEN_MAX {
        return Err(Malformed("the header has more than 4096 bytes"));
    }
    let is_proxied = match version_and_command {
        0x20 => false,
        0x21 => true,
        _ => return Err(Malformed("unknown version or command")),
    };
    // The transport, in the low half, changes nothing.
    if family & 0xf > 2 {
        return Err(Malformed("unknown transport"));
    }
    let at = match family >> 4 {
        // Not specified: whatever follows is skipped.
        0 => return Ok(0),
        at @ 1..=3 => usize::from(at) - 1,
        _ => return Err(Malformed("unknown address family")),
    };
    let whole = V2_ADDRESS_LENS.get(at).copied().unwrap_or_default();
    match (is_proxied, at) {
        (false, _) => Ok(0),
        (true, _) if len < whole => Err(Malformed("the addresses do not fit in their length")),
        (true, 2) => Ok(0),
        (true, _) => Ok(whole),
    }
}

/// Source address and port of version 2.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    if let Ok(&[a, b, c, d, _, _, _, _, high, low, _, _]) = <&[u8; 12]>::try_from(bytes) {
        let ip = Ipv4Addr::new(a, b, c, d);
        return Some(SocketAddr::new(ip.into(), u16::from_be_bytes([high, low])));
    }
    let (source, rest) = bytes.split_first_chunk::<16>()?;
    let port = rest.get(16..18)?.first_chunk::<2>()?;
    let ip = Ipv6Addr::from(*source);
    Some(SocketAddr::new(ip.into(), u16::from_be_bytes(*port)))
}

/// Source address and port of a line of version 1, without its end.
fn v1(line: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    const BAD: Malformed = Malformed("the line is not `PROXY TCP4 SOURCE DESTINATION PORT PORT`");
    let text = std::str::from_utf8(line).map_err(|_| BAD)?;
    let mut words = text.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let [Some(source), Some(destination), Some(port), Some(to_port), None] =
        std::array::from_fn(|_| words.next())
    else {
        return Err(BAD);
    };
    let ip = |text: &str| text.parse::<IpAddr>().map_err(|_| BAD);
    let number = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_plain).ok_or(BAD)
    };
    let (source, destination) = (ip(source)?, ip(destination)?);
    let (port, _) = (number(port)?, number(to_port)?);
    match (family, source, destination) {
        (Some("TCP4"), IpAddr::V4(_), IpAddr::V4(_))
        | (Some("TCP6"), IpAddr::V6(_), IpAddr::V6(_)) => Ok(Some(SocketAddr::new(source, port))),
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(version_and_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_START, &[version_and_command, family][..], &len, body].concat()
    }

    /// The header's outcome, whole and in pieces of every size, with bytes behind it.
    fn decode(header: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
        let bytes = [header, b"\x10\x00"].concat();
        let whole = Decoder::default().handle_bytes(&bytes);
        for size in 1..header.len() {
            let mut decoder = Decoder::default();
            let mut used = 0;
            let mut pieces = bytes.chunks(size);
            let torn = loop {
                match decoder.handle_bytes(pieces.next().expect("an outcome")) {
                    Ok(None) => used += size,
                    Ok(Some(found)) => break Ok(Header { used: used + found.used, ..found }),
                    Err(error) => break Err(error),
                }
            };
            assert_eq!(torn, whole.map(|found| found.expect("whole")), "in pieces of {size}");
        }
        let found = whole?.expect("it is whole");
        assert_eq!(found.used, header.len(), "what follows is left");
        Ok(found.source)
    }

    #[test]
    fn version_1() {
        let source = decode(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
        assert_eq!(source, Ok(Some("192.0.2.1:56324".parse().unwrap())));
        let source = decode(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n");
        assert_eq!(source, Ok(Some("[2001:db8::1]:1".parse().unwrap())));
        assert_eq!(decode(b"PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(decode(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Ok(None));
    }

    #[test]
    fn version_2() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 0xbb];
        let expected = Ok(Some("192.0.2.1:56324".parse().unwrap()));
        assert_eq!(decode(&v2(0x21, 0x11, &v4)), expected);
        assert_eq!(decode(&v2(0x21, 0x12, &v4)), expected, "UDP");
        let with_tlvs = [&v4[..], &[3, 0, 4, 1, 2, 3, 4, 4, 0, 1, 0]].concat();
        assert_eq!(decode(&v2(0x21, 0x11, &with_tlvs)), expected);
        assert_eq!(decode(&v2(0x20, 0x11, &v4)), Ok(None), "LOCAL");
        assert_eq!(decode(&v2(0x20, 0x00, &[])), Ok(None), "LOCAL without anything");
        assert_eq!(decode(&v2(0x21, 0x00, &[1, 2, 3])), Ok(None), "not specified");
        assert_eq!(decode(&v2(0x21, 0x31, &[7; 216])), Ok(None), "Unix");
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[33] = 9;
        assert_eq!(decode(&v2(0x21, 0x21, &v6)), Ok(Some("[::1]:9".parse().unwrap())));
        let longest = [&v4[..], &[0; 4096 - 16 - 12]].concat();
        assert_eq!(decode(&v2(0x21, 0x11, &longest)), expected);
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat();
        for header in [
            &b"\x10\x0c\x00\x04MQTT"[..],
            b"PROXX",
            b"\r\n\r\n\0\r\nQUIX",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n",
            b"PROXY \xff\r\n",
            b"PROXY\r\n",
            &long,
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x41, &[0; 12]),
            &v2(0x21, 0x13, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x31, &[0; 215]),
            &v2(0x21, 0x11, &[0; 4081]),
        ] {
            assert!(decode(header).is_err(), "{}", header.escape_ascii());
        }
        assert!(Decoder::default().handle_bytes(b"\x10").is_err(), "known from the first byte");
    }
}
