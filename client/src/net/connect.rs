//! Opening the network connection.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Link, Socket};
use crate::config::Config;
use crate::{Address, Error};

/// How long an address may keep the next one from being tried as well (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects. `bearer` is shown in the request of a WebSocket.
pub(crate) async fn connect(config: &Config, bearer: Option<&str>) -> Result<Link, Error> {
    let socket = open(config).await?;
    #[cfg(feature = "tls")]
    if let Address::Tls { inner, tls } = &config.address {
        let socket = super::tls::open(inner, tls, socket, config.connect_timeout).await?;
        return Link::new(socket, inner, bearer);
    }
    Link::new(socket, &config.address, bearer)
}

/// What TLS and WebSocket, if any, are spoken on.
async fn open(config: &Config) -> Result<Socket, Error> {
    let failed = |error| Error::Connect(config.address.to_string(), error);
    if let Some(connector) = &config.connector {
        let opened = within(config.connect_timeout, connector.open()).await;
        return opened.map(Socket::Other).map_err(failed);
    }
    if let Address::Unix(path) = &config.address {
        return UnixStream::connect(path).await.map(Socket::Unix).map_err(failed);
    }
    let Some((host, port)) = config.address.host_and_port() else {
        return Err(failed(io::ErrorKind::Unsupported.into()));
    };
    #[cfg(feature = "socks")]
    if let Some(proxy) = &config.proxy {
        let stream = tcp(config, proxy.host(), proxy.port()).await;
        let stream = stream.map_err(|error| Error::Connect(proxy.to_string(), error))?;
        let by_proxy = within(config.connect_timeout, proxy.connect(stream, host, port)).await;
        return by_proxy.map(Socket::Tcp).map_err(failed);
    }
    tcp(config, host, port).await.map(Socket::Tcp).map_err(failed)
}

/// Tries the addresses that the name stands for, each for the configured time.
async fn tcp(config: &Config, host: &str, port: u16) -> io::Result<TcpStream> {
    let from = config.bind_address;
    let addresses = lookup_host((host, port)).await?;
    let addresses = addresses.filter(|to| from.is_none_or(|from| from.is_ipv4() == to.is_ipv4()));
    let patience = config.connect_timeout;
    let attempt = move |address| within(patience, open_tcp(address, from));
    let stream = first(in_turn(addresses), attempt);
    let stream = stream.await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The error is that there was no more time, if it takes longer.
async fn within<T>(
    patience: Duration,
    opening: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(patience, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn open_tcp(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(from) = from else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(address).await
}

/// IPv6 and IPv4 by turns, beginning with what stands first.
fn in_turn(addresses: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut addresses = addresses.peekable();
    let is_first_v6 = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.partition(|address| address.is_ipv6() == is_first_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = VecDeque::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// The first that can be opened: another one is tried as soon as one fails, and also when one takes
/// its time.
async fn first<S, F>(
    mut addresses: VecDeque<SocketAddr>,
    open: impl Fn(SocketAddr) -> F,
) -> io::Result<S>
where
    S: Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let none = "the name has no address that can be connected to from here";
    let mut failure = io::Error::new(io::ErrorKind::NotFound, none);
    let mut attempts = JoinSet::new();
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.spawn(open(address));
        } else if attempts.is_empty() {
            return Err(failure);
        }
        let next = match addresses.is_empty() {
            true => attempts.join_next().await,
            false => match timeout(HEAD_START, attempts.join_next()).await {
                Ok(next) => next,
                Err(_) => continue,
            },
        };
        match next {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => failure = error,
            Some(Err(error)) => failure = io::Error::other(error),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    fn addresses(texts: &[&str]) -> VecDeque<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn kinds_of_addresses_take_turns() {
        let mixed = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let turns = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(in_turn(mixed.into_iter()), turns);
        assert_eq!(in_turn([].into_iter()), addresses(&[]));
    }

    /// Each address opens after as many milliseconds as its port says, and fails if that is odd.
    async fn opened(texts: &[&str]) -> (Option<u16>, u128) {
        let begin = Instant::now();
        let opened = first(addresses(texts), |address| async move {
            sleep(Duration::from_millis(address.port().into())).await;
            match address.port() % 2 {
                0 => Ok(address.port()),
                _ => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        });
        (opened.await.ok(), begin.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_holds_up_the_next_a_moment_only() {
        assert_eq!(opened(&["1.1.1.1:9000", "2.2.2.2:10"]).await, (Some(10), 260));
        assert_eq!(opened(&["1.1.1.1:300", "2.2.2.2:100"]).await, (Some(300), 300));
        assert_eq!(opened(&["1.1.1.1:11", "2.2.2.2:10"]).await, (Some(10), 21));
        assert_eq!(opened(&["1.1.1.1:501", "2.2.2.2:11"]).await, (None, 501));
        assert_eq!(opened(&[]).await, (None, 0));
    }
}
