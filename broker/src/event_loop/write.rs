//! From the core to sockets.

use std::io::{self, IoSlice};

use whimbrel_broker_core::{ConnId, Millis};
use whimbrel_transport::tls::BATCH_LEN_MAX;

use super::{EventLoop, LINGER_MS};
use crate::connection::Flag;

/// Slices in one write.
const SLICES: usize = 64;
/// Writes to a connection that is closed without waiting.
const GOODBYE_WRITES: usize = 4;

/// What became of a write.
enum Written {
    /// Nothing is left.
    All,
    /// The socket could take more, and there is more.
    Some,
    /// The socket takes no more; a writable event will come.
    Blocked,
    /// The connection is gone.
    Failed,
}

impl EventLoop {
    /// The socket takes bytes again.
    #[inline]
    pub(super) fn handle_writable(&mut self, id: ConnId) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.is(Flag::Blocked)
        {
            connection.clear(Flag::Blocked);
            self.write_again(id);
        }
    }

    /// Has the connection written at the end of the tick, though the core may not ask for it.
    pub(super) fn write_again(&mut self, id: ConnId) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.raise(Flag::InAgain)
        {
            self.again.push(id);
        }
    }

    pub(super) fn send_again(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.clear(Flag::InAgain);
        if connection.is(Flag::Closing) { self.finish(id) } else { self.send(id) }
    }

    /// Sends what waits, once in a tick: one whose reader keeps up must not hold up the others.
    #[inline]
    pub(super) fn send(&mut self, id: ConnId) {
        let tick = self.tick;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.is(Flag::Blocked) || connection.is(Flag::Closing) {
            return;
        }
        if connection.sent_tick == tick {
            return self.write_again(id);
        }
        connection.sent_tick = tick;
        match self.write(id) {
            Written::All | Written::Blocked => {}
            Written::Some => self.write_again(id),
            Written::Failed => self.lose(id),
        }
    }

    /// Closes a connection when what waits has been sent.
    pub(super) fn close(&mut self, id: ConnId, linger: bool) {
        let deadline = Millis(self.now.0 + LINGER_MS);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.raise(Flag::Closing) {
            return;
        }
        connection.close_by(deadline);
        if let Some(layer) = &mut connection.layer {
            layer.close();
        }
        if linger {
            connection.set(Flag::Linger);
            self.closing.push_back((deadline, id));
        }
        self.finish(id);
    }

    /// Goes on closing.
    fn finish(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get(id) else { return };
        if connection.is(Flag::Draining) {
            return;
        }
        if !connection.is(Flag::Linger) {
            // The peer has said goodbye, or is not worth waiting for.
            for _ in 0..GOODBYE_WRITES {
                if !matches!(self.write(id), Written::Some) {
                    break;
                }
            }
            return self.lose(id);
        }
        if connection.is(Flag::Blocked) {
            return;
        }
        match self.write(id) {
            Written::Blocked => {}
            Written::Some => self.write_again(id),
            Written::Failed => self.lose(id),
            Written::All => self.wait_for_end(id),
        }
    }

    /// All is sent. Closing now, with unread bytes from the peer, would reset the connection and
    /// might take from the peer what was sent last.
    fn wait_for_end(&mut self, id: ConnId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.set(Flag::Draining);
        if connection.socket.shut_down_write().is_err() {
            return self.lose(id);
        }
        self.read_again(id);
    }

    /// One write of what waits.
    fn write(&mut self, id: ConnId) -> Written {
        let Some(connection) = self.connections.get_mut(id) else { return Written::Failed };
        if connection.layer.is_some() {
            return self.write_layered(id);
        }
        let mut chunks = self.core.output(id);
        let Some(first) = chunks.next() else { return Written::All };
        let (result, offered, more) = match chunks.next() {
            None => (connection.socket.write(first), first.len(), false),
            Some(second) => {
                let mut slices = Slices::default();
                slices.push(first);
                slices.push(second);
                let more = chunks.any(|chunk| !slices.push(chunk));
                (connection.socket.write_vectored(slices.as_slice()), slices.len_bytes, more)
            }
        };
        let n = match taken(result) {
            Ok(n) => n,
            Err(end) => return end,
        };
        self.wrote(id, n < offered, n, more)
    }

    /// The same with what the layer puts around.
    fn write_layered(&mut self, id: ConnId) -> Written {
        let Some(connection) = self.connections.get_mut(id) else { return Written::Failed };
        let Some(layer) = &mut connection.layer else { return Written::Failed };
        let waiting = self.core.output(id).map(<[u8]>::len).sum();
        let allowed = layer.poll_send(waiting, &mut self.head);
        if layer.encrypts() {
            return self.write_sealed(id, waiting, allowed);
        }
        let mut slices = Slices::default();
        if !self.head.is_empty() {
            slices.push(&self.head);
        }
        let mut left = allowed;
        for chunk in self.core.output(id) {
            let part = chunk.get(..left).unwrap_or(chunk);
            if part.is_empty() || !slices.push(part) {
                break;
            }
            left -= part.len();
        }
        if slices.len_bytes == 0 {
            return Written::All;
        }
        let n = match taken(connection.socket.write_vectored(slices.as_slice())) {
            Ok(n) => n,
            Err(end) => return end,
        };
        let blocked = n < slices.len_bytes;
        let mqtt = layer.handle_written(n, &self.head);
        // A goodbye follows the last MQTT bytes in a write of its own.
        let more = mqtt < waiting || layer.wants_send();
        self.wrote(id, blocked, mqtt, more)
    }

    /// Encrypts one batch of what the layers above TLS give, and writes it. What the socket does not
    /// take stays with the layer, and nothing more is encrypted before it is gone.
    fn write_sealed(&mut self, id: ConnId, waiting: usize, allowed: usize) -> Written {
        let Some(connection) = self.connections.get_mut(id) else { return Written::Failed };
        let Some(layer) = &mut connection.layer else { return Written::Failed };
        let plain = gather(&self.head, self.core.output(id), allowed, &mut self.gathered);
        let Ok(sealed) = layer.seal(plain, &mut self.sealed) else { return Written::Failed };
        let mqtt = layer.handle_written(sealed, &self.head);
        if self.sealed.is_empty() {
            return Written::All;
        }
        let n = match taken(connection.socket.write(&self.sealed)) {
            Ok(n) => n,
            Err(end) => return end,
        };
        layer.handle_sealed_written(n, &self.sealed);
        let blocked = n < self.sealed.len();
        let more = mqtt < waiting || layer.wants_send();
        self.wrote(id, blocked, mqtt, more)
    }

    /// The socket took `n` MQTT bytes.
    fn wrote(&mut self, id: ConnId, blocked: bool, n: usize, more: bool) -> Written {
        if blocked && let Some(connection) = self.connections.get_mut(id) {
            connection.set(Flag::Blocked);
        }
        if n > 0 {
            self.core.handle_written(self.now, id, n);
        }
        match (blocked, more) {
            (true, _) => Written::Blocked,
            (false, true) => Written::Some,
            (false, false) => Written::All,
        }
    }
}

/// `head` and the first `allowed` bytes of the chunks, as far as they go into one batch; copied only
/// if they are not in one piece.
fn gather<'a>(
    head: &'a [u8],
    mut chunks: impl Iterator<Item = &'a [u8]>,
    allowed: usize,
    gathered: &'a mut Vec<u8>,
) -> &'a [u8] {
    let len = (head.len() + allowed).min(BATCH_LEN_MAX);
    let mut next = chunks.next().unwrap_or_default();
    if head.is_empty()
        && let Some(piece) = next.get(..len)
    {
        return piece;
    }
    gathered.clear();
    gathered.extend_from_slice(head.get(..len).unwrap_or(head));
    while gathered.len() < len && !next.is_empty() {
        let left = len - gathered.len();
        gathered.extend_from_slice(next.get(..left).unwrap_or(next));
        next = chunks.next().unwrap_or_default();
    }
    gathered
}

/// How many bytes a write took.
fn taken(result: io::Result<usize>) -> Result<usize, Written> {
    match result {
        Ok(n) => Ok(n),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(0),
            io::ErrorKind::Interrupted => Err(Written::Some),
            _ => Err(Written::Failed),
        },
    }
}

/// What one write offers.
struct Slices<'a> {
    slices: [IoSlice<'a>; SLICES],
    len: usize,
    len_bytes: usize,
}

impl Default for Slices<'_> {
    fn default() -> Self {
        Slices { slices: [IoSlice::new(&[]); SLICES], len: 0, len_bytes: 0 }
    }
}

impl<'a> Slices<'a> {
    /// False if there is no room for it.
    fn push(&mut self, bytes: &'a [u8]) -> bool {
        let Some(slot) = self.slices.get_mut(self.len) else { return false };
        *slot = IoSlice::new(bytes);
        self.len += 1;
        self.len_bytes += bytes.len();
        true
    }

    fn as_slice(&self) -> &[IoSlice<'a>] {
        self.slices.get(..self.len).unwrap_or_default()
    }
}
