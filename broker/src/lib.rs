//! The runtime around the broker's core: threads, sockets, configuration, signals and the log.
//!
//! - [`config`]: what can be chosen, from file, environment and flags;
//! - [`Broker`]: a broker in this process, started and stopped;
//! - [`Signals`]: a broker as a process, steered by signals;
//! - `crew`: the threads, and which of them runs which shard;
//! - `event_loop`: one shard's loop around [`whimbrel_broker_core::Shard`]; `mailbox`: what shards
//!   hand each other; `durable`: the data directory; `access`: who may connect and do what;
//!   `control`: what an operator asks; `connection`, `socket`, `layer`, `tls`: what a client's
//!   connection is made of.

mod access;
mod broker;
pub mod config;
mod connection;
mod control;
mod crew;
mod durable;
mod event_loop;
mod layer;
mod listen;
pub mod log;
mod mailbox;
mod process;
mod signals;
mod socket;
mod tls;
mod watched;

pub use broker::{Broker, Handle, StartError};
pub use signals::Signals;
