//! A socket of any kind, never blocking.

use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};

use crate::Address;

pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Stream {
    /// Connects, trying every address that the host's name stands for, each for `timeout`.
    pub(crate) fn connect(address: &Address, timeout: Duration) -> io::Result<Stream> {
        let (host, port) = match address {
            Address::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                return Ok(Stream::Unix(mio::net::UnixStream::from_std(stream)));
            }
            Address::Tls { inner, .. } => return Stream::connect(inner, timeout),
            Address::Tcp { host, port } | Address::WebSocket { host, port, .. } => (host, *port),
        };
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (host.as_str(), port).to_socket_addrs()? {
            match std::net::TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    return Ok(Stream::Tcp(mio::net::TcpStream::from_std(stream)));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interests),
            Stream::Unix(stream) => stream.register(registry, token, interests),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
