//! Runs tests, each once for each of its versions.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use whimbrel_codec::Version;

use crate::bench::Bench;
use crate::outcome::Stop;
use crate::port::Broker;
use crate::test::Test;

/// A test with one of its versions.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What to run.
    pub test: &'static Test,
    /// With which version.
    pub version: Version,
}

impl Run {
    /// Such as `dup_is_not_passed_on (5.0)`.
    pub fn name(&self) -> String {
        let version = match self.version {
            Version::V5 => "5.0",
            Version::V3_1_1 => "3.1.1",
            Version::V3_1 => "3.1",
        };
        format!("{} ({version})", self.test.name)
    }

    /// Runs it. `tag` is this run's own among all that use the broker.
    pub fn run(&self, broker: &dyn Broker, strict: bool, tag: String) -> Result<(), Stop> {
        let bench = Bench::new(broker, self.version, strict, tag);
        let outcome = (self.test.script)(&bench);
        let cleaned = bench.clean_up();
        outcome?;
        match cleaned {
            Err(Stop::Failed(why)) => Err(Stop::Failed(format!("cleaning up: {why}"))),
            _ => Ok(()),
        }
    }
}

/// The runs of all tests, slow ones first, whose name or a statement of theirs contains `filter`.
pub fn select(filter: &str, version: Option<Version>) -> Vec<Run> {
    let mut runs: Vec<Run> = crate::tests::all()
        .flat_map(|test| test.versions.iter().map(move |&version| Run { test, version }))
        .filter(|run| version.is_none_or(|version| version == run.version))
        .filter(|run| {
            run.test.name.contains(filter)
                || run.test.ids(run.version).iter().any(|id| id.contains(filter))
        })
        .collect();
    runs.sort_by_key(|run| !run.test.slow);
    runs
}

/// A run and what it came to.
pub type Finished = (Run, Result<(), Stop>);

/// Runs `runs` on `jobs` threads, each test with the broker that `broker` gives it.
pub fn run_all<B: Broker>(
    runs: &[Run],
    jobs: usize,
    strict: bool,
    broker: impl Fn() -> B + Sync,
) -> Vec<Finished> {
    let next = AtomicUsize::new(0);
    let finished = Mutex::new(Vec::new());
    let salt = salt();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(run) = runs.get(index) else { break };
                    let outcome = run.run(&broker(), strict, format!("{salt}{index}x"));
                    if let Ok(mut finished) = finished.lock() {
                        finished.push((index, *run, outcome));
                    }
                }
            });
        }
    });
    let mut finished = finished.into_inner().unwrap_or_default();
    finished.sort_by_key(|(index, ..)| *index);
    finished.into_iter().map(|(_, run, outcome)| (run, outcome)).collect()
}

/// Six characters that differ from one call of the program to the next, so that what an aborted
/// one left in the broker disturbs nobody.
fn salt() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut rest =
        now.map_or(0, |now| now.as_millis() as u64) ^ u64::from(std::process::id()) << 20;
    let digits: Vec<char> = ('a'..='z').chain('0'..='9').collect();
    (0..6)
        .filter_map(|_| {
            let digit = digits.get((rest % 36) as usize).copied();
            rest /= 36;
            digit
        })
        .collect()
}
