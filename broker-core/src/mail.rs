//! What one shard tells another: messages that the other's sessions want.

use whimbrel_codec::QoS;
use whimbrel_store::Position;
use whimbrel_topics::{Stamp, SubscriptionOptions};

use crate::Millis;
use crate::message::{Message, Publication, ReplyTo};
use crate::output::BY_REFERENCE_BYTES;

/// A batch of messages for one shard. Small ones are copied into one buffer, so a batch costs no
/// allocation once its buffers have grown.
#[derive(Default)]
pub struct Mail {
    items: Vec<Item>,
    bytes: Vec<u8>,
    /// What there is more to say of some items, in their order.
    tracked: Vec<Tracked>,
    /// Numbers of acknowledgements of the receiver that wait for one recording less.
    recorded: Vec<u64>,
}

/// A message that is in the store, or that the sender wants to be told of.
struct Tracked {
    /// Index of the item.
    item: usize,
    stored: Position,
    reply_to: Option<ReplyTo>,
    waits: bool,
}

/// Kept buffers are not larger than this after a batch was read.
const KEPT_BYTES: usize = 1024 * 1024;

/// For whom a message is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// All ordinary subscribers of the shard.
    Subscribers,
    /// The only one of them, as long as the route with this stamp is current.
    Subscriber { session: u32, options: SubscriptionOptions, hash: u64, stamp: Stamp },
    /// One member of a shared-subscription group.
    Member {
        session: u32,
        group: u32,
        /// How often it was passed on already.
        hops: u8,
    },
}

struct Item {
    expires: Millis,
    /// Length of its bytes in the batch; 0 if the message stands beside.
    topic_len: u16,
    qos: QoS,
    retain: bool,
    properties_len: u32,
    payload_len: u32,
    to: To,
    /// A large message.
    message: Option<Message>,
}

impl Mail {
    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.recorded.is_empty()
    }

    /// Memory of the messages in it, in bytes; large ones are shared and not counted.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
            + self.items.len() * size_of::<Item>()
            + self.tracked.len() * size_of::<Tracked>()
    }

    /// Takes all that `other` has, behind what is here.
    pub fn append(&mut self, other: &mut Mail) {
        let before = self.items.len();
        let moved = other.tracked.drain(..);
        self.tracked.extend(moved.map(|t| Tracked { item: t.item + before, ..t }));
        self.recorded.append(&mut other.recorded);
        self.items.append(&mut other.items);
        self.bytes.append(&mut other.bytes);
    }

    /// The receiver's acknowledgement `number` waits for one recording less.
    pub(crate) fn push_recorded(&mut self, number: u64) {
        self.recorded.push(number);
    }

    /// Numbers given by [`Mail::push_recorded`].
    pub(crate) fn take_recorded(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.recorded)
    }

    /// The batch of records of `sender`, which fills this, is at `base` of the log.
    pub(crate) fn settle(&mut self, sender: u16, base: Position) {
        for tracked in &mut self.tracked {
            if tracked.stored.writer() == Some(sender) {
                tracked.stored = tracked.stored.settled(base);
            }
        }
    }

    pub(crate) fn push(&mut self, to: To, retain: bool, p: &mut Publication<'_>) {
        if p.stored != Position(0) || p.reply_to.is_some() {
            let (stored, reply_to, waits) = (p.stored, p.reply_to, p.waits);
            self.tracked.push(Tracked { item: self.items.len(), stored, reply_to, waits });
            p.mails += u32::from(reply_to.is_some());
        }
        let mut item = Item {
            expires: p.expires,
            topic_len: p.topic.len() as u16,
            qos: p.qos,
            retain,
            properties_len: p.properties.len() as u32,
            payload_len: p.payload.len() as u32,
            to,
            message: None,
        };
        if p.payload.len() >= BY_REFERENCE_BYTES && p.kept().is_some() {
            item.message = p.kept().cloned();
        } else {
            self.bytes.extend_from_slice(p.topic.as_bytes());
            self.bytes.extend_from_slice(p.properties);
            self.bytes.extend_from_slice(p.payload);
        }
        self.items.push(item);
    }

    /// Hands out each message in order and leaves the batch empty.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(To, bool, &mut Publication<'_>)) {
        let mut rest = self.bytes.as_slice();
        let mut tracked = self.tracked.drain(..).peekable();
        for (at, item) in self.items.drain(..).enumerate() {
            let (stored, reply_to, waits) = match tracked.next_if(|tracked| tracked.item == at) {
                Some(tracked) => (tracked.stored, tracked.reply_to, tracked.waits),
                None => (Position(0), None, false),
            };
            if let Some(message) = &item.message {
                let mut publication = message.publication();
                if stored != Position(0) {
                    publication.stored = stored;
                }
                publication.reply_to = reply_to;
                publication.waits = waits;
                each(item.to, item.retain, &mut publication);
                continue;
            }
            let mut take = |len: usize| {
                let (taken, left) = rest.split_at_checked(len).unwrap_or((rest, &[]));
                rest = left;
                taken
            };
            let topic = take(usize::from(item.topic_len));
            let properties = take(item.properties_len as usize);
            let payload = take(item.payload_len as usize);
            let topic = std::str::from_utf8(topic).unwrap_or_default();
            let mut publication =
                Publication::new(topic, properties, payload, item.qos, item.expires);
            publication.stored = stored;
            publication.reply_to = reply_to;
            publication.waits = waits;
            each(item.to, item.retain, &mut publication);
        }
        drop(tracked);
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            *self = Mail::default();
        }
    }
}
