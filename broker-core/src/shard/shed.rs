//! What goes when memory is short, in order, and what goes with readers that do not read.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use whimbrel_codec::ReasonCode;

use super::Shard;
use crate::conn::State;
use crate::event::Why;
use crate::stats::Count;
use crate::{ConnId, Millis};

/// How short memory is. At each step all the steps before it hold as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    #[default]
    None,
    /// New connections are refused.
    Connects,
    /// QoS 0 to slow readers is dropped.
    SlowReaders,
    /// Large packets that have not come whole are refused.
    Partial,
    /// Nothing more is queued, retained or subscribed to.
    Queues,
    /// The budget is spent: publishers are read slowly.
    Publishers,
    /// It was of no use: the connections with the largest buffers are closed.
    Largest,
}

/// From how many parts in a hundred of the budget each step holds.
const STEPS: [(u64, Pressure); 6] = [
    (110, Pressure::Largest),
    (100, Pressure::Publishers),
    (99, Pressure::Queues),
    (98, Pressure::Partial),
    (97, Pressure::SlowReaders),
    (96, Pressure::Connects),
];

/// So few bytes may wait as long as they like; keep alive finds a client that is gone.
pub(super) const UNWATCHED: usize = 4096;
/// A buffer that is not worth closing its connection for.
const SMALL: usize = 16 * 1024;
/// How often connections are closed for their buffers.
const SHED_MS: u64 = 100;

fn pressure(used: u64, budget: u64) -> Pressure {
    let reached = |percent: u64| used as u128 * 100 > u128::from(budget) * u128::from(percent);
    STEPS.iter().find(|(percent, _)| reached(*percent)).map(|(_, step)| *step).unwrap_or_default()
}

impl Shard {
    pub(super) fn publish_buffered(&mut self) {
        if let Some(slot) = self.shared.buffered.get(usize::from(self.id.0)) {
            slot.store(self.buffered, Ordering::Relaxed);
        }
        let (used, budget) = (self.shared.memory_used_bytes(), self.config.memory_budget_bytes);
        self.pressure =
            if used <= budget / 10 * 9 { Pressure::None } else { pressure(used, budget) };
        if self.pressure == Pressure::Largest {
            self.shed_at.get_or_insert(Millis(self.now.0 + SHED_MS));
        }
    }

    /// Closes the connections with the largest buffers, as many as bring the broker back within its
    /// budget.
    pub(super) fn shed_largest(&mut self) {
        if self.shed_at.is_none_or(|at| at > self.now) {
            return;
        }
        self.shed_at = None;
        let used = self.shared.memory_used_bytes();
        if pressure(used, self.config.memory_budget_bytes) < Pressure::Largest {
            return;
        }
        let mut largest: Vec<(usize, ConnId)> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.state != State::Ended)
            .map(|(at, conn)| (conn.output.len() + conn.tail.len(), ConnId(at as u32)))
            .filter(|(len, _)| *len > SMALL)
            .collect();
        largest.sort_unstable_by_key(|(len, id)| Reverse((*len, *id)));
        let mut excess = used - self.config.memory_budget_bytes;
        for (len, id) in largest {
            let (reason, what) = (ReasonCode::QuotaExceeded, "memory is short");
            self.count(Count::ClosedMemory, 1);
            self.drop_conn(id, Why::Broker(reason, what));
            excess = excess.saturating_sub(len as u64);
            if excess == 0 {
                break;
            }
        }
    }

    /// Large packets that are still on their way.
    pub(super) fn shed_tail(&mut self, id: ConnId) {
        const LARGE: usize = 64 * 1024;
        if self.pressure < Pressure::Partial {
            return;
        }
        let what = "a large packet while the broker is short of memory";
        match self.conns.get(id.0 as usize) {
            // What a client with a rate has sent is not all one packet.
            Some(conn) if conn.tail.len() > LARGE && !conn.throttled => match conn.state {
                State::Connected => self.disconnect(id, ReasonCode::QuotaExceeded, what),
                _ => self.refused(id, None, ReasonCode::ServerBusy, what),
            },
            _ => {}
        }
    }

    // ---- readers that do not read

    /// Much is to be sent: have the timer look whether the socket takes it.
    #[cold]
    pub(super) fn watch(&mut self, id: ConnId) {
        let Some(every_s) = self.watch_s() else { return };
        let now = self.now;
        let Some(conn) = self.conn(id) else { return };
        conn.watched = true;
        conn.looked = now;
        conn.stalls = 0;
        conn.taken_before = conn.taken;
        self.conn_timers.arm(id.0, now.plus_s(every_s));
    }

    /// How often a connection is looked at.
    fn watch_s(&self) -> Option<u32> {
        let most = self.config.max_blocked_s;
        (most > 0).then(|| u32::from(most).div_ceil(2))
    }

    /// The timer of a connection has fired. True if it has taken nothing of what waits for it for
    /// too long, and is closed.
    pub(super) fn is_blocked(&mut self, id: ConnId) -> bool {
        let Some(every_s) = self.watch_s() else { return false };
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id.0 as usize).filter(|conn| conn.watched) else {
            return false;
        };
        if conn.output.len() == 0 || conn.gated {
            conn.watched = false;
            return false;
        }
        if now < conn.looked.plus_s(every_s) {
            self.conn_timers.arm(id.0, conn.looked.plus_s(every_s));
            return false;
        }
        conn.looked = now;
        conn.stalls = if conn.taken == conn.taken_before { conn.stalls + 1 } else { 0 };
        conn.taken_before = conn.taken;
        if conn.stalls < 2 {
            self.conn_timers.arm(id.0, now.plus_s(every_s));
            return false;
        }
        let (reason, what) = (ReasonCode::QuotaExceeded, "it takes nothing of what it is sent");
        self.count(Count::ClosedBlocked, 1);
        self.drop_conn(id, Why::Broker(reason, what));
        true
    }

    /// Ends a connection and gives up what it was to be sent.
    fn drop_conn(&mut self, id: ConnId, why: Why) {
        let Some(conn) = self.conns.get_mut(id.0 as usize) else { return };
        self.buffered -= conn.output.held();
        conn.output = Default::default();
        self.end_conn(id, why, Some(false));
    }
}
