//! A broker as a whole: its shards, started and stopped together.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use mio::{Poll, Waker};
use whimbrel_broker_core::{Count, Shard, ShardId, Shared};
use whimbrel_store::{MemoryStore, OpenError, Store};
use whimbrel_transport::websocket::server;

use crate::access::{Access, Files, Gate};
use crate::config::{Config, ConfigError, Endpoint, Listener};
use crate::control;
use crate::crew::{Crew, Pace};
use crate::durable::DataDir;
use crate::event_loop::{EventLoop, Peers, Speaks, WAKER};
use crate::listen::{Acceptor, Bound, advice, bind_all};
use crate::mailbox::{Control, Mailbox};
use crate::process;
use crate::tls::TlsListener;

/// A running broker. Dropping it does not stop it: [`Handle::shut_down`] does.
pub struct Broker {
    listeners: Vec<Listener>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    data_dir: Option<DataDir>,
    gate: Arc<Gate>,
    control: Option<control::Control>,
    handle: Handle,
}

/// Steers a running broker, from any thread.
#[derive(Clone)]
pub struct Handle {
    peers: Arc<Peers>,
    access: Arc<Access>,
}

/// Why a broker did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration asks for what cannot be had.
    Config(ConfigError),
    /// The data directory cannot be used.
    Store {
        /// Which directory.
        data_dir: String,
        /// What is the matter with it.
        error: Box<OpenError>,
    },
    /// The system refused something else.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Store { data_dir, error } => write!(f, "data_dir {data_dir}: {error}"),
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
    /// If a listener cannot be bound, the data directory cannot be used, or the system has no more
    /// threads or files.
    pub fn start(config: &Config) -> Result<Broker, StartError> {
        Broker::start_with(config, Pace::default()).map(|(broker, _)| broker)
    }

    fn start_with(config: &Config, pace: Pace) -> Result<(Broker, Arc<Crew>), StartError> {
        process::raise_file_limit();
        process::reserve_files();
        let shards = shard_count(config.shards);
        let tls = config.listeners.iter().map(TlsListener::of).collect::<Result<Vec<_>, _>>();
        let tls = tls.map_err(StartError::Config)?;
        let bound = bind_all(config, shards).map_err(StartError::Config)?;
        let mut listeners = config.listeners.clone();
        for (listener, bound) in listeners.iter_mut().zip(&bound) {
            listener.endpoint = bound.endpoint.clone();
        }
        let acceptors = distribute(bound, &listeners, &tls, shards);
        let polls = (0..shards).map(|_| Poll::new()).collect::<io::Result<Vec<Poll>>>()?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), WAKER));
        let wakers = wakers.collect::<io::Result<Vec<Waker>>>()?;
        let files = Files::read(config).map_err(StartError::Config)?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let gate = Gate::new(config, &files, secret).map_err(|what| {
            let place = "configuration".into();
            StartError::Config(ConfigError { place, what })
        });
        let gate = Arc::new(gate?);
        let seed = process::unpredictable();
        let peers = Arc::new(Peers {
            mailboxes: wakers.into_iter().map(Mailbox::new).collect(),
            tls,
            shared: Shared::with_access(shards, seed, gate.clone(), files.rules),
            epoch: Instant::now(),
            epoch_ms: process::wall_ms(),
        });
        let (data_dir, cores) = Self::shards(config, &peers, shards)?;
        process::publish_memory(&peers.shared);
        let mut event_loops = Vec::new();
        let parts = polls.into_iter().zip(acceptors).zip(cores);
        for (id, ((poll, acceptors), core)) in parts.enumerate() {
            event_loops.push(EventLoop::new(id, poll, core, peers.clone(), config, acceptors)?);
        }
        let control = start_control(config, &peers)?;
        let data_dir = data_dir.map(|opened| opened.start(&peers)).transpose()?;
        let crew = Arc::new(Crew::new(peers.clone(), event_loops, pace));
        let mut threads = Vec::new();
        for id in 0..usize::from(shards) {
            let crew = crew.clone();
            let thread = std::thread::Builder::new().name(format!("whimbrel-{id}"));
            threads.push(thread.spawn(move || crew.work(id))?);
        }
        gate.start(&peers.mailboxes)?;
        let access = Arc::new(Access::new(gate.clone(), peers.clone(), config, files.watched));
        let handle = Handle { peers, access };
        Ok((Broker { listeners, threads, data_dir, gate, control, handle }, crew))
    }

    /// The shards' cores, with all that the data directory has kept.
    fn shards(
        config: &Config,
        peers: &Peers,
        shards: u16,
    ) -> Result<(Option<DataDir>, Vec<Shard>), StartError> {
        let mut opened = None;
        if !config.data_dir.is_empty() {
            opened = Some(DataDir::open(config, shards)?);
        }
        let core_config = Arc::new(config.core.clone());
        let shard = |id| {
            let store: Box<dyn Store> = match &opened {
                Some((data_dir, _)) => Box::new(data_dir.journal(id)),
                None => Box::new(MemoryStore),
            };
            let (shared, config) = (peers.shared.clone(), core_config.clone());
            let seed = process::unpredictable();
            Shard::new(ShardId(id), shared, config, store, seed, peers.now())
        };
        let mut cores: Vec<Shard> = (0..shards).map(shard).collect();
        let data_dir = opened.map(|(data_dir, recovered)| {
            data_dir.restore(recovered, peers, &mut cores);
            data_dir
        });
        Ok((data_dir, cores))
    }

    /// Where clients connect, with the ports that the system chose.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
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
        self.gate.stop();
        if let Some(control) = self.control {
            control.stop();
        }
        if let Some(data_dir) = self.data_dir {
            data_dir.stop();
        }
        for listener in &self.listeners {
            if let Endpoint::Unix(path) = &listener.endpoint {
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
        self.peers.mailboxes.iter().for_each(|mailbox| mailbox.control(Control::ShutDown));
    }

    /// Puts in force what of `config` can change in a running broker: limits, who may connect and
    /// what those may do, TLS of its listeners. What else belongs to listeners, and the shards,
    /// stay as they are.
    ///
    /// # Errors
    /// If a file that says who may do what cannot be used; then nothing has changed.
    pub fn reconfigure(&self, config: &Config) -> Result<(), ConfigError> {
        self.access.reconfigure(config)?;
        let reload = |(current, listener): (&Option<Arc<TlsListener>>, &Listener)| {
            let (Some(current), Some(tls)) = (current, &listener.tls) else { return false };
            current.reload(tls.clone())
        };
        let reloaded = self.peers.tls.iter().zip(&config.listeners).map(reload).collect::<Vec<_>>();
        self.check_certificates(reloaded.contains(&true));
        let config = Arc::new(config.clone());
        let send = |mailbox: &Mailbox| mailbox.control(Control::Reconfigure(config.clone()));
        self.peers.mailboxes.iter().for_each(send);
        Ok(())
    }

    /// Reads files again that have changed.
    pub(crate) fn reload_changed_files(&self) {
        self.access.reload_if_changed();
        let all = self.peers.tls.iter().flatten();
        let reloaded = all.map(|tls| tls.reload_if_changed()).collect::<Vec<_>>();
        self.check_certificates(reloaded.contains(&true));
    }

    /// Has those closed whose certificates are no longer good enough.
    fn check_certificates(&self, changed: bool) {
        if changed {
            let send = |mailbox: &Mailbox| mailbox.control(Control::CheckCertificates);
            self.peers.mailboxes.iter().for_each(send);
        }
    }

    /// A counter, summed over all shards.
    pub fn count(&self, count: Count) -> u64 {
        self.peers.shared.stats.get(count)
    }
}

fn start_control(
    config: &Config,
    peers: &Arc<Peers>,
) -> Result<Option<control::Control>, StartError> {
    if config.control_socket.is_empty() {
        return Ok(None);
    }
    let path = Path::new(&config.control_socket);
    control::Control::start(path, peers).map(Some).map_err(|error| {
        let place = "key `control_socket`".into();
        let what = format!("cannot listen on {}: {}", path.display(), advice(&error));
        StartError::Config(ConfigError { place, what })
    })
}

fn shard_count(wanted: u16) -> u16 {
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    let shards = if wanted == 0 { cores() } else { usize::from(wanted) };
    shards.clamp(1, usize::from(whimbrel_topics::MAX_SHARDS)) as u16
}

/// What each shard accepts from: its own socket of each address, and the first one alone from what
/// has but one socket.
fn distribute(
    bound: Vec<Bound>,
    listeners: &[Listener],
    tls: &[Option<Arc<TlsListener>>],
    shards: u16,
) -> Vec<Vec<(u16, Acceptor, Speaks)>> {
    let mut by_shard: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for (at, ((Bound { endpoint, acceptors }, listener), tls)) in
        bound.into_iter().zip(listeners).zip(tls).enumerate()
    {
        let websocket = match endpoint {
            Endpoint::WebSocket(_, path) => {
                let origins = listener.origins.clone();
                Some(server::Config { path, origins, ..server::Config::default() })
            }
            Endpoint::Tcp(_) | Endpoint::Unix(_) => None,
        };
        let speaks = Speaks {
            proxy_from: listener.proxy_protocol_from.as_slice().into(),
            tls: tls.clone(),
            websocket: websocket.map(Arc::new),
        };
        for (acceptor, shard) in acceptors.into_iter().zip(&mut by_shard) {
            shard.push((at as u16, acceptor, speaks.clone()));
        }
    }
    by_shard
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use whimbrel_codec::{
        Connect, Filters, Packet, PacketId, Publish, QoS, Subscribe, Subscription, Version,
    };

    use super::*;

    fn send(stream: &mut TcpStream, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V3_1_1, &mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    }

    fn expect(stream: &mut TcpStream, first: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).expect("the packet comes in time");
        assert_eq!(bytes[0], first);
        bytes
    }

    fn client(port: u16, client_id: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        send(&mut stream, &Packet::Connect(Connect::new(Version::V3_1_1, client_id)));
        expect(&mut stream, 0x20, 4);
        stream
    }

    /// Every message arrives while shards come together and part all the time, in the middle of
    /// traffic and of sleep, and the broker shuts down in either state.
    #[test]
    fn nothing_is_lost_while_shards_change_hands() {
        let endpoint = Endpoint::Tcp(([127, 0, 0, 1], 0).into());
        let listener = crate::config::Listener::new(endpoint, "test");
        let config = Config { shards: 3, listeners: vec![listener], ..Config::default() };
        let restless = Pace {
            busy_window: Duration::from_millis(1),
            busy: -1.0,
            idle_window: Duration::from_millis(1),
            idle: f64::INFINITY,
        };
        let (broker, crew) = Broker::start_with(&config, restless).unwrap();
        let [Listener { endpoint: Endpoint::Tcp(address), .. }] = broker.listeners() else {
            panic!("one TCP listener")
        };
        let mut subscribers: Vec<_> = (0..6)
            .map(|at| {
                let mut stream = client(address.port(), &format!("subscriber-{at}"));
                let filters = [Subscription::new("t", QoS::AtMostOnce)];
                let packet_id = PacketId::MIN;
                let filters = Filters::new(&filters);
                let properties = Default::default();
                send(&mut stream, &Packet::Subscribe(Subscribe { packet_id, properties, filters }));
                expect(&mut stream, 0x90, 5);
                stream
            })
            .collect();
        for at in 0..600_u32 {
            let mut publisher = client(address.port(), &format!("publisher-{at}"));
            send(&mut publisher, &Packet::Publish(Publish::new("t", &at.to_be_bytes())));
            for stream in &mut subscribers {
                let got = expect(stream, 0x30, 9);
                assert_eq!(got[5..], at.to_be_bytes());
            }
            if at % 100 == 0 {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        assert!(crew.changes() > 20, "shards changed hands {} times only", crew.changes());
        broker.handle().shut_down();
        broker.join().unwrap();
    }
}
