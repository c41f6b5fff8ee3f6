//! TLS on a stream that does not block.

use std::io::{self, Read, Write};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::stream::Stream;
use crate::{Error, Tls};

/// A connection to the server of this name or address.
pub(super) fn connect(tls: &Tls, host: &str) -> Result<Box<ClientConnection>, Error> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a name for TLS");
        Error::Connect(host.to_owned(), error)
    })?;
    Ok(Box::new(ClientConnection::new(tls.config(), name).map_err(Error::Tls)?))
}

/// Reads once from the socket and gives the plaintext; 0 bytes if there is none yet.
pub(super) fn receive(
    tls: &mut ClientConnection,
    stream: &mut Stream,
    buffer: &mut [u8],
) -> Result<usize, Error> {
    match tls.read_tls(stream) {
        Ok(0) => return Err(Error::Lost(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => {}
        Err(error) => return Err(Error::Lost(error)),
    }
    if let Err(error) = tls.process_new_packets() {
        // The server is told why, if it still listens.
        let _ = tls.write_tls(stream);
        return Err(Error::Tls(error));
    }
    match tls.reader().read(buffer) {
        Ok(0) => Err(Error::Lost(io::ErrorKind::UnexpectedEof.into())),
        Ok(len) => Ok(len),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(Error::Lost(error)),
    }
}

/// Encrypts `plain`, unless the handshake is to be done first or more waits than fits. Gives how
/// many bytes it took.
pub(super) fn send(tls: &mut ClientConnection, plain: &[u8]) -> usize {
    if tls.is_handshaking() || tls.wants_write() {
        return 0;
    }
    // It only fills a buffer.
    tls.writer().write(plain).unwrap_or(0)
}
