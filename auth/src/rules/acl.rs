//! Mosquitto's `acl_file`, as its manual page describes it (mosquitto.conf(5)).
//!
//! There the order of lines does not count: what a `deny` names is denied, then what any other
//! line names is allowed, then nothing is.

use super::Rules;
use super::client::Field;
use super::file::RuleError;
use super::pattern::Pattern;
use super::subject::{Glob, Subject};
use super::table::{Effect, Rule};

impl Rules {
    /// Reads a file in the format of Mosquitto's `acl_file`; `name` is for messages.
    ///
    /// A subscription must be covered by what may be read, and touch nothing that is denied:
    /// Mosquitto accepts any and filters deliveries.
    pub fn from_mosquitto(name: &str, text: &str) -> Result<Rules, RuleError> {
        // Lines before the first `user` are for clients that nobody knows.
        let mut section = Subject { anonymous: Some(true), ..Subject::default() };
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| RuleError { name: name.into(), line: index + 1, what };
            let (keyword, rest) = word(line);
            let (subject, place): (Subject, fn(&str) -> _) = match keyword {
                "user" => {
                    section = user(rest).map_err(wrong)?;
                    continue;
                }
                "topic" => (section.clone(), Pattern::literal),
                "pattern" => (Subject::default(), Pattern::mosquitto),
                other => {
                    let what = format!("`{other}` is none of user, topic and pattern");
                    return Err(wrong(what));
                }
            };
            let (effect, topic) = access(keyword, rest).map_err(wrong)?;
            let pattern = place(topic).map_err(wrong)?;
            let rule = Rule { line: index + 1, text: line.into(), subject, effect };
            rules.push((rule, vec![pattern]));
        }
        rules.sort_by_key(|(rule, _)| rule.effect.allow);
        Ok(Rules::new(name, rules))
    }
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn user(name: &str) -> Result<Subject, String> {
    if name.is_empty() {
        return Err("a name must follow `user`; lines for clients that nobody knows stand before \
                    the first `user`"
            .into());
    }
    let fields = vec![(Field::User, vec![Glob::Exact(name.into())])];
    Ok(Subject { fields, ..Subject::default() })
}

/// What follows `topic` or `pattern`: the access, which may be missing, and the topic.
fn access<'a>(keyword: &str, rest: &'a str) -> Result<(Effect, &'a str), String> {
    let both = Effect { allow: true, publish: true, subscribe: true, qos: 2, retain: true };
    let (first, topic) = word(rest);
    match (first, topic) {
        ("", _) => Err(format!("a topic must follow `{keyword}`")),
        (_, "") => Ok((both, first)),
        ("read", topic) => Ok((Effect { publish: false, ..both }, topic)),
        ("write", topic) => Ok((Effect { subscribe: false, ..both }, topic)),
        ("readwrite", topic) => Ok((both, topic)),
        ("deny", topic) => Ok((Effect { allow: false, retain: false, ..both }, topic)),
        (other, _) => Err(format!(
            "`{other}` is none of read, write, readwrite and deny; write readwrite before a topic \
             that contains spaces"
        )),
    }
}
