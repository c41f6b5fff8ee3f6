//! Who has how much of the broker: counts and rates that shards share, and bans.
//!
//! A table of limits names whose sum it limits; each such sum is a [`Share`]. Only opening,
//! admitting and closing a connection look shares up, under a lock that nobody takes if there are
//! no tables; a connection holds on to its shares, and charging one is an atomic operation.

mod bans;
mod bucket;
mod generations;
mod limit;

use core::net::IpAddr;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use bans::{Bans, Culprit, Policy};
use bucket::Bucket;
use generations::Generations;
pub use limit::{Limit, Network, Per, Selection, Values};
pub(crate) use limit::{Subject, Whose, deciding, first, source};

use crate::Millis;

/// What one listener, address, user or client has under one table.
pub(crate) struct Share {
    key: (u64, Whose),
    connections: AtomicU32,
    connects: Bucket,
    messages: Bucket,
    bytes: Bucket,
}

/// A rate that a connection must keep.
pub(crate) struct Meter {
    share: Arc<Share>,
    per_s: u32,
}

/// The shares of one connection and what they allow.
#[derive(Default)]
pub(crate) struct Quota {
    /// Where the connection comes from.
    pub(crate) address: Option<IpAddr>,
    /// Counted when it was opened.
    opened: Vec<Arc<Share>>,
    /// Counted when its client was let in.
    admitted: Vec<Arc<Share>>,
    messages: Vec<Meter>,
    bytes: Vec<Meter>,
}

/// Which limit a new connection would go beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    Connections,
    ConnectRate,
}

/// What is counted for whom, for all shards.
#[derive(Default)]
pub(crate) struct Quotas {
    shares: Mutex<Shares>,
    pub(crate) bans: Bans,
}

struct Shares {
    /// Of those who have connections.
    live: HashMap<(u64, Whose), Arc<Share>>,
    /// Of those who had some of late: coming back does not fill their buckets.
    idle: Generations<(u64, Whose), Option<Arc<Share>>>,
}

impl Default for Shares {
    fn default() -> Shares {
        Shares { live: HashMap::new(), idle: Generations::new() }
    }
}

impl Quotas {
    /// Whether one more connection is within the tables that can be judged now and could not be
    /// before. `replaced`: the shares of one that it takes the place of.
    pub(crate) fn check(
        &self,
        now: Millis,
        limits: &[Limit],
        subject: &Subject<'_>,
        replaced: Option<&Quota>,
    ) -> Result<(), Excess> {
        if limits.is_empty() {
            return Ok(());
        }
        // Those that need no client were judged when the connection was opened.
        let due = |limit: &Limit| limit.needs_client() == subject.client.is_some();
        let mut shares = self.lock();
        for (limit, most) in deciding(limits, subject, |values| values.max_connections) {
            let Some(share) = shares.get(now, limit, subject).filter(|_| due(limit)) else {
                continue;
            };
            let less = replaced.is_some_and(|quota| quota.holds(&share));
            if share.connections.load(Relaxed) >= most.saturating_add(u32::from(less)) {
                return Err(Excess::Connections);
            }
        }
        for (limit, per_s) in deciding(limits, subject, |values| values.max_connects_per_s) {
            let share = shares.get(now, limit, subject).filter(|_| due(limit));
            if share.is_some_and(|share| !share.connects.take(now, per_s)) {
                return Err(Excess::ConnectRate);
            }
        }
        Ok(())
    }

    /// Counts a connection that was opened, or whose client was let in, for all who are limited.
    pub(crate) fn hold(
        &self,
        now: Millis,
        limits: &[Limit],
        subject: &Subject<'_>,
        quota: &mut Quota,
    ) {
        if limits.is_empty() {
            return;
        }
        let mut shares = self.lock();
        for (limit, _) in deciding(limits, subject, |values| values.max_connections) {
            if let Some(share) = shares.get(now, limit, subject) {
                let list = match subject.client {
                    Some(_) if limit.needs_client() => &mut quota.admitted,
                    _ => &mut quota.opened,
                };
                shares.hold(list, &share);
            }
        }
        if subject.client.is_none() {
            return;
        }
        let mut meters = |value: fn(&Values) -> Option<u32>, held: &mut Vec<Arc<Share>>| {
            let mut meters = Vec::new();
            for (limit, per_s) in deciding(limits, subject, value) {
                let Some(share) = shares.get(now, limit, subject) else { continue };
                if !quota.opened.iter().any(|other| Arc::ptr_eq(other, &share)) {
                    shares.hold(held, &share);
                }
                meters.push(Meter { share, per_s });
            }
            meters
        };
        quota.messages = meters(|values| values.max_messages_per_s, &mut quota.admitted);
        quota.bytes = meters(|values| values.max_bytes_per_s, &mut quota.admitted);
    }

    /// The client has gone; its socket may still be open.
    pub(crate) fn release_client(&self, now: Millis, quota: &mut Quota) {
        quota.messages = Vec::new();
        quota.bytes = Vec::new();
        self.release(now, &mut quota.admitted);
    }

    /// The socket is closed.
    pub(crate) fn release_all(&self, now: Millis, quota: &mut Quota) {
        self.release_client(now, quota);
        self.release(now, &mut quota.opened);
    }

    fn release(&self, now: Millis, list: &mut Vec<Arc<Share>>) {
        if list.is_empty() {
            return;
        }
        let mut shares = self.lock();
        for share in list.drain(..) {
            if share.connections.fetch_sub(1, Relaxed) == 1 {
                shares.live.remove(&share.key);
                shares.idle.insert(now, share.key.clone(), Some(share));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shares {
    fn get(&mut self, now: Millis, limit: &Limit, subject: &Subject<'_>) -> Option<Arc<Share>> {
        let key = limit.key(subject)?;
        if let Some(share) = self.live.get(&key) {
            return Some(share.clone());
        }
        let idle = self.idle.entry(now, key.clone());
        let share = idle.get_or_insert_with(|| {
            Arc::new(Share {
                key,
                connections: AtomicU32::new(0),
                connects: Bucket::default(),
                messages: Bucket::default(),
                bytes: Bucket::default(),
            })
        });
        Some(share.clone())
    }

    /// Counts a connection once.
    fn hold(&mut self, list: &mut Vec<Arc<Share>>, share: &Arc<Share>) {
        if list.iter().any(|other| Arc::ptr_eq(other, share)) {
            return;
        }
        if share.connections.fetch_add(1, Relaxed) == 0 {
            self.idle.remove(&share.key);
            self.live.insert(share.key.clone(), share.clone());
        }
        list.push(share.clone());
    }
}

impl Quota {
    /// Its client has a rate to keep.
    pub(crate) fn is_metered(&self) -> bool {
        !(self.messages.is_empty() && self.bytes.is_empty())
    }

    /// A PUBLISH came. Until when nothing more should.
    pub(crate) fn message(&self, now: Millis) -> Option<Millis> {
        let charge = |meter: &Meter| meter.share.messages.charge(now, 1, meter.per_s);
        self.messages.iter().filter_map(charge).max()
    }

    /// Bytes came. Until when nothing more should.
    pub(crate) fn bytes(&self, now: Millis, n: u64) -> Option<Millis> {
        let charge = |meter: &Meter| meter.share.bytes.charge(now, n, meter.per_s);
        self.bytes.iter().filter_map(charge).max()
    }

    fn holds(&self, share: &Arc<Share>) -> bool {
        let mut all = self.opened.iter().chain(&self.admitted);
        all.any(|other| Arc::ptr_eq(other, share))
    }
}
