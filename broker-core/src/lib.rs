//! The broker without its sockets: connections, sessions, routing, delivery and wills.
//!
//! A [`Shard`] owns its connections and sessions alone. Shards share only [`Shared`]: the table of
//! subscriptions, the retained messages and a few counters; everything else that one shard wants of
//! another travels as [`Mail`].
//!
//! There is no clock, socket, thread or source of randomness here: `now` is a parameter, bytes go
//! in, and bytes and [`Action`]s come out. The same code runs in the event loop, in tests and in a
//! simulator. A shard's methods come in four kinds:
//!
//! - `handle_*`: something happened (bytes came, a socket was closed, time passed);
//! - commands: [`Shard::shut_down`], [`Shard::reconfigure`];
//! - `poll_*`: what is to be done now, drained at the end of every tick;
//! - getters.
//!
//! Where things are: a CONNECT is judged in `shard/connect.rs` with `shard/authenticate.rs`; what a
//! client may do is asked in `shard/access.rs`; an incoming PUBLISH goes through
//! `shard/publish.rs` to `shard/deliver.rs`; acknowledgements of deliveries come back in
//! `shard/ack.rs`; `shard/close.rs` ends connections and sessions and fires wills; what an operator
//! asks is answered in `shard/explain.rs`. Every limit stands in `limits.rs`; those of some clients
//! only are kept in `shard/quota.rs` with `quota/`, and what goes first when memory is short stands
//! in `shard/shed.rs`.

mod access;
mod cache;
mod conn;
mod encode;
mod event;
mod held;
mod limits;
mod mail;
mod message;
mod output;
mod quota;
mod session;
mod shard;
mod shared;
mod spill;
mod stats;
mod timers;

pub use conn::Peer;
pub use event::{Event, Why};
pub use limits::Config;
pub use mail::Mail;
pub use message::Message;
pub use output::Chunks;
pub use quota::{Limit, Network, Per, Selection, Values};
pub use shard::{
    Action, Answer, Client, DisconnectOutcome, Fate, Group, Judgement, Question, ReadMessage,
    Receiver, Shard, TurnedAway, Wanted,
};
pub use shared::Shared;
pub use stats::{Count, Stats};

/// Milliseconds since an origin of the runtime's choice; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// A time that never comes.
    pub const NEVER: Millis = Millis(u64::MAX);

    /// This many seconds later.
    pub const fn plus_s(self, seconds: u32) -> Millis {
        Millis(self.0.saturating_add(seconds as u64 * 1000))
    }

    /// Whole seconds until `later`, a begun one counted whole; 0 if it has passed.
    pub const fn seconds_until(self, later: Millis) -> u32 {
        let seconds = later.0.saturating_sub(self.0).div_ceil(1000);
        if seconds > u32::MAX as u64 { u32::MAX } else { seconds as u32 }
    }
}

/// A shard of the broker: a thread with connections and sessions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A network connection of a shard. Small and dense, so that it can be an index; used again once
/// the actions that follow [`Shard::handle_closed`] are polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);
