//! What a token says, once it is known to be its issuer's: whether it is meant for this broker and
//! now, who the client is, and what it may do.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::Profile;
use super::json::{self, Object};
use super::keys::Key;
use super::permissions::permissions;
use crate::{Method, Principal};

/// Latest time that is accepted, in seconds since 1970: the end of the year 9999.
const MAX_TIME_S: u64 = 253_402_300_799;
/// Longest name of a client and of a group, in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Longest value of a claim that a principal keeps, in bytes.
const MAX_VALUE_BYTES: usize = 4096;
/// Most values of claims that a principal keeps, and most groups.
const MAX_VALUES: usize = 512;

/// To whom a token is bound (RFC 7800).
#[derive(Debug)]
pub enum Binding {
    /// Whoever has it.
    Bearer,
    /// SHA-256 of a client certificate (RFC 8705).
    Certificate([u8; 32]),
    /// Whoever has this key.
    Key(Box<Key>),
}

/// When a token is accepted, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub now_s: u64,
    pub leeway_s: u64,
}

/// Checks `exp`, `nbf` and `iat`; the end, with the leeway, if there is one.
pub fn lifetime(claims: &Object, time: Now) -> Result<Option<u64>, &'static str> {
    let Now { now_s, leeway_s } = time;
    let at = |name| match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(at @ 0..=MAX_TIME_S) => Ok(Some(at)),
            _ => Err("`exp`, `nbf` and `iat` are whole seconds since 1970, up to the year 9999"),
        },
    };
    let end = at("exp")?.map(|exp| exp.saturating_add(leeway_s));
    if end.is_some_and(|end| now_s >= end) {
        return Err("it has expired");
    }
    let latest = now_s.saturating_add(leeway_s);
    if at("nbf")?.is_some_and(|nbf| nbf > latest) {
        return Err("it is not valid yet (`nbf`)");
    }
    if at("iat")?.is_some_and(|iat| iat > latest) {
        return Err("it was issued in the future (`iat`); check both clocks");
    }
    Ok(end)
}

/// Whether one of the audiences is this broker.
pub fn audience(claims: &Object, accepted: &[Box<str>]) -> Result<(), &'static str> {
    let audiences = json::texts(claims, "aud").map_err(|()| "`aud` is no text or list of texts")?;
    let ours = audiences.iter().any(|one| accepted.iter().any(|other| **other == **one));
    if ours { Ok(()) } else { Err("it is for another audience (`aud`)") }
}

/// Reads `cnf`. A secret key is accepted in the answer of an issuer that was asked, and not in a
/// signed token, which everybody on its way can read.
pub fn binding(claims: &Object, was_asked: bool) -> Result<Binding, &'static str> {
    let Some(confirmation) = claims.get("cnf") else { return Ok(Binding::Bearer) };
    let confirmation = confirmation.as_object().filter(|methods| methods.len() == 1);
    let confirmation = confirmation.ok_or("its `cnf` is no object with one confirmation")?;
    if let Some(jwk) = confirmation.get("jwk") {
        let jwk = jwk.as_object().ok_or("the key in its `cnf` is no object")?;
        let key = if was_asked && jwk.contains_key("k") {
            Key::secret_from_jwk(jwk)
        } else {
            Key::from_jwk(jwk)
        };
        let key = key.map_err(|_| "the key in its `cnf` cannot be used")?;
        return Ok(Binding::Key(Box::new(key)));
    }
    let thumbprint = json::text(confirmation, "x5t#S256").ok().flatten();
    let thumbprint = thumbprint.ok_or("its `cnf` has a confirmation that is not known here")?;
    let bytes = URL_SAFE_NO_PAD.decode(thumbprint).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(Binding::Certificate).ok_or("the `x5t#S256` in its `cnf` is no SHA-256")
}

/// Who the client is, and what it may do.
pub fn principal(
    claims: &Object,
    profile: &Profile,
    expires_s: Option<u64>,
) -> Result<Principal, &'static str> {
    let mut name = None;
    for claim in &profile.names {
        name = json::text(claims, claim).map_err(|()| "the claim with its name is not text")?;
        if name.is_some() {
            break;
        }
    }
    let name = name.ok_or("no claim has the client's name; see the issuer's `names`")?;
    if !is_name(name) {
        return Err("its name is empty, too long, or has control characters");
    }
    let mut groups = Vec::new();
    if let Some(claim) = &profile.groups {
        let listed = json::texts(claims, claim).map_err(|()| "its groups are not texts")?;
        if listed.len() > MAX_VALUES || !listed.iter().all(|group| is_name(group)) {
            return Err("its groups are too many, empty, too long, or have control characters");
        }
        groups = listed.into_iter().map(Into::into).collect();
    }
    Ok(Principal {
        groups,
        claims: kept(claims)?,
        permissions: permissions(claims, profile),
        expires_s,
        ..Principal::new(name, Method::Token)
    })
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control)
}

/// Names and values.
type Kept = Vec<(Box<str>, Box<str>)>;

/// The claims that rules can ask for: texts, numbers, truth values, and lists of them. Those that
/// are about the token and not about the client do not stay.
fn kept(claims: &Object) -> Result<Kept, &'static str> {
    const OF_THE_TOKEN: [&str; 7] = ["exp", "nbf", "iat", "jti", "cnf", "active", "token_type"];
    let mut kept = Vec::new();
    for (name, value) in claims {
        if OF_THE_TOKEN.contains(&&**name) || name.len() > MAX_NAME_BYTES {
            continue;
        }
        let one = std::slice::from_ref(value);
        for value in value.as_array().map_or(one, Vec::as_slice) {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                _ => continue,
            };
            if value.len() > MAX_VALUE_BYTES || kept.len() == MAX_VALUES {
                // A rule that denies by a claim must not miss it.
                return Err("a claim has more than 4,096 bytes, or all more than 512 values");
            }
            kept.push((name.as_str().into(), value.into()));
        }
    }
    Ok(kept)
}
