//! rustls's client against a listener of MQTT over TLS.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{AlertDescription, Error, HandshakeKind, version};

use crate::setup::{Certs, Trickle, VERSIONS, broker, expect_line, listener, logged_broker};
use crate::setup::{socket, tls, tls_on};
use crate::support::{Client, connect, publish};

#[test]
fn a_client_is_served_however_its_bytes_are_torn() {
    let certs = Certs::new(&[]);
    let broker = broker(&certs.table(""));
    for version in VERSIONS {
        let config = Arc::new(certs.client_config(version, None));
        let mut client = tls_on(Trickle(socket(&broker.address("tls")), 1), &config);
        client.connect("one byte at a time");
        client.subscribe("t");
        client.send(&publish("t", b"hello"));
        assert!(client.packet().ends_with(b"hello"));
    }
}

/// A subscriber that does not read is owed more than its socket takes, and gets all of it.
#[test]
fn a_slow_reader_gets_all_there_is() {
    const MESSAGES: usize = 60;
    let certs = Certs::new(&[]);
    let broker = broker(&certs.table("[limits]\nmax_output_bytes = 100000000"));
    for version in VERSIONS {
        let mut subscriber = tls(&broker, certs.client_config(version, None));
        subscriber.connect("subscriber");
        subscriber.subscribe("t");
        let mut publisher = tls(&broker, certs.client_config(version, None));
        publisher.connect("publisher");
        let payload = |at: usize| {
            let len = if at.is_multiple_of(2) { 100_000 } else { 10 };
            (0..len).map(|n| (n * 7 + at) as u8).collect::<Vec<u8>>()
        };
        for at in 0..MESSAGES {
            publisher.send(&publish("t", &payload(at)));
        }
        for at in 0..MESSAGES {
            assert!(subscriber.packet().ends_with(&payload(at)), "message {at}");
        }
    }
}

#[test]
fn a_second_connection_resumes_the_session() {
    let certs = Certs::new(&["alice"]);
    let broker = broker(&certs.mutual("required"));
    for version in VERSIONS {
        let config = Arc::new(certs.client_config(version, Some("alice")));
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let stream = Trickle(socket(&broker.address("tls")), usize::MAX);
            let mut client = tls_on(stream, &config);
            client.connect("sleepy");
            assert_eq!(client.0.conn.handshake_kind(), Some(expected));
        }
    }
}

#[test]
fn foreign_protocols_are_refused_and_told() {
    let certs = Certs::new(&[]);
    let (broker, log) = logged_broker(&listener(&certs.table("")));
    let mut config = certs.client_config(&version::TLS13, None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = tls(&broker, config);
    let error = client.0.write_all(&connect("x")).expect_err("refused");
    let alert = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    assert!(error.to_string().contains(&alert.to_string()), "{error}");
    expect_line(&log, &["WARN", "refused: the client offers other protocols", "peer=127.0.0.1:"]);
    let mut config = certs.client_config(&version::TLS13, None);
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    tls(&broker, config).connect("x");
    let mut plain = Client(socket(&broker.address("tls")));
    plain.send(&connect("plain"));
    expect_line(&log, &["WARN", "refused: the bytes are no TLS, which this port speaks"]);
    // An alert comes before the end.
    let mut rest = Vec::new();
    plain.0.read_to_end(&mut rest).expect("it is closed");
    assert_eq!(rest.first(), Some(&21));
}

/// Also one whose handshake does not go on.
#[test]
fn a_connection_without_connect_is_closed_in_time() {
    let certs = Certs::new(&[]);
    let table = certs.table("[limits]\nconnect_timeout_s = 1");
    let broker = broker(&table);
    let hello_start = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    let raw = [&b""[..], &hello_start].map(|start| {
        let mut client = Client(socket(&broker.address("tls")));
        client.send(start);
        client
    });
    let mut silent = tls(&broker, certs.client_config(&version::TLS12, None));
    silent.0.flush().expect("a handshake");
    assert!(raw.map(|mut client| client.is_closed()).iter().all(|closed| *closed));
    assert!(silent.is_closed(), "with close_notify");
}

#[test]
fn a_client_learns_that_the_broker_goes() {
    let certs = Certs::new(&[]);
    let mut broker = broker(&certs.table(""));
    let mut clients = VERSIONS.map(|version| tls(&broker, certs.client_config(version, None)));
    for (client, id) in clients.iter_mut().zip(["a", "b"]) {
        client.connect(id);
    }
    broker.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.packet()[0], 0xe0, "DISCONNECT");
        // Without close_notify this is an error.
        assert_eq!(client.0.read(&mut [0]).expect("close_notify"), 0);
    }
    drop(clients);
    assert_eq!(broker.wait(), Some(0));
}
