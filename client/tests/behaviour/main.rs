//! What the client does, told by a broker that the test plays, under a virtual clock.

mod peer;

mod authenticating;
mod connecting;
mod publishing;
mod receiving;
mod requesting;
mod sockets;
mod storing;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
mod websocket;
