//! The `whimbrel` command.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod bench;
mod broker;
mod certs;
mod control;
mod explain;
mod failure;
mod format;
mod passwd;
mod property;
mod publish;
mod simulate;
mod store;
mod subscribe;
mod tls_args;
mod topic;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::failure::Failure;

/// An MQTT broker, and the tools around it. Without a command, the broker starts.
#[derive(Parser)]
#[command(name = "whimbrel", version, max_term_width = 100)]
struct Whimbrel {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Start the broker.
    Broker(Box<broker::Args>),
    /// Publish messages.
    Pub(publish::Pub),
    /// Subscribe, and print messages.
    Sub(Box<subscribe::Sub>),
    /// Put load on a broker and measure it.
    Bench(Box<bench::Bench>),
    /// Simulate a fleet of devices.
    Simulate(Box<simulate::Simulate>),
    /// Make certificates for tests.
    Certs(certs::Certs),
    /// Check, repair, export or import the data directory of a stopped broker.
    Store(store::Store),
    /// Add, remove or verify users of a password file.
    Passwd(passwd::Passwd),
    /// Tell which rule allows or denies something.
    Explain(Box<explain::Explain>),
}

fn main() -> ExitCode {
    let result = match Whimbrel::try_parse() {
        Ok(Whimbrel { command }) => run(command.unwrap_or(Command::Broker(Box::default()))),
        Err(error) => usage(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.quiet {
                eprintln!("Error: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Broker(args) => broker::run(*args),
        Command::Pub(args) => publish::run(&args),
        Command::Sub(args) => subscribe::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Certs(args) => certs::run(&args),
        Command::Store(args) => store::run(&args),
        Command::Passwd(args) => passwd::run(&args),
        Command::Explain(args) => explain::run(&args),
    }
}

/// Help as it is; an error in one line, with code 1 for the clients, and 2 for the broker and what
/// looks into its files.
fn usage(error: &clap::Error) -> Result<(), Failure> {
    let command = std::env::args().nth(1).unwrap_or_default();
    let tool = matches!(command.as_str(), "pub" | "sub" | "bench" | "simulate");
    let code = if tool { 1 } else { 2 };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has seen enough (`| head`) is no error.
            let _ = error.print();
            return Ok(());
        }
        _ => {}
    }
    let text = match error.kind() {
        // Its text would be all of the help.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("a command is missing after {command}")
        }
        _ => error.to_string(),
    };
    let head = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = head.trim_start_matches("error: ").split_whitespace().collect();
    let named = tool || matches!(command.as_str(), "store" | "passwd" | "certs" | "explain");
    let help = if named { format!("whimbrel {command} --help") } else { "whimbrel --help".into() };
    Err(Failure::new(code, format!("{}; see `{help}`", words.join(" "))))
}
