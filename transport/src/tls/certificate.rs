//! Names in certificates.

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A client certificate that was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The name of the configured [`NameKind`]; none if it has no such name.
    pub identity: Option<Box<str>>,
    /// Common name of the subject.
    pub common_name: Option<Box<str>>,
    /// SHA-256 of its DER encoding.
    pub sha256: [u8; 32],
}

/// Which name of a client certificate says who the client is. If there are several, the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameKind {
    /// Common name of the subject.
    #[default]
    CommonName,
    /// Subject alternative name: DNS.
    Dns,
    /// Subject alternative name: URI.
    Uri,
    /// Subject alternative name: e-mail address.
    Email,
}

impl Certificate {
    /// What a certificate in DER says.
    pub(super) fn read(der: &[u8], kind: NameKind) -> Certificate {
        let mut certificate = Certificate { sha256: sha256(der), ..Certificate::default() };
        let Ok((_, parsed)) = X509Certificate::from_der(der) else { return certificate };
        let common_name = parsed.subject().iter_common_name().next();
        certificate.common_name = common_name.and_then(|name| name.as_str().ok()).map(Box::from);
        certificate.identity = match kind {
            NameKind::CommonName => certificate.common_name.clone(),
            kind => alternative_names(&parsed).find_map(|name| match (kind, name) {
                (NameKind::Dns, GeneralName::DNSName(name))
                | (NameKind::Uri, GeneralName::URI(name))
                | (NameKind::Email, GeneralName::RFC822Name(name)) => Some(Box::from(*name)),
                _ => None,
            }),
        };
        certificate
    }
}

/// What matters of a server's certificate.
pub(super) struct ServerNames {
    /// In lower case, perhaps with `*.` in front.
    pub(super) dns: Vec<String>,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// Seconds since 1970.
    pub(super) not_after: i64,
}

impl ServerNames {
    /// None if it cannot be parsed.
    pub(super) fn read(der: &[u8]) -> Option<ServerNames> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let dns = alternative_names(&parsed).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        Some(ServerNames {
            dns: dns.collect(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// Whether one of the names is that of `host`, in lower case.
    pub(super) fn cover(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.dns.iter().any(|name| match name.strip_prefix("*.") {
            Some(rest) => Some(rest) == parent,
            None => name == host,
        })
    }
}

fn alternative_names<'c, 'd>(
    parsed: &'c X509Certificate<'d>,
) -> impl Iterator<Item = &'c GeneralName<'d>> {
    let extension = parsed.subject_alternative_name().ok().flatten();
    extension.into_iter().flat_map(|extension| &extension.value.general_names)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = TLS13_AES_128_GCM_SHA256.tls13();
    let hash = suite.map(|suite| suite.common.hash_provider.hash(bytes));
    hash.and_then(|hash| hash.as_ref().try_into().ok()).unwrap_or_default()
}
