//! Opaque tokens and introspection.

use super::*;

const URL: &str = "https://as.example/introspect";
const OPAQUE: &str = "VGhpcyBpcyBhbiBvcGFxdWU";

fn asking() -> IssuerConfig {
    IssuerConfig {
        keys: Keys::None,
        introspection: Some(Introspection {
            url: Some(URL.into()),
            client_id: "the broker".into(),
            client_secret: Secret(b"s3cret:+/%"[..].into()),
            cache_s: 30,
            negative_cache_s: 5,
            cache_entries: 4,
            without_audience: false,
        }),
        ..config()
    }
}

fn active() -> Value {
    changed(claims(), "active", json!(true))
}

fn check(tokens: &Tokens, web: &Web, now_s: u64) -> Result<Verified, TokenError> {
    tokens.verify(OPAQUE.as_bytes(), None, now_s, web)
}

#[test]
fn an_active_token_is_accepted_and_the_question_is_well_formed() {
    let tokens = tokens(asking());
    let web = Web::default();
    web.put(URL, &active().to_string());
    let verified = check(&tokens, &web, NOW_S).expect("an active token");
    assert_eq!(&*verified.principal.name, "ann");
    assert_eq!(verified.principal.expires_s, Some(NOW_S + 660));
    assert_eq!(verified.check_again_s, Some(NOW_S + 30));
    let (authorization, form) = web.last_post.borrow().clone();
    // the+broker:s3cret%3A%2B%2F%25
    assert_eq!(authorization, "Basic dGhlK2Jyb2tlcjpzM2NyZXQlM0ElMkIlMkYlMjU=");
    assert_eq!(form, format!("token={OPAQUE}&token_type_hint=access_token"));
}

#[test]
fn a_revoked_token_is_refused_after_the_cached_answer_ends() {
    let tokens = tokens(asking());
    let web = Web::default();
    web.put(URL, &active().to_string());
    assert!(check(&tokens, &web, NOW_S).is_ok());
    web.put(URL, "{\"active\":false}");
    assert!(check(&tokens, &web, NOW_S + 29).is_ok());
    assert_eq!(web.asked.get(), 1);
    assert!(matches!(check(&tokens, &web, NOW_S + 30), Err(TokenError::NotMine)));
    assert_eq!(web.asked.get(), 2);
    // That it is not valid is believed for a shorter while.
    web.put(URL, &active().to_string());
    assert!(matches!(check(&tokens, &web, NOW_S + 34), Err(TokenError::NotMine)));
    assert_eq!(web.asked.get(), 2);
    assert!(check(&tokens, &web, NOW_S + 35).is_ok());
}

#[test]
fn an_answer_is_not_believed_beyond_the_tokens_end() {
    let tokens = tokens(asking());
    let web = Web::default();
    web.put(URL, &changed(active(), "exp", json!(NOW_S - 50)).to_string());
    let verified = check(&tokens, &web, NOW_S).expect("within the leeway");
    assert_eq!(verified.check_again_s, Some(NOW_S + 10));
    assert!(check(&tokens, &web, NOW_S + 9).is_ok());
    refused(check(&tokens, &web, NOW_S + 10));
}

#[test]
fn a_server_that_cannot_be_asked_lets_nobody_in() {
    // Each time it is asked, however often that failed before.
    let tokens = tokens(IssuerConfig { retry_s: 0, ..asking() });
    let web = Web::default();
    let unavailable = |now_s| {
        let result = check(&tokens, &web, now_s);
        assert!(matches!(result, Err(TokenError::Unavailable(_))), "{result:?}");
    };
    unavailable(NOW_S);
    for answer in ["", "[]", "{}", "{\"active\":\"true\"}", "{\"active\":1}", "<html>"] {
        web.put(URL, answer);
        unavailable(NOW_S);
    }
    web.put(URL, "{\"active\":false,\"active\":true}");
    unavailable(NOW_S);
    // Not even an old answer, once it has ended.
    web.put(URL, &active().to_string());
    assert!(check(&tokens, &web, NOW_S).is_ok());
    web.take_down(URL);
    assert!(check(&tokens, &web, NOW_S + 29).is_ok());
    unavailable(NOW_S + 30);
}

#[test]
fn answers_for_others_or_of_another_time() {
    for (name, value) in [
        ("iss", json!("https://other.example")),
        ("aud", json!("other")),
        ("aud", Value::Null),
        ("exp", json!(NOW_S - 60)),
        ("exp", json!("1900000000")),
        ("exp", json!(-1)),
        ("nbf", json!(NOW_S + 61)),
        ("token_type", json!("DPoP")),
        ("token_type", json!("N_A")),
        ("token_type", json!(1)),
        ("cnf", json!({"jkt": "x"})),
        ("cnf", json!({"x5t#S256": encode(&[1; 32])})),
        ("sub", Value::Null),
    ] {
        let web = Web::default();
        web.put(URL, &changed(active(), name, value.clone()).to_string());
        let result = check(&tokens(asking()), &web, NOW_S);
        assert!(matches!(result, Err(TokenError::Refused(_))), "{name} {value}: {result:?}");
    }
}

#[test]
fn sparse_answers_are_accepted_if_configured() {
    let mut config = asking();
    config.profile.names = vec!["sub".into(), "username".into()];
    config.introspection.as_mut().expect("introspection").without_audience = true;
    let tokens = tokens(config);
    let web = Web::default();
    web.put(URL, "{\"active\":true,\"username\":\"ann\",\"token_type\":\"Bearer\"}");
    let verified = check(&tokens, &web, NOW_S).expect("an active token");
    assert_eq!(&*verified.principal.name, "ann");
    assert_eq!(verified.principal.expires_s, None);
    assert_eq!(verified.check_again_s, Some(NOW_S + 30));
}

#[test]
fn made_up_tokens_fill_no_memory_and_drive_out_no_good_ones() {
    let tokens = tokens(asking());
    let web = Web::default();
    web.put(URL, &active().to_string());
    assert!(check(&tokens, &web, NOW_S).is_ok());
    web.put(URL, "{\"active\":false}");
    for n in 0..1000 {
        let token = format!("{n:032}");
        let result = tokens.verify(token.as_bytes(), None, NOW_S, &web);
        assert!(matches!(result, Err(TokenError::NotMine)));
    }
    let asked = web.asked.get();
    assert!(check(&tokens, &web, NOW_S).is_ok());
    assert_eq!(web.asked.get(), asked);

    let mut cache = super::super::introspection::Cache::default();
    for n in 0..=255 {
        cache.insert([n; 32], (None, NOW_S + 5), 4, NOW_S);
    }
    assert!(cache.len().1 <= 4);
}

#[test]
fn what_is_no_token_is_never_sent_anywhere() {
    let tokens = tokens(asking());
    let web = Web::default();
    for password in
        ["short", "wonder land is a password", "pa$$word-of-somebody", "", "x=y=z=x=y=z=x=y=z"]
    {
        let result = tokens.verify(password.as_bytes(), None, NOW_S, &web);
        assert!(matches!(result, Err(TokenError::NotMine)), "{password}");
    }
    assert_eq!(web.asked.get(), 0);
}

#[test]
fn the_form_of_a_token_decides_if_an_issuer_has_keys_and_can_be_asked() {
    let both = IssuerConfig { keys: config().keys, ..asking() };
    let tokens = tokens(both);
    let web = Web::default();
    web.put(URL, &active().to_string());
    let signed = token(&header(), &claims());
    assert!(tokens.verify(signed.as_bytes(), None, NOW_S, &web).is_ok());
    assert_eq!(web.asked.get(), 0);
    // A signature that is wrong is not mended by asking.
    let forged = token(&header_with("kid", json!("other")), &claims());
    refused(tokens.verify(forged.as_bytes(), None, NOW_S, &web));
    assert_eq!(web.asked.get(), 0);
    let garbled = format!("{signed}=");
    assert!(tokens.verify(garbled.as_bytes(), None, NOW_S, &web).is_err());
    assert_eq!(web.asked.get(), 0);
    assert!(check(&tokens, &web, NOW_S).is_ok());
    assert_eq!(web.asked.get(), 1);
}

#[test]
fn the_endpoint_is_discovered_if_none_is_configured() {
    let mut config = asking();
    config.introspection.as_mut().expect("introspection").url = None;
    let tokens = tokens(config);
    let web = Web::default();
    let document = json!({"issuer": ISSUER, "introspection_endpoint": URL}).to_string();
    web.put("https://as.example/.well-known/openid-configuration", &document);
    web.put(URL, &active().to_string());
    assert!(check(&tokens, &web, NOW_S).is_ok());
    assert_eq!(web.asked.get(), 2);
}

#[test]
fn an_endpoint_that_does_not_answer_is_not_asked_for_a_while() {
    let tokens = tokens(asking());
    let web = Web::default();
    for _ in 0..20 {
        assert!(matches!(check(&tokens, &web, NOW_S), Err(TokenError::Unavailable(_))));
    }
    assert_eq!(web.asked.get(), 5);
    web.put(URL, &active().to_string());
    assert!(matches!(check(&tokens, &web, NOW_S + 9), Err(TokenError::Unavailable(_))));
    assert!(check(&tokens, &web, NOW_S + 10).is_ok());
    // An answer in between, whatever it says, begins the count anew.
    let tokens = super::tokens(asking());
    for at_s in 0..20 {
        let page = if at_s % 4 == 3 { "{\"active\":false}" } else { "<html>" };
        web.put(URL, page);
        let asked = web.asked.get();
        assert!(check(&tokens, &web, NOW_S + 6 * at_s).is_err());
        assert_eq!(web.asked.get(), asked + 1, "{at_s}");
    }
    // A clock that is set back does no harm.
    let tokens = super::tokens(asking());
    web.take_down(URL);
    for _ in 0..5 {
        assert!(check(&tokens, &web, NOW_S + 1000).is_err());
    }
    web.put(URL, &active().to_string());
    assert!(check(&tokens, &web, NOW_S).is_ok());
}
