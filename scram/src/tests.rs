//! The vector of RFC 7677, whole exchanges, and each message that is none.

use super::client::Client;
use super::*;
use alloc::string::ToString;
use proptest::prelude::*;

const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

fn keys(mechanism: Mechanism) -> StoredKeys {
    let salt = STANDARD.decode(SALT).expect("base64");
    StoredKeys::new(mechanism, "pencil", &salt, 4096).expect("a fine password")
}

fn started(client_first: &str) -> (Server, Vec<u8>) {
    let request = Request::parse(client_first.as_bytes()).expect("a client-first");
    request.go_on(keys(Mechanism::Sha256), SERVER_NONCE)
}

/// What RFC 7677 has, and the same with SHA-512 as Python's hashlib computes it.
#[test]
fn vectors() {
    let table = [
        (
            Mechanism::Sha256,
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
        (
            Mechanism::Sha512,
            "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
            "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
        ),
    ];
    for (mechanism, proof, signature) in table {
        let (client, first) =
            Client::new(mechanism, "user", "pencil", CLIENT_NONCE).expect("a client");
        assert_eq!(first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let request = Request::parse(&first).expect("a client-first");
        assert_eq!(request.user(), "user");
        let (server, reply) = request.go_on(keys(mechanism), SERVER_NONCE);
        let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
        assert_eq!(reply, format!("r={nonce},s={SALT},i=4096").as_bytes());
        let (expectation, last) = client.answer(&reply).expect("a server-first");
        assert_eq!(last, format!("c=biws,r={nonce},p={proof}").as_bytes());
        let done = server.finish(&last).expect("the right proof");
        assert_eq!(done, format!("v={signature}").as_bytes());
        assert_eq!(expectation.check(&done), Ok(()));
        assert_eq!(expectation.check(b"v=AAAA"), Err(Fault::Proof));
    }
}

#[test]
fn names_with_commas_equals_signs_and_compatibility_forms_are_carried() {
    for (user, prepared) in [("a,b=c", "a,b=c"), ("\u{2168}", "IX"), ("a\u{ad}b", "ab")] {
        let (_, first) = Client::new(Mechanism::Sha256, user, "x", "n").expect("a client");
        assert_eq!(Request::parse(&first).expect("a client-first").user(), prepared);
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_fail_at_the_same_step_with_the_same_message() {
    let random = &[9; NONCE_BYTES];
    let draw = &[3; 32];
    let mut said = Vec::new();
    for known in [true, false] {
        let (client, first) =
            Client::new(Mechanism::Sha256, "user", "pencil!", "abc").expect("a client");
        let request = Request::parse(&first).expect("a client-first");
        let (server, reply) = if known {
            request.answer(&keys(Mechanism::Sha256), random)
        } else {
            request.answer_unknown(Mechanism::Sha256, 4096, draw, random)
        };
        let (_, last) = client.answer(&reply).expect("a server-first");
        let fault = server.finish(&last).expect_err("a fault");
        said.push((fault.message(), fault.to_string(), reply.len(), server.user().to_string()));
    }
    assert_eq!(said[0], said[1]);
}

#[test]
fn keys_of_nobody_accept_no_proof_even_of_zeros() {
    let request = Request::parse(b"n,,n=user,r=abc").expect("a client-first");
    let (server, _) = request.answer_unknown(Mechanism::Sha256, 4096, &[0; 32], &[0; NONCE_BYTES]);
    for proof in [[0; 32], [0xff; 32]] {
        let last = format!("c=biws,r={},p={}", server.nonce, STANDARD.encode(proof));
        assert_eq!(server.finish(last.as_bytes()), Err(Fault::Proof));
    }
    let nothing: [u8; 0] = [];
    let last = format!("c=biws,r={},p={}", server.nonce, STANDARD.encode(nothing));
    assert_eq!(server.finish(last.as_bytes()), Err(Fault::Proof));
}

#[test]
fn malformed_client_first() {
    let long = format!("n,,n=user,r={}", "x".repeat(513));
    let huge = format!("n,,n={},r=x", "u".repeat(MAX_MESSAGE_BYTES));
    let table: &[(&[u8], Fault)] = &[
        (b"", Fault::Malformed),
        (b"n", Fault::Malformed),
        (b"n,,", Fault::Malformed),
        (b"n,n=user,r=abc", Fault::Malformed),
        (b"x,,n=user,r=abc", Fault::Malformed),
        (b"N,,n=user,r=abc", Fault::Malformed),
        (b"p=tls-unique,,n=user,r=abc", Fault::ChannelBinding),
        (b"p=tls-exporter,,n=user,r=abc", Fault::ChannelBinding),
        (b"n,,m=x,n=user,r=abc", Fault::Extension),
        (b"n,,r=abc,n=user", Fault::Malformed),
        (b"n,,n=,r=abc", Fault::Malformed),
        (b"n,,n=user", Fault::Malformed),
        (b"n,,n=user,r=", Fault::Malformed),
        (b"n,,n=user,r=a b", Fault::Malformed),
        (b"n,,n=user,r=a\x7f", Fault::Malformed),
        (b"n,,n=user,r=abc,", Fault::Malformed),
        (b"n,,n=user,r=abc,x", Fault::Malformed),
        (b"n,,n=us=er,r=abc", Fault::Malformed),
        (b"n,,n=user=,r=abc", Fault::Malformed),
        (b"n,,n=user=2c,r=abc", Fault::Malformed),
        (b"n,,n=us\0er,r=abc", Fault::Malformed),
        (b"n,,n=us\xc2\xader\x01,r=abc", Fault::Malformed),
        (b"n,,n=\xc2\xad,r=abc", Fault::Malformed),
        (b"n,,n=\xff,r=abc", Fault::Malformed),
        (b"n,user,n=user,r=abc", Fault::Malformed),
        (b"n,a=admin,n=user,r=abc", Fault::OtherUser),
        (long.as_bytes(), Fault::Malformed),
        (huge.as_bytes(), Fault::Malformed),
    ];
    for (message, fault) in table {
        let shown = String::from_utf8_lossy(message);
        assert_eq!(Request::parse(message).err(), Some(*fault), "{shown}");
    }
    for fine in ["y,,n=user,r=abc", "n,a=user,n=user,r=abc", "n,,n=user,r=abc,x=1"] {
        assert!(Request::parse(fine.as_bytes()).is_ok(), "{fine}");
    }
}

#[test]
fn malformed_client_final() {
    let (server, _) = started("n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
    let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let good = format!("c=biws,r={nonce},p={proof}");
    assert!(server.finish(good.as_bytes()).is_ok());
    let table = [
        (good.replace("biws", "eSws"), Fault::Nonce),
        (good.replace("biws", "cD1hLCw="), Fault::Nonce),
        (good.replace("biws", "biw"), Fault::Malformed),
        (good.replace(SERVER_NONCE, ""), Fault::Nonce),
        (good.replace(CLIENT_NONCE, ""), Fault::Nonce),
        (good.replace("k0,", "k1,"), Fault::Nonce),
        (good.replace("p=d", "p=e"), Fault::Proof),
        (format!("c=biws,r={nonce},p="), Fault::Proof),
        (format!("c=biws,r={nonce},p=AAAA"), Fault::Proof),
        (format!("c=biws,r={nonce},p={}", &proof[..proof.len() - 1]), Fault::Malformed),
        (format!("c=biws,r={nonce},x=1,p={proof}"), Fault::Proof),
        (format!("c=biws,r={nonce},p={proof},p={proof}"), Fault::Malformed),
        (format!("c=biws,r={nonce}"), Fault::Malformed),
        (format!("r={nonce},c=biws,p={proof}"), Fault::Malformed),
        (format!("p={proof}"), Fault::Malformed),
        (String::new(), Fault::Malformed),
        ("x".repeat(MAX_MESSAGE_BYTES + 1), Fault::Malformed),
    ];
    for (message, fault) in table {
        assert_eq!(server.finish(message.as_bytes()), Err(fault), "{message}");
    }
}

#[test]
fn a_proof_of_one_exchange_is_none_of_another() {
    let (client, first) =
        Client::new(Mechanism::Sha256, "user", "pencil", "abc").expect("a client");
    let begin = |random| {
        let request = Request::parse(&first).expect("a client-first");
        request.answer(&keys(Mechanism::Sha256), &[random; NONCE_BYTES])
    };
    let (one, reply) = begin(1);
    let (other, _) = begin(2);
    let (_, last) = client.answer(&reply).expect("a server-first");
    assert!(one.finish(&last).is_ok());
    assert_eq!(other.finish(&last), Err(Fault::Nonce));
}

#[test]
fn a_client_refuses_a_server_that_changes_the_nonce_or_weakens_the_keys() {
    let table = [
        ("r=xyz,s=c2FsdHNhbHQ=,i=4096", Fault::Nonce),
        ("r=abc,s=c2FsdHNhbHQ=,i=4096", Fault::Nonce),
        ("r=abcd,s=c2FsdHNhbHQ=,i=1", Fault::Malformed),
        ("r=abcd,s=c2FsdHNhbHQ=,i=4000000000", Fault::Malformed),
        ("r=abcd,s=*,i=4096", Fault::Malformed),
        ("m=x,r=abcd,s=c2FsdHNhbHQ=,i=4096", Fault::Malformed),
        ("e=invalid-proof", Fault::Malformed),
    ];
    for (message, fault) in table {
        let (client, _) =
            Client::new(Mechanism::Sha256, "user", "pencil", "abc").expect("a client");
        assert_eq!(client.answer(message.as_bytes()).err(), Some(fault), "{message}");
    }
}

#[test]
fn stored_keys_are_written_and_read() {
    for mechanism in [Mechanism::Sha256, Mechanism::Sha512] {
        let keys = keys(mechanism);
        assert_eq!(StoredKeys::parse(&keys.to_string()), Ok(keys.clone()));
        assert!(!format!("{keys:?}").contains(SALT));
        assert_eq!(Mechanism::from_name(mechanism.name()), Some(mechanism));
    }
    assert!(StoredKeys::new(Mechanism::Sha256, "a\u{7}", &[1; 16], 4096).is_none());
    assert!(StoredKeys::new(Mechanism::Sha256, "", &[1; 16], 4096).is_none());
}

proptest! {
    #[test]
    fn changed_messages_never_pass(at in 0_usize..200, change in 1_u8..) {
        let (server, _) = started("n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
        let proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let mut message = format!("c=biws,r={nonce},p={proof}").into_bytes();
        let at = at % message.len();
        message[at] ^= change;
        prop_assert!(server.finish(&message).is_err());
    }
}
