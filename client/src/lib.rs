//! An MQTT client for any computer: it keeps itself connected, loses nothing that it took, and
//! says what became of every message.
//!
//! ```no_run
//! use whimbrel_client::{Client, Filter, Message, QoS};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("mqtt://localhost")?.client_id("boiler").connect().await?;
//!
//! let mut commands = client.subscribe(Filter::new("boiler/set/#").qos(QoS::AtLeastOnce)).await?;
//! let reading = Message::new("boiler/temperature", "64.5").qos(QoS::AtLeastOnce);
//! client.publish(reading).await?.await?; // the broker has it
//!
//! while let Some(command) = commands.next().await {
//!     println!("{}: {:?}", command.topic, command.payload);
//! }
//! client.disconnect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Publishing
//!
//! [`Client::publish`] waits while the queue is full, [`Client::try_publish`] fails instead. Both
//! give a [`Completion`]: a future of what became of the message, which may be awaited, kept, or
//! dropped. The queue has a limit ([`Builder::queue`]); while the broker is away, messages wait
//! in it, and leave it when they expire ([`Message::expiry_s`]).
//!
//! # Store and forward
//!
//! With [`Builder::store`], messages of QoS 1 and 2 are kept in a file until they are delivered,
//! and survive the end of the process, however sudden; and a power cut, unless [`StoreSync::Os`]
//! is asked for.
//!
//! ```no_run
//! # use whimbrel_client::{Client, Message, QoS, Store};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("mqtt://localhost")?
//!     .client_id("gateway")
//!     .store(Store::new("queue.store").max_bytes(100 << 20))
//!     .start()?;
//! let reading = Message::new("boiler/temperature", "64.5").qos(QoS::ExactlyOnce);
//! drop(client.publish(reading).await?); // it is on disk, whether the broker is there or not
//! # Ok(())
//! # }
//! ```
//!
//! [`Client::publish`] then waits until the message is safe; all who wait at one time share a sync
//! of the disk. [`Client::try_publish`] does not wait: [`Completion::saved`] tells when it is safe.
//! The next client with the same file, identifier and broker goes on:
//!
//! - Messages that were queued are published in order. Time that passed counts for their expiry.
//! - What was in flight is repeated with its packet identifier, or released, if the broker has kept
//!   the session. Otherwise QoS 1 is published anew, and QoS 2 given up ([`Status::Undelivered`]):
//!   it may have arrived.
//! - QoS 2 messages of the broker that were taken do not come again.
//!
//! Nothing is sent that is not on disk, so QoS 2 arrives once, also when the process is killed. A
//! message of QoS 1 may arrive more than once, as it always may. QoS 0 is kept with [`Store::qos0`].
//! Beyond what may be queued in memory ([`Builder::queue`]) messages are on disk alone, and come
//! back when there is room; one that expires there is noticed then.
//!
//! A full disk makes publishers wait, and [`Status::StoreFailed`] tells of it.
//!
//! # Receiving
//!
//! A [`Subscription`] is a stream of the messages of one filter. A message of QoS 1 or 2 is
//! acknowledged when it is taken from the stream or, with [`Filter::manual_ack`], when the
//! application calls [`Incoming::ack`]. What is not acknowledged is bounded by the receive
//! maximum, so a consumer that is slow slows the broker down instead of filling memory.
//!
//! # Connections
//!
//! A lost connection is made again, at intervals that grow and differ by chance ([`Backoff`]).
//! The client goes on with its session if the broker has kept it; otherwise it subscribes again,
//! and publishes QoS 1 messages again that were not acknowledged. [`Client::events`] tells what
//! happens.
//!
//! # Who the client is
//!
//! A [`Login`] is asked anew for each connection: a password, one from a file or function, tokens
//! of any [`TokenProvider`], or SCRAM. [`ClientCredentials`] gets tokens by OAuth. A token is
//! renewed before it ends.
//!
//! All futures may be dropped at any time: a message that `publish` has not accepted is not
//! published, a message that `next` has not given is given next time, and a subscription that was
//! not completed is taken back.
//!
//! # Features
//!
//! `tls` (mqtts and wss), `websocket`, `socks` (a SOCKS5 proxy), `scram` and `oauth` are there
//! unless they are left out.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod all_messages;
mod backoff;
pub mod blocking;
mod client;
mod completion;
mod config;
mod driver;
mod error;
mod event;
mod filter;
mod login;
mod message;
mod net;
mod requests;
mod state;
mod store;
mod subscription;
#[cfg(feature = "tls")]
mod tls;

pub use address::{Address, InvalidUrl, Url};
pub use all_messages::AllMessages;
pub use backoff::Backoff;
pub use bytes::Bytes;
pub use client::Client;
pub use completion::Completion;
pub use config::{Builder, Connector, Opening};
pub use error::{AckError, Error, Outcome, PublishError, SubscribeError, Undelivered};
pub use event::{Connected, Events, Status};
pub use filter::{Filter, WhenFull};
#[cfg(feature = "scram")]
pub use login::ScramMechanism;
pub use login::{BoxError, Carrier, Fetching, Login, OAUTH2_JWT, Secret, Token, TokenProvider};
#[cfg(feature = "oauth")]
pub use login::{ClientAuthentication, ClientCredentials, InvalidOAuth, SigningKey};
pub use message::{Incoming, Message, PropertyList};
pub use net::Stream as ByteStream;
pub use requests::{RequestError, Requester};
pub use store::{Store, StoreError, StoreSync};
pub use subscription::Subscription;
#[cfg(feature = "tls")]
pub use tls::{InvalidTls, Tls, TlsOptions, TlsVersion};
pub use whimbrel_client_core::{Error as CommandError, Failure};
pub use whimbrel_codec::{PacketId, Property, QoS, ReasonCode, RetainHandling, Version};
