//! What becomes of the connection, for whoever wants to know.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use whimbrel_codec::ReasonCode;

use crate::{Error, PropertyList, PublishError, StoreError};

/// Something that happened to the connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// The broker accepted the connection.
    Connected(Connected),
    /// The connection is gone, or an attempt failed.
    Disconnected {
        /// Why.
        why: Arc<Error>,
        /// How long until the next attempt; none if there will be none.
        retry_in: Option<Duration>,
    },
    /// The broker answered SUBSCRIBE, for the first time or because it had lost the session.
    Subscribed {
        /// The subscription's filter.
        filter: Arc<str>,
        /// The QoS that it grants, or why it does not.
        reason: ReasonCode,
    },
    /// A new token was shown on the same connection, and the broker took it.
    Renewed,
    /// There is no new token yet. The connection stays for as long as the old one holds.
    RenewalFailed {
        /// Why.
        why: Arc<Error>,
        /// How long until the next try.
        retry_in: Duration,
    },
    /// A subscription's queue is full, and messages of QoS 0 for it are dropped until one is
    /// taken.
    Missed {
        /// The subscription's filter.
        filter: Arc<str>,
    },
    /// A message that was in the store, and whose completion nobody holds, was not delivered.
    Undelivered {
        /// Its topic name.
        topic: Arc<str>,
        /// Why.
        why: PublishError,
    },
    /// The store cannot be written or read. What was taken is not lost, and new messages wait.
    StoreFailed {
        /// Why; the disk may be full.
        why: Arc<StoreError>,
        /// How long until the next try.
        retry_in: Duration,
    },
    /// The client has ended, as asked.
    Closed,
}

/// What CONNACK said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Whether the broker knew the session.
    pub session_present: bool,
    /// The client identifier in use; the broker's choice if it was asked to make one up.
    pub client_id: String,
    /// The broker's properties (5.0).
    pub properties: PropertyList,
}

/// The stream of [`Status`], from the moment it was asked for.
pub struct Events {
    receiver: broadcast::Receiver<Status>,
}

impl Events {
    pub(crate) const fn new(receiver: broadcast::Receiver<Status>) -> Events {
        Events { receiver }
    }

    /// The next one; none when the client is gone. Who falls far behind misses the oldest.
    pub async fn next(&mut self) -> Option<Status> {
        loop {
            match self.receiver.recv().await {
                Ok(status) => return Some(status),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
