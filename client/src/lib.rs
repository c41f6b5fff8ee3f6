//! MQTT clients on sockets: TCP, TLS, Unix sockets and WebSocket under `whimbrel-client-core`.
//!
//! [`single::Client`] blocks its thread and is what a tool needs. [`single::Link`] is the non-blocking piece
//! below, for a loop that holds many connections at once.
//!
//! ```no_run
//! use std::time::Duration;
//! use whimbrel_client::single::{Client, Settings};
//! use whimbrel_client::{Address, Event};
//! use whimbrel_codec::{Connect, Properties, QoS, Subscription, Version};
//!
//! let address = Address::Tcp { host: "localhost".into(), port: 1883 };
//! let connect = Connect { keep_alive_s: 60, ..Connect::new(Version::V5, "boiler") };
//! let (mut client, _) = Client::connect(&address, &connect, &Settings::default())?;
//! client.subscribe(&[Subscription::new("boiler/#", QoS::AtLeastOnce)], Properties::NONE)?;
//! loop {
//!     if let Some(Event::Message(publish)) = client.poll(Duration::from_secs(1))? {
//!         println!("{}: {} bytes", publish.topic, publish.payload.len());
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), whimbrel_client::Error>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod error;
pub mod single;
mod tls;

pub use address::{Address, InvalidUrl, Url};
pub use error::Error;
pub use tls::{InvalidTls, Tls, TlsOptions, TlsVersion};
pub use whimbrel_client_core::{Error as CommandError, Event, Failure, Limits, Millis};
