//! The TLS layer against rustls's own client, in memory.

mod support;

use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, HandshakeKind};
use support::{Authority, Pair, Shape, client_config, keys, server_config, settings};
use whimbrel_transport::tls::{
    Certificate, ClientCertificates, Config, End, Fault, MinVersion, NameKind, Part, Settings,
    TORN_LEN_MAX, Tickets,
};

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS13, &rustls::version::TLS12];

/// Whatever the version and the way rustls is driven, bytes arrive as they were sent.
#[test]
fn bytes_go_both_ways_however_they_are_torn() {
    let authority = Authority::new("root");
    for exporter in [false, true] {
        let config = server_config(&Settings { exporter, ..settings(&authority, &["a.test"]) });
        for version in VERSIONS {
            for size in [1, 7, 1000, usize::MAX] {
                let client = client_config(&authority, version, None);
                let mut pair = Pair::new(&config, &Arc::new(client), "a.test", Shape::Pieces(size));
                pair.shake_hands().expect("a handshake");
                let long: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
                for bytes in [&b"hello"[..], &long] {
                    assert_eq!(pair.up(bytes).expect("plaintext"), bytes);
                    assert_eq!(pair.down(bytes), bytes);
                }
                assert_eq!(pair.server.torn(), b"", "an idle connection holds nothing");
                let opened = pair.opened.clone().expect("told once");
                assert_eq!(opened.exporter.is_some(), exporter);
                if exporter {
                    let label = b"EXPORTER-ACE-MQTT-Sign-Challenge";
                    let ours = pair.client.export_keying_material([0; 32], label, None);
                    assert_eq!(opened.exporter, ours.ok());
                }
            }
        }
    }
}

#[test]
fn sessions_resume_with_one_ticket_each_also_after_a_reload() {
    let authority = Authority::new("root");
    let tickets = Tickets::new().expect("random bytes");
    let settings = settings(&authority, &["a.test"]);
    for version in VERSIONS {
        let client = Arc::new(client_config(&authority, version, None));
        for round in 0..3 {
            // A configuration of its own for each connection: the keys of tickets go on.
            let config = Arc::new(Config::new(&settings, &tickets).expect("valid"));
            let mut pair = Pair::new(&config, &client, "a.test", Shape::Whole);
            pair.shake_hands().expect("a handshake");
            let resumed = pair.client.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, round > 0, "{version:?}, round {round}");
            assert_eq!(pair.opened.as_ref().map(|opened| opened.resumed), Some(round > 0));
            if version.version == rustls::ProtocolVersion::TLSv1_3 {
                assert_eq!(pair.client.tls13_tickets_received(), 1);
            }
        }
        let other = server_config(&settings);
        let mut pair = Pair::new(&other, &client, "a.test", Shape::Whole);
        pair.shake_hands().expect("a full handshake");
        assert_eq!(pair.opened.as_ref().map(|opened| opened.resumed), Some(false), "other keys");
    }
}

#[test]
fn the_certificate_is_that_of_the_name() {
    let authority = Authority::new("root");
    let mut settings = settings(&authority, &["first.test"]);
    settings.certificates.push(keys(&authority, &["second.test", "other.test"]));
    settings.certificates.push(keys(&authority, &["*.wild.test"]));
    let config = server_config(&settings);
    for (name, covered) in [
        ("first.test", true),
        ("second.test", true),
        ("OTHER.test", true),
        ("x.wild.test", true),
        ("wild.test", false),
        ("x.y.wild.test", false),
        ("third.test", false),
        ("127.0.0.1", false),
    ] {
        for version in VERSIONS {
            let client = Arc::new(client_config(&authority, version, None));
            let mut pair = Pair::new(&config, &client, name, Shape::Whole);
            let outcome = pair.shake_hands();
            assert_eq!(outcome.is_ok(), covered, "{name}: {outcome:?}");
            // One that is not covered gets the first certificate and refuses that.
            let mismatch = format!("{:?}", pair.client_error).contains("first.test");
            assert_eq!(mismatch, !covered, "{name}: {:?}", pair.client_error);
        }
    }
}

#[test]
fn alpn_takes_ours_or_none() {
    let authority = Authority::new("root");
    let config = server_config(&settings(&authority, &["a.test"]));
    for (offered, accepted) in [
        (&[][..], true),
        (&["mqtt"], true),
        (&["h2", "mqtt"], true),
        (&["h2"], false),
        (&["http/1.1"], false),
    ] {
        let mut client = client_config(&authority, VERSIONS[0], None);
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut pair = Pair::new(&config, &Arc::new(client), "a.test", Shape::Whole);
        let outcome = pair.shake_hands();
        assert_eq!(outcome.is_ok(), accepted, "{offered:?}: {outcome:?}");
        if !accepted {
            assert_eq!(outcome, Err(Fault::Tls(Error::NoApplicationProtocol)));
            let alert = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
            assert_eq!(pair.client_error, Some(alert));
        }
    }
}

#[test]
fn client_certificates_off_optional_and_required() {
    let (authority, clients, strangers) =
        (Authority::new("root"), Authority::new("clients"), Authority::new("strangers"));
    let known = clients.client("alice");
    let unknown = strangers.client("mallory");
    for version in VERSIONS {
        for (wanted, shown, expected) in [
            (ClientCertificates::Off, None, Ok(None)),
            (ClientCertificates::Off, Some(&known), Ok(None)),
            (ClientCertificates::Optional, None, Ok(None)),
            (ClientCertificates::Optional, Some(&known), Ok(Some("alice"))),
            (ClientCertificates::Optional, Some(&unknown), Err(())),
            (ClientCertificates::Required, None, Err(())),
            (ClientCertificates::Required, Some(&known), Ok(Some("alice"))),
            (ClientCertificates::Required, Some(&unknown), Err(())),
        ] {
            let config = server_config(&Settings {
                client_certificates: wanted,
                client_ca: Some(clients.pem()),
                ..settings(&authority, &["a.test"])
            });
            let client = Arc::new(client_config(&authority, version, shown));
            // The second time the session is resumed.
            for resumed in [false, true] {
                let mut pair = Pair::new(&config, &client, "a.test", Shape::Whole);
                let outcome = pair.shake_hands().map_err(drop);
                assert_eq!(outcome.is_ok(), expected.is_ok(), "{wanted:?} {version:?}");
                if outcome.is_ok() {
                    let opened = pair.opened.as_deref().expect("open");
                    let name = opened.certificate.as_ref().map(|c| c.common_name.as_deref());
                    assert_eq!(Ok(name.flatten()), expected, "{wanted:?} {version:?}");
                    assert_eq!(opened.resumed, resumed);
                }
            }
        }
    }
}

#[test]
fn the_identity_is_the_name_that_was_chosen() {
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let shown = clients.client("alice");
    let client = Arc::new(client_config(&authority, VERSIONS[0], Some(&shown)));
    for (identity, expected) in [
        (NameKind::CommonName, "alice"),
        (NameKind::Dns, "alice.clients.test"),
        (NameKind::Uri, "urn:alice"),
        (NameKind::Email, "alice@clients.test"),
    ] {
        let config = server_config(&Settings {
            client_certificates: ClientCertificates::Required,
            client_ca: Some(clients.pem()),
            identity,
            ..settings(&authority, &["a.test"])
        });
        let mut pair = Pair::new(&config, &client, "a.test", Shape::Whole);
        pair.shake_hands().expect("a handshake");
        let certificate = pair.opened.and_then(|opened| opened.certificate).expect("shown");
        let Certificate { identity, common_name, sha256 } = certificate;
        assert_eq!((identity.as_deref(), common_name.as_deref()), (Some(expected), Some("alice")));
        assert_eq!(sha256, shown.sha256());
    }
}

fn with_crl(authority: &Authority, clients: &Authority, crls: Vec<Vec<u8>>) -> Settings {
    Settings {
        client_certificates: ClientCertificates::Required,
        client_ca: Some(clients.pem()),
        crls,
        ..settings(authority, &["a.test"])
    }
}

#[test]
fn revocation_lists_decide() {
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let (alice, bob) = (clients.client("alice"), clients.client("bob"));
    let fresh = clients.crl(&[&bob], false);
    let expired = clients.crl(&[&bob], true);
    let foreign = Authority::new("others").crl(&[], false);
    let refusal = |settings: &Settings, shown| {
        let client = Arc::new(client_config(&authority, VERSIONS[1], Some(shown)));
        let mut pair = Pair::new(&server_config(settings), &client, "a.test", Shape::Whole);
        match pair.shake_hands() {
            Err(fault) => Some(fault.to_string()),
            Ok(()) => None,
        }
    };
    let settings = with_crl(&authority, &clients, vec![fresh.clone()]);
    assert_eq!(refusal(&settings, &alice), None);
    assert_eq!(refusal(&settings, &bob).as_deref(), Some("the client's certificate is revoked"));
    let mut settings = with_crl(&authority, &clients, vec![expired]);
    let what = refusal(&settings, &alice).expect("refused");
    assert!(what.ends_with("revocation list of its issuer has expired"), "{what}");
    settings.allow_expired_crl = true;
    assert_eq!(refusal(&settings, &alice), None);
    assert_eq!(refusal(&settings, &bob).as_deref(), Some("the client's certificate is revoked"));
    let settings = with_crl(&authority, &clients, vec![foreign.clone()]);
    let what = refusal(&settings, &alice).expect("refused");
    assert!(what.contains("no revocation list of its issuer"), "{what}");
    let settings = with_crl(&authority, &clients, vec![foreign, fresh]);
    assert_eq!(refusal(&settings, &alice), None);
}

/// The chain of a resumed session is not verified by rustls.
#[test]
fn a_resumed_session_is_held_to_what_is_in_force_now() {
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let alice = clients.client("alice");
    let tickets = Tickets::new().expect("random bytes");
    let config = |settings: &Settings| Arc::new(Config::new(settings, &tickets).expect("valid"));
    let before = config(&with_crl(&authority, &clients, vec![clients.crl(&[], false)]));
    let revoked = config(&with_crl(&authority, &clients, vec![clients.crl(&[&alice], false)]));
    let other_ca = config(&with_crl(&authority, &Authority::new("others"), Vec::new()));
    let off = config(&settings(&authority, &["a.test"]));
    for version in VERSIONS {
        for (after, expected) in [
            (&before, None),
            (&revoked, Some(CertificateError::Revoked)),
            (&other_ca, Some(CertificateError::UnknownIssuer)),
            (&off, None),
        ] {
            let client = Arc::new(client_config(&authority, version, Some(&alice)));
            let mut first = Pair::new(&before, &client, "a.test", Shape::Whole);
            first.shake_hands().expect("a handshake");
            let fault = expected.map(|error| Fault::Tls(Error::InvalidCertificate(error)));
            assert_eq!(first.server.check(after).err(), fault, "one that is connected");
            let mut second = Pair::new(after, &client, "a.test", Shape::Whole);
            assert_eq!(second.shake_hands().err(), fault);
            assert_eq!(second.opened.is_some(), fault.is_none());
        }
        // A session that began without a certificate is none where one is required.
        let client = Arc::new(client_config(&authority, version, None));
        Pair::new(&off, &client, "a.test", Shape::Whole).shake_hands().expect("a handshake");
        let mut second = Pair::new(&before, &client, "a.test", Shape::Whole);
        let fault = Fault::Tls(Error::NoCertificatesPresented);
        assert_eq!(second.shake_hands().err(), Some(fault), "{version:?}");
    }
}

#[test]
fn close_notify_ends_both_directions() {
    let authority = Authority::new("root");
    let config = server_config(&settings(&authority, &["a.test"]));
    for version in VERSIONS {
        let client = Arc::new(client_config(&authority, version, None));
        let mut pair = Pair::new(&config, &client, "a.test", Shape::Whole);
        pair.shake_hands().expect("a handshake");
        pair.server.close();
        assert!(pair.server.wants_send());
        assert_eq!(pair.down(b"last words"), b"last words", "they go before");
        pair.flush_server();
        assert!(pair.client_was_closed(), "{version:?}");
        assert!(!pair.server.wants_send());

        let mut pair = Pair::new(&config, &client, "a.test", Shape::Whole);
        pair.shake_hands().expect("a handshake");
        pair.client.send_close_notify();
        assert_eq!(pair.up(b"").expect("no fault"), b"");
        assert_eq!(pair.end, Some(End::PeerClosed));
    }
}

#[test]
fn what_is_no_tls_is_told_at_once() {
    let authority = Authority::new("root");
    let config = server_config(&settings(&authority, &["a.test"]));
    for bytes in [&b"\x10\x0c\0\x04MQTT\x05\x02\0\0\0\0"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 99]] {
        let mut server = whimbrel_transport::tls::Server::new(config.clone()).expect("a server");
        let mut bytes = bytes.to_vec();
        let received = server.handle_bytes(&mut bytes);
        let Some(End::Fault(fault)) = received.end else { panic!("{:?}", received.end) };
        assert_eq!(fault.to_string(), "the bytes are no TLS, which this port speaks");
        assert!(received.plain.is_empty());
    }
}

/// A peer that never finishes a handshake message does not fill our memory.
#[test]
fn a_handshake_message_without_end_is_cut_off() {
    let authority = Authority::new("root");
    let config = server_config(&settings(&authority, &["a.test"]));
    let mut server = whimbrel_transport::tls::Server::new(config).expect("a server");
    // A ClientHello that claims 60,000 bytes, in records of 1,000.
    let mut fed = 0;
    for at in 0..70 {
        let start: &[u8] = if at == 0 { &[1, 0, 0xea, 0x60] } else { &[] };
        let body = [start, &vec![0; 1000 - start.len()]].concat();
        let mut bytes = [server.torn(), &[0x16, 3, 1, 3, 0xe8], &body].concat();
        fed += 1005;
        let received = server.handle_bytes(&mut bytes);
        assert!(server_torn_is_bounded(&server));
        if let Some(end) = received.end {
            assert_eq!(end, End::Fault(Fault::TooLong));
            assert!(fed > TORN_LEN_MAX, "not before");
            return;
        }
    }
    panic!("70,000 bytes were taken");
}

fn server_torn_is_bounded(server: &whimbrel_transport::tls::Server) -> bool {
    server.torn().len() <= TORN_LEN_MAX
}

#[test]
fn the_oldest_version_is_a_choice() {
    let authority = Authority::new("root");
    let min_version = MinVersion::Tls13;
    let config = server_config(&Settings { min_version, ..settings(&authority, &["a.test"]) });
    for version in VERSIONS {
        let client = Arc::new(client_config(&authority, version, None));
        let outcome = Pair::new(&config, &client, "a.test", Shape::Whole).shake_hands();
        assert_eq!(outcome.is_ok(), version.version == rustls::ProtocolVersion::TLSv1_3);
    }
}

#[test]
fn settings_that_cannot_be_used_say_where_the_fault_is() {
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let good = with_crl(&authority, &clients, vec![clients.crl(&[], false)]);
    let part = |change: &dyn Fn(&mut Settings)| {
        let mut settings = good.clone();
        change(&mut settings);
        let invalid = Config::new(&settings, &Tickets::new().expect("random bytes"));
        let invalid = invalid.err().expect("it was taken");
        assert!(!invalid.what.is_empty());
        invalid.part
    };
    assert_eq!(part(&|s| s.certificates.clear()), Part::Settings);
    assert_eq!(part(&|s| s.certificates[0].certificate = b"no PEM".into()), Part::Certificate(0));
    assert_eq!(part(&|s| s.certificates[0].key = b"no PEM".into()), Part::Key(0));
    let other = keys(&authority, &["b.test"]);
    assert_eq!(part(&|s| s.certificates[0].key = other.key.clone()), Part::Key(0));
    assert_eq!(part(&|s| s.client_ca = None), Part::ClientCa);
    assert_eq!(part(&|s| s.client_ca = Some(b"nothing".into())), Part::ClientCa);
    assert_eq!(part(&|s| s.crls.push(b"nothing".into())), Part::Crl(1));
    assert_eq!(part(&|s| s.crls.push(b"\x30\x01\x00".into())), Part::Crl(1));
}

/// Bytes that were changed or left out on the way end the connection, and nothing else happens.
#[test]
fn damaged_records_are_refused() {
    let authority = Authority::new("root");
    let config = server_config(&settings(&authority, &["a.test"]));
    for version in VERSIONS {
        for at in [0, 3, 4, 5, 9, 20] {
            let client = Arc::new(client_config(&authority, version, None));
            let mut pair = Pair::new(&config, &client, "a.test", Shape::Damaged(at));
            pair.shake_hands().expect("damage begins after it");
            pair.damage = true;
            let outcome = pair.up(b"hello hello hello");
            match outcome {
                Err(_) => {}
                // A length that became larger waits for more.
                Ok(plain) => assert!(plain.is_empty() && at < 5, "{at}: {plain:?}"),
            }
        }
    }
}
