//! The HTTP hook: what its service says, and what becomes of clients when it says nothing.

use serde_json::{Value, json};
use whimbrel_codec::{Connect, Packet, ReasonCode, Version};

use super::link::{Got, Link, login, refused, welcome};
use super::server::{LISTENER, Server};
use super::web::{Answer, Web};

const PLACE: &str = "/auth";
const PASSWORD: &str = "eiJoo8chahph";
const SECRET: &str = "Bearer Aeghoo2aefeiD8ai";

fn says(web: &Web, answer: &Value) {
    web.put(PLACE, Answer::Json(answer.to_string()));
}

/// With these further keys of `[http]`.
fn server(web: &Web, keys: &str) -> Server {
    let config = format!(
        "{LISTENER}\n[http]\nurl = \"{}\"\nauthorization_file = \"{{folder}}/secret\"\n{keys}\n",
        web.url(PLACE)
    );
    Server::start(&config, &[("secret", SECRET)])
}

fn try_login(server: &Server, client_id: &str) -> (Link, Got) {
    Link::connect(server, login("ann", PASSWORD.as_bytes(), client_id))
}

fn assert_no_secret(server: &Server) {
    let log = server.log();
    assert!(!log.contains(PASSWORD), "a password in the log");
    assert!(!log.contains(SECRET), "the secret of the hook in the log");
}

#[test]
fn allowed_with_a_name_and_permissions() {
    let web = Web::start();
    let permissions = json!([
        {"action": "publish", "filter": "out/%u/#", "qos": 1, "retain": false},
        {"action": "subscribe", "filter": "in/#"},
    ]);
    says(&web, &json!({"result": "allow", "user": "device-7", "permissions": permissions}));
    let server = server(&web, "");
    let (mut link, got) = try_login(&server, "c");
    assert_eq!(got, welcome(false), "{}", server.log());
    assert_eq!(link.subscribe("in/x"), 1);
    assert_eq!(link.subscribe("#"), ReasonCode::NotAuthorized as u8);
    assert_eq!(link.publish("out/device-7/x", b"1", false), ReasonCode::NoMatchingSubscribers);
    for (topic, retain) in [("out/ann/x", false), ("in/x", false), ("out/device-7/x", true)] {
        assert_eq!(link.publish(topic, b"1", retain), ReasonCode::NotAuthorized, "{topic}");
    }
    let request = &web.requests(PLACE)[0];
    assert_eq!(request.headers["authorization"], SECRET);
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body["user_name"], "ann");
    assert_eq!(body["password"], PASSWORD);
    assert_eq!(body["client_id"], "c");
    assert_eq!(body["address"], "127.0.0.1");
    assert_no_secret(&server);
}

#[test]
fn groups_come_under_the_rules() {
    let web = Web::start();
    says(&web, &json!({"result": "allow", "groups": ["ops"]}));
    let config = format!(
        "rules_file = \"{{folder}}/rules.toml\"\n{LISTENER}\n[http]\nurl = \"{}\"\n",
        web.url(PLACE)
    );
    let rules = "[[rule]]\nallow = \"subscribe\"\ntopics = \"plant/#\"\ngroup = \"ops\"\n";
    let server = Server::start(&config, &[("rules.toml", rules)]);
    let (mut link, _) = try_login(&server, "c");
    assert_eq!(link.subscribe("plant/1"), 1);
    says(&web, &json!({"result": "allow", "groups": ["guests"]}));
    let (mut link, _) = try_login(&server, "d");
    assert_eq!(link.subscribe("plant/1"), ReasonCode::NotAuthorized as u8);
}

#[test]
fn answers_that_are_no_yes_refuse() {
    let web = Web::start();
    let server = server(&web, "max_failures = 1000");
    let (not_authorized, unavailable) = (ReasonCode::NotAuthorized, ReasonCode::ServerUnavailable);
    for (answer, reason) in [
        (Answer::Json(json!({"result": "deny"}).to_string()), not_authorized),
        (Answer::Json(json!({"result": "ignore"}).to_string()), not_authorized),
        (Answer::Json(json!({"result": "Allow"}).to_string()), unavailable),
        (Answer::Json(json!({"result": true}).to_string()), unavailable),
        (Answer::Json(json!({"allow": true}).to_string()), unavailable),
        (Answer::Json(json!({"result": "allow", "user": "a\0b"}).to_string()), unavailable),
        (Answer::Json(json!({"result": "allow", "user": 1}).to_string()), unavailable),
        (Answer::Json(json!({"result": "allow", "permissions": "#"}).to_string()), unavailable),
        (Answer::Json(String::new()), unavailable),
        (Answer::Json("x".repeat(2 << 20)), unavailable),
        (Answer::Status(204), unavailable),
        (Answer::Status(302), unavailable),
        (Answer::Status(500), unavailable),
        (Answer::Down, unavailable),
    ] {
        let what = match &answer {
            Answer::Json(text) => text.chars().take(80).collect(),
            Answer::Status(status) => status.to_string(),
            _ => "down".into(),
        };
        web.put(PLACE, answer);
        assert_eq!(try_login(&server, "c").1, refused(reason), "{what}");
    }
    assert_no_secret(&server);
}

#[test]
fn who_shows_nothing_is_asked_about_as_well() {
    let web = Web::start();
    says(&web, &json!({"result": "deny"}));
    let server = server(&web, "");
    let (_, got) = Link::connect(&server, Connect::new(Version::V5, "c"));
    assert_eq!(got, refused(ReasonCode::NotAuthorized));
    assert_eq!(web.count(PLACE), 1);
}

#[test]
fn a_slow_service_refuses_and_holds_up_nobody_else() {
    let web = Web::start();
    says(&web, &json!({"result": "allow"}));
    let server = server(&web, "timeout_ms = 1000");
    let (mut others, _) = try_login(&server, "others");
    web.put(PLACE, Answer::Silence);
    // More than there are threads that ask.
    let waiting: Vec<Link> = (0..20)
        .map(|number| {
            let mut link = Link::open(&server);
            let client_id = format!("waits {number}");
            link.send(&Packet::Connect(login("ann", PASSWORD.as_bytes(), &client_id)));
            link
        })
        .collect();
    assert_eq!(others.subscribe("a"), 1);
    let start = std::time::Instant::now();
    while web.count(PLACE) < 2 {
        assert!(start.elapsed() < super::support::PATIENCE, "nobody was asked about");
        std::thread::yield_now();
    }
    // Whole rounds through the broker while all of its threads that ask wait.
    for _ in 0..100 {
        let message = Got::Publish { topic: "a".into(), payload: b"x".into() };
        others.send(&Packet::Publish(whimbrel_codec::Publish::new("a", b"x")));
        assert_eq!(others.next(), message);
    }
    for mut link in waiting {
        assert_eq!(link.next(), refused(ReasonCode::ServerUnavailable));
    }
    assert!(others.is_quiet());
}

#[test]
fn a_service_that_fails_is_not_asked_for_a_while() {
    let web = Web::start();
    web.put(PLACE, Answer::Status(500));
    let server = server(&web, "max_failures = 3\npause_s = 3600");
    for _ in 0..10 {
        assert_eq!(try_login(&server, "c").1, refused(ReasonCode::ServerUnavailable));
    }
    assert_eq!(web.count(PLACE), 3);
    // Nobody comes in just because it is not asked.
    says(&web, &json!({"result": "allow"}));
    assert_eq!(try_login(&server, "c").1, refused(ReasonCode::ServerUnavailable));
    assert_eq!(web.count(PLACE), 3);
}

#[test]
fn a_service_that_is_there_again_is_asked_again() {
    let web = Web::start();
    web.put(PLACE, Answer::Down);
    let server = server(&web, "max_failures = 1\npause_s = 1");
    assert_eq!(try_login(&server, "c").1, refused(ReasonCode::ServerUnavailable));
    says(&web, &json!({"result": "allow"}));
    let start = std::time::Instant::now();
    while try_login(&server, "c").1 != welcome(false) {
        assert!(start.elapsed() < super::support::PATIENCE, "still refused");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn answers_are_kept_for_the_same_question_alone() {
    let web = Web::start();
    says(&web, &json!({"result": "allow", "cache_s": 3600}));
    let server = server(&web, "");
    for _ in 0..3 {
        assert_eq!(try_login(&server, "c").1, welcome(false));
    }
    assert_eq!(web.count(PLACE), 1);
    says(&web, &json!({"result": "deny"}));
    // Another client, and the same with another password, is another question.
    assert_eq!(try_login(&server, "d").1, refused(ReasonCode::NotAuthorized));
    let (_, got) = Link::connect(&server, login("ann", b"guessed", "c"));
    assert_eq!(got, refused(ReasonCode::NotAuthorized));
    assert_eq!(try_login(&server, "c").1, welcome(false));
    assert_eq!(web.count(PLACE), 3);
}

#[test]
fn nothing_is_kept_unless_that_is_said() {
    let web = Web::start();
    says(&web, &json!({"result": "allow"}));
    let server = server(&web, "");
    assert_eq!(try_login(&server, "c").1, welcome(false));
    says(&web, &json!({"result": "deny"}));
    assert_eq!(try_login(&server, "c").1, refused(ReasonCode::NotAuthorized));
}

#[test]
fn what_the_service_lets_in_for_a_while_ends() {
    let web = Web::start();
    says(&web, &json!({"result": "allow", "expires_in_s": 1, "cache_s": 3600}));
    let server = server(&web, "");
    let (mut link, got) = try_login(&server, "c");
    assert_eq!(got, welcome(false));
    assert_eq!(link.next(), Got::Disconnect(ReasonCode::NotAuthorized));
    says(&web, &json!({"result": "deny"}));
    assert_eq!(try_login(&server, "c").1, refused(ReasonCode::NotAuthorized));
}
