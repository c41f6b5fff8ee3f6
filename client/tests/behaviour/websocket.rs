//! WebSocket, with another implementation at the other end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message as Frame, WebSocket, accept_hdr};
use whimbrel_client::{
    BoxError, Builder, Carrier, Client, Error, Login, Message, QoS, Status, Token,
};

/// A socket that is written to byte by byte, so frames are torn everywhere.
struct Trickle(std::net::TcpStream);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

type Server = WebSocket<Trickle>;

/// Runs `serve` on a thread, with a listener; and a client of it, with the path `/mqtt?a=b`.
fn with_server<T: Send + 'static>(
    serve: impl FnOnce(&TcpListener) -> T + Send + 'static,
) -> (Builder, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let builder = Client::builder(&format!("ws://127.0.0.1:{port}/mqtt?a=b")).expect("a URL");
    (builder, std::thread::spawn(move || serve(&listener)))
}

/// Opens the WebSocket; gives the request's path and `Authorization` too. Without one, refuses.
#[expect(clippy::result_large_err, reason = "the type is the library's")]
fn open(listener: &TcpListener, check: impl Fn(&str, Option<&str>) -> bool) -> Option<Server> {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
    stream.set_nodelay(true).expect("an option");
    let look = |request: &Request, mut response: Response| {
        let authorization = request.headers().get("authorization");
        let authorization = authorization.map(|value| value.to_str().expect("ASCII"));
        let path = request.uri().path_and_query().expect("a path").as_str();
        assert_eq!(request.headers().get("sec-websocket-protocol").expect("it is there"), "mqtt");
        if !check(path, authorization) {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = tungstenite::http::StatusCode::UNAUTHORIZED;
            return Err(refusal);
        }
        let protocol = "mqtt".parse().expect("a value");
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    accept_hdr(Trickle(stream), look).ok()
}

/// The MQTT bytes of the next frame that has some.
fn recv(server: &mut Server) -> Vec<u8> {
    loop {
        match server.read().expect("a frame") {
            Frame::Binary(bytes) => return bytes.to_vec(),
            Frame::Ping(_) | Frame::Pong(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn send(server: &mut Server, bytes: &[u8]) {
    server.send(Frame::binary(bytes.to_vec())).expect("it listens");
}

const CONNACK: [u8; 5] = [0x20, 3, 0, 0, 0];

fn accept(server: &mut Server) {
    assert_eq!(recv(server)[0], 0x10);
    send(server, &CONNACK);
}

#[tokio::test]
async fn packets_come_through_whatever_frames_carry_them() {
    let (builder, server) = with_server(|listener| {
        let mut server =
            open(listener, |path, authorization| path == "/mqtt?a=b" && authorization.is_none())
                .expect("accepted");
        assert_eq!(recv(&mut server)[0], 0x10);
        // One packet in several frames, and a ping between them.
        send(&mut server, &CONNACK[..2]);
        server.send(Frame::Ping(b"are you there".as_slice().into())).expect("it listens");
        send(&mut server, &CONNACK[2..]);
        match server.read().expect("a frame") {
            Frame::Pong(data) => assert_eq!(&data[..], b"are you there"),
            other => panic!("expected a pong, got {other:?}"),
        }
        // Large enough for several frames.
        let mut publish = recv(&mut server);
        while publish.len() < 200_000 {
            publish.extend(recv(&mut server));
        }
        assert!(publish.ends_with(&[b'x'; 200_000]));
        // Several packets in one frame: PUBLISH twice.
        let message = [0x30, 5, 0, 1, b't', 0, b'y'];
        send(&mut server, &[message, message].concat());
        server
    });
    let client = builder.connect().await.expect("accepted");
    let long = Message::new("t", vec![b'x'; 200_000]);
    client.publish(long).await.expect("taken").await.expect("written");
    let mut server =
        tokio::task::spawn_blocking(|| server.join()).await.expect("it ends").expect("as expected");
    let ended = tokio::join!(
        client.disconnect(),
        tokio::task::spawn_blocking(move || {
            assert_eq!(recv(&mut server)[0], 0xe0);
            // Then the WebSocket is closed by its own rules.
            match server.read().expect("a frame") {
                Frame::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Normal),
                other => panic!("expected a close, got {other:?}"),
            }
        })
    );
    ended.0.expect("nothing is left");
    ended.1.expect("as expected");
}

#[tokio::test]
async fn a_close_is_told_with_its_code_and_the_client_comes_back() {
    let (builder, server) = with_server(|listener| {
        let mut server = open(listener, |_, _| true).expect("accepted");
        accept(&mut server);
        let reason = "going".into();
        server.close(Some(CloseFrame { code: CloseCode::Away, reason })).expect("it listens");
        while server.read().is_ok() {}
        let mut server = open(listener, |_, _| true).expect("accepted");
        accept(&mut server);
        // PUBLISH of QoS 1, after the reconnection.
        assert_eq!(recv(&mut server)[0], 0x32);
    });
    let client = builder.start().expect("valid settings");
    let mut events = client.events();
    let why = loop {
        if let Status::Disconnected { why, .. } = events.next().await.expect("the client lives") {
            break why;
        }
    };
    assert!(matches!(*why, Error::WebSocket(_)) && why.to_string().contains("1001"), "{why}");
    drop(client.publish(Message::new("t", "x").qos(QoS::AtLeastOnce)).await.expect("taken"));
    tokio::task::spawn_blocking(|| server.join()).await.expect("it ends").expect("as expected");
}

#[tokio::test]
async fn a_token_in_the_request_is_asked_anew_when_it_is_refused() {
    let (builder, server) = with_server(|listener| {
        assert!(open(listener, |_, shown| shown != Some("Bearer token-0")).is_none());
        let mut server = open(listener, |_, shown| shown == Some("Bearer token-1")).expect("fine");
        accept(&mut server);
    });
    let count = Arc::new(AtomicU32::new(0));
    let provider = move || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        let token = Token::new(format!("token-{n}")).expires_in(Duration::from_secs(600));
        async move { Ok::<_, BoxError>(token) }
    };
    let login = Login::token(provider, Carrier::WebSocket);
    let client = builder.login(login).start().expect("valid settings");
    let mut events = client.events();
    let why = match events.next().await.expect("the client lives") {
        Status::Disconnected { why, .. } => why.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    };
    assert!(why.contains("401") && !why.contains("token-0"), "{why}");
    assert!(matches!(events.next().await, Some(Status::Connected(_))));
    tokio::task::spawn_blocking(|| server.join()).await.expect("it ends").expect("as expected");
}

#[tokio::test]
async fn who_speaks_no_websocket_is_told_from_the_server() {
    for answer in [&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], b"\x20\x02\x00\x00", b""] {
        let (builder, server) = with_server(move |listener| {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).expect("a request") > 0);
            stream.write_all(answer).expect("it listens");
        });
        assert!(builder.connect().await.is_err());
        server.join().expect("as expected");
    }
}
