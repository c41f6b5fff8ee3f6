//! A broker as a whole: its shards, started and stopped together.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use mio::{Poll, Waker};
use whimbrel_broker_core::{Count, Millis, Shard, ShardId, Shared};
use whimbrel_store::MemoryStore;
use whimbrel_transport::websocket::server;

use crate::config::{Config, ConfigError, Endpoint};
use crate::event_loop::{EventLoop, Peers, Speaks, WAKER};
use crate::listen::{Acceptor, Bound, bind_all};
use crate::mailbox::{Control, Mailbox};
use crate::process;

/// A running broker. Dropping it does not stop it: [`Broker::shut_down`] does.
pub struct Broker {
    endpoints: Vec<Endpoint>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    handle: Handle,
}

/// Steers a running broker, from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Peers>);

/// Why a broker did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration asks for what cannot be had.
    Config(ConfigError),
    /// The system refused something else.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::System(error)
    }
}

impl Broker {
    /// Binds the listeners and starts a thread for each shard.
    ///
    /// # Errors
    /// If a listener cannot be bound or the system has no more threads or files.
    pub fn start(config: &Config) -> Result<Broker, StartError> {
        process::raise_file_limit();
        process::reserve_files();
        let shards = shard_count(config.shards);
        let bound = bind_all(config, shards).map_err(StartError::Config)?;
        let endpoints = bound.iter().map(|bound| bound.endpoint.clone()).collect();
        let acceptors = distribute(bound, shards);
        let polls = (0..shards).map(|_| Poll::new()).collect::<io::Result<Vec<Poll>>>()?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), WAKER));
        let wakers = wakers.collect::<io::Result<Vec<Waker>>>()?;
        let peers = Arc::new(Peers {
            mailboxes: wakers.into_iter().map(Mailbox::new).collect(),
            shared: Shared::new(shards, process::unpredictable()),
            epoch: Instant::now(),
        });
        process::publish_memory(&peers.shared);
        let core_config = Arc::new(config.core.clone());
        let mut threads = Vec::new();
        for (id, (poll, acceptors)) in (0..).zip(polls.into_iter().zip(acceptors)) {
            let core = Shard::new(
                ShardId(id),
                peers.shared.clone(),
                core_config.clone(),
                Box::new(MemoryStore),
                process::unpredictable(),
                Millis::default(),
            );
            let shard =
                EventLoop::new(usize::from(id), poll, core, peers.clone(), config, acceptors)?;
            let thread = std::thread::Builder::new().name(format!("whimbrel-{id}"));
            threads.push(thread.spawn(move || shard.run())?);
        }
        Ok(Broker { endpoints, threads, handle: Handle(peers) })
    }

    /// Where clients connect, with the ports that the system chose.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Steers this broker from elsewhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until all shards have ended.
    ///
    /// # Errors
    /// The first shard that failed.
    pub fn join(self) -> io::Result<()> {
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a shard panicked")));
            result = result.and(ended);
        }
        for endpoint in &self.endpoints {
            if let Endpoint::Unix(path) = endpoint {
                // Somebody may have removed it already.
                let _ = std::fs::remove_file(path);
            }
        }
        result
    }
}

impl Handle {
    /// Stops accepting, tells all clients, and ends the shards within seconds.
    pub fn shut_down(&self) {
        self.0.mailboxes.iter().for_each(|mailbox| mailbox.control(Control::ShutDown));
    }

    /// Puts the limits of `config` in force; listeners and shards stay as they are.
    pub fn reconfigure(&self, config: &Config) {
        let config = Arc::new(config.clone());
        let send = |mailbox: &Mailbox| mailbox.control(Control::Reconfigure(config.clone()));
        self.0.mailboxes.iter().for_each(send);
    }

    /// A counter, summed over all shards.
    pub fn count(&self, count: Count) -> u64 {
        self.0.shared.stats.get(count)
    }
}

fn shard_count(wanted: u16) -> u16 {
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let shards = if wanted == 0 { cores() } else { usize::from(wanted) };
    shards.clamp(1, usize::from(whimbrel_topics::MAX_SHARDS)) as u16
}

/// What each shard accepts from: its own socket of each address, and the first one alone from what
/// has but one socket.
fn distribute(bound: Vec<Bound>, shards: u16) -> Vec<Vec<(Acceptor, Speaks)>> {
    let mut by_shard: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for Bound { endpoint, acceptors } in bound {
        let speaks = match endpoint {
            Endpoint::WebSocket(_, path) => {
                let config = server::Config { path, ..server::Config::default() };
                Speaks::WebSocket(Arc::new(config))
            }
            Endpoint::Tcp(_) | Endpoint::Unix(_) => Speaks::Mqtt,
        };
        for (acceptor, shard) in acceptors.into_iter().zip(&mut by_shard) {
            shard.push((acceptor, speaks.clone()));
        }
    }
    by_shard
}
