//! The client's side of SCRAM, for tests and client libraries. It needs no more than an allocator.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::message::{attribute, base64, escaped, extensions, nonce, text};
use super::{Fault, Mechanism, keys};

/// A client that has sent client-first.
pub struct Client {
    mechanism: Mechanism,
    password: String,
    nonce: String,
    bare: String,
}

/// A client that has sent client-final and waits for the server's own proof.
pub struct Expectation {
    signature: Vec<u8>,
}

impl Client {
    /// The client and its client-first message. `nonce` is printable ASCII without `,` that nobody
    /// can guess; an error if SASLprep prohibits user name or password.
    pub fn new(
        mechanism: Mechanism,
        user: &str,
        password: &str,
        nonce: &str,
    ) -> Result<(Client, Vec<u8>), Fault> {
        let user = keys::prepared(user).ok_or(Fault::Malformed)?;
        let password = keys::prepared(password).ok_or(Fault::Malformed)?;
        let bare = format!("n={},r={nonce}", escaped(&user));
        let message = format!("n,,{bare}").into_bytes();
        Ok((Client { mechanism, password, nonce: nonce.into(), bare }, message))
    }

    /// Answers server-first with client-final.
    pub fn answer(self, server_first: &[u8]) -> Result<(Expectation, Vec<u8>), Fault> {
        let server_first = text(server_first)?;
        let mut fields = server_first.split(',');
        let nonce = nonce(attribute(fields.next(), "r=")?)?;
        let salt = base64(attribute(fields.next(), "s=")?)?;
        let iterations = attribute(fields.next(), "i=")?;
        extensions(fields)?;
        let iterations = keys::decimal(iterations)
            .filter(|iterations| keys::ITERATIONS.contains(iterations))
            .ok_or(Fault::Malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Fault::Nonce);
        }
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.bare);
        let salted = self.mechanism.salted(&self.password, &salt, iterations);
        let client_key = self.mechanism.hmac(&salted, b"Client Key");
        let stored_key = self.mechanism.digest(&client_key);
        let signature = self.mechanism.hmac(&stored_key, message.as_bytes());
        let proof = STANDARD.encode(keys::xor(&client_key, &signature));
        let server_key = self.mechanism.hmac(&salted, b"Server Key");
        let signature = self.mechanism.hmac(&server_key, message.as_bytes());
        Ok((Expectation { signature }, format!("{without_proof},p={proof}").into_bytes()))
    }
}

impl Expectation {
    /// Whether server-final shows that the server knows the password too.
    pub fn check(&self, server_final: &[u8]) -> Result<(), Fault> {
        let signature = base64(attribute(Some(text(server_final)?), "v=")?)?;
        if bool::from(signature.ct_eq(&self.signature)) { Ok(()) } else { Err(Fault::Proof) }
    }
}
