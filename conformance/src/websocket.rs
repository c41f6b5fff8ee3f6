//! A broker that listens for WebSocket connections (RFC 6455, section 6 of MQTT).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::port::{Broker, Connection, Received, Tcp};

/// The example of RFC 6455, section 1.3: a key, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A broker that listens for WebSocket connections.
#[derive(Clone, Debug)]
pub struct WebSocket {
    /// Where it listens.
    pub address: SocketAddr,
    /// The path of the request, such as `/mqtt`.
    pub path: String,
}

impl Broker for WebSocket {
    fn open(&self) -> Result<Box<dyn Connection>, String> {
        let tcp = Tcp { address: self.address };
        let mut stream = tcp.connect()?;
        let rest = shake_hands(&mut stream, self)
            .map_err(|error| format!("no WebSocket connection to {}: {error}", self.address))?;
        Ok(Box::new(End { stream, bytes: rest, closed: false }))
    }

    fn advance(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn patience(&self) -> Duration {
        Tcp { address: self.address }.patience()
    }

    fn silence(&self) -> Duration {
        Tcp { address: self.address }.silence()
    }
}

/// Asks for the sub-protocol `mqtt` and checks that it is selected `[MQTT-6.0.0-4]`; returns the
/// bytes that came after the answer.
fn shake_hands(stream: &mut TcpStream, to: &WebSocket) -> Result<Vec<u8>, String> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n",
        to.path, to.address
    );
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(to.patience())).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let end = loop {
        if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk) {
            Ok(0) => return Err("closed during the handshake".to_owned()),
            Ok(len) => answer.extend_from_slice(chunk.get(..len).unwrap_or_default()),
            Err(error) => return Err(error.to_string()),
        }
    };
    let rest = answer.split_off(end);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let has = |name: &str, value: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(header, text)| header.trim().eq_ignore_ascii_case(name) && text.trim() == value)
    };
    let line = head.lines().next().unwrap_or_default();
    if !line.starts_with("HTTP/1.1 101") {
        return Err(format!("expected status 101, came '{line}'"));
    }
    if !has("sec-websocket-accept", ACCEPT) {
        return Err("Sec-WebSocket-Accept is missing or wrong".to_owned());
    }
    if !has("sec-websocket-protocol", "mqtt") {
        return Err("the sub-protocol mqtt was not selected".to_owned());
    }
    Ok(rest)
}

struct End {
    stream: TcpStream,
    /// A torn frame.
    bytes: Vec<u8>,
    closed: bool,
}

impl Connection for End {
    fn send(&mut self, bytes: &[u8]) {
        self.frame(BINARY, bytes);
    }

    fn send_text(&mut self, bytes: &[u8]) -> bool {
        self.frame(TEXT, bytes);
        true
    }

    fn has_frames(&self) -> bool {
        true
    }

    fn receive(&mut self, timeout: Duration, bytes: &mut Vec<u8>) -> Received {
        let before = bytes.len();
        // What came with the handshake's answer may be whole.
        self.unframe(bytes);
        if bytes.len() == before && !self.closed {
            match self.stream.receive(timeout, &mut self.bytes) {
                Received::Bytes => self.unframe(bytes),
                Received::Closed => self.closed = true,
                Received::Nothing => {}
            }
        }
        if bytes.len() > before {
            Received::Bytes
        } else if self.closed {
            Received::Closed
        } else {
            Received::Nothing
        }
    }

    fn close(&mut self) {
        Connection::close(&mut self.stream);
    }
}

impl End {
    /// Sends one frame. What comes from a client is masked; with zeros, that changes nothing.
    fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len @ 126..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        self.stream.send(&frame);
    }

    /// Takes the payloads of all whole frames. A frame that no MQTT server may send is taken for
    /// the end of the connection `[MQTT-6.0.0-1]`.
    fn unframe(&mut self, bytes: &mut Vec<u8>) {
        while !self.closed
            && let Some((opcode, header_len, len)) = header(&self.bytes)
            && self.bytes.len() - header_len >= len
        {
            let rest = self.bytes.split_off(header_len + len);
            let frame = std::mem::replace(&mut self.bytes, rest);
            let payload = frame.get(header_len..).unwrap_or_default();
            match opcode {
                BINARY | CONTINUATION => bytes.extend_from_slice(payload),
                PING => self.frame(PONG, payload),
                PONG => {}
                CLOSE => {
                    self.frame(CLOSE, payload);
                    self.closed = true;
                }
                _ => self.closed = true,
            }
        }
    }
}

/// Opcode, length of the header and length of the payload of the first frame.
fn header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let opcode = bytes.first()? & 0x0f;
    Some(match bytes.get(1)? & 0x7f {
        126 => {
            let len = bytes.get(2..4)?.try_into().ok()?;
            (opcode, 4, usize::from(u16::from_be_bytes(len)))
        }
        127 => {
            let len = bytes.get(2..10)?.try_into().ok()?;
            (opcode, 10, u64::from_be_bytes(len) as usize)
        }
        len => (opcode, 2, usize::from(len)),
    })
}
