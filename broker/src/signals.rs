//! A broker as a process: SIGTERM and SIGINT stop it, SIGHUP has it read its configuration again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::{Config, KEYS, Listener, Loaded, Sources, load};
use crate::log::LogControl;
use crate::{Broker, Handle};

/// The signals of this process, which no longer end it.
pub struct Signals(signal_hook::iterator::Signals);

impl Signals {
    /// From now on signals wait for [`Signals::run`].
    ///
    /// # Errors
    /// If the system refuses.
    pub fn catch() -> io::Result<Signals> {
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]).map(Signals)
    }

    /// Waits until `broker` was stopped by a signal. A second one ends the process at once with
    /// exit code 1. `sources` are read again at SIGHUP; `config` is what is in force.
    ///
    /// # Errors
    /// If a shard failed.
    pub fn run(
        self,
        broker: Broker,
        sources: Sources,
        config: Config,
        log: LogControl,
    ) -> io::Result<()> {
        let log = Arc::new(log);
        let handle = broker.handle();
        let files = handle.clone();
        let mut steering = Steering { handle, sources, config, log: log.clone(), stopping: false };
        let Signals(mut signals) = self;
        std::thread::Builder::new().name("whimbrel-signal".into()).spawn(move || {
            for signal in signals.forever() {
                steering.handle(signal);
            }
        })?;
        watch_files(files)?;
        let result = broker.join();
        log.flush();
        result
    }
}

/// How often files are looked at.
const WATCH: Duration = Duration::from_secs(1);

/// Has files that change read again, as long as the process lives.
fn watch_files(handle: Handle) -> io::Result<()> {
    let watch = move || loop {
        std::thread::sleep(WATCH);
        handle.reload_changed_files();
    };
    std::thread::Builder::new().name("whimbrel-files".into()).spawn(watch).map(drop)
}

struct Steering {
    handle: Handle,
    sources: Sources,
    /// What is in force.
    config: Config,
    log: Arc<LogControl>,
    stopping: bool,
}

impl Steering {
    fn handle(&mut self, signal: i32) {
        if signal == SIGHUP {
            self.reload();
        } else if std::mem::replace(&mut self.stopping, true) {
            tracing::warn!("stopped at once by a second signal");
            self.log.flush();
            std::process::exit(1);
        } else {
            tracing::info!("shutting down");
            self.handle.shut_down();
        }
    }

    /// Puts in force what may change; a configuration with faults changes nothing.
    fn reload(&mut self) {
        let Loaded { config, warnings } = match load(&self.sources) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("configuration not reloaded: {error}");
                return;
            }
        };
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        for fixed in unchangeable(&self.config, &config) {
            tracing::warn!("`{fixed}` changes only when the broker is restarted");
        }
        // What stays as it was is still the old one, for the next comparison.
        let config = config.with_fixed_of(&self.config);
        if let Err(error) = self.handle.reconfigure(&config) {
            tracing::error!("configuration not reloaded: {error}");
            return;
        }
        self.log.set_level(config.log_level);
        self.config = config;
        tracing::info!("configuration reloaded");
    }
}

/// What differs and cannot change in a running broker. Of a listener, all in its table
/// `[listener.tls]` can change, but not whether it has one.
fn unchangeable(old: &Config, new: &Config) -> Vec<&'static str> {
    let differs = |key: &&crate::config::Key| !key.live && key.shown(old) != key.shown(new);
    let mut all: Vec<_> = KEYS.iter().filter(differs).map(|key| key.path).collect();
    let fixed = |config: &Config| config.listeners.iter().map(Listener::fixed).collect::<Vec<_>>();
    if fixed(old) != fixed(new) {
        all.push("listener");
    }
    all
}
