//! Sockets of clients, whatever their family.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// A connected, non-blocking socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! each {
    ($socket:expr, $inner:ident => $do:expr) => {
        match $socket {
            Socket::Tcp($inner) => $do,
            Socket::Unix($inner) => $do,
        }
    };
}

impl Socket {
    /// Registers for everything that will ever be asked of it: edges of both directions.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        each!(self, socket => registry.register(socket, token, interest))
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        each!(self, socket => registry.deregister(socket))
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        each!(self, socket => socket.read(buffer))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, socket => socket.write(bytes))
    }

    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        each!(self, socket => socket.write_vectored(slices))
    }

    /// The peer will read the end of the stream; it can still be read from.
    pub(crate) fn shut_down_write(&self) -> io::Result<()> {
        each!(self, socket => socket.shutdown(Shutdown::Write))
    }

    /// None for a Unix socket, or if the peer is gone.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(socket) => socket.peer_addr().ok(),
            Socket::Unix(_) => None,
        }
    }
}
