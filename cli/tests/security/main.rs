//! Attacks on the real binary over sockets, and what must become of them (`docs/security.md`).
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "each group of tests uses a part")]
#[path = "../support/mod.rs"]
mod support;

mod ace;
mod bans;
mod bound_tokens;
mod client;
mod control;
mod floods;
mod hook;
mod issuer;
mod key_sets;
mod link;
mod opaque_tokens;
mod passwords;
mod reload;
mod rules;
mod server;
mod storm;
mod token_life;
mod tokens;
mod tools;
mod web;
