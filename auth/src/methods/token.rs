//! OAuth tokens as a method: in AUTH or CONNECT's authentication data (`OAUTH2-JWT`), as the
//! password, or in WebSocket's `Authorization`.

use std::sync::Arc;

use super::{MethodOutcome, accept};
use crate::token::{Fetch, TokenError, Tokens, Verified};
use crate::{Attempt, Outcome, Principal, Proof, Refusal, Refused, Secret};

/// The authentication method of MQTT 5.0 whose data is a token.
const NAME: &str = "OAUTH2-JWT";

/// Tokens of the configured issuers, whatever carries them.
#[derive(Clone, Debug)]
pub struct TokenMethod {
    tokens: Arc<Tokens>,
}

/// A token that was accepted because its issuer said so, and may say otherwise later.
#[derive(Clone, Debug)]
pub struct CheckAgain {
    /// When, in seconds since 1970.
    pub at_s: u64,
    token: Secret,
}

impl CheckAgain {
    pub(super) fn new(at_s: u64, token: &[u8]) -> CheckAgain {
        CheckAgain { at_s, token: Secret(token.into()) }
    }

    /// Asks again. Some: when to ask the next time, if `principal` is still whom the token speaks
    /// of and may do the same. None: the connection must end (0x87), also if the issuer cannot be
    /// asked. May block.
    pub fn run(
        &self,
        tokens: &Tokens,
        principal: &Principal,
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Option<CheckAgain> {
        let (verified, _) = tokens.verify_bound(&self.token.0, now_s, fetch).ok()?;
        let found = &verified.principal;
        let same = found.name == principal.name
            && found.groups == principal.groups
            && found.claims == principal.claims
            && found.permissions == principal.permissions;
        let at_s = verified.check_again_s.filter(|_| same)?;
        Some(CheckAgain { at_s, token: self.token.clone() })
    }
}

impl TokenMethod {
    /// With the tokens of these issuers.
    pub fn new(tokens: Arc<Tokens>) -> TokenMethod {
        TokenMethod { tokens }
    }

    /// Knows whoever uses its authentication method or brings a token through WebSocket, and
    /// passwords that are tokens of a configured issuer. The user name of CONNECT is not looked at:
    /// the client is whom its token names. May block.
    pub fn verify(
        &self,
        attempt: &Attempt,
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> (MethodOutcome, Option<CheckAgain>) {
        let mine = |token: &[u8]| {
            let result = self.check(token, attempt.proof.as_deref(), now_s, fetch);
            decide(attempt, token, result)
        };
        match attempt.method.as_deref() {
            Some(NAME) => {
                let Some(token) = &attempt.data else {
                    let detail = "OAUTH2-JWT without a token in the authentication data";
                    return (Refused::new(Refusal::ProtocolError, detail).into(), None);
                };
                return mine(&token.0);
            }
            Some(_) => return (MethodOutcome::NotMine, None),
            None => {}
        }
        if let Some(password) = &attempt.password {
            let result = self.check(&password.0, attempt.proof.as_deref(), now_s, fetch);
            if !matches!(result, Err(TokenError::NotMine)) {
                return decide(attempt, &password.0, result);
            }
        }
        match attempt.proof.as_ref().and_then(|proof| proof.bearer.as_ref()) {
            Some(token) => mine(&token.0),
            None => (MethodOutcome::NotMine, None),
        }
    }

    fn check(
        &self,
        token: &[u8],
        proof: Option<&Proof>,
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Result<Verified, TokenError> {
        self.tokens.verify(token, proof, now_s, fetch)
    }
}

/// Accepts or refuses; a token that nobody knows is refused, as no other method would take it.
pub(super) fn decide(
    attempt: &Attempt,
    token: &[u8],
    result: Result<Verified, TokenError>,
) -> (MethodOutcome, Option<CheckAgain>) {
    match result {
        Ok(Verified { principal, check_again_s }) => {
            let again = check_again_s.map(|at_s| CheckAgain::new(at_s, token));
            let outcome = accept(attempt, principal, None);
            let again = again.filter(|_| matches!(outcome, Outcome::Accepted { .. }));
            (outcome.into(), again)
        }
        Err(error) => {
            let refusal = match &error {
                TokenError::Unavailable(_) => Refusal::Unavailable,
                _ => Refusal::NotAuthorized,
            };
            (Refused::new(refusal, error.to_string()).into(), None)
        }
    }
}
