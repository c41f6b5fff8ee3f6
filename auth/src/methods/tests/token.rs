//! Tokens and what carries them.

use serde_json::{Value, json};

use super::*;
use crate::token::tests as server;
use crate::token::{Introspection, IssuerConfig, Keys, Tokens};
use server::{NOW_S, Web};

const URL: &str = "https://as.example/introspect";

fn method() -> TokenMethod {
    TokenMethod::new(Arc::new(server::tokens(server::config())))
}

fn asking() -> Arc<Tokens> {
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
    Arc::new(server::tokens(config))
}

fn good() -> String {
    server::token(&server::header(), &server::claims())
}

fn in_auth(token: &str) -> Attempt {
    Attempt { method: Some("OAUTH2-JWT".into()), data: secret(token.as_bytes()), ..attempt() }
}

fn in_websocket(token: &str) -> Attempt {
    let bearer = secret(token.as_bytes());
    Attempt { proof: Some(Arc::new(Proof { bearer, ..Default::default() })), ..attempt() }
}

fn run(method: &TokenMethod, attempt: &Attempt) -> MethodOutcome {
    method.verify(attempt, NOW_S, &Web::default()).0
}

#[test]
fn the_three_carriers_lead_to_the_same_principal() {
    for attempt in [in_auth(&good()), in_websocket(&good()), login("whoever", &good())] {
        let (principal, data) = accepted(decided(run(&method(), &attempt)));
        assert_eq!((&*principal.name, principal.method), ("ann", Method::Token));
        assert_eq!(principal.expires_s, Some(NOW_S + 660));
        assert_eq!(data, None);
    }
}

#[test]
fn a_token_without_a_user_name_is_enough() {
    let attempt = Attempt { user_name: None, ..login("", &good()) };
    accepted(decided(run(&method(), &attempt)));
}

#[test]
fn passwords_that_are_no_tokens_are_left_to_other_methods() {
    let foreign = server::claims_with("iss", json!("https://other.example"));
    let foreign = server::token(&server::header(), &foreign);
    for password in ["wonder land", "", "a.b.c", "e30.e30.", &foreign] {
        let outcome = run(&method(), &login("ann", password));
        assert!(matches!(outcome, MethodOutcome::NotMine), "{password}: {outcome:?}");
    }
    assert!(matches!(run(&method(), &attempt()), MethodOutcome::NotMine));
    let scram = Attempt { method: Some("SCRAM-SHA-256".into()), ..in_auth(&good()) };
    assert!(matches!(run(&method(), &scram), MethodOutcome::NotMine));
}

#[test]
fn where_a_token_is_announced_anything_else_is_refused() {
    for attempt in [in_auth("wonder land"), in_auth(""), in_websocket("wonder land")] {
        let refused = refusal(decided(run(&method(), &attempt)));
        assert_eq!(refused.refusal, Refusal::NotAuthorized);
        assert!(!refused.detail.contains("wonder"), "{}", refused.detail);
    }
    let empty = Attempt { data: None, ..in_auth("") };
    assert_eq!(refusal(decided(run(&method(), &empty))).refusal, Refusal::ProtocolError);
    let expired = server::token(&server::header(), &server::claims_with("exp", json!(1)));
    let refused = refusal(decided(run(&method(), &login("ann", &expired))));
    assert_eq!(refused.refusal, Refusal::NotAuthorized);
    assert_eq!(refused.detail, "token: it has expired");
}

#[test]
fn re_authentication_with_the_token_of_somebody_else_is_refused() {
    let current = Some(Arc::new(Principal::new("bob", Method::Token)));
    let other = Attempt { current, ..in_auth(&good()) };
    assert_eq!(refusal(decided(run(&method(), &other))).refusal, Refusal::NotAuthorized);
    let current = Some(Arc::new(Principal::new("ann", Method::Token)));
    accepted(decided(run(&method(), &Attempt { current, ..in_auth(&good()) })));
}

#[test]
fn an_issuer_that_cannot_be_asked_refuses() {
    let method = TokenMethod::new(asking());
    let opaque = "VGhpcyBpcyBhbiBvcGFxdWU";
    for attempt in [in_auth(opaque), login("ann", opaque), in_websocket(opaque)] {
        let refused = refusal(decided(run(&method, &attempt)));
        assert_eq!(refused.refusal, Refusal::Unavailable);
    }
}

#[test]
fn an_opaque_token_is_checked_again_until_it_is_revoked_or_its_rights_change() {
    let tokens = asking();
    let method = TokenMethod::new(tokens.clone());
    let web = Web::default();
    let active = server::changed(server::claims(), "active", json!(true));
    web.put(URL, &active.to_string());
    let attempt = in_auth("VGhpcyBpcyBhbiBvcGFxdWU");
    let begin = || {
        let (outcome, again) = method.verify(&attempt, NOW_S, &web);
        (accepted(decided(outcome)).0, again.expect("to be checked again"))
    };
    let (principal, again) = begin();
    assert_eq!(again.at_s, NOW_S + 30);
    assert!(!format!("{again:?}").contains("VGhp"));
    let next = again.run(&tokens, &principal, NOW_S + 30, &web).expect("still active");
    assert_eq!(next.at_s, NOW_S + 60);
    let less = server::changed(active.clone(), "scope", json!("mqtt:sub:a"));
    for (answer, at_s) in [
        (less, NOW_S + 60),
        (server::changed(active.clone(), "sub", json!("bob")), NOW_S + 90),
        (json!({"active": false}), NOW_S + 120),
        (Value::Null, NOW_S + 150),
    ] {
        web.put(URL, &answer.to_string());
        assert!(next.run(&tokens, &principal, at_s, &web).is_none(), "{answer}");
    }
}
