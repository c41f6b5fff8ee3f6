//! Guessing passwords.

use whimbrel_codec::ReasonCode;

use super::link::{Got, Link, login, refused, welcome};
use super::passwords::password_file;
use super::server::{LISTENER, Server};

fn server(limits: &str) -> Server {
    let config = format!(
        "password_file = \"{{folder}}/users\"\n[limits]\nban_loopback = true\n{limits}\n{LISTENER}"
    );
    let users = password_file(&[("ann", "right", &[]), ("bob", "other", &[])]);
    Server::start(&config, &[("users", &users)])
}

#[test]
fn who_guesses_a_password_is_not_told_when_it_is_right() {
    let server = server("max_failed_logins = 3");
    for guess in [&b"guess-1"[..], b"guess-2", b"guess-3"] {
        let (_, got) = Link::connect(&server, login("ann", guess, "c"));
        assert_eq!(got, refused(ReasonCode::BadUserNameOrPassword));
    }
    for password in [&b"right"[..], b"guess-4"] {
        let (_, got) = Link::connect(&server, login("ann", password, "c"));
        assert_eq!(got, refused(ReasonCode::Banned));
    }
    // Who shares the address is not shut out.
    assert_eq!(Link::connect(&server, login("bob", b"other", "c")).1, welcome(false));
    server.wait_for_log("banned for 60 s: too many failed logins");
    let log = server.log();
    assert_eq!(log.matches("banned for 60 s").count(), 1, "{log}");
    assert!(!log.contains("guess") && !log.contains("right"), "{log}");
}

#[test]
fn who_tries_many_names_is_turned_away_before_anything_is_spent_on_it() {
    let server = server("max_failed_logins_per_address = 5\nban_s = 600");
    let mut inside = Link::login(&server, "ann", b"right", "c");
    for at in 0..5 {
        let (_, got) = Link::connect(&server, login(&format!("user-{at}"), b"x", "c"));
        assert_eq!(got, refused(ReasonCode::BadUserNameOrPassword));
    }
    let (_, got) = Link::connect(&server, login("bob", b"other", "c"));
    assert_eq!(got, Got::Closed);
    inside.bytes(&[0xc0, 0]);
    assert_eq!(inside.next(), Got::PingResp, "who was let in before stays");
}
