//! The PROXY protocol, alone and before TLS.

use std::io::Read;
use std::sync::Arc;

use rustls::version;

use crate::setup::{Certs, Trickle, expect_line, listener, logged_broker, socket, tls_on};
use crate::support::{Client, connect};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 1883\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x08\xc6\x33\x64\x01\x12\x68\x07\x5b\
                    \x04\0\0";

#[test]
fn the_address_in_the_header_is_the_peers() {
    let certs = Certs::new(&[]);
    let from = "proxy_protocol_from = [\"10.0.0.0/8\", \"127.0.0.1\"]\n";
    let text = listener(from) + &listener(&format!("{from}{}", certs.table("")));
    let (broker, log) = logged_broker(&(text + "[limits]\nconnect_timeout_s = 1\n"));
    for (header, peer) in [(V1, "peer=192.0.2.7:4711"), (V2, "peer=192.0.2.8:4712")] {
        let mut whole = Client(socket(&broker.address("tcp")));
        whole.send(&[header, &connect("whole")].concat());
        assert_eq!(whole.packet()[0], 0x20);
        expect_line(&log, &["connected", "client=\"whole\"", peer]);
        let mut torn = Client(socket(&broker.address("tcp")));
        for byte in header {
            torn.send(&[*byte]);
        }
        torn.connect("torn");
        expect_line(&log, &["connected", "client=\"torn\"", peer]);
        let mut below = Client(socket(&broker.address("tls")));
        below.send(header);
        let config = Arc::new(certs.client_config(&version::TLS13, None));
        tls_on(Trickle(below.0, 3), &config).connect("below tls");
        expect_line(&log, &["connected", "client=\"below tls\"", peer]);
    }
    let mut without = Client(socket(&broker.address("tcp")));
    without.send(&connect("without"));
    assert!(without.is_closed());
    expect_line(&log, &["WARN", "PROXY protocol: this address must begin with a header"]);
    let mut half = Client(socket(&broker.address("tcp")));
    half.send(&V2[..20]);
    assert!(half.is_closed(), "after the time for CONNECT");
}

#[test]
fn a_header_from_elsewhere_is_no_mqtt() {
    let (broker, log) = logged_broker(&listener("proxy_protocol_from = [\"192.0.2.0/24\"]\n"));
    for header in [V1, V2] {
        let mut client = Client(socket(&broker.address("tcp")));
        client.send(&[header, &connect("spoofed"), &[0; 200]].concat());
        match client.0.read(&mut [0]) {
            Ok(n) => assert_eq!(n, 0),
            // Bytes that nobody read make a reset of it.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    Client(socket(&broker.address("tcp"))).connect("direct");
    expect_line(&log, &["connected", "client=\"direct\"", "peer=127.0.0.1:"]);
    assert!(!std::fs::read_to_string(&log).expect("a log").contains("192.0.2."));
}
