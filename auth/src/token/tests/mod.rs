//! An authorization server to test against: it signs whatever it is asked to sign.

mod attacks;
mod keys;
mod opaque;
mod permissions;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::Secret;

pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const AUDIENCE: &str = "mqtt.example";
pub(crate) const NOW_S: u64 = 1_800_000_000;

pub(crate) static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key"));
pub(crate) static P256: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a P-256 key")
});
/// Another key of the same set.
pub(crate) static OTHER: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a P-256 key")
});
pub(crate) static P384: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a P-384 key")
});
pub(crate) static ED25519: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::generate().expect("an Ed25519 key"));

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn rsa_jwk() -> Value {
    let public = aws_lc_rs::signature::RsaPublicKeyComponents::<Vec<u8>>::from(RSA.public_key());
    json!({"kty": "RSA", "kid": "rsa", "n": encode(&public.n), "e": encode(&public.e)})
}

pub(crate) fn ec_jwk(pair: &EcdsaKeyPair, kid: &str, curve: &str) -> Value {
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(point.len() / 2);
    json!({"kty": "EC", "crv": curve, "kid": kid, "x": encode(x), "y": encode(y)})
}

pub(crate) fn ed_jwk() -> Value {
    let x = encode(ED25519.public_key().as_ref());
    json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x})
}

pub(crate) fn jwks() -> String {
    let p256 = ec_jwk(&P256, "p256", "P-256");
    let other = ec_jwk(&OTHER, "other", "P-256");
    json!({"keys": [rsa_jwk(), p256, other, ec_jwk(&P384, "p384", "P-384"), ed_jwk()]}).to_string()
}

pub(crate) fn sign_ec(pair: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    pair.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
}

pub(crate) fn sign_rsa(
    padding: &'static dyn aws_lc_rs::signature::RsaEncoding,
    message: &[u8],
) -> Vec<u8> {
    let mut signature = vec![0; RSA.public_modulus_len()];
    RSA.sign(padding, &SystemRandom::new(), message, &mut signature).expect("a signature");
    signature
}

pub(crate) fn sign_hmac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    use aws_lc_rs::hmac;
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

pub(crate) fn message(header: &Value, claims: &str) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.as_bytes()))
}

pub(crate) fn with_signature(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", encode(signature))
}

pub(crate) fn header() -> Value {
    json!({"alg": "ES256", "typ": "at+jwt", "kid": "p256"})
}

pub(crate) fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": NOW_S, "exp": NOW_S + 600})
}

/// Signed with the P-256 key, whatever the header says.
pub(crate) fn token(header: &Value, claims: &Value) -> String {
    let message = message(header, &claims.to_string());
    with_signature(&message, &sign_ec(&P256, message.as_bytes()))
}

/// `claims()` with one changed; null removes it.
pub(crate) fn claims_with(name: &str, value: Value) -> Value {
    changed(claims(), name, value)
}

pub(crate) fn header_with(name: &str, value: Value) -> Value {
    changed(header(), name, value)
}

pub(crate) fn changed(mut object: Value, name: &str, value: Value) -> Value {
    let fields = object.as_object_mut().expect("an object");
    if value.is_null() {
        fields.remove(name);
    } else {
        fields.insert(name.into(), value);
    }
    object
}

pub(crate) fn config() -> IssuerConfig {
    let keys = Keys::Text(jwks().into_bytes().into());
    IssuerConfig { keys, ..IssuerConfig::new(ISSUER, AUDIENCE) }
}

pub(crate) fn tokens(config: IssuerConfig) -> Tokens {
    Tokens::new(vec![config]).expect("a fine configuration")
}

pub(crate) fn verify(tokens: &Tokens, token: &str) -> Result<Verified, TokenError> {
    tokens.verify(token.as_bytes(), None, NOW_S, &Web::default())
}

/// Why a token is refused for good.
pub(crate) fn refused(result: Result<Verified, TokenError>) -> String {
    match result {
        Err(TokenError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// Answers by URL; everything else is down.
#[derive(Default)]
pub(crate) struct Web {
    pub(crate) pages: RefCell<HashMap<String, String>>,
    pub(crate) asked: Cell<usize>,
    pub(crate) last_post: RefCell<(String, String)>,
}

impl Web {
    pub(crate) fn put(&self, url: &str, body: &str) {
        self.pages.borrow_mut().insert(url.into(), body.into());
    }

    pub(crate) fn take_down(&self, url: &str) {
        self.pages.borrow_mut().remove(url);
    }
}

impl Fetch for Web {
    fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        self.asked.set(self.asked.get() + 1);
        let page = self.pages.borrow().get(url).map(|body| body.clone().into_bytes());
        page.ok_or(FetchError("no answer".into()))
    }

    fn post_form(&self, url: &str, authorization: &str, form: &str) -> Result<Vec<u8>, FetchError> {
        *self.last_post.borrow_mut() = (authorization.into(), form.into());
        self.get(url)
    }
}
