//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677): a client shows that it knows its password
//! without sending it, and the server that it knows its keys.
//!
//! Without channel binding: `n` and `y` are accepted, `p=` is refused. A user who is not there
//! gets a salt that is always the same, and is refused where a wrong password is.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod client;
mod keys;
mod message;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

pub use keys::{DEFAULT_ITERATIONS, Mechanism, SALT_BYTES, StoredKeys, decimal, prepared};
pub use message::MAX_MESSAGE_BYTES;
use message::{ClientFinal, ClientFirst};

/// Bytes of randomness in the server's part of the nonce.
pub const NONCE_BYTES: usize = 24;

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A message that is none, or too long.
    Malformed,
    /// The client wants channel binding.
    ChannelBinding,
    /// The client demands an extension (`m=`).
    Extension,
    /// The nonce or the channel binding of client-final is not that of this exchange.
    Nonce,
    /// The proof is not of this user's password, or there is no such user.
    Proof,
    /// The client wants to be another user than the one whose password it has.
    OtherUser,
}

impl Fault {
    /// The message for the client (`server-error`).
    pub fn message(self) -> Vec<u8> {
        let value = match self {
            Fault::Malformed => "invalid-encoding",
            Fault::ChannelBinding => "channel-binding-not-supported",
            Fault::Extension => "extensions-not-supported",
            Fault::Nonce => "other-error",
            Fault::Proof | Fault::OtherUser => "invalid-proof",
        };
        format!("e={value}").into_bytes()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Malformed => "a message is not one of SCRAM, or too long",
            Fault::ChannelBinding => "the client demands channel binding, which is not offered",
            Fault::Extension => "the client demands an extension, of which there is none",
            Fault::Nonce => "nonce or channel binding are not those of this exchange",
            Fault::Proof => "wrong password, or a user without keys for this mechanism",
            Fault::OtherUser => "the client asks to be another user than the one of its password",
        })
    }
}

/// A client-first message that was read: whose keys are wanted.
pub struct Request {
    user: String,
    gs2_header: String,
    bare: String,
    nonce: String,
}

/// An exchange of which client-final is still to come.
pub struct Server {
    request: Request,
    keys: StoredKeys,
    server_first: String,
    nonce: String,
}

impl Request {
    /// Reads client-first.
    pub fn parse(client_first: &[u8]) -> Result<Request, Fault> {
        let first = ClientFirst::parse(client_first)?;
        let user = prepared(&first.user).filter(|user| !user.is_empty()).ok_or(Fault::Malformed)?;
        if first.authorization.is_some_and(|name| prepared(&name).as_ref() != Some(&user)) {
            return Err(Fault::OtherUser);
        }
        Ok(Request {
            user,
            gs2_header: first.gs2_header.into(),
            bare: first.bare.into(),
            nonce: first.nonce.into(),
        })
    }

    /// The user after SASLprep.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Goes on with the user's keys, and gives server-first.
    pub fn answer(self, keys: &StoredKeys, random: &[u8; NONCE_BYTES]) -> (Server, Vec<u8>) {
        self.go_on(keys.clone(), &STANDARD_NO_PAD.encode(random))
    }

    /// The same for a user who is not there: `iterations` as others have, and `draw`, bytes that
    /// are always the same for this user.
    pub fn answer_unknown(
        self,
        mechanism: Mechanism,
        iterations: u32,
        draw: &[u8; 32],
        random: &[u8; NONCE_BYTES],
    ) -> (Server, Vec<u8>) {
        let keys = StoredKeys::of_nobody(mechanism, iterations, draw);
        self.go_on(keys, &STANDARD_NO_PAD.encode(random))
    }

    fn go_on(self, keys: StoredKeys, nonce: &str) -> (Server, Vec<u8>) {
        let nonce = format!("{}{nonce}", self.nonce);
        let server_first = format!("r={nonce},s={},i={}", keys.salt_text(), keys.iterations());
        let message = server_first.clone().into_bytes();
        (Server { request: self, keys, server_first, nonce }, message)
    }
}

impl Server {
    /// The user after SASLprep.
    pub fn user(&self) -> &str {
        &self.request.user
    }

    /// Which SCRAM it is.
    pub fn mechanism(&self) -> Mechanism {
        self.keys.mechanism()
    }

    /// Reads client-final; the client is who it says, and server-final tells it that the server is
    /// so too.
    pub fn finish(&self, client_final: &[u8]) -> Result<Vec<u8>, Fault> {
        let last = ClientFinal::parse(client_final)?;
        let same = last.channel_binding == self.request.gs2_header.as_bytes();
        if !same || last.nonce != self.nonce {
            return Err(Fault::Nonce);
        }
        let message = format!("{},{},{}", self.request.bare, self.server_first, last.without_proof);
        if !self.keys.check(message.as_bytes(), &last.proof) {
            return Err(Fault::Proof);
        }
        let signature = self.keys.server_signature(message.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature)).into_bytes())
    }
}
