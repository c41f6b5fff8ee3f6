//! WebSocket between the socket and MQTT.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::task::{Context, Poll, ready};

use whimbrel_transport::websocket::End;
use whimbrel_transport::websocket::client::{Client, Request};

use super::Socket;
use crate::Error;
use crate::address::bracketed;

/// The payload of a frame, in bytes, at most.
const FRAME_LEN_MAX: usize = 64 * 1024;

pub(crate) struct WebSocket {
    layer: Client,
    /// Frames that the socket has not taken, after the `written` bytes that it has.
    pending: Vec<u8>,
    written: usize,
    /// Comes after bytes that were given already.
    end: Option<End>,
}

impl WebSocket {
    pub(crate) fn new(
        host: &str,
        port: u16,
        path: &str,
        bearer: Option<&str>,
    ) -> Result<WebSocket, Error> {
        let host = format!("{}:{port}", bracketed(host));
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|b| ("Authorization", b.as_str())).collect();
        let mut nonce = [0; 16];
        nonce.chunks_exact_mut(4).for_each(|chunk| chunk.copy_from_slice(&random()));
        let request = Request { host: &host, path, headers: &headers };
        let mut layer = Client::new(&request, nonce).map_err(|invalid| {
            let what = format!("{} cannot be sent in a request", invalid.part);
            Error::Connect(host.clone(), io::Error::new(io::ErrorKind::InvalidInput, what))
        })?;
        let mut pending = Vec::new();
        layer.poll_output(&mut random, &mut pending);
        Ok(WebSocket { layer, pending, written: 0, end: None })
    }

    pub(crate) fn take_end(&mut self) -> Option<Error> {
        self.end.take().map(Error::WebSocket)
    }

    pub(crate) fn decode<'b>(&mut self, bytes: &'b mut [u8]) -> Result<&'b [u8], Error> {
        let decoded = self.layer.handle_bytes(bytes);
        self.layer.poll_output(&mut random, &mut self.pending);
        match decoded.end {
            Some(end) if decoded.mqtt.is_empty() => Err(Error::WebSocket(end)),
            // What came before the end counts.
            end => {
                self.end = end;
                Ok(decoded.mqtt)
            }
        }
    }

    /// Frames bytes; how many of them. None before the WebSocket is open.
    pub(crate) fn encode(&mut self, mqtt: &[u8]) -> usize {
        let chunk = mqtt.get(..FRAME_LEN_MAX).unwrap_or(mqtt);
        if self.layer.encode(chunk, &mut random, &mut self.pending) { chunk.len() } else { 0 }
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.written < self.pending.len()
    }

    pub(crate) fn close(&mut self) {
        /// Normal closure (RFC 6455, section 7.4.1).
        const NORMAL: u16 = 1000;
        self.layer.close(NORMAL);
        self.layer.poll_output(&mut random, &mut self.pending);
    }

    pub(crate) fn poll_write_pending(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        while let Some(rest) = self.pending.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(socket.poll_write(cx, rest)) {
                Ok(0) => {
                    return Poll::Ready(Err(Error::Lost(io::ErrorKind::WriteZero.into())));
                }
                Ok(len) => self.written += len,
                Err(error) => return Poll::Ready(Err(Error::from_socket(error))),
            }
        }
        self.pending.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// The standard library's hash keys come from the system's random source and are kept secret,
/// which is what a mask key needs to be unforeseeable.
fn random() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().hash_one(0).to_be_bytes();
    [a, b, c, d]
}
