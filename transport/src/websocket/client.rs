//! The client's end: asks for the WebSocket, checks the answer, then decodes the server's frames
//! and masks what the client sends.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::End;
use super::decoder::{Decoded, Decoder, Role};
use super::frame::{Opcode, frame};
use super::http::{HEADERS_MAX, Head, MQTT, accept, has_token, single};

/// Where to ask for the WebSocket.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The `Host` header: name or address, and the port unless it is the scheme's own.
    pub host: &'a str,
    /// The request target, as `/mqtt`, with its query string if any.
    pub path: &'a str,
    /// Further header fields, as `("Authorization", "Bearer ...")`.
    pub headers: &'a [(&'a str, &'a str)],
}

/// The client's end of one connection.
#[derive(Debug)]
pub struct Client {
    state: State,
}

#[derive(Debug)]
enum State {
    Handshake(Box<Handshake>),
    Open(Decoder),
    Failed,
}

struct Handshake {
    /// The request until it is handed out.
    request: Vec<u8>,
    /// The `Sec-WebSocket-Accept` that the server must answer with.
    accept: String,
    head: Head,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens stand in the request.
        f.debug_struct("Handshake").field("head", &self.head).finish_non_exhaustive()
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("host", &self.host).finish_non_exhaustive()
    }
}

/// The caller's [`Request`] cannot be written as HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRequest {
    /// What is wrong: `host`, `path`, or the name of a header field.
    pub part: String,
}

impl Client {
    /// A connection that asks for `request`; `nonce` is 16 random bytes.
    pub fn new(request: &Request<'_>, nonce: [u8; 16]) -> Result<Client, InvalidRequest> {
        check(request)?;
        let Request { host, path, headers } = request;
        let key = STANDARD.encode(nonce);
        // [MQTT-6.0.0-3]
        let mut text = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Protocol: {MQTT}\r\n"
        );
        for (name, value) in *headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        let handshake =
            Handshake { request: text.into_bytes(), accept: accept(&key), head: Head::default() };
        Ok(Client { state: State::Handshake(Box::new(handshake)) })
    }

    /// Input: all that was read from the socket. Decodes in `bytes` itself, which it overwrites.
    pub fn handle_bytes<'b>(&mut self, bytes: &'b mut [u8]) -> Decoded<'b> {
        match &mut self.state {
            State::Open(decoder) => decoder.handle_bytes(bytes),
            State::Failed => Decoded { mqtt: &[], end: None },
            State::Handshake(handshake) => match handshake.handle_bytes(bytes) {
                Ok(None) => Decoded { mqtt: &[], end: None },
                Ok(Some(head_len)) => {
                    let mut decoder = Decoder::new(Role::Client, None);
                    let frames = bytes.get_mut(head_len..).unwrap_or_default();
                    let decoded = decoder.handle_bytes(frames);
                    self.state = State::Open(decoder);
                    decoded
                }
                Err(failure) => {
                    self.state = State::Failed;
                    Decoded { mqtt: &[], end: Some(End::Failed(failure)) }
                }
            },
        }
    }

    /// Output: appends what the layer itself has to send: the request at first, pongs and close
    /// frames later. `mask` gives four fresh random bytes at each call, that no script on the way
    /// can foresee (RFC 6455 section 10.3).
    pub fn poll_output(&mut self, mask: &mut impl FnMut() -> [u8; 4], out: &mut Vec<u8>) {
        match &mut self.state {
            State::Handshake(handshake) => out.append(&mut handshake.request),
            State::Open(decoder) => decoder.poll_output(&mut || Some(mask()), out),
            State::Failed => {}
        }
    }

    /// Output: appends `mqtt` as one binary frame `[MQTT-6.0.0-1]`; `mask` as for
    /// [`Client::poll_output`]. Appends nothing unless the connection is open and we have not
    /// closed it, and returns whether it did.
    #[must_use = "bytes that are not framed are not sent"]
    pub fn encode(
        &mut self,
        mqtt: &[u8],
        mask: &mut impl FnMut() -> [u8; 4],
        out: &mut Vec<u8>,
    ) -> bool {
        match &self.state {
            State::Open(decoder) if !decoder.is_close_sent() => {
                frame(Opcode::Binary, mqtt, Some(mask()), out);
                true
            }
            _ => false,
        }
    }

    /// Command: a close frame with status `code` is the next output.
    pub fn close(&mut self, code: u16) {
        match &mut self.state {
            State::Open(decoder) => decoder.close(code),
            _ => self.state = State::Failed,
        }
    }

    /// Whether the server opened the WebSocket, so that MQTT bytes may be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }
}

impl Handshake {
    /// How many of `bytes` belonged to the response once it is whole and right.
    fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let whole = self.head.extend(bytes).map_err(|_| Failure::HeadTooLong)?;
        let Some(head_len) = whole else { return Ok(None) };
        check_response(self.head.as_bytes(), &self.accept)?;
        Ok(Some(head_len))
    }
}

/// Holds a whole response to RFC 6455 section 4.1.
fn check_response(head: &[u8], accept: &str) -> Result<(), Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Failure::HeadTooLong),
        _ => return Err(Failure::NotHttp),
    }
    match parsed.code {
        Some(101) => {}
        Some(status) => return Err(Failure::Status(status)),
        None => return Err(Failure::NotHttp),
    }
    let headers = &*parsed.headers;
    let is = |name, value| single(headers, name) == Ok(Some(value));
    if !has_token(headers, "Upgrade", "websocket") {
        return Err(Failure::Header("Upgrade"));
    }
    if !has_token(headers, "Connection", "upgrade") {
        return Err(Failure::Header("Connection"));
    }
    if !is("Sec-WebSocket-Accept", accept) {
        return Err(Failure::Header("Sec-WebSocket-Accept"));
    }
    if single(headers, "Sec-WebSocket-Extensions") != Ok(None) {
        return Err(Failure::Header("Sec-WebSocket-Extensions"));
    }
    // [MQTT-6.0.0-4]
    if !is("Sec-WebSocket-Protocol", MQTT) {
        return Err(Failure::SubProtocol);
    }
    Ok(())
}

/// Refuses what would let a value end its line and begin another.
fn check(request: &Request<'_>) -> Result<(), InvalidRequest> {
    let invalid = |part: &str| Err(InvalidRequest { part: part.to_owned() });
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_word(request.host) {
        return invalid("host");
    }
    if !is_word(request.path) || !request.path.starts_with('/') {
        return invalid("path");
    }
    for (name, value) in request.headers {
        let is_line = !value.chars().any(char::is_control);
        if !is_word(name) || name.contains(':') || !is_line {
            return invalid(name);
        }
    }
    Ok(())
}

/// Why a server's answer opens no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The bytes are no HTTP response.
    NotHttp,
    /// The head has more than 8 KiB or 64 header fields.
    HeadTooLong,
    /// Another status than 101, as 401 or 404.
    Status(u16),
    /// This header field is missing or wrong.
    Header(&'static str),
    /// The server did not choose the sub-protocol `mqtt` `[MQTT-6.0.0-4]`.
    SubProtocol,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotHttp => f.write_str("the server does not answer in HTTP"),
            Failure::HeadTooLong => f.write_str("the server's HTTP head is too long"),
            Failure::Status(status) => {
                write!(f, "the server answers HTTP status {status} instead of a WebSocket")
            }
            Failure::Header(name) => write!(f, "the server's header {name} is missing or wrong"),
            Failure::SubProtocol => {
                f.write_str("the server does not choose the WebSocket sub-protocol mqtt")
            }
        }
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the WebSocket request's {} has characters that HTTP forbids", self.part)
    }
}

impl std::error::Error for InvalidRequest {}
