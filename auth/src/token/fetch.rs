//! The port to HTTP, and which URLs may be asked.

use core::fmt;
use core::net::IpAddr;

use super::json;

/// Most bytes of an answer that are of use.
pub const MAX_RESPONSE_BYTES: usize = 256 * 1024;

/// Asks an authorization server. An implementation verifies certificates, follows no redirection
/// to another scheme than https, gives up after some seconds, and reads no more than
/// [`MAX_RESPONSE_BYTES`]. It may block: verification is not for the thread that carries messages.
pub trait Fetch {
    /// The body of a GET that is answered with 200.
    fn get(&self, url: &str) -> Result<Vec<u8>, FetchError>;

    /// The body of a POST of `application/x-www-form-urlencoded` that is answered with 200.
    /// `authorization` is the value of that header. It and the form hold secrets.
    fn post_form(&self, url: &str, authorization: &str, form: &str) -> Result<Vec<u8>, FetchError>;
}

/// Why there is no answer: text for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError(pub String);

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an authorization server has what is needed of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// `jwks_uri`.
    pub jwks_uri: Option<Box<str>>,
    /// `introspection_endpoint`.
    pub introspection_endpoint: Option<Box<str>>,
}

/// Whether a URL is one of https, or of http on this machine; says why not.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a URL has no spaces and no characters beyond ASCII");
    }
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err("a URL begins with https://"),
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    if host.is_empty() || host.contains('@') || url.contains(['#', '\\']) {
        return Err("a URL has a host, and no user name, fragment or backslash");
    }
    if secure || is_loopback(host) {
        Ok(())
    } else {
        Err("http:// is for this machine alone; use https://")
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The well-known URLs of an issuer: OpenID Connect Discovery, and RFC 8414.
pub fn well_known(issuer: &str) -> [String; 2] {
    let issuer = issuer.trim_end_matches('/');
    let at = issuer.find("://").map_or(0, |at| at + 3);
    let path = issuer[at..].find('/').map_or(issuer.len(), |slash| at + slash);
    let (host, path) = issuer.split_at(path);
    [
        format!("{issuer}/.well-known/openid-configuration"),
        format!("{host}/.well-known/oauth-authorization-server{path}"),
    ]
}

/// Asks the well-known URLs of an issuer in turn.
pub fn discover(issuer: &str, fetch: &dyn Fetch) -> Result<Discovered, FetchError> {
    let mut last = FetchError(String::new());
    for url in well_known(issuer) {
        match fetch.get(&url) {
            Ok(body) => {
                return read(issuer, &body).map_err(|why| FetchError(format!("{url}: {why}")));
            }
            Err(error) => last = FetchError(format!("{url}: {error}")),
        }
    }
    Err(last)
}

fn read(issuer: &str, body: &[u8]) -> Result<Discovered, &'static str> {
    if body.len() > MAX_RESPONSE_BYTES {
        return Err("the answer is too large");
    }
    let document = json::object(body).ok_or("the answer is no JSON object")?;
    // Otherwise one issuer could speak for another (RFC 8414, section 3.3).
    if json::text(&document, "issuer") != Ok(Some(issuer)) {
        return Err("`issuer` in the answer is not the configured one");
    }
    let url = |name| -> Result<Option<Box<str>>, &'static str> {
        let url = json::text(&document, name).map_err(|()| "a URL in the answer is no text")?;
        url.map(|url| check_url(url).map(|()| url.into())).transpose()
    };
    Ok(Discovered {
        jwks_uri: url("jwks_uri")?,
        introspection_endpoint: url("introspection_endpoint")?,
    })
}
