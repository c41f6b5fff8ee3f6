//! Key sets: what is in them, how they come and go.

use super::*;

const JWKS: &str = "https://as.example/jwks";
const OPENID: &str = "https://as.example/.well-known/openid-configuration";
const OAUTH: &str = "https://as.example/.well-known/oauth-authorization-server";

fn warnings(keys: Value) -> (usize, String) {
    let text = json!({"keys": keys}).to_string();
    let (set, warnings) = KeySet::parse(text.as_bytes()).expect("a key set");
    (set.len(), warnings.join("\n"))
}

#[test]
fn keys_that_cannot_be_used_are_left_out_with_a_warning() {
    let p256 = ec_jwk(&P256, "p256", "P-256");
    let off = changed(p256.clone(), "y", json!(encode(&[7; 32])));
    let small = changed(rsa_jwk(), "n", json!(encode(&[0xff; 128])));
    let almost = changed(rsa_jwk(), "n", json!(encode(&[&[0x7f; 1][..], &[0xff; 255]].concat())));
    let huge = changed(rsa_jwk(), "n", json!(encode(&[0xff; 1025])));
    for (bad, why) in [
        (small, "2,048"),
        (almost, "2,048"),
        (huge, "2,048"),
        (changed(rsa_jwk(), "n", json!(encode(&[0; 256]))), "2,048"),
        (changed(rsa_jwk(), "e", json!("AQ")), "exponent"),
        (changed(rsa_jwk(), "e", json!("Ag")), "exponent"),
        (changed(rsa_jwk(), "e", json!(encode(&[0xff; 64]))), "exponent"),
        (changed(rsa_jwk(), "e", Value::Null), "missing"),
        (changed(rsa_jwk(), "n", json!("a=")), "base64url"),
        (changed(rsa_jwk(), "d", json!("AQAB")), "private"),
        (changed(rsa_jwk(), "alg", json!("ES256")), "`alg`"),
        (changed(rsa_jwk(), "alg", json!("HS256")), "`alg`"),
        (changed(rsa_jwk(), "alg", json!("none")), "`alg`"),
        (changed(rsa_jwk(), "use", json!("enc")), "`use`"),
        (changed(rsa_jwk(), "key_ops", json!(["encrypt"])), "`key_ops`"),
        (changed(rsa_jwk(), "kid", json!("x".repeat(257))), "`kid`"),
        (changed(rsa_jwk(), "kid", json!(1)), "not text"),
        (off, "no point"),
        (changed(p256.clone(), "x", json!(encode(&[1; 31]))), "length"),
        (changed(p256.clone(), "x", json!(encode(&[1; 33]))), "length"),
        (changed(p256.clone(), "crv", json!("P-384")), "length"),
        (changed(p256.clone(), "crv", json!("secp256k1")), "its type"),
        (changed(p256.clone(), "crv", Value::Null), "its type"),
        (changed(ed_jwk(), "x", json!(encode(&[1; 31]))), "no point"),
        (changed(ed_jwk(), "crv", json!("X25519")), "its type"),
        (json!({"kty": "oct", "kid": "s", "k": encode(&[1; 32])}), "shared secret"),
        (json!("x"), "no object"),
        (json!({}), "its type"),
    ] {
        let (used, said) = warnings(json!([bad, p256]));
        assert_eq!(used, 1, "{bad}");
        assert!(said.starts_with("key 1 (") && said.contains(why), "{bad}: {said}");
    }
    let (used, said) = warnings(json!([p256, ec_jwk(&OTHER, "p256", "P-256")]));
    assert_eq!(used, 1);
    assert!(said.starts_with("key 2 (\"p256\") is not used: an earlier key"), "{said}");
}

#[test]
fn texts_that_are_no_key_set() {
    let many = json!({"keys": vec![json!({}); 101]}).to_string();
    let large = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(MAX_KEY_SET_BYTES));
    for text in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[],\"keys\":[]}", &many, &large] {
        assert!(KeySet::parse(text.as_bytes()).is_err());
    }
}

#[test]
fn a_key_with_alg_is_pinned_to_it() {
    let pinned = changed(rsa_jwk(), "alg", json!("PS256"));
    let keys = Keys::Text(json!({"keys": [pinned]}).to_string().into_bytes().into());
    let tokens = tokens(IssuerConfig { keys, ..config() });
    let signed = |alg: &str, padding: &'static dyn aws_lc_rs::signature::RsaEncoding| {
        let header = json!({"alg": alg, "kid": "rsa", "typ": "JWT"});
        let message = message(&header, &claims().to_string());
        with_signature(&message, &sign_rsa(padding, message.as_bytes()))
    };
    assert!(verify(&tokens, &signed("PS256", &RSA_PSS_SHA256)).is_ok());
    let why = refused(verify(&tokens, &signed("RS256", &RSA_PKCS1_SHA256)));
    assert_eq!(why, "its algorithm is not that of its key");
    assert_eq!(
        refused(verify(&tokens, &signed("PS256", &RSA_PKCS1_SHA256))),
        "its signature is wrong"
    );
}

fn fetched() -> Tokens {
    tokens(IssuerConfig { keys: Keys::Url(JWKS.into()), ..config() })
}

fn set_of(jwk: Value) -> String {
    json!({"keys": [jwk]}).to_string()
}

#[test]
fn jwks_rotation_an_unknown_kid_is_asked_for_once_in_a_while() {
    let tokens = fetched();
    let web = Web::default();
    let check = |now_s| tokens.verify(token(&header(), &claims()).as_bytes(), None, now_s, &web);
    web.put(JWKS, &set_of(ec_jwk(&OTHER, "other", "P-256")));
    tokens.refresh(NOW_S, &web);
    assert_eq!(web.asked.get(), 1);
    // Asked for a moment ago: a flood of unknown keys costs no fetches.
    for _ in 0..100 {
        assert!(matches!(check(NOW_S + 29), Err(TokenError::UnknownKey)));
    }
    assert_eq!(web.asked.get(), 1);
    web.put(JWKS, &set_of(ec_jwk(&P256, "p256", "P-256")));
    assert!(check(NOW_S + 30).is_ok());
    assert_eq!(web.asked.get(), 2);
    // The key that went is no longer accepted.
    let message = message(&header_with("kid", json!("other")), &claims().to_string());
    let old = with_signature(&message, &sign_ec(&OTHER, message.as_bytes()));
    let result = tokens.verify(old.as_bytes(), None, NOW_S + 31, &web);
    assert!(matches!(result, Err(TokenError::UnknownKey)));
}

#[test]
fn jwks_down_old_keys_stay_for_a_while_then_nobody_comes_in() {
    let tokens = fetched();
    let web = Web::default();
    let late = |now_s: u64| {
        let claims = claims_with("exp", json!(NOW_S + 1_000_000));
        tokens.verify(token(&header(), &claims).as_bytes(), None, now_s, &web)
    };
    assert!(matches!(late(NOW_S), Err(TokenError::Unavailable(_))), "no keys yet");
    web.put(JWKS, &jwks());
    assert!(matches!(late(NOW_S + 29), Err(TokenError::Unavailable(_))), "tried just now");
    let start_s = NOW_S + 30;
    assert!(late(start_s).is_ok());
    web.take_down(JWKS);
    assert!(late(start_s + 3600 + 86_399).is_ok());
    assert!(matches!(late(start_s + 3600 + 86_400), Err(TokenError::Unavailable(_))));
    let said = tokens.take_warnings().join("\n");
    assert!(
        said.contains("issuer https://as.example: no new keys: https://as.example/jwks: "),
        "{said}"
    );
    assert!(tokens.take_warnings().is_empty());
    // What is no key set is no reason to forget the keys; an empty one is.
    web.put(JWKS, "<html>");
    let start_s = start_s + 3600 + 86_400;
    assert!(matches!(late(start_s + 30), Err(TokenError::Unavailable(_))));
    web.put(JWKS, &jwks());
    assert!(late(start_s + 60).is_ok());
    web.put(JWKS, "{\"keys\":[]}");
    assert!(matches!(late(start_s + 60 + 3600), Err(TokenError::UnknownKey)));
}

#[test]
fn keys_are_fetched_anew_when_they_are_due_and_a_clock_set_back_does_no_harm() {
    let tokens = fetched();
    let web = Web::default();
    web.put(JWKS, &jwks());
    for (now_s, asked) in
        [(NOW_S, 1), (NOW_S + 3599, 1), (NOW_S + 3600, 2), (NOW_S + 3600, 2), (NOW_S - 5000, 2)]
    {
        tokens.refresh(now_s, &web);
        assert_eq!(web.asked.get(), asked, "{now_s}");
    }
}

#[test]
fn discovery_finds_the_keys_at_either_place() {
    for place in [OPENID, OAUTH] {
        let tokens = tokens(IssuerConfig { keys: Keys::Discovered, ..config() });
        let web = Web::default();
        web.put(place, &json!({"issuer": ISSUER, "jwks_uri": JWKS}).to_string());
        web.put(JWKS, &jwks());
        let result = tokens.verify(token(&header(), &claims()).as_bytes(), None, NOW_S, &web);
        assert!(result.is_ok(), "{place}: {result:?}");
    }
}

#[test]
fn discovery_refuses_documents_of_others_and_urls_without_tls() {
    for document in [
        json!({"issuer": "https://evil.example", "jwks_uri": JWKS}),
        json!({"issuer": "https://as.example/", "jwks_uri": JWKS}),
        json!({"jwks_uri": JWKS}),
        json!({"issuer": ISSUER}),
        json!({"issuer": ISSUER, "jwks_uri": "http://as.example/jwks"}),
        json!({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}),
        json!({"issuer": ISSUER, "jwks_uri": 1}),
        json!([]),
    ] {
        let tokens = tokens(IssuerConfig { keys: Keys::Discovered, ..config() });
        let web = Web::default();
        web.put(OPENID, &document.to_string());
        web.put(JWKS, &jwks());
        let result = tokens.verify(token(&header(), &claims()).as_bytes(), None, NOW_S, &web);
        assert!(matches!(result, Err(TokenError::Unavailable(_))), "{document}");
        assert_eq!(web.asked.get(), 1, "{document}");
    }
}

#[test]
fn urls() {
    for fine in [
        "https://as.example/jwks?x=1",
        "http://127.0.0.1:8080/",
        "http://127.9.9.9/",
        "http://[::1]:80/x",
        "http://localhost/x",
    ] {
        assert_eq!(check_url(fine), Ok(()), "{fine}");
    }
    for bad in [
        "http://as.example/",
        "http://localhost.evil.example/",
        "http://127.0.0.1.evil.example/",
        "http://127.0.0.1@evil.example/",
        "http://127.0.0.1\\@evil.example/",
        "http://[::2]/",
        "https://",
        "https:///x",
        "https://user:secret@as.example/",
        "https://as.example/#x",
        "https://as.example/a b",
        "https://as.ex\u{e4}mple/",
        "ftp://as.example/",
        "HTTPS://as.example",
        "as.example",
        "",
    ] {
        assert!(check_url(bad).is_err(), "{bad}");
    }
    assert_eq!(
        well_known("https://as.example/tenant/"),
        [
            "https://as.example/tenant/.well-known/openid-configuration",
            "https://as.example/.well-known/oauth-authorization-server/tenant",
        ]
    );
    assert_eq!(well_known(ISSUER), [OPENID, OAUTH]);
}

#[test]
fn configurations_that_would_let_others_in() {
    let table = [
        (IssuerConfig { audience: vec![], ..config() }, "no audience"),
        (IssuerConfig { issuer: "".into(), ..config() }, "its name is empty"),
        (IssuerConfig { keys: Keys::None, ..config() }, "neither keys nor introspection"),
        (IssuerConfig { keys: Keys::Url("http://as.example/".into()), ..config() }, "use https"),
        (IssuerConfig { algorithms: vec![], ..config() }, "no algorithm"),
        (IssuerConfig { keys: Keys::Text(b"{\"keys\":[]}"[..].into()), ..config() }, "none of its"),
    ];
    for (config, wanted) in table {
        let said = Tokens::new(vec![config]).expect_err("a fault");
        assert!(said.contains(wanted), "{said}");
    }
    let twice = Tokens::new(vec![config(), config()]).expect_err("a fault");
    assert!(twice.contains("configured twice"));
}
