//! The two ways in which rustls can be driven.
//!
//! Its unbuffered one suits the event loop: it opens records where they lie and keeps no buffers,
//! which is 3.5 KB for an idle connection. But it does not give the exporter, so that listeners
//! that want it take the buffered one, for 4 KB more.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, WriteTraffic};
use rustls::{CommonState, Error, ServerConfig, ServerConnection};

use super::BATCH_LEN_MAX;

/// Label of RFC 9431, section 2.2.4.2.
const EXPORTER: &[u8] = b"EXPORTER-ACE-MQTT-Sign-Challenge";
/// What encryption adds to one record, at most, with room for an alert before it.
const OVERHEAD_MAX: usize = 512;
/// Length of a record's body: RFC 5246, section 6.2.3.
const RECORD_LEN_MAX: usize = (1 << 14) + 2048;

pub(super) enum Engine {
    InPlace(Box<UnbufferedServerConnection>),
    Buffered(Box<ServerConnection>),
}

/// How far the bytes at hand were used.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes at the front that are done with.
    pub(super) used: usize,
    /// Plaintext that stands at the front now.
    pub(super) plain: usize,
    /// The peer said that nothing more will come.
    pub(super) closed: bool,
    /// Why the connection is over.
    pub(super) error: Option<Error>,
}

impl Engine {
    pub(super) fn new(config: Arc<ServerConfig>, exporter: bool) -> Result<Engine, Error> {
        if exporter {
            Ok(Engine::Buffered(Box::new(ServerConnection::new(config)?)))
        } else {
            Ok(Engine::InPlace(Box::new(UnbufferedServerConnection::new(config)?)))
        }
    }

    pub(super) fn state(&self) -> &CommonState {
        match self {
            Engine::InPlace(conn) => conn,
            Engine::Buffered(conn) => conn,
        }
    }

    /// The exporter, once the handshake is done.
    pub(super) fn exporter(&self) -> Result<Option<[u8; 32]>, Error> {
        match self {
            Engine::InPlace(_) => Ok(None),
            Engine::Buffered(conn) => {
                conn.export_keying_material([0; 32], EXPORTER, None).map(Some)
            }
        }
    }

    /// Opens the records in `bytes` and puts what is to be answered into `out`.
    pub(super) fn open(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Progress {
        match self {
            Engine::InPlace(conn) => open_in_place(conn, bytes, out),
            Engine::Buffered(conn) => open_buffered(conn, bytes, out),
        }
    }

    /// Appends `plain`, at most [`BATCH_LEN_MAX`] bytes, as records. `torn` is what the last
    /// [`Engine::open`] left.
    pub(super) fn seal(
        &mut self,
        plain: &[u8],
        torn: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        debug_assert!(plain.len() <= BATCH_LEN_MAX);
        match self {
            Engine::InPlace(conn) => {
                let room = plain.len() + OVERHEAD_MAX;
                write_in_place(conn, torn, out, room, |traffic, space| {
                    traffic.encrypt(plain, space)
                })
            }
            Engine::Buffered(conn) => {
                conn.writer().write_all(plain).map_err(|_| Error::EncryptError)?;
                flush(conn, out);
                Ok(())
            }
        }
    }

    /// Appends a close_notify alert.
    pub(super) fn close(&mut self, torn: &mut [u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Engine::InPlace(conn) => {
                write_in_place(conn, torn, out, OVERHEAD_MAX, |traffic, space| {
                    traffic.queue_close_notify(space)
                })
            }
            Engine::Buffered(conn) => {
                conn.send_close_notify();
                flush(conn, out);
                Ok(())
            }
        }
    }
}

fn open_in_place(
    conn: &mut UnbufferedServerConnection,
    bytes: &mut [u8],
    out: &mut Vec<u8>,
) -> Progress {
    let mut progress = Progress::default();
    loop {
        let status = conn.process_tls_records(bytes.get_mut(progress.used..).unwrap_or_default());
        let discard = status.discard;
        let mut readable = false;
        let mut done = false;
        match status.state {
            // It is handed out below, when the record's own bytes may be overwritten.
            Ok(ConnectionState::ReadTraffic(_)) => readable = true,
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => progress.closed = true,
            Ok(_) => done = true,
            Err(error) => {
                progress.error = Some(error);
                done = true;
            }
        }
        progress.used += discard;
        if readable {
            let space = bytes.get_mut(progress.plain..progress.used).unwrap_or_default();
            progress.plain += take_plaintext(conn, space);
        }
        if done {
            break;
        }
    }
    if progress.error.is_some() {
        take_alerts(conn, out);
    }
    progress
}

/// After an error rustls must be shown no bytes any more, and only gives what it has queued.
fn take_alerts(conn: &mut UnbufferedServerConnection, out: &mut Vec<u8>) {
    while conn.wants_write() {
        match conn.process_tls_records(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
            _ => return,
        }
    }
}

/// Moves the plaintext that rustls holds to the front of `space`, which is as long as the records
/// it came from.
fn take_plaintext(conn: &mut UnbufferedServerConnection, space: &mut [u8]) -> usize {
    let mut len = 0;
    let mut nothing = [];
    let state = conn.process_tls_records(&mut nothing).state;
    if let Ok(ConnectionState::ReadTraffic(mut traffic)) = state {
        while let Some(Ok(record)) = traffic.next_record() {
            let end = len + record.payload.len();
            if let Some(place) = space.get_mut(len..end) {
                place.copy_from_slice(record.payload);
                len = end;
            }
        }
    }
    len
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut room = OVERHEAD_MAX;
    loop {
        out.resize(start + room, 0);
        match data.encode(out.get_mut(start..).unwrap_or_default()) {
            Ok(n) => return out.truncate(start + n),
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(EncodeError::AlreadyEncoded) => return out.truncate(start),
        }
    }
}

/// Lets `write` put bytes behind those that rustls itself wants sent.
fn write_in_place(
    conn: &mut UnbufferedServerConnection,
    torn: &mut [u8],
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(
        &mut WriteTraffic<'_, rustls::server::ServerConnectionData>,
        &mut [u8],
    ) -> Result<usize, EncryptError>,
) -> Result<(), Error> {
    loop {
        match conn.process_tls_records(torn).state? {
            ConnectionState::EncodeTlsData(data) => encode(data, out),
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::WriteTraffic(mut traffic) => {
                let start = out.len();
                loop {
                    out.resize(start + room, 0);
                    match write(&mut traffic, out.get_mut(start..).unwrap_or_default()) {
                        Ok(n) => {
                            out.truncate(start + n);
                            return Ok(());
                        }
                        Err(EncryptError::InsufficientSize(needed)) => room = needed.required_size,
                        Err(EncryptError::EncryptExhausted) => {
                            out.truncate(start);
                            return Err(Error::EncryptError);
                        }
                    }
                }
            }
            ConnectionState::PeerClosed => {}
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
}

/// Shows rustls whole records only: so what they hold is never more than the bytes at hand.
fn open_buffered(conn: &mut ServerConnection, bytes: &mut [u8], out: &mut Vec<u8>) -> Progress {
    let mut progress = Progress::default();
    let whole = whole_records(bytes);
    while progress.error.is_none() && progress.used < whole {
        if progress.closed {
            progress.used = whole;
            break;
        }
        let mut rest = bytes.get(progress.used..whole).unwrap_or_default();
        let before = rest.len();
        match conn.read_tls(&mut rest) {
            Ok(0) => progress.error = Some(Error::General("no room for a TLS record".into())),
            Ok(_) => {}
            Err(error) => progress.error = Some(Error::General(error.to_string())),
        }
        progress.used += before - rest.len();
        match conn.process_new_packets() {
            Ok(state) => {
                progress.closed = state.peer_has_closed();
                let space = bytes.get_mut(progress.plain..progress.used).unwrap_or_default();
                let want = state.plaintext_bytes_to_read().min(space.len());
                let place = space.get_mut(..want).unwrap_or_default();
                progress.plain += conn.reader().read(place).unwrap_or(0);
            }
            Err(error) => progress.error = Some(error),
        }
    }
    flush(conn, out);
    progress
}

/// How many bytes at the front are whole records, or can be none.
fn whole_records(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some([kind, major, _, high, low]) = bytes.get(at..).and_then(|b| b.first_chunk()) {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if !(20..=24).contains(kind) || *major != 3 || len > RECORD_LEN_MAX {
            return bytes.len();
        }
        if bytes.len() < at + 5 + len {
            break;
        }
        at += 5 + len;
    }
    at
}

fn flush(conn: &mut ServerConnection, out: &mut Vec<u8>) {
    while conn.wants_write() {
        // A Vec takes everything.
        if conn.write_tls(out).is_err() {
            return;
        }
    }
}
