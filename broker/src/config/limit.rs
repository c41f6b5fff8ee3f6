//! `[[limit]]` tables.

use std::fmt::Write;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;
use whimbrel_broker_core::{Limit, Per, Selection, Values};

use super::keys::{Input, LONGEST, U16, U32, U63, number};
use super::listener::At;
use super::{Endpoint, Listener};

const PER: &[(&str, Per)] = &[
    ("listener", Per::Listener),
    ("address", Per::Address),
    ("user", Per::User),
    ("client", Per::Client),
];
const SELECTION: &[&str] = &["listener", "address", "user", "client_id", "anonymous"];

/// A limit: its key, what it may be, and its place in a table.
struct Value {
    name: &'static str,
    range: RangeInclusive<u64>,
    set: fn(&mut Values, u64),
    get: fn(&Values) -> Option<u64>,
}

macro_rules! values {
    ($($name:ident: $type:ty, $range:expr;)*) => {
        const VALUES: &[Value] = &[$(Value {
            name: stringify!($name),
            range: $range,
            // The range never goes beyond the type.
            set: |values, n| values.$name = <$type>::try_from(n).ok(),
            get: |values| values.$name.map(u64::from),
        }),*];
    };
}

values! {
    max_connections: u32, 0..=U32;
    max_connects_per_s: u32, 1..=1_000_000;
    max_messages_per_s: u32, 1..=100_000_000;
    max_bytes_per_s: u32, 1..=U32;
    max_packet_size_bytes: u32, 64..=LONGEST;
    max_subscriptions: u32, 0..=U32;
    max_inflight: u16, 1..=U16;
    max_queued_messages: u32, 0..=U32;
    max_queued_bytes: u64, 0..=U63;
}

/// Reads one `[[limit]]`. `listeners`: those that the configuration has.
pub(super) fn read(table: &Spanned<DeValue<'_>>, listeners: &[Listener]) -> Result<Limit, At> {
    let at = table.span().start;
    let DeValue::Table(keys) = table.get_ref() else {
        return Err((at, "key `limit` must be a list of tables: write [[limit]]".into()));
    };
    let mut per = None;
    let (mut of, mut values) = (Selection::default(), Values::default());
    for (key, value) in keys.iter() {
        let name = key.get_ref().as_ref();
        let wrong = |what: String| (value.span().start, format!("key `limit.{name}` {what}"));
        if let Some(known) = VALUES.iter().find(|known| known.name == name) {
            let n = number(&Input::Toml(value.get_ref()), known.range.clone()).map_err(wrong)?;
            (known.set)(&mut values, n);
        } else if name == "per" {
            let text = text(value).unwrap_or_default();
            let found = PER.iter().find(|(word, _)| *word == text);
            let expected = || wrong(format!("must be one of {}", words(PER.iter().map(|p| p.0))));
            per = Some(found.ok_or_else(expected)?.1);
        } else if SELECTION.contains(&name) {
            select(&mut of, name, value, listeners).map_err(wrong)?;
        } else {
            let all = VALUES.iter().map(|value| value.name);
            let all: Vec<_> =
                ["per"].into_iter().chain(SELECTION.iter().copied()).chain(all).collect();
            let what = format!("unknown key `limit.{name}`; a limit has {}", all.join(", "));
            return Err((key.span().start, what));
        }
    }
    let per = per.ok_or_else(|| {
        (at, format!("this [[limit]] has no `per`, one of {}", words(PER.iter().map(|p| p.0))))
    })?;
    if values == Values::default() {
        return Err((
            at,
            "this [[limit]] limits nothing; give it a key such as \
                         `max_connections`"
                .into(),
        ));
    }
    if per == Per::Client && values.max_connections.is_some() {
        return Err((
            at,
            "key `limit.max_connections` makes no sense per client, which has one \
                         connection; write per = \"user\" or per = \"address\""
                .into(),
        ));
    }
    Ok(Limit { per, of, values })
}

fn select(
    of: &mut Selection,
    name: &str,
    value: &Spanned<DeValue<'_>>,
    listeners: &[Listener],
) -> Result<(), String> {
    if name == "anonymous" {
        let DeValue::Boolean(anonymous) = value.get_ref() else {
            return Err("must be true or false".into());
        };
        of.anonymous = Some(*anonymous);
        return Ok(());
    }
    let text = text(value).ok_or("must be text in quotes")?;
    match name {
        "user" => of.user = Some(text.into()),
        "client_id" => of.client_id = Some(text.into()),
        "address" => {
            let network = text.parse().map_err(|()| {
                format!("must be an address or network such as \"10.0.0.0/8\", not \"{text}\"")
            })?;
            of.address = Some(network);
        }
        _ => {
            let at = listeners.iter().position(|listener| name_of(&listener.endpoint) == text);
            let at = at.and_then(|at| u16::try_from(at).ok()).ok_or_else(|| {
                let all = words(listeners.iter().map(|listener| name_of(&listener.endpoint)));
                format!("must be where one listens: {all}; not \"{text}\"")
            })?;
            of.listener = Some(at);
        }
    }
    Ok(())
}

/// As a table names a listener: its address and port, or the path of its socket.
fn name_of(endpoint: &Endpoint) -> String {
    match (endpoint.address(), endpoint) {
        (Some(address), _) => address.to_string(),
        (None, Endpoint::Unix(path)) => path.display().to_string(),
        (None, other) => other.to_string(),
    }
}

/// The tables as the file that would make them.
pub(super) fn print(out: &mut String, limits: &[Limit], listeners: &[Listener]) {
    for Limit { per, of, values } in limits {
        let word = PER.iter().find(|(_, other)| other == per).map_or("", |(word, _)| word);
        let _ = writeln!(out, "[[limit]]\nper = \"{word}\"");
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let listener = of.listener.and_then(|at| listeners.get(usize::from(at)));
        for (name, text) in [
            ("listener", listener.map(|listener| name_of(&listener.endpoint))),
            ("address", of.address.map(|network| network.to_string())),
            ("user", of.user.as_deref().map(str::to_owned)),
            ("client_id", of.client_id.as_deref().map(str::to_owned)),
        ] {
            if let Some(text) = text {
                let _ = writeln!(out, "{name} = {}", quoted(&text));
            }
        }
        if let Some(anonymous) = of.anonymous {
            let _ = writeln!(out, "anonymous = {anonymous}");
        }
        for value in VALUES {
            if let Some(n) = (value.get)(values) {
                let _ = writeln!(out, "{} = {n}", value.name);
            }
        }
        out.push('\n');
    }
}

/// The same tables where the listeners are others: one for a listener that is not there any more
/// applies to nobody.
pub(super) fn relate(limits: &mut [Limit], before: &[Listener], after: &[Listener]) {
    for limit in limits {
        if let Some(at) = &mut limit.of.listener {
            let name = before.get(usize::from(*at)).map(|listener| name_of(&listener.endpoint));
            let same = |listener: &Listener| Some(name_of(&listener.endpoint)) == name;
            let found = after.iter().position(same).and_then(|at| u16::try_from(at).ok());
            *at = found.unwrap_or(u16::MAX);
        }
    }
}

fn text<'a>(value: &'a Spanned<DeValue<'_>>) -> Option<&'a str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.as_ref()),
        _ => None,
    }
}

fn words(words: impl Iterator<Item = impl std::fmt::Display>) -> String {
    words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}
