//! The client for programs without `async`, against a broker of a few lines on a real socket.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use whimbrel_client::{Error, Message, QoS, Status, blocking};

const PATIENCE: Duration = Duration::from_secs(20);

/// One packet: its first byte and its body. Packets here are short.
fn recv(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a packet");
    assert!(head[1] < 128, "a short packet");
    let mut body = vec![0; head[1].into()];
    stream.read_exact(&mut body).expect("the packet's body");
    (head[0], body)
}

fn send(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the client listens");
}

#[test]
fn it_publishes_subscribes_and_disconnects() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let broker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        assert_eq!(recv(&mut stream).0, 0x10); // CONNECT
        send(&mut stream, &[0x20, 3, 0, 0, 0]);
        let (kind, body) = recv(&mut stream); // SUBSCRIBE
        assert_eq!(kind, 0x82);
        send(&mut stream, &[0x90, 4, body[0], body[1], 0, 0]);
        let (kind, body) = recv(&mut stream); // PUBLISH to "t" with QoS 1
        assert_eq!((kind, &body[..3]), (0x32, b"\0\x01t".as_slice()));
        send(&mut stream, &[0x30, 5, 0, 1, b't', 0, b'x']);
        send(&mut stream, &[0x40, 2, body[3], body[4]]);
        assert_eq!(recv(&mut stream).0, 0xe0); // DISCONNECT
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    });
    let builder = blocking::Client::builder(&format!("mqtt://127.0.0.1:{port}")).expect("a URL");
    let client = blocking::Client::connect(builder.client_id("c")).expect("accepted");
    let mut events = client.events();
    let mut subscription = client.subscribe("t").expect("granted");
    let message = Message::new("t", "x").qos(QoS::AtLeastOnce);
    client.publish(message).expect("taken").wait().expect("acknowledged");
    let message = subscription.next_timeout(PATIENCE).expect("a message");
    assert_eq!(&message.payload[..], b"x");
    assert!(subscription.next_timeout(Duration::from_millis(10)).is_none());
    client.disconnect().expect("nothing is left");
    assert!(subscription.next().is_none());
    assert!(matches!(events.next(), Some(Status::Subscribed { .. })));
    assert!(matches!(events.next(), Some(Status::Closed)));
    broker.join().expect("the broker saw what it expected");
}

#[test]
fn no_broker_is_an_error_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let builder = blocking::Client::builder(&format!("mqtt://127.0.0.1:{port}")).expect("a URL");
    match blocking::Client::connect(builder) {
        Err(error @ Error::Connect(..)) => assert!(error.to_string().contains(&port.to_string())),
        other => panic!("expected no connection, got {:?}", other.err()),
    }
}
