//! `whimbrel bench`: put load on a broker and measure it.
//!
//! One thread drives all clients: on a small machine the broker and the bench share what there
//! is: read the figures as "at least so much".

mod environment;
mod load;
mod memory;
mod plot;
mod process;
mod report;
mod retained;
mod scenario;
mod stamp;
mod table;
mod tally;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::task::LocalSet;
use whimbrel_client::Address;
use whimbrel_codec::QoS;

use self::environment::Environment;
use self::load::Load;
use self::process::Process;
use self::report::{BrokerProcess, Report, Settings};
use self::scenario::{Plan, Scenario};
use crate::args::{Connection, QosArg, Setup};
use crate::failure::Failure;

/// Put load on a broker and measure it.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Bench {
    /// Who talks to whom.
    #[arg(value_enum, default_value_t = Scenario::Pairs)]
    scenario: Scenario,
    /// Pairs, subscribers of fan-out, publishers of fan-in and retained, or connections.
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
    /// Messages per second of all publishers together, or connections; 0: as many as go.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Seconds of publishing.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// Seconds of publishing before, which are not measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400))]
    warm_up: u64,
    /// Seconds over which the connections are spread; 0: as fast as they are made.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400))]
    ramp: u64,
    /// Messages of each publisher that may be under way at one time, without --rate.
    #[arg(long, value_name = "MESSAGES", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=65_535))]
    window: u64,
    /// Messages that are stored and fetched by the scenario `retained`.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    messages: u32,
    /// Process of the broker, to read its memory and CPU time from /proc; otherwise $SYS is asked.
    #[arg(long)]
    pid: Option<u32>,
    /// Print the result as JSON; docs/bench.md has its keys.
    #[arg(long)]
    json: bool,
    /// Write the result as JSON to a file, for --compare.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What tables and plots call this run; the broker's address if not given.
    #[arg(long)]
    name: Option<String>,
    /// Draw latency and rate to a file, which must end in .svg or .png.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Put earlier results, written with --json or -o, beside this one in table and plot.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    compare: Vec<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Measures and prints.
pub fn run(args: &Bench) -> Result<(), Failure> {
    let setup = args.connection.setup()?;
    if args.connection.id.is_some() {
        return Err(Failure::usage("-i would be the same for all clients: use -I"));
    }
    let earlier = args.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(1, format!("cannot start the clients: {error}")))?;
    let tasks = LocalSet::new();
    let (report, trouble) = tasks.block_on(&runtime, measure(args, &setup))?;
    let reports: Vec<&Report> = earlier.iter().chain([&report]).collect();
    let text = if args.json { report.to_json() } else { table::table(&reports) };
    // A reader that has seen enough is no error.
    let _ = writeln!(std::io::stdout(), "{text}");
    if let Some(path) = &args.output {
        write(path, &report)?;
    }
    if let Some(path) = &args.plot {
        plot::write(path, &reports)?;
    }
    warn(args, &setup, &report);
    faults(args, &setup, &report, trouble)
}

fn write(path: &Path, report: &Report) -> Result<(), Failure> {
    std::fs::write(path, report.to_json() + "\n")
        .map_err(|error| Failure::new(1, format!("cannot write {}: {error}", path.display())))
}

/// What makes figures say less than they seem to.
fn warn(args: &Bench, setup: &Setup<'_>, report: &Report) {
    if cfg!(debug_assertions) && std::io::stderr().is_terminal() {
        setup.warn("this is a debug build: the figures are not those of a release build");
    }
    let reached = report.messages.published.map(|sent| sent as f64 / args.duration as f64);
    let paced = args.rate > 0 && args.scenario != Scenario::Retained;
    if let Some(reached) = reached.filter(|reached| paced && *reached < 0.95 * args.rate as f64) {
        let rate = args.rate;
        setup.warn(&format!("only {reached:.0} instead of {rate} messages/s could be published"));
    }
    let elapsed_s = report.messages.elapsed_s.unwrap_or(f64::MAX);
    let busy = report.broker_process.bench_cpu_s.is_some_and(|used_s| used_s > 0.9 * elapsed_s);
    if busy && args.rate == 0 && args.scenario != Scenario::Retained {
        setup.warn("the bench had no time to spare: the broker may be able to do more");
    }
}

/// What makes a run a failed one.
fn faults(
    args: &Bench,
    setup: &Setup<'_>,
    report: &Report,
    trouble: Option<String>,
) -> Result<(), Failure> {
    let (connections, messages) = (&report.connections, &report.messages);
    if let Some(why) = trouble {
        return Err(setup.failed(1, format!("not all messages could be published: {why}")));
    }
    if connections.refused > 0 {
        let all = connections.refused + connections.connections;
        let what = format!("{} of {all} connections were refused", connections.refused);
        return Err(setup.failed(1, what));
    }
    if connections.disconnected > 0 {
        let what = format!("{} connections were lost", connections.disconnected);
        return Err(setup.failed(1, what));
    }
    let lost = messages.lost.unwrap_or(0);
    if lost > 0 && args.qos.0 > QoS::AtMostOnce {
        return Err(setup.failed(1, format!("{lost} messages were lost")));
    }
    let duplicates = messages.duplicates.unwrap_or(0);
    if duplicates > 0 && args.qos.0 == QoS::ExactlyOnce {
        return Err(setup.failed(1, format!("{duplicates} messages came more than once")));
    }
    Ok(())
}

impl Bench {
    /// What can be wrong with the flags before anything is measured; the reports to compare with.
    fn check(&self) -> Result<Vec<Report>, Failure> {
        if let Some(path) = &self.plot {
            plot::Format::of(path)?;
        }
        if self.compare.len() >= plot::RUNS_MAX {
            let what = format!("--compare takes {} files at most", plot::RUNS_MAX - 1);
            return Err(Failure::usage(what));
        }
        self.compare.iter().map(|path| Report::read(path)).collect()
    }

    fn settings(&self, setup: &Setup<'_>, plan: &Plan) -> Settings {
        Settings {
            scenario: self.scenario.name().into(),
            broker: setup.address.to_string(),
            transport: transport(&setup.address).into(),
            version: setup.version as u8,
            clients: self.clients,
            publishers: plan.publishers,
            subscribers: plan.subscribers,
            qos: self.qos.0 as u8,
            payload_bytes: self.payload,
            rate: self.rate,
            window: self.window,
            duration_s: self.duration,
            warm_up_s: self.warm_up,
            ramp_s: self.ramp,
        }
    }
}

fn transport(address: &Address) -> &'static str {
    match address {
        Address::Tcp { .. } => "tcp",
        Address::Unix(_) => "unix",
        Address::WebSocket { .. } => "ws",
        Address::Tls { inner, .. } if matches!(**inner, Address::WebSocket { .. }) => "wss",
        Address::Tls { .. } => "tls",
    }
}

async fn measure(args: &Bench, setup: &Setup<'_>) -> Result<(Report, Option<String>), Failure> {
    let base = format!("bench/{}", std::process::id());
    let plan = Plan::new(args.scenario, args.clients, base);
    let name = args.name.clone().unwrap_or_else(|| setup.address.to_string());
    let mut report = Report::new(name, args.settings(setup, &plan));
    report.environment = Environment::read();
    let mut costs = Costs::new(args.pid)?;
    let before = costs.memory_bytes(setup).await;
    let mut load = Load::new(args, setup, plan);
    costs.begin();
    load.connect().await?;
    let mut units = load.counts.connects.borrow().accepted();
    if args.scenario == Scenario::Connect {
        report.timeline = load.counts.connects.borrow().figures().1;
    } else {
        match args.scenario {
            Scenario::Retained => retained::store_and_fetch(&load, || costs.begin()).await?,
            _ => {
                load.subscribe().await?;
                load.publish(|| costs.begin()).await?;
            }
        }
        (report.messages, report.timeline) = load.counts.tally.borrow().figures();
        units = report.messages.received.unwrap_or(0);
    }
    report.broker_process = costs.end(units);
    report.broker_process.memory_before_bytes = before;
    report.broker_process.memory_bytes = costs.memory_bytes(setup).await;
    load.disconnect().await;
    report.connections = load.counts.connects.borrow().figures().0;
    let trouble = load.counts.take_trouble();
    Ok((report, trouble))
}

/// Processor time from the begin of what is measured.
struct Costs {
    broker: Option<Process>,
    begin: (Option<Duration>, Option<Duration>),
}

impl Costs {
    fn new(pid: Option<u32>) -> Result<Costs, Failure> {
        let unknown = |pid| Failure::usage(format!("--pid {pid}: /proc has no such process"));
        let broker = match pid {
            Some(pid) => Some(Process::new(pid).ok_or_else(|| unknown(pid))?),
            None => None,
        };
        Ok(Costs { broker, begin: (None, None) })
    }

    /// Resident bytes of the process if it is named, otherwise what the broker says.
    async fn memory_bytes(&self, setup: &Setup<'_>) -> Option<u64> {
        match self.broker {
            Some(process) => process.memory_bytes(),
            None => memory::ask(setup).await,
        }
    }

    fn begin(&mut self) {
        self.begin = (self.broker.and_then(Process::cpu), Process::own().cpu());
    }

    /// For so many messages or connections.
    fn end(&self, units: u64) -> BrokerProcess {
        let since = |end: Option<Duration>, begin: Option<Duration>| {
            Some(end?.saturating_sub(begin?).as_secs_f64())
        };
        let cpu_s = since(self.broker.and_then(Process::cpu), self.begin.0);
        let each = |seconds: f64| (units > 0).then(|| seconds * 1e6 / units as f64);
        BrokerProcess {
            cpu_s,
            cpu_us_per_message: cpu_s.and_then(each),
            bench_cpu_s: since(Process::own().cpu(), self.begin.1),
            ..BrokerProcess::default()
        }
    }
}
