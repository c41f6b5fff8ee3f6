//! Whom a rule is for.

use std::borrow::Cow;

use ipnet::IpNet;

use super::client::{Client, Field};
use crate::Method;

/// Whom a rule is for: whoever meets all conditions; everybody if there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    /// One of the values of the property must match one of the globs.
    pub fields: Vec<(Field, Vec<Glob>)>,
    /// Unless it is empty, the client's address must be in one of these.
    pub addresses: Vec<IpNet>,
    /// Unless it is empty, one of these must have shown who the client is.
    pub methods: Vec<Method>,
    /// Whether the client must be one that has, or has not, shown who it is.
    pub anonymous: Option<bool>,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Glob {
    /// This.
    Exact(Box<str>),
    /// A text in which `*` stands for any characters, also none.
    Stars(Box<str>),
}

impl Subject {
    /// Whether there is no condition.
    pub fn is_everybody(&self) -> bool {
        *self == Subject::default()
    }

    /// Whether it means this client.
    pub fn includes(&self, client: &Client<'_>) -> bool {
        self.unmet(client).is_none()
    }

    /// The first condition that the client does not meet, as its key in the file.
    pub fn unmet(&self, client: &Client<'_>) -> Option<Cow<'static, str>> {
        let principal = client.principal;
        if self.anonymous.is_some_and(|wanted| wanted != (principal.method == Method::Anonymous)) {
            return Some("anonymous".into());
        }
        if !self.methods.is_empty() && !self.methods.contains(&principal.method) {
            return Some("method".into());
        }
        let meets = |field, globs: &[Glob]| {
            client.values(field).any(|value| globs.iter().any(|glob| glob.matches(value)))
        };
        if let Some((field, _)) = self.fields.iter().find(|(field, globs)| !meets(field, globs)) {
            return Some(field.key());
        }
        // A socket for both families shows IPv4 addresses as ::ffff:a.b.c.d.
        let address = client.address.map(|address| address.to_canonical());
        let within = |networks: &[IpNet]| {
            address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
        };
        (!self.addresses.is_empty() && !within(&self.addresses)).then(|| "address".into())
    }

    /// A property of which every client that is meant has one of these values: the key by which
    /// the subject is found.
    pub fn exact(&self) -> Option<(&Field, Vec<&str>)> {
        let order = |field: &Field| match field {
            Field::User => 0,
            Field::ClientId => 1,
            Field::Certificate => 2,
            Field::Group => 3,
            Field::Claim(_) => 4,
        };
        self.fields
            .iter()
            .filter_map(|(field, globs)| {
                let texts: Option<Vec<&str>> = globs.iter().map(Glob::as_exact).collect();
                Some((field, texts?))
            })
            .min_by_key(|(field, _)| order(field))
    }
}

impl Field {
    /// As in the file.
    pub fn key(&self) -> Cow<'static, str> {
        match self {
            Field::User => "user".into(),
            Field::ClientId => "client_id".into(),
            Field::Group => "group".into(),
            Field::Certificate => "certificate".into(),
            Field::Claim(name) => format!("claim {name}").into(),
        }
    }
}

impl Glob {
    /// Reads a text in which `*` may stand for others.
    pub fn parse(text: &str) -> Glob {
        if text.contains('*') { Glob::Stars(text.into()) } else { Glob::Exact(text.into()) }
    }

    fn as_exact(&self) -> Option<&str> {
        match self {
            Glob::Exact(text) => Some(text),
            Glob::Stars(_) => None,
        }
    }

    /// Whether it matches the whole value.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Glob::Exact(text) => **text == *value,
            Glob::Stars(text) => is_like(text, value),
        }
    }
}

/// Whether the whole `text` is like `pattern`, in which `*` stands for any characters.
pub fn is_like(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (glob, value, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "x", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("**", "x", true),
            ("ab*b", "ab", false),
        ] {
            assert_eq!(Glob::parse(glob).matches(value), expected, "{glob} {value}");
        }
    }

    fn naive(glob: &[u8], value: &[u8]) -> bool {
        match glob.split_first() {
            None => value.is_empty(),
            Some((b'*', rest)) => (0..=value.len()).any(|at| naive(rest, &value[at..])),
            Some((byte, rest)) => value.first() == Some(byte) && naive(rest, &value[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn globs_match_as_the_definition_says(glob in "[ab*]{0,6}", value in "[ab]{0,8}") {
            let expected = naive(glob.as_bytes(), value.as_bytes());
            prop_assert_eq!(Glob::parse(&glob).matches(&value), expected);
        }
    }
}
