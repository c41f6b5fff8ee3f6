//! One client on one socket, driven by readiness.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::time::Duration;

use mio::{Registry, Token};
use rustls::ClientConnection;
use whimbrel_client_core::{Client, Event, Limits, Millis};
use whimbrel_codec::Connect;
use whimbrel_transport::websocket;

use super::stream::Stream;
use super::tls;
use crate::address::bracketed;
use crate::{Address, Error};

/// The payload of a WebSocket frame, in bytes, at most.
const FRAME_LEN_MAX: usize = 64 * 1024;

/// A sans-I/O client, its socket, and between them TLS and WebSocket, if they are asked for.
///
/// Register it edge-triggered, tell [`Link::handle_ready`] what the poll reports, and call
/// [`Link::drive`] whenever it is readable, writable or has been given a command.
pub struct Link {
    /// For commands and getters; its inputs and outputs are the link's business.
    pub client: Client<'static>,
    stream: Stream,
    tls: Option<Box<ClientConnection>>,
    websocket: Option<WebSocket>,
    readable: bool,
    writable: bool,
}

struct WebSocket {
    layer: websocket::client::Client,
    /// Frames that the socket has not taken.
    pending: Vec<u8>,
}

impl Link {
    /// Makes the network connection, blocking for at most `timeout` per address, and queues
    /// CONNECT.
    pub fn connect(
        address: &Address,
        timeout: Duration,
        limits: Limits,
        connect: &Connect<'_>,
        now: Millis,
    ) -> Result<Link, Error> {
        let stream = open(address, timeout)?;
        let (tls, websocket) = layers(address)?;
        let mut client = Client::new(limits);
        client.connect(now, connect)?;
        Ok(Link { client, stream, tls, websocket, readable: true, writable: true })
    }

    /// As [`Link::connect`], with the session of this client. The socket is to be registered anew.
    pub fn reconnect(
        &mut self,
        address: &Address,
        timeout: Duration,
        connect: &Connect<'_>,
        now: Millis,
    ) -> Result<(), Error> {
        self.client.handle_connection_lost();
        let stream = open(address, timeout)?;
        let (tls, websocket) = layers(address)?;
        self.client.connect(now, connect)?;
        self.stream = stream;
        self.tls = tls;
        self.websocket = websocket;
        self.readable = true;
        self.writable = true;
        Ok(())
    }

    /// Registers the socket for both directions, edge-triggered.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.register(registry, token)
    }

    /// The poll reported the socket.
    pub fn handle_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// True while [`Link::drive`] has something to do without another report of the poll.
    pub fn is_ready(&self) -> bool {
        (self.readable && self.client.wants_bytes()) || (self.writable && self.has_output())
    }

    /// True while bytes wait for the socket.
    pub fn has_output(&self) -> bool {
        match &self.tls {
            Some(tls) => tls.wants_write() || (!tls.is_handshaking() && self.has_plain_output()),
            None => self.has_plain_output(),
        }
    }

    fn has_plain_output(&self) -> bool {
        match &self.websocket {
            Some(ws) => {
                !ws.pending.is_empty()
                    || (ws.layer.is_open() && self.client.poll_transmit().is_some())
            }
            None => self.client.poll_transmit().is_some(),
        }
    }

    /// Writes what waits, then reads once into `buffer`. Drain [`Link::poll_event`] afterwards,
    /// also before acting on an error.
    pub fn drive(&mut self, now: Millis, buffer: &mut [u8]) -> Result<(), Error> {
        self.client.handle_timeout(now);
        self.write(now)?;
        if self.readable && self.client.wants_bytes() {
            self.read(now, buffer)?;
        }
        Ok(())
    }

    /// See [`Client::poll_event`].
    pub fn poll_event(&mut self) -> Option<Event<'_>> {
        self.client.poll_event()
    }

    /// Writes what waits, as far as the socket takes it.
    pub fn write(&mut self, now: Millis) -> Result<(), Error> {
        while self.writable {
            let bytes = match &mut self.websocket {
                Some(ws) => ws.fill(&mut self.client, now),
                None => self.client.poll_transmit().unwrap_or_default(),
            };
            if bytes.is_empty() {
                return self.write_tls();
            }
            let written = match &mut self.tls {
                Some(tls) => Ok(tls::send(tls, bytes)),
                None => self.stream.write(bytes),
            };
            match written {
                // TLS has something to do first.
                Ok(0) if self.tls.is_some() => {
                    self.write_tls()?;
                    if self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
                        return Ok(());
                    }
                }
                Ok(len) => match &mut self.websocket {
                    Some(ws) => drop(ws.pending.drain(..len)),
                    None => self.client.handle_transmitted(now, len),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Lost(error)),
            }
        }
        Ok(())
    }

    /// Writes what TLS has encrypted, as far as the socket takes it.
    fn write_tls(&mut self) -> Result<(), Error> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while self.writable && tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Lost(error)),
            }
        }
        Ok(())
    }

    /// Tells the server that nothing more will come, if there is a way to do so.
    pub(crate) fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // It was only politeness.
            let _ = self.write_tls();
        }
    }

    /// Whether the socket took all that it was given last.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Reads and forgets; true once the server has closed the connection.
    pub(crate) fn discard(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    fn read(&mut self, now: Millis, buffer: &mut [u8]) -> Result<(), Error> {
        let read = match &mut self.tls {
            Some(tls) => tls::receive(tls, &mut self.stream, buffer),
            None => self.stream.read(buffer).map_err(Error::Lost),
        };
        let len = match read {
            // What TLS has to answer goes out.
            Ok(0) if self.tls.is_some() => return self.write(now),
            Ok(0) => return Err(Error::Lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(len) => len,
            Err(Error::Lost(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(());
            }
            Err(Error::Lost(error)) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        };
        let bytes = buffer.get_mut(..len).unwrap_or_default();
        let Some(ws) = &mut self.websocket else {
            self.client.handle_bytes(now, bytes);
            return Ok(());
        };
        let decoded = ws.layer.handle_bytes(bytes);
        self.client.handle_bytes(now, decoded.mqtt);
        ws.layer.poll_output(&mut random, &mut ws.pending);
        match decoded.end {
            Some(end) => Err(Error::WebSocket(end)),
            None => Ok(()),
        }
    }
}

fn open(address: &Address, timeout: Duration) -> Result<Stream, Error> {
    Stream::connect(address, timeout).map_err(|error| Error::Connect(address.to_string(), error))
}

/// What is to stand between the socket and MQTT.
type Layers = (Option<Box<ClientConnection>>, Option<WebSocket>);

fn layers(address: &Address) -> Result<Layers, Error> {
    let Address::Tls { inner, tls } = address else { return Ok((None, WebSocket::new(address)?)) };
    let (Address::Tcp { host, .. } | Address::WebSocket { host, .. }) = &**inner else {
        return Err(Error::Connect(address.to_string(), io::ErrorKind::Unsupported.into()));
    };
    Ok((Some(tls::connect(tls, host)?), WebSocket::new(inner)?))
}

impl WebSocket {
    fn new(address: &Address) -> Result<Option<WebSocket>, Error> {
        let Address::WebSocket { host, port, path } = address else { return Ok(None) };
        let host = format!("{}:{port}", bracketed(host));
        let request = websocket::client::Request { host: &host, path, headers: &[] };
        let mut nonce = [0; 16];
        nonce.chunks_exact_mut(4).for_each(|chunk| chunk.copy_from_slice(&random()));
        let mut layer = websocket::client::Client::new(&request, nonce).map_err(|invalid| {
            let what = format!("{} cannot be sent in a request", invalid.part);
            let error = io::Error::new(io::ErrorKind::InvalidInput, what);
            Error::Connect(address.to_string(), error)
        })?;
        let mut pending = Vec::new();
        layer.poll_output(&mut random, &mut pending);
        Ok(Some(WebSocket { layer, pending }))
    }

    /// Frames the client's next bytes once those before are gone.
    fn fill(&mut self, client: &mut Client<'_>, now: Millis) -> &[u8] {
        if self.pending.is_empty()
            && let Some(bytes) = client.poll_transmit()
        {
            let chunk = bytes.get(..FRAME_LEN_MAX).unwrap_or(bytes);
            if self.layer.encode(chunk, &mut random, &mut self.pending) {
                let len = chunk.len();
                client.handle_transmitted(now, len);
            }
        }
        &self.pending
    }
}

/// The standard library's hash keys come from the system's random source and are kept secret,
/// which is what a mask key needs to be unforeseeable.
fn random() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_be_bytes();
    [a, b, c, d]
}
