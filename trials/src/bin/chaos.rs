//! Chaos for as many rounds as wanted: figures, or what was lost.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use whimbrel_trials::chaos::{self, Settings, Worker};

/// Runs clients and a broker over a network that fails all the time.
#[derive(Parser)]
struct Options {
    /// The program `whimbrel`.
    #[arg(long, required_unless_present = "worker")]
    broker: Option<PathBuf>,
    /// Connections that fail.
    #[arg(long, default_value_t = 1000)]
    rounds: u64,
    /// Of what happens to them.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The broker is killed and started again after so many; 0: never.
    #[arg(long, default_value_t = 250)]
    rounds_per_broker: u64,
    /// This is a process that is to be killed; its parent says what it does.
    #[arg(long, num_args = 5, hide = true)]
    worker: Option<Vec<String>>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { broker, rounds, seed, rounds_per_broker, worker } = Options::parse();
    if let Some(worker) = worker.as_deref().and_then(Worker::from_words) {
        return match worker.run().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("worker: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let worker = std::env::current_exe().ok();
    let broker = broker.unwrap_or_default();
    let settings = Settings { broker, rounds, seed, rounds_per_broker, worker };
    match chaos::run(&settings).await {
        Ok(report) => {
            println!("seed {seed}: {report:#?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("seed {seed}: {error}");
            ExitCode::FAILURE
        }
    }
}
