//! The rules of MQTT that both ends of a network connection share: packet identifiers and the
//! flows of QoS 1 and 2, topic aliases, keep alive. No clock, no socket, no thread: what happens is
//! told by calls, and time is a parameter.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
mod alias;
mod incoming;
mod keep_alive;
mod outgoing;
mod ring;

#[cfg(feature = "alloc")]
pub use alias::{AliasError, IncomingAliases, OutgoingAlias, OutgoingAliases};
#[cfg(feature = "alloc")]
pub use incoming::IncomingIds;
pub use incoming::IncomingIdsIn;
pub use keep_alive::keep_alive_deadline_ms;
#[cfg(feature = "alloc")]
pub use outgoing::Outgoing;
pub use outgoing::{InFlight, MAX_SPAN, OutgoingIn};
pub use ring::Ring;
