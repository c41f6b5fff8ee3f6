//! `whimbrel bench`: put load on a broker and measure it.
//!
//! One thread drives all clients, so on a small machine the broker and the bench share what there
//! is: read the figures as "at least so much".

mod load;
mod memory;
mod report;
mod stamp;

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::args::{Connection, QosArg, Setup};
use crate::failure::Failure;

/// Put load on a broker and measure it.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Bench {
    /// Who talks to whom.
    #[arg(value_enum, default_value_t = Scenario::Pairs)]
    scenario: Scenario,
    /// Pairs, subscribers of fan-out, publishers of fan-in, or connections.
    #[arg(short = 'n', long, default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Quality of service.
    #[arg(short, long, default_value = "0")]
    qos: QosArg,
    /// Payload, in bytes; at least 20, for the stamp that is measured by.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(stamp::LEN as i64..=16_777_216))]
    payload: u32,
    /// Messages per second of all publishers together; 0: as many as the broker takes.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Seconds of publishing.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// Messages of each publisher that may be under way at one time, without --rate.
    #[arg(long, value_name = "MESSAGES", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=65_535))]
    window: u64,
    /// Process of the broker, to read its memory from /proc; otherwise $SYS is asked.
    #[arg(long)]
    pid: Option<u32>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Each publisher has one subscriber.
    Pairs,
    /// One publisher, many subscribers.
    FanOut,
    /// Many publishers, one subscriber.
    FanIn,
    /// Only connect, many clients one after another.
    Connect,
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Scenario::Pairs => "pairs",
            Scenario::FanOut => "fan-out",
            Scenario::FanIn => "fan-in",
            Scenario::Connect => "connect",
        }
    }
}

/// Measures and prints.
pub fn run(args: &Bench) -> Result<(), Failure> {
    let setup = args.connection.setup()?;
    if args.connection.id.is_some() {
        return Err(Failure::usage("-i would be the same for all clients: use -I"));
    }
    let memory_before = memory::read(args.pid, &setup);
    let result = measure(args, &setup).map_err(|error| setup.failure(&error))?;
    report::print(args, &setup, &result, memory_before);
    if result.lost > 0 && args.qos.0 > whimbrel_codec::QoS::AtMostOnce {
        return Err(setup.failed(1, format!("{} messages were lost", result.lost)));
    }
    Ok(())
}

fn measure(args: &Bench, setup: &Setup<'_>) -> Result<report::Result, whimbrel_client::Error> {
    let prefix = args.connection.id_prefix.as_deref().unwrap_or("bench-");
    let mut load = load::Load::new(setup, prefix)?;
    let connected = load.connect(args)?;
    let mut result = match args.scenario {
        Scenario::Connect => report::Result::connections(connected),
        _ => load.publish(args, Duration::from_secs(args.duration))?,
    };
    result.memory_bytes = memory::read(args.pid, setup);
    load.disconnect();
    Ok(result)
}
