//! `whimbrel store`: what is in the data directory of a broker that is stopped.

mod check;
mod disks;
mod export;
mod import;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use whimbrel_store::{Log, OpenError, Options, Recovered};

use crate::failure::Failure;
use disks::ReadOnly;

/// The version of exported lines.
const VERSION: u64 = 1;

/// It is the store that is at fault, or the lines, or the disk.
const EXIT_BAD: u8 = 1;

/// Nothing was done: wrong usage, not a store, or in use.
const EXIT_REFUSED: u8 = 2;

const STORE_HELP: &str = "\
The broker must be stopped: a directory that is in use is refused.

Exit codes:
  0  all is well
  1  the store is damaged, a line cannot be imported, or the disk failed
  2  wrong usage, not a store, or in use by a running broker; nothing was done";

const CHECK_HELP: &str = "\
Examples:
  whimbrel store check /var/lib/whimbrel
  whimbrel store check /var/lib/whimbrel > /dev/null || echo 'the broker would not start'

Exit codes: 0 if the broker would start, 1 if something found keeps it from starting, 2 if DIR is
no store or is in use. An end that was torn when the broker was killed is no damage.";

const REPAIR_HELP: &str = "\
Example:
  whimbrel store repair /var/lib/whimbrel

Copy the directory first if you can: what was acknowledged and is damaged is lost, and only the
files that are put aside (*.damaged) may still tell something about it.";

const EXPORT_HELP: &str = "\
Examples:
  whimbrel store export /var/lib/whimbrel backup.jsonl
  whimbrel store export /var/lib/whimbrel | jq -c 'select(.session)'
  whimbrel store export old | whimbrel store import new

The first line is {\"whimbrel_store\":1,...}, the last {\"end\":true,...}. Between them stands each
message once, before the first line that names its number; then the retained messages and the
sessions, each with its will, subscriptions, deliveries in flight, and queue. A queue entry that
is a number alone is that message at QoS 1. Long queues go on in further lines. Bytes that are not
UTF-8 are in fields named *_base64.

The store is not changed: a torn end is left where it is, and not exported.";

const IMPORT_HELP: &str = "\
Examples:
  whimbrel store import /var/lib/whimbrel backup.jsonl
  whimbrel store export old | whimbrel store import new

No broker opens DIR before the last line has been imported; after a bad line DIR is as before.
`content_type` and `user_properties` of a message are for the reader: where `properties_base64` is
missing, properties are made from them.";

/// Look into the data directory of a stopped broker, repair it, export or import it.
#[derive(Args, Debug)]
#[command(after_help = STORE_HELP)]
pub struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Read everything and say what is there and what is wrong; changes nothing.
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The data directory (`data_dir` of the configuration).
        dir: PathBuf,
    },
    /// Make a damaged store one that can be opened; damaged files are put aside, not deleted.
    #[command(after_help = REPAIR_HELP)]
    Repair {
        /// The data directory.
        dir: PathBuf,
    },
    /// Write sessions and messages as lines of JSON; changes nothing in the store.
    #[command(after_help = EXPORT_HELP)]
    Export {
        /// The data directory.
        dir: PathBuf,
        /// Where to; stdout if not given.
        file: Option<PathBuf>,
    },
    /// Make a new store of such lines.
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// The data directory to be made; empty, or not there yet.
        dir: PathBuf,
        /// Where from; stdin if not given.
        file: Option<PathBuf>,
    },
}

/// Runs the command.
pub fn run(args: &Store) -> Result<(), Failure> {
    match &args.command {
        Command::Check { dir } => check::check(dir),
        Command::Repair { dir } => check::repair(dir),
        Command::Export { dir, file } => export::run(dir, file.as_deref()),
        Command::Import { dir, file } => import::run(dir, file.as_deref()),
    }
}

/// Refuses what is no data directory, before anything is made in it.
fn expect_store(dir: &Path) -> Result<(), Failure> {
    let entries = std::fs::read_dir(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refused(dir, "there is no such directory"),
        io::ErrorKind::NotADirectory => refused(dir, "this is a file, not a data directory"),
        _ => refused(dir, &error.to_string()),
    })?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names: Vec<String> = names.collect();
    if names.iter().any(|name| name == disks::UNFINISHED) {
        return Err(refused(
            dir,
            "an import into this directory was broken off; remove the directory and import again",
        ));
    }
    let is_store = |name: &String| name == disks::STORE || name.starts_with("log-");
    if !names.iter().any(is_store) {
        let what = "this is no data directory: there is neither a file STORE nor a segment (log-*)";
        return Err(refused(dir, what));
    }
    Ok(())
}

/// Opens a store and changes nothing in it.
fn open_unchanged(dir: &Path) -> Result<(Arc<Log>, Recovered), Failure> {
    expect_store(dir)?;
    let options = Options { reserve_bytes: 0, ..Options::default() };
    Log::open(Arc::new(ReadOnly::new(dir)), options, 0).map_err(|error| open_failure(dir, &error))
}

fn open_failure(dir: &Path, error: &OpenError) -> Failure {
    let code = match error {
        OpenError::InUse | OpenError::LaterFormat { .. } => EXIT_REFUSED,
        _ => EXIT_BAD,
    };
    let text = match error {
        OpenError::InUse => "a running broker uses this data directory; stop it first".to_owned(),
        other => other.to_string(),
    };
    Failure::new(code, format!("{}: {text}", dir.display()))
}

fn refused(dir: &Path, what: &str) -> Failure {
    Failure::new(EXIT_REFUSED, format!("{}: {what}", dir.display()))
}
