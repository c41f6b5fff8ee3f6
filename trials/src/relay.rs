//! A relay between clients and a broker, which does to connections what networks do.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const BUFFER_LEN: usize = 16 * 1024;
/// Pieces of a torn connection: mostly a few bytes, now and then more.
const PIECES: [usize; 8] = [1, 1, 2, 3, 7, 31, 127, 4099];

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the client sends.
    ToBroker,
    /// What the broker sends.
    ToClient,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In good order, for both sides.
    Close,
    /// By a reset, for both sides.
    Reset,
    /// Whatever either side sends vanishes for so long; then by a reset.
    Blackhole(Duration),
}

/// What becomes of one connection.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// Bytes arrive in odd pieces, drawn by this seed.
    pub torn: Option<u64>,
    /// What was read waits so long before it is passed on.
    pub delay: Duration,
    /// After so many bytes that way nothing passes there for so long.
    pub stall: Option<(Way, u64, Duration)>,
    /// After so many bytes that way it ends.
    pub end: Option<(Way, u64, End)>,
}

/// The relay; its connections end when it is dropped.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    broker: SocketAddr,
    fates: Mutex<Box<dyn FnMut() -> Fate + Send>>,
    /// Changes when all connections are to end, and how.
    ends: watch::Sender<End>,
    refuses: AtomicBool,
    accepted: AtomicU64,
}

impl Relay {
    /// A relay to a broker on a free port of loopback; each connection gets its own fate.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(
        broker: SocketAddr,
        fates: impl FnMut() -> Fate + Send + 'static,
    ) -> io::Result<Relay> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            broker,
            fates: Mutex::new(Box::new(fates)),
            ends: watch::Sender::new(End::Reset),
            refuses: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Relay { address, shared, accepting })
    }

    /// A relay that passes everything on until it is told otherwise.
    ///
    /// # Errors
    /// No port is free.
    pub async fn healthy(broker: SocketAddr) -> io::Result<Relay> {
        Relay::start(broker, Fate::default).await
    }

    /// Resets all connections.
    pub fn cut(&self) {
        self.end(End::Reset);
    }

    /// Ends all connections.
    pub fn end(&self, end: End) {
        self.shared.ends.send_replace(end);
    }

    /// Whether new connections are reset at once.
    pub fn refuse(&self, yes: bool) {
        self.shared.refuses.store(yes, Ordering::Relaxed);
    }

    /// Connections that were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// The fate of connections from now on.
    pub fn set_fate(&self, fate: Fate) {
        *self.shared.fates() = Box::new(move || fate.clone());
    }

    /// The fate of the next connection; those behind it pass everything on.
    pub fn set_next_fate(&self, fate: Fate) {
        let mut next = Some(fate);
        *self.shared.fates() = Box::new(move || next.take().unwrap_or_default());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Shared {
    fn fates(&self) -> std::sync::MutexGuard<'_, Box<dyn FnMut() -> Fate + Send>> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        if shared.refuses.load(Ordering::Relaxed) {
            reset(&client);
            continue;
        }
        let fate = (shared.fates())();
        let (broker, ends) = (shared.broker, shared.ends.subscribe());
        tokio::spawn(async move {
            match TcpStream::connect(broker).await {
                Ok(broker) => carry(client, broker, fate, ends).await,
                Err(_) => reset(&client),
            }
        });
    }
}

async fn carry(
    mut client: TcpStream,
    mut broker: TcpStream,
    fate: Fate,
    mut ends: watch::Receiver<End>,
) {
    for stream in [&client, &broker] {
        // Without it, torn pieces would be put together again.
        let _ = stream.set_nodelay(true);
    }
    let end = {
        let (from_client, to_client) = client.split();
        let (from_broker, to_broker) = broker.split();
        tokio::select! {
            end = pump(from_client, to_broker, Plan::new(&fate, Way::ToBroker)) => end,
            end = pump(from_broker, to_client, Plan::new(&fate, Way::ToClient)) => end,
            _ = ends.changed() => *ends.borrow_and_update(),
        }
    };
    match end {
        End::Close => return,
        End::Reset => {}
        End::Blackhole(time) => {
            let swallow = async { tokio::join!(swallow(&mut client), swallow(&mut broker)) };
            tokio::select! {
                _ = timeout(time, swallow) => {}
                _ = ends.changed() => {}
            }
        }
    }
    reset(&client);
    reset(&broker);
}

/// What becomes of one direction.
struct Plan {
    pieces: Option<fastrand::Rng>,
    delay: Duration,
    stall: Option<(u64, Duration)>,
    end: Option<(u64, End)>,
}

impl Plan {
    fn new(fate: &Fate, way: Way) -> Plan {
        let seed = |seed: u64| fastrand::Rng::with_seed(seed ^ way as u64);
        Plan {
            pieces: fate.torn.map(seed),
            delay: fate.delay,
            stall: fate.stall.filter(|stall| stall.0 == way).map(|(_, after, time)| (after, time)),
            end: fate.end.filter(|end| end.0 == way).map(|(_, after, end)| (after, end)),
        }
    }

    /// Bytes that may pass at once when `passed` have.
    fn piece_len(&mut self, passed: u64, len: usize) -> usize {
        let torn = self.pieces.as_mut().map_or(len, |rng| PIECES[rng.usize(..PIECES.len())]);
        let marks = [self.stall.map(|(at, _)| at), self.end.map(|(at, _)| at)];
        let ahead = marks.into_iter().flatten().filter(|at| *at > passed).map(|at| at - passed);
        ahead.fold(torn.min(len), |most, bytes| most.min(usize::try_from(bytes).unwrap_or(most)))
    }
}

/// Passes bytes on until the direction ends.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut plan: Plan) -> End {
    let (mut buffer, mut passed) = (vec![0; BUFFER_LEN], 0u64);
    loop {
        match plan.end {
            Some((at, end)) if passed >= at => return end,
            _ => {}
        }
        let Ok(len @ 1..) = from.read(&mut buffer).await else { return End::Close };
        if !plan.delay.is_zero() {
            sleep(plan.delay).await;
        }
        let mut rest = buffer.get(..len).unwrap_or_default();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(plan.piece_len(passed, rest.len()));
            if to.write_all(piece).await.is_err() {
                return End::Close;
            }
            passed += piece.len() as u64;
            rest = behind;
            if let Some((at, end)) = plan.end
                && passed >= at
            {
                return end;
            }
            if let Some((at, time)) = plan.stall
                && passed >= at
            {
                plan.stall = None;
                sleep(time).await;
            }
            if plan.pieces.is_some() {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Reads on without passing anything.
async fn swallow(stream: &mut TcpStream) {
    let mut buffer = vec![0; BUFFER_LEN];
    while let Ok(1..) = stream.read(&mut buffer).await {}
    // Whoever has closed its side learns nothing of the other.
    std::future::pending().await
}

/// Has the stream end by a reset when it is dropped.
fn reset(stream: &TcpStream) {
    // If it cannot be set, the stream is closed in good order.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
