//! `[[listener]]` tables.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Endpoint, Listener, Login};

const TYPES: &str = "\"tcp\", \"websocket\" or \"unix\"";

/// What is wrong with a listener, and the byte of the file where it stands.
pub(super) type At = (usize, String);

/// Reads one `[[listener]]`.
pub(super) fn read(table: &Spanned<DeValue<'_>>, origin: &str) -> Result<Listener, At> {
    let mut listener = Listener::new(endpoint(table)?, origin);
    if let DeValue::Table(keys) = table.get_ref() {
        listener.authentication = authentication(keys)?;
    }
    Ok(listener)
}

/// The methods in `authentication`.
fn authentication(keys: &DeTable<'_>) -> Result<Option<Vec<Login>>, At> {
    let named = |key: &&str| *key == "authentication";
    let Some((_, value)) = keys.iter().find(|(key, _)| named(&key.get_ref().as_ref())) else {
        return Ok(None);
    };
    let all: Vec<_> = Login::ALL.iter().map(|login| format!("\"{}\"", login.name())).collect();
    let wrong = |at| {
        let what = format!("key `listener.authentication` must be a list of {}", all.join(", "));
        (at, what)
    };
    let DeValue::Array(list) = value.get_ref() else { return Err(wrong(value.span().start)) };
    let login = |value: &Spanned<DeValue<'_>>| {
        let name = match value.get_ref() {
            DeValue::String(name) => name.as_ref(),
            _ => "",
        };
        let login = Login::ALL.into_iter().find(|login| login.name() == name);
        login.ok_or_else(|| wrong(value.span().start))
    };
    list.iter().map(login).collect::<Result<Vec<_>, At>>().map(Some)
}

fn endpoint(table: &Spanned<DeValue<'_>>) -> Result<Endpoint, At> {
    let at = table.span().start;
    let DeValue::Table(keys) = table.get_ref() else {
        return Err((at, "key `listener` must be a list of tables: write [[listener]]".into()));
    };
    let missing = |what: &str| (at, format!("this [[listener]] has no `{what}`"));
    let kind = text(keys, "type")?.ok_or_else(|| missing(&format!("type`, one of `{TYPES}")))?;
    let allowed: &[&str] = match kind.1 {
        "tcp" => &["type", "bind", "authentication"],
        "websocket" => &["type", "bind", "path", "authentication"],
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

fn text<'a>(keys: &'a DeTable<'_>, name: &str) -> Result<Option<(usize, &'a str)>, At> {
    let Some((_, value)) = keys.iter().find(|(key, _)| key.get_ref().as_ref() == name) else {
        return Ok(None);
    };
    match value.get_ref() {
        DeValue::String(text) => Ok(Some((value.span().start, text.as_ref()))),
        _ => Err((value.span().start, format!("key `listener.{name}` must be text in quotes"))),
    }
}
