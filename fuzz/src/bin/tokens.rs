//! Any bytes as a key set, as a token, and as the answer of an introspection endpoint. The first
//! byte chooses which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel_auth::Secret;
use whimbrel_auth::token::{
    Fetch, FetchError, Introspection, IssuerConfig, KeySet, Keys, TokenError, Tokens, Verified,
};
use whimbrel_topics::filter::validate_topic_filter;

const ISSUER: &str = "https://as.example";
const NOW_S: u64 = 1_800_000_000;
const JWKS: &[u8] = include_bytes!("../../corpus/tokens/key_set");

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    match mode {
        b'k' => drop(KeySet::parse(bytes)),
        b'j' => {
            let keys = Keys::Text(JWKS[1..].into());
            let config = IssuerConfig { keys, ..IssuerConfig::new(ISSUER, "mqtt") };
            let result = verify(config, bytes, &Server(b""));
            assert!(result.is_err(), "nobody here can sign");
        }
        _ => answer(bytes),
    }
});

fn answer(bytes: &[u8]) {
    let introspection = Introspection {
        url: Some("https://as.example/introspect".into()),
        client_id: "broker".into(),
        client_secret: Secret(b"secret"[..].into()),
        cache_s: 30,
        negative_cache_s: 5,
        cache_entries: 10,
        without_audience: true,
    };
    let introspection = Some(introspection);
    let mut config =
        IssuerConfig { keys: Keys::None, introspection, ..IssuerConfig::new(ISSUER, "mqtt") };
    config.profile.groups = Some("groups".into());
    config.profile.permissions = Some("acl".into());
    let Ok(verified) = verify(config, b"VGhpcyBpcyBhbiBvcGFxdWU", &Server(bytes)) else { return };
    let principal = verified.principal;
    assert!((1..=1024).contains(&principal.name.len()) && !principal.name.contains('\0'));
    assert!(principal.expires_s.is_none_or(|end_s| end_s > NOW_S));
    assert!(verified.check_again_s.is_some_and(|at_s| at_s > NOW_S && at_s <= NOW_S + 30));
    for permission in principal.permissions.expect("a token that says nothing permits nothing") {
        assert!(validate_topic_filter(&permission.filter).is_ok() && permission.qos <= 2);
    }
}

fn verify(config: IssuerConfig, token: &[u8], fetch: &Server<'_>) -> Result<Verified, TokenError> {
    let tokens = Tokens::new(vec![config]).expect("a fine configuration");
    tokens.verify(token, None, NOW_S, fetch)
}

/// Answers every question with these bytes.
struct Server<'a>(&'a [u8]);

impl Fetch for Server<'_> {
    fn get(&self, _: &str) -> Result<Vec<u8>, FetchError> {
        Ok(self.0.to_vec())
    }

    fn post_form(&self, _: &str, _: &str, _: &str) -> Result<Vec<u8>, FetchError> {
        Ok(self.0.to_vec())
    }
}
