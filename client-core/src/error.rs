//! What can go wrong, by whose fault it is.

use core::fmt;

use whimbrel_codec::{DecodeError, EncodeError};

/// Why a command was not carried out: the application is at fault or must wait. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// CONNACK has not come, or the connection has ended.
    NotConnected,
    /// `connect` on a client that is connected or connecting.
    AlreadyConnected,
    /// Too much is in flight or waits to be sent: try again after the next event or transmission.
    Full,
    /// The server's maximum packet size forbids it, or there is not so much memory.
    PacketTooLarge,
    /// The server's maximum QoS forbids it.
    QosNotSupported,
    /// The server keeps no retained messages.
    RetainNotSupported,
    /// The topic alias is 0 or above the server's topic alias maximum, or aliases are automatic.
    TopicAliasInvalid,
    /// A topic name is empty or contains a wildcard.
    TopicNameInvalid,
    /// A topic filter breaks a rule, or there is none at all.
    TopicFilterInvalid,
    /// The server has no wildcard subscriptions, shared subscriptions or subscription identifiers.
    SubscriptionNotSupported,
    /// A property does not belong in the packet, stands in it twice, or has no possible value.
    PropertyInvalid,
    /// No message with this identifier waits for its acknowledgement.
    PacketIdUnknown,
    /// The reason code does not belong in the packet.
    ReasonInvalid,
    /// The authentication method is not that of CONNECT, or longer than the memory for it.
    AuthenticationMethod,
    /// An AUTH at a time when it is not the application's turn.
    AuthenticationOrder,
    /// DISCONNECT must not give a session expiry interval where CONNECT gave none.
    SessionExpiryInvalid,
    /// Messages in flight belong to a session of another protocol version: start clean.
    SessionVersion,
    /// What is to be restored has no or no possible identifier, or is not in order.
    RestoreInvalid,
    /// The packet cannot be encoded.
    Encode(EncodeError),
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Error {
        Error::Encode(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::NotConnected => "not connected",
            Error::AlreadyConnected => "already connected",
            Error::Full => "too many messages in flight",
            Error::PacketTooLarge => "the packet is larger than the server or the memory allows",
            Error::QosNotSupported => "the QoS is higher than the server accepts",
            Error::RetainNotSupported => "the server keeps no retained messages",
            Error::TopicAliasInvalid => "the topic alias is higher than the server accepts",
            Error::TopicNameInvalid => "a topic name must not be empty or contain + or #",
            Error::TopicFilterInvalid => "a topic filter is empty or has a misplaced + or #",
            Error::SubscriptionNotSupported => "the server does not support such subscriptions",
            Error::PropertyInvalid => {
                "a property does not belong in this packet, stands in it twice or is not valid"
            }
            Error::PacketIdUnknown => "no message with this identifier is to be acknowledged",
            Error::ReasonInvalid => "the reason code does not belong in this packet",
            Error::AuthenticationMethod => "the authentication method is not that of CONNECT",
            Error::AuthenticationOrder => "no AUTH is to be sent now",
            Error::SessionExpiryInvalid => {
                "a session that ends with the connection cannot be given a later end"
            }
            Error::SessionVersion => {
                "messages in flight belong to another protocol version: start clean"
            }
            Error::RestoreInvalid => "a restored packet identifier is missing or out of order",
            Error::Encode(error) => return error.fmt(f),
        })
    }
}

impl core::error::Error for Error {}

/// Why the client gave the connection up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server broke the protocol.
    ServerMisbehaved(DecodeError),
    /// No CONNACK came in time.
    ConnectTimeout,
    /// The server did not answer PINGREQ in time.
    KeepAliveTimeout,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::ServerMisbehaved(error) => write!(f, "the server broke the protocol: {error}"),
            Failure::ConnectTimeout => f.write_str("the server did not answer CONNECT in time"),
            Failure::KeepAliveTimeout => f.write_str("the server did not answer a ping in time"),
        }
    }
}

impl core::error::Error for Failure {}
