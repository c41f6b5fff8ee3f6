//! What can go wrong on the way to a broker and with it.

use std::sync::Arc;
use std::{fmt, io};

use whimbrel_client_core as core;
use whimbrel_codec::{Properties, Property, ReasonCode};
#[cfg(feature = "websocket")]
use whimbrel_transport::websocket;

#[cfg(feature = "tls")]
use crate::InvalidTls;
use crate::StoreError;

/// Why a client cannot go on.
#[derive(Debug)]
pub enum Error {
    /// No network connection could be made; the address is named.
    Connect(String, io::Error),
    /// The network connection broke.
    Lost(io::Error),
    /// TLS could not be opened, or was broken.
    #[cfg(feature = "tls")]
    Tls(rustls::Error),
    /// Authorities or certificates that cannot be used.
    #[cfg(feature = "tls")]
    TlsSettings(InvalidTls),
    /// The WebSocket could not be opened or was closed.
    #[cfg(feature = "websocket")]
    WebSocket(websocket::End),
    /// Settings that contradict each other.
    Settings(&'static str),
    /// The store cannot be used.
    Store(Arc<StoreError>),
    /// There is nothing to show who the client is, or the broker did not show that it knows it;
    /// and why.
    Login(String),
    /// A token is about to end: the next connection shows a new one.
    TokenEnds,
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
            #[cfg(feature = "tls")]
            Error::Tls(error) => crate::tls::explain(error, f),
            #[cfg(feature = "tls")]
            Error::TlsSettings(error) => error.fmt(f),
            #[cfg(feature = "websocket")]
            Error::WebSocket(end) => write!(f, "WebSocket: {end}"),
            Error::Settings(what) => f.write_str(what),
            Error::Store(error) => error.fmt(f),
            Error::Login(what) => write!(f, "cannot log in: {what}"),
            Error::TokenEnds => f.write_str("the token ends: the next connection shows a new one"),
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
    /// An error of reading or writing, which may be one of TLS.
    pub(crate) fn from_socket(error: io::Error) -> Error {
        #[cfg(feature = "tls")]
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Error::Tls(tls.clone());
        }
        Error::Lost(error)
    }

    /// Whether the broker did not take what the client has shown.
    pub(crate) fn is_about_login(&self) -> bool {
        match self {
            Error::Refused(reason, _) | Error::Disconnected(reason, _) => {
                matches!(reason, ReasonCode::NotAuthorized | ReasonCode::BadUserNameOrPassword)
            }
            #[cfg(feature = "websocket")]
            Error::WebSocket(websocket::End::Failed(_)) => true,
            _ => false,
        }
    }

    /// Whether connecting again would only repeat it, and so the client ends.
    pub fn is_final(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Error::TlsSettings(_) => true,
            Error::Settings(_) | Error::Store(_) | Error::Command(_) => true,
            Error::Failed(core::Failure::ServerMisbehaved(_)) => false,
            // Who takes the session over would lose it to us, and so on.
            Error::Disconnected(reason, _) => *reason == ReasonCode::SessionTakenOver,
            Error::Refused(reason, _) => matches!(
                reason,
                ReasonCode::UnsupportedProtocolVersion
                    | ReasonCode::ClientIdNotValid
                    | ReasonCode::MalformedPacket
                    | ReasonCode::ProtocolError
                    | ReasonCode::TopicNameInvalid
                    | ReasonCode::PacketTooLarge
                    | ReasonCode::PayloadFormatInvalid
                    | ReasonCode::RetainNotSupported
                    | ReasonCode::QosNotSupported
                    | ReasonCode::BadAuthenticationMethod
            ),
            #[cfg(feature = "tls")]
            Error::Tls(_) => false,
            #[cfg(feature = "websocket")]
            Error::WebSocket(_) => false,
            Error::Connect(..)
            | Error::Lost(_)
            | Error::Login(_)
            | Error::TokenEnds
            | Error::Failed(_)
            | Error::Timeout => false,
        }
    }

    /// What a user can do about it, for an error of TLS that has a remedy.
    #[cfg(feature = "tls")]
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

/// What became of a message: the reason code of its last acknowledgement (success, or that nobody
/// subscribed), or why it has none. QoS 0 succeeds when it is written.
pub type Outcome = Result<ReasonCode, PublishError>;

/// Why a message was not published, or is not known to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// The queue is full; only from [`Client::try_publish`](crate::Client::try_publish).
    Full,
    /// The message is not one that this broker takes.
    Invalid(core::Error),
    /// The broker refused it, perhaps with a reason string.
    Refused(ReasonCode, Option<String>),
    /// It expired before it could be sent.
    Expired,
    /// QoS 0: the connection was lost before it was written.
    ConnectionLost,
    /// QoS 2: it was sent, and the broker lost the session before it answered. Whether it arrived
    /// cannot be known; to publish it again might make it arrive twice.
    SessionLost,
    /// The client has ended, perhaps because of an error.
    Closed(Option<Arc<Error>>),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Full => f.write_str("the queue of messages is full"),
            PublishError::Invalid(error) => error.fmt(f),
            PublishError::Refused(reason, None) => write!(f, "the broker refused it: {reason}"),
            PublishError::Refused(reason, Some(text)) => {
                write!(f, "the broker refused it: {reason}: {text}")
            }
            PublishError::Expired => f.write_str("it expired before it could be sent"),
            PublishError::ConnectionLost => f.write_str("the connection was lost meanwhile"),
            PublishError::SessionLost => {
                f.write_str("the broker lost the session: whether it arrived is not known")
            }
            PublishError::Closed(why) => closed(why.as_deref(), f),
        }
    }
}

impl std::error::Error for PublishError {}

/// Why there is no subscription, or why it could not be ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The filter is not valid.
    Invalid(core::Error),
    /// The broker did not grant it.
    Refused(ReasonCode),
    /// There is no such thing before MQTT 5.0.
    NeedsV5,
    /// The client has ended, perhaps because of an error.
    Closed(Option<Arc<Error>>),
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubscribeError::Invalid(error) => error.fmt(f),
            SubscribeError::Refused(reason) => {
                write!(f, "the broker did not grant the subscription: {reason}")
            }
            SubscribeError::NeedsV5 => f.write_str("there is no such thing before MQTT 5.0"),
            SubscribeError::Closed(why) => closed(why.as_deref(), f),
        }
    }
}

impl std::error::Error for SubscribeError {}

fn closed(why: Option<&Error>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match why {
        Some(error) => fmt::Display::fmt(error, f),
        None => f.write_str("the client is closed"),
    }
}

/// Why a message cannot be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AckError {
    /// The connection that brought it is gone. The broker will deliver the message again.
    ConnectionLost,
    /// The reason code is none for this.
    Invalid(core::Error),
}

impl fmt::Display for AckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AckError::ConnectionLost => {
                f.write_str("the connection that brought the message is gone: it will come again")
            }
            AckError::Invalid(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AckError {}

/// The client ended while messages were still on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// How many were queued or not acknowledged.
    pub messages: usize,
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages were not delivered", self.messages)
    }
}

impl std::error::Error for Undelivered {}

/// What the broker said about a reason code, for a person's eyes (5.0).
pub(crate) fn reason_string(properties: &Properties<'_>) -> Option<String> {
    properties.iter().find_map(|property| match property {
        Property::ReasonString(text) => Some(text.into()),
        _ => None,
    })
}
