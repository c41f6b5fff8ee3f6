//! Opaque tokens, which only their issuer knows.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use whimbrel_codec::{Connect, Properties, Property, ReasonCode, Version};

use super::issuer::{AUDIENCE, Carrier, ISSUER, METHOD, config, now_s, with};
use super::link::{Got, Link, refused, welcome};
use super::server::Server;
use super::support::PATIENCE;
use super::web::{Answer, Web};

const PLACE: &str = "/introspect";
const TOKEN: &str = "aiYee3zohlohqu8eeK9Ahraeth2ohph4";
const SECRET: &str = "ohThe7ohwahxieQu9aer";

fn answer() -> Value {
    json!({
        "active": true, "iss": ISSUER, "aud": AUDIENCE, "sub": "ann",
        "exp": now_s() + 3600, "scope": "mqtt:sub:#", "token_type": "Bearer",
    })
}

fn says(web: &Web, answer: &Value) {
    web.put(PLACE, Answer::Json(answer.to_string()));
}

fn server(web: &Web, cache_s: u32) -> Server {
    let url = web.url(PLACE);
    let asked = format!(
        "only_opaque = true\nretry_s = 1\n[token.introspection]\nurl = \"{url}\"\nclient_id = \"broker\"\n\
         client_secret_file = \"{{folder}}/secret\"\ncache_s = {cache_s}\nnegative_cache_s = 0\n"
    );
    Server::start(&config(&asked), &[("secret", SECRET)])
}

fn assert_no_secret(server: &Server) {
    let log = server.log();
    assert!(!log.contains(TOKEN) && !log.contains(SECRET), "a secret in the log");
}

#[test]
fn an_active_token_comes_in_by_each_carrier_and_is_asked_about_once() {
    let web = Web::start();
    says(&web, &answer());
    let server = server(&web, 3600);
    for carrier in Carrier::ALL {
        let (mut link, got) = carrier.present(&server, TOKEN, "c");
        assert_eq!(got, welcome(false), "{carrier:?}: {}", server.log());
        assert_eq!(link.subscribe("a"), 1);
    }
    assert_eq!(web.count(PLACE), 1);
    assert_no_secret(&server);
}

#[test]
fn answers_that_are_no_yes_refuse() {
    let web = Web::start();
    let server = server(&web, 0);
    let changed = |name: &str, value: Value| with(answer(), name, value).to_string();
    let (not_authorized, unavailable) = (ReasonCode::NotAuthorized, ReasonCode::ServerUnavailable);
    for (reply, reason) in [
        (Answer::Json("{\"active\":false}".into()), not_authorized),
        (Answer::Json(changed("iss", json!("https://evil.example"))), not_authorized),
        (Answer::Json(changed("aud", json!("mail.example"))), not_authorized),
        (Answer::Json(changed("aud", Value::Null)), not_authorized),
        (Answer::Json(changed("exp", json!(now_s() - 1))), not_authorized),
        (Answer::Json(changed("exp", json!(-1))), not_authorized),
        (Answer::Json(changed("exp", json!("4000000000"))), not_authorized),
        (Answer::Json(changed("nbf", json!(now_s() + 600))), not_authorized),
        (Answer::Json(changed("token_type", json!("id_token"))), not_authorized),
        (Answer::Json(changed("sub", Value::Null)), not_authorized),
        (Answer::Json(changed("active", json!("true"))), unavailable),
        (Answer::Json(changed("active", json!(1))), unavailable),
        (Answer::Json(changed("active", Value::Null)), unavailable),
        (Answer::Json("<html>".into()), unavailable),
        (Answer::Json("x".repeat(2 << 20)), unavailable),
        (Answer::Status(401), unavailable),
        (Answer::Status(302), unavailable),
        (Answer::Down, unavailable),
    ] {
        let what = match &reply {
            Answer::Json(text) => text.chars().take(200).collect(),
            Answer::Status(status) => status.to_string(),
            _ => "down".into(),
        };
        web.put(PLACE, reply);
        let (_, got) = Carrier::Method.present(&server, TOKEN, "c");
        assert_eq!(got, refused(reason), "{what}");
    }
    assert_no_secret(&server);
}

#[test]
fn a_token_that_is_revoked_ends_the_connection() {
    let web = Web::start();
    says(&web, &answer());
    let server = server(&web, 1);
    let (mut link, got) = Carrier::Method.present(&server, TOKEN, "c");
    assert_eq!(got, welcome(false));
    let asked = web.count(PLACE);
    says(&web, &json!({"active": false}));
    assert_eq!(link.next(), Got::Disconnect(ReasonCode::NotAuthorized));
    assert_eq!(link.next(), Got::Closed);
    assert!(web.count(PLACE) > asked);
    server.wait_for_log("its token holds no longer");
    let (_, got) = Carrier::Method.present(&server, TOKEN, "c");
    assert_eq!(got, refused(ReasonCode::NotAuthorized));
    assert_no_secret(&server);
}

#[test]
fn a_token_whose_rights_change_or_that_cannot_be_asked_about_ends_the_connection() {
    let less = with(answer(), "scope", json!("mqtt:sub:a"));
    let other = with(answer(), "sub", json!("bob"));
    let replies = [Answer::Json(less.to_string()), Answer::Json(other.to_string()), Answer::Down];
    for reply in replies {
        let web = Web::start();
        says(&web, &answer());
        let server = server(&web, 1);
        let (mut link, _) = Carrier::Password.present(&server, TOKEN, "c");
        web.put(PLACE, reply);
        assert_eq!(link.next(), Got::Disconnect(ReasonCode::NotAuthorized));
    }
}

#[test]
fn nobody_is_asked_about_a_token_whose_client_has_gone() {
    let web = Web::start();
    says(&web, &answer());
    let server = server(&web, 1);
    let list = [
        Property::AuthenticationMethod(METHOD),
        Property::AuthenticationData(TOKEN.as_bytes()),
        Property::SessionExpiryIntervalS(600),
    ];
    let connect = Connect { properties: Properties::new(&list), ..Connect::new(Version::V5, "c") };
    let (link, got) = Link::connect(&server, connect);
    assert_eq!(got, welcome(false));
    drop(link);
    // Another client shows how often there was time to ask.
    let other = Web::start();
    says(&other, &answer());
    let clock = self::server(&other, 1);
    let (_link, _) = Carrier::Method.present(&clock, TOKEN, "c");
    let start = Instant::now();
    while other.count(PLACE) < 5 {
        assert!(start.elapsed() < PATIENCE, "asked {} times", other.count(PLACE));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(web.count(PLACE) <= 2, "asked {} times", web.count(PLACE));
}

#[test]
fn an_issuer_that_does_not_answer_is_not_asked_for_a_while() {
    let web = Web::start();
    says(&web, &answer());
    let server = server(&web, 1);
    web.put(PLACE, Answer::Down);
    for number in 0..20 {
        let (_, got) = Carrier::Method.present(&server, &format!("{TOKEN}{number}"), "c");
        assert_eq!(got, refused(ReasonCode::ServerUnavailable));
    }
    assert!(web.count(PLACE) < 20, "asked {} times", web.count(PLACE));
    says(&web, &answer());
    let start = Instant::now();
    while Carrier::Method.present(&server, TOKEN, "c").1 != welcome(false) {
        assert!(start.elapsed() < PATIENCE, "it is asked no more");
        std::thread::sleep(Duration::from_millis(50));
    }
}
