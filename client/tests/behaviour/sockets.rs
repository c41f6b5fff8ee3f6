//! Sockets of the system, and the way by a proxy.

use std::net::IpAddr;

use tokio::net::{TcpListener, UnixListener};
use whimbrel_client::{Client, Message, QoS};

use crate::peer::Peer;

/// A listener on any port of loopback, and its port.
pub async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// Accepts the client, and sees it publish.
pub async fn serve(peer: &mut Peer) {
    peer.recv_connect().await;
    peer.send_connack(false).await;
    assert_eq!(peer.recv_publish().await.payload, b"hello");
}

/// A message that waits for the connection, and for the next one, as nobody acknowledges it.
pub async fn greet(client: &Client) {
    let message = Message::new("t", "hello").qos(QoS::AtLeastOnce);
    drop(client.publish(message).await.expect("taken"));
}

#[tokio::test]
async fn tcp_from_a_chosen_address() {
    let (listener, port) = listener().await;
    let own: IpAddr = "127.0.0.2".parse().expect("an address");
    let builder = Client::builder(&format!("mqtt://localhost:{port}")).expect("a URL");
    let client = builder.bind_address(own).start().expect("valid settings");
    greet(&client).await;
    let (stream, from) = listener.accept().await.expect("a connection");
    assert_eq!(from.ip(), own);
    serve(&mut Peer::on(stream)).await;
}

#[tokio::test]
async fn unix_sockets() {
    let path = std::env::temp_dir().join(format!("whimbrel-client-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    let url = format!("unix:{}", path.display());
    let client = Client::builder(&url).expect("a URL").start().expect("valid settings");
    greet(&client).await;
    let (stream, _) = listener.accept().await.expect("a connection");
    std::fs::remove_file(&path).expect("it is there");
    serve(&mut Peer::on(stream)).await;
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, port) = listener().await;
    drop(listener);
    let builder = Client::builder(&format!("mqtt://127.0.0.1:{port}")).expect("a URL");
    let error = builder.connect().await.err().expect("no connection").to_string();
    assert!(error.contains(&format!("cannot connect to 127.0.0.1:{port}")), "{error}");
}

#[cfg(feature = "socks")]
mod socks {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    const GRANTED: [u8; 10] = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

    async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        stream.read_exact(&mut got).await.expect("bytes");
        assert_eq!(got, bytes);
    }

    /// CONNECT to the name and port (RFC 1928, section 4).
    fn request() -> Vec<u8> {
        [&[5, 1, 0, 3, 14][..], b"broker.invalid", &1884u16.to_be_bytes()].concat()
    }

    fn client(proxy: &str) -> whimbrel_client::Builder {
        let builder = Client::builder("mqtt://broker.invalid:1884").expect("a URL");
        builder.proxy(proxy).expect("a URL of a proxy")
    }

    #[tokio::test]
    async fn the_proxy_looks_the_name_up_and_connects() {
        let (listener, port) = listener().await;
        let builder = client(&format!("socks5h://127.0.0.1:{port}"));
        let client = builder.start().expect("valid settings");
        greet(&client).await;
        let (mut stream, _) = listener.accept().await.expect("a connection");
        expect(&mut stream, &[5, 1, 0]).await;
        stream.write_all(&[5, 0]).await.expect("it listens");
        expect(&mut stream, &request()).await;
        stream.write_all(&GRANTED).await.expect("it listens");
        serve(&mut Peer::on(stream)).await;
    }

    #[tokio::test]
    async fn the_proxy_may_want_a_password() {
        let (listener, port) = listener().await;
        let builder = client(&format!("socks5h://ann:s3cret@127.0.0.1:{port}"));
        let client = builder.start().expect("valid settings");
        greet(&client).await;
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut methods = [0; 4];
        stream.read_exact(&mut methods).await.expect("bytes");
        assert!(methods[..2] == [5, 2] && methods[2..].contains(&2), "{methods:?}");
        stream.write_all(&[5, 2]).await.expect("it listens");
        expect(&mut stream, b"\x01\x03ann\x06s3cret").await;
        stream.write_all(&[1, 0]).await.expect("it listens");
        expect(&mut stream, &request()).await;
        stream.write_all(&GRANTED).await.expect("it listens");
        serve(&mut Peer::on(stream)).await;
    }

    #[tokio::test]
    async fn what_the_proxy_refuses_is_said_without_its_password() {
        let (listener, port) = listener().await;
        let builder = client(&format!("socks5h://ann:s3cret@127.0.0.1:{port}"));
        let (client, ()) = tokio::join!(builder.connect(), async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.read_exact(&mut [0; 4]).await.expect("bytes");
            stream.write_all(&[5, 0]).await.expect("it listens");
            expect(&mut stream, &request()).await;
            stream.write_all(&[5, 2, 0, 1, 0, 0, 0, 0, 0, 0]).await.expect("it listens");
        });
        let error = client.err().expect("refused").to_string();
        assert!(error.contains("broker.invalid:1884") && error.contains("proxy"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[tokio::test]
    async fn a_proxy_that_is_none_is_an_error() {
        let (listener, port) = listener().await;
        let (client, ()) =
            tokio::join!(client(&format!("socks5h://127.0.0.1:{port}")).connect(), async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("it listens");
            });
        assert!(client.is_err());
    }
}
