//! The MQTT-TLS profile of ACE, with both proofs.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use serde_json::{Value, json};

use super::*;
use crate::token::tests as server;
use crate::token::{Introspection, IssuerConfig, Keys};
use crate::{Action, Permission};
use server::{NOW_S, Web};

const EXPORTER: [u8; 32] = [0x5a; 32];
const RANDOM: Random = [0x17; 32];

/// A client that has a key, and a token that is bound to it.
struct Client {
    pair: EcdsaKeyPair,
    token: String,
}

impl Client {
    fn new() -> Client {
        Client::with("scope", json!([["a/#", ["pub", "sub"]]]))
    }

    /// With a token that has this claim.
    fn with(name: &str, value: Value) -> Client {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let jwk = server::ec_jwk(&pair, "client", "P-256");
        let claims = server::claims_with("cnf", json!({"jwk": jwk}));
        let claims = server::changed(claims, name, value);
        Client { pair, token: server::token(&server::header(), &claims) }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    }

    /// CONNECT's data with a proof for this exporter value.
    fn connect(&self, exporter: &[u8]) -> Vec<u8> {
        data(&self.token, &self.sign(exporter))
    }

    /// The answer to a challenge.
    fn answer(&self, nonce: &[u8]) -> Vec<u8> {
        let client_nonce = [9; 8];
        let signature = self.sign(&[nonce, &client_nonce].concat());
        [&client_nonce[..], &signature].concat()
    }
}

fn data(token: &str, proof: &[u8]) -> Vec<u8> {
    let length = u16::try_from(token.len()).expect("a short token").to_be_bytes();
    [&length[..], token.as_bytes(), proof].concat()
}

fn method() -> AceMethod {
    AceMethod::new(Arc::new(server::tokens(server::config())))
}

fn ace(data: &[u8], exchange: Option<Exchange>) -> Attempt {
    let proof = Proof { tls: true, exporter: Some(EXPORTER), ..Default::default() };
    Attempt {
        method: Some("ace".into()),
        data: secret(data),
        proof: Some(Arc::new(proof)),
        exchange,
        ..attempt()
    }
}

fn run(attempt: &Attempt) -> Outcome {
    decided(method().verify(attempt, NOW_S, &RANDOM, &Web::default()).0)
}

/// The challenge for a token without a proof.
fn challenge(data: &[u8]) -> (Exchange, Vec<u8>) {
    match run(&ace(data, None)) {
        Outcome::Continue { exchange, data } => (exchange, data),
        other => panic!("no challenge: {other:?}"),
    }
}

fn refused(outcome: Outcome) -> String {
    let refused = refusal(outcome);
    assert_eq!(refused.refusal, Refusal::NotAuthorized, "{}", refused.detail);
    refused.detail
}

#[test]
fn proof_by_the_tls_exporter() {
    let client = Client::new();
    let (principal, data) = accepted(run(&ace(&client.connect(&EXPORTER), None)));
    assert_eq!((&*principal.name, principal.method), ("ann", Method::Ace));
    assert_eq!(data, None);
    let permission = |action| Permission { action, filter: "a/#".into(), qos: 2, retain: true };
    let wanted = vec![permission(Action::Publish), permission(Action::Subscribe)];
    assert_eq!(principal.permissions, Some(wanted));
}

#[test]
fn proof_by_challenge_with_the_token_behind_its_length_or_alone() {
    let client = Client::new();
    for first in [data(&client.token, b""), client.token.clone().into_bytes()] {
        let (exchange, nonce) = challenge(&first);
        assert_eq!(nonce, RANDOM[..8]);
        let outcome = run(&ace(&client.answer(&nonce), Some(exchange)));
        assert_eq!(&*accepted(outcome).0.name, "ann");
    }
}

#[test]
fn wrong_nonce_or_exporter() {
    let client = Client::new();
    refused(run(&ace(&client.connect(&[0x5b; 32]), None)));
    let (exchange, nonce) = challenge(&data(&client.token, b""));
    let mut other = nonce.clone();
    other[0] ^= 1;
    refused(run(&ace(&client.answer(&other), Some(exchange))));
    // The client's nonce is part of what is signed.
    let (exchange, nonce) = challenge(&data(&client.token, b""));
    let mut answer = client.answer(&nonce);
    answer[0] ^= 1;
    refused(run(&ace(&answer, Some(exchange))));
    // A signature of the client's nonce first.
    let (exchange, nonce) = challenge(&data(&client.token, b""));
    let swapped = [&[9; 8][..], &client.sign(&[&[9; 8][..], &nonce].concat())].concat();
    refused(run(&ace(&swapped, Some(exchange))));
}

#[test]
fn a_replayed_proof_of_another_connection() {
    let client = Client::new();
    let (_, nonce) = challenge(&data(&client.token, b""));
    let recorded = client.answer(&nonce);
    let attempt = ace(&data(&client.token, b""), None);
    let next = decided(method().verify(&attempt, NOW_S, &[0x18; 32], &Web::default()).0);
    let Outcome::Continue { exchange, .. } = next else { panic!("{next:?}") };
    refused(run(&ace(&recorded, Some(exchange))));

    let recorded = client.connect(&EXPORTER);
    let proof = Proof { tls: true, exporter: Some([1; 32]), ..Default::default() };
    let elsewhere = Attempt { proof: Some(Arc::new(proof)), ..ace(&recorded, None) };
    refused(run(&elsewhere));
}

#[test]
fn a_token_of_somebody_else() {
    let (mine, stolen) = (Client::new(), Client::new());
    refused(run(&ace(&data(&stolen.token, &mine.sign(&EXPORTER)), None)));
    let (exchange, nonce) = challenge(&data(&stolen.token, b""));
    refused(run(&ace(&mine.answer(&nonce), Some(exchange))));
}

#[test]
fn tokens_that_are_not_bound_to_a_key_that_can_be_used() {
    let client = Client::new();
    let signature = client.sign(&EXPORTER);
    for confirmation in [
        Value::Null,
        json!({"x5t#S256": server::encode(&[1; 32])}),
        json!({"kid": "client"}),
        json!({"jwk": {"kty": "oct", "k": server::encode(&[1; 32])}}),
        // RSA keys go with several algorithms.
        json!({"jwk": server::rsa_jwk()}),
        json!({"jwk": {}}),
        json!({"jwk": "x"}),
    ] {
        let claims = server::claims_with("cnf", confirmation.clone());
        let token = server::token(&server::header(), &claims);
        refused(run(&ace(&data(&token, &signature), None)));
    }
    let plain = server::token(&server::header(), &server::claims());
    refused(run(&ace(&data(&plain, &signature), None)));
}

#[test]
fn a_token_that_expires_before_the_answer() {
    let client = Client::with("exp", json!(NOW_S + 10));
    let (exchange, nonce) = challenge(&data(&client.token, b""));
    let attempt = ace(&client.answer(&nonce), Some(exchange));
    let late = decided(method().verify(&attempt, NOW_S + 70, &RANDOM, &Web::default()).0);
    assert_eq!(refused(late), "token: it has expired");
}

#[test]
fn messages_that_are_none() {
    let client = Client::new();
    let long = [&[0xff, 0xff][..], client.token.as_bytes()].concat();
    for first in [&b""[..], b"\0", b"\0\0", b"\0\0proof", b"\0\x05abc", &long] {
        assert_eq!(refusal(run(&ace(first, None))).refusal, Refusal::ProtocolError, "{first:?}");
    }
    for answer in [&b""[..], b"1234567"] {
        let (exchange, _) = challenge(&data(&client.token, b""));
        let outcome = run(&ace(answer, Some(exchange)));
        assert_eq!(refusal(outcome).refusal, Refusal::ProtocolError);
    }
    let (exchange, _) = challenge(&data(&client.token, b""));
    refused(run(&ace(b"12345678", Some(exchange))));
    let strange = Some(Exchange(Box::new(1)));
    let outcome = run(&ace(&client.connect(&EXPORTER), strange));
    assert_eq!(refusal(outcome).refusal, Refusal::ProtocolError);
    let garbage = challenge(&data("no token at all", b""));
    refused(run(&ace(&client.answer(&garbage.1), Some(garbage.0))));
}

#[test]
fn without_tls_or_its_exporter() {
    let client = Client::new();
    let with = |proof| Attempt { proof, ..ace(&client.connect(&EXPORTER), None) };
    refused(run(&with(None)));
    let plain = Proof { exporter: Some(EXPORTER), ..Default::default() };
    refused(run(&with(Some(Arc::new(plain)))));
    let bare = Proof { tls: true, ..Default::default() };
    refused(run(&with(Some(Arc::new(bare)))));
    let other = Attempt { method: Some("ACE".into()), ..ace(&client.connect(&EXPORTER), None) };
    let outcome = method().verify(&other, NOW_S, &RANDOM, &Web::default()).0;
    assert!(matches!(outcome, MethodOutcome::NotMine));
}

#[test]
fn re_authentication_renews_or_is_refused_for_somebody_else() {
    let client = Client::new();
    for (name, fine) in [("ann", true), ("bob", false)] {
        let current = Some(Arc::new(Principal::new(name, Method::Ace)));
        let (exchange, nonce) = challenge(&data(&client.token, b""));
        let attempt = Attempt { current, ..ace(&client.answer(&nonce), Some(exchange)) };
        assert_eq!(matches!(run(&attempt), Outcome::Accepted { .. }), fine, "{name}");
    }
}

#[test]
fn a_secret_key_from_introspection_makes_a_mac() {
    const URL: &str = "https://as.example/introspect";
    let introspection = Introspection {
        url: Some(URL.into()),
        client_id: "broker".into(),
        client_secret: Secret(b"secret"[..].into()),
        cache_s: 30,
        negative_cache_s: 5,
        cache_entries: 10,
        without_audience: false,
    };
    let introspection = Some(introspection);
    let config = IssuerConfig { keys: Keys::None, introspection, ..server::config() };
    let method = AceMethod::new(Arc::new(server::tokens(config)));
    let opaque = "VGhpcyBpcyBhbiBvcGFxdWU";
    let check = |key: &[u8], mac: &[u8]| {
        let web = Web::default();
        let jwk = json!({"kty": "oct", "k": server::encode(key)});
        let claims = server::claims_with("cnf", json!({"jwk": jwk}));
        web.put(URL, &server::changed(claims, "active", json!(true)).to_string());
        let attempt = ace(&data(opaque, mac), None);
        method.verify(&attempt, NOW_S, &RANDOM, &web)
    };
    let mac = server::sign_hmac(&[4; 32], &EXPORTER);
    let (outcome, again) = check(&[4; 32], &mac);
    accepted(decided(outcome));
    assert_eq!(again.map(|again| again.at_s), Some(NOW_S + 30));
    refused(decided(check(&[4; 32], &mac[..31]).0));
}

#[test]
fn ed25519_keys() {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let x = server::encode(pair.public_key().as_ref());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
    let claims = server::claims_with("cnf", json!({"jwk": jwk}));
    let token = server::token(&server::header(), &claims);
    let proof = pair.sign(&EXPORTER);
    accepted(run(&ace(&data(&token, proof.as_ref()), None)));
    refused(run(&ace(&data(&token, pair.sign(b"other").as_ref()), None)));
}
