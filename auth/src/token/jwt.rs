//! A signed token (RFC 7515, RFC 7519): its parts, and whose signature it has to have.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::json::{self, Object};
use super::keys::{Algorithm, Choice, KeySet};

/// What a signed token says, before anybody has checked whether it is true.
pub struct Unverified<'a> {
    /// What is signed.
    message: &'a [u8],
    signature: Vec<u8>,
    header: Object,
    claims: Object,
}

/// Why a signature cannot be accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum BadSignature {
    /// The key is not known; a newer key set may have it.
    UnknownKey,
    /// For good.
    Refused(&'static str),
}

use BadSignature::Refused;

/// Whether it has the form of a signed token: three parts, of which the first is an object with
/// `alg`. Everything else that can be in a token is opaque.
pub fn is_jwt(token: &[u8]) -> bool {
    let mut parts = token.split(|byte| *byte == b'.');
    let header = parts.next().and_then(part);
    header.is_some_and(|header| header.contains_key("alg")) && parts.count() == 2
}

fn part(text: &[u8]) -> Option<Object> {
    URL_SAFE_NO_PAD.decode(text).ok().as_deref().and_then(json::object)
}

impl<'a> Unverified<'a> {
    /// Reads a token; the error says what it is not.
    pub fn parse(token: &'a [u8]) -> Result<Unverified<'a>, &'static str> {
        let parts: Vec<&[u8]> = token.splitn(5, |byte| *byte == b'.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err("not three parts; encrypted tokens are not accepted");
        };
        let message = &token[..header.len() + 1 + claims.len()];
        let header = part(header).ok_or("its header is not base64url of a JSON object")?;
        let claims = part(claims).ok_or("its claims are not base64url of a JSON object")?;
        let signature =
            URL_SAFE_NO_PAD.decode(signature).map_err(|_| "its signature is not base64url")?;
        Ok(Unverified { message, signature, header, claims })
    }

    /// Whom it claims to be from. Only good for finding the keys to check that with.
    pub fn issuer(&self) -> Option<&str> {
        json::text(&self.claims, "iss").ok().flatten()
    }

    /// Its claims, if it is signed with one of these keys and algorithms, and of one of these types
    /// (lower case; an empty one stands for no type).
    ///
    /// What the header says of keys (`jwk`, `jku`, `x5c`, `x5u`) is not looked at. The `kid` is
    /// compared and nothing else.
    pub fn verify(
        self,
        keys: &KeySet,
        algorithms: &[Algorithm],
        types: &[Box<str>],
    ) -> Result<Object, BadSignature> {
        let header = &self.header;
        for extension in ["crit", "b64", "zip", "enc"] {
            if header.contains_key(extension) {
                return Err(Refused("its header demands an extension (`crit` or the like)"));
            }
        }
        let text = |name| json::text(header, name).map_err(|()| Refused("a header is not text"));
        if text("cty")?.is_some_and(|content| content.to_ascii_lowercase().contains("jwt")) {
            return Err(Refused("there is a token in it"));
        }
        let kind = text("typ")?.unwrap_or_default().to_ascii_lowercase();
        let kind = kind.strip_prefix("application/").unwrap_or(&kind);
        if !types.iter().any(|accepted| **accepted == *kind) {
            return Err(Refused("its type (`typ`) is not accepted here"));
        }
        let algorithm = text("alg")?
            .and_then(Algorithm::from_name)
            .filter(|algorithm| algorithms.contains(algorithm))
            .ok_or(Refused("its algorithm is not accepted here"))?;
        let key = match keys.choose(text("kid")?, algorithm) {
            Choice::Key(key) => key,
            Choice::Unknown => return Err(BadSignature::UnknownKey),
            Choice::None(why) => return Err(Refused(why)),
        };
        if !key.verify(algorithm, self.message, &self.signature) {
            return Err(Refused("its signature is wrong"));
        }
        Ok(self.claims)
    }
}
