//! Key sets that change, that cannot be had, and that are asked for too often.

use std::time::{Duration, Instant};

use serde_json::json;
use whimbrel_codec::ReasonCode;

use super::issuer::{
    Carrier, EC, ISSUER, OTHER, claims, config, ec_jwk, header, jwks, signed_by, token, with,
};
use super::link::{Got, refused, welcome};
use super::server::Server;
use super::support::PATIENCE;
use super::web::{Answer, Web};

/// Signed by the key that comes after.
fn newer() -> String {
    signed_by(&OTHER, &with(header(), "kid", json!("other")), &claims().to_string())
}

fn older() -> String {
    token(&header(), &claims())
}

fn login(server: &Server, token: &str) -> Got {
    Carrier::Method.present(server, token, "c").1
}

/// Logs in until the answer is this.
fn wait_for(server: &Server, token: &str, wanted: &Got) {
    let start = Instant::now();
    loop {
        let got = login(server, token);
        if got == *wanted {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "still {got:?}:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn one(key: serde_json::Value) -> Answer {
    Answer::Json(jwks(&[key]))
}

fn fetching(web: &Web, times: &str) -> Server {
    Server::start(&config(&format!("jwks_url = \"{}\"\n{times}", web.url("/jwks"))), &[])
}

#[test]
fn a_key_set_that_changes_on_disk_replaces_the_old_one() {
    let files = [("jwks.json", jwks(&[ec_jwk(&EC, "ec")]))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let server = Server::start(&config("jwks_file = \"{folder}/jwks.json\""), &files);
    let (mut connected, _) = Carrier::Method.present(&server, &older(), "stays");
    assert_eq!(login(&server, &newer()), refused(ReasonCode::NotAuthorized));
    server.write("jwks.json", &jwks(&[ec_jwk(&OTHER, "other")]));
    server.wait_for_log("were read again");
    assert_eq!(login(&server, &newer()), welcome(false));
    assert_eq!(login(&server, &older()), refused(ReasonCode::NotAuthorized));
    assert!(connected.is_quiet(), "nobody was disconnected");
    // What is no key set changes nothing.
    server.write("jwks.json", "<html>");
    server.broker.signal("HUP");
    server.wait_for_log("not reloaded");
    assert_eq!(login(&server, &newer()), welcome(false));
}

#[test]
fn an_unknown_kid_has_the_keys_fetched_once() {
    let web = Web::start();
    web.put("/jwks", one(ec_jwk(&EC, "ec")));
    let server = fetching(&web, "retry_s = 1");
    wait_for(&server, &older(), &welcome(false));
    assert_eq!(web.count("/jwks"), 1);
    web.put("/jwks", one(ec_jwk(&OTHER, "other")));
    wait_for(&server, &newer(), &welcome(false));
    assert_eq!(web.count("/jwks"), 2);
    assert_eq!(login(&server, &older()), refused(ReasonCode::NotAuthorized));
}

#[test]
fn a_flood_of_unknown_kids_fetches_nothing() {
    let web = Web::start();
    web.put("/jwks", one(ec_jwk(&EC, "ec")));
    let server = fetching(&web, "retry_s = 3600");
    wait_for(&server, &older(), &welcome(false));
    for number in 0..200 {
        let header = with(header(), "kid", json!(format!("made up {number}")));
        let forged = signed_by(&OTHER, &header, &claims().to_string());
        assert_eq!(login(&server, &forged), refused(ReasonCode::NotAuthorized));
    }
    assert_eq!(web.count("/jwks"), 1);
    assert_eq!(login(&server, &older()), welcome(false));
}

#[test]
fn old_keys_go_on_while_the_key_set_cannot_be_had() {
    let web = Web::start();
    web.put("/jwks", one(ec_jwk(&EC, "ec")));
    let server = fetching(&web, "refresh_s = 1\nretry_s = 1\nstale_s = 3600");
    wait_for(&server, &older(), &welcome(false));
    for answer in [Answer::Down, Answer::Status(500), Answer::Json("<html>".into())] {
        web.put("/jwks", answer);
        let before = server.log().matches("no new keys").count();
        let start = Instant::now();
        while server.log().matches("no new keys").count() == before {
            assert!(start.elapsed() < PATIENCE, "no warning:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(login(&server, &older()), welcome(false));
    }
}

#[test]
fn nobody_comes_in_with_keys_that_are_too_old() {
    let web = Web::start();
    web.put("/jwks", one(ec_jwk(&EC, "ec")));
    let server = fetching(&web, "refresh_s = 1\nretry_s = 1\nstale_s = 1");
    wait_for(&server, &older(), &welcome(false));
    web.put("/jwks", Answer::Down);
    wait_for(&server, &older(), &refused(ReasonCode::ServerUnavailable));
    assert_eq!(login(&server, &newer()), refused(ReasonCode::ServerUnavailable));
    web.put("/jwks", one(ec_jwk(&EC, "ec")));
    wait_for(&server, &older(), &welcome(false));
}

#[test]
fn nobody_comes_in_while_there_are_no_keys_yet() {
    let web = Web::start();
    web.put("/jwks", Answer::Down);
    let server = fetching(&web, "retry_s = 1");
    assert_eq!(login(&server, &older()), refused(ReasonCode::ServerUnavailable));
    web.put("/jwks", one(ec_jwk(&EC, "ec")));
    wait_for(&server, &older(), &welcome(false));
}

#[test]
fn a_set_without_keys_is_believed() {
    let web = Web::start();
    web.put("/jwks", one(ec_jwk(&EC, "ec")));
    let server = fetching(&web, "refresh_s = 1\nretry_s = 1\nstale_s = 3600");
    wait_for(&server, &older(), &welcome(false));
    web.put("/jwks", Answer::Json("{\"keys\":[]}".into()));
    wait_for(&server, &older(), &refused(ReasonCode::NotAuthorized));
}

#[test]
fn discovery_believes_only_the_issuers_own_document() {
    let web = Web::start();
    let issuer = web.url("");
    let claims = with(claims(), "iss", json!(issuer));
    let text = config("retry_s = 1").replace(ISSUER, &issuer);
    let server = Server::start(&text, &[]);
    web.put("/jwks", one(ec_jwk(&EC, "ec")));
    let place = "/.well-known/openid-configuration";
    let of_others = json!({"issuer": "https://evil.example", "jwks_uri": web.url("/jwks")});
    web.put(place, Answer::Json(of_others.to_string()));
    server.wait_for_log("`issuer` in the answer is not the configured one");
    let token = token(&header(), &claims);
    assert_eq!(login(&server, &token), refused(ReasonCode::ServerUnavailable));
    assert_eq!(web.count("/jwks"), 0);
    let own = json!({"issuer": issuer, "jwks_uri": web.url("/jwks")});
    web.put(place, Answer::Json(own.to_string()));
    wait_for(&server, &token, &welcome(false));
}
