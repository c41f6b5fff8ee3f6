//! What an operator may choose, and where it comes from.
//!
//! Flags go before environment variables, these before the file, the file before the defaults.
//! Every key stands once, in `keys.rs`: the file, the variables, the flags and what
//! `--print-config` shows all follow from that table.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

mod keys;
mod limit;
mod listener;
mod load;
mod print;
#[cfg(test)]
mod tests;

pub use keys::{KEYS, Key};
pub use load::{Loaded, Shortcuts, Sources, load};
pub use print::print;
pub use whimbrel_store::Durability;

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Whether clients that nobody knows may connect to a listener that is open to the network;
    /// on loopback they always may. None: it was not written down.
    pub allow_anonymous: Option<bool>,
    /// Threads that serve clients; 0: one per core.
    pub shards: u16,
    /// Where what is to survive a stop is kept; empty: nowhere.
    pub data_dir: String,
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
    /// Where it was configured, for messages: a file and line, a flag, or the defaults.
    pub origin: String,
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
        let listener = |endpoint| Listener { endpoint, origin: "default listener".into() };
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Config {
            listeners: vec![
                listener(Endpoint::Tcp(local(1883))),
                listener(Endpoint::WebSocket(local(8083), "/mqtt".into())),
            ],
            allow_anonymous: None,
            shards: 0,
            data_dir: String::new(),
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
        self.listeners.clone_from(&other.listeners);
        self.allow_anonymous = other.allow_anonymous;
        self.shards = other.shards;
        self.data_dir.clone_from(&other.data_dir);
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
        if self.allow_anonymous == Some(false) {
            return error(
                "key `allow_anonymous`",
                "nobody could connect, since no way of authentication is supported yet; remove it",
            );
        }
        for Listener { endpoint, origin } in &self.listeners {
            if !endpoint.is_local() && self.allow_anonymous != Some(true) {
                return error(
                    origin,
                    &format!(
                        "listener {endpoint} is open to the network without authentication; bind \
                         it to a loopback address or write `allow_anonymous = true`"
                    ),
                );
            }
        }
        Ok(())
    }
}
