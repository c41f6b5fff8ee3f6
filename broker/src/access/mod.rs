//! Who may connect and what those may do, as the configuration and its files say it.
//!
//! [`Gate`] answers for the core: at once what costs nothing, all else from threads of its own
//! (`workers.rs`), so that a storm of logins holds up no message. The files are read again at
//! SIGHUP and when they change; what is wrong in them then changes nothing.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use whimbrel_auth::Rules;
use whimbrel_auth::hook::HookConfig;
use whimbrel_auth::password::PasswordFile;
use whimbrel_auth::token::{IssuerConfig, Tokens};

use crate::config::{Config, ConfigError};
use crate::event_loop::Peers;
use crate::log::AUDIT;
use crate::mailbox::Control;
use crate::watched::Watched;

mod chain;
mod gate;
mod http;
mod tokens;
mod workers;

pub(crate) use chain::{check, prepare, warnings};
pub(crate) use gate::Gate;

/// What the files of a configuration hold.
pub(crate) struct Files {
    pub(crate) passwords: Arc<PasswordFile>,
    pub(crate) rules: Arc<Rules>,
    tokens: Vec<IssuerConfig>,
    /// Changes with the issuers and their files.
    tokens_mark: [u8; 32],
    hook: Option<HookConfig>,
    http_ca: Option<Vec<u8>>,
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
        let tokens: Vec<_> =
            config.tokens.iter().map(|one| one.load()).collect::<Result<_, _>>()?;
        let http_ca = match &*config.http_ca_file {
            "" => None,
            path => Some(text(path, "http_ca_file")?.into_bytes()),
        };
        // What cannot be put together is told now, not at the first login.
        if let Err(what) = Tokens::new(tokens.clone()) {
            let place = config.tokens.first().map_or("", |one| one.origin()).into();
            return Err(ConfigError { place, what });
        }
        Ok(Files {
            passwords: Arc::new(passwords),
            rules: Arc::new(rules),
            tokens_mark: tokens_mark(config)?,
            tokens,
            hook: config.hook.as_ref().map(|hook| hook.load()).transpose()?,
            http_ca,
            watched,
        })
    }
}

/// The files that decide who may do what.
fn paths(config: &Config) -> impl Iterator<Item = &Path> {
    let all = [&config.password_file, &config.rules_file, &config.acl_file, &config.http_ca_file];
    let all = all.into_iter().filter(|path| !path.is_empty()).map(Path::new);
    let tokens = config.tokens.iter().flat_map(|token| token.files());
    all.chain(tokens).chain(config.hook.as_ref().and_then(|hook| hook.file()))
}

/// A digest of the issuers and their files.
fn tokens_mark(config: &Config) -> Result<[u8; 32], ConfigError> {
    let mut digest = Sha256::new();
    digest.update(format!("{:?} {:?}", config.tokens, config.http_ca_file));
    for path in config.tokens.iter().flat_map(|token| token.files()) {
        let bytes = std::fs::read(path).map_err(|error| ConfigError {
            place: path.display().to_string(),
            what: error.to_string(),
        })?;
        digest.update(bytes);
    }
    Ok(digest.finalize().into())
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
        self.gate.reconfigure(config, &files).map_err(|what| {
            let place = "configuration".into();
            ConfigError { place, what }
        })?;
        self.peers.shared.set_rules(files.rules);
        self.peers.mailboxes.iter().for_each(|mailbox| mailbox.control(Control::RulesChanged));
        Ok(files.watched)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
