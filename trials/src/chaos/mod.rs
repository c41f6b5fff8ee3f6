//! Clients and a real broker with a network between them that fails all the time: nothing that was
//! acknowledged may be lost, nothing of QoS 2 come twice, nothing out of order, nobody hang.
//!
//! A round is a connection with a fate. Fates are drawn by a seed; what meets them depends on the
//! machine, so a seed repeats the weather and not the run.

mod broker;
mod clients;
mod crashing;
mod fates;
mod ledger;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

pub use self::crashing::Worker;

use self::broker::Broker;
use self::fates::Fates;
use self::ledger::{Ledger, Role};
use crate::Failed;
use crate::relay::{Fate, Relay};

/// Nothing happens for so long: something hangs.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Memory may grow by so much after the first tenth of the rounds.
const GROWTH_MAX_BYTES: u64 = 48 * 1024 * 1024;

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program `whimbrel`.
    pub broker: PathBuf,
    /// Connections that fail.
    pub rounds: u64,
    /// Of the fates.
    pub seed: u64,
    /// The broker is killed and started again after so many rounds; 0: never.
    pub rounds_per_broker: u64,
    /// A program that runs a [`Worker`] behind `--worker`, and is killed all the time.
    pub worker: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Connections that were made.
    pub rounds: u64,
    /// How often the broker was killed.
    pub kills: u64,
    /// Messages that were acknowledged, or written at QoS 0.
    pub published: u64,
    /// Messages whose publisher was told that nobody knows what became of them.
    pub given_up: u64,
    /// Messages that subscribers took, duplicates of QoS 1 included.
    pub received: u64,
    /// Of these, those that had come before, as QoS 1 permits.
    pub repeated: u64,
    /// Resident memory of this process after a tenth of the rounds, and the most after that.
    pub memory_bytes: (u64, u64),
    /// How long it took.
    pub took: Duration,
}

/// What the clients of a run share.
struct Scene {
    relay: Relay,
    ledger: Mutex<Ledger>,
    /// Publishers are to end.
    ending: AtomicBool,
}

impl Scene {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

/// Runs so many rounds.
///
/// # Errors
/// What was lost, doubled or out of order; what hangs; or why it could not run.
pub async fn run(settings: &Settings) -> Result<Report, Failed> {
    let start = Instant::now();
    let mut broker = Broker::start(&settings.broker)?;
    let mut fates = Fates::new(settings.seed);
    let relay = Relay::start(broker.address, move || fates.draw()).await?;
    let mut publishers = Role::publishers();
    let workers = settings.worker.iter().flat_map(|_| Role::crashing());
    publishers.extend(workers);
    let broker_dies = settings.rounds_per_broker > 0;
    let ledger = Ledger::new(publishers.clone(), Role::subscribers(), broker_dies);
    let ledger = Mutex::new(ledger);
    let scene = Arc::new(Scene { relay, ledger, ending: AtomicBool::new(false) });
    let mut tasks = JoinSet::new();
    clients::start(&scene, settings.seed, &mut tasks).await?;
    if let Some(program) = &settings.worker {
        for (publisher, role) in publishers.iter().enumerate().filter(|(_, role)| role.crashes) {
            let worker = Worker {
                url: format!("mqtt://{}", scene.relay.address),
                store: broker.folder.join(format!("worker-{publisher}")),
                publisher,
                qos: role.qos as u8,
                next: None,
            };
            let rng = fastrand::Rng::with_seed(settings.seed ^ 0x7ab ^ publisher as u64);
            tasks.spawn(crashing::publisher(scene.clone(), program.clone(), worker, rng));
        }
    }
    let mut kills = 0;
    let mut watch = Watch::new(settings.rounds);
    while scene.relay.accepted() < settings.rounds {
        watch.look(&scene, &mut tasks)?;
        sleep(LOOK_EVERY).await;
        let due = scene.relay.accepted().checked_div(settings.rounds_per_broker).unwrap_or(0);
        if due > kills {
            broker.kill_and_restart()?;
            kills = due;
        }
    }
    scene.relay.set_fate(Fate::default());
    scene.relay.cut();
    scene.ending.store(true, Ordering::Relaxed);
    while !scene.ledger().is_complete() {
        watch.look(&scene, &mut tasks)?;
        sleep(LOOK_EVERY).await;
    }
    let ledger = scene.ledger();
    ledger.check()?;
    let [published, given_up, received, repeated] = ledger.totals();
    let rounds = scene.relay.accepted();
    let (memory_bytes, took) = (watch.memory()?, start.elapsed());
    Ok(Report { rounds, kills, published, given_up, received, repeated, memory_bytes, took })
}

/// Sees that something happens, and that memory stays.
struct Watch {
    rounds: u64,
    progress: (u64, Instant),
    early_bytes: u64,
    most_bytes: u64,
}

impl Watch {
    fn new(rounds: u64) -> Watch {
        Watch { rounds, progress: (0, Instant::now()), early_bytes: 0, most_bytes: 0 }
    }

    fn look(
        &mut self,
        scene: &Scene,
        tasks: &mut JoinSet<Result<(), Failed>>,
    ) -> Result<(), Failed> {
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
        let resident = resident_bytes()?;
        if scene.relay.accepted() * 10 < self.rounds {
            self.early_bytes = self.early_bytes.max(resident);
        } else {
            self.most_bytes = self.most_bytes.max(resident);
        }
        let ledger = scene.ledger();
        ledger.check()?;
        if ledger.progress() != self.progress.0 {
            self.progress = (ledger.progress(), Instant::now());
        } else if self.progress.1.elapsed() > PATIENCE {
            let what = ledger.describe();
            return Err(format!("nothing happens for {} s: {what}", PATIENCE.as_secs()).into());
        }
        Ok(())
    }

    fn memory(&self) -> Result<(u64, u64), Failed> {
        let (early, most) = (self.early_bytes, self.most_bytes.max(self.early_bytes));
        if most - early > GROWTH_MAX_BYTES {
            return Err(format!("memory has grown from {early} to {most} bytes").into());
        }
        Ok((early, most))
    }
}

fn resident_bytes() -> Result<u64, Failed> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}
