//! What is tried with signed tokens.

use proptest::prelude::*;

use super::*;

type Sign<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

#[test]
fn fine_tokens_of_each_algorithm_are_accepted() {
    let tokens = tokens(config());
    let claims = claims().to_string();
    let table: [(&str, &str, Sign<'_>); 5] = [
        ("RS256", "rsa", &|message| sign_rsa(&RSA_PKCS1_SHA256, message)),
        ("PS256", "rsa", &|message| sign_rsa(&RSA_PSS_SHA256, message)),
        ("ES256", "p256", &|message| sign_ec(&P256, message)),
        ("ES384", "p384", &|message| sign_ec(&P384, message)),
        ("EdDSA", "ed", &|message| ED25519.sign(message).as_ref().to_vec()),
    ];
    for (alg, kid, sign) in table {
        for kind in ["JWT", "at+jwt", "application/at+JWT"] {
            let header = json!({"alg": alg, "kid": kid, "typ": kind});
            let message = message(&header, &claims);
            let token = with_signature(&message, &sign(message.as_bytes()));
            let verified = verify(&tokens, &token).expect("a fine token");
            assert_eq!(&*verified.principal.name, "ann", "{alg}");
            assert_eq!(verified.principal.expires_s, Some(NOW_S + 660), "with the leeway");
            assert_eq!(verified.check_again_s, None);
        }
    }
}

#[test]
fn alg_none_is_refused_in_any_case_and_with_any_signature() {
    let tokens = tokens(config());
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let message = message(&header_with("alg", json!(alg)), &claims().to_string());
        for signature in [&b""[..], b"x", &sign_ec(&P256, message.as_bytes())] {
            let why = refused(verify(&tokens, &with_signature(&message, signature)));
            assert!(why.contains("algorithm"), "{why}");
        }
    }
    for alg in [json!(null), json!(1), json!(["ES256"])] {
        let token = token(&header_with("alg", alg), &claims());
        assert!(verify(&tokens, &token).is_err());
    }
}

#[test]
fn hs256_with_the_public_key_as_the_secret_is_refused() {
    let tokens = tokens(config());
    let public = RSA.public_key();
    let components = aws_lc_rs::signature::RsaPublicKeyComponents::<Vec<u8>>::from(public);
    let der = public.as_der().expect("a DER key");
    let pem = {
        use base64::engine::general_purpose::STANDARD;
        let text = STANDARD.encode(der.as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    };
    let secrets: [&[u8]; 6] = [
        &components.n,
        public.as_ref(),
        der.as_ref(),
        pem.as_bytes(),
        jwks().as_bytes(),
        P256.public_key().as_ref(),
    ]
    .map(|secret| -> &[u8] { Box::leak(secret.to_vec().into_boxed_slice()) });
    for secret in secrets {
        for kid in ["rsa", "p256", "unknown"] {
            let header = json!({"alg": "HS256", "kid": kid, "typ": "JWT"});
            let message = message(&header, &claims().to_string());
            let token = with_signature(&message, &sign_hmac(secret, message.as_bytes()));
            let why = refused(verify(&tokens, &token));
            assert_eq!(why, "its algorithm is not accepted here");
        }
    }
}

#[test]
fn a_shared_secret_works_alone_and_never_beside_a_key_set() {
    let secret = [7; 32];
    let keys = Keys::Secret(Secret(secret.into()));
    let algorithms = vec![Algorithm::HS256];
    let tokens = tokens(IssuerConfig { keys: keys.clone(), algorithms, ..config() });
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let message = message(&header, &claims().to_string());
    let good = with_signature(&message, &sign_hmac(&secret, message.as_bytes()));
    assert!(verify(&tokens, &good).is_ok());
    let bad = with_signature(&message, &sign_hmac(&[8; 32], message.as_bytes()));
    assert_eq!(refused(verify(&tokens, &bad)), "its signature is wrong");
    assert!(verify(&tokens, &token(&super::header(), &claims())).is_err());

    let refused = |config| Tokens::new(vec![config]).expect_err("a fault");
    let both = IssuerConfig { algorithms: vec![Algorithm::HS256, Algorithm::ES256], ..config() };
    assert!(refused(both).contains("need a secret"));
    let mixed = IssuerConfig { keys, ..config() };
    assert!(refused(mixed).contains("only HS256"));
    let short = Keys::Secret(Secret([7; 31].into()));
    let short = IssuerConfig { keys: short, algorithms: vec![Algorithm::HS256], ..config() };
    assert!(refused(short).contains("32 bytes"));
}

#[test]
fn kid_swapped_to_another_key_of_the_set() {
    let tokens = tokens(config());
    let swapped = token(&header_with("kid", json!("other")), &claims());
    assert_eq!(refused(verify(&tokens, &swapped)), "its signature is wrong");
    for kid in ["rsa", "p384", "ed"] {
        let swapped = token(&header_with("kid", json!(kid)), &claims());
        assert_eq!(refused(verify(&tokens, &swapped)), "its algorithm is not that of its key");
    }
}

#[test]
fn kid_missing_is_accepted_only_if_one_key_fits() {
    let nameless = header_with("kid", Value::Null);
    let why = refused(verify(&tokens(config()), &token(&nameless, &claims())));
    assert!(why.contains("several would fit"), "{why}");
    let one = json!({"keys": [ec_jwk(&P256, "p256", "P-256"), rsa_jwk()]}).to_string();
    let keys = Keys::Text(one.into_bytes().into());
    let tokens = tokens(IssuerConfig { keys, ..config() });
    assert!(verify(&tokens, &token(&nameless, &claims())).is_ok());
}

#[test]
fn kid_as_a_path_url_or_query_is_a_name_like_any_other() {
    let tokens = tokens(config());
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "https://evil.example/jwks.json",
        "x' UNION SELECT 'secret",
        "",
        "p256\0",
        "P256",
        "p256 ",
    ] {
        let web = Web::default();
        let token = token(&header_with("kid", json!(kid)), &claims());
        let result = tokens.verify(token.as_bytes(), None, NOW_S, &web);
        assert!(matches!(result, Err(TokenError::UnknownKey)), "{kid}: {result:?}");
        assert_eq!(web.asked.get(), 0, "{kid}");
    }
    for kid in [json!(1), json!(["p256"]), json!({"p256": 1})] {
        assert!(verify(&tokens, &token(&header_with("kid", kid), &claims())).is_err());
    }
}

#[test]
fn keys_in_the_header_are_not_followed() {
    let tokens = tokens(config());
    let mine = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let jwk = ec_jwk(&mine, "mine", "P-256");
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["MIIB"])),
    ] {
        for kid in [json!("p256"), json!("mine")] {
            let web = Web::default();
            let header = changed(header_with(name, value.clone()), "kid", kid);
            let message = message(&header, &claims().to_string());
            let forged = with_signature(&message, &sign_ec(&mine, message.as_bytes()));
            assert!(tokens.verify(forged.as_bytes(), None, NOW_S, &web).is_err(), "{name}");
            assert_eq!(web.asked.get(), 0);
        }
    }
}

#[test]
fn wrong_issuer_and_audience() {
    let tokens = tokens(config());
    for issuer in [json!("https://other.example"), json!("https://as.example/"), json!("")] {
        let token = token(&header(), &claims_with("iss", issuer));
        assert!(matches!(verify(&tokens, &token), Err(TokenError::NotMine)));
    }
    for issuer in [Value::Null, json!([ISSUER]), json!(1)] {
        assert!(verify(&tokens, &token(&header(), &claims_with("iss", issuer))).is_err());
    }
    for audience in [
        Value::Null,
        json!("other"),
        json!(["other"]),
        json!([]),
        json!("mqtt.example "),
        json!([AUDIENCE, 1]),
        json!({"mqtt.example": true}),
        json!([[AUDIENCE]]),
    ] {
        let why = refused(verify(&tokens, &token(&header(), &claims_with("aud", audience))));
        assert!(why.contains("aud"), "{why}");
    }
    let several = token(&header(), &claims_with("aud", json!(["other", AUDIENCE])));
    assert!(verify(&tokens, &several).is_ok());
}

#[test]
fn expired_and_not_yet_valid() {
    let tokens = tokens(config());
    let leeway_s = 60;
    for (name, value, fine) in [
        ("exp", NOW_S - leeway_s, false),
        ("exp", NOW_S - leeway_s + 1, true),
        ("exp", 0, false),
        ("nbf", NOW_S + leeway_s + 1, false),
        ("nbf", NOW_S + leeway_s, true),
        ("iat", NOW_S + leeway_s + 1, false),
        ("iat", NOW_S + leeway_s, true),
    ] {
        let result = verify(&tokens, &token(&header(), &claims_with(name, json!(value))));
        assert_eq!(result.is_ok(), fine, "{name} {value}: {result:?}");
    }
    let endless = token(&header(), &claims_with("exp", Value::Null));
    assert!(refused(verify(&tokens, &endless)).contains("no end"));
}

#[test]
fn huge_negative_fractional_and_textual_times() {
    let tokens = tokens(config());
    for name in ["exp", "nbf", "iat"] {
        for value in [
            "\"1900000000\"",
            "-1",
            "-9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "253402300800",
            "1e300",
            "1900000000.5",
            "1.9e9",
            "null",
            "true",
            "[1900000000]",
            "{}",
        ] {
            let text = claims().to_string().replace(&format!("\"{name}\""), "\"was\"");
            let text = text.replacen('{', &format!("{{\"{name}\":{value},"), 1);
            let message = message(&header(), &text);
            let token = with_signature(&message, &sign_ec(&P256, message.as_bytes()));
            refused(verify(&tokens, &token));
        }
    }
}

#[test]
fn crit_and_other_extensions_of_the_header() {
    let tokens = tokens(config());
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!("b64")),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
        ("cty", json!("JWT")),
    ] {
        refused(verify(&tokens, &token(&header_with(name, value), &claims())));
    }
}

#[test]
fn typ_confusion() {
    let default = tokens(config());
    for kind in [json!("dpop+jwt"), json!("logout+jwt"), json!("secevent+jwt"), json!("JWT\0")] {
        let token = token(&header_with("typ", kind), &claims());
        assert!(refused(verify(&default, &token)).contains("type"));
    }
    refused(verify(&default, &token(&header_with("typ", json!(1)), &claims())));
    let without = token(&header_with("typ", Value::Null), &claims());
    assert!(refused(verify(&default, &without)).contains("type"));
    let types = vec!["".into(), "application/AT+JWT".into()];
    let lax = tokens(IssuerConfig { types, ..config() });
    assert!(verify(&lax, &without).is_ok());
    assert!(verify(&lax, &token(&header(), &claims())).is_ok());
    refused(verify(&lax, &token(&header_with("typ", json!("JWT")), &claims())));
}

#[test]
fn signature_stripped_cut_padded_or_of_another_token() {
    let tokens = tokens(config());
    let good = token(&header(), &claims());
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let admin = token(&header(), &claims_with("sub", json!("admin")));
    let payload = admin.split('.').nth(1).expect("claims");
    let mixed = format!("{}.{payload}.{signature}", good.split('.').next().expect("a header"));
    let der = {
        use aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = P256.to_pkcs8v1().expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref());
        sign_ec(&pair.expect("a key"), signed.as_bytes())
    };
    for bad in [
        format!("{signed}."),
        format!("{signed}.{}", &signature[..signature.len() - 4]),
        format!("{signed}.{}", encode(&[0; 64])),
        format!("{signed}.{}", encode(&der)),
        format!("{signed}.{signature}="),
        format!("{signed}.{signature}AAAA"),
        mixed,
    ] {
        assert!(verify(&tokens, &bad).is_err(), "{bad}");
    }
    for bad in [
        signed.to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        good.replace('.', ".."),
        String::new(),
        "..".into(),
        ".".into(),
    ] {
        assert!(verify(&tokens, &bad).is_err(), "{bad}");
    }
}

#[test]
fn base64url_that_is_not_canonical() {
    let tokens = tokens(config());
    let good = token(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    // 64 bytes leave four unused bits in the last letter, which must be zero.
    let last = parts[2].chars().last().expect("a letter");
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = letters.find(last).expect("a letter of base64url");
    assert_eq!(at % 16, 0);
    let twin = &letters[at + 1..at + 2];
    let bad = format!("{}.{}.{}{twin}", parts[0], parts[1], &parts[2][..parts[2].len() - 1]);
    assert!(verify(&tokens, &bad).is_err());
    for (from, to) in [("-", "+"), ("_", "/")] {
        let message = message(&header(), &claims_with("x", json!("\u{fb}\u{ff}??>>")).to_string());
        let signed = with_signature(&message, &sign_ec(&P256, message.as_bytes()));
        if signed.contains(from) {
            assert!(verify(&tokens, &signed.replace(from, to)).is_err());
        }
    }
    for place in 0..3 {
        let mut padded: Vec<String> = parts.iter().map(ToString::to_string).collect();
        padded[place].push('=');
        assert!(verify(&tokens, &padded.join(".")).is_err());
        let mut broken: Vec<String> = parts.iter().map(ToString::to_string).collect();
        broken[place].insert(4, '\n');
        assert!(verify(&tokens, &broken.join(".")).is_err());
    }
}

#[test]
fn names_twice_in_header_or_claims() {
    let tokens = tokens(config());
    let text = claims().to_string();
    for twice in [
        text.replacen('{', "{\"sub\":\"admin\",", 1),
        text.replacen('{', "{\"exp\":1,", 1),
        text.replacen('{', "{\"s\\u0075b\":\"admin\",", 1),
        text.replacen('{', "{\"x\":{\"a\":1,\"a\":2},", 1),
    ] {
        let message = message(&header(), &twice);
        let token = with_signature(&message, &sign_ec(&P256, message.as_bytes()));
        assert!(verify(&tokens, &token).is_err(), "{twice}");
    }
    let header = r#"{"alg":"none","alg":"ES256","typ":"JWT","kid":"p256"}"#;
    let message = format!("{}.{}", encode(header.as_bytes()), encode(text.as_bytes()));
    let token = with_signature(&message, &sign_ec(&P256, message.as_bytes()));
    assert!(verify(&tokens, &token).is_err());
}

#[test]
fn nested_oversized_and_foreign_tokens() {
    let tokens = tokens(config());
    let large = token(&header(), &claims_with("x", json!("x".repeat(8192))));
    assert!(verify(&tokens, &large).is_err());
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let text = claims().to_string().replacen('{', &format!("{{\"x\":{deep},"), 1);
    let message = message(&header(), &text);
    let deep = with_signature(&message, &sign_ec(&P256, message.as_bytes()));
    assert!(verify(&tokens, &deep).is_err());
    for foreign in [
        r#"{"payload":"e30","signatures":[]}"#,
        "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.a.b.c.d",
        "e30.e30.e30",
        "bnVsbA.bnVsbA.bnVsbA",
        "a secret password of somebody",
        "\u{0}",
    ] {
        assert!(matches!(verify(&tokens, foreign), Err(TokenError::NotMine)), "{foreign}");
    }
}

#[test]
fn names_that_would_be_dangerous_in_rules_and_logs() {
    let tokens = tokens(config());
    for name in [
        json!(""),
        json!("a\0b"),
        json!("a\nb"),
        json!("x".repeat(1025)),
        json!(1),
        json!(["ann"]),
        json!({}),
        Value::Null,
    ] {
        refused(verify(&tokens, &token(&header(), &claims_with("sub", name))));
    }
    // Values with wildcards are for the rules, which never let them match.
    let result = verify(&tokens, &token(&header(), &claims_with("sub", json!("+/#"))));
    assert_eq!(&*result.expect("a fine token").principal.name, "+/#");
}

#[test]
fn cnf_with_and_without_the_certificate() {
    let tokens = tokens(config());
    let sha256 = [5; 32];
    let bound = |confirmation: Value| token(&header(), &claims_with("cnf", confirmation));
    let proof = |sha256| Proof {
        tls: true,
        certificate: Some(crate::Certificate { sha256, ..Default::default() }),
        ..Default::default()
    };
    let check = |token: &str, proof: Option<&Proof>| {
        tokens.verify(token.as_bytes(), proof, NOW_S, &Web::default())
    };
    let right = bound(json!({"x5t#S256": encode(&sha256)}));
    assert!(check(&right, Some(&proof(sha256))).is_ok());
    refused(check(&right, Some(&proof([6; 32]))));
    refused(check(&right, Some(&Proof { tls: true, ..Default::default() })));
    refused(check(&right, None));
    let jwk = ec_jwk(&OTHER, "client", "P-256");
    for other in [
        json!({}),
        json!(null),
        json!("x"),
        json!({"jkt": "x"}),
        json!({"kid": "x"}),
        json!({"jwk": jwk}),
        json!({"x5t#S256": encode(&sha256), "jkt": "x"}),
        json!({"x5t#S256": encode(&sha256[..31])}),
        json!({"x5t#S256": format!("{}=", encode(&sha256))}),
        json!({"x5t#S256": 5}),
    ] {
        let text = claims().to_string().replacen('{', &format!("{{\"cnf\":{other},"), 1);
        let message = message(&header(), &text);
        let token = with_signature(&message, &sign_ec(&P256, message.as_bytes()));
        refused(check(&token, Some(&proof(sha256))));
    }
}

#[test]
fn nothing_of_a_token_is_in_an_error() {
    let tokens = tokens(config());
    let marked = token(&header(), &claims_with("aud", json!("marked-audience")));
    for token in [format!("{marked}x"), marked] {
        let said = format!("{:?}", verify(&tokens, &token));
        assert!(!said.contains("marked") && !said.contains(&token[..20]), "{said}");
    }
}

proptest! {
    #[test]
    fn changed_tokens_never_verify(at in 0_usize..10_000, change in 1_u8..) {
        let tokens = tokens(config());
        let mut token = token(&header(), &claims()).into_bytes();
        let at = at % token.len();
        token[at] ^= change;
        prop_assert!(tokens.verify(&token, None, NOW_S, &Web::default()).is_err());
    }

    #[test]
    fn moved_parts_never_verify(from in 0_usize..400, length in 1_usize..40, to in 0_usize..400) {
        let tokens = tokens(config());
        let good = token(&header(), &claims());
        let mut token = good.clone().into_bytes();
        let from = from % token.len();
        let end = (from + length).min(token.len());
        let part: Vec<u8> = token.drain(from..end).collect();
        let to = to % (token.len() + 1);
        token.splice(to..to, part);
        prop_assume!(token != good.as_bytes());
        prop_assert!(tokens.verify(&token, None, NOW_S, &Web::default()).is_err());
    }
}
