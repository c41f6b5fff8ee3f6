//! Passwords and SCRAM.

use whimbrel_auth::password::{FileEditor, Hash, NewUser};
use whimbrel_auth::scram::client::Client;
use whimbrel_auth::scram::{Mechanism, StoredKeys};
use whimbrel_codec::{Connect, Properties, Property, ReasonCode, Version};

use super::link::{Got, Link, login, refused, welcome};
use super::server::{LISTENER, Server};

/// A password file: name, password, groups.
pub fn password_file(users: &[(&str, &str, &[&str])]) -> String {
    let mut file = FileEditor::new("");
    for (name, password, groups) in users {
        let keys = |mechanism| StoredKeys::new(mechanism, password, b"salt of the test", 4096);
        let scram = [Mechanism::Sha256, Mechanism::Sha512].into_iter().filter_map(keys).collect();
        let groups = groups.iter().map(|group| (*group).into()).collect();
        let password = Hash::new(password.as_bytes(), [7; 16]);
        file.set(name, NewUser { password, scram, groups: Some(groups) }).unwrap();
    }
    file.text()
}

pub fn server() -> Server {
    let config = format!("password_file = \"{{folder}}/users\"\n{LISTENER}");
    let users = password_file(&[("ann", "right", &["staff"]), ("bob", "other", &[])]);
    Server::start(&config, &[("users", &users)])
}

const BAD: ReasonCode = ReasonCode::BadUserNameOrPassword;

#[test]
fn only_who_has_the_password_comes_in() {
    let server = server();
    Link::login(&server, "ann", b"right", "c");
    for (user, password) in [
        ("ann", &b"wrong"[..]),
        ("ann", b""),
        ("ann", b"right\0"),
        ("ann", b"RIGHT"),
        ("ann ", b"right"),
        ("Ann", b"right"),
        ("bob", b"right"),
        ("nobody", b"right"),
        ("", b"right"),
    ] {
        let (mut link, got) = Link::connect(&server, login(user, password, "c"));
        assert_eq!(got, refused(BAD), "{user:?} {password:?}");
        assert_eq!(link.next(), Got::Closed);
    }
    // Nobody without a name, and no name without a password.
    let (_, got) = Link::connect(&server, Connect::new(Version::V5, "c"));
    assert_eq!(got, refused(ReasonCode::NotAuthorized));
    let nameless = Connect { user_name: Some("ann"), ..Connect::new(Version::V5, "c") };
    assert_eq!(Link::connect(&server, nameless).1, refused(BAD));
}

#[test]
fn an_older_client_is_told_by_its_own_codes() {
    let server = server();
    for version in [Version::V3_1_1, Version::V3_1] {
        let good = Connect { version, ..login("ann", b"right", "c") };
        assert_eq!(Link::connect(&server, good).1, welcome(false));
        let bad = Connect { version, ..login("ann", b"wrong", "c") };
        assert_eq!(Link::connect(&server, bad).1, refused(BAD));
    }
}

/// What refusing a user some times costs the broker: unlike the time until the answer, that does
/// not depend on what else the machine does.
fn cost(server: &Server, user: &str, password: &[u8]) -> u64 {
    let before = server.cpu_ticks();
    for _ in 0..20 {
        assert_eq!(Link::connect(server, login(user, password, "c")).1, refused(BAD));
    }
    server.cpu_ticks() - before
}

#[test]
fn an_answer_takes_the_same_work_whether_a_user_is_there_or_not() {
    let config = format!(
        "password_file = \"{{folder}}/users\"\n[limits]\nmax_failed_logins = 0\n\
         max_failed_logins_per_address = 0\n{LISTENER}"
    );
    let server = Server::start(&config, &[("users", &password_file(&[("ann", "right", &[])]))]);
    let known = cost(&server, "ann", b"wrong");
    let unknown = cost(&server, "nobody", b"wrong");
    // A check takes milliseconds, an answer without one next to nothing.
    assert!(known > 10, "checks cost {known} ticks only: the test shows nothing");
    assert!(unknown * 2 > known && known * 2 > unknown, "{unknown} and {known} ticks");
}

/// Logs in by SCRAM as far as it goes.
fn scram(server: &Server, mechanism: Mechanism, user: &str, password: &str) -> (Link, Got) {
    let (client, first) = Client::new(mechanism, user, password, "rOprNGfwEbeRWgbNEkqO").unwrap();
    let method = mechanism.name();
    let list = [Property::AuthenticationMethod(method), Property::AuthenticationData(&first)];
    let properties = Properties::new(&list);
    let connect = Connect { properties, ..Connect::new(Version::V5, "c") };
    let (mut link, got) = Link::connect(server, connect);
    let Got::Auth(ReasonCode::ContinueAuthentication, challenge) = got else {
        return (link, got);
    };
    let (expectation, last) = client.answer(&challenge).unwrap();
    link.auth(ReasonCode::ContinueAuthentication, method, &last);
    let got = link.next();
    drop(expectation);
    (link, got)
}

#[test]
fn scram_lets_in_who_knows_the_password_and_nobody_else() {
    let server = server();
    for mechanism in [Mechanism::Sha256, Mechanism::Sha512] {
        assert_eq!(scram(&server, mechanism, "ann", "right").1, welcome(false));
        assert_eq!(scram(&server, mechanism, "ann", "wrong").1, refused(BAD));
        assert_eq!(scram(&server, mechanism, "nobody", "right").1, refused(BAD));
    }
}

#[test]
fn a_client_authenticates_again_by_scram_as_the_same_user_only() {
    let server = server();
    let mechanism = Mechanism::Sha256;
    for (user, password, good) in [("ann", "right", true), ("bob", "other", false)] {
        let (mut link, got) = scram(&server, mechanism, "ann", "right");
        assert_eq!(got, welcome(false));
        let (client, first) = Client::new(mechanism, user, password, "abcdefgh").unwrap();
        link.auth(ReasonCode::Reauthenticate, mechanism.name(), &first);
        let Got::Auth(ReasonCode::ContinueAuthentication, challenge) = link.next() else {
            panic!("no challenge")
        };
        let (_, last) = client.answer(&challenge).unwrap();
        link.auth(ReasonCode::ContinueAuthentication, mechanism.name(), &last);
        match link.next() {
            Got::Auth(ReasonCode::Success, _) if good => assert!(link.is_quiet()),
            Got::Disconnect(ReasonCode::NotAuthorized) if !good => {}
            other => panic!("{user}: {other:?}"),
        }
    }
}

#[test]
fn a_method_that_is_not_known_is_refused() {
    let server = server();
    let list = [Property::AuthenticationMethod("GS2-KRB5"), Property::AuthenticationData(b"x")];
    let properties = Properties::new(&list);
    let connect = Connect { properties, ..login("ann", b"right", "c") };
    assert_eq!(Link::connect(&server, connect).1, refused(ReasonCode::BadAuthenticationMethod));
}

#[test]
fn no_password_stands_in_the_log() {
    let server = server();
    Link::login(&server, "ann", b"right", "c");
    Link::connect(&server, login("ann", b"wr0ng-s3cret", "c"));
    Link::connect(&server, login("nobody", b"an0ther-s3cret", "c"));
    scram(&server, Mechanism::Sha256, "ann", "scr4m-s3cret");
    server.wait_for_log("nobody");
    server.write("users", "ann:$7$bad-s3cret\n");
    server.broker.signal("HUP");
    server.wait_for_log("not reloaded");
    let log = server.log();
    for line in ["refused", "user=\"ann\"", "user=\"nobody\""] {
        assert!(log.contains(line), "no {line} in {log}");
    }
    assert!(!log.contains("s3cret"), "{log}");
}

#[test]
fn a_session_is_its_users_alone() {
    let server = server();
    let session = [Property::SessionExpiryIntervalS(600)];
    let properties = Properties::new(&session);
    let kept = |user, password| Connect {
        properties,
        clean_start: false,
        ..login(user, password, "same")
    };
    let (mut ann, got) = Link::connect(&server, kept("ann", b"right"));
    assert_eq!(got, welcome(false));
    assert_eq!(ann.subscribe("t"), 1);
    let (mut bob, got) = Link::connect(&server, kept("bob", b"other"));
    assert_eq!(got, welcome(false));
    assert!(ann.is_quiet(), "she was not taken over");
    assert_eq!(bob.publish("t", b"x", false), ReasonCode::Success);
    assert!(matches!(ann.next(), Got::Publish { .. }));
    assert!(bob.is_quiet(), "he did not get her messages");
    let (_, got) = Link::connect(&server, kept("ann", b"right"));
    assert_eq!(got, welcome(true));
    assert_eq!(ann.next(), Got::Disconnect(ReasonCode::SessionTakenOver));
}
