//! HTTP to those who know clients: authorization servers and hooks.

use std::io::Read;
use std::time::Duration;

use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};
use whimbrel_auth::hook::{HookConfig, Post};
use whimbrel_auth::token::{Fetch, FetchError, MAX_RESPONSE_BYTES};

/// How long an authorization server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client of HTTP, shared by all threads that ask.
pub(super) struct Http {
    agent: Agent,
}

impl Http {
    /// Who is asked over https must have a certificate of one of the system's authorities, or of
    /// one in `authorities`, which is PEM.
    pub(super) fn new(authorities: Option<&[u8]>) -> Http {
        let roots = match authorities {
            None => RootCerts::PlatformVerifier,
            Some(pem) => {
                let certificates = ureq::tls::parse_pem(pem).filter_map(|item| match item {
                    Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                RootCerts::Specific(std::sync::Arc::new(certificates.collect()))
            }
        };
        let tls = TlsConfig::builder().provider(TlsProvider::Rustls).root_certs(roots).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(TIMEOUT))
            // Where a secret goes is written down; nobody else may send it elsewhere.
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(true)
            .user_agent(concat!("whimbrel/", env!("CARGO_PKG_VERSION")))
            .build();
        Http { agent: config.into() }
    }
}

impl Fetch for Http {
    fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        body(self.agent.get(url).header("accept", "application/json").call())
    }

    fn post_form(&self, url: &str, authorization: &str, form: &str) -> Result<Vec<u8>, FetchError> {
        let request = self.agent.post(url).header("accept", "application/json");
        let request = request.header("authorization", authorization);
        body(request.content_type("application/x-www-form-urlencoded").send(form))
    }
}

impl Post for Http {
    fn post_json(&self, hook: &HookConfig, json: &str) -> Result<Vec<u8>, FetchError> {
        let mut request = self.agent.post(&*hook.url).content_type("application/json");
        if let Some(authorization) = &hook.authorization {
            request = request.header("authorization", &*authorization.0);
        }
        let timeout = Duration::from_millis(hook.timeout_ms);
        body(request.config().timeout_global(Some(timeout)).build().send(json))
    }
}

/// The body of an answer; what went wrong otherwise, without what was sent.
fn body(answer: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>, FetchError> {
    let mut answer = answer.map_err(|error| FetchError(error.to_string()))?;
    if answer.status() != 200 {
        return Err(FetchError(format!("status {}", answer.status().as_u16())));
    }
    let mut bytes = Vec::new();
    let mut reader = answer.body_mut().as_reader().take(MAX_RESPONSE_BYTES as u64 + 1);
    reader.read_to_end(&mut bytes).map_err(|error| FetchError(error.to_string()))?;
    if bytes.len() > MAX_RESPONSE_BYTES {
        return Err(FetchError(format!("an answer of more than {MAX_RESPONSE_BYTES} bytes")));
    }
    Ok(bytes)
}
