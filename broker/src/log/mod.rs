//! The log: structured, to stderr, and never in the way of a shard.

use std::net::SocketAddr;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};
use whimbrel_broker_core::{ConnId, Event, Millis, Peer as CorePeer, TurnedAway};
use whimbrel_codec::Version;

use crate::config::{LogFormat, LogLevel};
use crate::connection::Connections;

mod writer;

pub use writer::{Flush, Writer};

/// Changes the level of a running log.
pub struct LogControl {
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    writer: Writer,
}

impl LogControl {
    /// Sets the level, unless RUST_LOG has set it.
    pub fn set_level(&self, level: LogLevel) {
        if let Some(filter) = &self.filter {
            // It fails only if there is no log any more.
            let _ = filter.reload(filter_of(level));
        }
    }

    /// Waits, for a short time, until all lines are written.
    pub fn flush(&self) {
        self.writer.flush();
    }
}

/// Starts the log of this process on stderr. RUST_LOG goes before `level`.
pub fn start(level: LogLevel, format: LogFormat) -> LogControl {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let from_variable = variable.and_then(|text| EnvFilter::try_new(text).ok());
    let is_fixed = from_variable.is_some();
    let filter = from_variable.unwrap_or_else(|| filter_of(level));
    let (filter, handle) = reload::Layer::new(filter);
    let writer = Writer::start(std::io::stderr());
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer.clone())
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // It fails if somebody else's log is there already, which is then the one to use.
    let _ = match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    LogControl { filter: (!is_fixed).then_some(handle), writer }
}

/// A line at level warn, from outside of this crate.
pub fn warn(text: &str) {
    tracing::warn!("{text}");
}

fn filter_of(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    EnvFilter::default().add_directive(level.into())
}

/// What tells lines on who was refused what from others: `RUST_LOG=audit=info`.
pub(crate) const AUDIT: &str = "audit";

/// Refusals and faults of peers that are logged in a second; the others are counted.
const WARNINGS_PER_SECOND: u32 = 10;

/// What a shard logs of its connections.
#[derive(Default)]
pub(crate) struct EventLog {
    second: u64,
    warned: u32,
    suppressed: u32,
}

impl EventLog {
    pub(crate) fn event(&mut self, now: Millis, event: &Event, connections: &Connections) {
        match event {
            Event::Connected {
                conn,
                client_id,
                user,
                version,
                clean_start,
                session_present,
                keep_alive_s,
            } => {
                // Formatting and the system call for the address cost more than all the rest of a
                // CONNECT if nobody is to read them.
                if tracing::enabled!(tracing::Level::INFO) {
                    tracing::info!(
                        client = &**client_id,
                        user = &**user,
                        peer = %Peer::of(*conn, connections),
                        version = version_name(*version),
                        clean_start,
                        session_present,
                        keep_alive_s,
                        "connected"
                    );
                }
            }
            Event::Disconnected { client_id, user, why, .. } => {
                let (client, user) = (&**client_id, &**user);
                tracing::info!(client, user, why = %why, "disconnected");
            }
            Event::Refused { conn, client_id, reason, what } => {
                if self.may_warn(now) {
                    tracing::warn!(
                        client = client_id.as_deref().unwrap_or_default(),
                        peer = %Peer::of(*conn, connections),
                        reason = %reason,
                        "refused: {what}"
                    );
                }
            }
            Event::Unauthenticated { conn, client_id, user, reason, detail } => {
                if self.may_warn(now) {
                    tracing::warn!(
                        target: AUDIT,
                        client = &**client_id,
                        user = user.as_deref().unwrap_or_default(),
                        peer = %Peer::of(*conn, connections),
                        reason = %reason,
                        "refused: {detail}"
                    );
                }
            }
            // Once for each ban, so none is left out.
            Event::Banned { address, user, client_id, for_s, why } => {
                tracing::warn!(
                    target: AUDIT,
                    client = client_id.as_deref(),
                    user = user.as_deref(),
                    address = %address,
                    "banned for {for_s} s: {why}"
                );
            }
            Event::Denied { client_id, user, action, topic } => {
                if self.may_warn(now) {
                    let (client, user, topic) = (&**client_id, &**user, &**topic);
                    tracing::warn!(target: AUDIT, client, user, topic, "may not {action}");
                }
            }
        }
    }

    /// A connection was closed as soon as it was accepted. Of who is banned there was a line
    /// already.
    pub(crate) fn turned_away(&mut self, now: Millis, peer: &CorePeer, why: TurnedAway) {
        if let TurnedAway::Limit(what) = why
            && self.may_warn(now)
        {
            tracing::warn!(peer = %Peer(peer.address), "turned away: {what}");
        }
    }

    /// The peer broke the rules of a layer below MQTT.
    pub(crate) fn layer_fault(&mut self, now: Millis, peer: Option<SocketAddr>, fault: &str) {
        if self.may_warn(now) {
            tracing::warn!(peer = %Peer(peer), "refused: {fault}");
        }
    }

    /// A client that was let in may not stay.
    pub(crate) fn cut_off(&mut self, peer: Option<SocketAddr>, fault: &str) {
        tracing::warn!(peer = %Peer(peer), "closed after a reload: {fault}");
    }

    pub(crate) fn handle_timeout(&mut self, now: Millis) {
        if self.suppressed > 0 && now.0 / 1000 != self.second {
            self.begin_second(now);
        }
    }

    fn may_warn(&mut self, now: Millis) -> bool {
        if now.0 / 1000 != self.second {
            self.begin_second(now);
        }
        self.warned += 1;
        let may = self.warned <= WARNINGS_PER_SECOND;
        self.suppressed += u32::from(!may);
        may
    }

    fn begin_second(&mut self, now: Millis) {
        if self.suppressed > 0 {
            tracing::warn!(count = self.suppressed, "more connections were refused");
        }
        *self = EventLog { second: now.0 / 1000, warned: 0, suppressed: 0 };
    }
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::V3_1 => "3.1",
        Version::V3_1_1 => "3.1.1",
        Version::V5 => "5.0",
    }
}

/// An address for the log.
struct Peer(Option<SocketAddr>);

impl Peer {
    fn of(id: ConnId, connections: &Connections) -> Peer {
        Peer(connections.peer_address(id))
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("local"),
        }
    }
}
