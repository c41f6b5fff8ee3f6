//! `whimbrel simulate`: a fleet of devices, described by a file.
//!
//! What a device does when is decided without I/O ([`device`]), from groups of the file
//! ([`fleet`]); [`drive`] gives each device a client and the time.

mod device;
mod document;
mod drive;
mod field;
mod fleet;
mod payload;
mod summary;
mod template;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::task::LocalSet;

use self::fleet::Fleet;
use crate::args::Connection;
use crate::failure::Failure;

/// What `--example` prints.
const EXAMPLE: &str = include_str!("example.toml");

/// Simulate a fleet of devices, described by a small TOML file.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(after_help = "Start with `whimbrel simulate --example > fleet.toml`; docs/simulate.md \
                        explains all keys.")]
pub struct Simulate {
    /// The fleet.
    #[arg(value_name = "FLEET.toml", required_unless_present = "example")]
    fleet: Option<PathBuf>,
    /// Print a fleet with comments, and end.
    #[arg(long, conflicts_with = "fleet")]
    example: bool,
    /// Seconds until the devices go; without, they stay until Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    duration: Option<u64>,
    /// So many times the devices that the file says; 0.1: a tenth of them, one at least.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,
    /// The same number makes the same values; goes before `seed` in the file.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Print the summary as JSON; docs/simulate.md has its keys.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs until the end that was asked for.
pub fn run(args: &Simulate) -> Result<(), Failure> {
    let Some(path) = &args.fleet else {
        // A reader that has seen enough is no error.
        let _ = write!(std::io::stdout(), "{EXAMPLE}");
        return Ok(());
    };
    let setup = args.connection.setup()?;
    if args.connection.id.is_some() || args.connection.id_prefix.is_some() {
        return Err(Failure::usage("devices have the client identifiers of the file: no -i, -I"));
    }
    if !(args.scale > 0.0 && args.scale <= 1e6) {
        return Err(Failure::usage("--scale takes a number greater than 0, and at most a million"));
    }
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    let mut fleet =
        Fleet::parse(&name, &text).map_err(|mistake| Failure::usage(mistake.to_string()))?;
    for group in &mut fleet.groups {
        group.count = scaled(group.count, args.scale);
    }
    let plan = drive::Plan {
        setup: &setup,
        name,
        seed: args.seed.or(fleet.seed).unwrap_or_else(|| fastrand::u64(..1 << 32)),
        fleet,
        duration: args.duration.map(Duration::from_secs),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(1, format!("cannot start the devices: {error}")))?;
    let summary = LocalSet::new().block_on(&runtime, drive::run(plan))?;
    let text = if args.json { summary.to_json() } else { summary.to_table() };
    let _ = writeln!(std::io::stdout(), "{text}");
    match summary.failure() {
        Some(what) => Err(setup.failed(1, what)),
        None => Ok(()),
    }
}

/// One at least, of a group that has some.
fn scaled(count: u32, scale: f64) -> u32 {
    let scaled = (f64::from(count) * scale).round() as u32;
    scaled.max(count.min(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_vanishes_by_scaling() {
        assert_eq!([(10, 0.01), (10, 2.5), (0, 3.0)].map(|(n, by)| scaled(n, by)), [1, 25, 0]);
    }
}
