//! The rules of MQTT that both ends of a network connection share: packet identifiers and the
//! flows of QoS 1 and 2, topic aliases, keep alive. No clock, no socket, no thread: what happens is
//! told by calls, and time is a parameter.
#![no_std]

extern crate alloc;

mod alias;
mod incoming;
mod keep_alive;
mod outgoing;

pub use alias::{AliasError, IncomingAliases, OutgoingAlias, OutgoingAliases};
pub use incoming::IncomingIds;
pub use keep_alive::keep_alive_deadline_ms;
pub use outgoing::{InFlight, Outgoing};
