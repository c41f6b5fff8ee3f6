//! The way by a SOCKS5 proxy (RFC 1928), which also looks up the broker's name.

use std::fmt;
use std::io;

use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

use crate::InvalidUrl;
use crate::address::{bracketed, split_authority};

/// Usual for SOCKS.
const PORT: u16 = 1080;

#[derive(Clone)]
pub(crate) struct Proxy {
    host: String,
    port: u16,
    /// User name and password (RFC 1929).
    credentials: Option<(String, String)>,
}

impl Proxy {
    pub(crate) fn from_url(url: &str) -> Result<Proxy, InvalidUrl> {
        let rest = url.strip_prefix("socks5h://").ok_or(InvalidUrl("no socks5h://"))?;
        let authority = split_authority(rest.strip_suffix('/').unwrap_or(rest))?;
        let password = authority.password.unwrap_or_default();
        let credentials = authority.user_name.map(|user_name| (user_name, password));
        Ok(Proxy { host: authority.host, port: authority.port.unwrap_or(PORT), credentials })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Has the proxy connect to the broker.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        port: u16,
    ) -> io::Result<TcpStream> {
        let opened = match &self.credentials {
            None => Socks5Stream::connect_with_socket(stream, (host, port)).await,
            Some((user_name, password)) => {
                let target = (host, port);
                Socks5Stream::connect_with_password_and_socket(stream, target, user_name, password)
                    .await
            }
        };
        match opened {
            Ok(stream) => Ok(stream.into_inner()),
            Err(tokio_socks::Error::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(format!("the proxy {self} says: {error}"))),
        }
    }
}

/// Without the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "socks5h://{}:{}", bracketed(&self.host), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_all_of_a_proxy() {
        let proxy = Proxy::from_url("socks5h://us%40er:p:w@[::1]:9050/").unwrap();
        assert_eq!(proxy.to_string(), "socks5h://[::1]:9050");
        assert_eq!(proxy.credentials, Some(("us@er".into(), "p:w".into())));
        let proxy = Proxy::from_url("socks5h://proxy").unwrap();
        assert_eq!((proxy.host(), proxy.port(), &proxy.credentials), ("proxy", 1080, &None));
        for bad in ["socks5://proxy", "proxy:1080", "socks5h://", "socks5h://proxy:x"] {
            assert!(Proxy::from_url(bad).is_err(), "{bad}");
        }
    }
}
