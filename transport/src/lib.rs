//! Byte layers between a socket's bytes and MQTT bytes.
//!
//! Each layer is a module of its own and knows neither sockets nor clocks nor threads; randomness
//! is a parameter. A layer's methods come in four kinds:
//!
//! * `handle_bytes(&mut [u8])`: bytes the socket gave. They are decoded in the caller's buffer, so
//!   an idle connection holds no buffer of its own; the MQTT bytes come back as one slice of it.
//! * `handle_written`: how much the socket took of what the layer asked to send.
//! * `poll_*`: what the layer wants sent around the MQTT bytes (headers, answers), which themselves
//!   are never copied on a server.
//! * commands (`close`) and getters (`is_open`, `wants_send`).
//!
//! Layers stack by feeding one's output to the next: the slice that a layer below returns is what
//! `handle_bytes` of the layer above takes.
//!
//! There are [`tls`], [`websocket`] and, below both, [`proxy`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod proxy;
#[cfg(feature = "tls")]
pub mod tls;
pub mod websocket;
