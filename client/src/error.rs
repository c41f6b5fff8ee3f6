//! What can go wrong on the way to a broker and with it.

use std::{fmt, io};

use whimbrel_client_core as core;
use whimbrel_codec::ReasonCode;
use whimbrel_transport::websocket;

/// Why a client cannot go on.
#[derive(Debug)]
pub enum Error {
    /// No network connection could be made; the address is named.
    Connect(String, io::Error),
    /// The network connection broke.
    Lost(io::Error),
    /// TLS could not be opened, or was broken.
    Tls(rustls::Error),
    /// The WebSocket could not be opened or was closed.
    WebSocket(websocket::End),
    /// The server refused CONNECT, perhaps with a reason string.
    Refused(ReasonCode, Option<String>),
    /// The server sent DISCONNECT, perhaps with a reason string.
    Disconnected(ReasonCode, Option<String>),
    /// The client gave the connection up.
    Failed(core::Failure),
    /// A command was refused before anything was sent.
    Command(core::Error),
    /// What was waited for did not come in time.
    Timeout,
}

impl From<core::Error> for Error {
    fn from(error: core::Error) -> Error {
        Error::Command(error)
    }
}

impl From<core::Failure> for Error {
    fn from(failure: core::Failure) -> Error {
        Error::Failed(failure)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = |detail: &Option<String>| match detail {
            Some(text) => format!(": {text}"),
            None => String::new(),
        };
        match self {
            Error::Connect(address, error) => write!(f, "cannot connect to {address}: {error}"),
            Error::Lost(error) => write!(f, "the connection was lost: {error}"),
            Error::Tls(error) => crate::tls::explain(error, f),
            Error::WebSocket(end) => write!(f, "WebSocket: {end}"),
            Error::Refused(reason, text) => {
                write!(f, "the broker refused the connection: {reason}{}", detail(text))
            }
            Error::Disconnected(reason, text) => {
                write!(f, "the broker ended the connection: {reason}{}", detail(text))
            }
            Error::Failed(failure) => failure.fmt(f),
            Error::Command(error) => error.fmt(f),
            Error::Timeout => f.write_str("the broker did not answer in time"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// What a user can do about it, for an error of TLS that has a remedy.
    pub fn tls_hint(&self) -> Option<&'static str> {
        use rustls::CertificateError::{
            BadSignature, NotValidForName, NotValidForNameContext, UnknownIssuer,
        };
        use rustls::{AlertDescription, Error as Tls};
        let Error::Tls(error) = self else { return None };
        match error {
            Tls::InvalidCertificate(UnknownIssuer | BadSignature) => {
                Some("give its authority with --cafile")
            }
            Tls::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
                Some("give the name in the certificate with -h")
            }
            Tls::AlertReceived(AlertDescription::CertificateRequired) => {
                Some("give one with --cert and --key")
            }
            Tls::InvalidMessage(_) => Some("check the port"),
            _ => None,
        }
    }
}
