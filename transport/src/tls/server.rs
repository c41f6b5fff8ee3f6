//! One connection.

use std::fmt;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, HandshakeKind, InvalidMessage};

use super::certificate::Certificate;
use super::config::Config;
use super::engine::Engine;
use super::{BATCH_LEN_MAX, TORN_LEN_MAX};

/// The server's end of one connection.
pub struct Server {
    engine: Engine,
    /// Until the handshake is done.
    handshake: Option<Arc<Config>>,
    /// The front of what comes next.
    torn: Vec<u8>,
    /// Records that the socket did not take.
    unsent: Vec<u8>,
    closing: Closing,
    /// Nothing more is read.
    ended: bool,
}

/// How far we are with our close_notify.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// It follows what waits.
    Wanted,
    Sent,
}

/// What one call of [`Server::handle_bytes`] made of its bytes.
#[derive(Debug)]
pub struct Received<'b> {
    /// Set once, when the handshake is done.
    pub opened: Option<Box<Opened>>,
    /// Plaintext, to be handled before `end`.
    pub plain: &'b mut [u8],
    /// Set once, when nothing more will come: send what waits, then close the socket.
    pub end: Option<End>,
}

/// What a handshake has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The client's certificate, verified.
    pub certificate: Option<Certificate>,
    /// Keying material of this session that only its two ends know, if it is configured.
    pub exporter: Option<[u8; 32]>,
    /// Whether a ticket spared the full handshake.
    pub resumed: bool,
}

/// Why nothing more comes from the peer.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// It said so.
    PeerClosed,
    /// It broke a rule, or is not allowed in; an alert waits to be sent if there is one for it.
    Fault(Fault),
}

/// What is wrong with a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A rule of TLS, or of the listener.
    Tls(Error),
    /// A record or handshake message longer than [`TORN_LEN_MAX`].
    TooLong,
}

impl Server {
    /// A connection of which no byte has been read.
    ///
    /// # Errors
    /// If rustls does not take the configuration.
    pub fn new(config: Arc<Config>) -> Result<Server, Fault> {
        let engine = Engine::new(config.server.clone(), config.exporter).map_err(Fault::Tls)?;
        Ok(Server {
            engine,
            handshake: Some(config),
            torn: Vec::new(),
            unsent: Vec::new(),
            closing: Closing::No,
            ended: false,
        })
    }

    /// What must stand in the read buffer before the next bytes of the socket.
    pub fn torn(&self) -> &[u8] {
        &self.torn
    }

    /// Input: [`Server::torn`] and behind it all that was read from the socket. Opens records in
    /// `bytes` itself, which it overwrites.
    pub fn handle_bytes<'b>(&mut self, bytes: &'b mut [u8]) -> Received<'b> {
        if self.ended {
            return Received { opened: None, plain: &mut [], end: None };
        }
        let progress = self.engine.open(bytes, &mut self.unsent);
        let mut fault = progress.error.map(Fault::Tls);
        let rest = bytes.get(progress.used..).unwrap_or_default();
        self.torn.clear();
        if fault.is_none() && !progress.closed {
            self.torn.extend_from_slice(rest);
        }
        if self.torn.len() > TORN_LEN_MAX {
            fault = Some(Fault::TooLong);
        }
        let mut plain = progress.plain;
        let mut opened = None;
        if fault.is_none() && !self.engine.state().is_handshaking() {
            match self.finish_handshake() {
                Ok(done) => opened = done,
                Err(error) => {
                    plain = 0;
                    fault = Some(Fault::Tls(error));
                }
            }
        }
        let end = match fault {
            Some(fault) => {
                // Its alert says it all.
                self.closing = Closing::Sent;
                Some(End::Fault(fault))
            }
            None => progress.closed.then_some(End::PeerClosed),
        };
        if end.is_some() {
            self.ended = true;
            self.torn.clear();
        }
        if self.torn.is_empty() {
            self.torn = Vec::new();
        }
        Received { opened, plain: bytes.get_mut(..plain).unwrap_or_default(), end }
    }

    /// Output: overwrites `sealed` with what to write, and tells how many plaintext bytes are in
    /// there: what waited before, then one batch of `plain`. Tell the result of the write to
    /// [`Server::handle_written`] before anything else.
    ///
    /// A close_notify follows when `plain` is empty.
    ///
    /// # Errors
    /// If nothing can be sent any more; the connection is to be closed.
    pub fn poll_send(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<usize, Fault> {
        sealed.clear();
        if !self.unsent.is_empty() {
            sealed.append(&mut self.unsent);
            self.unsent = Vec::new();
            return Ok(0);
        }
        if self.handshake.is_some() || self.closing == Closing::Sent {
            return Ok(0);
        }
        if plain.is_empty() {
            if self.closing == Closing::Wanted {
                self.closing = Closing::Sent;
                self.engine.close(&mut self.torn, sealed).map_err(Fault::Tls)?;
            }
            return Ok(0);
        }
        let batch = plain.get(..BATCH_LEN_MAX).unwrap_or(plain);
        self.engine.seal(batch, &mut self.torn, sealed).map_err(Fault::Tls)?;
        Ok(batch.len())
    }

    /// Input: the socket took `n` bytes of what [`Server::poll_send`] gave; zero if it would block.
    pub fn handle_written(&mut self, n: usize, sealed: &[u8]) {
        self.unsent = sealed.get(n..).unwrap_or_default().to_vec();
    }

    /// Command: a close_notify follows what waits to be sent.
    pub fn close(&mut self) {
        self.ended = true;
        if self.handshake.is_none() && self.closing == Closing::No {
            self.closing = Closing::Wanted;
        }
    }

    /// Whether the layer has bytes of its own to send now.
    pub fn wants_send(&self) -> bool {
        !self.unsent.is_empty() || self.closing == Closing::Wanted
    }

    /// Whether the handshake is still to be done, so that the next bytes may cost much.
    pub fn is_handshaking(&self) -> bool {
        self.handshake.is_some()
    }

    /// Whether plaintext can be sent.
    pub fn is_open(&self) -> bool {
        self.handshake.is_none()
    }

    /// Holds the client's certificate to `config` once more, after files have changed.
    ///
    /// # Errors
    /// Why the client may not stay.
    pub fn check(&self, config: &Config) -> Result<(), Fault> {
        if self.handshake.is_some() {
            return Ok(());
        }
        config.check(self.engine.state().peer_certificates()).map_err(Fault::Tls)
    }

    fn finish_handshake(&mut self) -> Result<Option<Box<Opened>>, Error> {
        let Some(config) = self.handshake.take() else { return Ok(None) };
        let state = self.engine.state();
        let resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
        let chain = state.peer_certificates();
        if resumed {
            config.check(chain)?;
        }
        let shown = chain.and_then(|chain| chain.first()).filter(|_| config.wants_certificate());
        Ok(Some(Box::new(Opened {
            certificate: shown.map(|der| Certificate::read(der, config.identity)),
            exporter: self.engine.exporter()?,
            resumed,
        })))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (torn, unsent) = (self.torn.len(), self.unsent.len());
        write!(f, "tls::Server {{ open: {}, torn: {torn}, unsent: {unsent} }}", self.is_open())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Fault::Tls(error) => error,
            Fault::TooLong => return f.write_str("a TLS handshake message is too long"),
        };
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => f.write_str("the bytes are no TLS, which this port speaks"),
            Error::NoCertificatesPresented => f.write_str("the client shows no certificate"),
            Error::NoApplicationProtocol => {
                f.write_str("the client offers other protocols than this port's (ALPN)")
            }
            Error::InvalidCertificate(error) => {
                f.write_str("the client's certificate ")?;
                certificate_fault(error, f)
            }
            Error::AlertReceived(AlertDescription::UnknownCA) => {
                f.write_str("the client does not trust the issuer of this server's certificate")
            }
            Error::AlertReceived(alert) => write!(f, "the client ends TLS: {alert:?}"),
            error => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for Fault {}

fn certificate_fault(error: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        CertificateError::Revoked => f.write_str("is revoked"),
        CertificateError::UnknownIssuer => f.write_str("has an issuer that is not in client_ca"),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            f.write_str("has expired")
        }
        CertificateError::UnknownRevocationStatus => {
            f.write_str("cannot be checked: there is no revocation list of its issuer in crl")
        }
        CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            f.write_str("cannot be checked: the revocation list of its issuer has expired")
        }
        error => write!(f, "is not valid: {error}"),
    }
}
