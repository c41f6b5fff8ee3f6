//! A storm of logins while others work.

use std::time::Instant;

use whimbrel_codec::{Packet, ReasonCode};

use super::link::{Got, Link, login};
use super::passwords::password_file;
use super::server::{LISTENER, Server};

#[test]
fn messages_go_on_while_passwords_are_checked() {
    let config = format!("password_file = \"{{folder}}/users\"\n{LISTENER}");
    let users = password_file(&[("ann", "right", &[])]);
    let server = Server::start(&config, &[("users", &users)]);
    let mut ann = Link::login(&server, "ann", b"right", "c");
    assert_eq!(ann.subscribe("t"), 1);
    // Much more than a moment's work for the threads that check.
    let start = Instant::now();
    let mut storm: Vec<Link> = (0..60).map(|_| Link::open(&server)).collect();
    for (n, link) in storm.iter_mut().enumerate() {
        link.send(&Packet::Connect(login("ann", b"right", &format!("storm-{n}"))));
    }
    let mut rounds = 0;
    let mut slowest = std::time::Duration::ZERO;
    while rounds < 50 {
        let one = Instant::now();
        assert_eq!(ann.publish("t", b"x", false), ReasonCode::Success);
        slowest = slowest.max(one.elapsed());
        rounds += 1;
    }
    let traffic = start.elapsed();
    for link in &mut storm {
        assert!(matches!(link.next(), Got::ConnAck { reason: ReasonCode::Success, .. }));
    }
    let logins = start.elapsed();
    // Fifty round trips are over long before the logins are: they did not wait behind them.
    assert!(traffic < logins, "traffic took {traffic:?}, logins {logins:?}, slowest {slowest:?}");
}
