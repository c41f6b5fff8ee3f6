//! Opaque tokens: the question to the authorization server, its answer (RFC 7662), and the answers
//! that are kept for a while.

use core::fmt::Write;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::config::Introspection;
use super::fetch::MAX_RESPONSE_BYTES;
use super::json::{self, Object};

/// `Authorization` and form of the question (RFC 7662, section 2.1; RFC 6749, section 2.3.1).
pub fn request(config: &Introspection, token: &str) -> (String, String) {
    let id = encoded(config.client_id.as_bytes());
    let secret = encoded(&config.client_secret.0);
    let authorization = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let form = format!("token={}&token_type_hint=access_token", encoded(token.as_bytes()));
    (authorization, form)
}

/// As in `application/x-www-form-urlencoded`.
fn encoded(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                out.push(byte.into());
            }
            b' ' => out.push('+'),
            // Writing to a string does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// The claims in an answer; none if the token is not active.
pub fn response(body: &[u8]) -> Result<Option<Arc<Object>>, &'static str> {
    if body.len() > MAX_RESPONSE_BYTES {
        return Err("the answer is too large");
    }
    let answer = json::object(body).ok_or("the answer is no JSON object")?;
    match answer.get("active") {
        Some(Value::Bool(true)) => Ok(Some(Arc::new(answer))),
        Some(Value::Bool(false)) => Ok(None),
        _ => Err("the answer has no `active`"),
    }
}

/// Whether an active token is of the right issuer, and an access token.
pub fn check(claims: &Object, issuer: &str) -> Result<(), &'static str> {
    match json::text(claims, "iss") {
        Ok(None) => {}
        Ok(Some(other)) if other == issuer => {}
        _ => return Err("it is of another issuer"),
    }
    // What proof it demands is in `cnf`; there are servers that name the type after it.
    let kind = json::text(claims, "token_type").map_err(|()| "its type is no text")?;
    let accepted = |kind: &str| ["bearer", "pop", "access_token"].contains(&kind);
    match kind.map(str::to_ascii_lowercase) {
        Some(kind) if !accepted(&kind) => Err("it is no bearer token (`token_type`)"),
        _ => Ok(()),
    }
}

/// What a token is kept under: nobody can take a token from a dump of the cache.
pub fn key(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// An answer, and until when it is believed.
type Entry = (Option<Arc<Object>>, u64);

/// Answers that were given. Those that a token is not active have a place of their own, so that
/// made-up tokens do not drive out good ones.
#[derive(Default)]
pub struct Cache {
    active: HashMap<[u8; 32], Entry>,
    inactive: HashMap<[u8; 32], Entry>,
}

impl Cache {
    /// The answer to the same question, if it is still believed.
    pub fn get(&self, key: &[u8; 32], now_s: u64) -> Option<Entry> {
        let entry = self.active.get(key).or_else(|| self.inactive.get(key));
        entry.filter(|(_, until_s)| now_s < *until_s).cloned()
    }

    /// Keeps an answer.
    pub fn insert(&mut self, key: [u8; 32], entry: Entry, most: usize, now_s: u64) {
        self.active.remove(&key);
        self.inactive.remove(&key);
        let place = if entry.0.is_some() { &mut self.active } else { &mut self.inactive };
        if place.len() >= most {
            place.retain(|_, (_, until_s)| now_s < *until_s);
        }
        if place.len() >= most {
            // All of them are asked again: simpler than to know which was used last.
            place.clear();
        }
        if most > 0 {
            place.insert(key, entry);
        }
    }

    /// How many answers are kept: of active tokens, and of others.
    #[cfg(test)]
    pub fn len(&self) -> (usize, usize) {
        (self.active.len(), self.inactive.len())
    }
}
