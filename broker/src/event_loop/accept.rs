//! Connections that begin here, come from another shard, or go to one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::{Interest, Registry, Token};
use whimbrel_broker_core::{ConnId, Millis, Peer};
use whimbrel_transport::tls::Fault;
use whimbrel_transport::websocket::server;

use super::EventLoop;
use super::read::introduce;
use crate::config::Network;
use crate::connection::{Connection, Flag};
use crate::layer::Layer;
use crate::listen::Acceptor;
use crate::mailbox::Moved;
use crate::socket::Socket;
use crate::tls::TlsListener;

/// Connections accepted from one listener in a tick: a storm of them must not hold up the others.
const BATCH: usize = 8;
/// How long to wait when the process can open no more files.
const RETRY_MS: u64 = 1000;

/// What is spoken on a listener.
#[derive(Clone)]
pub(crate) struct Speaks {
    pub(crate) proxy_from: Arc<[Network]>,
    pub(crate) tls: Option<Arc<TlsListener>>,
    pub(crate) websocket: Option<Arc<server::Config>>,
}

impl Speaks {
    fn is_proxy(&self, from: &SocketAddr) -> bool {
        self.proxy_from.iter().any(|net| net.contains(from.ip()))
    }

    /// The layers of a new connection; none if it has none.
    fn layer(&self, from: Option<SocketAddr>) -> Result<Option<Box<Layer>>, Fault> {
        let mut layer = None;
        if from.is_some_and(|from| self.is_proxy(&from)) {
            layer.get_or_insert_with(Box::<Layer>::default).expect_proxy();
        }
        if let Some(listener) = &self.tls {
            layer.get_or_insert_with(Box::<Layer>::default).add_tls(listener)?;
        }
        if let Some(config) = &self.websocket {
            layer.get_or_insert_with(Box::<Layer>::default).add_websocket(config.clone());
        }
        Ok(layer)
    }
}

/// A listener of this shard.
pub(super) struct Accepting {
    /// Its index in the configuration.
    listener: u16,
    acceptor: Acceptor,
    speaks: Speaks,
    /// When there may be connections to accept.
    due: Option<Millis>,
    /// The last attempt failed, which was logged.
    failed: bool,
}

impl Accepting {
    pub(super) fn new(
        listener: u16,
        mut acceptor: Acceptor,
        speaks: Speaks,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Accepting> {
        match &mut acceptor {
            Acceptor::Tcp(listener) => registry.register(listener, token, Interest::READABLE)?,
            Acceptor::Unix(listener) => registry.register(listener, token, Interest::READABLE)?,
        }
        Ok(Accepting { listener, acceptor, speaks, due: None, failed: false })
    }

    /// When it is to be asked for connections.
    pub(super) fn due(&self) -> Option<Millis> {
        self.due
    }

    pub(super) fn handle_readable(&mut self) {
        self.due.get_or_insert_default();
    }

    /// The next connection, if there is one.
    fn next(&mut self, now: Millis) -> Option<(Socket, Option<SocketAddr>)> {
        let accepted = match &self.acceptor {
            Acceptor::Tcp(listener) => {
                listener.accept().map(|(socket, from)| (Socket::Tcp(socket), Some(from)))
            }
            Acceptor::Unix(listener) => {
                listener.accept().map(|(socket, _)| (Socket::Unix(socket), None))
            }
        };
        match accepted {
            Ok((socket, address)) => {
                self.failed = false;
                Some((socket, address))
            }
            Err(error) => {
                self.due = self.after_error(&error, now);
                None
            }
        }
    }

    /// When to try again after no connection could be accepted.
    fn after_error(&mut self, error: &io::Error, now: Millis) -> Option<Millis> {
        match error.kind() {
            io::ErrorKind::WouldBlock => return None,
            // The peer went before it was accepted; others may wait behind it.
            io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => return Some(now),
            _ => {}
        }
        if !std::mem::replace(&mut self.failed, true) {
            tracing::error!("cannot accept connections, trying again every second: {error}");
        }
        Some(Millis(now.0 + RETRY_MS))
    }
}

impl EventLoop {
    /// Accepts a batch from each listener. What a client has already sent is read at once: most
    /// often that is its CONNECT, which may send it to another shard.
    pub(super) fn accept(&mut self) {
        if self.congested {
            return;
        }
        for at in 0..self.acceptors.len() {
            for _ in 0..BATCH {
                let Some(accepting) = self.acceptors.get_mut(at) else { return };
                if accepting.due.is_none_or(|due| due > self.now) {
                    break;
                }
                let Some((socket, from)) = accepting.next(self.now) else { break };
                // Whose connection it is, a proxy tells later.
                let address = from.filter(|from| !accepting.speaks.is_proxy(from));
                let mut peer = peer(&socket, None, address);
                peer.listener = accepting.listener;
                if let Err(why) = self.core.may_open(self.now, &peer) {
                    self.log.turned_away(self.now, &peer, why);
                    continue;
                }
                match accepting.speaks.layer(from) {
                    Ok(layer) => {
                        peer.transport = transport(&socket, layer.as_deref());
                        let id = self.open(socket, layer, peer);
                        self.read(id);
                    }
                    Err(fault) => {
                        self.log.layer_fault(self.now, from, &fault.to_string());
                    }
                }
            }
        }
    }

    fn open(&mut self, socket: Socket, layer: Option<Box<Layer>>, peer: Peer) -> ConnId {
        let id = self.core.handle_open(self.now, peer);
        self.connections.insert(id, Connection::new(socket, layer), peer.address);
        self.fresh.push(id);
        id
    }

    /// A connection comes from another shard.
    pub(super) fn arrive(&mut self, moved: Moved) {
        if self.stop_by.is_some() {
            return;
        }
        let Moved { socket, layer, peer, bytes } = moved;
        let id = self.open(socket, layer, peer);
        let connection = self.connections.get_mut(id);
        if let Some(layer) = connection.and_then(|connection| connection.layer.as_ref()) {
            introduce(&mut self.core, id, layer);
        }
        self.core.handle_bytes(self.now, id, &bytes);
        // What the layer had to answer goes along.
        self.write_again(id);
        // On the way it was in no shard that could have looked at it.
        self.check_certificate(id);
    }

    /// A connection's session lives in another shard. Events that were pending here are not
    /// missed: when the socket is registered there, the poll reports how it stands.
    pub(super) fn depart(&mut self, id: ConnId, to: usize, bytes: Vec<u8>) {
        let address = self.connections.peer_address(id);
        let Some(mut connection) = self.connections.remove(id) else { return };
        self.gone.push(id);
        if connection.is(Flag::Registered)
            && let Err(error) = connection.socket.deregister(self.poll.registry())
        {
            tracing::error!("cannot hand over a connection: {error}");
            return;
        }
        let mut peer = peer(&connection.socket, connection.layer.as_deref(), address);
        peer.listener = self.core.listener(id);
        let Connection { socket, layer, .. } = connection;
        if let Some(leaving) = self.leaving.get_mut(to) {
            leaving.push(Moved { socket, layer, peer, bytes });
        }
    }
}

fn peer(socket: &Socket, layer: Option<&Layer>, address: Option<SocketAddr>) -> Peer {
    Peer { transport: transport(socket, layer), address, listener: 0 }
}

fn transport(socket: &Socket, layer: Option<&Layer>) -> &'static str {
    match (socket, layer) {
        (_, Some(layer)) => layer.transport(),
        (Socket::Tcp(_), None) => "tcp",
        (Socket::Unix(_), None) => "unix",
    }
}
