//! One connection at a time, driven by its caller: what the tools were built on.

mod blocking;
mod link;
mod stream;
mod tls;

pub use blocking::{Client, Connected, Settings};
pub use link::Link;
pub use mio::Waker;
