//! Somebody else's service that knows clients: asked over HTTP with JSON.
//!
//! It gets what the client has shown and answers whether it may come in, who it is and what it may
//! do (`docs/security.md`). An answer that cannot be had or understood refuses; after several of
//! them in a row nobody is asked for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::token::FetchError;
use crate::{
    Action, Attempt, Method, MethodOutcome, Permission, Principal, Refusal, Refused, Secret,
};

/// How the service is asked.
#[derive(Clone, Debug)]
pub struct HookConfig {
    /// Where requests go.
    pub url: Box<str>,
    /// The value of their header `Authorization`, if there is one.
    pub authorization: Option<Secret>,
    /// How long an answer may take.
    pub timeout_ms: u64,
    /// How long an answer is believed, unless it says otherwise; 0: once.
    pub cache_s: u64,
    /// Most answers kept.
    pub cache_entries: usize,
    /// Failures in a row after which nobody is asked.
    pub max_failures: u32,
    /// For how long.
    pub pause_s: u64,
}

/// The port to HTTP.
pub trait Post {
    /// The body of a POST of JSON that is answered with 200. It may block.
    ///
    /// # Errors
    /// If there is no such answer in time.
    fn post_json(&self, hook: &HookConfig, body: &str) -> Result<Vec<u8>, FetchError>;
}

/// The service, and what it said of late.
#[derive(Debug)]
pub struct HookMethod {
    config: HookConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Until then nobody is asked.
    open_until_s: u64,
    /// By the digest of the request: until when, and what.
    answers: HashMap<[u8; 32], (u64, Answer)>,
}

/// What the service says of a client.
#[derive(Clone, Debug, Deserialize)]
struct Answer {
    result: Verdict,
    #[serde(default)]
    user: Option<Box<str>>,
    #[serde(default)]
    groups: Vec<Box<str>>,
    #[serde(default)]
    claims: Map<String, Value>,
    #[serde(default)]
    permissions: Option<Vec<Granted>>,
    /// The connection ends then.
    #[serde(default)]
    expires_in_s: Option<u64>,
    #[serde(default)]
    cache_s: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
    /// Another method may know the client.
    Ignore,
}

#[derive(Clone, Debug, Deserialize)]
struct Granted {
    action: Grant,
    filter: Box<str>,
    #[serde(default = "two")]
    qos: u8,
    #[serde(default = "yes")]
    retain: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Grant {
    Publish,
    Subscribe,
    All,
}

fn two() -> u8 {
    2
}

fn yes() -> bool {
    true
}

impl HookMethod {
    /// Asks this service.
    pub fn new(config: HookConfig) -> HookMethod {
        HookMethod { config, state: Mutex::default() }
    }

    /// Asks who the client is. May block.
    pub fn verify(&self, attempt: &Attempt, now_s: u64, post: &dyn Post) -> MethodOutcome {
        if attempt.exchange.is_some() {
            return MethodOutcome::NotMine;
        }
        let body = request(attempt);
        let digest: [u8; 32] = Sha256::digest(body.as_bytes()).into();
        if let Some(answer) = self.cached(&digest, now_s) {
            return conclude(attempt, answer, now_s);
        }
        if self.state().open_until_s > now_s {
            let detail = "the service behind [http] failed of late and is not asked for a while";
            return Refused::new(Refusal::Unavailable, detail).into();
        }
        let answer = post.post_json(&self.config, &body).map_err(|error| error.0);
        let answer = answer.and_then(|bytes| {
            serde_json::from_slice::<Answer>(&bytes).map_err(|_| "an answer that is none".into())
        });
        match answer {
            Ok(answer) => {
                self.keep(digest, &answer, now_s);
                conclude(attempt, answer, now_s)
            }
            Err(why) => {
                self.failed(now_s);
                let detail = format!("the service behind [http]: {why}");
                Refused::new(Refusal::Unavailable, detail).into()
            }
        }
    }

    fn cached(&self, digest: &[u8; 32], now_s: u64) -> Option<Answer> {
        let state = self.state();
        state.answers.get(digest).filter(|(until_s, _)| *until_s > now_s).map(|(_, a)| a.clone())
    }

    fn keep(&self, digest: [u8; 32], answer: &Answer, now_s: u64) {
        let mut state = self.state();
        state.failures = 0;
        let cache_s = answer.cache_s.unwrap_or(self.config.cache_s);
        // What ends is not believed longer than that.
        let cache_s = cache_s.min(answer.expires_in_s.unwrap_or(u64::MAX));
        if cache_s == 0 || answer.expires_in_s.is_some() {
            return;
        }
        if state.answers.len() >= self.config.cache_entries {
            state.answers.retain(|_, (until_s, _)| *until_s > now_s);
        }
        if state.answers.len() < self.config.cache_entries {
            state.answers.insert(digest, (now_s.saturating_add(cache_s), answer.clone()));
        }
    }

    fn failed(&self, now_s: u64) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= self.config.max_failures.max(1) {
            state.failures = 0;
            state.open_until_s = now_s.saturating_add(self.config.pause_s);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the service is told. Bytes that are no UTF-8 go as `..._base64`.
fn request(attempt: &Attempt) -> String {
    let mut request = Map::new();
    request.insert("client_id".into(), json!(attempt.client_id));
    if let Some(name) = &attempt.user_name {
        request.insert("user_name".into(), json!(name));
    }
    put(&mut request, "password", attempt.password.as_ref());
    if let Some(method) = &attempt.method {
        request.insert("method".into(), json!(method));
    }
    put(&mut request, "data", attempt.data.as_ref());
    if let Some(address) = attempt.address {
        request.insert("address".into(), json!(address.ip().to_canonical().to_string()));
    }
    request.insert("listener".into(), json!(attempt.listener));
    if let Some(proof) = &attempt.proof {
        request.insert("tls".into(), json!(proof.tls));
        put(&mut request, "bearer", proof.bearer.as_ref());
        let identity = proof.certificate.as_ref().and_then(|one| one.identity.as_ref());
        if let Some(identity) = identity {
            request.insert("certificate".into(), json!(identity));
        }
    }
    if let Some(current) = &attempt.current {
        request.insert("current_user".into(), json!(current.name));
    }
    Value::Object(request).to_string()
}

fn put(request: &mut Map<String, Value>, name: &str, secret: Option<&Secret>) {
    use base64::Engine;
    let Some(Secret(bytes)) = secret else { return };
    match core::str::from_utf8(bytes) {
        Ok(text) => request.insert(name.into(), json!(text)),
        Err(_) => {
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            request.insert(format!("{name}_base64"), json!(text))
        }
    };
}

fn conclude(attempt: &Attempt, answer: Answer, now_s: u64) -> MethodOutcome {
    match answer.result {
        Verdict::Ignore => return MethodOutcome::NotMine,
        Verdict::Deny => {
            let detail = "the service behind [http] refuses it";
            return Refused::new(Refusal::NotAuthorized, detail).into();
        }
        Verdict::Allow => {}
    }
    let name = answer.user.or_else(|| attempt.user_name.clone()).unwrap_or_default();
    if name.contains('\0') {
        let detail = "the service behind [http] gives a user name with a NUL";
        return Refused::new(Refusal::Unavailable, detail).into();
    }
    let mut principal = Principal::new(&name, Method::Http);
    principal.groups = answer.groups;
    principal.claims = answer.claims.iter().flat_map(|(name, value)| claim(name, value)).collect();
    principal.permissions = answer.permissions.map(permissions);
    principal.expires_s = answer.expires_in_s.map(|s| now_s.saturating_add(s));
    super::methods::accept(attempt, principal, None).into()
}

/// A claim as its values.
fn claim(name: &str, value: &Value) -> Vec<(Box<str>, Box<str>)> {
    match value {
        Value::String(text) => vec![(name.into(), text.as_str().into())],
        Value::Number(number) => vec![(name.into(), number.to_string().into())],
        Value::Bool(flag) => vec![(name.into(), flag.to_string().into())],
        Value::Array(list) => list.iter().flat_map(|one| claim(name, one)).collect(),
        Value::Null | Value::Object(_) => Vec::new(),
    }
}

fn permissions(granted: Vec<Granted>) -> Vec<Permission> {
    let actions = |grant| match grant {
        Grant::Publish => &[Action::Publish][..],
        Grant::Subscribe => &[Action::Subscribe],
        Grant::All => &[Action::Publish, Action::Subscribe],
    };
    let one = |granted: &Granted| {
        let Granted { filter, qos, retain, .. } = granted.clone();
        let permission = move |action: &Action| Permission {
            action: *action,
            filter: filter.clone(),
            qos,
            retain,
        };
        actions(granted.action).iter().map(permission).collect::<Vec<_>>()
    };
    granted.iter().flat_map(one).collect()
}

#[cfg(test)]
#[path = "hook/tests.rs"]
mod tests;
