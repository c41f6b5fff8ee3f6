//! TLS between the socket and what is spoken on it.

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Socket;
use crate::{Address, Error, Tls};

/// Opens TLS to the server of `address`, in at most the time of `patience`.
pub(super) async fn open(
    address: &Address,
    tls: &Tls,
    socket: Socket,
    patience: Duration,
) -> Result<Socket, Error> {
    let failed = |error: io::Error| Error::Connect(address.to_string(), error);
    let name = address.host_and_port().and_then(|(host, _)| ServerName::try_from(host).ok());
    let Some(name) = name.map(|name| name.to_owned()) else {
        let what = "not a name that a certificate can be for";
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, what)));
    };
    let connector = TlsConnector::from(tls.config());
    let opened = match socket {
        Socket::Tcp(tcp) => {
            let opened = timeout(patience, connector.connect(name, tcp)).await;
            opened.map(|result| result.map(|stream| Socket::Tls(Box::new(stream))))
        }
        other => {
            let opened = timeout(patience, connector.connect(name, other.into_stream())).await;
            opened.map(|result| result.map(|stream| Socket::Other(Box::new(stream))))
        }
    };
    match opened {
        Ok(result) => result.map_err(Error::from_socket),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}
