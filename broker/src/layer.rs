//! What may stand between a socket and MQTT.
//!
//! A plain connection has no layer and pays for none. The others have a stack of up to three: a
//! header of the PROXY protocol at its begin, TLS, WebSocket. What was read is decoded in the read
//! buffer itself. What is sent stays where the core keeps it, unless TLS encrypts it.

use std::net::SocketAddr;
use std::sync::Arc;

use whimbrel_auth::{Certificate, Proof, Secret};
use whimbrel_transport::proxy;
use whimbrel_transport::tls::{self, Fault};
use whimbrel_transport::websocket::{End, close_code, server};

use crate::tls::TlsListener;

/// The layers of one connection, from the socket upwards.
#[derive(Default)]
pub(crate) struct Layer {
    /// Until its header is whole.
    proxy: Option<Box<proxy::Decoder>>,
    tls: Option<Box<Tls>>,
    websocket: Option<server::Server>,
    /// What the layers have shown so far.
    proof: Option<Arc<Proof>>,
    /// Whose connection it is, if a proxy has told.
    source: Option<SocketAddr>,
}

struct Tls {
    server: tls::Server,
    listener: Arc<TlsListener>,
    /// The number of the configuration that the client was checked against.
    generation: u32,
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
    /// The connection begins with a header of the PROXY protocol.
    pub(crate) fn expect_proxy(&mut self) {
        self.proxy = Some(Box::default());
    }

    /// Adds TLS.
    ///
    /// # Errors
    /// If there is a fault in the listener's configuration.
    pub(crate) fn add_tls(&mut self, listener: &Arc<TlsListener>) -> Result<(), Fault> {
        let (config, generation) = listener.current();
        let server = tls::Server::new(config)?;
        self.tls = Some(Box::new(Tls { server, listener: listener.clone(), generation }));
        Ok(())
    }

    /// Adds WebSocket.
    pub(crate) fn add_websocket(&mut self, config: Arc<server::Config>) {
        self.websocket = Some(server::Server::new(config));
    }

    /// What is spoken: `tcp`, `tls`, `websocket` or `wss`.
    pub(crate) fn transport(&self) -> &'static str {
        match (&self.tls, &self.websocket) {
            (None, None) => "tcp",
            (Some(_), None) => "tls",
            (None, Some(_)) => "websocket",
            (Some(_), Some(_)) => "wss",
        }
    }

    /// What TLS and WebSocket have shown of the client; none until their handshakes are done, and
    /// if there is neither of them.
    pub(crate) fn proof(&self) -> Option<&Arc<Proof>> {
        let is_open = self.tls.as_ref().is_none_or(|tls| tls.server.is_open())
            && self.websocket.as_ref().is_none_or(server::Server::is_open);
        self.proof.as_ref().filter(|_| is_open)
    }

    /// Whose connection it is, if a proxy has told.
    pub(crate) fn source(&self) -> Option<SocketAddr> {
        self.source
    }

    /// Whether the next bytes may cost much.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.server.is_handshaking())
    }

    /// What must stand in the read buffer before the next bytes of the socket.
    pub(crate) fn torn(&self) -> &[u8] {
        self.tls.as_ref().map(|tls| tls.server.torn()).unwrap_or_default()
    }

    /// Decodes all of `bytes`, which begin with [`Layer::torn`], in place.
    pub(crate) fn handle_bytes<'b>(&mut self, mut bytes: &'b mut [u8]) -> Decoded<'b> {
        if let Some(proxy) = &mut self.proxy {
            match proxy.handle_bytes(bytes) {
                Ok(None) => return Decoded { mqtt: &[], end: None },
                Ok(Some(header)) => {
                    self.proxy = None;
                    self.source = header.source;
                    bytes = bytes.get_mut(header.used..).unwrap_or_default();
                }
                Err(malformed) => {
                    let fault = Some(malformed.to_string());
                    return Decoded { mqtt: &[], end: Some(LayerEnd { fault }) };
                }
            }
        }
        let mut end = None;
        if let Some(tls) = &mut self.tls {
            let received = tls.server.handle_bytes(bytes);
            end = received.end.map(|end| match end {
                tls::End::PeerClosed => LayerEnd { fault: None },
                tls::End::Fault(fault) => LayerEnd { fault: Some(fault.to_string()) },
            });
            bytes = received.plain;
            if let Some(opened) = received.opened {
                self.proof = Some(Arc::new(proof(*opened)));
                if let Err(fault) = self.check() {
                    end = Some(LayerEnd { fault: Some(fault.to_string()) });
                    bytes = &mut [];
                }
            }
        }
        let Some(websocket) = &mut self.websocket else { return Decoded { mqtt: bytes, end } };
        let received = websocket.handle_bytes(bytes);
        if let Some(request) = received.opened {
            let proof = Arc::make_mut(self.proof.get_or_insert_default());
            proof.bearer = request.bearer().map(|token| Secret(token.as_bytes().into()));
        }
        let above = received.end.map(|end| LayerEnd {
            fault: match end {
                End::PeerClosed { .. } => None,
                fault => Some(fault.to_string()),
            },
        });
        Decoded { mqtt: received.mqtt, end: above.or(end) }
    }

    /// Holds the client's certificate to what is in force now, unless that was done before: then
    /// false.
    ///
    /// # Errors
    /// Why the client may not stay.
    pub(crate) fn check(&mut self) -> Result<bool, Fault> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        // A handshake that is not done is checked when it is.
        if tls.server.is_handshaking() || tls.generation == tls.listener.generation() {
            return Ok(false);
        }
        let (config, generation) = tls.listener.current();
        tls.generation = generation;
        tls.server.check(&config).map(|()| true)
    }

    /// Puts the layer's own bytes into `head` and returns how many of the `waiting` MQTT bytes may
    /// follow them now.
    pub(crate) fn poll_send(&mut self, waiting: usize, head: &mut Vec<u8>) -> usize {
        match &mut self.websocket {
            Some(server) => server.poll_send(waiting, head),
            None => {
                head.clear();
                waiting
            }
        }
    }

    /// `n` bytes of what [`Layer::poll_send`] gave are on their way: the socket took them, or they
    /// are encrypted. Returns how many of them were MQTT bytes.
    pub(crate) fn handle_written(&mut self, n: usize, head: &[u8]) -> usize {
        match &mut self.websocket {
            Some(server) => server.handle_written(n, head),
            None => n,
        }
    }

    /// Whether what is sent is to be encrypted first.
    pub(crate) fn encrypts(&self) -> bool {
        self.tls.is_some()
    }

    /// Overwrites `sealed` with what to write to the socket, and returns how many bytes of `plain`
    /// are in there.
    ///
    /// # Errors
    /// If nothing can be sent any more.
    pub(crate) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<usize, Fault> {
        match &mut self.tls {
            Some(tls) => tls.server.poll_send(plain, sealed),
            None => Ok(0),
        }
    }

    /// The socket took `n` bytes of what [`Layer::seal`] gave, zero if it would block.
    pub(crate) fn handle_sealed_written(&mut self, n: usize, sealed: &[u8]) {
        if let Some(tls) = &mut self.tls {
            tls.server.handle_written(n, sealed);
        }
    }

    /// Whether the layer wants to send though no MQTT bytes wait.
    pub(crate) fn wants_send(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.server.wants_send())
            || self.websocket.as_ref().is_some_and(server::Server::wants_send)
    }

    /// Says goodbye behind the MQTT bytes that wait.
    pub(crate) fn close(&mut self) {
        if let Some(server) = &mut self.websocket {
            server.close(close_code::NORMAL);
        }
        if let Some(tls) = &mut self.tls {
            tls.server.close();
        }
    }
}

/// A connection of which TLS is open.
fn proof(opened: tls::Opened) -> Proof {
    let certificate = opened.certificate.map(|shown| Certificate {
        identity: shown.identity,
        common_name: shown.common_name,
        sha256: shown.sha256,
    });
    Proof { tls: true, certificate, bearer: None, exporter: opened.exporter }
}
