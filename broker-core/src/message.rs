//! An application message: kept in one allocation, or passing by.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use triomphe::ThinArc;
use whimbrel_codec::QoS;
use whimbrel_store::{Position, Stored};
use whimbrel_topics::HasTopic;

use crate::Millis;

/// Counts the bytes of all messages that are kept.
#[derive(Debug, Default)]
pub(crate) struct Account(AtomicU64);

impl Account {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Beside its bytes an allocation costs this much.
const OVERHEAD_BYTES: u32 = 64;

/// A message that is kept, however many queues and topics hold it: one pointer, one allocation.
#[derive(Clone)]
pub struct Message(ThinArc<Header, u8>);

/// 32 bytes, since there may be very many.
struct Header {
    /// Where this message was charged; its bytes go back when the last holder lets go.
    account: Arc<Account>,
    /// Where it is in the store, as [`Position`]; 0: nowhere.
    position: AtomicU64,
    /// When it expires, in milliseconds, and the length of the topic in the low 16 bits.
    expires_and_topic: u64,
    charged: u32,
    /// Length of the properties, and the QoS in the low two bits.
    properties_and_qos: u32,
}

const _: () = assert!(size_of::<Header>() == 32);

/// The latest time that fits beside the length of a topic; it stands for [`Millis::NEVER`].
const NEVER_MS: u64 = u64::MAX >> 16;

impl Header {
    fn expires(&self) -> Millis {
        match self.expires_and_topic >> 16 {
            NEVER_MS => Millis::NEVER,
            ms => Millis(ms),
        }
    }

    fn topic_len(&self) -> usize {
        usize::from(self.expires_and_topic as u16)
    }

    fn properties_len(&self) -> usize {
        (self.properties_and_qos >> 2) as usize
    }
}

impl Drop for Header {
    fn drop(&mut self) {
        self.account.0.fetch_sub(self.charged.into(), Ordering::Relaxed);
    }
}

impl Message {
    /// The published QoS.
    pub fn qos(&self) -> QoS {
        QoS::from_u8(self.header().properties_and_qos as u8 & 3).unwrap_or_default()
    }

    /// The application's bytes.
    pub fn payload(&self) -> &[u8] {
        let header = self.header();
        self.bytes(header.topic_len() + header.properties_len(), usize::MAX)
    }

    /// When it is no longer to be delivered.
    pub(crate) fn expires(&self) -> Millis {
        self.header().expires()
    }

    /// Properties to forward, as on the wire.
    pub(crate) fn properties(&self) -> &[u8] {
        let header = self.header();
        self.bytes(header.topic_len(), header.properties_len())
    }

    /// Bytes of the message itself.
    pub(crate) fn len(&self) -> usize {
        self.0.slice.len()
    }

    pub(crate) fn publication(&self) -> Publication<'_> {
        Publication {
            topic: self.topic(),
            properties: self.properties(),
            payload: self.payload(),
            qos: self.qos(),
            expires: self.expires(),
            stored: self.position(),
            reply_to: None,
            mails: 0,
            dup: false,
            waits: false,
            kept: Some(self.clone()),
        }
    }

    /// Where it is in the store; 0: nowhere.
    pub(crate) fn position(&self) -> Position {
        Position(self.header().position.load(Ordering::Relaxed))
    }

    /// It is in the store now.
    pub(crate) fn set_position(&self, position: Position) {
        self.header().position.store(position.0, Ordering::Relaxed);
    }

    /// Where it is in the store, with the length of its record there.
    pub(crate) fn stored(&self) -> Stored {
        let header = self.header();
        let (topic, properties) = (header.topic_len(), header.properties_len());
        let payload = self.len() - topic - properties;
        Stored { position: self.position(), len: Stored::len_of(topic, properties, payload) }
    }

    fn header(&self) -> &Header {
        &self.0.header.header
    }

    fn bytes(&self, from: usize, len: usize) -> &[u8] {
        let rest = self.0.slice.get(from..).unwrap_or_default();
        rest.get(..len).unwrap_or(rest)
    }
}

impl HasTopic for Message {
    fn topic(&self) -> &str {
        // Checked when the message came in; a check again costs a few nanoseconds.
        std::str::from_utf8(self.topic_bytes()).unwrap_or_default()
    }

    fn topic_bytes(&self) -> &[u8] {
        self.bytes(0, self.header().topic_len())
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.topic(), self.payload().len())
    }
}

/// A message on its way through the broker, borrowed from where it came.
pub(crate) struct Publication<'a> {
    pub(crate) topic: &'a str,
    /// Properties to forward, as on the wire.
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    /// [`Millis::NEVER`] without a message expiry interval.
    pub(crate) expires: Millis,
    /// Where it is in the store; 0: nowhere.
    pub(crate) stored: Position,
    /// Who waits to hear that other shards have recorded it.
    pub(crate) reply_to: Option<ReplyTo>,
    /// How many of those replies are on their way.
    pub(crate) mails: u32,
    /// It may have been delivered before the broker was stopped.
    pub(crate) dup: bool,
    /// Nobody gets it before it is durable: a will, which would otherwise be published once more.
    pub(crate) waits: bool,
    /// The kept message, once somebody has needed it.
    kept: Option<Message>,
}

/// An acknowledgement that waits in a shard until other shards have recorded its message.
///
/// The shard in the high 16 bits, the number of the acknowledgement, from 1 on, in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplyTo(NonZeroU64);

const NUMBER_BITS: u32 = 48;

impl ReplyTo {
    pub(crate) fn new(shard: u16, number: u64) -> ReplyTo {
        let number = (number + 1) & ((1 << NUMBER_BITS) - 1);
        ReplyTo(
            NonZeroU64::new(u64::from(shard) << NUMBER_BITS | number).unwrap_or(NonZeroU64::MIN),
        )
    }

    pub(crate) fn shard(self) -> u16 {
        (self.0.get() >> NUMBER_BITS) as u16
    }

    pub(crate) fn number(self) -> u64 {
        (self.0.get() & ((1 << NUMBER_BITS) - 1)) - 1
    }
}

impl<'a> Publication<'a> {
    pub(crate) fn new(
        topic: &'a str,
        properties: &'a [u8],
        payload: &'a [u8],
        qos: QoS,
        expires: Millis,
    ) -> Publication<'a> {
        Publication {
            topic,
            properties,
            payload,
            qos,
            expires,
            stored: Position(0),
            reply_to: None,
            mails: 0,
            dup: false,
            waits: false,
            kept: None,
        }
    }

    /// The kept message, if somebody has needed it already.
    pub(crate) fn kept(&self) -> Option<&Message> {
        self.kept.as_ref()
    }

    /// The message to keep; made once, however many keep it.
    pub(crate) fn keep(&mut self, account: &Arc<Account>, scratch: &mut Vec<u8>) -> Message {
        if let Some(kept) = &self.kept {
            return kept.clone();
        }
        scratch.clear();
        scratch.reserve(self.topic.len() + self.properties.len() + self.payload.len());
        scratch.extend_from_slice(self.topic.as_bytes());
        scratch.extend_from_slice(self.properties);
        scratch.extend_from_slice(self.payload);
        // Whatever comes from a packet is shorter than 2^28 bytes.
        let charged = OVERHEAD_BYTES + scratch.len() as u32;
        account.0.fetch_add(charged.into(), Ordering::Relaxed);
        let header = Header {
            account: account.clone(),
            position: AtomicU64::new(self.stored.0),
            expires_and_topic: self.expires.0.min(NEVER_MS) << 16 | self.topic.len() as u64,
            charged,
            properties_and_qos: (self.properties.len() as u32) << 2 | self.qos as u32,
        };
        let message = Message(ThinArc::from_header_and_slice(header, scratch));
        if scratch.capacity() > 256 * 1024 {
            *scratch = Vec::new();
        }
        self.kept.insert(message).clone()
    }
}
