//! OAuth 2.0 access tokens: one verifier for whatever carries them.
//!
//! A token is signed (JWT; RFC 7519, RFC 9068) or opaque, and then its issuer is asked (RFC 7662).
//! Which of the two is decided by its form, and which issuer by its `iss`; opaque tokens are asked
//! for at every issuer that can be asked, in order.
//!
//! What can be fetched goes through [`Fetch`], which may block.

mod claims;
mod config;
mod fetch;
mod introspection;
mod issuer;
mod json;
mod jwt;
mod keys;
mod permissions;
#[cfg(test)]
pub(crate) mod tests;

use core::fmt;

pub use config::{Introspection, IssuerConfig, Keys, Profile, Silent};
pub use fetch::{Discovered, Fetch, FetchError, MAX_RESPONSE_BYTES, check_url, well_known};
use issuer::{Issuer, Statement};
pub use keys::{Algorithm, Key, KeySet, MAX_KEY_SET_BYTES};

use crate::{Principal, Proof};
pub(crate) use claims::Binding;

/// Shortest opaque token, in bytes: anything shorter could be guessed.
const MIN_OPAQUE_BYTES: usize = 16;

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It has not the form of a token, or no issuer knows it: another method may know the client.
    NotMine,
    /// Its issuer has no such key, and was asked, or was asked a moment ago.
    UnknownKey,
    /// For good; text for the log, without anything of the token.
    Refused(String),
    /// Its issuer cannot be asked: nobody comes in.
    Unavailable(String),
}

impl TokenError {
    fn refused(why: &str) -> TokenError {
        TokenError::Refused(why.into())
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::NotMine => f.write_str("token: no configured issuer knows it"),
            TokenError::UnknownKey => f.write_str("token: its issuer has no such key (`kid`)"),
            TokenError::Refused(why) => write!(f, "token: {why}"),
            TokenError::Unavailable(why) => write!(f, "token: {why}"),
        }
    }
}

/// A token that is accepted.
#[derive(Debug)]
pub struct Verified {
    /// Whose it is.
    pub principal: Principal,
    /// When its issuer has to be asked again whether it is still valid, in seconds since 1970; none
    /// for signed tokens, of which nobody can be asked. To do so, verify it again.
    pub check_again_s: Option<u64>,
}

/// All issuers whose tokens are accepted.
pub struct Tokens {
    issuers: Vec<Issuer>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.issuers.iter().map(|issuer| &issuer.config.issuer);
        f.debug_list().entries(names).finish()
    }
}

impl Tokens {
    /// With these issuers; the error says what must not be configured and what to do.
    pub fn new(configs: Vec<IssuerConfig>) -> Result<Tokens, String> {
        let issuers: Vec<Issuer> =
            configs.into_iter().map(Issuer::new).collect::<Result<_, _>>()?;
        for (at, issuer) in issuers.iter().enumerate() {
            let name = &issuer.config.issuer;
            if issuers[..at].iter().any(|other| other.config.issuer == *name) {
                return Err(format!("issuer {name}: it is configured twice; remove one"));
            }
        }
        Ok(Tokens { issuers })
    }

    /// Fetches keys that are due: to be called at the start, and now and then, so that nobody has
    /// to wait for them at a login.
    pub fn refresh(&self, now_s: u64, fetch: &dyn Fetch) {
        for issuer in &self.issuers {
            issuer.refresh(now_s, fetch);
        }
    }

    /// What there is to warn of since the last time: keys that cannot be used or fetched.
    pub fn take_warnings(&self) -> Vec<String> {
        self.issuers.iter().flat_map(Issuer::take_warnings).collect()
    }

    /// Verifies a token whose bearer has shown `proof`. A token that is bound to a certificate
    /// (RFC 8705) is accepted with that certificate alone, one bound otherwise not at all.
    pub fn verify(
        &self,
        token: &[u8],
        proof: Option<&Proof>,
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Result<Verified, TokenError> {
        let (verified, binding) = self.verify_bound(token, now_s, fetch)?;
        match binding {
            Binding::Bearer => Ok(verified),
            Binding::Certificate(sha256) => {
                let certificate = proof.and_then(|proof| proof.certificate.as_ref());
                if certificate.is_some_and(|certificate| certificate.sha256 == sha256) {
                    Ok(verified)
                } else {
                    Err(TokenError::refused("it is bound to another client certificate (`cnf`)"))
                }
            }
            Binding::Key(_) => {
                Err(TokenError::refused("it is bound to a key (`cnf`); use the method `ace`"))
            }
        }
    }

    /// Verifies a token whose binding the caller checks.
    pub(crate) fn verify_bound(
        &self,
        token: &[u8],
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Result<(Verified, Binding), TokenError> {
        let (issuer, statement) = self.statement(token, now_s, fetch)?;
        let Statement { claims, expires_s, check_again_s } = statement;
        let binding =
            claims::binding(&claims, check_again_s.is_some()).map_err(TokenError::refused)?;
        let principal = claims::principal(&claims, &issuer.config.profile, expires_s);
        let principal = principal.map_err(TokenError::refused)?;
        Ok((Verified { principal, check_again_s }, binding))
    }

    fn statement(
        &self,
        token: &[u8],
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Result<(&Issuer, Statement), TokenError> {
        let longest = self.issuers.iter().map(|issuer| issuer.config.max_token_bytes).max();
        if token.len() > longest.unwrap_or(0) {
            return Err(TokenError::NotMine);
        }
        if jwt::is_jwt(token)
            && let Ok(unverified) = jwt::Unverified::parse(token)
            && let Some(name) = unverified.issuer()
        {
            let issuer = self.issuers.iter().find(|issuer| *issuer.config.issuer == *name);
            let issuer = issuer.ok_or(TokenError::NotMine)?;
            if token.len() > issuer.config.max_token_bytes {
                return Err(TokenError::refused("it is too long"));
            }
            if issuer.has_keys() {
                return Ok((issuer, issuer.check_signed(token, now_s, fetch)?));
            }
        }
        let text = opaque(token).ok_or(TokenError::NotMine)?;
        for issuer in &self.issuers {
            // A signed token is checked by its signature wherever that can be done.
            let fits = text.len() <= issuer.config.max_token_bytes;
            let asked = fits && !(issuer.has_keys() && jwt::is_jwt(token));
            if asked && let Some(statement) = issuer.check_opaque(text, now_s, fetch)? {
                return Ok((issuer, statement));
            }
        }
        Err(TokenError::NotMine)
    }
}

/// A token as RFC 6750 has it, section 2.1, that is long enough not to be guessed.
fn opaque(token: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(token).ok()?;
    let bare = text.trim_end_matches('=');
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    (bare.len() >= MIN_OPAQUE_BYTES && bare.bytes().all(fine)).then_some(text)
}
