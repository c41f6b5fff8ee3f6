//! Chaos for as many rounds as wanted: figures, or what was lost.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use whimbrel_trials::chaos::{self, Settings};

/// Runs clients and a broker over a network that fails all the time.
#[derive(Parser)]
struct Options {
    /// The program `whimbrel`.
    #[arg(long)]
    broker: PathBuf,
    /// Connections that fail.
    #[arg(long, default_value_t = 1000)]
    rounds: u64,
    /// Of what happens to them.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The broker is killed and started again after so many; 0: never.
    #[arg(long, default_value_t = 250)]
    rounds_per_broker: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { broker, rounds, seed, rounds_per_broker } = Options::parse();
    let settings = Settings { broker, rounds, seed, rounds_per_broker };
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
