//! Files that change while the broker runs.

use whimbrel_codec::{Connect, Properties, Property, ReasonCode};

use super::link::{Got, Link, login, refused, welcome};
use super::passwords::password_file;
use super::server::{LISTENER, Server};

const ALL: &str = "[[rule]]\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"#\"]\n";
const LESS: &str = "[[rule]]\nallow = [\"publish\", \"subscribe\"]\ntopics = [\"public/#\"]\n";

fn server() -> Server {
    let config = format!(
        "password_file = \"{{folder}}/users\"\nrules_file = \"{{folder}}/rules.toml\"\n{LISTENER}"
    );
    let users = password_file(&[("ann", "a", &[])]);
    Server::start(&config, &[("users", &users), ("rules.toml", ALL)])
}

#[test]
fn a_file_that_changes_is_read_without_a_signal() {
    let server = server();
    let mut ann = Link::login(&server, "ann", b"a", "c");
    server.write("users", &password_file(&[("ann", "a", &[]), ("bob", "b", &[])]));
    server.wait_for_log("were read again");
    Link::login(&server, "bob", b"b", "c");
    assert!(ann.is_quiet(), "nobody was disconnected");
}

#[test]
fn a_fault_in_a_file_leaves_everything_as_it_was() {
    let server = server();
    let mut ann = Link::login(&server, "ann", b"a", "c");
    for (name, text) in [("users", "no colon in it\n"), ("rules.toml", "[[rule]]\nwhat = 1\n")] {
        server.write(name, text);
        server.broker.signal("HUP");
        server.wait_for_log("not reloaded");
    }
    Link::login(&server, "ann", b"a", "d");
    assert_eq!(ann.publish("anything", b"x", false), ReasonCode::NoMatchingSubscribers);
}

#[test]
fn queued_messages_and_subscriptions_come_under_the_new_rules() {
    let server = server();
    let session = [Property::SessionExpiryIntervalS(600)];
    let properties = Properties::new(&session);
    let kept = Connect { properties, clean_start: false, ..login("ann", b"a", "c") };
    let (mut ann, _) = Link::connect(&server, kept);
    assert_eq!(ann.subscribe("#"), 1);
    assert_eq!(ann.subscribe("public/#"), 1);
    drop(ann);
    let mut other = Link::login(&server, "ann", b"a", "other");
    // Until the broker has seen that she went, it would send instead of queue; they wait anyway.
    assert_eq!(other.publish("private/x", b"1", false), ReasonCode::Success);
    server.write("rules.toml", LESS);
    server.reload();
    assert_eq!(other.publish("private/x", b"2", false), ReasonCode::NotAuthorized);
    assert_eq!(other.publish("public/x", b"3", false), ReasonCode::Success);
    let (mut ann, got) = Link::connect(&server, kept);
    assert_eq!(got, welcome(true));
    let Got::Publish { topic, .. } = ann.next() else { panic!("nothing came") };
    assert_eq!(topic, "public/x");
    assert!(ann.is_quiet());
}

#[test]
fn a_user_who_is_taken_out_comes_in_no_more() {
    let server = server();
    server.write("users", &password_file(&[("bob", "b", &[])]));
    server.reload();
    let (_, got) = Link::connect(&server, login("ann", b"a", "c"));
    assert_eq!(got, refused(ReasonCode::BadUserNameOrPassword));
}
