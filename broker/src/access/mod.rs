//! Who may connect and what those may do, as the configuration and its files say it.
//!
//! [`Gate`] answers for the core: at once what costs nothing, all else from threads of its own
//! (`workers.rs`), so that a storm of logins holds up no message. The files are read again at
//! SIGHUP and when they change; what is wrong in them then changes nothing.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use whimbrel_auth::Rules;
use whimbrel_auth::password::PasswordFile;

use crate::config::{Config, ConfigError};
use crate::event_loop::Peers;
use crate::log::AUDIT;
use crate::mailbox::Control;
use crate::watched::Watched;

mod chain;
mod gate;
mod workers;

pub(crate) use chain::{check, warnings};
pub(crate) use gate::Gate;

/// What the files of a configuration hold.
pub(crate) struct Files {
    pub(crate) passwords: Arc<PasswordFile>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) watched: Watched,
}

impl Files {
    /// Reads all files that `config` names.
    ///
    /// # Errors
    /// The first that cannot be read or understood.
    pub(crate) fn read(config: &Config) -> Result<Files, ConfigError> {
        let watched = Watched::new(paths(config));
        let passwords = match &*config.password_file {
            "" => String::new(),
            path => text(path, "password_file")?,
        };
        let passwords = PasswordFile::parse(&passwords).map_err(|faults| {
            // The rest of them stand in the same file.
            let first = faults.first();
            let line = first.map_or(0, |fault| fault.line);
            ConfigError {
                place: format!("{}:{line}", config.password_file),
                what: first.map_or(String::new(), |fault| fault.message.clone()),
            }
        })?;
        let rules = match (&*config.rules_file, &*config.acl_file) {
            ("", "") => Rules::open(),
            (path, "") => read_rules(path, "rules_file", Rules::from_toml)?,
            ("", path) => read_rules(path, "acl_file", Rules::from_mosquitto)?,
            _ => {
                let what = "there are a `rules_file` and an `acl_file`; keep one of them";
                return Err(ConfigError { place: "key `acl_file`".into(), what: what.into() });
            }
        };
        Ok(Files { passwords: Arc::new(passwords), rules: Arc::new(rules), watched })
    }
}

/// The files that decide who may do what.
fn paths(config: &Config) -> impl Iterator<Item = &Path> {
    let all = [&config.password_file, &config.rules_file, &config.acl_file];
    all.into_iter().filter(|path| !path.is_empty()).map(Path::new)
}

fn text(path: &str, key: &str) -> Result<String, ConfigError> {
    std::fs::read_to_string(Path::new(path)).map_err(|error| ConfigError {
        place: format!("key `{key}`"),
        what: format!("cannot read {path}: {error}"),
    })
}

fn read_rules<E: std::fmt::Display>(
    path: &str,
    key: &str,
    read: fn(&str, &str) -> Result<Rules, E>,
) -> Result<Rules, ConfigError> {
    let text = text(path, key)?;
    read(path, &text)
        .map_err(|error| ConfigError { place: format!("key `{key}`"), what: error.to_string() })
}

/// Steers a running broker's gate and rules.
pub(crate) struct Access {
    gate: Arc<Gate>,
    peers: Arc<Peers>,
    current: Mutex<Current>,
}

/// What is in force.
struct Current {
    config: Config,
    files: Watched,
}

impl Access {
    /// `files`: those that were read for `gate` and for the rules.
    pub(crate) fn new(
        gate: Arc<Gate>,
        peers: Arc<Peers>,
        config: &Config,
        files: Watched,
    ) -> Access {
        Access { gate, peers, current: Mutex::new(Current { config: config.clone(), files }) }
    }

    /// Puts in force what `config` and its files say.
    ///
    /// # Errors
    /// The first thing that is wrong; then nothing has changed.
    pub(crate) fn reconfigure(&self, config: &Config) -> Result<(), ConfigError> {
        let mut current = self.current();
        let files = self.take(config)?;
        *current = Current { config: config.clone(), files };
        Ok(())
    }

    /// The configuration is the same, but its files may have changed.
    pub(crate) fn reload_if_changed(&self) {
        let mut current = self.current();
        let Current { config, files } = &mut *current;
        if !files.have_changed(paths(config)) {
            return;
        }
        match self.take(config) {
            Ok(watched) => {
                *files = watched;
                tracing::info!(target: AUDIT, "files of who may do what were read again");
            }
            Err(error) => tracing::error!("files of who may do what not read again: {error}"),
        }
    }

    fn take(&self, config: &Config) -> Result<Watched, ConfigError> {
        check(config)?;
        let files = Files::read(config)?;
        self.gate.reconfigure(config, &files);
        self.peers.shared.set_rules(files.rules);
        self.peers.mailboxes.iter().for_each(|mailbox| mailbox.control(Control::RulesChanged));
        Ok(files.watched)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
