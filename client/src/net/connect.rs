//! Opening the network connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::websocket::WebSocket;
use super::{Link, Socket};
use crate::address::bracketed;
use crate::config::Config;
use crate::{Address, Error, Tls};

/// Connects, trying every address that the host's name stands for, each for the configured time.
/// `bearer` is shown in the request of a WebSocket.
pub(crate) async fn connect(config: &Config, bearer: Option<&str>) -> Result<Link, Error> {
    if let Some(connector) = &config.connector {
        let stream = connector.open().await;
        let stream = stream.map_err(|error| Error::Connect(config.address.to_string(), error))?;
        return link(Socket::Other(stream), &config.address, bearer);
    }
    match &config.address {
        Address::Tls { inner, tls } => {
            let tcp = tcp(config, inner).await?;
            let socket = open_tls(inner, tls, tcp, config.connect_timeout).await?;
            link(socket, inner, bearer)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            let failed = |error| Error::Connect(config.address.to_string(), error);
            link(Socket::Unix(stream.map_err(failed)?), &config.address, bearer)
        }
        plain => link(Socket::Tcp(tcp(config, plain).await?), plain, bearer),
    }
}

fn link(socket: Socket, address: &Address, bearer: Option<&str>) -> Result<Link, Error> {
    let websocket = match address {
        Address::WebSocket { host, port, path } => {
            let host = format!("{}:{port}", bracketed(host));
            let bearer = bearer.map(|token| format!("Bearer {token}"));
            let headers: Vec<_> = bearer.iter().map(|b| ("Authorization", b.as_str())).collect();
            Some(WebSocket::new(&host, path, &headers)?)
        }
        _ => None,
    };
    Ok(Link { socket, websocket, needs_flush: false })
}

async fn tcp(config: &Config, address: &Address) -> Result<TcpStream, Error> {
    let failed = |error| Error::Connect(address.to_string(), error);
    let (Address::Tcp { host, port } | Address::WebSocket { host, port, .. }) = address else {
        return Err(failed(io::ErrorKind::Unsupported.into()));
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host.as_str(), *port)).await.map_err(failed)? {
        let attempt = timeout(config.connect_timeout, open_tcp(address, config.bind_address));
        match attempt.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(failed)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failed(failure))
}

async fn open_tcp(address: SocketAddr, from: Option<std::net::IpAddr>) -> io::Result<TcpStream> {
    let Some(from) = from else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(address).await
}

async fn open_tls(
    address: &Address,
    tls: &Tls,
    tcp: TcpStream,
    patience: Duration,
) -> Result<Socket, Error> {
    let (Address::Tcp { host, .. } | Address::WebSocket { host, .. }) = address else {
        let error = io::ErrorKind::Unsupported.into();
        return Err(Error::Connect(address.to_string(), error));
    };
    let name = ServerName::try_from(host.clone()).map_err(|_| {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a name for TLS");
        Error::Connect(host.clone(), error)
    })?;
    let handshake = TlsConnector::from(tls.config()).connect(name, tcp);
    match timeout(patience, handshake).await {
        Ok(Ok(stream)) => Ok(Socket::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(Error::from_socket(error)),
        Err(_) => Err(Error::Connect(address.to_string(), io::ErrorKind::TimedOut.into())),
    }
}
