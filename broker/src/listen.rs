//! Sockets on which clients connect.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use mio::net::{TcpListener, UnixListener};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::{Config, ConfigError, Endpoint, Listener};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4096;
/// The same of the control socket.
const CONTROL_BACKLOG: i32 = 16;

/// A bound listener, with a socket for each shard that accepts from it.
pub(crate) struct Bound {
    /// With the port that the system chose, if it was to choose.
    pub(crate) endpoint: Endpoint,
    pub(crate) acceptors: Vec<Acceptor>,
}

/// A socket that accepts.
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds all listeners, each for this many shards.
///
/// # Errors
/// The first listener that cannot be bound, and why.
pub(crate) fn bind_all(config: &Config, shards: u16) -> Result<Vec<Bound>, ConfigError> {
    let bind = |listener: &Listener| {
        bind(config, &listener.endpoint, shards).map_err(|error| ConfigError {
            place: listener.origin.clone(),
            what: format!("cannot listen on {}: {}", listener.endpoint, advice(&error)),
        })
    };
    config.listeners.iter().map(bind).collect()
}

fn bind(config: &Config, endpoint: &Endpoint, shards: u16) -> io::Result<Bound> {
    let Some(mut address) = endpoint.address() else {
        let Endpoint::Unix(path) = endpoint else { return Err(io::ErrorKind::InvalidInput.into()) };
        let acceptors = vec![Acceptor::Unix(bind_unix(path)?)];
        return Ok(Bound { endpoint: endpoint.clone(), acceptors });
    };
    // A wildcard of IPv6 takes IPv4 along, unless IPv4 has a listener of its own on that port.
    let only_v6 = config
        .listeners
        .iter()
        .filter_map(|other| other.endpoint.address())
        .any(|other| other.is_ipv4() && other.port() == address.port() && address.port() != 0);
    // Sockets that share a port do not tell that a third one has it: without sharing, one does. It
    // also finds the port if the system is to choose one.
    let probe = bind_tcp(address, only_v6, false)?;
    address = probe.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![probe];
    if shards > 1 {
        sockets.clear();
        for _ in 0..shards {
            sockets.push(bind_tcp(address, only_v6, true)?);
        }
    }
    let mut acceptors = Vec::new();
    for socket in sockets {
        socket.listen(BACKLOG)?;
        acceptors.push(Acceptor::Tcp(TcpListener::from_std(socket.into())));
    }
    let endpoint = match endpoint {
        Endpoint::WebSocket(_, path) => Endpoint::WebSocket(address, path.clone()),
        _ => Endpoint::Tcp(address),
    };
    Ok(Bound { endpoint, acceptors })
}

fn bind_tcp(address: SocketAddr, only_v6: bool, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // Accepted sockets inherit it, which saves a system call for each of them.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Listens on a socket file that only this user can use, from its first moment on.
///
/// # Errors
/// If somebody else listens there, or the system refuses.
pub(crate) fn bind_private(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    remove_left_over(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    // Nobody could connect before this.
    socket.listen(CONTROL_BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    remove_left_over(path)?;
    UnixListener::bind(path)
}

fn remove_left_over(path: &Path) -> io::Result<()> {
    let is_socket = path.metadata().is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        // A broker that was killed left it behind.
        std::fs::remove_file(path)?;
    }
    Ok(())
}

pub(crate) fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the address is already in use; stop the program that has it or choose another".into()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 and some folders need more rights".into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(port: u16) -> Config {
        let endpoint = Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
        Config { listeners: vec![Listener::new(endpoint, "here")], ..Config::default() }
    }

    #[test]
    fn an_occupied_port_is_told_even_if_it_is_shared() {
        let first = bind_all(&local(0), 2).expect("a free port");
        let taken = first.first().and_then(|bound| bound.endpoint.address()).expect("an address");
        assert_ne!(taken.port(), 0);
        let error = bind_all(&local(taken.port()), 2).err().expect("the port is taken");
        assert_eq!(error.place, "here");
        let what = format!("cannot listen on tcp {taken}: the address is already in use; ");
        assert!(error.what.starts_with(&what), "{error}");
    }

    #[test]
    fn accepted_sockets_send_without_delay() {
        let bound = bind_all(&local(0), 1).expect("a free port").pop().expect("one listener");
        let client = std::net::TcpStream::connect(bound.endpoint.address().expect("an address"));
        let Some(Acceptor::Tcp(listener)) = bound.acceptors.first() else { panic!("no acceptor") };
        let (socket, _) = listener.accept().expect("the client waits");
        assert!(socket.nodelay().expect("an option"));
        drop(client);
    }

    #[test]
    fn a_socket_file_left_behind_is_replaced_and_one_in_use_is_not() {
        let path = std::env::temp_dir().join(format!("whimbrel-{}.sock", std::process::id()));
        let first = bind_unix(&path).expect("a new file");
        assert_eq!(bind_unix(&path).err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
        drop(first);
        bind_unix(&path).expect("nobody listens there any more");
        std::fs::remove_file(&path).expect("it is there");
    }
}
