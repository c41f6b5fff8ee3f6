//! Authorities, and a client and a server whose bytes go through memory.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use whimbrel_transport::tls::{self, Config, End, Fault, Opened, Server, Settings, Tickets};

pub struct Authority(CertifiedIssuer<'static, KeyPair>, String);

/// A client's certificate with its key.
pub struct Shown {
    der: CertificateDer<'static>,
    key: Vec<u8>,
    serial: SerialNumber,
}

impl Shown {
    pub fn sha256(&self) -> [u8; 32] {
        let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("of 1.3");
        suite.common.hash_provider.hash(&self.der).as_ref().try_into().expect("32 bytes")
    }
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("signed"), name.to_owned())
    }

    pub fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    pub fn client(&self, name: &str) -> Shown {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        let text = |text: String| Ia5String::try_from(text).expect("ASCII");
        params.subject_alt_names = vec![
            SanType::DnsName(text(format!("{name}.{}.test", self.1))),
            SanType::URI(text(format!("urn:{name}"))),
            SanType::Rfc822Name(text(format!("{name}@{}.test", self.1))),
        ];
        let serial = SerialNumber::from_slice(name.as_bytes());
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().expect("a key");
        let der = params.signed_by(&key, &self.0).expect("signed").der().clone();
        Shown { der, key: key.serialize_der(), serial }
    }

    pub fn crl(&self, revoked: &[&Shown], expired: bool) -> Vec<u8> {
        let revoked = revoked.iter().map(|shown| RevokedCertParams {
            serial_number: shown.serial.clone(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(if expired { 2021 } else { 4000 }, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).expect("signed").pem().expect("PEM").into_bytes()
    }
}

/// A server's certificate for these names.
pub fn keys(authority: &Authority, names: &[&str]) -> tls::KeyPair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).expect("names");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &authority.0).expect("signed").pem();
    tls::KeyPair { certificate: certificate.into(), key: key.serialize_pem().into() }
}

pub fn settings(authority: &Authority, names: &[&str]) -> Settings {
    let certificates = vec![keys(authority, names)];
    Settings { certificates, alpn: "mqtt", ..Settings::default() }
}

pub fn server_config(settings: &Settings) -> Arc<Config> {
    let tickets = Tickets::new().expect("random bytes");
    Arc::new(Config::new(settings, &tickets).expect("valid"))
}

pub fn client_config(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    shown: Option<&Shown>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots);
    match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::try_from(shown.key.clone()).expect("a key");
            builder.with_client_auth_cert(vec![shown.der.clone()], key).expect("they match")
        }
    }
}

/// How bytes come to the server.
#[derive(Clone, Copy)]
pub enum Shape {
    Whole,
    /// In pieces of so many bytes.
    Pieces(usize),
    /// With this byte changed, once [`Pair::damage`] is set.
    Damaged(usize),
}

pub struct Pair {
    pub client: ClientConnection,
    pub client_error: Option<rustls::Error>,
    pub server: Server,
    pub opened: Option<Box<Opened>>,
    pub end: Option<End>,
    pub damage: bool,
    shape: Shape,
    buffer: Vec<u8>,
}

impl Pair {
    pub fn new(config: &Arc<Config>, client: &Arc<ClientConfig>, name: &str, shape: Shape) -> Pair {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        Pair {
            client: ClientConnection::new(client.clone(), name).expect("a client"),
            client_error: None,
            server: Server::new(config.clone()).expect("a server"),
            opened: None,
            end: None,
            damage: false,
            shape,
            buffer: vec![0; 200_000],
        }
    }

    pub fn shake_hands(&mut self) -> Result<(), Fault> {
        for _ in 0..10 {
            assert!(self.up(b"")?.is_empty(), "nothing was sent yet");
            self.flush_server();
        }
        // The server may have accepted what the client did not.
        match &self.client_error {
            Some(error) => Err(Fault::Tls(error.clone())),
            None => {
                assert!(self.server.is_open() && !self.client.is_handshaking());
                Ok(())
            }
        }
    }

    /// The client sends; gives what the server made of it.
    pub fn up(&mut self, plain: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut got = Vec::new();
        let mut left = plain;
        loop {
            if self.client_error.is_none() {
                let n = self.client.writer().write(left).expect("it buffers");
                left = &left[n..];
            }
            let mut wire = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).expect("a Vec");
            }
            if wire.is_empty() {
                return Ok(got);
            }
            self.feed(&mut wire, &mut got)?;
        }
    }

    fn feed(&mut self, wire: &mut [u8], got: &mut Vec<u8>) -> Result<(), Fault> {
        if let (Shape::Damaged(at), true) = (self.shape, self.damage) {
            wire[at] ^= 0x55;
        }
        let size = if let Shape::Pieces(size) = self.shape { size } else { usize::MAX };
        for piece in wire.chunks(size) {
            let torn = self.server.torn().len();
            self.buffer[..torn].copy_from_slice(self.server.torn());
            self.buffer[torn..torn + piece.len()].copy_from_slice(piece);
            let received = self.server.handle_bytes(&mut self.buffer[..torn + piece.len()]);
            got.extend_from_slice(received.plain);
            if let Some(opened) = received.opened {
                assert!(self.opened.replace(opened).is_none(), "told twice");
            }
            if let Some(end) = received.end {
                self.end = Some(end.clone());
                self.flush_server();
                if let End::Fault(fault) = end {
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// The server sends; gives what the client made of it.
    pub fn down(&mut self, plain: &[u8]) -> Vec<u8> {
        let (mut left, mut sealed) = (plain, Vec::new());
        let mut got = Vec::new();
        while !left.is_empty() {
            let n = self.server.poll_send(left, &mut sealed).expect("it is open");
            left = &left[n..];
            // A slow socket takes a part.
            let taken = sealed.len().min(5000);
            self.server.handle_written(taken, &sealed);
            assert!(self.server.wants_send() || taken == sealed.len());
            self.client_reads(&sealed[..taken], &mut got);
        }
        got.extend(self.flush_server());
        got
    }

    /// Sends what the server wants sent.
    pub fn flush_server(&mut self) -> Vec<u8> {
        let (mut sealed, mut got) = (Vec::new(), Vec::new());
        while self.server.wants_send() {
            self.server.poll_send(b"", &mut sealed).expect("it can be sent");
            self.server.handle_written(sealed.len(), &sealed);
            self.client_reads(&sealed, &mut got);
        }
        got
    }

    fn client_reads(&mut self, mut wire: &[u8], got: &mut Vec<u8>) {
        while !wire.is_empty() && self.client_error.is_none() {
            self.client.read_tls(&mut wire).expect("a slice");
            if let Err(error) = self.client.process_new_packets() {
                self.client_error = Some(error);
            }
            // It would block when all is read.
            let _ = self.client.reader().read_to_end(got);
        }
    }

    /// Whether the client was told that the server sends no more.
    pub fn client_was_closed(&mut self) -> bool {
        matches!(self.client.reader().read(&mut [0]), Ok(0))
    }
}
