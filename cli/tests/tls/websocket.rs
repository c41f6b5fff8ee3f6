//! WebSocket over TLS, and which web pages may open one.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::version;

use crate::setup::{Certs, Trickle, socket, tls_on};
use crate::support::{Broker, connect};

fn upgrade(more: &str) -> String {
    format!(
        "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n{more}\r\n"
    )
}

/// The head of the response.
fn response(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a response");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

#[test]
fn mqtt_goes_over_websocket_over_tls() {
    let certs = Certs::new(&[]);
    let text =
        format!("[[listener]]\ntype = \"websocket\"\nbind = \"127.0.0.1:0\"\n{}", certs.table(""));
    let broker = Broker::with_file(&text);
    let address = broker.address("wss");
    let address = address.strip_suffix("/mqtt").expect("its path");
    let mut config = certs.client_config(&version::TLS13, None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    for piece in [1, usize::MAX] {
        let mut client = tls_on(Trickle(socket(address), piece), &Arc::new(config.clone()));
        client.send(upgrade("").as_bytes());
        assert!(response(&mut client.0).starts_with("HTTP/1.1 101"));
        let packet = connect("over wss");
        // One frame, with a mask of zeros.
        let len = u8::try_from(packet.len()).expect("short");
        client.send(&[&[0x82, 0x80 | len, 0, 0, 0, 0], &packet[..]].concat());
        let mut frame = [0; 4];
        client.0.read_exact(&mut frame).expect("CONNACK");
        assert_eq!((frame[0], frame[2]), (0x82, 0x20));
    }
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    let mut foreign = tls_on(Trickle(socket(address), usize::MAX), &Arc::new(config));
    assert!(foreign.0.write_all(b"GET").is_err(), "MQTT without WebSocket is not spoken there");
}

#[test]
fn web_pages_of_other_hosts_are_refused() {
    let listener = "[[listener]]\ntype = \"websocket\"\nbind = \"127.0.0.1:0\"\n";
    let listed = format!("{listener}origins = [\"https://app.example\"]\n");
    for (text, allowed, refused) in [
        (listener, "http://localhost:3000", "https://evil.example"),
        (&listed, "https://app.example", "http://localhost"),
    ] {
        let broker = Broker::with_file(text);
        let address = broker.address("websocket");
        let address = address.strip_suffix("/mqtt").expect("its path");
        let ask = |more: &str| {
            let mut stream = socket(address);
            stream.write_all(upgrade(more).as_bytes()).expect("it reads");
            response(&mut stream)
        };
        assert!(ask("").starts_with("HTTP/1.1 101"), "no web page");
        assert!(ask(&format!("Origin: {allowed}\r\n")).starts_with("HTTP/1.1 101"));
        assert!(ask(&format!("Origin: {refused}\r\n")).starts_with("HTTP/1.1 403 Forbidden"));
    }
}
