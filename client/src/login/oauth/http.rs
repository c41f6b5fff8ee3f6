//! HTTP to authorization servers.

use std::sync::Arc;
use std::time::Duration;

use oauth2::{HttpRequest, HttpResponse, SyncHttpClient};
use rustls::crypto::aws_lc_rs;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::InvalidOAuth;

/// How long an authorization server may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const MAX_RESPONSE_BYTES: u64 = 256 * 1024;

pub(super) struct Http(Agent);

impl Http {
    /// That trusts these authorities, or those of the system.
    pub(super) fn new(authorities: Option<Vec<Certificate<'static>>>) -> Http {
        let roots = match authorities {
            Some(certificates) => RootCerts::Specific(Arc::new(certificates)),
            None => RootCerts::PlatformVerifier,
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .root_certs(roots)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(TIMEOUT))
            // Where a secret goes is a setting; nobody else may send it elsewhere.
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!("whimbrel/", env!("CARGO_PKG_VERSION")))
            .build();
        Http(config.into())
    }
}

impl SyncHttpClient for Http {
    type Error = ureq::Error;

    fn call(&self, request: HttpRequest) -> Result<HttpResponse, ureq::Error> {
        let (parts, mut body) = self.0.run(request)?.into_parts();
        let body = body.with_config().limit(MAX_RESPONSE_BYTES).read_to_vec()?;
        Ok(HttpResponse::from_parts(parts, body))
    }
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, InvalidOAuth> {
    let certificates: Vec<_> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(InvalidOAuth("no certificate in PEM among the authorities".into()));
    }
    Ok(certificates)
}
