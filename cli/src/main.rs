//! The `whimbrel` command.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod bench;
mod broker;
mod cbor;
mod certs;
mod control;
mod defaults;
mod explain;
mod failure;
mod format;
mod generate;
mod lines;
mod login_args;
mod message_line;
mod online;
mod output;
mod passwd;
mod payload;
mod property;
mod publish;
mod record;
mod request;
mod shell;
mod simulate;
mod store;
mod subscribe;
mod tls_args;
mod topic;
mod unsupported;
mod view;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

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
    Pub(Box<publish::Pub>),
    /// Subscribe, and print messages.
    Sub(Box<subscribe::Sub>),
    /// Publish a request, and print the response.
    Rr(Box<request::Rr>),
    /// Watch the topics of a broker, live, and publish.
    Shell(Box<shell::Shell>),
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
    /// Print the completions for a shell.
    Completions(generate::Completions),
    /// Write the man pages.
    Man(generate::Man),
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.quiet {
                eprintln!("Error: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn start() -> Result<(), Failure> {
    let (words, file) = defaults::words()?;
    match Whimbrel::try_parse_from(words) {
        Ok(Whimbrel { command }) => run(command.unwrap_or(Command::Broker(Box::default()))),
        Err(error) => usage(&error).map_err(|mut failure| {
            if let Some(file) = file {
                failure.message += &format!(" and {}", file.display());
            }
            failure
        }),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Broker(args) => broker::run(*args),
        Command::Pub(args) => publish::run(&args),
        Command::Sub(args) => subscribe::run(&args),
        Command::Rr(args) => request::run(&args),
        Command::Shell(args) => shell::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Certs(args) => certs::run(&args),
        Command::Store(args) => store::run(&args),
        Command::Passwd(args) => passwd::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Completions(args) => generate::completions(&args, Whimbrel::command()),
        Command::Man(args) => generate::man(&args, Whimbrel::command()),
    }
}

/// Commands that are no tools; errors about their flags name their help.
const NAMED: &[&str] = &["store", "passwd", "certs", "explain", "completions", "man"];

/// Help as it is; an error in one line, with code 1 for the clients, and 2 for the broker and what
/// looks into its files.
fn usage(error: &clap::Error) -> Result<(), Failure> {
    let command = std::env::args().nth(1).unwrap_or_default();
    let tools = ["pub", "sub", "rr", "shell", "bench", "simulate"];
    let tool = tools.contains(&command.as_str());
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
    let named = tool || NAMED.contains(&command.as_str());
    let help = if named { format!("whimbrel {command} --help") } else { "whimbrel --help".into() };
    Err(Failure::new(code, format!("{}; see `{help}`", words.join(" "))))
}
