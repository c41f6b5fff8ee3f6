//! What the application learns.

use whimbrel_codec::{Ack, Auth, ConnAck, Disconnect, Publish, SubAck, UnsubAck};

use crate::Failure;

/// Something that the application should know, as a view of the packet that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The server accepted the connection.
    Connected {
        /// With the server's limits among its properties.
        ack: ConnAck<'a>,
        /// How many QoS 1 and 2 messages of the application were forgotten, because the server
        /// no longer knows the session that they belonged to.
        discarded: usize,
    },
    /// The server refused the connection, which has ended.
    Refused(ConnAck<'a>),
    /// A message; QoS 2 only once. A topic alias is already resolved to its topic name.
    Message(Publish<'a>),
    /// A message of the application has arrived, or was refused: the last of its acknowledgements.
    Published(Ack<'a>),
    /// PUBREC has come for a message of the application.
    Received(whimbrel_codec::PacketId),
    /// The server has released a QoS 2 message.
    Released(whimbrel_codec::PacketId),
    /// The answer to `subscribe`.
    Subscribed(SubAck<'a>),
    /// The answer to `unsubscribe`.
    Unsubscribed(UnsubAck<'a>),
    /// A step of enhanced authentication, to be answered with `authenticate`.
    Auth(Auth<'a>),
    /// The server ended the connection.
    Disconnected(Disconnect<'a>),
    /// The client ended the connection; what is still to be sent says why to the server.
    Failed(Failure),
}
