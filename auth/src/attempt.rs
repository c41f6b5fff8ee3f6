//! An attempt of a client to show who it is, and what becomes of it.

use core::net::SocketAddr;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::{Method, Principal};

/// What a client brings as proof of identity, with CONNECT or with an AUTH that follows.
///
/// It owns what it holds, so that it can go to another thread.
#[derive(Debug)]
pub struct Attempt {
    /// The client identifier; the assigned one if the client sent none.
    pub client_id: Box<str>,
    /// From CONNECT.
    pub user_name: Option<Box<str>>,
    /// From CONNECT.
    pub password: Option<Secret>,
    /// The authentication method of 5.0.
    pub method: Option<Box<str>>,
    /// The authentication data of 5.0, of CONNECT or of AUTH.
    pub data: Option<Secret>,
    /// Index of the listener, in the order of the configuration.
    pub listener: u16,
    /// None for a Unix socket.
    pub address: Option<SocketAddr>,
    /// What the layers below MQTT have shown.
    pub proof: Option<Arc<Proof>>,
    /// Where the exchange stands that this attempt continues; none if it begins one.
    pub exchange: Option<Exchange>,
    /// Who the client is so far, if it authenticates again (section 4.12.1).
    pub current: Option<Arc<Principal>>,
}

/// What an authentication method keeps between two steps of one exchange.
pub struct Exchange(pub Box<dyn Any + Send>);

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

/// Bytes that stand in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Box<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} secret bytes)", self.0.len())
    }
}

/// What TLS and WebSocket have shown of a client before its CONNECT.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// The connection is encrypted.
    pub tls: bool,
    /// The client certificate, verified against the listener's authorities.
    pub certificate: Option<Certificate>,
    /// The token of WebSocket's `Authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// Keying material of this TLS session (RFC 8446, section 7.5) with the label
    /// `EXPORTER-ACE-MQTT-Sign-Challenge`, which only its two ends know; if the listener wants it.
    pub exporter: Option<[u8; 32]>,
}

/// A client certificate that was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The name that the listener's configuration takes from it (CN, DNS, URI or e-mail); none if
    /// it has no such name.
    pub identity: Option<Box<str>>,
    /// Common name of the subject.
    pub common_name: Option<Box<str>>,
    /// SHA-256 of its DER encoding, as in `x5t#S256`.
    pub sha256: [u8; 32],
}

/// Which attempt an outcome belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The shard that asks.
    pub shard: u16,
    /// Its connection.
    pub conn: u32,
    /// Tells the connection from others that had its number before.
    pub serial: u32,
}

/// What became of an attempt.
#[derive(Debug)]
pub enum Outcome {
    /// The client is who it says.
    Accepted {
        /// Who it is.
        principal: Arc<Principal>,
        /// Authentication data for the client: the last step of some methods.
        data: Option<Vec<u8>>,
    },
    /// The client has to say more: it gets AUTH with reason code 0x18.
    Continue {
        /// For the attempt that goes on.
        exchange: Exchange,
        /// Authentication data for the client.
        data: Vec<u8>,
    },
    /// The client may not connect, or not go on.
    Refused(Refused),
}

/// Why an attempt was refused.
#[derive(Debug)]
pub struct Refused {
    /// What the client is told.
    pub refusal: Refusal,
    /// For the log, without secrets; the client does not see it.
    pub detail: String,
    /// Authentication data for the client, if the method wants its errors told that way.
    pub data: Option<Vec<u8>>,
}

/// What a refused client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Reason code 0x8C: the method is not known here.
    UnknownMethod,
    /// Reason code 0x86. It does not tell which of the two is wrong.
    BadUserNameOrPassword,
    /// Reason code 0x87.
    NotAuthorized,
    /// Reason code 0x88: whoever is to decide cannot be asked, so nobody comes in.
    Unavailable,
    /// Reason code 0x89: too many attempts wait.
    Busy,
    /// Reason code 0x8A: too many failures of late.
    Banned,
    /// Reason code 0x97: this user or address has its most connections.
    QuotaExceeded,
    /// Reason code 0x82: the data of the exchange are none of its method.
    ProtocolError,
}

impl Refused {
    /// A refusal with its reason for the log.
    pub fn new(refusal: Refusal, detail: impl Into<String>) -> Refused {
        Refused { refusal, detail: detail.into(), data: None }
    }
}

impl From<Refused> for Outcome {
    fn from(refused: Refused) -> Outcome {
        Outcome::Refused(refused)
    }
}

/// Decides who may connect.
pub trait Authenticator: Send + Sync {
    /// Takes up an attempt. Never blocks: what takes time is answered later, with the ticket,
    /// through `Shard::handle_authenticated`; then this gives none.
    fn begin(&self, ticket: Ticket, attempt: Attempt) -> Option<Outcome>;

    /// The connection has ended for which this client was let in. Never blocks.
    fn ended(&self, _ticket: Ticket) {}
}

/// Everybody may connect, whatever name and password they show, and is nobody.
#[derive(Debug, Default)]
pub struct Anonymous;

impl Authenticator for Anonymous {
    fn begin(&self, _: Ticket, attempt: Attempt) -> Option<Outcome> {
        if attempt.method.is_some() {
            let detail = "no authentication method is configured";
            return Some(Refused::new(Refusal::UnknownMethod, detail).into());
        }
        let principal = Arc::new(Principal::new("", Method::Anonymous));
        Some(Outcome::Accepted { principal, data: None })
    }
}
