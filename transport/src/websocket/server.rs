//! The server's end: checks the opening handshake, then decodes the client's frames and frames
//! what the server sends.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::End;
use super::decoder::{Decoded, Decoder, Role};
use super::frame::frame_header;
use super::http::{HEADERS_MAX, Head, MQTT, accept, has_token, list, single};

/// The sub-protocol that clients for MQTT 3.1 used to name.
const MQTT_3_1: &str = "mqttv3.1";

/// What a listener accepts; shared by its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The path of the request target, as `/mqtt`; its query string is not looked at.
    pub path: String,
    /// The longest message in bytes, `None` without limit: payload is not collected, so that the
    /// limits on MQTT packets suffice.
    pub message_len_max: Option<u32>,
    /// The origins whose web pages may connect, as `https://example.org`; `*` stands for all.
    /// None: those of the host that they connect to. Who sends no origin is no web page.
    pub origins: Option<Vec<String>>,
}

impl Default for Config {
    fn default() -> Config {
        Config { path: "/mqtt".to_owned(), message_len_max: None, origins: None }
    }
}

/// The server's end of one connection; at most 64 bytes while it is idle.
#[derive(Debug)]
pub struct Server {
    state: State,
    /// What the socket did not take of the layer's own bytes.
    #[expect(clippy::box_collection, reason = "nearly always none, which then takes one pointer")]
    unsent: Option<Box<Vec<u8>>>,
    /// Payload bytes still to be sent in the frame whose header went out.
    payload_left: u32,
}

#[derive(Debug)]
enum State {
    Handshake(Box<Handshake>),
    Open(Decoder),
    Refused,
}

#[derive(Debug)]
struct Handshake {
    head: Head,
    config: Arc<Config>,
}

/// What one call of [`Server::handle_bytes`] made of its bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'b> {
    /// Set once, when the opening handshake is accepted.
    pub opened: Option<Box<Request>>,
    /// MQTT bytes, to be handled before `end`.
    pub mqtt: &'b [u8],
    /// Set once, when nothing more will come: send what waits, then close the socket.
    pub end: Option<End>,
}

/// What the client asked with, for those who decide whether it may.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The request target as sent, with its query string.
    pub target: Box<str>,
    /// The `Authorization` header.
    pub authorization: Option<Box<str>>,
    /// The `Origin` header: browsers send it, and any page may open a WebSocket to any host.
    pub origin: Option<Box<str>>,
}

impl Request {
    /// The token of `Authorization: Bearer` (RFC 6750).
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.authorization.as_deref()?.split_once(' ')?;
        let token = token.trim_start_matches(' ');
        (scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty()).then_some(token)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens stand in one header, and sometimes in the query string.
        f.debug_struct("Request").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Server {
    /// A connection of which no byte has been read.
    pub fn new(config: Arc<Config>) -> Server {
        let handshake = Handshake { head: Head::default(), config };
        Server { state: State::Handshake(Box::new(handshake)), unsent: None, payload_left: 0 }
    }

    /// Input: all that was read from the socket. Decodes in `bytes` itself, which it overwrites.
    pub fn handle_bytes<'b>(&mut self, bytes: &'b mut [u8]) -> Received<'b> {
        match &mut self.state {
            State::Open(decoder) => {
                let Decoded { mqtt, end } = decoder.handle_bytes(bytes);
                Received { opened: None, mqtt, end }
            }
            State::Refused => Received { opened: None, mqtt: &[], end: None },
            State::Handshake(handshake) => match handshake.handle_bytes(bytes) {
                Ok(None) => Received { opened: None, mqtt: &[], end: None },
                Ok(Some(accepted)) => self.open(accepted, bytes),
                Err(refusal) => {
                    self.unsent = Some(Box::new(refusal.response().into_bytes()));
                    self.state = State::Refused;
                    Received { opened: None, mqtt: &[], end: Some(End::Refused(refusal)) }
                }
            },
        }
    }

    /// Output: what to send while `waiting` MQTT bytes wait. Overwrites `head` with the layer's own
    /// bytes and returns how many of the MQTT bytes may follow them: send `head` and then those, in
    /// one vectored write, and tell the result to [`Server::handle_written`] before anything else.
    ///
    /// A pong goes out at the next border between frames, a close frame once `waiting` is zero.
    pub fn poll_send(&mut self, waiting: usize, head: &mut Vec<u8>) -> usize {
        head.clear();
        if let Some(unsent) = &self.unsent {
            head.extend_from_slice(unsent);
        }
        if let State::Open(decoder) = &mut self.state
            && self.payload_left == 0
        {
            // Only then, or the pongs to one who never reads would pile up in `unsent`.
            if self.unsent.is_none() {
                decoder.drain(waiting == 0, &mut || None, head);
            }
            if waiting > 0 && !decoder.is_close_sent() {
                self.payload_left = u32::try_from(waiting).unwrap_or(u32::MAX);
                frame_header(self.payload_left as usize, head);
            }
        }
        waiting.min(self.payload_left as usize)
    }

    /// Input: the socket took `n` bytes of what [`Server::poll_send`] gave with this `head`; zero
    /// if it would block. Returns how many of them were MQTT bytes.
    pub fn handle_written(&mut self, n: usize, head: &[u8]) -> usize {
        match head.get(n..) {
            Some(rest) if !rest.is_empty() => {
                self.unsent = Some(Box::new(rest.to_vec()));
                0
            }
            _ => {
                self.unsent = None;
                let payload = n - head.len();
                self.payload_left =
                    self.payload_left.saturating_sub(u32::try_from(payload).unwrap_or(u32::MAX));
                payload
            }
        }
    }

    /// Command: a close frame with status `code` follows what waits to be sent. A handshake that is
    /// not done gets no answer any more.
    pub fn close(&mut self, code: u16) {
        match &mut self.state {
            State::Open(decoder) => decoder.close(code),
            State::Handshake(_) => self.state = State::Refused,
            State::Refused => {}
        }
    }

    /// Whether the layer has bytes of its own to send now, MQTT bytes or not.
    pub fn wants_send(&self) -> bool {
        let has_frame = matches!(&self.state, State::Open(decoder) if decoder.has_output());
        self.unsent.is_some() || (has_frame && self.payload_left == 0)
    }

    /// Whether the opening handshake was accepted.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    fn open<'b>(&mut self, accepted: Accepted, bytes: &'b mut [u8]) -> Received<'b> {
        let Accepted { head_len, response, request, message_len_max } = accepted;
        self.unsent = Some(Box::new(response.into_bytes()));
        let mut decoder = Decoder::new(Role::Server, message_len_max);
        let frames = bytes.get_mut(head_len..).unwrap_or_default();
        let Decoded { mqtt, end } = decoder.handle_bytes(frames);
        self.state = State::Open(decoder);
        Received { opened: Some(Box::new(request)), mqtt, end }
    }
}

struct Accepted {
    /// How many of the bytes at hand belonged to the head.
    head_len: usize,
    response: String,
    request: Request,
    message_len_max: Option<u32>,
}

impl Handshake {
    fn handle_bytes(&mut self, bytes: &[u8]) -> Result<Option<Accepted>, Refusal> {
        let whole = self.head.extend(bytes).map_err(|_| Refusal::HeadTooLong)?;
        // No need to wait for the end of what cannot be HTTP, as a CONNECT packet or TLS.
        if self.head.as_bytes().first().is_some_and(|byte| !byte.is_ascii_alphabetic()) {
            return Err(Refusal::NotHttp);
        }
        let Some(head_len) = whole else { return Ok(None) };
        let (request, response) = answer(self.head.as_bytes(), &self.config)?;
        let message_len_max = self.config.message_len_max;
        Ok(Some(Accepted { head_len, response, request, message_len_max }))
    }
}

/// Holds a whole head to RFC 6455 section 4.2.1 and writes the response of section 4.2.2.
fn answer(head: &[u8], config: &Config) -> Result<(Request, String), Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLong),
        Err(httparse::Error::Version) => return Err(Refusal::HttpVersion),
        _ => return Err(Refusal::NotHttp),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::NotHttp);
    };
    if version != 1 {
        return Err(Refusal::HttpVersion);
    }
    if method != "GET" {
        return Err(Refusal::Method);
    }
    if path_of(target) != config.path {
        return Err(Refusal::Path);
    }
    let headers = &*parsed.headers;
    let (key, protocol) = check_headers(headers)?;
    let optional = |name| match single(headers, name) {
        Ok(value) => Ok(value.map(Box::from)),
        Err(()) => Err(Refusal::Header(name)),
    };
    let request = Request {
        target: Box::from(target),
        authorization: optional("Authorization")?,
        origin: optional("Origin")?,
    };
    let host = optional("Host")?.unwrap_or_default();
    if request.origin.as_deref().is_some_and(|origin| !may_connect(origin, &host, config)) {
        return Err(Refusal::Origin);
    }
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
        accept(key)
    );
    Ok((request, response))
}

/// Whether the pages of `origin` may connect.
fn may_connect(origin: &str, host: &str, config: &Config) -> bool {
    match &config.origins {
        Some(origins) => {
            origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
        }
        None => origin.split_once("://").is_some_and(|(_, authority)| {
            let asked = without_port(host);
            !asked.is_empty() && without_port(authority).eq_ignore_ascii_case(asked)
        }),
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // The colons of an address of IPv6 stand in brackets.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The key and the sub-protocol to answer with.
fn check_headers<'h>(headers: &[httparse::Header<'h>]) -> Result<(&'h str, &'h str), Refusal> {
    let required = |name| match single(headers, name) {
        Ok(Some(value)) => Ok(value),
        _ => Err(Refusal::Header(name)),
    };
    required("Host")?;
    if !has_token(headers, "Upgrade", "websocket") || !has_token(headers, "Connection", "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    // A body would be taken for frames.
    if list(headers, "Transfer-Encoding").next().is_some() {
        return Err(Refusal::Header("Transfer-Encoding"));
    }
    if !list(headers, "Content-Length").all(|len| len == "0") {
        return Err(Refusal::Header("Content-Length"));
    }
    if single(headers, "Sec-WebSocket-Version") != Ok(Some("13")) {
        return Err(Refusal::WebSocketVersion);
    }
    let key = required("Sec-WebSocket-Key")?;
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Err(Refusal::Header("Sec-WebSocket-Key"));
    }
    // [MQTT-6.0.0-3] [MQTT-6.0.0-4]
    let protocol = [MQTT, MQTT_3_1]
        .into_iter()
        .find_map(|name| list(headers, "Sec-WebSocket-Protocol").find(|offer| *offer == name))
        .ok_or(Refusal::SubProtocol)?;
    Ok((key, protocol))
}

/// The path of a request target, which may be a whole URI (RFC 9112 section 3.2.2).
fn path_of(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find('/').map_or("/", |start| rest.get(start..).unwrap_or_default())
        }
        _ => target,
    };
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// Why an opening handshake was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are no HTTP request.
    NotHttp,
    /// The head has more than 8 KiB or 64 header fields.
    HeadTooLong,
    /// Another version of HTTP than 1.1.
    HttpVersion,
    /// Another method than GET.
    Method,
    /// Another path than the configured one.
    Path,
    /// An HTTP request that asks for no WebSocket.
    NoUpgrade,
    /// Another version of WebSocket than 13.
    WebSocketVersion,
    /// This header field is missing, repeated or wrong.
    Header(&'static str),
    /// The sub-protocol `mqtt` is not offered `[MQTT-6.0.0-3]`.
    SubProtocol,
    /// The web page's origin is not among those that may connect.
    Origin,
}

impl Refusal {
    /// The status of the HTTP response, with its reason phrase.
    pub fn status(self) -> &'static str {
        match self {
            Refusal::NotHttp | Refusal::Header(_) | Refusal::SubProtocol => "400 Bad Request",
            Refusal::Origin => "403 Forbidden",
            Refusal::Path => "404 Not Found",
            Refusal::Method => "405 Method Not Allowed",
            Refusal::NoUpgrade | Refusal::WebSocketVersion => "426 Upgrade Required",
            Refusal::HeadTooLong => "431 Request Header Fields Too Large",
            Refusal::HttpVersion => "505 HTTP Version Not Supported",
        }
    }

    fn response(self) -> String {
        let headers = match self {
            Refusal::Method => "Connection: close\r\nAllow: GET\r\n",
            // RFC 9110 section 15.5.22 and 7.8 ask for Upgrade in both places.
            Refusal::NoUpgrade | Refusal::WebSocketVersion => {
                "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            }
            _ => "Connection: close\r\n",
        };
        let body = format!("{self}\n");
        format!(
            "HTTP/1.1 {}\r\n{headers}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            self.status(),
            body.len()
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotHttp => f.write_str("not an HTTP request; this port speaks WebSocket"),
            Refusal::HeadTooLong => f.write_str("the HTTP head is longer than 8 KiB or 64 fields"),
            Refusal::HttpVersion => f.write_str("WebSocket needs HTTP/1.1"),
            Refusal::Method => f.write_str("WebSocket needs the method GET"),
            Refusal::Path => f.write_str("no WebSocket at this path"),
            Refusal::NoUpgrade => f.write_str("this port speaks WebSocket only"),
            Refusal::WebSocketVersion => f.write_str("only WebSocket version 13 is supported"),
            Refusal::Header(name) => write!(f, "the header {name} is missing, repeated or wrong"),
            Refusal::SubProtocol => f.write_str("Sec-WebSocket-Protocol does not offer mqtt"),
            Refusal::Origin => f.write_str("web pages of this origin may not connect"),
        }
    }
}

impl std::error::Error for Refusal {}
