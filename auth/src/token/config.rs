//! What is configured of an issuer, and what it must not be.

use core::fmt;

use super::fetch::check_url;
use super::keys::{Algorithm, Key, KeySet, MIN_SECRET_BYTES};
use crate::Secret;

/// An issuer of tokens.
#[derive(Clone, Debug)]
pub struct IssuerConfig {
    /// As in `iss`, to the letter.
    pub issuer: Box<str>,
    /// Names of this broker, one of which stands in `aud`.
    pub audience: Vec<Box<str>>,
    /// With what its tokens are checked.
    pub keys: Keys,
    /// For opaque tokens; none if there are none.
    pub introspection: Option<Introspection>,
    /// How tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// Accepted values of `typ`, in any case; an empty one accepts tokens without it.
    pub types: Vec<Box<str>>,
    /// How far clocks may differ, in seconds.
    pub leeway_s: u64,
    /// Longest token, in bytes.
    pub max_token_bytes: usize,
    /// What is read from claims.
    pub profile: Profile,
    /// How often keys are fetched, in seconds.
    pub refresh_s: u64,
    /// How soon they are fetched again for an unknown key or after a failure, in seconds.
    pub retry_s: u64,
    /// How long old keys are used beyond that if new ones cannot be fetched, in seconds.
    pub stale_s: u64,
}

/// With what signatures are checked.
#[derive(Clone)]
pub enum Keys {
    /// With nothing: all tokens are opaque.
    None,
    /// A JWK set, as text.
    Text(Box<[u8]>),
    /// A JWK set, from this URL.
    Url(Box<str>),
    /// A JWK set, from where the issuer's own document says.
    Discovered,
    /// A secret shared with the issuer, for HS256, HS384 and HS512.
    Secret(Secret),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keys::None => f.write_str("None"),
            Keys::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Keys::Url(url) => write!(f, "Url({url})"),
            Keys::Discovered => f.write_str("Discovered"),
            Keys::Secret(secret) => secret.fmt(f),
        }
    }
}

/// How opaque tokens are checked (RFC 7662).
#[derive(Clone, Debug)]
pub struct Introspection {
    /// The endpoint; none: from where the issuer's own document says.
    pub url: Option<Box<str>>,
    /// The broker as a client of the authorization server.
    pub client_id: Box<str>,
    /// Its secret.
    pub client_secret: Secret,
    /// How long an answer is believed, in seconds: how late a revocation is noticed.
    pub cache_s: u64,
    /// How long it is believed that a token is not valid, in seconds.
    pub negative_cache_s: u64,
    /// Most answers kept.
    pub cache_entries: usize,
    /// Accept answers that have no `aud`: then tokens for other services are accepted if the
    /// authorization server says nothing of audiences.
    pub without_audience: bool,
}

/// What is read from claims, and under which names.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Claims with the client's name; the first that is there. With more than one, no name may
    /// stand in one of them for somebody and in another for somebody else.
    pub names: Vec<Box<str>>,
    /// The claim with its groups.
    pub groups: Option<Box<str>>,
    /// The claim with its permissions.
    pub permissions: Option<Box<str>>,
    /// What a token means that says nothing of MQTT.
    pub silent: Silent,
}

/// What a token means that says nothing of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silent {
    /// It permits nothing: only rules do. The safe choice where there are no rules.
    PermitsNothing,
    /// It is like a password: who has one may do what everybody may if there are no rules.
    LeavesItToRules,
}

impl IssuerConfig {
    /// With keys from the issuer's own document and everything else as is usual.
    pub fn new(issuer: &str, audience: &str) -> IssuerConfig {
        IssuerConfig {
            issuer: issuer.into(),
            audience: vec![audience.into()],
            keys: Keys::Discovered,
            introspection: None,
            algorithms: Algorithm::DEFAULT.to_vec(),
            types: vec!["jwt".into(), "at+jwt".into()],
            leeway_s: 60,
            max_token_bytes: 8192,
            profile: Profile {
                names: vec!["sub".into()],
                groups: None,
                permissions: None,
                silent: Silent::PermitsNothing,
            },
            refresh_s: 3600,
            retry_s: 30,
            stale_s: 86_400,
        }
    }

    /// What must not be configured; says what to do.
    pub(super) fn check(&self) -> Result<(), String> {
        let fault = |message: &str| Err(format!("issuer {}: {message}", self.issuer));
        if self.issuer.is_empty() {
            return fault("its name is empty; set it to `iss` of its tokens");
        }
        if self.audience.is_empty() || self.audience.iter().any(|one| one.is_empty()) {
            return fault("no audience; without one, tokens for other services would be accepted");
        }
        if self.profile.names.is_empty() {
            return fault("`names` is empty; name the claim with the client's name");
        }
        let symmetric = |one: &&Algorithm| one.is_symmetric();
        match &self.keys {
            Keys::Secret(secret) if secret.0.len() < MIN_SECRET_BYTES => {
                return fault("the secret is shorter than 32 bytes; take random ones");
            }
            Keys::Secret(_) if !self.algorithms.iter().all(|one| one.is_symmetric()) => {
                return fault("with a secret, only HS256, HS384 and HS512 can be used");
            }
            Keys::Secret(_) => {}
            _ if self.algorithms.iter().any(|one| symmetric(&one)) => {
                return fault("HS256, HS384 and HS512 need a secret, and no key set");
            }
            Keys::None if self.introspection.is_none() => {
                return fault("neither keys nor introspection; configure one of them");
            }
            _ => {}
        }
        if self.algorithms.is_empty() && !matches!(self.keys, Keys::None) {
            return fault("no algorithm; leave the setting out for the usual ones");
        }
        let key_url = match &self.keys {
            Keys::Url(url) => Some(url),
            Keys::Discovered => Some(&self.issuer),
            _ => None,
        };
        let introspection = self.introspection.as_ref();
        let asked = introspection.map(|one| one.url.as_ref().unwrap_or(&self.issuer));
        for url in key_url.into_iter().chain(asked) {
            if let Err(why) = check_url(url) {
                return fault(&format!("{url}: {why}"));
            }
        }
        Ok(())
    }

    /// Keys that need not be fetched, and what is wrong with some of them.
    pub(super) fn fixed_keys(&self) -> Result<Option<(KeySet, Vec<String>)>, String> {
        let named = |why: &str| format!("issuer {}: {why}", self.issuer);
        match &self.keys {
            Keys::Text(text) => KeySet::parse(text).map(Some).map_err(named),
            Keys::Secret(secret) => {
                let key = Key::shared_secret(&secret.0).map_err(named)?;
                Ok(Some((KeySet::of(key), Vec::new())))
            }
            Keys::None | Keys::Url(_) | Keys::Discovered => Ok(None),
        }
    }
}
