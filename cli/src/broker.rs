//! `whimbrel broker`: the broker as a process.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, FromArgMatches, value_parser};
use whimbrel_broker::config::{
    CertificateFiles, Config, Durability, KEYS, Loaded, Shortcuts, Sources, load, print,
};
use whimbrel_broker::{Broker, Signals, StartError, log};

use crate::failure::Failure;

/// The configuration, the arguments or the environment are at fault.
const EXIT_CONFIG: u8 = 2;

/// Arguments of `whimbrel broker`.
#[derive(clap::Args, Debug, Default)]
pub struct Args {
    /// Read this configuration file (TOML); without one there are the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the TCP and WebSocket listeners.
    #[arg(long, value_name = "IP")]
    bind: Option<IpAddr>,
    /// Port of the first TCP listener; 0: any free one.
    #[arg(long, short)]
    port: Option<u16>,
    /// Port of the first WebSocket listener; 0: any free one.
    #[arg(long, value_name = "PORT", conflicts_with = "no_websocket")]
    ws_port: Option<u16>,
    /// No WebSocket listener.
    #[arg(long)]
    no_websocket: bool,
    /// Port of the first TCP listener with TLS; 0: any free one.
    #[arg(long, value_name = "PORT")]
    tls_port: Option<u16>,
    /// Certificate chain of that listener (PEM); `whimbrel certs` makes one for tests.
    #[arg(long, value_name = "FILE", requires = "key", requires = "tls_port")]
    certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Show the configuration in force, as a file with comments, and exit.
    #[arg(long)]
    print_config: bool,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    #[command(flatten)]
    keys: Keys,
}

/// A flag for each key of the configuration.
#[derive(Debug, Default)]
struct Keys(Vec<(String, String)>);

impl clap::Args for Keys {
    fn augment_args(command: Command) -> Command {
        let flags = KEYS.iter().map(|key| {
            let flag = key.flag();
            let help = format!("{} [key {}, env {}]", key.doc, key.path, key.variable());
            let arg = Arg::new(flag.clone())
                .long(flag)
                .value_name(if key.is_switch { "BOOL" } else { "VALUE" })
                .value_parser(value_parser!(String))
                .help_heading("Keys of the configuration")
                .help(help);
            if key.is_switch {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                arg
            }
        });
        flags.fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Keys::augment_args(command)
    }
}

impl FromArgMatches for Keys {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Keys, clap::Error> {
        let value =
            |flag: String| matches.get_one::<String>(&flag).cloned().map(|value| (flag, value));
        Ok(Keys(KEYS.iter().filter_map(|key| value(key.flag())).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Keys::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args {
    fn sources(self) -> Sources {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Sources {
            file: self.config,
            environment: std::env::vars_os().filter_map(text).collect(),
            flags: self.keys.0,
            shortcuts: Shortcuts {
                bind: self.bind,
                port: self.port,
                ws_port: self.ws_port,
                no_websocket: self.no_websocket,
                tls_port: self.tls_port,
                certificate: self
                    .certificate
                    .zip(self.key)
                    .map(|(certificate, key)| CertificateFiles::new(certificate, key)),
            },
        }
    }
}

/// Runs the broker until it is stopped by a signal.
pub fn run(args: Args) -> Result<(), Failure> {
    let (print_config, check_config) = (args.print_config, args.check_config);
    let sources = args.sources();
    let Loaded { config, warnings } =
        load(&sources).map_err(|error| Failure::new(EXIT_CONFIG, error.to_string()))?;
    if print_config || check_config {
        let text = if print_config { print(&config) } else { String::new() };
        let written = io::stdout().write_all(text.as_bytes());
        return written.map_err(|error| Failure::new(1, error.to_string()));
    }
    serve(sources, config, &warnings).map_err(|error| {
        let system = matches!(error, StartError::System(_));
        let code = if system { 1 } else { EXIT_CONFIG };
        Failure::new(code, error.to_string())
    })
}

fn serve(sources: Sources, config: Config, warnings: &[String]) -> Result<(), StartError> {
    let log = log::start(config.log_level, config.log_format);
    warnings.iter().for_each(|warning| log::warn(warning));
    let signals = Signals::catch()?;
    let broker = Broker::start(&config)?;
    // Who started the broker may not care for its output.
    let _ = announce(&broker, &config);
    Ok(signals.run(broker, sources, config, log)?)
}

/// Tells people and programs where clients connect.
fn announce(broker: &Broker, config: &Config) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let listeners = broker.listeners();
    for listener in listeners {
        writeln!(out, "listening {listener}")?;
    }
    let urls: Vec<_> = listeners.iter().map(|listener| listener.url()).collect();
    let local = listeners.iter().all(|listener| listener.endpoint.is_local());
    let reach = if local { "loopback only" } else { "OPEN TO THE NETWORK" };
    let version = env!("CARGO_PKG_VERSION");
    let urls = urls.join(", ");
    let kept = match (config.data_dir.as_str(), config.durability) {
        ("", _) => "everything in memory".to_owned(),
        (data_dir, Durability::Fsync) => format!("kept in {data_dir}, synced"),
        (data_dir, Durability::Os) => format!("kept in {data_dir}, NOT SYNCED"),
        (data_dir, Durability::Memory) => format!("kept in {data_dir}, NOT WAITED FOR"),
    };
    writeln!(out, "whimbrel {version}: {urls}; anonymous, {reach}, {kept}")?;
    writeln!(out, "ready")?;
    out.flush()
}
