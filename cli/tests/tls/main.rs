//! TLS of the real broker over sockets: clients of several makes, certificates of clients,
//! reloading, and what stands before and above TLS.

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "what other tests need of it")]
mod support;

mod certificates;
mod client;
mod peers;
mod proxy;
mod setup;
mod tools;
mod websocket;
