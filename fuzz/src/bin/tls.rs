//! Any bytes as what a peer of TLS sends: before the handshake, in its middle, behind it, and as
//! damage to what a real client sends. Nothing panics, little is kept, and only what was sent comes
//! out. The first byte chooses among these and the way in which rustls is driven, the second the
//! size of the pieces.
#![no_main]

use std::io::Write;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, version};
use whimbrel_transport::tls::{Config, KeyPair, Server, Settings, TORN_LEN_MAX, Tickets};

const PLAIN: &[u8] = b"hello over there";

struct World {
    servers: [Arc<Config>; 2],
    clients: [Arc<ClientConfig>; 2],
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
    let pair = KeyPair {
        certificate: made.cert.pem().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
    };
    let tickets = Tickets::new().expect("random bytes");
    let server = |exporter| {
        let certificates = vec![pair.clone()];
        let settings = Settings { certificates, exporter, alpn: "mqtt", ..Settings::default() };
        Arc::new(Config::new(&settings, &tickets).expect("valid"))
    };
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("an authority");
    let client = |version| {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version");
        Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    World {
        servers: [server(false), server(true)],
        clients: [client(&version::TLS13), client(&version::TLS12)],
    }
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&[mode, step], bytes)) = bytes.split_first_chunk() else { return };
    let bit = |at: u8| usize::from(mode >> at & 1);
    let mut end = Peer::new(bit(0), usize::from(step).max(1));
    if mode & 2 == 0 {
        end.feed(bytes, &[]);
        return;
    }
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(WORLD.clients[bit(2)].clone(), name).expect("a client");
    // Bytes that the client sends before those of the input take their place.
    let flights = usize::from(mode >> 4 & 3);
    for flight in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a Vec");
        }
        if flight >= flights {
            if mode & 8 == 0 {
                wire = bytes.to_vec();
            } else {
                wire.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
            }
        }
        let sent: &[u8] = if client.is_handshaking() { &[] } else { PLAIN };
        end.feed(&wire, sent);
        let mut answer = end.answer();
        while !answer.is_empty() && client.read_tls(&mut answer).is_ok() {
            if client.process_new_packets().is_err() {
                return;
            }
        }
        if !client.is_handshaking() {
            client.writer().write_all(PLAIN).expect("it buffers");
        }
    }
});

/// The server's end.
struct Peer {
    server: Server,
    step: usize,
    opened: bool,
    ended: bool,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Peer {
    fn new(driven: usize, step: usize) -> Peer {
        let server = Server::new(WORLD.servers[driven].clone()).expect("a server");
        let (plain, sealed) = (Vec::new(), Vec::new());
        Peer { server, step, opened: false, ended: false, plain, sealed }
    }

    /// `sent` is what the client has sent at most, if it is the real one.
    fn feed(&mut self, wire: &[u8], sent: &[u8]) {
        for piece in wire.chunks(self.step) {
            let mut bytes = [self.server.torn(), piece].concat();
            let received = self.server.handle_bytes(&mut bytes);
            assert!(!self.ended || (received.plain.is_empty() && received.end.is_none()));
            assert!(received.opened.is_none() || !self.opened, "opened once");
            self.opened |= received.opened.is_some();
            self.ended |= received.end.is_some();
            assert!(self.opened || received.plain.is_empty(), "plaintext before the handshake");
            self.plain.extend_from_slice(received.plain);
            assert!(self.server.torn().len() <= TORN_LEN_MAX);
        }
        assert!(self.plain.len() <= sent.len() * 4, "more came out than was sent");
        assert!(self.plain.chunks(PLAIN.len()).all(|part| part == PLAIN), "it was changed");
        if self.opened && !self.ended {
            let taken = self.server.poll_send(b"answer", &mut self.sealed).expect("it is open");
            self.server.handle_written(0, &self.sealed);
            assert!(taken <= 6);
        }
    }

    fn answer(&mut self) -> &[u8] {
        self.sealed.clear();
        if self.server.wants_send() && self.server.poll_send(b"", &mut self.sealed).is_err() {
            self.sealed.clear();
        }
        &self.sealed
    }
}
