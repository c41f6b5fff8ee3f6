//! What a listener asks of TLS, made from the contents of its files.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig, version};

use super::certificate::{NameKind, ServerNames};

/// What a configuration is made from. Files are given by their contents.
#[derive(Clone, Default)]
pub struct Settings {
    /// At least one; the first is for clients that name no server, or one that none covers.
    pub certificates: Vec<KeyPair>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// Whether clients have to show a certificate.
    pub client_certificates: ClientCertificates,
    /// Authorities of clients, in PEM.
    pub client_ca: Option<Vec<u8>>,
    /// Revocation lists in PEM or DER. With any, each certificate of a client's chain below the
    /// authority needs a list of its issuer, or the client is refused.
    pub crls: Vec<Vec<u8>>,
    /// Whether a revocation list counts after its next update was due.
    pub allow_expired_crl: bool,
    /// Which name of a certificate is the client's identity.
    pub identity: NameKind,
    /// Whether the exporter is computed. TLS 1.2 then needs the extended master secret (RFC 7627).
    pub exporter: bool,
    /// The protocol of ALPN, as `mqtt`.
    pub alpn: &'static str,
}

/// A certificate chain and its key.
#[derive(Clone)]
pub struct KeyPair {
    /// In PEM, the server's own certificate first.
    pub certificate: Vec<u8>,
    /// In PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: Vec<u8>,
}

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for one.
    #[default]
    Off,
    /// They may; one that is not valid is refused.
    Optional,
    /// They must.
    Required,
}

/// The keys of session tickets, which change every six hours. They outlive a configuration, so
/// that clients resume over a reload.
#[derive(Clone)]
pub struct Tickets(Arc<dyn ProducesTickets>);

/// Which of the contents is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificate of this key pair.
    Certificate(usize),
    /// The key of this key pair.
    Key(usize),
    /// The authorities of clients.
    ClientCa,
    /// This revocation list.
    Crl(usize),
    /// None alone.
    Settings,
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    /// Where the fault is.
    pub part: Part,
    /// What it is, and what to do.
    pub what: String,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for InvalidConfig {}

/// What a listener asks of TLS; shared by its connections.
pub struct Config {
    pub(super) server: Arc<ServerConfig>,
    pub(super) identity: NameKind,
    pub(super) exporter: bool,
    /// None if clients are not asked for certificates.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    validity: Vec<(i64, i64)>,
}

impl Config {
    /// Checks `settings`.
    ///
    /// # Errors
    /// The first content that cannot be used, or that does not go with another.
    pub fn new(settings: &Settings, tickets: &Tickets) -> Result<Config, InvalidConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let keys = settings.certificates.iter().enumerate();
        let keys = keys.map(|(at, pair)| NamedKey::new(at, pair, &provider));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(InvalidConfig::of(Part::Settings, "TLS needs a certificate and its key"));
        }
        let validity = keys.iter().map(|key| (key.names.not_before, key.names.not_after)).collect();
        let verifier = match settings.client_certificates {
            ClientCertificates::Off => None,
            _ => Some(client_verifier(settings, &provider)?),
        };
        let versions: &[_] = match settings.min_version {
            MinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinVersion::Tls13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| InvalidConfig::of(Part::Settings, error))?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_cert_resolver(Arc::new(ByName(keys)));
        server.alpn_protocols = vec![settings.alpn.into()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = tickets.0.clone();
        server.send_tls13_tickets = 1;
        server.require_ems = settings.exporter;
        Ok(Config {
            server: Arc::new(server),
            identity: settings.identity,
            exporter: settings.exporter,
            verifier,
            validity,
        })
    }

    /// The server certificates that are not valid at `now_s`, seconds since 1970: their place
    /// among the settings, and what is wrong.
    pub fn invalid_at(&self, now_s: i64) -> impl Iterator<Item = (usize, &'static str)> {
        self.validity.iter().enumerate().filter_map(move |(at, (not_before, not_after))| {
            if now_s > *not_after {
                Some((at, "has expired"))
            } else if now_s < *not_before {
                Some((at, "is not valid yet"))
            } else {
                None
            }
        })
    }

    /// Holds the chain that a client has shown to what this configuration asks for. rustls does
    /// so in a full handshake, but not when a session is resumed, nor later.
    pub(super) fn check(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match chain {
            Some([end_entity, intermediates @ ..]) => {
                let now = self.server.time_provider.current_time();
                let now = now.ok_or(Error::FailedToGetCurrentTime)?;
                verifier.verify_client_cert(end_entity, intermediates, now).map(drop)
            }
            _ if verifier.client_auth_mandatory() => Err(Error::NoCertificatesPresented),
            _ => Ok(()),
        }
    }

    /// Whether clients are asked for certificates.
    pub(super) fn wants_certificate(&self) -> bool {
        self.verifier.is_some()
    }
}

impl Tickets {
    /// New keys.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn new() -> Result<Tickets, InvalidConfig> {
        let tickets = aws_lc_rs::Ticketer::new();
        tickets.map(Tickets).map_err(|error| InvalidConfig::of(Part::Settings, error))
    }
}

impl InvalidConfig {
    fn of(part: Part, what: impl fmt::Display) -> InvalidConfig {
        InvalidConfig { part, what: what.to_string() }
    }
}

fn client_verifier(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, InvalidConfig> {
    let Some(pem) = &settings.client_ca else {
        let what = "client certificates need the authorities that issue them";
        return Err(InvalidConfig::of(Part::ClientCa, what));
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).map_err(|what| InvalidConfig::of(Part::ClientCa, what))? {
        roots.add(certificate).map_err(|error| {
            InvalidConfig::of(Part::ClientCa, format!("a certificate cannot be used: {error}"))
        })?;
    }
    let mut crls = Vec::new();
    for (at, bytes) in settings.crls.iter().enumerate() {
        let lists =
            revocation_lists(bytes).map_err(|what| InvalidConfig::of(Part::Crl(at), what))?;
        // They are parsed together below, where a fault has no place.
        for list in &lists {
            let alone = WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots.clone()),
                provider.clone(),
            );
            alone.with_crls([list.clone()]).build().map_err(|error| {
                InvalidConfig::of(Part::Crl(at), format!("not a usable revocation list: {error}"))
            })?;
        }
        crls.extend(lists);
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .with_crls(crls);
    if !settings.allow_expired_crl {
        builder = builder.enforce_revocation_expiration();
    }
    if settings.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| InvalidConfig::of(Part::ClientCa, error))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err("there is no certificate in it; PEM with BEGIN CERTIFICATE is needed".into()),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

fn revocation_lists(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    // A DER sequence.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    let all = CertificateRevocationListDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err("there is no revocation list in it; BEGIN X509 CRL is needed".into()),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

struct NamedKey {
    names: ServerNames,
    key: Arc<CertifiedKey>,
}

impl NamedKey {
    fn new(
        at: usize,
        pair: &KeyPair,
        provider: &CryptoProvider,
    ) -> Result<NamedKey, InvalidConfig> {
        let bad_certificate = |what: String| InvalidConfig::of(Part::Certificate(at), what);
        let bad_key = |what: String| InvalidConfig::of(Part::Key(at), what);
        let chain = certificates(&pair.certificate).map_err(bad_certificate)?;
        let names = chain.first().and_then(|first| ServerNames::read(first));
        let names = names.ok_or_else(|| bad_certificate("not a certificate of X.509".into()))?;
        // The library's own message might show a part of the key.
        let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|_| {
            bad_key("there is no private key in it; PEM with BEGIN PRIVATE KEY is needed".into())
        })?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            bad_key("a private key of this kind cannot be used; take RSA, ECDSA or Ed25519".into())
        })?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            // A key that does not tell its public half cannot be checked.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                return Err(bad_key("it is not the key of the certificate".into()));
            }
            Err(error) => return Err(bad_certificate(error.to_string())),
        }
        Ok(NamedKey { names, key: Arc::new(key) })
    }
}

/// The server's certificates, the first being the default.
struct ByName(Vec<NamedKey>);

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByName")
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let usable = |named: &&NamedKey| named.key.key.choose_scheme(schemes).is_some();
        let host = hello.server_name().map(str::to_ascii_lowercase);
        let covering = host
            .and_then(|host| self.0.iter().filter(usable).find(|named| named.names.cover(&host)));
        let chosen = covering.or_else(|| self.0.iter().find(usable)).or(self.0.first());
        chosen.map(|named| named.key.clone())
    }
}
