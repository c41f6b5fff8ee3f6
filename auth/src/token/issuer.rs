//! One issuer: its keys as they come and go, and what it says of a token.
//!
//! The lock is never held while something is fetched. Whoever begins to fetch notes the time first,
//! so that all others go on with what there is, and nobody asks more than once in `retry_s`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::{IssuerConfig, Keys};
use super::fetch::{Discovered, Fetch, FetchError, discover};
use super::introspection::{Cache, request};
use super::json::{self, Object};
use super::jwt::{BadSignature, Unverified};
use super::keys::KeySet;
use super::{TokenError, claims, introspection};

/// What is known of an issuer.
pub(super) struct Issuer {
    pub config: IssuerConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    discovered: Option<Discovered>,
    keys: Option<Arc<KeySet>>,
    /// When they were fetched; none for keys that were not.
    fetched_s: Option<u64>,
    tried_s: Option<u64>,
    discovery_tried_s: Option<u64>,
    cache: Cache,
    /// Questions about tokens in a row that were not answered.
    unanswered: u32,
    /// Until then none is asked.
    silent_until_s: u64,
    warnings: Vec<String>,
}

/// Questions in a row without answer after which none is asked for a while: each may hold up a
/// thread until its time is over.
const MOST_UNANSWERED: u32 = 5;
/// How long that is at most, in seconds.
const MOST_SILENT_S: u64 = 10;

/// Claims that are the issuer's, and until when they are believed.
pub(super) struct Statement {
    pub claims: Arc<Object>,
    /// With the leeway.
    pub expires_s: Option<u64>,
    /// When the issuer has to be asked again.
    pub check_again_s: Option<u64>,
}

impl Issuer {
    pub fn new(mut config: IssuerConfig) -> Result<Issuer, String> {
        for kind in &mut config.types {
            *kind = kind.to_ascii_lowercase().trim_start_matches("application/").into();
        }
        config.check()?;
        let mut state = State::default();
        if let Some((keys, warnings)) = config.fixed_keys()? {
            if keys.is_empty() {
                let why = warnings.join("; ");
                return Err(format!(
                    "issuer {}: none of its keys can be used: {why}",
                    config.issuer
                ));
            }
            state.keys = Some(Arc::new(keys));
            state.warnings = warnings;
        }
        Ok(Issuer { config, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half done here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether signed tokens are checked here and not by asking.
    pub fn has_keys(&self) -> bool {
        !matches!(self.config.keys, Keys::None)
    }

    fn fetches_keys(&self) -> bool {
        matches!(self.config.keys, Keys::Url(_) | Keys::Discovered)
    }

    /// What there is to warn of since the last time.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.state().warnings)
    }

    /// Fetches keys that are due.
    pub fn refresh(&self, now_s: u64, fetch: &dyn Fetch) {
        if self.keys_are_due(&self.state(), now_s) {
            self.fetch_keys(now_s, fetch);
        }
    }

    fn keys_are_due(&self, state: &State, now_s: u64) -> bool {
        let old = |at_s: u64| now_s.saturating_sub(at_s) >= self.config.refresh_s;
        self.fetches_keys() && state.fetched_s.is_none_or(old)
    }

    /// Fetches keys unless that was tried just now; true if there are new ones.
    fn fetch_keys(&self, now_s: u64, fetch: &dyn Fetch) -> bool {
        {
            let mut state = self.state();
            if !self.fetches_keys() || self.is_recent(state.tried_s, now_s) {
                return false;
            }
            state.tried_s = Some(now_s);
        }
        let result = self.key_url(now_s, fetch).and_then(|url| {
            let body = fetch.get(&url).map_err(|error| FetchError(format!("{url}: {error}")))?;
            KeySet::parse(&body).map_err(|why| FetchError(format!("{url}: {why}")))
        });
        let mut state = self.state();
        match result {
            Ok((keys, warnings)) => {
                state.keys = Some(Arc::new(keys));
                state.fetched_s = Some(now_s);
                self.warn(&mut state, warnings);
                true
            }
            Err(error) => {
                // The document may name another place by now.
                state.discovered = None;
                self.warn(&mut state, vec![format!("no new keys: {error}")]);
                false
            }
        }
    }

    fn is_recent(&self, tried_s: Option<u64>, now_s: u64) -> bool {
        // A clock that was set back must not stop this for long.
        tried_s.is_some_and(|tried_s| {
            tried_s <= now_s && now_s.saturating_sub(tried_s) < self.config.retry_s
        })
    }

    fn warn(&self, state: &mut State, warnings: Vec<String>) {
        let room = 100_usize.saturating_sub(state.warnings.len());
        let named = warnings.into_iter().take(room);
        state.warnings.extend(named.map(|one| format!("issuer {}: {one}", self.config.issuer)));
    }

    fn key_url(&self, now_s: u64, fetch: &dyn Fetch) -> Result<Box<str>, FetchError> {
        if let Keys::Url(url) = &self.config.keys {
            return Ok(url.clone());
        }
        let discovered = self.discovered(now_s, fetch)?;
        discovered.jwks_uri.ok_or_else(|| FetchError("its document names no `jwks_uri`".into()))
    }

    fn discovered(&self, now_s: u64, fetch: &dyn Fetch) -> Result<Discovered, FetchError> {
        {
            let mut state = self.state();
            if let Some(discovered) = &state.discovered {
                return Ok(discovered.clone());
            }
            if self.is_recent(state.discovery_tried_s, now_s) {
                return Err(FetchError("its document could not be had a moment ago".into()));
            }
            state.discovery_tried_s = Some(now_s);
        }
        let discovered = discover(&self.config.issuer, fetch)?;
        let mut state = self.state();
        state.discovery_tried_s = None;
        state.discovered = Some(discovered.clone());
        Ok(discovered)
    }

    /// The keys, fetched if they are due; none if there are none that may still be used.
    fn keys(&self, now_s: u64, fetch: &dyn Fetch) -> Option<Arc<KeySet>> {
        self.refresh(now_s, fetch);
        let state = self.state();
        let oldest_s = self.config.refresh_s.saturating_add(self.config.stale_s);
        let too_old = |at_s: u64| now_s.saturating_sub(at_s) >= oldest_s;
        if state.fetched_s.is_some_and(too_old) { None } else { state.keys.clone() }
    }

    /// What a signed token says. The token is [`Unverified`] again if a newer key is needed.
    pub fn check_signed(
        &self,
        token: &[u8],
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Result<Statement, TokenError> {
        let config = &self.config;
        let read = || Unverified::parse(token).map_err(TokenError::refused);
        let keys = || {
            let why = "the keys of its issuer cannot be had; is it up?";
            self.keys(now_s, fetch).ok_or(TokenError::Unavailable(why.into()))
        };
        let verify = |token: Unverified<'_>, keys: &KeySet| {
            token.verify(keys, &config.algorithms, &config.types)
        };
        let mut result = verify(read()?, &*keys()?);
        if result == Err(BadSignature::UnknownKey) && self.fetch_keys(now_s, fetch) {
            result = verify(read()?, &*keys()?);
        }
        let claims = result.map_err(|why| match why {
            BadSignature::UnknownKey => TokenError::UnknownKey,
            BadSignature::Refused(why) => TokenError::refused(why),
        })?;
        if json::text(&claims, "iss") != Ok(Some(&config.issuer)) {
            return Err(TokenError::refused("it is of another issuer"));
        }
        let time = claims::Now { now_s, leeway_s: config.leeway_s };
        let expires_s = claims::lifetime(&claims, time).map_err(TokenError::refused)?;
        if expires_s.is_none() {
            return Err(TokenError::refused("it has no end (`exp`)"));
        }
        claims::audience(&claims, &config.audience).map_err(TokenError::refused)?;
        Ok(Statement { claims: Arc::new(claims), expires_s, check_again_s: None })
    }

    /// What the issuer says of an opaque token; none if it does not know it.
    pub fn check_opaque(
        &self,
        token: &str,
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Result<Option<Statement>, TokenError> {
        let Some(config) = &self.config.introspection else { return Ok(None) };
        let key = introspection::key(token);
        let cached = self.state().cache.get(&key, now_s);
        let (claims, until_s) = match cached {
            Some((claims, until_s)) => (claims, until_s),
            None => {
                let claims = self.ask_if_it_answers(token, now_s, fetch)?;
                let kept_s =
                    if claims.is_some() { config.cache_s } else { config.negative_cache_s };
                let until_s = now_s.saturating_add(kept_s);
                let entry = (claims.clone(), until_s);
                self.state().cache.insert(key, entry, config.cache_entries, now_s);
                (claims, until_s)
            }
        };
        let Some(claims) = claims else { return Ok(None) };
        let time = claims::Now { now_s, leeway_s: self.config.leeway_s };
        let expires_s = claims::lifetime(&claims, time).map_err(TokenError::refused)?;
        introspection::check(&claims, &self.config.issuer).map_err(TokenError::refused)?;
        if claims.contains_key("aud") || !config.without_audience {
            claims::audience(&claims, &self.config.audience).map_err(TokenError::refused)?;
        }
        let check_again_s = Some(expires_s.map_or(until_s, |end_s| end_s.min(until_s)));
        Ok(Some(Statement { claims, expires_s, check_again_s }))
    }

    /// Asks unless there were no answers of late.
    fn ask_if_it_answers(
        &self,
        token: &str,
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Result<Option<Arc<Object>>, TokenError> {
        let silent_s = self.config.retry_s.min(MOST_SILENT_S);
        let until_s = self.state().silent_until_s;
        // A clock that was set back must not stop this for long.
        if now_s < until_s && until_s <= now_s.saturating_add(silent_s) {
            return Err(TokenError::Unavailable("its issuer did not answer of late".into()));
        }
        let result = self.ask(token, now_s, fetch);
        let mut state = self.state();
        state.unanswered = if result.is_ok() { 0 } else { state.unanswered.saturating_add(1) };
        if state.unanswered >= MOST_UNANSWERED {
            state.unanswered = 0;
            state.silent_until_s = now_s.saturating_add(silent_s);
        }
        result
    }

    /// Asks the introspection endpoint; none if the token is not active.
    fn ask(
        &self,
        token: &str,
        now_s: u64,
        fetch: &dyn Fetch,
    ) -> Result<Option<Arc<Object>>, TokenError> {
        let unavailable = |why: &dyn std::fmt::Display| {
            TokenError::Unavailable(format!("its issuer cannot be asked: {why}"))
        };
        let Some(config) = &self.config.introspection else { return Ok(None) };
        let url = match &config.url {
            Some(url) => url.clone(),
            None => self
                .discovered(now_s, fetch)
                .map_err(|error| unavailable(&error))?
                .introspection_endpoint
                .ok_or_else(|| unavailable(&"its document names no `introspection_endpoint`"))?,
        };
        let (authorization, form) = request(config, token);
        let body =
            fetch.post_form(&url, &authorization, &form).map_err(|error| unavailable(&error))?;
        introspection::response(&body).map_err(|why| unavailable(&why))
    }
}
