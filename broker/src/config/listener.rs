//! `[[listener]]` tables.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Endpoint, Listener, Login, Network, tls};

const TYPES: &str = "\"tcp\", \"websocket\" or \"unix\"";

/// What is wrong with a listener, and the byte of the file where it stands.
pub(super) type At = (usize, String);

/// Reads one `[[listener]]` that stands at `origin`.
pub(super) fn read(table: &Spanned<DeValue<'_>>, origin: String) -> Result<Listener, At> {
    let at = table.span().start;
    let DeValue::Table(keys) = table.get_ref() else {
        return Err((at, "key `listener` must be a list of tables: write [[listener]]".into()));
    };
    let mut listener = Listener::new(endpoint(keys, at)?, origin);
    listener.tls = find(keys, "tls").map(tls::read).transpose()?;
    listener.proxy_protocol_from = networks(keys)?;
    listener.origins = texts(keys, "origins")?;
    listener.authentication = authentication(keys)?;
    Ok(listener)
}

/// The methods in `authentication`.
fn authentication(keys: &DeTable<'_>) -> Result<Option<Vec<Login>>, At> {
    let at = find(keys, "authentication").map_or(0, |value| value.span().start);
    let login = |name: &String| {
        let login = Login::ALL.into_iter().find(|login| login.name() == name);
        login.ok_or_else(|| {
            let all: Vec<_> = Login::ALL.iter().map(|l| format!("\"{}\"", l.name())).collect();
            let all = all.join(", ");
            let what =
                format!("key `listener.authentication` must be a list of {all}, not \"{name}\"");
            (at, what)
        })
    };
    let names = texts(keys, "authentication")?;
    names.map(|names| names.iter().map(login).collect()).transpose()
}

fn endpoint(keys: &DeTable<'_>, at: usize) -> Result<Endpoint, At> {
    let missing = |what: &str| (at, format!("this [[listener]] has no `{what}`"));
    let kind = text(keys, "type")?.ok_or_else(|| missing(&format!("type`, one of `{TYPES}")))?;
    let allowed: &[&str] = match kind.1 {
        "tcp" => &["type", "bind", "authentication", "tls", "proxy_protocol_from"],
        "websocket" => {
            &["type", "bind", "path", "authentication", "origins", "tls", "proxy_protocol_from"]
        }
        "unix" => &["type", "path", "authentication"],
        other => {
            let what = format!("key `listener.type` must be {TYPES}, not \"{other}\"");
            return Err((kind.0, what));
        }
    };
    for key in keys.keys() {
        let name = key.get_ref().as_ref();
        if !allowed.contains(&name) {
            let what = format!(
                "unknown key `listener.{name}`; a listener of type {} has {}",
                kind.1,
                allowed.join(", ")
            );
            return Err((key.span().start, what));
        }
    }
    let path = text(keys, "path")?;
    if kind.1 == "unix" {
        let (_, path) = path.ok_or_else(|| missing("path"))?;
        return Ok(Endpoint::Unix(PathBuf::from(path)));
    }
    let (bind_at, bind) = text(keys, "bind")?.ok_or_else(|| missing("bind"))?;
    let bind = bind.parse::<SocketAddr>().map_err(|_| {
        let what = format!(
            "key `listener.bind` must be an IP address and a port, such as \"127.0.0.1:1883\" or \
             \"[::]:1883\", not \"{bind}\""
        );
        (bind_at, what)
    })?;
    if kind.1 == "tcp" {
        return Ok(Endpoint::Tcp(bind));
    }
    let (path_at, path) = path.unwrap_or((at, "/mqtt"));
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || "?#".contains(c)) {
        let what = format!("key `listener.path` must be a path such as \"/mqtt\", not \"{path}\"");
        return Err((path_at, what));
    }
    Ok(Endpoint::WebSocket(bind, path.to_owned()))
}

fn networks(keys: &DeTable<'_>) -> Result<Vec<Network>, At> {
    let at = find(keys, "proxy_protocol_from").map_or(0, |value| value.span().start);
    let parse = |text: &String| {
        text.parse().map_err(|expected| {
            let what = format!(
                "key `listener.proxy_protocol_from` must be a list of addresses, each {expected}, \
                 not \"{text}\""
            );
            (at, what)
        })
    };
    texts(keys, "proxy_protocol_from")?.unwrap_or_default().iter().map(parse).collect()
}

/// The value of the key `name`.
pub(super) fn find<'a, 'd>(keys: &'a DeTable<'d>, name: &str) -> Option<&'a Spanned<DeValue<'d>>> {
    keys.iter().find(|(key, _)| key.get_ref().as_ref() == name).map(|(_, value)| value)
}

/// The text at `path`, whose last part is the name of the key.
pub(super) fn text<'a>(keys: &'a DeTable<'_>, path: &str) -> Result<Option<(usize, &'a str)>, At> {
    let name = path.rsplit('.').next().unwrap_or(path);
    let Some(value) = find(keys, name) else { return Ok(None) };
    match value.get_ref() {
        DeValue::String(text) => Ok(Some((value.span().start, text.as_ref()))),
        _ => Err((value.span().start, format!("key `listener.{path}` must be text in quotes"))),
    }
}

/// The list of texts at `path`, whose last part is the name of the key.
pub(super) fn texts(keys: &DeTable<'_>, path: &str) -> Result<Option<Vec<String>>, At> {
    let name = path.rsplit('.').next().unwrap_or(path);
    let Some(value) = find(keys, name) else { return Ok(None) };
    let what = format!("key `listener.{path}` must be a list of texts, such as [\"a\", \"b\"]");
    let error = (value.span().start, what);
    let DeValue::Array(items) = value.get_ref() else { return Err(error) };
    let one = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
        DeValue::String(text) => Some(text.as_ref().to_owned()),
        _ => None,
    };
    items.iter().map(one).collect::<Option<Vec<_>>>().map(Some).ok_or(error)
}
