//! A publisher in a process of its own that is killed in the middle of things. What its client has
//! taken stands in its store, so it arrives all the same.
//!
//! The process says on stdout which number was taken, so one number is uncertain after each kill.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::sleep;
use whimbrel_client::{Backoff, Client, Message, QoS, Store, StoreSync};

use super::Scene;
use crate::Failed;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const DRAINED: &str = "drained";
/// Messages in the store: enough that each kill meets some.
const UNDELIVERED: usize = 200;

/// What such a process is told.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Of the relay.
    pub url: String,
    /// The file of its store.
    pub store: PathBuf,
    /// Its number among the publishers.
    pub publisher: usize,
    /// 1 or 2.
    pub qos: u8,
    /// The next number to publish; none: only to deliver what is left.
    pub next: Option<u64>,
}

impl Worker {
    /// The words of its command line.
    fn words(&self) -> [String; 5] {
        let next = self.next.map_or_else(|| "none".into(), |next| next.to_string());
        let store = self.store.display().to_string();
        [self.url.clone(), store, self.publisher.to_string(), self.qos.to_string(), next]
    }

    /// From the words of its command line.
    pub fn from_words(words: &[String]) -> Option<Worker> {
        let [url, store, publisher, qos, next] = words else { return None };
        Some(Worker {
            url: url.clone(),
            store: store.into(),
            publisher: publisher.parse().ok()?,
            qos: qos.parse().ok()?,
            next: next.parse().ok(),
        })
    }

    /// Publishes until it is killed, or delivers what is left.
    ///
    /// # Errors
    /// The client fails, or stdout is closed.
    pub async fn run(self) -> Result<(), Failed> {
        let backoff = Backoff { first: Duration::from_millis(2), most: Duration::from_millis(50) };
        let client = Client::builder(&self.url)?
            .client_id(format!("worker-{}", self.publisher))
            .keep_alive_s(1)
            .connect_timeout(CONNECT_TIMEOUT)
            .backoff(backoff)
            .clean_start(false)
            .session_expiry_s(3600)
            .store(Store::new(&self.store).sync(StoreSync::Os))
            .start()?;
        let Some(mut next) = self.next else {
            while client.undelivered() > 0 || !client.is_connected() {
                sleep(Duration::from_millis(10)).await;
            }
            return say(DRAINED);
        };
        let topic: Arc<str> = format!("chaos/{}", self.publisher).into();
        let qos = QoS::from_u8(self.qos).ok_or("no such QoS")?;
        loop {
            while client.undelivered() > UNDELIVERED {
                sleep(Duration::from_millis(1)).await;
            }
            // What becomes of it is for the subscribers to see.
            drop(client.publish(Message::new(topic.clone(), next.to_string()).qos(qos)).await?);
            say(&next.to_string())?;
            next += 1;
        }
    }
}

fn say(what: &str) -> Result<(), Failed> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{what}")?;
    Ok(stdout.flush()?)
}

/// Starts the process and kills it, again and again, until the run ends.
pub(super) async fn publisher(
    scene: Arc<Scene>,
    program: PathBuf,
    mut worker: Worker,
    mut rng: fastrand::Rng,
) -> Result<(), Failed> {
    let mut next = 1;
    while !scene.is_ending() {
        worker.next = Some(next);
        let life = Duration::from_millis(rng.u64(20..500));
        let child = start(&program, &worker)?;
        next = kill_after(&scene, worker.publisher, child, life, next).await?;
        scene.ledger().handle_uncertain(worker.publisher);
        next += 1;
    }
    worker.next = None;
    let done = start(&program, &worker)?.wait_with_output().await?;
    if !String::from_utf8_lossy(&done.stdout).contains(DRAINED) {
        return Err(format!("worker {} has ended: {}", worker.publisher, done.status).into());
    }
    scene.ledger().handle_end(worker.publisher);
    Ok(())
}

fn start(program: &Path, worker: &Worker) -> Result<Child, Failed> {
    let mut command = Command::new(program);
    command.arg("--worker").args(worker.words()).kill_on_drop(true);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}

/// Counts what the process says; gives the first number that it has not said.
async fn kill_after(
    scene: &Scene,
    publisher: usize,
    mut child: Child,
    life: Duration,
    mut next: u64,
) -> Result<u64, Failed> {
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let mut killed = false;
    let mut timer = std::pin::pin!(sleep(life));
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line?,
            () = &mut timer, if !killed => {
                killed = true;
                child.start_kill()?;
                continue;
            }
        };
        let Some(line) = line else { break };
        if line.parse() != Ok(next) {
            return Err(format!("worker {publisher} says {line} instead of {next}").into());
        }
        scene.ledger().handle_taken(publisher);
        scene.ledger().handle_outcome(publisher, Ok(()));
        next += 1;
    }
    let status = child.wait().await?;
    if killed { Ok(next) } else { Err(format!("worker {publisher} has ended: {status}").into()) }
}
