//! Topic names and filters, the table of subscriptions and the tree of retained messages.
//!
//! - [`filter`]: the rules of topic names and topic filters (MQTT 5.0, sections 4.7 and 4.8.2).
//! - [`covers`], [`overlaps`]: how the topics of two filters lie to each other.
//! - [`routes`]: who subscribed to what; one [`Routes`] is shared by all shards of a broker.
//! - [`retained`]: the retained messages of a broker, in topic order.
//!
//! Nothing here reads a clock, starts a thread or opens a socket.

pub mod filter;
pub mod retained;
pub mod routes;

mod group;
mod indexed;
mod label;
mod relation;
mod route;
mod seed;
mod subscribers;
mod trie;

pub use filter::{
    SharedFilter, TopicError, matches, parse_shared, validate_topic_filter, validate_topic_name,
};
pub use relation::{covers, covers_by, overlaps, overlaps_by};
pub use retained::{Cursor, HasTopic, Retained};
pub use routes::{
    GroupMember, GroupRoute, LocalSubscriber, MAX_SHARDS, Route, Routes, SessionRef, ShardSet,
    Stamp, SubscriptionOptions,
};
