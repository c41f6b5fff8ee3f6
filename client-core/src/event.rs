//! What the application learns.

use whimbrel_codec::{Ack, Auth, ConnAck, Disconnect, PacketId, Publish, SubAck, UnsubAck};

use crate::Failure;

/// Something that the application should know, as a view of the packet that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The server accepted the connection.
    Connected {
        /// With the server's limits among its properties.
        ack: ConnAck<'a>,
        /// How many QoS 1 and 2 messages of the application were forgotten, because the session
        /// that they belonged to has ended: with its connection, by a clean start, or because the
        /// server no longer knows it.
        discarded: usize,
    },
    /// The server refused the connection, which has ended.
    Refused(ConnAck<'a>),
    /// A message; QoS 2 only once. A topic alias is already resolved to its topic name.
    Message(Publish<'a>),
    /// The server released a QoS 2 message: its identifier may come again with another one.
    Released(PacketId),
    /// The server has a QoS 2 message of the application, which must not be sent again;
    /// [`Event::Published`] follows.
    Received(PacketId),
    /// A message of the application has arrived, or was refused: the last of its acknowledgements.
    Published(Ack<'a>),
    /// The answer to `subscribe`.
    Subscribed(SubAck<'a>),
    /// The answer to `unsubscribe`.
    Unsubscribed(UnsubAck<'a>),
    /// A step of enhanced authentication, to be answered with `authenticate` unless it is the
    /// success. The one that CONNACK brings comes before [`Event::Connected`], and before anything
    /// of the session has changed: who finds that the server is not the right one drops the
    /// connection then.
    Auth(Auth<'a>),
    /// The server ended the connection.
    Disconnected(Disconnect<'a>),
    /// The client ended the connection; what is still to be sent says why to the server.
    Failed(Failure),
}
