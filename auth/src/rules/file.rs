//! The rule file: TOML, a table `[[rule]]` for each rule.

use std::fmt;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Rules;
use super::client::Field;
use super::pattern::Pattern;
use super::subject::{Glob, Subject};
use super::table::{Effect, Rule};
use crate::Method;

const METHODS: [(&str, Method); 7] = [
    ("anonymous", Method::Anonymous),
    ("password", Method::Password),
    ("certificate", Method::Certificate),
    ("token", Method::Token),
    ("scram", Method::Scram),
    ("ace", Method::Ace),
    ("http", Method::Http),
];

/// What is wrong in a file of rules, and where; its author's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The file.
    pub name: String,
    /// From 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub what: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.name, self.line, self.what)
    }
}

impl std::error::Error for RuleError {}

/// Where in the text, in bytes, and what is wrong.
type At = (usize, String);
type Value<'a> = Spanned<DeValue<'a>>;

impl Rules {
    /// Reads a rule file (`docs/authorization.md`); `name` is for messages.
    pub fn from_toml(name: &str, text: &str) -> Result<Rules, RuleError> {
        let error = |(at, what): At| RuleError { name: name.into(), line: line_of(text, at), what };
        let file = DeTable::parse(text).map_err(|wrong| {
            let what = format!("not valid TOML: {}", wrong.message().replace('\n', " "));
            error((wrong.span().map_or(0, |span| span.start), what))
        })?;
        let mut rules = Vec::new();
        for (key, value) in file.get_ref() {
            if key.get_ref() != "rule" {
                let what = format!(
                    "`{}` is no key here: a rule file has tables [[rule]] and nothing else",
                    key.get_ref()
                );
                return Err(error((key.span().start, what)));
            }
            let DeValue::Array(tables) = value.get_ref() else {
                let what = "`rule` must be a list of tables: write [[rule]]".to_owned();
                return Err(error((value.span().start, what)));
            };
            for table in tables.iter() {
                rules.push(read_rule(text, table).map_err(error)?);
            }
        }
        Ok(Rules::new(name, rules))
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// What a table says so far.
#[derive(Default)]
struct Draft {
    allow: Option<bool>,
    publish: bool,
    subscribe: bool,
    qos: Option<u8>,
    retain: Option<bool>,
    subject: Subject,
    patterns: Vec<Pattern>,
}

fn read_rule(text: &str, table: &Value<'_>) -> Result<(Rule, Vec<Pattern>), At> {
    let DeValue::Table(keys) = table.get_ref() else {
        return Err((table.span().start, "a rule must be a table: write [[rule]]".into()));
    };
    let mut draft = Draft::default();
    let (mut start, mut end) = (text.len(), table.span().start);
    for (key, value) in keys {
        start = start.min(key.span().start);
        end = end.max(value.span().end);
        draft.read(key.get_ref(), key.span().start, value)?;
    }
    let effect = draft.effect().map_err(|what| (table.span().start, what))?;
    let words = text.get(start..end).unwrap_or_default().lines().map(str::trim);
    let words: Vec<&str> =
        words.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let rule = Rule {
        line: line_of(text, table.span().start),
        text: words.join(" ").into(),
        subject: draft.subject,
        effect,
    };
    Ok((rule, draft.patterns))
}

impl Draft {
    fn read(&mut self, key: &str, at: usize, value: &Value<'_>) -> Result<(), At> {
        match key {
            "allow" | "deny" => {
                if self.allow.is_some() {
                    let what = "a rule either allows or denies; make two rules of it";
                    return Err((at, what.into()));
                }
                self.allow = Some(key == "allow");
                for (at, action) in strings(key, value)? {
                    match action {
                        "publish" => self.publish = true,
                        "subscribe" => self.subscribe = true,
                        other => {
                            let what = format!(
                                "`{other}` is no action: write \"publish\" or \"subscribe\" (who \
                                 may subscribe may also receive)"
                            );
                            return Err((at, what));
                        }
                    }
                }
            }
            "topics" => {
                for (at, topic) in strings(key, value)? {
                    self.patterns.push(Pattern::parse(topic).map_err(|what| (at, what))?);
                }
            }
            "user" => self.field(Field::User, key, value)?,
            "client_id" => self.field(Field::ClientId, key, value)?,
            "group" => self.field(Field::Group, key, value)?,
            "certificate" => self.field(Field::Certificate, key, value)?,
            "claim" => {
                let DeValue::Table(claims) = value.get_ref() else {
                    let what = "`claim` must be a table: write claim = { name = \"value\" }";
                    return Err((at, what.into()));
                };
                for (name, value) in claims {
                    let field = Field::Claim(name.get_ref().as_ref().into());
                    self.field(field, &format!("claim.{}", name.get_ref()), value)?;
                }
            }
            "address" => {
                for (at, address) in strings(key, value)? {
                    self.subject.addresses.push(network(address).map_err(|what| (at, what))?);
                }
            }
            "method" => {
                for (at, name) in strings(key, value)? {
                    self.subject.methods.push(method(name).map_err(|what| (at, what))?);
                }
            }
            "anonymous" => self.subject.anonymous = Some(boolean(key, value)?),
            "retain" => self.retain = Some(boolean(key, value)?),
            "qos" => self.qos = Some(qos(value)?),
            _ => {
                let what = format!(
                    "`{key}` is no key of a rule: these are allow, deny, topics, user, client_id, \
                     group, certificate, claim, address, method, anonymous, qos, retain"
                );
                return Err((at, what));
            }
        }
        Ok(())
    }

    fn field(&mut self, field: Field, key: &str, value: &Value<'_>) -> Result<(), At> {
        let mut globs = Vec::new();
        for (at, text) in strings(key, value)? {
            if text.is_empty() {
                let what = format!(
                    "`{key}` is empty, which means nobody; for clients that nobody knows write \
                     anonymous = true"
                );
                return Err((at, what));
            }
            globs.push(Glob::parse(text));
        }
        self.subject.fields.push((field, globs));
        Ok(())
    }

    /// What it does, when all of it is known.
    fn effect(&self) -> Result<Effect, String> {
        let Some(allow) = self.allow else {
            return Err("the rule neither allows nor denies: write allow = [\"publish\", \
                        \"subscribe\"], or deny"
                .into());
        };
        if self.patterns.is_empty() {
            return Err("the rule has no topics: write topics = [\"...\"]; [\"#\"] is all but \
                        those that begin with $"
                .into());
        }
        if !allow && self.qos.is_some() {
            return Err("a denial holds for every QoS: remove `qos`, or allow up to that QoS and \
                        nothing beyond"
                .into());
        }
        if self.retain.is_some() && !self.publish {
            return Err("`retain` is about publishing, which this rule is not: remove it".into());
        }
        if !allow && self.retain == Some(false) {
            return Err("a denial is of all messages, or with retain = true of those to be \
                        retained: remove `retain`, or allow with retain = false"
                .into());
        }
        let (publish, subscribe) = (self.publish, self.subscribe);
        if self.retain == Some(true) && !allow && subscribe {
            return Err("retain = true is about publishing alone: make a rule of its own to deny \
                        subscribing"
                .into());
        }
        let retain = self.retain.unwrap_or(allow);
        Ok(Effect { allow, publish, subscribe, qos: self.qos.unwrap_or(2), retain })
    }
}

/// A text, or each text of a list, and where it stands.
fn strings<'a>(key: &str, value: &'a Value<'_>) -> Result<Vec<(usize, &'a str)>, At> {
    let wrong = |value: &Value<'_>| {
        (value.span().start, format!("`{key}` must be text in quotes, or a list of such"))
    };
    let text = |value: &'a Value<'_>| match value.get_ref() {
        DeValue::String(text) => Ok((value.span().start, text.as_ref())),
        _ => Err(wrong(value)),
    };
    match value.get_ref() {
        DeValue::Array(list) if list.is_empty() => {
            Err((value.span().start, format!("`{key}` is empty: name something, or remove it")))
        }
        DeValue::Array(list) => list.iter().map(text).collect(),
        _ => text(value).map(|one| vec![one]),
    }
}

fn boolean(key: &str, value: &Value<'_>) -> Result<bool, At> {
    let wrong = || (value.span().start, format!("`{key}` must be true or false"));
    value.get_ref().as_bool().ok_or_else(wrong)
}

fn qos(value: &Value<'_>) -> Result<u8, At> {
    let number = value.get_ref().as_integer();
    let number = number.filter(|number| number.radix() == 10);
    number
        .and_then(|number| number.as_str().parse().ok())
        .filter(|qos| *qos <= 2)
        .ok_or_else(|| (value.span().start, "`qos` must be 0, 1 or 2: the highest allowed".into()))
}

fn method(name: &str) -> Result<Method, String> {
    let found = METHODS.iter().find(|(known, _)| *known == name);
    found.map(|(_, method)| *method).ok_or_else(|| {
        let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        format!("`{name}` is no method: these are {}", names.join(", "))
    })
}

fn network(text: &str) -> Result<IpNet, String> {
    let network: IpNet = text
        .parse()
        .or_else(|_| text.parse().map(|address: core::net::IpAddr| address.into()))
        .map_err(|_| {
            format!("`{text}` is no network: write 10.0.0.0/8, fd00::/8, or an address alone")
        })?;
    if network.trunc() != network {
        let trunc = network.trunc();
        return Err(format!("`{text}` has bits beyond its length: write {trunc}"));
    }
    if network.addr().to_canonical() != network.addr() {
        return Err(format!("`{text}` means IPv4 addresses: write them as such, 10.0.0.0/8"));
    }
    Ok(network)
}
