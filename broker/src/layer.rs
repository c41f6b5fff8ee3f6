//! What may stand between a socket and MQTT.
//!
//! A plain connection has no layer and pays for none. A layer decodes what was read in the read
//! buffer itself and adds bytes of its own around what is sent; MQTT bytes stay where the core
//! keeps them. Another layer (TLS) is another variant here.

use std::sync::Arc;

use whimbrel_transport::websocket::{End, close_code, server};

/// The layer of one connection.
pub(crate) enum Layer {
    WebSocket(server::Server),
}

/// What was read, decoded.
pub(crate) struct Decoded<'b> {
    pub(crate) mqtt: &'b [u8],
    /// Set once, when nothing more will come.
    pub(crate) end: Option<LayerEnd>,
}

/// Why nothing more will come from the peer.
pub(crate) struct LayerEnd {
    /// For the log; none if the peer just ended the connection.
    pub(crate) fault: Option<String>,
}

impl Layer {
    pub(crate) fn websocket(config: Arc<server::Config>) -> Box<Layer> {
        Box::new(Layer::WebSocket(server::Server::new(config)))
    }

    /// Decodes all of `bytes` in place.
    pub(crate) fn handle_bytes<'b>(&mut self, bytes: &'b mut [u8]) -> Decoded<'b> {
        match self {
            Layer::WebSocket(server) => {
                let received = server.handle_bytes(bytes);
                let end = received.end.map(|end| LayerEnd {
                    fault: match end {
                        End::PeerClosed { .. } => None,
                        fault => Some(fault.to_string()),
                    },
                });
                Decoded { mqtt: received.mqtt, end }
            }
        }
    }

    /// Puts the layer's own bytes into `head` and returns how many of the `waiting` MQTT bytes may
    /// follow them now.
    pub(crate) fn poll_send(&mut self, waiting: usize, head: &mut Vec<u8>) -> usize {
        match self {
            Layer::WebSocket(server) => server.poll_send(waiting, head),
        }
    }

    /// The socket took `n` bytes of what [`Layer::poll_send`] gave, zero if it would block. Returns
    /// how many of them were MQTT bytes.
    pub(crate) fn handle_written(&mut self, n: usize, head: &[u8]) -> usize {
        match self {
            Layer::WebSocket(server) => server.handle_written(n, head),
        }
    }

    /// Whether the layer wants to send though no MQTT bytes wait.
    pub(crate) fn wants_send(&self) -> bool {
        match self {
            Layer::WebSocket(server) => server.wants_send(),
        }
    }

    /// Says goodbye behind the MQTT bytes that wait.
    pub(crate) fn close(&mut self) {
        match self {
            Layer::WebSocket(server) => server.close(close_code::NORMAL),
        }
    }
}
