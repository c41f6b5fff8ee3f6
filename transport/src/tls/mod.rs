//! TLS 1.3 and 1.2 (RFC 8446, RFC 5246), the server's end, over rustls.
//!
//! An idle connection holds no buffer: records are opened in the caller's read buffer, and only the
//! tail of a torn record is kept, at most [`TORN_LEN_MAX`] bytes. Likewise only what a slow socket
//! did not take of one batch waits to be sent.
//!
//! A ticket carries a session, so resumption needs no memory here. A resumed session brings the
//! client certificate of its first handshake, which is held to the authorities and revocation
//! lists of now. There is no early data and no renegotiation.

mod certificate;
mod config;
mod engine;
mod server;

pub use certificate::{Certificate, NameKind};
pub use config::{
    ClientCertificates, Config, InvalidConfig, KeyPair, MinVersion, Part, Settings, Tickets,
};
pub use server::{End, Fault, Opened, Received, Server};

/// Most bytes kept of a record or handshake message that is not whole.
pub const TORN_LEN_MAX: usize = 32 * 1024;
/// Plaintext bytes of one batch, which is what one record can hold.
pub const BATCH_LEN_MAX: usize = 16 * 1024;
