//! What a person who reads the log wants to know of connections.

use core::net::IpAddr;
use std::fmt;

use whimbrel_codec::{ReasonCode, Version};

use crate::ConnId;

/// Something worth a line in the log.
#[derive(Clone, Debug)]
pub enum Event {
    /// A CONNECT was accepted.
    Connected {
        /// Which connection.
        conn: ConnId,
        /// The client identifier, perhaps assigned.
        client_id: Box<str>,
        /// The name of its principal; empty if nobody knows it.
        user: Box<str>,
        /// Protocol version.
        version: Version,
        /// Clean Start (Clean Session before 5.0).
        clean_start: bool,
        /// Whether a session went on.
        session_present: bool,
        /// Keep alive in force, in seconds.
        keep_alive_s: u16,
    },
    /// A connection was ended before or by its CONNECT.
    Refused {
        /// Which connection.
        conn: ConnId,
        /// The client identifier, if it came that far.
        client_id: Option<Box<str>>,
        /// What the client was told.
        reason: ReasonCode,
        /// What was wrong.
        what: &'static str,
    },
    /// A client did not show who it is, or is not let in.
    Unauthenticated {
        /// Which connection.
        conn: ConnId,
        /// The client identifier; empty if it sent none.
        client_id: Box<str>,
        /// The user name that it claims.
        user: Option<Box<str>>,
        /// What the client was told.
        reason: ReasonCode,
        /// What was wrong; without secrets.
        detail: String,
    },
    /// Somebody is not let in for a while; told once for each ban.
    Banned {
        /// From where.
        address: IpAddr,
        /// Only who claims to be this user; none: everybody from there.
        user: Option<Box<str>>,
        /// Only this client of the user.
        client_id: Option<Box<str>>,
        /// How long.
        for_s: u16,
        /// What it did.
        why: &'static str,
    },
    /// A client wanted what it may not.
    Denied {
        /// The client identifier.
        client_id: Box<str>,
        /// The name of its principal; empty if nobody knows it.
        user: Box<str>,
        /// What it wanted: `publish`, `subscribe`, `receive`, ...
        action: &'static str,
        /// Topic name or topic filter.
        topic: Box<str>,
    },
    /// A connection that had been accepted has ended.
    Disconnected {
        /// Which connection.
        conn: ConnId,
        /// The client identifier.
        client_id: Box<str>,
        /// The name of its principal; empty if nobody knows it.
        user: Box<str>,
        /// How it ended.
        why: Why,
    },
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The client sent DISCONNECT with this reason.
    Client(ReasonCode),
    /// The broker ended it for this reason.
    Broker(ReasonCode, &'static str),
    /// The network connection was lost.
    Lost,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Client(ReasonCode::Success) => f.write_str("client disconnected"),
            Why::Client(reason) => write!(f, "client disconnected: {reason}"),
            Why::Broker(reason, what) => write!(f, "{what}: {reason}"),
            Why::Lost => f.write_str("connection lost"),
        }
    }
}
