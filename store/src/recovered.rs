//! What a store that was opened has kept.

use std::collections::VecDeque;

use whimbrel_codec::{PacketId, QoS};

use crate::{Entry, EntryQueue, SessionKey, Stored, WallMs};

/// Everything that was alive when the broker stopped.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Sessions, in the order of their making.
    pub sessions: Vec<SessionRecovered>,
    /// Retained messages, the latest of each topic, in the order of their positions.
    pub retained: Vec<Stored>,
    /// Numbers of retained messages go on behind this.
    pub last_retained: u64,
    /// QoS 2 messages that perhaps not all shards have seen.
    pub unrouted: Vec<Unrouted>,
    /// The broker was stopped in good order, so nothing was sent that is not recorded.
    pub stopped: bool,
    /// Bytes of a torn end that were cut off.
    pub cut_bytes: u64,
}

/// A session as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecovered {
    /// Its number, which it keeps.
    pub key: SessionKey,
    /// Whose session.
    pub client_id: Box<str>,
    /// The principal whose session it is, as its crate writes it; none: nobody's.
    pub principal: Option<Box<[u8]>>,
    /// Seconds; 0xFFFFFFFF: never.
    pub expiry_s: u32,
    /// When its connection was lost; none: it was connected to the end.
    pub detached: Option<WallMs>,
    /// False: it was there only for its will.
    pub keeps_messages: bool,
    /// The will that is still to be published.
    pub will: Option<WillRecovered>,
    /// Its subscriptions.
    pub subscriptions: Vec<SubscriptionRecovered>,
    /// Deliveries in flight, in the order of sending.
    pub in_flight: VecDeque<InFlightRecovered>,
    /// What waits behind them.
    pub queue: EntryQueue,
    /// QoS 2 messages of the client that it has not released.
    pub received: Vec<PacketId>,
}

/// A delivery that was in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlightRecovered {
    /// Its packet identifier.
    pub packet_id: PacketId,
    /// The message; none: PUBREC had come and PUBREL is due.
    pub entry: Option<Entry>,
}

/// A subscription as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRecovered {
    /// As the client sent it, `$share/...` included.
    pub filter: Box<str>,
    /// Maximum QoS.
    pub qos: QoS,
    /// Messages that the session itself published are not for it.
    pub no_local: bool,
    /// The retain flag is forwarded as it was published.
    pub retain_as_published: bool,
    /// Subscription identifier, 0 for none.
    pub id: u32,
    /// Key of its group, as this session's entries refer to it.
    pub group: Option<u32>,
}

/// A will that was not published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillRecovered {
    /// Topic name.
    pub topic: Box<str>,
    /// Properties to forward, as on the wire.
    pub properties: Box<[u8]>,
    /// The application's bytes.
    pub payload: Box<[u8]>,
    /// Of the will.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Will delay interval, in seconds.
    pub delay_s: u32,
    /// Message expiry interval, in seconds from its publication.
    pub expiry_s: Option<u32>,
}

/// A QoS 2 message whose way to all subscribers was not recorded to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrouted {
    /// The message.
    pub stored: Stored,
    /// Who published it, or gave it away.
    pub from: SessionKey,
    /// It is for one member of this group only, given as its filter, `$share/...` included.
    pub group: Option<Box<str>>,
    /// The key of that group in the records.
    pub group_key: Option<u32>,
    /// Sessions that have got it.
    pub reached: Vec<SessionKey>,
}
