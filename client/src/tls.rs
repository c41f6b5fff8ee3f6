//! The client's end of TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, version,
};

/// How a client proves the server's identity and its own. Sessions are resumed as long as it lives.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

/// What [`Tls`] is made from.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Authorities that are trusted, in PEM.
    pub ca_file: Option<PathBuf>,
    /// A folder of such files.
    pub ca_path: Option<PathBuf>,
    /// Trust those of the system as well; without any other they are always trusted.
    pub system_authorities: bool,
    /// Our certificate chain and its key, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Take a certificate for another name than the server's.
    pub insecure: bool,
    /// The only version to speak; without it 1.3, or 1.2.
    pub version: Option<TlsVersion>,
    /// The protocol to offer.
    pub alpn: Option<String>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

/// Options that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTls(String);

impl fmt::Display for InvalidTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidTls {}

impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files.
    pub fn new(options: &TlsOptions) -> Result<Tls, InvalidTls> {
        let unusable = |error: rustls::Error| InvalidTls(format!("TLS: {error}"));
        let versions: &[_] = match options.version {
            None => &[&version::TLS13, &version::TLS12],
            Some(TlsVersion::V1_2) => &[&version::TLS12],
            Some(TlsVersion::V1_3) => &[&version::TLS13],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(authorities(options)?),
            provider.clone(),
        );
        let inner =
            verifier.build().map_err(|error| InvalidTls(format!("authorities: {error}")))?;
        let verifier = Arc::new(Verifier { inner, any_name: options.insecure });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &options.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let der = PrivateKeyDer::from_pem_slice(&read(key)?)
                    .map_err(|_| InvalidTls(format!("{}: no private key in PEM", key.display())))?;
                builder.with_client_auth_cert(chain, der).map_err(|_| {
                    let (certificate, key) = (certificate.display(), key.display());
                    InvalidTls(format!("{key} is not the key of {certificate}"))
                })?
            }
        };
        config.alpn_protocols = options.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Tls(Arc::new(config)))
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

fn authorities(options: &TlsOptions) -> Result<RootCertStore, InvalidTls> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &options.ca_file {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| {
                InvalidTls(format!("{}: unusable certificate: {error}", path.display()))
            })?;
        }
    }
    if let Some(path) = &options.ca_path {
        let entries = std::fs::read_dir(path)
            .map_err(|error| InvalidTls(format!("{}: {error}", path.display())))?;
        for entry in entries.flatten() {
            // Other files may lie there too.
            roots.add_parsable_certificates(certificates(&entry.path()).unwrap_or_default());
        }
    }
    let nothing_else = options.ca_file.is_none() && options.ca_path.is_none();
    if options.system_authorities || nothing_else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(InvalidTls("there is no authority to trust; give one with --cafile".into()));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidTls> {
    let bytes = read(path)?;
    let all = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(InvalidTls(format!("{}: no certificate in PEM", path.display()))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, InvalidTls> {
    std::fs::read(path).map_err(|error| InvalidTls(format!("{}: {error}", path.display())))
}

/// rustls's own verifier, which may be told to take any name.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    any_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (chain, name) = (intermediates, server_name);
        match self.inner.verify_server_cert(end_entity, chain, name, ocsp_response, now) {
            // The name is looked at when all else is in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What became of TLS, as users know it.
pub(crate) fn explain(error: &rustls::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use rustls::AlertDescription as Alert;
    let text = match error {
        rustls::Error::InvalidCertificate(error) => match error {
            // Of an authority that only has the name of a trusted one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the server's certificate is from an authority that is not trusted"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate is for another name"
            }
            error => return write!(f, "TLS: the server's certificate is not valid: {error}"),
        },
        rustls::Error::AlertReceived(alert) => match alert {
            Alert::CertificateRequired => "the server wants a certificate of this client",
            Alert::CertificateRevoked => "this client's certificate is revoked",
            Alert::CertificateExpired => "this client's certificate has expired",
            Alert::UnknownCA => "the server does not trust the authority of this certificate",
            Alert::NoApplicationProtocol => "the server speaks another protocol (ALPN)",
            Alert::ProtocolVersion => "the server does not speak this version of TLS",
            alert => return write!(f, "TLS: the server ends the connection: {alert:?}"),
        },
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS on this port",
        error => return write!(f, "TLS: {error}"),
    };
    write!(f, "TLS: {text}")
}
