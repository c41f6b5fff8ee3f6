//! The command line: conformance tests against a broker on the network.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use whimbrel_conformance::outcome::Stop;
use whimbrel_conformance::port::{Broker, Tcp};
use whimbrel_conformance::runner::{self, Run};
use whimbrel_conformance::table;
use whimbrel_conformance::websocket::WebSocket;

/// Tests a broker against the normative statements of MQTT 5.0, 3.1.1 and 3.1.
///
/// Exit code: 0 if nothing failed, 1 if a test failed, 2 on wrong usage or without a broker.
#[derive(Parser)]
#[command(name = "whimbrel-conformance")]
struct Options {
    /// Where the broker listens.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port on which it listens.
    #[arg(long, required_unless_present_any = ["list", "table"])]
    port: Option<u16>,
    /// Connect by WebSocket, to this path.
    #[arg(long, value_name = "PATH")]
    websocket: Option<String>,
    /// Only tests whose name, or a statement of theirs, contains this.
    #[arg(long, default_value = "")]
    filter: String,
    /// Only this version.
    #[arg(long)]
    version: Option<Version>,
    /// How many tests run at a time.
    #[arg(long, default_value_t = 32)]
    jobs: usize,
    /// Also demand what the standard only recommends: that the broker says why it closes.
    #[arg(long)]
    strict: bool,
    /// Print the tests and their statements instead of running them.
    #[arg(long)]
    list: bool,
    /// Write the table of statements and tests to this file instead of running the tests.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "5")]
    V5,
    #[value(name = "4")]
    V3_1_1,
    #[value(name = "3")]
    V3_1,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(path) = &options.table {
        return match std::fs::write(path, table::markdown()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => usage(&format!("cannot write {}: {error}", path.display())),
        };
    }
    let runs = runner::select(
        &options.filter,
        options.version.map(|version| match version {
            Version::V5 => whimbrel_codec::Version::V5,
            Version::V3_1_1 => whimbrel_codec::Version::V3_1_1,
            Version::V3_1 => whimbrel_codec::Version::V3_1,
        }),
    );
    if options.list {
        for run in runs {
            println!("{} {}", run.name(), run.test.ids(run.version).join(" "));
        }
        return ExitCode::SUCCESS;
    }
    if runs.is_empty() {
        return usage(&format!("no test contains '{}'", options.filter));
    }
    let Some(address) = address(&options.host, options.port.unwrap_or_default()) else {
        return usage(&format!("no address for '{}'", options.host));
    };
    match &options.websocket {
        Some(path) => run(&WebSocket { address, path: path.clone() }, &runs, &options),
        None => run(&Tcp { address }, &runs, &options),
    }
}

fn run<B: Broker + Clone + Sync>(broker: &B, runs: &[Run], options: &Options) -> ExitCode {
    if let Err(error) = broker.open() {
        return usage(&error);
    }
    report(&runner::run_all(runs, options.jobs, options.strict, || broker.clone()))
}

fn address(host: &str, port: u16) -> Option<SocketAddr> {
    match host.parse::<IpAddr>() {
        Ok(address) => Some(SocketAddr::new(address, port)),
        Err(_) => (host, port).to_socket_addrs().ok()?.next(),
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("whimbrel-conformance: {what}");
    ExitCode::from(2)
}

fn report(finished: &[runner::Finished]) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (run, outcome) in finished {
        match outcome {
            Ok(()) => passed += 1,
            Err(Stop::Skipped(why)) => {
                skipped += 1;
                println!("skipped {}: {why}", run.name());
            }
            Err(Stop::Failed(why)) => {
                failed += 1;
                let ids = run.test.ids(run.version).join(" ");
                println!("FAILED  {} {ids}\n        {why}", run.name());
            }
        }
    }
    println!("conformance: {passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}
