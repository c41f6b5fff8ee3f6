//! The tools as a user starts them, against Debian's mosquitto on a port of its own.
#![allow(clippy::unwrap_used)]

mod bench;
mod broker;
mod exit_codes;
mod network;
mod publish;
mod record;
mod request;
mod simulate;
mod subscribe;
mod tool;
