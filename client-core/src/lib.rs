//! An MQTT client without I/O, for versions 3.1, 3.1.1 and 5.0: the same rules for a
//! microcontroller and a server.
//!
//! A [`Client`] owns no socket and reads no clock. Its methods come in four kinds:
//!
//! - getters, which change nothing;
//! - `handle_*`: what happened outside (bytes came, bytes went, time passed);
//! - commands: what the application wants ([`Client::connect`], [`Client::publish`], ...);
//! - `poll_*`: what is to be done outside, drained until nothing is left.
//!
//! A driver loops: write [`Client::poll_transmit`], read into [`Client::handle_bytes`], drain
//! [`Client::poll_event`], sleep until [`Client::poll_timeout`].
//!
//! ```
//! use whimbrel_client_core::{Client, Event, Limits, Millis};
//! use whimbrel_codec::{Connect, Publish, Version};
//!
//! let mut client = Client::new(Limits::default());
//! client.connect(Millis(0), &Connect::new(Version::V3_1_1, "boiler")).unwrap();
//! let sent = client.poll_transmit().unwrap().len();
//! client.handle_transmitted(Millis(0), sent);
//!
//! client.handle_bytes(Millis(5), &[0x20, 2, 0, 0]); // CONNACK
//! assert!(matches!(client.poll_event(), Some(Event::Connected { .. })));
//! client.publish(&Publish::new("boiler/temperature", b"64.5")).unwrap();
//! assert!(client.poll_transmit().is_some());
//! ```
//!
//! The session (packet identifiers, messages in flight) survives the network connection: connect
//! the same [`Client`] again without a clean start and it goes on where it was.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

mod arena;
mod arrivals;
mod auth;
mod buffer;
mod client;
mod commands;
mod connection;
mod error;
mod event;
mod filter;
mod form;
mod machine;
mod memory;
mod output;
mod session;
mod storage;
#[cfg(all(test, feature = "alloc"))]
mod tests;
mod time;
mod topics;

pub use arrivals::ArrivalSlot;
pub use client::Client;
pub use error::{Error, Failure};
pub use event::Event;
pub use memory::Memory;
pub use session::OutgoingSlot;
pub use time::{Limits, Millis};
pub use topics::AliasSlot;
