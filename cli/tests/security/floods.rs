//! One client that sends, asks for, or holds very much: it gets no further than its share, and the
//! others go on.

use std::io::{Read, Write};
use std::net::TcpStream;

use whimbrel_codec::{
    Connect, Filters, Packet, PacketId, Properties, Property, Publish, QoS, ReasonCode, Subscribe,
    Subscription, Version,
};

use super::link::{Got, Link, refused, welcome};
use super::server::{LISTENER, Server};
use super::support::PATIENCE;

fn server(limits: &str) -> Server {
    Server::start(&format!("[limits]\n{limits}\n{LISTENER}"), &[])
}

fn client(server: &Server, client_id: &str) -> Link {
    let (link, got) = Link::connect(server, Connect::new(Version::V5, client_id));
    assert_eq!(got, welcome(false));
    link
}

/// Another client is served as ever.
fn others_go_on(server: &Server) {
    let mut other = client(server, "other");
    assert_eq!(other.subscribe("others"), 1);
    assert!(matches!(other.publish("others", b"x", false), ReasonCode::Success));
}

#[test]
fn subscriptions_without_end_stop_at_the_limit() {
    let server = server("max_subscriptions = 1000\n");
    let mut link = client(&server, "c");
    let names: Vec<String> = (0..3000).map(|n| format!("topic/{n}/+/#")).collect();
    let mut granted = 0;
    for some in names.chunks(300) {
        let filters: Vec<_> =
            some.iter().map(|name| Subscription::new(name, QoS::AtLeastOnce)).collect();
        let (packet_id, properties) = (PacketId::MIN, Properties::NONE);
        let filters = Filters::new(&filters);
        link.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        let Got::SubAck(codes) = link.next() else { panic!("no SUBACK") };
        granted += codes.iter().filter(|code| **code == 1).count();
        let quota = ReasonCode::QuotaExceeded as u8;
        assert!(codes.iter().all(|code| *code == 1 || *code == quota), "{codes:?}");
    }
    assert_eq!(granted, 1000);
    others_go_on(&server);
}

#[test]
fn retained_topics_without_end_stop_at_the_limit() {
    let server = server("max_retained_messages = 500\n");
    let mut link = client(&server, "c");
    for n in 0..2000 {
        let topic = format!("t/{n}");
        link.send(&Packet::Publish(Publish { retain: true, ..Publish::new(&topic, b"x") }));
    }
    assert!(link.is_quiet());
    let mut reader = client(&server, "reader");
    assert_eq!(reader.subscribe("t/#"), 1);
    let mut count = 0;
    while let Got::Publish { .. } = {
        if count == 0 {
            reader.send(&Packet::PingReq);
        }
        reader.next()
    } {
        count += 1;
    }
    assert!(count <= 500, "{count} messages are retained");
    others_go_on(&server);
}

#[test]
fn properties_larger_than_a_packet_may_be_are_refused_and_shown_to_nobody() {
    let server = server("max_packet_size_bytes = 65536\nmax_connect_size_bytes = 4096\n");
    // In PUBLISH: the packet is refused by its length, before its content is there.
    let mut link = client(&server, "c");
    link.bytes(&[0x30, 0x81, 0x80, 0x04]);
    assert_eq!(link.next(), Got::Disconnect(ReasonCode::PacketTooLarge));
    assert_eq!(link.next(), Got::Closed);
    // In CONNECT.
    let value = "v".repeat(5000);
    let list = [Property::UserProperty("name", &value)];
    let properties = Properties::new(&list);
    let connect = Connect { properties, ..Connect::new(Version::V5, "c") };
    let got = Link::connect(&server, connect).1;
    assert!(got == refused(ReasonCode::PacketTooLarge) || got == Got::Closed, "{got:?}");
    // Thousands of small ones within the limit are a message like any other.
    let list = vec![Property::UserProperty("n", "v"); 8000];
    let mut subscriber = client(&server, "subscriber");
    assert_eq!(subscriber.subscribe("t"), 1);
    let mut publisher = client(&server, "publisher");
    let properties = Properties::new(&list);
    publisher.send(&Packet::Publish(Publish { properties, ..Publish::new("t", b"x") }));
    assert!(matches!(subscriber.next(), Got::Publish { .. }));
    others_go_on(&server);
}

#[test]
fn overlapping_filters_with_identifiers_make_one_bounded_delivery() {
    let server = server("max_packet_size_bytes = 1048576\n");
    let mut link = client(&server, "c");
    let filters: Vec<String> = (0..256_u32)
        .map(|bits| {
            let level = |at: u32| if bits >> at & 1 == 1 { "+" } else { "x" };
            (0..8).map(level).collect::<Vec<_>>().join("/")
        })
        .collect();
    for (n, filter) in filters.iter().enumerate() {
        let id = [Property::SubscriptionIdentifier(268_435_455 - n as u32)];
        let filters = [Subscription::new(filter, QoS::AtMostOnce)];
        let (packet_id, properties) = (PacketId::MIN, Properties::new(&id));
        let filters = Filters::new(&filters);
        link.send(&Packet::Subscribe(Subscribe { packet_id, properties, filters }));
        assert!(matches!(link.next(), Got::SubAck(codes) if codes == [0]));
    }
    let mut publisher = client(&server, "publisher");
    for _ in 0..100 {
        publisher.send(&Packet::Publish(Publish::new("x/x/x/x/x/x/x/x", b"y")));
    }
    assert!(publisher.is_quiet());
    link.send(&Packet::PingReq);
    let (mut publishes, mut bytes) = (0, 0);
    loop {
        let before = link.taken;
        match link.next() {
            Got::Publish { .. } => publishes += 1,
            Got::PingResp => break,
            other => panic!("{other:?}"),
        }
        bytes += link.taken - before;
    }
    // One delivery for all filters; at most five bytes for each identifier.
    assert!(publishes <= 100, "{publishes}");
    assert!(bytes <= publishes * (256 * 5 + 100), "{bytes} bytes in {publishes}");
}

/// A WebSocket that was opened by hand.
fn websocket(server: &Server) -> TcpStream {
    let address = server.broker.address("websocket");
    let (address, _) = address.split_once('/').unwrap_or((&address, ""));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: \
                   Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Whether the broker ends the connection; what it still sends is read.
fn is_ended(mut stream: TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn frames_that_promise_very_much_take_no_memory() {
    let server = Server::start(
        &format!("{LISTENER}[[listener]]\ntype = \"websocket\"\nbind = \"127.0.0.1:0\"\n"),
        &[],
    );
    // A frame of 2^62 bytes that begins with more than a CONNECT may have.
    let mut stream = websocket(&server);
    let length = (1_u64 << 62).to_be_bytes();
    let head = [&[0x82, 0xff][..], &length, &[0, 0, 0, 0]].concat();
    let _ = stream.write_all(&head);
    let _ = stream.write_all(&[0x10, 0xff, 0xff, 0xff, 0x7f]);
    let _ = stream.write_all(&[0; 1024]);
    assert!(is_ended(stream));
    // Empty fragments without end are no packets: the time for CONNECT is not theirs.
    let mut stream = websocket(&server);
    let mut flood = vec![0x02, 0x80, 0, 0, 0, 0];
    flood.extend([0x00, 0x80, 0, 0, 0, 0].repeat(10_000));
    let _ = stream.write_all(&flood);
    others_go_on(&server);
    // Pings without end, whose answers nobody reads.
    let mut stream = websocket(&server);
    let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[7; 125]].concat();
    stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    for _ in 0..20_000 {
        if stream.write_all(&ping).is_err() {
            break;
        }
    }
    others_go_on(&server);
}
