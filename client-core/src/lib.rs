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
//! # The loop
//!
//! 1. read from the socket into [`Client::input_space`] and tell [`Client::handle_read`], or give
//!    what was read elsewhere to [`Client::handle_bytes`], unless [`Client::wants_bytes`] is false;
//! 2. drain [`Client::poll_event`];
//! 3. give commands;
//! 4. write [`Client::poll_transmit`] to the socket and tell [`Client::handle_transmitted`];
//! 5. close the connection if [`Client::is_closed`]; else wait for the socket, and at most until
//!    [`Client::poll_timeout`]; then call [`Client::handle_timeout`].
//!
//! ```
//! # #[cfg(feature = "alloc")] {
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
//! # }
//! ```
//!
//! The session (packet identifiers, messages in flight) survives the network connection: connect
//! the same [`Client`] again without a clean start and it goes on where it was.
//!
//! # Memory
//!
//! [`Client::new`] needs an allocator (feature `alloc`, on by default) and takes memory as it goes,
//! within its [`Limits`]. [`Client::with_memory`] has what is lent to it and nothing else:
//!
//! ```
//! use whimbrel_client_core::{Client, Event, Limits, Memory, Millis};
//! use whimbrel_codec::{Connect, Publish, QoS, Version};
//!
//! let (mut input, mut output) = ([0; 256], [0; 256]);
//! let (mut in_flight, mut outgoing) = ([0; 512], [None; 4]);
//! let memory = Memory {
//!     input: &mut input,
//!     output: &mut output,
//!     in_flight: &mut in_flight,
//!     outgoing: &mut outgoing,
//!     ..Memory::default()
//! };
//! let mut client = Client::with_memory(memory, Limits::default());
//! client.connect(Millis(0), &Connect::new(Version::V5, "sensor")).unwrap();
//! let sent = client.poll_transmit().unwrap().len();
//! client.handle_transmitted(Millis(0), sent);
//!
//! client.input_space()[..5].copy_from_slice(&[0x20, 3, 0, 0, 0]); // CONNACK
//! client.handle_read(Millis(5), 5);
//! assert!(matches!(client.poll_event(), Some(Event::Connected { .. })));
//! let message = Publish { qos: QoS::AtLeastOnce, ..Publish::new("sensor/1", b"21.5") };
//! let id = client.publish(&message).unwrap();
//! assert_eq!(client.in_flight(), 1);
//! client.handle_bytes(Millis(9), &[0x40, 2, 0, 1]); // PUBACK
//! let Some(Event::Published(ack)) = client.poll_event() else { panic!("no acknowledgement") };
//! assert_eq!(Some(ack.packet_id), id);
//! ```
//!
//! # A session that survives the process
//!
//! The client keeps the session in memory. A driver that wants it to survive its process writes
//! down, **when the events are drained and before it transmits**:
//!
//! - a QoS 1 or 2 message given to [`Client::publish`], with its identifier;
//! - of [`Event::Received`], that the message need not be kept, but its identifier;
//! - of [`Event::Published`], that neither need be kept;
//! - of a QoS 2 [`Event::Message`], its identifier (acknowledging by hand: together with
//!   [`Client::acknowledge`]), at once with what the application makes of it;
//! - of [`Event::Released`], that this identifier need not be kept;
//! - of [`Event::Connected`] without `session_present`, that nothing of before need be kept.
//!
//! A new client is told of what is kept by [`Client::restore_published`],
//! [`Client::restore_released`] and [`Client::restore_received`], and goes on. Where the driver
//! transmits first, a crash between may lose a message or have it arrive twice.
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
