//! Who may connect and what those may do, as the configuration and its files say it.
//!
//! [`Gate`] answers for the core: at once what costs nothing, all else from threads of its own
//! (`workers.rs`), so that a storm of logins holds up no message. The files are read again at
//! SIGHUP and when they change (`watch.rs`); what is wrong in them then changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use whimbrel_auth::Rules;
use whimbrel_auth::password::PasswordFile;

use crate::config::{Config, ConfigError};
use crate::event_loop::Peers;
use crate::log::AUDIT;
use crate::mailbox::Control;

mod chain;
mod gate;
mod watch;
mod workers;

pub(crate) use chain::{check, warnings};
pub(crate) use gate::Gate;
pub(crate) use watch::Watch;

/// What the files of a configuration hold.
pub(crate) struct Files {
    pub(crate) passwords: Arc<PasswordFile>,
    pub(crate) rules: Arc<Rules>,
}

impl Files {
    /// Reads all files that `config` names.
    ///
    /// # Errors
    /// The first that cannot be read or understood.
    pub(crate) fn read(config: &Config) -> Result<Files, ConfigError> {
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
            ("", path) => read_rules(path, "acl_file", Rules::from_toml)?,
            _ => {
                let what = "there are a `rules_file` and an `acl_file`; keep one of them";
                return Err(ConfigError { place: "key `acl_file`".into(), what: what.into() });
            }
        };
        Ok(Files { passwords: Arc::new(passwords), rules: Arc::new(rules) })
    }
}

/// The files that decide who may do what.
pub(crate) fn paths(config: &Config) -> Vec<PathBuf> {
    let all = [&config.password_file, &config.rules_file, &config.acl_file];
    all.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).collect()
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
    /// In force.
    config: Mutex<Config>,
}

impl Access {
    pub(crate) fn new(gate: Arc<Gate>, peers: Arc<Peers>, config: &Config) -> Access {
        Access { gate, peers, config: Mutex::new(config.clone()) }
    }

    /// Puts in force what `config` and its files say.
    ///
    /// # Errors
    /// The first thing that is wrong; then nothing has changed.
    pub(crate) fn reconfigure(&self, config: &Config) -> Result<(), ConfigError> {
        let mut now = self.config();
        self.take(config)?;
        *now = config.clone();
        Ok(())
    }

    /// The configuration is the same, but its files have changed.
    pub(crate) fn files_changed(&self) {
        let config = self.config();
        match self.take(&config) {
            Ok(()) => tracing::info!(target: AUDIT, "files of who may do what were read again"),
            Err(error) => tracing::error!("files of who may do what not read again: {error}"),
        }
    }

    /// The files to watch.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        paths(&self.config())
    }

    fn take(&self, config: &Config) -> Result<(), ConfigError> {
        check(config)?;
        let files = Files::read(config)?;
        self.gate.reconfigure(config, &files);
        self.peers.shared.set_rules(files.rules);
        self.peers.mailboxes.iter().for_each(|mailbox| mailbox.control(Control::RulesChanged));
        Ok(())
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
