//! Certificates of clients, and files that change while clients are connected.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::{HandshakeKind, version};

use crate::setup::{
    Certs, Trickle, VERSIONS, broker, expect_line, listener, logged_broker, socket, tls, tls_on,
};
use crate::support::{outcome, publish, whimbrel};

#[test]
fn certificates_are_required_optional_or_off() {
    let certs = Certs::new(&["alice"]);
    let strangers = Certs::new(&["mallory"]);
    for (wanted, nobody, stranger) in
        [("required", false, false), ("optional", true, false), ("off", true, true)]
    {
        let table = if wanted == "off" { certs.table("") } else { certs.mutual(wanted) };
        let broker = broker(&table);
        for version in VERSIONS {
            tls(&broker, certs.client_config(version, Some("alice"))).connect("alice");
            let served = |name: Option<&str>| {
                let mut config = certs.client_config(version, None);
                if let Some(name) = name {
                    let other = strangers.client_config(version, Some(name));
                    config.client_auth_cert_resolver = other.client_auth_cert_resolver;
                }
                let mut client = tls(&broker, config);
                let sent = std::io::Write::write_all(&mut client.0, &crate::support::connect("x"));
                sent.is_ok() && std::io::Read::read(&mut client.0, &mut [0; 9]).is_ok_and(|n| n > 0)
            };
            assert_eq!(served(None), nobody, "{wanted}");
            assert_eq!(served(Some("mallory")), stranger, "{wanted}");
        }
    }
}

/// One is cut off at the reload, the other notices nothing; neither comes back by its ticket.
#[test]
fn a_revoked_client_is_cut_off_at_the_reload() {
    let certs = Certs::new(&["alice", "bob"]);
    let (broker, log) = logged_broker(&listener(&certs.mutual("required")));
    for version in VERSIONS {
        certs.make(&["--client", "bob"]);
        let configs =
            ["alice", "bob"].map(|name| Arc::new(certs.client_config(version, Some(name))));
        let [mut alice, mut bob] = configs
            .each_ref()
            .map(|config| tls_on(Trickle(socket(&broker.address("tls")), usize::MAX), config));
        alice.connect("alice");
        bob.connect("bob");
        alice.subscribe("t");
        certs.make(&["revoke", "bob"]);
        broker.signal("HUP");
        assert!(bob.is_closed(), "with close_notify");
        expect_line(&log, &["WARN", "closed after a reload: the client's certificate is revoked"]);
        alice.send(&publish("t", b"still here"));
        assert!(alice.packet().ends_with(b"still here"));
        let again = |config: &Arc<_>| {
            let mut client = tls_on(Trickle(socket(&broker.address("tls")), usize::MAX), config);
            let sent = std::io::Write::write_all(&mut client.0, &crate::support::connect("again"));
            let served = sent.is_ok()
                && std::io::Read::read(&mut client.0, &mut [0; 9]).is_ok_and(|n| n > 0);
            served.then(|| client.0.conn.handshake_kind()).flatten()
        };
        assert_eq!(again(&configs[0]), Some(HandshakeKind::Resumed));
        assert_eq!(again(&configs[1]), None);
        for file in ["bob.pem", "bob.key"] {
            std::fs::remove_file(certs.path(file)).expect("it is there");
        }
    }
}

#[test]
fn files_that_change_are_read_without_a_signal_and_faults_in_them_change_nothing() {
    let certs = Certs::new(&[]);
    let (broker, log) = logged_broker(&listener(&certs.table("")));
    let mut first = tls(&broker, certs.client_config(&version::TLS13, None));
    first.connect("first");
    first.subscribe("t");
    let shown = |broker: &_| {
        let mut client = tls(broker, certs.client_config(&version::TLS13, None));
        client.connect("another");
        client.0.conn.peer_certificates().expect("shown")[0].to_vec()
    };
    let before = shown(&broker);
    std::fs::write(certs.path("server.key"), "no key").expect("a file");
    broker.signal("HUP");
    expect_line(&log, &["ERROR", "not reloaded", "server.key: there is no private key in it"]);
    assert_eq!(shown(&broker), before);
    std::fs::remove_file(certs.path("server.key")).expect("it is there");
    certs.make(&[]);
    expect_line(&log, &["INFO", "certificates were read again"]);
    assert_ne!(shown(&broker), before);
    first.send(&publish("t", b"still here"));
    assert!(first.packet().ends_with(b"still here"));
}

#[test]
fn faults_in_files_are_told_at_the_start() {
    let certs = Certs::new(&["alice"]);
    let check = |table: &str| {
        let file = certs.path("whimbrel.toml");
        std::fs::write(&file, listener(table)).expect("a file");
        outcome(&mut whimbrel(&["--check-config", "--config", &file]))
    };
    assert_eq!(check(&certs.mutual("required")).0, Some(0));
    let missing = certs.table("").replace("server.pem", "none.pem");
    let (code, _, text) = check(&missing);
    assert_eq!(code, Some(2));
    assert!(text.contains("whimbrel.toml:1: cannot read ") && text.contains("none.pem"), "{text}");
    let (code, _, text) = check(&certs.table("").replace("server.key", "alice.key"));
    assert_eq!(code, Some(2));
    assert!(text.contains("alice.key: it is not the key of the certificate"), "{text}");
    let (code, _, text) = check(&certs.mutual("required").replace("ca.crl", "ca.pem"));
    assert_eq!(code, Some(2));
    assert!(text.contains("ca.pem: there is no revocation list in it"), "{text}");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(certs.path("server.key"), open).expect("a file");
    let (_broker, log) = logged_broker(&listener(&certs.table("")));
    expect_line(&log, &["WARN", "everybody may read the key", "chmod 600"]);
}
