//! A session: what outlives a network connection (section 4.1).

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use hashbrown::HashTable;
use whimbrel_auth::Rights;
use whimbrel_codec::{PacketId, QoS};
use whimbrel_protocol::{IncomingIds, Outgoing};
use whimbrel_store::{SessionKey, WallMs};

use crate::conn::RetainedScan;
use crate::message::Message;
use crate::spill::Spilled;
use crate::{Config, ConnId, Millis};

/// A session. Without subscriptions and messages in flight it holds no memory beside its own.
pub(crate) struct Session {
    pub(crate) client_id: Box<str>,
    /// Whose session it is and what its client may do; none if nobody knows it and everybody may do
    /// everything.
    pub(crate) rights: Option<Arc<Rights>>,
    /// Its network connection, if it has one.
    pub(crate) conn: Option<ConnId>,
    /// 0xFFFFFFFF: it never ends by itself.
    pub(crate) expiry_s: u32,
    /// Its messages are kept over a stop of the broker; then it has a key.
    pub(crate) durable: bool,
    /// Its number in the store, if it is there.
    pub(crate) key: Option<NonZeroU64>,
    /// When it lost its connection, while it has none; for the store.
    pub(crate) detached: Option<WallMs>,
    /// When it ends, while it has no connection.
    pub(crate) ends: Millis,
    pub(crate) subscriptions: Subscriptions,
    /// Where a table of limits goes before those of the broker.
    pub(crate) bounds: Option<Box<Bounds>>,
    pub(crate) outbound: Option<Box<Outbound>>,
    /// QoS 2 messages of the client that it has not released.
    pub(crate) incoming: Option<Box<IncomingIds>>,
    pub(crate) will: Option<Box<Will>>,
    /// Retained messages that an earlier connection was lost too early to get.
    #[expect(clippy::box_collection, reason = "rare: one pointer, not four")]
    pub(crate) retained: Option<Box<VecDeque<RetainedScan>>>,
}

/// Limits of one session.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_subscriptions: u32,
    pub(crate) max_queued_messages: u32,
    pub(crate) max_queued_bytes: u64,
}

/// The will message of a connection, or of one that was lost.
pub(crate) struct Will {
    pub(crate) message: Message,
    pub(crate) retain: bool,
    pub(crate) delay_s: u32,
    /// Message expiry interval, which begins when the will is published.
    pub(crate) expiry_s: Option<u32>,
    /// When it is to be published; never while the connection stands.
    pub(crate) due: Millis,
}

/// What goes to the client with QoS 1 and 2.
#[derive(Default)]
pub(crate) struct Outbound {
    pub(crate) in_flight: Outgoing<Delivery>,
    /// In flight since an earlier connection and not yet repeated on this one, because of the
    /// client's receive maximum.
    pub(crate) to_repeat: VecDeque<PacketId>,
    pub(crate) queue: VecDeque<Delivery>,
    /// Of `queue` alone.
    pub(crate) queued_bytes: u64,
    /// What waits behind `queue`, in the store only.
    pub(crate) spilled: Option<Box<Spilled>>,
}

/// A message on its way to one session.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// None where the session ends with the connection: then nothing is ever repeated.
    pub(crate) message: Option<Message>,
    ids: Ids,
    /// Key of the shared-subscription group through which it came; [`NO_GROUP`] for none.
    pub(crate) group: u32,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// It may have been sent before the broker was stopped.
    pub(crate) dup: bool,
}

/// Most deliveries have one subscription identifier or none.
#[derive(Debug)]
enum Ids {
    None,
    One(u32),
    #[expect(clippy::box_collection, reason = "rare: one pointer, not two")]
    Many(Box<Vec<u32>>),
}

/// A delivery that came through no group.
pub(crate) const NO_GROUP: u32 = u32::MAX;

const _: () = assert!(size_of::<Delivery>() <= 32);

impl Delivery {
    pub(crate) fn new(
        message: Option<Message>,
        qos: QoS,
        retain: bool,
        ids: &[u32],
        group: u32,
    ) -> Delivery {
        let ids = match ids {
            [] => Ids::None,
            [id] => Ids::One(*id),
            many => Ids::Many(Box::new(many.to_vec())),
        };
        Delivery { message, ids, group, qos, retain, dup: false }
    }

    /// Subscription identifiers.
    pub(crate) fn ids(&self) -> &[u32] {
        match &self.ids {
            Ids::None => &[],
            Ids::One(id) => std::slice::from_ref(id),
            Ids::Many(ids) => ids,
        }
    }

    /// What it counts for in the limit on queued bytes.
    pub(crate) fn len(&self) -> u64 {
        let ids = match &self.ids {
            Ids::Many(ids) => size_of_val(&ids[..]),
            _ => 0,
        };
        (size_of::<Delivery>() + ids) as u64 + self.message.as_ref().map_or(0, |m| m.len() as u64)
    }
}

impl Bounds {
    /// Those of every session.
    pub(crate) fn of(config: &Config) -> Bounds {
        Bounds {
            max_subscriptions: config.max_subscriptions,
            max_queued_messages: config.max_queued_messages,
            max_queued_bytes: config.max_queued_bytes,
        }
    }
}

impl Outbound {
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.in_flight() == 0 && self.waiting() == 0
    }

    /// How many messages wait, in memory and in the store.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.spilled.as_ref().map_or(0, |spilled| spilled.len())
    }

    /// What waits, for the limit on queued bytes.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.queued_bytes + self.spilled.as_ref().map_or(0, |spilled| spilled.bytes())
    }

    pub(crate) fn push(&mut self, delivery: Delivery) {
        self.queued_bytes += delivery.len();
        self.queue.push_back(delivery);
    }

    pub(crate) fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.queued_bytes -= delivery.len();
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(delivery)
    }
}

impl Session {
    pub(crate) fn new(client_id: &str) -> Session {
        Session {
            client_id: client_id.into(),
            rights: None,
            conn: None,
            expiry_s: 0,
            durable: false,
            key: None,
            detached: None,
            ends: Millis::NEVER,
            subscriptions: Subscriptions::default(),
            bounds: None,
            outbound: None,
            incoming: None,
            will: None,
            retained: None,
        }
    }

    pub(crate) fn outbound(&mut self) -> &mut Outbound {
        self.outbound.get_or_insert_default()
    }

    /// Its number in the store, if it is there.
    pub(crate) fn key(&self) -> Option<SessionKey> {
        self.key.map(|key| SessionKey(key.get()))
    }

    /// The same if its messages are there too.
    #[inline]
    pub(crate) fn durable_key(&self) -> Option<SessionKey> {
        if self.durable { self.key() } else { None }
    }

    /// The name of the principal whose session it is; empty if nobody knows it.
    pub(crate) fn owner(&self) -> &str {
        self.rights.as_ref().map_or("", |rights| &rights.principal().name)
    }

    /// Its limits.
    pub(crate) fn bounds(&self, config: &Config) -> Bounds {
        match &self.bounds {
            Some(bounds) => **bounds,
            None => Bounds::of(config),
        }
    }

    /// When its timer is next needed.
    pub(crate) fn deadline(&self) -> Millis {
        self.ends.min(self.will.as_ref().map_or(Millis::NEVER, |will| will.due))
    }
}

/// A subscription as its session knows it; the options that routing needs stand in the routes.
pub(crate) struct Subscription {
    /// As the client sent it, `$share/...` included.
    pub(crate) filter: Box<str>,
    pub(crate) shared: bool,
}

impl Subscription {
    /// About what it takes of memory, here and in the routes.
    pub(crate) fn memory_bytes(filter: &str) -> usize {
        const FIXED: usize = 200;
        FIXED + 2 * filter.len()
    }
}

/// The subscriptions of a session.
pub(crate) enum Subscriptions {
    Few(Vec<Subscription>),
    Many(HashTable<Subscription>),
}

const FEW: usize = 8;

impl Default for Subscriptions {
    fn default() -> Self {
        Subscriptions::Few(Vec::new())
    }
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        match self {
            Subscriptions::Few(list) => list.len(),
            Subscriptions::Many(table) => table.len(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        let (few, many) = match self {
            Subscriptions::Few(list) => (Some(list.iter()), None),
            Subscriptions::Many(table) => (None, Some(table.iter())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    pub(crate) fn contains(&self, filter: &str, hash: impl Fn(&str) -> u64) -> bool {
        match self {
            Subscriptions::Few(list) => list.iter().any(|s| *s.filter == *filter),
            Subscriptions::Many(table) => {
                table.find(hash(filter), |s| *s.filter == *filter).is_some()
            }
        }
    }

    /// The caller has made sure that it is not there.
    pub(crate) fn add(&mut self, subscription: Subscription, hash: impl Fn(&str) -> u64) {
        if let Subscriptions::Few(list) = self {
            if list.len() < FEW {
                list.reserve_exact(1);
                list.push(subscription);
                return;
            }
            let mut table = HashTable::with_capacity(2 * FEW);
            for s in list.drain(..) {
                table.insert_unique(hash(&s.filter), s, |s| hash(&s.filter));
            }
            *self = Subscriptions::Many(table);
        }
        if let Subscriptions::Many(table) = self {
            table.insert_unique(hash(&subscription.filter), subscription, |s| hash(&s.filter));
        }
    }

    /// True if it was there.
    pub(crate) fn remove(&mut self, filter: &str, hash: impl Fn(&str) -> u64) -> bool {
        match self {
            Subscriptions::Few(list) => {
                let at = list.iter().position(|s| *s.filter == *filter);
                at.map(|at| list.swap_remove(at)).is_some()
            }
            Subscriptions::Many(table) => {
                match table.find_entry(hash(filter), |s| *s.filter == *filter) {
                    Ok(entry) => {
                        entry.remove();
                        true
                    }
                    Err(_) => false,
                }
            }
        }
    }
}
