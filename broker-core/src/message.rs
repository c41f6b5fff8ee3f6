//! An application message: kept in one allocation, or passing by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use triomphe::ThinArc;
use whimbrel_codec::QoS;
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
const OVERHEAD_BYTES: u64 = 64;

/// A message that is kept, however many queues and topics hold it: one pointer, one allocation.
#[derive(Clone)]
pub struct Message(ThinArc<Header, u8>);

struct Header {
    expires: Millis,
    /// Where this message was charged; its bytes go back when the last holder lets go.
    account: Arc<Account>,
    charged: u64,
    topic_len: u16,
    qos: QoS,
    properties_len: u32,
}

impl Drop for Header {
    fn drop(&mut self) {
        self.account.0.fetch_sub(self.charged, Ordering::Relaxed);
    }
}

impl Message {
    /// The published QoS.
    pub fn qos(&self) -> QoS {
        self.0.header.header.qos
    }

    /// The application's bytes.
    pub fn payload(&self) -> &[u8] {
        let header = &self.0.header.header;
        self.bytes(usize::from(header.topic_len) + header.properties_len as usize, usize::MAX)
    }

    /// When it is no longer to be delivered.
    pub(crate) fn expires(&self) -> Millis {
        self.0.header.header.expires
    }

    /// Properties to forward, as on the wire.
    pub(crate) fn properties(&self) -> &[u8] {
        let header = &self.0.header.header;
        self.bytes(usize::from(header.topic_len), header.properties_len as usize)
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
            kept: Some(self.clone()),
        }
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
        self.bytes(0, usize::from(self.0.header.header.topic_len))
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
    /// The kept message, once somebody has needed it.
    kept: Option<Message>,
}

impl<'a> Publication<'a> {
    pub(crate) fn new(
        topic: &'a str,
        properties: &'a [u8],
        payload: &'a [u8],
        qos: QoS,
        expires: Millis,
    ) -> Publication<'a> {
        Publication { topic, properties, payload, qos, expires, kept: None }
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
        let charged = OVERHEAD_BYTES + scratch.len() as u64;
        account.0.fetch_add(charged, Ordering::Relaxed);
        let header = Header {
            expires: self.expires,
            account: account.clone(),
            charged,
            topic_len: self.topic.len() as u16,
            qos: self.qos,
            properties_len: self.properties.len() as u32,
        };
        let message = Message(ThinArc::from_header_and_slice(header, scratch));
        if scratch.capacity() > 256 * 1024 {
            *scratch = Vec::new();
        }
        self.kept.insert(message).clone()
    }
}
