//! The MQTT-TLS profile of ACE (RFC 9431), with both proofs.

use std::net::TcpStream;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};
use whimbrel_codec::{Connect, Packet, Properties, Property, ReasonCode, Version};

use super::bound_tokens::Place;
use super::issuer::{claims, ec_jwk, ec_key, header, token, with};
use super::link::{Got, Link, refused, welcome};

const METHOD: &str = "ace";
const CLIENT_NONCE: [u8; 8] = *b"nonce456";

/// A client with a key, and a token that is bound to it.
struct Client {
    pair: EcdsaKeyPair,
    token: String,
}

impl Client {
    fn new(scope: Value) -> Client {
        let pair = ec_key();
        let cnf = json!({"jwk": ec_jwk(&pair, "client")});
        let claims = with(with(claims(), "cnf", cnf), "scope", scope);
        Client { pair, token: token(&header(), &claims) }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    /// The token behind its length, and a proof.
    fn data(&self, proof: &[u8]) -> Vec<u8> {
        let len = u16::try_from(self.token.len()).unwrap().to_be_bytes();
        [&len[..], self.token.as_bytes(), proof].concat()
    }

    /// The answer to a challenge.
    fn answer(&self, nonce: &[u8]) -> Vec<u8> {
        let signature = self.sign(&[nonce, &CLIENT_NONCE].concat());
        [&CLIENT_NONCE[..], &signature].concat()
    }
}

fn anything() -> Value {
    json!([["a/#", ["pub", "sub"]]])
}

/// What both ends of this connection know alone.
fn exporter(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> [u8; 32] {
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    let label = b"EXPORTER-ACE-MQTT-Sign-Challenge";
    stream.conn.export_keying_material([0; 32], label, None).unwrap()
}

fn connect(link: &mut Link, data: &[u8]) -> Got {
    let list = [Property::AuthenticationMethod(METHOD), Property::AuthenticationData(data)];
    let properties = Properties::new(&list);
    link.send(&Packet::Connect(Connect { properties, ..Connect::new(Version::V5, "c") }));
    link.next()
}

/// Sends the token alone; the link and the broker's nonce.
fn challenged(place: &Place, client: &Client) -> (Link, Vec<u8>) {
    let mut link = Link::over(place.tls(None));
    match connect(&mut link, &client.data(b"")) {
        Got::Auth(ReasonCode::ContinueAuthentication, nonce) => (link, nonce),
        other => panic!("no challenge but {other:?}:\n{}", place.server.log()),
    }
}

#[test]
fn the_proof_from_the_tls_session_is_accepted_for_that_session_alone() {
    let place = Place::new();
    let client = Client::new(anything());
    let mut stream = place.tls(None);
    let data = client.data(&client.sign(&exporter(&mut stream)));
    let mut link = Link::over(stream);
    assert_eq!(connect(&mut link, &data), welcome(false), "{}", place.server.log());
    assert_eq!(link.subscribe("a/#"), 1);
    assert_eq!(link.subscribe("#"), ReasonCode::NotAuthorized as u8);
    // Whoever saw it cannot show it again.
    let mut replay = Link::over(place.tls(None));
    assert_eq!(connect(&mut replay, &data), refused(ReasonCode::NotAuthorized));
    // Nor is another's key of use.
    let mut stream = place.tls(None);
    let data = client.data(&Client::new(anything()).sign(&exporter(&mut stream)));
    assert_eq!(connect(&mut Link::over(stream), &data), refused(ReasonCode::NotAuthorized));
    assert!(!place.server.log().contains(&client.token), "the token is in the log");
}

#[test]
fn the_answer_to_a_challenge_is_accepted_for_that_challenge_alone() {
    let place = Place::new();
    let client = Client::new(anything());
    let (mut link, nonce) = challenged(&place, &client);
    assert_eq!(nonce.len(), 8);
    let answer = client.answer(&nonce);
    link.auth(ReasonCode::ContinueAuthentication, METHOD, &answer);
    assert_eq!(link.next(), welcome(false));
    assert_eq!(link.subscribe("a/#"), 1);
    let (mut replay, other) = challenged(&place, &client);
    assert_ne!(nonce, other, "a nonce that was used");
    replay.auth(ReasonCode::ContinueAuthentication, METHOD, &answer);
    assert_eq!(replay.next(), refused(ReasonCode::NotAuthorized));
    let (mut forged, nonce) = challenged(&place, &client);
    let answer = Client::new(anything()).answer(&nonce);
    forged.auth(ReasonCode::ContinueAuthentication, METHOD, &answer);
    assert_eq!(forged.next(), refused(ReasonCode::NotAuthorized));
}

#[test]
fn a_renewal_needs_a_proof_as_well() {
    let place = Place::new();
    let client = Client::new(anything());
    let renewed = |answer: &dyn Fn(&Client, &[u8]) -> Vec<u8>| {
        let (mut link, nonce) = challenged(&place, &client);
        let proof = client.answer(&nonce);
        link.auth(ReasonCode::ContinueAuthentication, METHOD, &proof);
        assert_eq!(link.next(), welcome(false));
        let next = Client::new(json!([["b", ["sub"]]]));
        link.auth(ReasonCode::Reauthenticate, METHOD, &next.data(b""));
        let Got::Auth(ReasonCode::ContinueAuthentication, nonce) = link.next() else {
            panic!("no challenge")
        };
        link.auth(ReasonCode::ContinueAuthentication, METHOD, &answer(&next, &nonce));
        let got = link.next();
        (link, got)
    };
    let (mut link, got) = renewed(&|next, nonce| next.answer(nonce));
    assert_eq!(got, Got::Auth(ReasonCode::Success, vec![]));
    assert_eq!(link.subscribe("b"), 1);
    assert_eq!(link.subscribe("a/x"), ReasonCode::NotAuthorized as u8);
    let (_, got) = renewed(&|_, nonce| client.answer(nonce));
    assert_eq!(got, Got::Disconnect(ReasonCode::NotAuthorized), "the key of the old token");
}

#[test]
fn nothing_comes_in_without_tls_or_without_a_bound_token() {
    let place = Place::new();
    let client = Client::new(anything());
    let mut plain = Link::open(&place.server);
    assert_eq!(
        connect(&mut plain, &client.data(b"")),
        refused(ReasonCode::BadAuthenticationMethod)
    );
    let unbound = token(&header(), &claims());
    let client = Client { token: unbound, ..client };
    let (mut link, nonce) = challenged(&place, &client);
    link.auth(ReasonCode::ContinueAuthentication, METHOD, &client.answer(&nonce));
    assert_eq!(link.next(), refused(ReasonCode::NotAuthorized));
}
