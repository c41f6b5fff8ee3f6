//! What an operator may choose, and where it comes from.
//!
//! Flags go before environment variables, these before the file, the file before the defaults.
//! Every key stands once, in `keys.rs`: the file, the variables, the flags and what
//! `--print-config` shows all follow from that table.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

mod fields;
mod hook;
mod keys;
mod limit;
mod listener;
mod load;
mod network;
mod print;
#[cfg(test)]
mod tests;
mod tls;
mod token;

pub use hook::Hook;
pub use keys::{KEYS, Key};
pub use load::{Loaded, Shortcuts, Sources, load};
pub use network::Network;
pub use print::print;
pub(crate) use tls::LoadedTls;
pub use tls::{CertificateFiles, Tls};
pub use token::TokenIssuer;
pub use whimbrel_store::Durability;

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Whether clients that nobody knows may connect to a listener that is open to the network;
    /// on loopback they always may. None: it was not written down.
    pub allow_anonymous: Option<bool>,
    /// Users with their passwords; empty: none.
    pub password_file: String,
    /// Rules of who may do what; empty: none.
    pub rules_file: String,
    /// The same as Mosquitto writes them; empty: none.
    pub acl_file: String,
    /// Issuers whose tokens are accepted.
    pub tokens: Vec<TokenIssuer>,
    /// Somebody else's service that knows clients.
    pub hook: Option<Hook>,
    /// Authorities of those who are asked over https, in PEM; empty: those of the system.
    pub http_ca_file: String,
    /// Threads that serve clients; 0: one per core.
    pub shards: u16,
    /// Where what is to survive a stop is kept; empty: nowhere.
    pub data_dir: String,
    /// Where an operator asks; empty: nowhere.
    pub control_socket: String,
    /// What an acknowledgement promises, with a data directory.
    pub durability: Durability,
    /// Size of the files there.
    pub segment_bytes: u64,
    /// Bytes that may wait to be written there; beyond it clients are not read.
    pub max_store_backlog_bytes: u64,
    /// How much is logged.
    pub log_level: LogLevel,
    /// How a line of the log looks.
    pub log_format: LogFormat,
    /// Bytes that may wait in the mailbox of a shard; beyond it those who send there stop reading
    /// their clients.
    pub max_mailbox_bytes: u64,
    /// The limits of the core.
    pub core: whimbrel_broker_core::Config,
}

/// A place where clients connect.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What is spoken there, and its address.
    pub endpoint: Endpoint,
    /// By which methods clients can show who they are, the first to be asked first; none: all for
    /// which there is something in the configuration.
    pub authentication: Option<Vec<Login>>,
    /// Where it was configured, for messages: a file and line, a flag, or the defaults.
    pub origin: String,
    /// None: plain.
    pub tls: Option<Tls>,
    /// Connections from there begin with a header of the PROXY protocol.
    pub proxy_protocol_from: Vec<Network>,
    /// The origins of web pages that may open a WebSocket; none: those of the same host.
    pub origins: Option<Vec<String>>,
}

impl Listener {
    /// A plain one.
    pub fn new(endpoint: Endpoint, origin: impl Into<String>) -> Listener {
        Listener {
            endpoint,
            authentication: None,
            origin: origin.into(),
            tls: None,
            proxy_protocol_from: Vec::new(),
            origins: None,
        }
    }

    /// What is spoken there: `tcp`, `tls`, `websocket`, `wss` or `unix`.
    pub fn transport(&self) -> &'static str {
        match (&self.endpoint, &self.tls) {
            (Endpoint::Tcp(_), Some(_)) => "tls",
            (Endpoint::WebSocket(..), Some(_)) => "wss",
            (endpoint, _) => endpoint.transport(),
        }
    }

    /// As a client writes it, such as `mqtts://127.0.0.1:8883`.
    pub fn url(&self) -> String {
        let url = self.endpoint.url();
        match (&self.tls, url.split_once("://")) {
            (Some(_), Some((scheme, rest))) => format!("{scheme}s://{rest}"),
            _ => url,
        }
    }

    /// Whether clients are asked for a certificate.
    pub(crate) fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.asks_for_certificates())
    }

    /// Its protocol in ALPN.
    pub(crate) fn alpn(&self) -> &'static str {
        match self.endpoint {
            Endpoint::WebSocket(..) => "http/1.1",
            _ => "mqtt",
        }
    }

    /// All but what can change in a running broker.
    pub(crate) fn fixed(&self) -> (Endpoint, bool, Vec<Network>, Option<Vec<String>>) {
        let Listener { endpoint, tls, proxy_protocol_from, origins, .. } = self;
        (endpoint.clone(), tls.is_some(), proxy_protocol_from.clone(), origins.clone())
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.endpoint.to_string();
        let place = shown.split_once(' ').map_or("", |(_, place)| place);
        write!(f, "{} {place}", self.transport())
    }
}

/// A way in which clients show who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// The client certificate of TLS.
    Certificate,
    /// SCRAM, with keys of the password file.
    Scram,
    /// A token that is bound to a key, by the MQTT-TLS profile of ACE.
    Ace,
    /// User name and password, by the password file.
    Password,
    /// An OAuth token.
    Token,
    /// Whatever the service behind `[http]` knows.
    Http,
    /// Not at all.
    Anonymous,
}

impl Login {
    /// All of them, in the order in which they are asked unless a listener says otherwise.
    pub const ALL: [Login; 7] = [
        Login::Certificate,
        Login::Scram,
        Login::Ace,
        Login::Password,
        Login::Token,
        Login::Http,
        Login::Anonymous,
    ];

    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Login::Certificate => "certificate",
            Login::Scram => "scram",
            Login::Ace => "ace",
            Login::Password => "password",
            Login::Token => "token",
            Login::Http => "http",
            Login::Anonymous => "anonymous",
        }
    }
}

/// The address of a listener and what is spoken there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// MQTT over TCP.
    Tcp(SocketAddr),
    /// MQTT over WebSocket over TCP, at this path.
    WebSocket(SocketAddr, String),
    /// MQTT over a Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// `tcp`, `websocket` or `unix`, as in the configuration.
    pub fn transport(&self) -> &'static str {
        match self {
            Endpoint::Tcp(_) => "tcp",
            Endpoint::WebSocket(..) => "websocket",
            Endpoint::Unix(_) => "unix",
        }
    }

    /// The Internet address, if it has one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Tcp(address) | Endpoint::WebSocket(address, _) => Some(*address),
            Endpoint::Unix(_) => None,
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.address().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// As a client writes it, such as `mqtt://127.0.0.1:1883`.
    pub fn url(&self) -> String {
        match self {
            Endpoint::Tcp(address) => format!("mqtt://{address}"),
            Endpoint::WebSocket(address, path) => format!("ws://{address}{path}"),
            Endpoint::Unix(path) => format!("unix://{}", path.display()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "tcp {address}"),
            Endpoint::WebSocket(address, path) => write!(f, "websocket {address}{path}"),
            Endpoint::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What stops the broker from doing its job.
    Error,
    /// Also refused clients.
    Warn,
    /// Also a line for each connection.
    Info,
    /// Also what helps to find a fault.
    Debug,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// Why a configuration cannot be used: where the fault is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// File and line, environment variable, or flag.
    pub place: String,
    /// What is wrong there, and what to do.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    fn default() -> Config {
        let listener = |endpoint| Listener::new(endpoint, "default listener");
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Config {
            listeners: vec![
                listener(Endpoint::Tcp(local(1883))),
                listener(Endpoint::WebSocket(local(8083), "/mqtt".into())),
            ],
            allow_anonymous: None,
            password_file: String::new(),
            rules_file: String::new(),
            acl_file: String::new(),
            tokens: Vec::new(),
            hook: None,
            http_ca_file: String::new(),
            shards: 0,
            data_dir: String::new(),
            control_socket: String::new(),
            durability: Durability::Fsync,
            segment_bytes: 16 * 1024 * 1024,
            max_store_backlog_bytes: 32 * 1024 * 1024,
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            max_mailbox_bytes: 16 * 1024 * 1024,
            core: core_defaults(),
        }
    }
}

/// The core's own defaults, with half of the memory that there is as its budget.
fn core_defaults() -> whimbrel_broker_core::Config {
    let mut core = whimbrel_broker_core::Config::default();
    if let Some(bytes) = crate::process::memory_limit_bytes() {
        core.memory_budget_bytes = bytes / 2;
    }
    core
}

impl Config {
    /// This one, but with what cannot change in a running broker as `other` has it.
    pub(crate) fn with_fixed_of(mut self, other: &Config) -> Config {
        limit::relate(&mut self.core.limits, &self.listeners, &other.listeners);
        let new = std::mem::replace(&mut self.listeners, other.listeners.clone());
        for (listener, new) in self.listeners.iter_mut().zip(new) {
            if listener.fixed() == new.fixed() {
                listener.tls = new.tls;
                listener.authentication = new.authentication;
            }
        }
        self.shards = other.shards;
        self.data_dir.clone_from(&other.data_dir);
        self.control_socket.clone_from(&other.control_socket);
        self.durability = other.durability;
        self.segment_bytes = other.segment_bytes;
        self.log_format = other.log_format;
        self
    }

    /// What no single key shows to be wrong.
    fn check(&self) -> Result<(), ConfigError> {
        let error =
            |place: &str, what: &str| Err(ConfigError { place: place.into(), what: what.into() });
        if self.listeners.is_empty() {
            return error("configuration", "there is no listener; add a [[listener]]");
        }
        crate::access::check(self)
    }
}
