//! What the shards of one broker share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use whimbrel_auth::{Anonymous, Authenticator, Rules};
use whimbrel_topics::{Retained, Routes};

use crate::message::{Account, Message};
use crate::quota::Quotas;
use crate::stats::Stats;

/// Shared by all shards of a broker.
pub struct Shared {
    /// Who subscribed to what.
    pub routes: Routes,
    /// The retained messages.
    pub(crate) retained: RwLock<Retained<Message>>,
    /// Counters, one set per shard.
    pub stats: Stats,
    /// Who may connect.
    pub(crate) authenticator: Arc<dyn Authenticator>,
    /// What principals may do.
    rules: RwLock<Arc<Rules>>,
    /// Who has how much of the broker, and who is banned.
    pub(crate) quotas: Quotas,
    /// Memory of message bodies.
    pub(crate) account: Arc<Account>,
    /// Memory of buffers and subscriptions, by shard.
    pub(crate) buffered: Vec<AtomicUsize>,
    /// Milliseconds since 1970 at the core's time 0; only what a store keeps depends on it.
    pub wall_origin_ms: AtomicU64,
    /// Number of the last change of a retained message.
    pub(crate) retained_number: AtomicU64,
    /// Resident memory of the process as the runtime last saw it, in bytes; 0 if it never looked.
    pub memory_bytes: AtomicU64,
    shards: u16,
}

impl Shared {
    /// For this many shards (at least one). `seed` should be unpredictable: it keeps hash tables
    /// safe from peers who choose their topics and client identifiers with ill intent.
    pub fn new(shards: u16, seed: u64) -> Arc<Shared> {
        let rules = Arc::new(Rules::open());
        Shared::with_access(shards, seed, Arc::new(Anonymous), rules)
    }

    /// The same, where these decide who may connect and what those may do.
    pub fn with_access(
        shards: u16,
        seed: u64,
        authenticator: Arc<dyn Authenticator>,
        rules: Arc<Rules>,
    ) -> Arc<Shared> {
        let shards = shards.clamp(1, whimbrel_topics::MAX_SHARDS);
        Arc::new(Shared {
            routes: Routes::with_seed(seed),
            retained: RwLock::default(),
            stats: Stats::new(shards),
            authenticator,
            rules: RwLock::new(rules),
            quotas: Quotas::default(),
            account: Arc::default(),
            buffered: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            wall_origin_ms: AtomicU64::new(0),
            retained_number: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            shards,
        })
    }

    /// What principals may do.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Rules that hold for who connects from now on; [`Shard::rules_changed`] has those who are
    /// there follow.
    ///
    /// [`Shard::rules_changed`]: crate::Shard::rules_changed
    pub fn set_rules(&self, rules: Arc<Rules>) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Bytes held by messages, buffers and subscriptions.
    pub fn memory_used_bytes(&self) -> u64 {
        let buffered: usize = self.buffered.iter().map(|b| b.load(Ordering::Relaxed)).sum();
        self.account.bytes() + buffered as u64
    }

    /// Where a client's session lives.
    pub(crate) fn home(&self, client_id: &str) -> u16 {
        if self.shards == 1 {
            return 0;
        }
        let hash = self.routes.topic_hash(client_id);
        ((u128::from(hash) * u128::from(self.shards)) >> 64) as u16
    }
}
