//! The MQTT-TLS profile of ACE (RFC 9431), authentication method `ace`: a token that is bound to a
//! key, and a proof that the client has that key.
//!
//! The authentication data of CONNECT, or of AUTH with 0x19, is a token behind its length in two
//! bytes, and after it the proof: a signature of the TLS exporter value with the label
//! `EXPORTER-ACE-MQTT-Sign-Challenge`. Without a proof, or with a token alone, the broker sends a
//! nonce of 8 bytes in AUTH with 0x18, and the client answers with a nonce of its own of 8 bytes and
//! the signature of both, the broker's first.
//!
//! The key is in the token's `cnf` as `jwk`: for ES256, ES384 or EdDSA, with signatures as in JWS.
//! HS256 is accepted if the key comes with the answer of an introspection endpoint; tokens that
//! carry an encrypted key are not.

use std::sync::Arc;

use super::token::{CheckAgain, decide};
use super::{MethodOutcome, Random};
use crate::token::{Binding, Fetch, TokenError, Tokens, Verified};
use crate::{Attempt, Exchange, Method, Outcome, Refusal, Refused, Secret};

/// The authentication method of MQTT 5.0.
const NAME: &str = "ace";
/// Bytes of each nonce.
const NONCE_BYTES: usize = 8;

/// Tokens of the configured issuers that are bound to a key of the client's.
#[derive(Clone, Debug)]
pub struct AceMethod {
    tokens: Arc<Tokens>,
}

/// A challenge that is to be answered.
struct Challenge {
    token: Secret,
    nonce: [u8; NONCE_BYTES],
}

impl AceMethod {
    /// With the tokens of these issuers.
    pub fn new(tokens: Arc<Tokens>) -> AceMethod {
        AceMethod { tokens }
    }

    /// Knows whoever uses its authentication method. May block.
    pub fn verify(
        &self,
        attempt: &Attempt,
        now_s: u64,
        random: &Random,
        fetch: &dyn Fetch,
    ) -> (MethodOutcome, Option<CheckAgain>) {
        if attempt.method.as_deref() != Some(NAME) {
            return (MethodOutcome::NotMine, None);
        }
        let refused = |refusal, detail: &str| (Refused::new(refusal, detail).into(), None);
        let Some(proof) = attempt.proof.as_ref().filter(|proof| proof.tls) else {
            return refused(Refusal::NotAuthorized, "ace is for TLS alone");
        };
        let data = attempt.data.as_ref().map_or(&[][..], |data| &data.0);
        let challenge = attempt.exchange.as_ref().map(|one| one.0.downcast_ref::<Challenge>());
        match challenge {
            None => {
                let Some((token, signature)) = token_and_proof(data) else {
                    return refused(Refusal::ProtocolError, "ace without a token");
                };
                if signature.is_empty() {
                    return (ask(token, random).into(), None);
                }
                let Some(exporter) = &proof.exporter else {
                    let detail = "ace with a proof for TLS, whose exporter this listener has not";
                    return refused(Refusal::NotAuthorized, detail);
                };
                let result = self.check(token, exporter, signature, now_s, fetch);
                decide(attempt, token, result)
            }
            Some(Some(Challenge { token, nonce })) => {
                let Some((client_nonce, signature)) = data.split_at_checked(NONCE_BYTES) else {
                    return refused(Refusal::ProtocolError, "ace with an answer without nonce");
                };
                let message = [&nonce[..], client_nonce].concat();
                let result = self.check(&token.0, &message, signature, now_s, fetch);
                decide(attempt, &token.0, result)
            }
            Some(None) => refused(Refusal::ProtocolError, "ace in an exchange of another method"),
        }
    }

    fn check(
        &self,
        token: &[u8],
        message: &[u8],
        signature: &[u8],
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Result<Verified, TokenError> {
        let (mut verified, binding) = self.tokens.verify_bound(token, now_s, fetch)?;
        let refused = |why: &str| Err(TokenError::Refused(why.into()));
        match binding {
            Binding::Key(key) if key.verify_alone(message, signature) => {
                verified.principal.method = Method::Ace;
                Ok(verified)
            }
            Binding::Key(_) => refused("the client has not shown that it has the token's key"),
            _ => refused("it is not bound to a key (`jwk` in `cnf`)"),
        }
    }
}

fn ask(token: &[u8], random: &Random) -> Outcome {
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&random[..NONCE_BYTES]);
    let token = Secret(token.into());
    let exchange = Exchange(Box::new(Challenge { token, nonce }));
    Outcome::Continue { exchange, data: nonce.to_vec() }
}

/// A token behind its length and what follows it. A token without length is told from that by its
/// first letters: as a length they would be longer than any token.
fn token_and_proof(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    let split = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)));
    let (token, proof) = match split {
        Some(split) => split,
        None if length.iter().all(u8::is_ascii_alphanumeric) => (data, &[][..]),
        None => return None,
    };
    (!token.is_empty()).then_some((token, proof))
}
