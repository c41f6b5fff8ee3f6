//! What the runtime keeps for each connection: little, for there may be very many.

use std::net::SocketAddr;

use whimbrel_broker_core::{ConnId, Millis};

use crate::layer::Layer;
use crate::socket::Socket;

/// A connection's socket and where it stands.
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) layer: Option<Box<Layer>>,
    /// When a closing connection is dropped, in milliseconds; the low bits are enough to tell.
    close_deadline: u32,
    /// The tick in which it last sent, for one send per tick.
    pub(crate) sent_tick: u16,
    flags: u16,
}

// An idle plain connection costs no more than this, outside of the core. (In debug builds mio keeps
// more about a socket.)
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Option<Connection>>() <= 24);

/// A property of a connection.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(crate) enum Flag {
    /// It was registered with the poll.
    Registered = 1,
    /// The last write took less than was offered; a writable event will come.
    Blocked = 2,
    /// The core wants no more of its bytes for now.
    Paused = 4,
    /// It stands in the list of those to read in the next tick.
    InReady = 8,
    /// It stands in the list of those to write at the end of the tick.
    InAgain = 16,
    /// The peer will send no more: read until the end, for no event will come.
    HungUp = 32,
    /// What waits is still written, then it is closed.
    Closing = 64,
    /// All is written; closed once the peer closes.
    Draining = 128,
    /// Closing is to wait for the peer.
    Linger = 256,
    /// It stands in the list of those in a handshake of TLS that are to be read.
    InHandshake = 512,
}

impl Connection {
    pub(crate) fn new(socket: Socket, layer: Option<Box<Layer>>) -> Connection {
        Connection { socket, layer, close_deadline: 0, sent_tick: 0, flags: 0 }
    }

    #[inline]
    pub(crate) fn is(&self, flag: Flag) -> bool {
        self.flags & flag as u16 != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u16;
    }

    #[inline]
    pub(crate) fn clear(&mut self, flag: Flag) {
        self.flags &= !(flag as u16);
    }

    /// Sets the flag and says whether it was not set before.
    #[inline]
    pub(crate) fn raise(&mut self, flag: Flag) -> bool {
        let new = !self.is(flag);
        self.set(flag);
        new
    }

    pub(crate) fn close_by(&mut self, deadline: Millis) {
        self.close_deadline = deadline.0 as u32;
    }

    /// Whether it is this connection that was to be closed by then, not a later one of its slot.
    pub(crate) fn is_due(&self, deadline: Millis) -> bool {
        self.is(Flag::Closing) && self.close_deadline == deadline.0 as u32
    }
}

/// As many connections as are likely to be opened in a tick.
const RECENT: usize = 64;

/// The connections of a shard, by the number that the core gave them.
pub(crate) struct Connections {
    slots: Vec<Option<Connection>>,
    len: usize,
    /// Addresses that accepting told, by the low bits of the number. Most are asked for at once,
    /// when the CONNECT is logged; those that were overwritten cost a system call.
    recent: [Option<(ConnId, SocketAddr)>; RECENT],
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { slots: Vec::new(), len: 0, recent: [None; RECENT] }
    }
}

impl Connections {
    pub(crate) fn insert(
        &mut self,
        id: ConnId,
        connection: Connection,
        address: Option<SocketAddr>,
    ) {
        let at = id.0 as usize;
        if let Some(recent) = self.recent.get_mut(at % RECENT) {
            *recent = address.map(|address| (id, address));
        }
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        if let Some(slot) = self.slots.get_mut(at)
            && slot.replace(connection).is_none()
        {
            self.len += 1;
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    /// None for a Unix socket, or if the peer is gone.
    pub(crate) fn peer_address(&self, id: ConnId) -> Option<SocketAddr> {
        let connection = self.get(id)?;
        if let Some(source) = connection.layer.as_ref().and_then(|layer| layer.source()) {
            return Some(source);
        }
        match self.recent.get(id.0 as usize % RECENT) {
            Some(Some((recent, address))) if *recent == id => Some(*address),
            _ => connection.socket.peer_address(),
        }
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        let removed = self.slots.get_mut(id.0 as usize)?.take()?;
        self.len -= 1;
        Some(removed)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Numbers from here on are not in use.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }
}
