//! MQTT over WebSocket (RFC 6455; MQTT 5.0 section 6, "Using WebSocket as a network transport").
//!
//! [`server::Server`] and [`client::Client`] do the opening handshake and then share one
//! [`Decoder`], which unmasks in the caller's buffer and keeps nothing but a torn frame header.
//! A WebSocket message is a stream of MQTT bytes: control packets need not align with frames
//! `[MQTT-6.0.0-2]`, and payload is handed on as it arrives, before its frame is whole.
//!
//! ```
//! use std::sync::Arc;
//! use whimbrel_transport::websocket::{client, server};
//!
//! let mut server = server::Server::new(Arc::new(server::Config::default()));
//! let request = client::Request { host: "localhost:8083", path: "/mqtt", headers: &[] };
//! let mut client = client::Client::new(&request, [7; 16]).unwrap();
//! let mut mask = || [1, 2, 3, 4]; // in earnest: four random bytes at every call
//!
//! let mut wire = Vec::new();
//! client.poll_output(&mut mask, &mut wire);
//! assert!(server.handle_bytes(&mut wire).opened.is_some());
//!
//! let mut head = Vec::new();
//! server.poll_send(0, &mut head); // the 101 response
//! client.handle_bytes(&mut head.clone());
//! server.handle_written(head.len(), &head);
//! assert!(client.is_open());
//!
//! wire.clear();
//! assert!(client.encode(b"\xc0\x00", &mut mask, &mut wire)); // PINGREQ
//! assert_eq!(server.handle_bytes(&mut wire).mqtt, b"\xc0\x00");
//! ```

pub mod client;
mod control;
mod decoder;
mod frame;
mod http;
pub mod server;

pub use decoder::{Decoded, Decoder, Role};
pub use frame::{close_frame, frame_header};

use std::fmt;

/// Status codes of a close frame (RFC 6455 section 7.4.1) that this crate sends or names.
pub mod close_code {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The endpoint goes away, as a server that shuts down.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the WebSocket protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// The peer sent a kind of data that this endpoint does not take.
    pub const UNSUPPORTED_DATA: u16 = 1003;
    /// No status code; never on the wire, stands for a close frame without payload.
    pub const NO_STATUS: u16 = 1005;
    /// Data does not fit its type, as a close reason that is not UTF-8.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// The message breaks the endpoint's policy, as MQTT bytes that are no MQTT.
    pub const POLICY_VIOLATION: u16 = 1008;
    /// The message is larger than the endpoint takes.
    pub const MESSAGE_TOO_BIG: u16 = 1009;
    /// The endpoint met a condition of its own that it did not expect.
    pub const INTERNAL_ERROR: u16 = 1011;
}

/// Why nothing more comes from the peer. Told once; bytes after it are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer sent a close frame; the answer waits to be sent unless we closed first.
    PeerClosed {
        /// Its status code, if it gave one.
        code: Option<u16>,
    },
    /// The peer broke a rule; a close frame with [`Violation::close_code`] waits to be sent.
    Violation(Violation),
    /// Server: the opening handshake was refused; the HTTP response waits to be sent.
    Refused(server::Refusal),
    /// Client: the server did not open the WebSocket.
    Failed(client::Failure),
}

impl End {
    /// The status code of the close frame that answers it; a handshake is answered in HTTP.
    fn answer(&self) -> Option<u16> {
        match self {
            End::PeerClosed { code } => Some(code.unwrap_or(close_code::NO_STATUS)),
            End::Violation(violation) => Some(violation.close_code()),
            End::Refused(_) | End::Failed(_) => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::PeerClosed { code: Some(code) } => {
                write!(f, "the peer closed the WebSocket with code {code}")
            }
            End::PeerClosed { code: None } => f.write_str("the peer closed the WebSocket"),
            End::Violation(violation) => violation.fmt(f),
            End::Refused(refusal) => refusal.fmt(f),
            End::Failed(failure) => failure.fmt(f),
        }
    }
}

/// A rule of RFC 6455 (or of MQTT over WebSocket) that the peer broke after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A client's frame without mask (section 5.1).
    NotMasked,
    /// A server's frame with a mask (section 5.1).
    Masked,
    /// RSV1-3 set without an extension (section 5.2).
    ReservedBits,
    /// Opcode 3-7 or 11-15 (section 5.2).
    ReservedOpcode,
    /// A text frame: MQTT data is binary `[MQTT-6.0.0-1]`.
    Text,
    /// A continuation frame without a message to continue (section 5.4).
    NothingToContinue,
    /// A new message inside a fragmented one (section 5.4).
    MessageInterleaved,
    /// A control frame without FIN (section 5.5).
    ControlFragmented,
    /// A control frame of more than 125 bytes (section 5.5).
    ControlTooLong,
    /// A 64-bit length with its top bit set (section 5.2).
    LengthTooLarge,
    /// A length in more bytes than it needs (section 5.2).
    LengthNotMinimal,
    /// A close frame of one byte (section 5.5.1).
    CloseTruncated,
    /// A status code that must not stand in a close frame (section 7.4).
    CloseCode,
    /// A close reason that is not UTF-8 (section 5.5.1).
    CloseReason,
    /// A message longer than the configured maximum.
    MessageTooLong,
}

impl Violation {
    /// The status code of the close frame that answers this violation.
    pub fn close_code(self) -> u16 {
        match self {
            Violation::Text => close_code::UNSUPPORTED_DATA,
            Violation::CloseReason => close_code::INVALID_PAYLOAD,
            Violation::MessageTooLong => close_code::MESSAGE_TOO_BIG,
            _ => close_code::PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::NotMasked => "the client sent a WebSocket frame without mask",
            Violation::Masked => "the server sent a WebSocket frame with a mask",
            Violation::ReservedBits => "a WebSocket frame has reserved bits set",
            Violation::ReservedOpcode => "a WebSocket frame has a reserved opcode",
            Violation::Text => "a WebSocket text frame: MQTT needs binary frames",
            Violation::NothingToContinue => "a WebSocket continuation frame continues nothing",
            Violation::MessageInterleaved => "a WebSocket message starts inside another",
            Violation::ControlFragmented => "a WebSocket control frame is fragmented",
            Violation::ControlTooLong => "a WebSocket control frame is longer than 125 bytes",
            Violation::LengthTooLarge => "a WebSocket frame length has its top bit set",
            Violation::LengthNotMinimal => "a WebSocket frame length is not minimally encoded",
            Violation::CloseTruncated => "a WebSocket close frame has one byte of payload",
            Violation::CloseCode => "a WebSocket close frame has an invalid status code",
            Violation::CloseReason => "a WebSocket close reason is not UTF-8",
            Violation::MessageTooLong => "a WebSocket message is longer than configured",
        })
    }
}

impl std::error::Error for Violation {}
