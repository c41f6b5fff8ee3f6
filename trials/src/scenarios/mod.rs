//! What a client is to do at any broker: each scenario with clients and topics of its own, so that
//! all may run at once.

mod features;
mod limits;
mod messages;
mod sessions;
mod stage;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use whimbrel_client::Version;

pub use stage::{Place, Stage};

use crate::Failed;

/// Longer than any scenario takes at a broker that does its part.
const PATIENCE: Duration = Duration::from_secs(8);

type Run = fn(Stage) -> Pin<Box<dyn Future<Output = Result<(), Failed>> + Send>>;

/// One thing to show.
pub struct Scenario {
    /// In words.
    pub name: &'static str,
    /// Whether it is about what only 5.0 has.
    pub only_v5: bool,
    run: Run,
}

/// What came of a scenario.
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// Why it failed, if it did.
    pub result: Result<(), Failed>,
}

/// All that can be shown in this version.
pub fn all(version: Version) -> impl Iterator<Item = &'static Scenario> {
    let lists = [messages::ALL, sessions::ALL, features::ALL, limits::ALL];
    lists.into_iter().flatten().filter(move |scenario| version.is_v5() || !scenario.only_v5)
}

/// Runs those whose name contains `only`, so many side by side; tells each as it ends.
pub async fn run(place: &Place, only: &str, at_once: usize, mut tell: impl FnMut(Outcome)) {
    let mut running = JoinSet::new();
    let turns = Arc::new(Semaphore::new(at_once.max(1)));
    for (number, scenario) in all(place.version).enumerate() {
        if !scenario.name.contains(only) {
            continue;
        }
        let stage = Stage::new(place, number);
        let name = scenario.name;
        let run = (scenario.run)(stage);
        let turns = turns.clone();
        running.spawn(async move {
            let _turn = turns.acquire().await;
            let result = match timeout(PATIENCE, run).await {
                Ok(result) => result,
                Err(_) => Err(format!("it hangs for {} s", PATIENCE.as_secs()).into()),
            };
            Outcome { name, result }
        });
    }
    while let Some(ended) = running.join_next().await {
        let panicked =
            |error| Outcome { name: "a scenario", result: Err(format!("{error}").into()) };
        tell(ended.unwrap_or_else(panicked));
    }
}

/// A list of scenarios: `name => function` in every version, `5.0 name => function` in 5.0 alone.
macro_rules! scenarios {
    ($($name:literal $(($only:ident))? => $run:path,)*) => {
        pub(super) const ALL: &[super::Scenario] = &[$(super::Scenario {
            name: $name,
            only_v5: scenarios!(@only $($only)?),
            run: |stage| Box::pin($run(stage)),
        },)*];
    };
    (@only) => { false };
    (@only v5) => { true };
}
use scenarios;

/// Fails unless they are equal.
fn same<T: PartialEq + std::fmt::Debug>(found: T, wanted: T, what: &str) -> Result<(), Failed> {
    if found == wanted {
        return Ok(());
    }
    let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
    let differs = found.chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
    let near =
        |text: &str| text.chars().skip(differs.saturating_sub(40)).take(200).collect::<String>();
    Err(format!("{what}: {} instead of {}", near(&found), near(&wanted)).into())
}

/// Fails with `what` unless it holds.
fn holds(it: bool, what: &str) -> Result<(), Failed> {
    if it { Ok(()) } else { Err(what.into()) }
}
