//! Forged, foreign and outdated tokens, in each carrier.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use whimbrel_codec::ReasonCode;

use super::issuer::{
    Carrier, EC, ISSUER, OTHER, RSA, all_keys, claims, ec_jwk, ec_key, header, joined, now_s,
    rsa_jwk, rsa_token, scoped, server, signed_by, token, unsigned, with,
};
use super::link::{Got, Link, login, refused, welcome};
use super::server::Server;

/// None of these lets anybody in by any carrier, and none stands in the log.
fn refuses(server: &Server, tokens: &[(&str, String)]) {
    for (what, token) in tokens {
        for carrier in Carrier::ALL {
            let (mut link, got) = carrier.present(server, token, "attacker");
            assert_eq!(got, refused(ReasonCode::NotAuthorized), "{what}, {carrier:?}");
            assert_eq!(link.next(), Got::Closed, "{what}, {carrier:?}");
        }
    }
    let log = server.log();
    for (what, token) in tokens {
        let parts = token.split('.').filter(|part| part.len() > 40);
        parts.for_each(|part| assert!(!log.contains(part), "a part of a token in the log: {what}"));
    }
}

fn accepts(server: &Server, token: &str) {
    for carrier in Carrier::ALL {
        let (mut link, got) = carrier.present(server, token, "friend");
        assert_eq!(got, welcome(false), "{carrier:?}: {}", server.log());
        assert!(link.is_quiet());
    }
    assert!(!server.log().contains(token), "the token is in the log");
}

#[test]
fn fine_tokens_come_in_by_each_carrier() {
    let server = server();
    accepts(&server, &token(&header(), &claims()));
    accepts(&server, &rsa_token(&json!({"alg": "RS256", "typ": "JWT", "kid": "rsa"}), &claims()));
}

#[test]
fn alg_none_is_refused() {
    let server = server();
    let forged = |alg: &str, signature: &[u8]| {
        let message = unsigned(&with(header(), "alg", json!(alg)), &claims().to_string());
        joined(&message, signature)
    };
    refuses(
        &server,
        &[
            ("none", forged("none", b"")),
            ("None", forged("None", b"")),
            ("NONE with a signature", forged("NONE", b"x")),
            ("empty", forged("", b"")),
            ("missing", token(&with(header(), "alg", Value::Null), &claims())),
        ],
    );
}

#[test]
fn hs256_with_the_public_key_as_the_secret_is_refused() {
    let server = server();
    let der = RSA.public_key().as_der().unwrap();
    let text = STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
    let secrets: [(&str, &[u8]); 6] = [
        ("PKCS1", RSA.public_key().as_ref()),
        ("DER", der.as_ref()),
        ("PEM", pem.as_bytes()),
        ("JWK", &rsa_jwk().to_string().into_bytes()),
        ("JWKS", &all_keys().into_bytes()),
        ("point", EC.public_key().as_ref()),
    ];
    let mut tokens = Vec::new();
    for (what, secret) in secrets {
        for kid in ["rsa", "ec"] {
            let header = json!({"alg": "HS256", "typ": "JWT", "kid": kid});
            let message = unsigned(&header, &claims().to_string());
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            tokens.push((what, joined(&message, hmac::sign(&key, message.as_bytes()).as_ref())));
        }
    }
    refuses(&server, &tokens);
}

#[test]
fn kid_swapped_missing_or_a_path_is_refused() {
    let server = server();
    let named = |kid: Value| token(&with(header(), "kid", kid), &claims());
    refuses(
        &server,
        &[
            ("another key of the set", named(json!("other"))),
            ("a key of another type", named(json!("rsa"))),
            ("missing, and two keys fit", named(Value::Null)),
            ("a path", named(json!("../../../../dev/null"))),
            ("an absolute path", named(json!("/proc/self/environ"))),
            ("a URL", named(json!("http://127.0.0.1:1/jwks.json"))),
            ("a query", named(json!("x' UNION SELECT 'ec"))),
            ("with NUL", named(json!("ec\0"))),
            ("a list", named(json!(["ec"]))),
            ("empty", named(json!(""))),
        ],
    );
}

#[test]
fn keys_that_a_token_brings_along_are_not_used() {
    let server = server();
    let mine = ec_key();
    let by = |name: &str, value: Value, kid: &str| {
        let header = with(with(header(), name, value), "kid", json!(kid));
        signed_by(&mine, &header, &claims().to_string())
    };
    refuses(
        &server,
        &[
            ("nothing", signed_by(&mine, &header(), &claims().to_string())),
            ("jwk", by("jwk", ec_jwk(&mine, "mine"), "mine")),
            ("jwk with the name of a key", by("jwk", ec_jwk(&mine, "ec"), "ec")),
            ("jku", by("jku", json!("http://127.0.0.1:1/jwks"), "mine")),
            ("x5u", by("x5u", json!("http://127.0.0.1:1/cert"), "mine")),
        ],
    );
}

#[test]
fn wrong_audience_and_issuer_are_refused() {
    let server = server();
    let claiming = |name, value| token(&header(), &with(claims(), name, value));
    refuses(
        &server,
        &[
            ("aud of others", claiming("aud", json!("mail.example"))),
            ("aud of others, a list", claiming("aud", json!(["mail.example", ISSUER]))),
            ("no aud", claiming("aud", Value::Null)),
            ("aud that begins like ours", claiming("aud", json!("mqtt.example.evil.example"))),
            ("aud as an object", claiming("aud", json!({"mqtt.example": 1}))),
            ("iss of others", claiming("iss", json!("https://evil.example"))),
            ("iss with a slash", claiming("iss", json!("https://as.example/"))),
            ("no iss", claiming("iss", Value::Null)),
            ("iss as a list", claiming("iss", json!([ISSUER]))),
        ],
    );
}

#[test]
fn outdated_tokens_and_times_that_are_none_are_refused() {
    let server = server();
    let claiming = |name, value| token(&header(), &with(claims(), name, value));
    let endless = |exp: &str| {
        let text = with(claims(), "exp", json!("EXP")).to_string().replace("\"EXP\"", exp);
        signed_by(&EC, &header(), &text)
    };
    refuses(
        &server,
        &[
            ("expired", claiming("exp", json!(now_s() - 1))),
            ("expired long ago", claiming("exp", json!(0))),
            ("nbf in the future", claiming("nbf", json!(now_s() + 600))),
            ("iat in the future", claiming("iat", json!(now_s() + 600))),
            ("no exp", claiming("exp", Value::Null)),
            ("exp as text", claiming("exp", json!((now_s() + 600).to_string()))),
            ("exp negative", endless("-1")),
            ("exp most negative", endless("-9223372036854775808")),
            ("exp of 64 bits", endless("18446744073709551615")),
            ("exp beyond 64 bits", endless("18446744073709551616")),
            ("exp huge", endless("1e300")),
            ("exp after the year 9999", endless("253402300800")),
            ("exp with a fraction", endless("4000000000.5")),
            ("exp as a list", endless("[4000000000]")),
            ("exp true", endless("true")),
        ],
    );
}

#[test]
fn crit_and_types_of_other_protocols_are_refused() {
    let server = server();
    let heading = |name, value| token(&with(header(), name, value), &claims());
    refuses(
        &server,
        &[
            ("crit", heading("crit", json!(["exp"]))),
            ("crit that is empty", heading("crit", json!([]))),
            ("b64", heading("b64", json!(false))),
            ("zip", heading("zip", json!("DEF"))),
            ("typ of an identity's logout", heading("typ", json!("logout+jwt"))),
            ("typ of a proof", heading("typ", json!("dpop+jwt"))),
            ("no typ", heading("typ", Value::Null)),
        ],
    );
}

#[test]
fn tokens_that_were_tampered_with_are_refused() {
    let server = server();
    let good = token(&header(), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let admin = unsigned(&header(), &with(claims(), "sub", json!("admin")).to_string());
    let twice = claims().to_string().replacen('{', "{\"sub\":\"admin\",", 1);
    refuses(
        &server,
        &[
            ("claims of another", format!("{admin}.{signature}")),
            ("no signature", format!("{message}.")),
            ("a signature of zeros", joined(message, &[0; 64])),
            ("signed by the other key", signed_by(&OTHER, &header(), &claims().to_string())),
            ("padded", format!("{good}=")),
            ("a name twice", signed_by(&EC, &header(), &twice)),
            ("four parts", format!("{good}.{signature}")),
            ("no name", token(&header(), &with(claims(), "sub", Value::Null))),
            ("a name with NUL", token(&header(), &with(claims(), "sub", json!("ann\0")))),
        ],
    );
}

/// In WebSocket's `Authorization` it is too long for HTTP already.
#[test]
fn a_token_that_is_too_long_is_refused() {
    let server = server();
    let token = token(&header(), &with(claims(), "x", json!("x".repeat(9000))));
    for carrier in [Carrier::Password, Carrier::Method] {
        let (_, got) = carrier.present(&server, &token, "c");
        assert_eq!(got, refused(ReasonCode::NotAuthorized), "{carrier:?}");
    }
}

#[test]
fn a_client_is_whom_its_token_names_whatever_the_user_name_says() {
    let server = server();
    let good = scoped("mqtt:sub:dev/%u/#", now_s() + 60);
    let connect = login("admin", good.as_bytes(), "c");
    let (mut link, got) = Link::connect(&server, connect);
    assert_eq!(got, welcome(false));
    assert_eq!(link.subscribe("dev/ann/x"), 1);
    assert_eq!(link.subscribe("dev/admin/x"), ReasonCode::NotAuthorized as u8);
}

#[test]
fn scopes_hold() {
    let server = server();
    let scope = "mqtt:pub:a/+/state mqtt:sub:a/# mqtt:sub:dev/%c/#";
    let (mut link, _) = Carrier::Password.present(&server, &scoped(scope, now_s() + 60), "c");
    let denied = ReasonCode::NotAuthorized as u8;
    for (filter, code) in [
        ("a/#", 1),
        ("a/b/state", 1),
        ("$share/group/a/+", 1),
        ("dev/c/x", 1),
        ("#", denied),
        ("+/b", denied),
        ("b", denied),
        ("dev/#", denied),
        ("dev/d/x", denied),
        ("$share/group/#", denied),
        ("$share/group/b", denied),
        ("$SYS/#", denied),
    ] {
        assert_eq!(link.subscribe(filter), code, "{filter}");
    }
    assert_eq!(link.publish("a/x/state", b"1", false), ReasonCode::Success);
    for topic in ["a/x", "a", "a/x/y/state", "b", "dev/c/x", "A/x/state"] {
        assert_eq!(link.publish(topic, b"1", true), ReasonCode::NotAuthorized, "{topic}");
    }
}

#[test]
fn a_client_id_does_not_widen_scopes() {
    let server = server();
    let scope = "mqtt:pub:dev/%c/x mqtt:sub:dev/%c/x";
    for client_id in ["+", "#", "c/x/../y", "c/+", "$SYS"] {
        let token = scoped(scope, now_s() + 60);
        let (mut link, _) = Carrier::Password.present(&server, &token, client_id);
        for filter in ["dev/#", "dev/+/x", "dev/other/x", "#"] {
            assert_eq!(link.subscribe(filter), ReasonCode::NotAuthorized as u8, "{client_id}");
        }
        let reason = link.publish("dev/other/x", b"1", false);
        assert_eq!(reason, ReasonCode::NotAuthorized, "{client_id}");
    }
}

#[test]
fn a_token_that_says_nothing_of_mqtt_permits_nothing() {
    let server = server();
    for claims in [
        with(claims(), "scope", Value::Null),
        with(claims(), "scope", json!("openid profile")),
        with(claims(), "scope", json!("mqtt:publish:# mqtt:pub: MQTT:PUB:#")),
    ] {
        let (mut link, got) = Carrier::Password.present(&server, &token(&header(), &claims), "c");
        assert_eq!(got, welcome(false), "{claims}");
        assert_eq!(link.subscribe("a"), ReasonCode::NotAuthorized as u8);
        assert_eq!(link.publish("a", b"1", false), ReasonCode::NotAuthorized);
    }
}
