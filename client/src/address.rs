//! Where a broker is.

use std::fmt;
use std::path::PathBuf;

#[cfg(feature = "tls")]
use crate::Tls;

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// MQTT over TCP.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// Usually 1883.
        port: u16,
    },
    /// MQTT over a Unix socket.
    Unix(PathBuf),
    /// MQTT over WebSocket over TCP.
    WebSocket {
        /// A name or an IP address, without brackets.
        host: String,
        /// Usually 8083.
        port: u16,
        /// The request target, `/mqtt` by default.
        path: String,
    },
    /// TLS below what is spoken there.
    #[cfg(feature = "tls")]
    Tls {
        /// TCP or WebSocket.
        inner: Box<Address>,
        /// Whom to trust, and what to show.
        tls: Tls,
    },
}

impl Address {
    /// Whether WebSocket is spoken there.
    pub(crate) fn is_websocket(&self) -> bool {
        match self {
            Address::WebSocket { .. } => true,
            Address::Tcp { .. } | Address::Unix(_) => false,
            #[cfg(feature = "tls")]
            Address::Tls { inner, .. } => inner.is_websocket(),
        }
    }

    /// Name or IP address, and port.
    pub(crate) fn host_and_port(&self) -> Option<(&str, u16)> {
        match self {
            Address::Tcp { host, port } | Address::WebSocket { host, port, .. } => {
                Some((host, *port))
            }
            Address::Unix(_) => None,
            #[cfg(feature = "tls")]
            Address::Tls { inner, .. } => inner.host_and_port(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } => write!(f, "{}:{port}", bracketed(host)),
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::WebSocket { host, port, path } => {
                write!(f, "ws://{}:{port}{path}", bracketed(host))
            }
            #[cfg(feature = "tls")]
            Address::Tls { inner, .. } => match &**inner {
                Address::WebSocket { host, port, path } => {
                    write!(f, "wss://{}:{port}{path}", bracketed(host))
                }
                inner => inner.fmt(f),
            },
        }
    }
}

/// `host` as it stands before a colon and a port.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.into() }
}

/// All that a URL can say: `mqtt://[user[:password]@]host[:port][/topic]` or
/// `ws://[user[:password]@]host[:port][/path]`, with TLS `mqtts` and `wss`;
/// or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Where the broker is.
    pub address: Address,
    /// Whether the scheme asks for TLS, which `address` does not say.
    pub tls: bool,
    /// Percent-decoded.
    pub user_name: Option<String>,
    /// Percent-decoded.
    pub password: Option<String>,
    /// What follows the host of an `mqtt` URL, without its first slash.
    pub topic: Option<String>,
}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUrl(pub(crate) &'static str);

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidUrl {}

impl std::str::FromStr for Url {
    type Err = InvalidUrl;

    fn from_str(url: &str) -> Result<Url, InvalidUrl> {
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(InvalidUrl("no path after unix:"));
            }
            let address = Address::Unix(path.into());
            return Ok(Url { address, tls: false, user_name: None, password: None, topic: None });
        }
        let (scheme, rest) = url.split_once("://").ok_or(InvalidUrl("no mqtt:// or ws://"))?;
        let (websocket, tls) = match scheme {
            "mqtt" => (false, false),
            "mqtts" => (false, true),
            "ws" => (true, false),
            "wss" => (true, true),
            _ => return Err(InvalidUrl("the scheme is none of mqtt, mqtts, ws and wss")),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let Authority { user_name, password, host, port } = split_authority(authority)?;
        if websocket {
            let path = if path.is_empty() { "/mqtt".into() } else { path.into() };
            let port = port.unwrap_or(if tls { 443 } else { 8083 });
            let address = Address::WebSocket { host, port, path };
            return Ok(Url { address, tls, user_name, password, topic: None });
        }
        let topic = path.strip_prefix('/').filter(|topic| !topic.is_empty()).map(String::from);
        let port = port.unwrap_or(if tls { 8883 } else { 1883 });
        let address = Address::Tcp { host, port };
        Ok(Url { address, tls, user_name, password, topic })
    }
}

/// `[user[:password]@]host[:port]`, percent-decoded.
pub(crate) struct Authority {
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

pub(crate) fn split_authority(authority: &str) -> Result<Authority, InvalidUrl> {
    let (credentials, host_port) = match authority.rsplit_once('@') {
        Some((credentials, host_port)) => (Some(credentials), host_port),
        None => (None, authority),
    };
    let (user_name, password) = match credentials.map(|c| c.split_once(':').unwrap_or((c, ""))) {
        Some((user, "")) => (Some(decode(user)?), None),
        Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
        None => (None, None),
    };
    let (host, port) = host_and_port(host_port)?;
    Ok(Authority { user_name, password, host, port })
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), InvalidUrl> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(InvalidUrl("no ] after the address"))?;
        (host, port.strip_prefix(':'))
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(InvalidUrl("no host"));
    }
    let port = port.map(str::parse).transpose();
    Ok((host.into(), port.map_err(|_| InvalidUrl("the port is not a number below 65536"))?))
}

/// Percent-decoding.
fn decode(text: &str) -> Result<String, InvalidUrl> {
    const INVALID: InvalidUrl = InvalidUrl("a % is not followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or(INVALID);
        let value = digit()? * 16 + digit()?;
        bytes.push(value as u8);
    }
    String::from_utf8(bytes).map_err(|_| InvalidUrl("user name or password is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Url, InvalidUrl> {
        url.parse()
    }

    #[test]
    fn a_full_mqtt_url() {
        let url = parse("mqtt://us%40er:p:w@broker:1884/a/b").unwrap();
        assert_eq!(url.address, Address::Tcp { host: "broker".into(), port: 1884 });
        assert_eq!(url.user_name.as_deref(), Some("us@er"));
        assert_eq!(url.password.as_deref(), Some("p:w"));
        assert_eq!(url.topic.as_deref(), Some("a/b"));
    }

    #[test]
    fn defaults() {
        let url = parse("mqtt://[::1]").unwrap();
        assert_eq!(url.address, Address::Tcp { host: "::1".into(), port: 1883 });
        assert_eq!((url.user_name, url.password, url.topic), (None, None, None));
        let url = parse("ws://h:9/x?y=z").unwrap();
        let path = "/x?y=z".into();
        assert_eq!(url.address, Address::WebSocket { host: "h".into(), port: 9, path });
        assert_eq!(url.address.to_string(), "ws://h:9/x?y=z");
        let url = parse("ws://h").unwrap();
        let path = "/mqtt".into();
        assert_eq!(url.address, Address::WebSocket { host: "h".into(), port: 8083, path });
    }

    #[test]
    fn unix_sockets() {
        for url in ["unix:/run/mqtt", "unix:///run/mqtt"] {
            assert_eq!(parse(url).unwrap().address, Address::Unix("/run/mqtt".into()));
        }
        assert!(parse("unix:").is_err());
    }

    #[test]
    fn schemes_with_tls() {
        let url = parse("mqtts://h/t").unwrap();
        assert!(url.tls);
        assert_eq!(url.address, Address::Tcp { host: "h".into(), port: 8883 });
        let url = parse("wss://h/x").unwrap();
        let path = "/x".into();
        assert!(url.tls);
        assert_eq!(url.address, Address::WebSocket { host: "h".into(), port: 443, path });
        assert!(!parse("mqtt://h").unwrap().tls);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (url, what) in [
            ("broker", "no mqtt"),
            ("http://h", "scheme"),
            ("mqtt://h:x", "port"),
            ("mqtt://:1", "no host"),
            ("mqtt://[::1", "]"),
            ("mqtt://%4@h", "%"),
        ] {
            assert!(parse(url).unwrap_err().to_string().contains(what), "{url}");
        }
    }
}
