//! Attacks on the real binary over sockets, and what must become of them (`docs/security.md`).
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "each group of tests uses a part")]
#[path = "../support/mod.rs"]
mod support;

mod control;
mod link;
mod passwords;
mod reload;
mod rules;
mod server;
