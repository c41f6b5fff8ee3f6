//! The table of subscriptions, shared by all shards of a broker.
//!
//! Filters without a wildcard are in a hash table, those with one in a trie. What a topic matches
//! is meant to be cached together with its [`Stamp`]: subscribing to a filter without wildcard
//! outdates only topics that share its bucket, so that thousands of devices subscribing to their
//! own topic leave the cached routes of others alone.
//!
//! Invariant: a stamp is read before the table is walked and bumped after the table is changed, so
//! a stamp that is still current never belongs to a route older than a finished change.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;

use crate::filter::has_wildcard;
use crate::group::Group;
pub use crate::group::{GroupMember, GroupRoute};
use crate::label::Label;
pub use crate::route::{LocalSubscriber, MAX_SHARDS, Route, ShardSet};
use crate::seed::{Seed, spread};
use crate::subscribers::{Subscriber, Subscribers};
use crate::trie::Trie;

/// Locks of the hash table: enough that a storm of subscriptions seldom meets a publisher.
const TABLES: usize = 64;
/// Generations of filters without wildcard.
const BUCKETS: usize = 4096;

/// A session: the shard it lives in and its slot there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef {
    /// Below [`MAX_SHARDS`].
    pub shard: u16,
    /// Slot in that shard.
    pub session: u32,
}

impl SessionRef {
    pub(crate) fn spread(self) -> u64 {
        spread(u64::from(self.session) << 16 | u64::from(self.shard))
    }
}

/// What a subscription asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Maximum QoS, 0 to 2.
    pub qos: u8,
    /// Messages that the session itself published are not for it.
    pub no_local: bool,
    /// The retain flag is forwarded as it was published.
    pub retain_as_published: bool,
    /// Subscription identifier, at most 268,435,455; 0: none.
    pub id: u32,
    /// The session keeps messages over a stop of the broker.
    pub durable: bool,
}

/// The age of a route; see [`Routes::is_current`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    wildcards: u64,
    bucket: u64,
}

/// A filter without wildcard.
struct Literal {
    filter: Label,
    subscribers: Subscribers,
}

/// Who subscribed to what.
pub struct Routes {
    seed: Seed,
    literals: [RwLock<HashTable<Literal>>; TABLES],
    trie: RwLock<Trie>,
    /// Generation of filters with a wildcard.
    wildcards: AtomicU64,
    /// Generations of filters without, by hash.
    buckets: Box<[AtomicU64]>,
    groups: RwLock<HashTable<Arc<Group>>>,
    next_group: AtomicU32,
    subscriptions: AtomicUsize,
}

impl Default for Routes {
    fn default() -> Self {
        Self::new()
    }
}

impl Routes {
    /// An empty table with a seed of its own, which shows in nothing but
    /// [`topic_hash`](Self::topic_hash).
    pub fn new() -> Self {
        Self::of_seed(Seed::random())
    }

    /// An empty table whose hashes depend on `seed`, which peers must not be able to guess.
    pub fn with_seed(seed: u64) -> Self {
        Self::of_seed(Seed::new(seed))
    }

    fn of_seed(seed: Seed) -> Self {
        Self {
            seed,
            literals: std::array::from_fn(|_| RwLock::new(HashTable::new())),
            trie: RwLock::new(Trie::new()),
            wildcards: AtomicU64::new(0),
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            groups: RwLock::new(HashTable::new()),
            next_group: AtomicU32::new(0),
            subscriptions: AtomicUsize::new(0),
        }
    }

    /// Subscribes a session to a valid filter without its `$share/<group>/`, which is `group`.
    ///
    /// True if it replaced a subscription of this session to the same filter and group. A new
    /// member of a group counts as connected. Every resolve that starts afterwards sees it.
    ///
    /// # Panics
    /// If `who.shard` is not below [`MAX_SHARDS`]: a mistake of the caller, no peer can cause it.
    pub fn subscribe(
        &self,
        filter: &str,
        group: Option<&str>,
        who: SessionRef,
        options: SubscriptionOptions,
    ) -> bool {
        assert!(who.shard < MAX_SHARDS, "shard {} is too large", who.shard);
        let change = |subscribers: &mut Subscribers| match group {
            None => (subscribers.subscribe(Subscriber::new(who, options)), true),
            Some(name) => self.join(subscribers, name, who, options),
        };
        let literal = self.literal_hash(filter);
        let (replaced, outdates) = match literal {
            None => write(&self.trie).add(filter, &self.seed, change),
            Some(hash) => {
                add_literal(&mut write(self.table(hash)), filter, hash, &self.seed, change)
            }
        };
        if outdates {
            self.outdate(literal);
        }
        if !replaced {
            self.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
        replaced
    }

    /// Ends a subscription; true if there was one.
    pub fn unsubscribe(&self, filter: &str, group: Option<&str>, who: SessionRef) -> bool {
        let change = |subscribers: &mut Subscribers| match group {
            None => {
                let existed = subscribers.unsubscribe(who);
                (existed, existed)
            }
            Some(name) => self.leave(subscribers, name, who),
        };
        let literal = self.literal_hash(filter);
        let (existed, outdates) = match literal {
            None => write(&self.trie).remove(filter, &self.seed, change),
            Some(hash) => {
                remove_literal(&mut write(self.table(hash)), filter, hash, &self.seed, change)
            }
        };
        if outdates {
            self.outdate(literal);
        }
        if existed {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
        existed
    }

    /// Tells whether a member of a group has a network connection.
    ///
    /// Members are chosen among the connected ones while there is one. Takes effect in cached
    /// routes too.
    pub fn set_connected(&self, filter: &str, group: &str, who: SessionRef, connected: bool) {
        let name_hash = self.seed.hash(group.as_bytes());
        let set = |subscribers: &Subscribers| {
            subscribers.group(group, name_hash)?.set_connected(who, connected);
            Some(())
        };
        self.with(filter, set);
    }

    /// What a subscription of this session asks for, if there is one.
    pub fn options(
        &self,
        filter: &str,
        group: Option<&str>,
        who: SessionRef,
    ) -> Option<SubscriptionOptions> {
        self.with(filter, |subscribers| match group {
            None => subscribers.options(who),
            Some(name) => {
                let group = subscribers.group(name, self.seed.hash(name.as_bytes()))?;
                Some(GroupRoute { group: group.clone() }.member(who)?.options)
            }
        })
    }

    /// The key of a group, while it exists; see [`Routes::group`].
    pub fn group_key(&self, filter: &str, group: &str) -> Option<u32> {
        let name_hash = self.seed.hash(group.as_bytes());
        self.with(filter, |subscribers| Some(subscribers.group(group, name_hash)?.key))
    }

    /// Looks at the subscribers of a filter, if it has any.
    fn with<R>(&self, filter: &str, look: impl Fn(&Subscribers) -> Option<R>) -> Option<R> {
        match self.literal_hash(filter) {
            None => look(read(&self.trie).get(filter, &self.seed)?),
            Some(hash) => look(find(&read(self.table(hash)), filter, hash)?),
        }
    }

    /// Subscriptions of all sessions; each member of a group counts.
    pub fn subscription_count(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Keyed hash of a topic, for [`resolve`](Self::resolve) and for caches of its results.
    pub fn topic_hash(&self, topic: &str) -> u64 {
        self.seed.hash(topic.as_bytes())
    }

    /// Whether a resolve of a topic with this hash would find what it found when it gave `stamp`.
    pub fn is_current(&self, topic_hash: u64, stamp: Stamp) -> bool {
        self.stamp(topic_hash) == stamp
    }

    /// Fills `route` with what `topic` matches, as seen from `shard`.
    ///
    /// `topic_hash` is [`topic_hash`](Self::topic_hash) of `topic`.
    pub fn resolve(&self, topic: &str, topic_hash: u64, shard: u16, route: &mut Route) -> Stamp {
        route.clear();
        let stamp = self.stamp(topic_hash);
        if let Some(subscribers) = find(&read(self.table(topic_hash)), topic, topic_hash) {
            subscribers.collect(shard, route);
        }
        let trie = read(&self.trie);
        if !trie.is_empty() {
            trie.walk(topic, &self.seed, |subscribers| subscribers.collect(shard, route));
        }
        drop(trie);
        route.merge();
        stamp
    }

    /// The group with this key, while it exists.
    pub fn group(&self, key: u32) -> Option<GroupRoute> {
        let groups = read(&self.groups);
        let group = groups.find(spread(u64::from(key)), |group| group.key == key)?.clone();
        Some(GroupRoute { group })
    }

    fn stamp(&self, topic_hash: u64) -> Stamp {
        Stamp {
            wildcards: self.wildcards.load(Ordering::Acquire),
            bucket: self.bucket(topic_hash).load(Ordering::Acquire),
        }
    }

    fn bucket(&self, topic_hash: u64) -> &AtomicU64 {
        &self.buckets[(topic_hash >> 20) as usize % BUCKETS]
    }

    fn table(&self, topic_hash: u64) -> &RwLock<HashTable<Literal>> {
        // Other bits than those the table itself uses.
        &self.literals[(topic_hash >> 40) as usize % TABLES]
    }

    /// Hash of a filter without wildcard, `None` for one with.
    fn literal_hash(&self, filter: &str) -> Option<u64> {
        (!has_wildcard(filter)).then(|| self.topic_hash(filter))
    }

    /// Outdates the cached routes that a change concerns; called when the change is visible.
    fn outdate(&self, literal: Option<u64>) {
        let generation = literal.map_or(&self.wildcards, |hash| self.bucket(hash));
        generation.fetch_add(1, Ordering::Release);
    }

    /// Returns whether `who` was a member, and whether cached routes are outdated now.
    fn join(
        &self,
        subscribers: &mut Subscribers,
        name: &str,
        who: SessionRef,
        options: SubscriptionOptions,
    ) -> (bool, bool) {
        let name_hash = self.seed.hash(name.as_bytes());
        if let Some(group) = subscribers.group(name, name_hash) {
            return (group.subscribe(who, options), false);
        }
        let group = self.register_group(name, name_hash);
        group.subscribe(who, options);
        subscribers.add_group(group);
        (false, true)
    }

    /// Returns whether `who` was a member, and whether cached routes are outdated now.
    fn leave(&self, subscribers: &mut Subscribers, name: &str, who: SessionRef) -> (bool, bool) {
        let name_hash = self.seed.hash(name.as_bytes());
        let Some(group) = subscribers.group(name, name_hash).cloned() else {
            return (false, false);
        };
        let existed = group.unsubscribe(who);
        let was_last = group.is_empty();
        if was_last {
            subscribers.remove_group(&group);
            let mut groups = write(&self.groups);
            let hash = spread(u64::from(group.key));
            if let Ok(entry) = groups.find_entry(hash, |other| other.key == group.key) {
                entry.remove();
            }
        }
        (existed, was_last)
    }

    fn register_group(&self, name: &str, name_hash: u64) -> Arc<Group> {
        let mut groups = write(&self.groups);
        loop {
            let key = self.next_group.fetch_add(1, Ordering::Relaxed);
            let hash = spread(u64::from(key));
            if groups.find(hash, |group| group.key == key).is_some() {
                continue;
            }
            let group = Arc::new(Group::new(key, name, name_hash));
            groups.insert_unique(hash, group.clone(), |group| spread(u64::from(group.key)));
            return group;
        }
    }
}

fn find<'a>(table: &'a HashTable<Literal>, filter: &str, hash: u64) -> Option<&'a Subscribers> {
    let literal = table.find(hash, |literal| literal.filter.as_bytes() == filter.as_bytes())?;
    Some(&literal.subscribers)
}

/// Lets `change` work on the subscribers of a filter; it must leave one.
fn add_literal<R>(
    table: &mut HashTable<Literal>,
    filter: &str,
    hash: u64,
    seed: &Seed,
    change: impl FnOnce(&mut Subscribers) -> R,
) -> R {
    let is_it = |literal: &Literal| literal.filter.as_bytes() == filter.as_bytes();
    if let Some(literal) = table.find_mut(hash, is_it) {
        return change(&mut literal.subscribers);
    }
    let mut literal =
        Literal { filter: Label::new(filter.as_bytes()), subscribers: Subscribers::None };
    let result = change(&mut literal.subscribers);
    table.insert_unique(hash, literal, |literal| seed.hash(literal.filter.as_bytes()));
    result
}

/// Lets `change` work on the subscribers of a filter, if any, and forgets a filter without.
fn remove_literal<R: Default>(
    table: &mut HashTable<Literal>,
    filter: &str,
    hash: u64,
    seed: &Seed,
    change: impl FnOnce(&mut Subscribers) -> R,
) -> R {
    let is_it = |literal: &Literal| literal.filter.as_bytes() == filter.as_bytes();
    let Ok(mut entry) = table.find_entry(hash, is_it) else { return R::default() };
    let result = change(&mut entry.get_mut().subscribers);
    if entry.get().subscribers.is_empty() {
        entry.remove();
        if table.len() < table.capacity() / 4 {
            let room = table.len() * 2;
            table.shrink_to(room, |literal| seed.hash(literal.filter.as_bytes()));
        }
    }
    result
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
