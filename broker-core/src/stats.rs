//! Counters. Each shard counts for itself; `$SYS` and metrics add them up.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:ident, $doc:literal;)*) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Count { $(#[doc = $doc] $name,)* }

        const COUNTS: usize = [$(Count::$name),*].len();
    };
}

counters! {
    Connections, "Open connections that have sent CONNECT.";
    Sessions, "Sessions, connected or not.";
    ConnectsAccepted, "CONNECTs accepted since the start.";
    ConnectsRefused, "CONNECTs refused since the start.";
    FailedLogins, "Logins that failed since the start.";
    Bans, "Bans that began since the start.";
    RefusedBanned, "Connections and CONNECTs refused because of a ban since the start.";
    RefusedLimit, "The same because of a table of limits.";
    ClosedPending, "Connections closed because too many had not sent CONNECT.";
    ClosedBlocked, "Connections closed because they took nothing of what waited for them.";
    ClosedMemory, "Connections closed because memory was short.";
    Throttled, "How often a client was not read because of its rate.";
    PublishesReceived, "PUBLISH packets received.";
    PublishesSent, "PUBLISH packets sent.";
    BytesReceived, "Bytes received.";
    BytesSent, "Bytes sent.";
    Dropped, "Messages not delivered to a subscriber because of a limit or their expiry.";
    Queued, "Messages waiting in the queues of sessions.";
}

/// The counters of a shard, on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Block([AtomicU64; COUNTS]);

/// The counters of all shards.
pub struct Stats {
    shards: Vec<Block>,
}

impl Stats {
    pub(crate) fn new(shards: u16) -> Stats {
        Stats { shards: (0..shards).map(|_| Block::default()).collect() }
    }

    /// Sum over all shards.
    pub fn get(&self, count: Count) -> u64 {
        let slots = self.shards.iter().filter_map(|block| block.0.get(count as usize));
        slots.fold(0, |sum, slot| sum.wrapping_add(slot.load(Ordering::Relaxed)))
    }

    /// Only the shard itself writes its block, so a load and a store do.
    #[inline]
    pub(crate) fn add(&self, shard: u16, count: Count, n: u64) {
        if let Some(slot) =
            self.shards.get(usize::from(shard)).and_then(|block| block.0.get(count as usize))
        {
            slot.store(slot.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    pub(crate) fn sub(&self, shard: u16, count: Count, n: u64) {
        self.add(shard, count, n.wrapping_neg());
    }
}
