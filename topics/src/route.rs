//! What one topic matches, as seen from one shard.

use std::ops::Range;

use crate::group::{Group, GroupRoute};
use crate::routes::{SessionRef, SubscriptionOptions};
use crate::subscribers::Packed;

/// Shards a broker can have: the size of a [`ShardSet`].
pub const MAX_SHARDS: u16 = 256;

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet([u64; 4]);

impl ShardSet {
    /// Adds a shard below [`MAX_SHARDS`].
    pub fn insert(&mut self, shard: u16) {
        if let Some(word) = self.0.get_mut(usize::from(shard / 64)) {
            *word |= 1 << (shard % 64);
        }
    }

    /// Whether the shard is in the set.
    pub fn contains(&self, shard: u16) -> bool {
        self.0.get(usize::from(shard / 64)).is_some_and(|word| word >> (shard % 64) & 1 == 1)
    }

    /// Whether no shard is in the set.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The shards in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<> {
        self.0.into_iter().zip([0, 64, 128, 192]).flat_map(|(mut word, first)| {
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros();
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(first + bit as u16)
            })
        })
    }
}

/// A session of this shard that a topic matches, its overlapping subscriptions merged.
///
/// When a session has matching subscriptions with and without no local, there are two entries of
/// which [`receives`](Self::receives) selects exactly one for any publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSubscriber {
    /// Slot of the session in this shard.
    pub session: u32,
    ids_start: u32,
    ids_len: u32,
    flags: u8,
}

const QOS: u8 = 0b11;
const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const ONLY_OWN: u8 = 1 << 4;

impl LocalSubscriber {
    /// Highest QoS among the subscriptions, 0 to 2.
    pub fn qos(&self) -> u8 {
        self.flags & QOS
    }

    /// Messages that the session itself published are not for this entry.
    pub fn no_local(&self) -> bool {
        self.flags & NO_LOCAL != 0
    }

    /// Only messages that the session itself published are for this entry.
    pub fn only_own(&self) -> bool {
        self.flags & ONLY_OWN != 0
    }

    /// Whether the retain flag is forwarded as it was published.
    pub fn retain_as_published(&self) -> bool {
        self.flags & RETAIN_AS_PUBLISHED != 0
    }

    /// Whether a message is for this entry; `own`: the session itself published it.
    pub fn receives(&self, own: bool) -> bool {
        self.flags & if own { NO_LOCAL } else { ONLY_OWN } == 0
    }

    /// Where the subscription identifiers are in [`Route::ids`].
    pub fn ids_range(&self) -> Range<usize> {
        self.ids_start as usize..(self.ids_start + self.ids_len) as usize
    }
}

const _: () = assert!(size_of::<LocalSubscriber>() == 16);

/// What a topic matches, as seen from one shard.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// Sessions of this shard.
    pub local: Vec<LocalSubscriber>,
    /// Subscription identifiers; see [`Route::ids_of`].
    pub ids: Vec<u32>,
    /// Other shards with at least one ordinary subscriber.
    pub remote: ShardSet,
    /// Matching shared-subscription groups of all shards, each (group, filter) once.
    pub groups: Vec<GroupRoute>,
    /// Filters that contributed to `local`; with one alone nothing can overlap.
    filters: u32,
    /// The first subscriber of another shard.
    remote_first: Option<(SessionRef, Packed)>,
    /// Whether a subscriber of another shard is durable.
    remote_durable: bool,
    /// Whether there is another.
    remote_more: bool,
}

impl Route {
    /// Subscription identifiers to send to this subscriber.
    pub fn ids_of(&self, subscriber: &LocalSubscriber) -> &[u32] {
        self.ids.get(subscriber.ids_range()).unwrap_or_default()
    }

    /// Whether nobody anywhere is subscribed.
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.groups.is_empty() && self.remote.is_empty()
    }

    /// The subscriber of another shard, if there is exactly one subscription in all others: it
    /// can be told whom a message is for, and need not resolve the topic again. This holds as long
    /// as the route is current.
    pub fn only_remote(&self) -> Option<(SessionRef, SubscriptionOptions)> {
        let (who, options) = self.remote_first.filter(|_| !self.remote_more)?;
        Some((who, options.unpack(self.remote_durable)))
    }

    /// Whether an ordinary subscriber of another shard keeps messages over a stop of the broker.
    pub fn is_remote_durable(&self) -> bool {
        self.remote_durable
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.remote_first = None;
        self.remote_more = false;
        self.remote_durable = false;
        self.local.clear();
        self.ids.clear();
        self.remote = ShardSet::default();
        self.groups.clear();
        self.filters = 0;
    }

    pub(crate) fn add_filter(&mut self) {
        self.filters += 1;
    }

    pub(crate) fn add_local(&mut self, session: u32, options: Packed) {
        let ids_start = self.ids.len() as u32;
        let id = options.id();
        if id != 0 {
            self.ids.push(id);
        }
        self.local.push(LocalSubscriber {
            session,
            ids_start,
            ids_len: u32::from(id != 0),
            flags: options.flags(),
        });
    }

    pub(crate) fn add_remote(&mut self, who: SessionRef, options: Packed, durable: bool) {
        self.remote_durable |= durable;
        self.remote.insert(who.shard);
        self.remote_more |= self.remote_first.replace((who, options)).is_some();
    }

    pub(crate) fn add_remote_shard(&mut self, shard: u16, durable: bool) {
        self.remote_durable |= durable;
        self.remote.insert(shard);
        self.remote_more = true;
    }

    pub(crate) fn add_group(&mut self, group: &std::sync::Arc<Group>) {
        self.groups.push(GroupRoute { group: group.clone() });
    }

    /// Makes one entry of what a session gets through several filters.
    pub(crate) fn merge(&mut self) {
        if self.filters < 2 || self.local.len() < 2 {
            return;
        }
        self.local.sort_unstable_by_key(|entry| (entry.session, entry.ids_start));
        if self.local.is_sorted_by(|a, b| a.session < b.session) {
            return;
        }
        let parts = std::mem::take(&mut self.local);
        let part_ids = std::mem::take(&mut self.ids);
        self.local.reserve(parts.len());
        self.ids.reserve(part_ids.len());
        for parts in parts.chunk_by(|a, b| a.session == b.session) {
            let no_local = parts.iter().filter(|part| part.no_local()).count();
            let all = self.merged(parts.iter(), &part_ids);
            if no_local == 0 || no_local == parts.len() {
                self.local.extend(all);
                continue;
            }
            let mut own = self.merged(parts.iter().filter(|part| !part.no_local()), &part_ids);
            if let Some(own) = &mut own {
                own.flags |= ONLY_OWN;
            }
            self.local.extend(all);
            self.local.extend(own);
        }
    }

    fn merged<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a LocalSubscriber>,
        part_ids: &[u32],
    ) -> Option<LocalSubscriber> {
        let ids_start = self.ids.len() as u32;
        let merged = parts.fold(None, |merged: Option<LocalSubscriber>, part| {
            self.ids.extend_from_slice(part_ids.get(part.ids_range()).unwrap_or_default());
            let flags = merged.map_or(part.flags, |merged| {
                merged.qos().max(part.qos()) | (merged.flags | part.flags) & !QOS
            });
            Some(LocalSubscriber { flags, ..*part })
        });
        let ids_len = self.ids.len() as u32 - ids_start;
        merged.map(|merged| LocalSubscriber { ids_start, ids_len, ..merged })
    }
}

/// Bits of [`LocalSubscriber::flags`] for subscription options.
pub(crate) fn flags(qos: u8, no_local: bool, retain_as_published: bool) -> u8 {
    let mut flags = qos.min(2);
    if no_local {
        flags |= NO_LOCAL;
    }
    if retain_as_published {
        flags |= RETAIN_AS_PUBLISHED;
    }
    flags
}

/// Subscription options for the low bits of [`flags`].
pub(crate) fn unpack_flags(flags: u8) -> (u8, bool, bool) {
    (flags & QOS, flags & NO_LOCAL != 0, flags & RETAIN_AS_PUBLISHED != 0)
}
