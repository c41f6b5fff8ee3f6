//! From sockets to the core.

use std::io;

use whimbrel_broker_core::{ConnId, Shard};

use super::EventLoop;
use crate::connection::Flag;
use crate::layer::{Layer, LayerEnd};

/// Handshakes of TLS that go a step further in a tick.
const HANDSHAKES: usize = 2;

impl EventLoop {
    /// The poll says that there is something to read. `hung_up`: the peer will send no more.
    #[inline]
    pub(super) fn handle_readable(&mut self, id: ConnId, hung_up: bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if hung_up {
            connection.set(Flag::HungUp);
        }
        // One of that list is read in this tick anyway.
        if connection.is(Flag::InReady) {
            return;
        }
        if self.congested {
            self.read_again(id);
        } else {
            self.read(id);
        }
    }

    /// Reads those for which no event will come.
    pub(super) fn read_ready(&mut self) {
        while let Some(id) = self.ready_now.pop() {
            if let Some(connection) = self.connections.get_mut(id)
                && connection.is(Flag::InReady)
            {
                connection.clear(Flag::InReady);
                self.read(id);
            }
        }
    }

    /// Has the connection read in the next tick.
    pub(super) fn read_again(&mut self, id: ConnId) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.raise(Flag::InReady)
        {
            self.ready.push(id);
        }
    }

    /// The core takes bytes again; edges may have come in the meantime.
    pub(super) fn resume(&mut self, id: ConnId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.clear(Flag::Paused);
            self.read_again(id);
        }
    }

    /// One read, and what follows from it. In a handshake of TLS it waits for its turn.
    #[inline]
    pub(super) fn read(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.layer.as_ref().is_some_and(|layer| layer.is_handshaking()) {
            self.read_now(id);
        } else if connection.raise(Flag::InHandshake) {
            self.handshakes.push_back(id);
        }
    }

    /// Reads those in a handshake, in the order in which they came. A step may cost a millisecond,
    /// so that a tick does but a few.
    pub(super) fn shake_hands(&mut self) {
        let mut left = HANDSHAKES;
        while left > 0
            && !self.congested
            && let Some(id) = self.handshakes.pop_front()
        {
            if let Some(connection) = self.connections.get_mut(id)
                && connection.is(Flag::InHandshake)
            {
                connection.clear(Flag::InHandshake);
                left -= usize::from(self.read_now(id));
            }
        }
    }

    /// Reads. True if there was something.
    fn read_now(&mut self, id: ConnId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        if connection.is(Flag::Paused) && !connection.is(Flag::Closing) {
            return false;
        }
        let torn = connection.layer.as_ref().map(|layer| layer.torn()).unwrap_or_default();
        let kept = torn.len();
        if let Some(front) = self.buffer.get_mut(..kept) {
            front.copy_from_slice(torn);
        }
        let room = self.buffer.get_mut(kept..).unwrap_or_default();
        let n = match connection.socket.read(room) {
            Ok(0) => {
                self.end_of_stream(id);
                return false;
            }
            Ok(n) => n,
            Err(error) => {
                match error.kind() {
                    io::ErrorKind::WouldBlock => {}
                    io::ErrorKind::Interrupted => self.read_again(id),
                    _ => self.lose(id),
                }
                return false;
            }
        };
        // A read that left room has taken all there was, but after the peer's last byte no event
        // will say that it hung up.
        let drained = n < room.len() && !connection.is(Flag::HungUp);
        if self.handle_bytes(id, kept + n) && !drained {
            self.read_again(id);
        }
        true
    }

    /// So many bytes stand in the buffer. False if nothing more is to be read.
    #[inline]
    fn handle_bytes(&mut self, id: ConnId, len: usize) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let Some(bytes) = self.buffer.get_mut(..len) else { return false };
        if connection.is(Flag::Closing) {
            // Only read so that the peer can read to the end itself.
        } else if let Some(layer) = &mut connection.layer {
            let decoded = layer.handle_bytes(bytes);
            let (wants_send, end) = (layer.wants_send(), decoded.end);
            if !decoded.mqtt.is_empty() {
                if self.core.is_new(id) {
                    introduce(&mut self.core, id, layer);
                }
                self.core.handle_bytes(self.now, id, decoded.mqtt);
            }
            if wants_send {
                self.write_again(id);
            }
            if let Some(end) = end {
                self.end_of_layer(id, end);
                return false;
            }
        } else {
            self.core.handle_bytes(self.now, id, bytes);
        }
        true
    }

    fn end_of_stream(&mut self, id: ConnId) {
        let writes = |flag| self.connections.get(id).is_some_and(|connection| connection.is(flag));
        // One who only said that it will send no more may still read what it is being sent.
        if !writes(Flag::Closing) || writes(Flag::Draining) {
            self.lose(id);
        }
    }

    /// The layer says that nothing more will come.
    fn end_of_layer(&mut self, id: ConnId, end: LayerEnd) {
        if let Some(fault) = end.fault {
            let peer = self.connections.peer_address(id);
            self.log.layer_fault(self.now, peer, &fault);
        }
        self.close(id, true);
    }
}

/// Tells the core what the layers have shown of a client, before its first bytes.
pub(super) fn introduce(core: &mut Shard, id: ConnId, layer: &Layer) {
    if let Some(source) = layer.source() {
        core.handle_source(id, source);
    }
    if let Some(proof) = layer.proof() {
        core.handle_proof(id, proof.clone());
    }
}
