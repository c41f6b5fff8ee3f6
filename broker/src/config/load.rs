//! From the file, the environment and the flags to a checked [`Config`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};
use whimbrel_transport::tls::Tickets;

use super::keys::{Input, KEYS, Key, find};
use super::{
    CertificateFiles, Config, ConfigError, Endpoint, Hook, Listener, Tls, TokenIssuer, hook, limit,
    listener, token,
};

/// What a configuration is made from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file; without one there are the defaults.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `WHIMBREL_` are ignored.
    pub environment: Vec<(String, String)>,
    /// Flags that mirror keys: name without dashes, value.
    pub flags: Vec<(String, String)>,
    /// Flags that stand for a listener.
    pub shortcuts: Shortcuts,
}

/// Flags that change the listeners.
#[derive(Clone, Debug, Default)]
pub struct Shortcuts {
    /// Address of all TCP and WebSocket listeners.
    pub bind: Option<IpAddr>,
    /// Port of the first TCP listener.
    pub port: Option<u16>,
    /// Port of the first WebSocket listener.
    pub ws_port: Option<u16>,
    /// No WebSocket listener at all.
    pub no_websocket: bool,
    /// Port of the first TCP listener with TLS.
    pub tls_port: Option<u16>,
    /// What that listener shows to clients.
    pub certificate: Option<CertificateFiles>,
}

/// A configuration, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// What the log should say.
    pub warnings: Vec<String>,
}

/// Reads all sources and checks the result.
///
/// # Errors
/// The first thing that is wrong: an unreadable file, an unknown key, a bad value, or settings that
/// do not go together.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut config = Config::default();
    if let Some(path) = &sources.file {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            place: place.clone(),
            what: format!("cannot read the configuration file: {error}"),
        })?;
        apply_file(&mut config, &place, &text)?;
    }
    let mut warnings = apply_environment(&mut config, &sources.environment)?;
    apply_flags(&mut config, &sources.flags)?;
    apply_shortcuts(&mut config, &sources.shortcuts);
    apply_tls_shortcuts(&mut config, &sources.shortcuts)?;
    config.check()?;
    crate::access::prepare(&mut config);
    warnings.extend(crate::access::warnings(&config));
    warnings.extend(check_tls(&config)?);
    Ok(Loaded { config, warnings })
}

/// Reads the files of TLS, so that a fault in them shows before anything is started or changed.
fn check_tls(config: &Config) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    for listener in &config.listeners {
        let Some(tls) = &listener.tls else { continue };
        let tickets = Tickets::new().map_err(|error| ConfigError {
            place: listener.origin.clone(),
            what: error.to_string(),
        })?;
        warnings.extend(tls.load(listener.alpn(), &listener.origin, &tickets)?.warnings);
    }
    Ok(warnings)
}

/// Changes `config` to what the file says; `name` is for messages.
pub(super) fn apply_file(config: &mut Config, name: &str, text: &str) -> Result<(), ConfigError> {
    let place = |at: usize| {
        let before = text.as_bytes().iter().take(at);
        format!("{name}:{}", before.filter(|byte| **byte == b'\n').count() + 1)
    };
    let table = DeTable::parse(text).map_err(|error| ConfigError {
        place: place(error.span().map_or(0, |span| span.start)),
        what: format!("not valid TOML: {}", error.message().replace('\n', " ")),
    })?;
    let mut reader = Reader { config, listeners: None, tokens: Vec::new(), hook: None };
    let result = reader.table("", table.get_ref(), &place);
    let (listeners, tokens, hook) = (reader.listeners, reader.tokens, reader.hook);
    let wrong = |(at, what)| ConfigError { place: place(at), what };
    result.map_err(wrong)?;
    if let Some(listeners) = listeners {
        config.listeners = listeners;
    }
    (config.tokens, config.hook) = (tokens, hook);
    // They name listeners.
    apply_limits(config, table.get_ref()).map_err(wrong)
}

fn apply_limits(config: &mut Config, table: &DeTable<'_>) -> Result<(), listener::At> {
    let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == "limit") else {
        return Ok(());
    };
    let DeValue::Array(tables) = value.get_ref() else {
        let what = "key `limit` must be a list of tables: write [[limit]]";
        return Err((value.span().start, what.into()));
    };
    let read = |table| limit::read(table, &config.listeners);
    config.core.limits = tables.iter().map(read).collect::<Result<_, _>>()?;
    Ok(())
}

struct Reader<'a> {
    config: &'a mut Config,
    listeners: Option<Vec<Listener>>,
    tokens: Vec<TokenIssuer>,
    hook: Option<Hook>,
}

impl Reader<'_> {
    fn table(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        place: &dyn Fn(usize) -> String,
    ) -> Result<(), listener::At> {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            if path == "listener" {
                self.listeners(value, place)?;
                continue;
            }
            if path == "token" {
                self.tokens(value, place)?;
                continue;
            }
            if path == "http" {
                self.hook = Some(hook::read(value, place(value.span().start))?);
                continue;
            }
            if path == "limit" {
                continue;
            }
            let inner = format!("{path}.");
            if KEYS.iter().any(|key| key.path.starts_with(&inner)) {
                let DeValue::Table(table) = value.get_ref() else {
                    let what = format!("key `{path}` must be a table: write [{path}]");
                    return Err((value.span().start, what));
                };
                self.table(&inner, table, place)?;
                continue;
            }
            let key = find(&path).map_err(|what| (key.span().start, what))?;
            (key.set)(self.config, &Input::Toml(value.get_ref()))
                .map_err(|what| (value.span().start, format!("key `{path}` {what}")))?;
        }
        Ok(())
    }

    fn tokens(
        &mut self,
        value: &toml::Spanned<DeValue<'_>>,
        place: &dyn Fn(usize) -> String,
    ) -> Result<(), listener::At> {
        let DeValue::Array(tables) = value.get_ref() else {
            let what = "key `token` must be a list of tables: write [[token]]";
            return Err((value.span().start, what.into()));
        };
        let read =
            |table: &toml::Spanned<DeValue<'_>>| token::read(table, place(table.span().start));
        self.tokens = tables.iter().map(read).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn listeners(
        &mut self,
        value: &toml::Spanned<DeValue<'_>>,
        place: &dyn Fn(usize) -> String,
    ) -> Result<(), listener::At> {
        let DeValue::Array(tables) = value.get_ref() else {
            let what = "key `listener` must be a list of tables: write [[listener]]";
            return Err((value.span().start, what.into()));
        };
        let mut all = Vec::new();
        for table in tables.iter() {
            all.push(listener::read(table, place(table.span().start))?);
        }
        self.listeners = Some(all);
        Ok(())
    }
}

fn apply_environment(
    config: &mut Config,
    variables: &[(String, String)],
) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("WHIMBREL_")) {
        let Some(key) = KEYS.iter().find(|key| key.variable() == *name) else {
            // Container platforms put such variables beside a service of this name.
            warnings.push(format!("environment variable {name} is no key and was ignored"));
            continue;
        };
        set(config, key, value, format!("environment variable {name}"))?;
    }
    Ok(warnings)
}

fn apply_flags(config: &mut Config, flags: &[(String, String)]) -> Result<(), ConfigError> {
    for (name, value) in flags {
        let place = format!("flag --{name}");
        let key = KEYS.iter().find(|key| key.flag() == *name).ok_or_else(|| ConfigError {
            place: place.clone(),
            what: "unknown; `whimbrel broker --help` shows all flags".into(),
        })?;
        set(config, key, value, place)?;
    }
    Ok(())
}

fn set(config: &mut Config, key: &Key, text: &str, place: String) -> Result<(), ConfigError> {
    (key.set)(config, &Input::Text(text))
        .map_err(|what| ConfigError { place, what: format!("key `{}` {what}", key.path) })
}

fn apply_shortcuts(config: &mut Config, shortcuts: &Shortcuts) {
    if shortcuts.no_websocket {
        config.listeners.retain(|l| !matches!(l.endpoint, Endpoint::WebSocket(..)));
    }
    if let Some(ip) = shortcuts.bind {
        for listener in &mut config.listeners {
            if let Endpoint::Tcp(address) | Endpoint::WebSocket(address, _) = &mut listener.endpoint
            {
                address.set_ip(ip);
                listener.origin = "flag --bind".into();
            }
        }
    }
    let ip = shortcuts.bind.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let tcp = |l: &&mut Listener| matches!(l.endpoint, Endpoint::Tcp(_)) && l.tls.is_none();
    let websocket = |l: &&mut Listener| matches!(l.endpoint, Endpoint::WebSocket(..));
    if let Some(port) = shortcuts.port {
        let first = config.listeners.iter_mut().find(tcp);
        let new = Endpoint::Tcp(SocketAddr::new(ip, port));
        set_port(first, port, "flag --port").or_else(|| add(config, new, "flag --port"));
    }
    if let Some(port) = shortcuts.ws_port {
        let first = config.listeners.iter_mut().find(websocket);
        let new = Endpoint::WebSocket(SocketAddr::new(ip, port), "/mqtt".into());
        set_port(first, port, "flag --ws-port").or_else(|| add(config, new, "flag --ws-port"));
    }
}

fn apply_tls_shortcuts(config: &mut Config, shortcuts: &Shortcuts) -> Result<(), ConfigError> {
    let Some(port) = shortcuts.tls_port else { return Ok(()) };
    let place = "flag --tls-port";
    let tls = |l: &&mut Listener| matches!(l.endpoint, Endpoint::Tcp(_)) && l.tls.is_some();
    if set_port(config.listeners.iter_mut().find(tls), port, place).is_none() {
        let ip = shortcuts.bind.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let new = Listener::new(Endpoint::Tcp(SocketAddr::new(ip, port)), place);
        config.listeners.push(Listener { tls: Some(Tls::default()), ..new });
    }
    let first = config.listeners.iter_mut().find(tls).and_then(|listener| listener.tls.as_mut());
    if let (Some(tls), Some(files)) = (first, &shortcuts.certificate) {
        tls.certificates = vec![files.clone()];
    }
    match config.listeners.iter_mut().find(tls).and_then(|listener| listener.tls.as_ref()) {
        Some(tls) if tls.certificates.is_empty() => Err(ConfigError {
            place: place.into(),
            what: "TLS needs --certificate and --key; `whimbrel certs` makes a pair for tests"
                .into(),
        }),
        _ => Ok(()),
    }
}

fn set_port(listener: Option<&mut Listener>, port: u16, origin: &str) -> Option<()> {
    let listener = listener?;
    if let Endpoint::Tcp(address) | Endpoint::WebSocket(address, _) = &mut listener.endpoint {
        address.set_port(port);
        listener.origin = origin.into();
    }
    Some(())
}

fn add(config: &mut Config, endpoint: Endpoint, origin: &str) -> Option<()> {
    config.listeners.push(Listener::new(endpoint, origin));
    Some(())
}
