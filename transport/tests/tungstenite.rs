//! Both ends against another implementation of WebSocket, over torn in-memory streams.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use tungstenite::client::ClientRequestBuilder;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Error, Message, WebSocket};
use whimbrel_transport::websocket::client::{self, Client};
use whimbrel_transport::websocket::server::{Config, Server};
use whimbrel_transport::websocket::{End, close_code};

/// The other implementation's end of two pipes. After the handshake, of which it takes small pieces
/// for an attack, reads get at most `step` bytes at a time.
#[derive(Clone)]
struct Pipe {
    to_us: Rc<RefCell<VecDeque<u8>>>,
    to_them: Rc<RefCell<VecDeque<u8>>>,
    step: usize,
    tears_reads: Rc<Cell<bool>>,
}

impl Pipe {
    fn new(step: usize) -> Pipe {
        Pipe { to_us: Rc::default(), to_them: Rc::default(), step, tears_reads: Rc::default() }
    }

    /// What they sent, in pieces of `step` bytes.
    fn take(&self) -> Vec<Vec<u8>> {
        let bytes: Vec<u8> = self.to_us.borrow_mut().drain(..).collect();
        bytes.chunks(self.step).map(<[u8]>::to_vec).collect()
    }
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut from = self.to_them.borrow_mut();
        if from.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let step = if self.tears_reads.get() { self.step } else { usize::MAX };
        let len = out.len().min(step);
        from.read(&mut out[..len])
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to_us.borrow_mut().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets `server` read all and send `mqtt` and what else it has, `step` bytes at a time.
fn run_server(server: &mut Server, pipe: &Pipe, mut mqtt: &[u8]) -> (Vec<u8>, Option<End>) {
    let (mut received, mut end) = (Vec::new(), None);
    for mut piece in pipe.take() {
        let decoded = server.handle_bytes(&mut piece);
        received.extend(decoded.mqtt);
        end = end.or(decoded.end);
    }
    let mut head = Vec::new();
    while !mqtt.is_empty() || server.wants_send() {
        let payload = server.poll_send(mqtt.len(), &mut head);
        let sent: Vec<u8> = head.iter().chain(&mqtt[..payload]).copied().take(pipe.step).collect();
        mqtt = &mqtt[server.handle_written(sent.len(), &head)..];
        pipe.to_them.borrow_mut().extend(sent);
    }
    (received, end)
}

fn mask() -> impl FnMut() -> [u8; 4] {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()
    }
}

fn run_client(client: &mut Client, pipe: &Pipe) -> (Vec<u8>, Option<End>) {
    let (mut received, mut end) = (Vec::new(), None);
    for mut piece in pipe.take() {
        let decoded = client.handle_bytes(&mut piece);
        received.extend(decoded.mqtt);
        end = end.or(decoded.end);
    }
    let mut out = Vec::new();
    client.poll_output(&mut mask(), &mut out);
    pipe.to_them.borrow_mut().extend(out);
    (received, end)
}

fn request(path: &str) -> tungstenite::handshake::client::Request {
    use tungstenite::client::IntoClientRequest;
    let uri = format!("ws://broker:8083{path}").parse().unwrap();
    ClientRequestBuilder::new(uri).with_sub_protocol("mqtt").into_client_request().unwrap()
}

/// Their client, connected to our server.
fn their_client(step: usize) -> (WebSocket<Pipe>, Server, Pipe) {
    let pipe = Pipe::new(step);
    let mut server = Server::new(Arc::new(Config::default()));
    let mut attempt =
        ClientHandshake::start(pipe.clone(), request("/mqtt"), None).unwrap().handshake();
    loop {
        match attempt {
            Ok((socket, response)) => {
                assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
                assert!(server.is_open());
                pipe.tears_reads.set(true);
                return (socket, server, pipe);
            }
            Err(HandshakeError::Interrupted(middle)) => {
                run_server(&mut server, &pipe, b"");
                attempt = middle.handshake();
            }
            Err(HandshakeError::Failure(error)) => panic!("{error}"),
        }
    }
}

/// Our client, connected to their server.
fn their_server(step: usize) -> (WebSocket<Pipe>, Client, Pipe) {
    let pipe = Pipe::new(step);
    let headers = [("Authorization", "Bearer abc")];
    let wanted = client::Request { host: "broker:8083", path: "/mqtt?x=1", headers: &headers };
    let mut client = Client::new(&wanted, *b"0123456789abcdef").unwrap();
    run_client(&mut client, &pipe);
    #[expect(clippy::result_large_err, reason = "the type is the library's")]
    let choose = |request: &Request, mut response: Response| {
        assert_eq!(request.uri().path(), "/mqtt");
        assert_eq!(request.headers()["Authorization"], "Bearer abc");
        let offer = request.headers()["Sec-WebSocket-Protocol"].clone();
        response.headers_mut().insert("Sec-WebSocket-Protocol", offer);
        Ok(response)
    };
    let mut attempt = tungstenite::accept_hdr(pipe.clone(), choose);
    loop {
        match attempt {
            Ok(socket) => {
                run_client(&mut client, &pipe);
                assert!(client.is_open());
                pipe.tears_reads.set(true);
                return (socket, client, pipe);
            }
            Err(HandshakeError::Interrupted(middle)) => {
                run_client(&mut client, &pipe);
                attempt = middle.handshake();
            }
            Err(HandshakeError::Failure(error)) => panic!("{error}"),
        }
    }
}

/// Sends fragments with a ping and a pong between, and what they carry.
fn send_fragments(socket: &mut WebSocket<Pipe>, payload: &[u8]) {
    let (first, rest) = payload.split_at(payload.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    for (bytes, opcode, fin) in [
        (first, Data::Binary, false),
        (second, Data::Continue, false),
        (third, Data::Continue, true),
    ] {
        let frame = Frame::message(bytes.to_vec(), OpCode::Data(opcode), fin);
        socket.send(Message::Frame(frame)).unwrap();
        if !fin {
            socket.send(Message::Ping(bytes[..bytes.len().min(125)].to_vec().into())).unwrap();
            socket.send(Message::Pong(b"unasked".to_vec().into())).unwrap();
        }
    }
}

/// Reads all there is; a close and errors end it.
fn read_all(socket: &mut WebSocket<Pipe>) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => messages.push(message),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return messages,
            Err(Error::ConnectionClosed) => return messages,
            Err(error) => panic!("{error}"),
        }
    }
}

fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
}

const LENGTHS: [usize; 9] = [0, 1, 125, 126, 127, 1000, 65_535, 65_536, 200_000];
const STEPS: [usize; 4] = [1, 3, 1000, 65_536];

#[test]
fn their_client_sends_to_our_server() {
    for step in STEPS {
        let (mut socket, mut server, pipe) = their_client(step);
        for len in LENGTHS {
            let payload = sample(len);
            socket.send(Message::Binary(payload.clone().into())).unwrap();
            assert!(run_server(&mut server, &pipe, b"") == (payload, None), "{len} in {step}");
        }
        let payload = sample(3000);
        send_fragments(&mut socket, &payload);
        assert!(run_server(&mut server, &pipe, b"") == (payload.clone(), None));
        // Of the two pings in one go the second is answered.
        let pong = Message::Pong(payload[1000..1125].to_vec().into());
        assert_eq!(read_all(&mut socket), [pong]);
    }
}

#[test]
fn our_server_sends_to_their_client() {
    for step in STEPS {
        let (mut socket, mut server, pipe) = their_client(step);
        for len in LENGTHS.into_iter().filter(|len| *len > 0) {
            let payload = sample(len);
            run_server(&mut server, &pipe, &payload);
            assert!(read_all(&mut socket) == [Message::Binary(payload.into())], "{len} in {step}");
        }
    }
}

#[test]
fn their_client_closes() {
    let (mut socket, mut server, pipe) = their_client(2);
    let frame = CloseFrame { code: CloseCode::Away, reason: "leaving".into() };
    socket.close(Some(frame)).unwrap();
    let (_, end) = run_server(&mut server, &pipe, b"");
    assert_eq!(end, Some(End::PeerClosed { code: Some(1001) }));
    let echo = CloseFrame { code: CloseCode::Away, reason: "".into() };
    assert_eq!(read_all(&mut socket), [Message::Close(Some(echo))]);
}

#[test]
fn our_server_closes_after_its_data() {
    let (mut socket, mut server, pipe) = their_client(2);
    server.close(close_code::GOING_AWAY);
    run_server(&mut server, &pipe, b"last");
    let frame = CloseFrame { code: CloseCode::Away, reason: "".into() };
    let expected = [Message::Binary(b"last".to_vec().into()), Message::Close(Some(frame))];
    assert_eq!(read_all(&mut socket), expected);
    let (_, end) = run_server(&mut server, &pipe, b"");
    assert_eq!(end, Some(End::PeerClosed { code: Some(1001) }));
}

/// [MQTT-6.0.0-1]
#[test]
fn their_client_sends_text() {
    let (mut socket, mut server, pipe) = their_client(5);
    socket.send(Message::Text("hello".into())).unwrap();
    let (mqtt, end) = run_server(&mut server, &pipe, b"");
    assert!(mqtt.is_empty() && matches!(end, Some(End::Violation(_))));
    let frame = CloseFrame { code: CloseCode::Unsupported, reason: "".into() };
    assert_eq!(read_all(&mut socket), [Message::Close(Some(frame))]);
}

#[test]
fn their_client_understands_our_refusal() {
    let pipe = Pipe::new(1000);
    let mut server = Server::new(Arc::new(Config::default()));
    let attempt = ClientHandshake::start(pipe.clone(), request("/other"), None).unwrap();
    let Err(HandshakeError::Interrupted(middle)) = attempt.handshake() else { panic!() };
    run_server(&mut server, &pipe, b"");
    match middle.handshake() {
        Err(HandshakeError::Failure(Error::Http(response))) => {
            assert_eq!(response.status(), 404);
            assert_eq!(response.headers()["Connection"], "close");
        }
        _ => panic!("no HTTP error"),
    }
}

#[test]
fn our_client_and_their_server() {
    for step in STEPS {
        let (mut socket, mut client, pipe) = their_server(step);
        for len in LENGTHS {
            let payload = sample(len);
            let mut out = Vec::new();
            assert!(client.encode(&payload, &mut mask(), &mut out));
            pipe.to_them.borrow_mut().extend(out);
            let payload = Message::Binary(payload.into());
            assert!(read_all(&mut socket) == [payload.clone()], "{len} in {step}");
            socket.send(payload.clone()).unwrap();
            assert!(run_client(&mut client, &pipe) == (payload.into_data().to_vec(), None));
        }
        let payload = sample(3000);
        send_fragments(&mut socket, &payload);
        assert!(run_client(&mut client, &pipe) == (payload.clone(), None));
        let pong = Message::Pong(payload[1000..1125].to_vec().into());
        assert_eq!(read_all(&mut socket), [pong]);
    }
}

#[test]
fn our_client_closes_and_their_server_closes() {
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let (mut socket, mut client, pipe) = their_server(3);
    client.close(close_code::NORMAL);
    run_client(&mut client, &pipe);
    assert_eq!(read_all(&mut socket), [Message::Close(Some(normal.clone()))]);
    let (_, end) = run_client(&mut client, &pipe);
    assert_eq!(end, Some(End::PeerClosed { code: Some(1000) }));
    assert!(pipe.to_them.borrow().is_empty(), "a close frame is not answered twice");

    let (mut socket, mut client, pipe) = their_server(3);
    socket.close(Some(normal.clone())).unwrap();
    let (_, end) = run_client(&mut client, &pipe);
    assert_eq!(end, Some(End::PeerClosed { code: Some(1000) }));
    assert_eq!(read_all(&mut socket), [Message::Close(Some(normal))]);
}
