//! The topics of a rule: a topic filter with placeholders.

use whimbrel_topics::{
    TopicError, covers, covers_by, overlaps, overlaps_by, validate_topic_filter,
};

use super::client::{Client, Field};

/// A topic filter in which levels, or parts of them, stand for properties of the client.
#[derive(Debug)]
pub struct Pattern {
    /// As a filter; a level with a placeholder is as it was written.
    text: Box<str>,
    /// In the order of their depth.
    holes: Box<[Hole]>,
    head: Head,
}

/// A level with a placeholder.
#[derive(Debug)]
struct Hole {
    depth: usize,
    before: Box<str>,
    field: Field,
    after: Box<str>,
}

/// The bytes that every topic of a pattern begins with: their number and the last eight of them.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    length: usize,
    tail: u64,
}

/// One level as a file has it.
enum Level {
    Plain(String),
    Hole(Hole),
}

impl Pattern {
    /// Reads a filter with `%u`, `%c`, `%{CLAIM}`, `%{certificate}`, and `%%` for a percent sign.
    /// The error says what is wrong and what to do.
    pub fn parse(source: &str) -> Result<Pattern, String> {
        let levels = source.split('/').enumerate().map(|(depth, level)| parse_level(depth, level));
        Pattern::build(source, levels)
    }

    /// Reads a filter in which `%` is a character like others.
    pub fn literal(source: &str) -> Result<Pattern, String> {
        Pattern::build(source, source.split('/').map(|level| Ok(Level::Plain(level.into()))))
    }

    /// Reads a filter in which `%u` and `%c` are placeholders where they are a whole level, as
    /// Mosquitto's patterns.
    pub fn mosquitto(source: &str) -> Result<Pattern, String> {
        let whole = |(depth, level): (usize, &str)| {
            let field = match level {
                "%u" => Field::User,
                "%c" => Field::ClientId,
                _ if level.contains("%u") || level.contains("%c") => {
                    return Err(format!(
                        "`{level}`: %u and %c must be a whole level here; put / around it"
                    ));
                }
                _ => return Ok(Level::Plain(level.into())),
            };
            Ok(Level::Hole(Hole { depth, before: "".into(), field, after: "".into() }))
        };
        Pattern::build(source, source.split('/').enumerate().map(whole))
    }

    fn build(
        source: &str,
        levels: impl Iterator<Item = Result<Level, String>>,
    ) -> Result<Pattern, String> {
        if source.starts_with("$share/") {
            return Err(format!(
                "`{source}`: leave out $share/<name>/; what holds for a filter holds for its \
                 shared subscriptions too"
            ));
        }
        let levels = levels.collect::<Result<Vec<Level>, String>>()?;
        let head = Head::of(&levels);
        let (mut texts, mut holes, mut example) = (Vec::new(), Vec::new(), Vec::new());
        for (level, written) in levels.into_iter().zip(source.split('/')) {
            match level {
                Level::Plain(text) => {
                    example.push(text.clone());
                    texts.push(text);
                }
                Level::Hole(hole) => {
                    example.push(format!("{}x{}", hole.before, hole.after));
                    texts.push(written.to_owned());
                    holes.push(hole);
                }
            }
        }
        validate_topic_filter(&example.join("/")).map_err(|error| invalid(source, error))?;
        Ok(Pattern { text: texts.join("/").into(), holes: holes.into(), head })
    }

    /// How all begins that it covers.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Whether, for this client, it covers a topic name or filter. In a denial, a placeholder
    /// with a value that cannot stand in a topic means every level.
    pub fn covers(&self, other: &str, client: &Client<'_>, deny: bool) -> bool {
        if self.holes.is_empty() {
            return covers(&self.text, other);
        }
        covers_by(&self.text, other, |depth, level, wanted| {
            self.same(depth, level, wanted, client, deny)
        })
    }

    /// Whether, for this client, it has a topic in common with a filter.
    pub fn overlaps(&self, other: &str, client: &Client<'_>, deny: bool) -> bool {
        if self.holes.is_empty() {
            return overlaps(&self.text, other);
        }
        self.holes.iter().all(|hole| hole.has_value(client, deny))
            && overlaps_by(&self.text, other, |depth, level, wanted| {
                self.same(depth, level, wanted, client, deny)
            })
    }

    /// The first placeholder that has no value of which a topic can be made, as it was written.
    pub fn void(&self, client: &Client<'_>) -> Option<&str> {
        let hole = self.holes.iter().find(|hole| !hole.has_value(client, false))?;
        self.text.split('/').nth(hole.depth)
    }

    /// The first placeholder whose level of `topic` is none that it stands for, if it is no
    /// wildcard; as it was written.
    pub fn differs(&self, topic: &str, client: &Client<'_>) -> Option<(&str, &Field)> {
        let hole = self.holes.iter().find(|hole| {
            let level = topic.split('/').nth(hole.depth);
            level.is_some_and(|level| {
                !matches!(level, "+" | "#") && !hole.admits(level, client, false)
            })
        })?;
        Some((self.text.split('/').nth(hole.depth)?, &hole.field))
    }

    /// Whether, for some client, it has a topic in common with a name or filter, or all of them.
    pub fn resembles(&self, topic: &str, all: bool) -> bool {
        let same = |depth, level: &str, wanted: &str| match self
            .holes
            .iter()
            .find(|hole| hole.depth == depth)
        {
            None => level == wanted,
            Some(hole) => hole.middle(wanted).is_some(),
        };
        match all {
            true => covers_by(&self.text, topic, same),
            false => overlaps_by(&self.text, topic, same),
        }
    }

    fn same(
        &self,
        depth: usize,
        level: &str,
        wanted: &str,
        client: &Client<'_>,
        deny: bool,
    ) -> bool {
        match self.holes.iter().find(|hole| hole.depth == depth) {
            None => level == wanted,
            Some(hole) => hole.admits(wanted, client, deny),
        }
    }
}

impl Hole {
    fn admits(&self, level: &str, client: &Client<'_>, deny: bool) -> bool {
        self.middle(level).is_some_and(|middle| {
            client.values(&self.field).any(|value| match deny {
                true => value == middle || !self.is_usable(value),
                false => value == middle && self.is_usable(value),
            })
        })
    }

    /// What stands in a level in place of the placeholder.
    fn middle<'a>(&self, level: &'a str) -> Option<&'a str> {
        level.strip_prefix(&*self.before)?.strip_suffix(&*self.after)
    }

    fn has_value(&self, client: &Client<'_>, deny: bool) -> bool {
        client.values(&self.field).any(|value| deny || self.is_usable(value))
    }

    /// Whether a value stays within its level and leads nowhere else.
    fn is_usable(&self, value: &str) -> bool {
        let starts_topic = self.depth == 0 && self.before.is_empty();
        let leads_out = value.bytes().any(|byte| matches!(byte, b'+' | b'#' | b'/' | 0));
        let hides = starts_topic && value.starts_with('$');
        !leads_out && !hides
    }
}

/// A topic name or filter that is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    bytes: &'a [u8],
    /// The first eight bytes, or as many as there are and zeroes.
    first: u64,
}

impl<'a> Wanted<'a> {
    pub fn new(topic: &'a str) -> Wanted<'a> {
        let bytes = topic.as_bytes();
        Wanted { bytes, first: eight(bytes) }
    }
}

impl Head {
    fn of(levels: &[Level]) -> Head {
        let mut head = String::new();
        for (depth, level) in levels.iter().enumerate() {
            // `#` matches the level above it as well, so what separates them is not certain.
            let certain = match level {
                Level::Plain(text) if text == "#" => break,
                Level::Plain(text) if text == "+" => None,
                Level::Plain(text) => Some(text.as_str()),
                Level::Hole(hole) => Some(&*hole.before),
            };
            head.extend((depth > 0).then_some('/'));
            head.push_str(certain.unwrap_or_default());
            if certain.is_none() || matches!(level, Level::Hole(_)) {
                break;
            }
        }
        let bytes = head.as_bytes();
        let tail = eight(bytes.last_chunk::<8>().map_or(bytes, |last| last));
        Head { length: bytes.len(), tail }
    }

    /// False only if what has this head does not cover `topic`; quick.
    #[inline]
    pub fn begins(&self, topic: &Wanted<'_>) -> bool {
        match self.length.checked_sub(8) {
            Some(at) => {
                let bytes = topic.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
                bytes.is_some_and(|bytes| u64::from_le_bytes(*bytes) == self.tail)
            }
            // A head has no zero byte: a topic that is shorter differs.
            None => (topic.first ^ self.tail) << (8 * (7 - self.length)) << 8 == 0,
        }
    }
}

/// The first eight bytes as a number, with zeroes for those that are missing.
fn eight(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*first);
    }
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn parse_level(depth: usize, level: &str) -> Result<Level, String> {
    let mut parts = [String::new(), String::new()];
    let mut field = None;
    let mut rest = level;
    while let Some((before, after)) = rest.split_once('%') {
        let part = &mut parts[usize::from(field.is_some())];
        part.push_str(before);
        let (found, after) = placeholder(level, after)?;
        rest = after;
        match found {
            None => part.push('%'),
            Some(_) if field.is_some() => {
                return Err(format!(
                    "`{level}`: two placeholders in one level, so that one client's values can \
                     look like another's; put a / between them"
                ));
            }
            found => field = found,
        }
    }
    let [mut before, mut after] = parts;
    match field {
        None => {
            before.push_str(rest);
            Ok(Level::Plain(before))
        }
        Some(_) if depth == 0 && before.starts_with('$') => {
            Err(format!("`{level}`: no placeholder can stand in a first level that begins with $"))
        }
        Some(field) => {
            after.push_str(rest);
            let (before, after) = (before.into(), after.into());
            Ok(Level::Hole(Hole { depth, before, field, after }))
        }
    }
}

/// What follows `%`: a property, or none for a percent sign; and the rest.
fn placeholder<'a>(level: &str, text: &'a str) -> Result<(Option<Field>, &'a str), String> {
    let mut chars = text.chars();
    let field = match chars.next() {
        Some('%') => None,
        Some('u') => Some(Field::User),
        Some('c') => Some(Field::ClientId),
        Some('{') => {
            let (name, rest) = chars.as_str().split_once('}').ok_or_else(|| {
                format!("`{level}`: the }} of a placeholder is missing; its name has no /")
            })?;
            let field = match name {
                "" => return Err(format!("`{level}`: write the name of a claim into %{{}}")),
                "certificate" => Field::Certificate,
                name => Field::Claim(name.into()),
            };
            return Ok((Some(field), rest));
        }
        _ => {
            return Err(format!(
                "`{level}`: placeholders are %u, %c, %{{certificate}} and %{{NAME}} of a claim; \
                 write %% for a percent sign"
            ));
        }
    };
    Ok((field, chars.as_str()))
}

fn invalid(source: &str, error: TopicError) -> String {
    format!("`{source}` is no topic filter: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Method, Principal};

    fn principal() -> Principal {
        let mut principal = Principal::new("ann", Method::Token);
        principal.claims = vec![("site".into(), "n".into()), ("site".into(), "s".into())];
        principal.certificate = Some("dev".into());
        principal
    }

    fn covers(pattern: &str, other: &str) -> bool {
        let principal = principal();
        let client = Client { principal: &principal, client_id: "c1", address: None };
        let pattern = Pattern::parse(pattern).expect("a pattern");
        let covered = pattern.covers(other, &client, false);
        assert!(!covered || pattern.head().begins(&Wanted::new(other)), "{pattern:?} {other}");
        covered
    }

    #[test]
    fn placeholders_stand_for_what_the_client_is() {
        for (pattern, other, expected) in [
            ("%u/%c", "ann/c1", true),
            ("%u/%c", "bob/c1", false),
            ("d-%c-x/#", "d-c1-x", true),
            ("d-%c-x/#", "d-c1-x/+/z", true),
            ("d-%c-x/#", "d-c1", false),
            ("d-%c-x/#", "d-+-x", false),
            ("%{site}/+", "n/+", true),
            ("%{site}/+", "s/1", true),
            ("%{site}/+", "+/1", false),
            ("%{certificate}", "dev", true),
            ("%{none}", "", false),
            ("100%%/%%u/%u", "100%/%u/ann", true),
            ("%c%%", "c1%", true),
        ] {
            assert_eq!(covers(pattern, other), expected, "{pattern} {other}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (pattern, part) in [
            ("a/%u-%c", "two placeholders"),
            ("a/%x", "placeholders are"),
            ("a/%", "placeholders are"),
            ("a/%{b/c}", "is missing"),
            ("a/%{}", "name of a claim"),
            ("a/#/%u", "no topic filter"),
            ("a/%u#", "no topic filter"),
            ("a/+%u", "no topic filter"),
            ("", "no topic filter"),
            ("$share/g/a", "leave out"),
            ("$%c/a", "begins with $"),
        ] {
            let error = Pattern::parse(pattern).expect_err(pattern);
            assert!(error.contains(part), "{pattern}: {error}");
        }
    }

    /// All lengths of the head around eight bytes.
    #[test]
    fn what_a_pattern_covers_it_may_match() {
        for length in 1..20 {
            let name = &"abcdefghijklmnopqrst"[..length];
            for (pattern, other) in [
                (name.to_owned(), name.to_owned()),
                (format!("{name}/#"), name.to_owned()),
                (format!("{name}/#"), format!("{name}/#")),
                (format!("{name}/+"), format!("{name}/+")),
                (format!("{name}/%c/x"), format!("{name}/c1/x")),
                (format!("{name}%c/x"), format!("{name}c1/x")),
            ] {
                assert!(covers(&pattern, &other), "{pattern} {other}");
                let parsed = Pattern::parse(&pattern).expect("a pattern");
                let wrong = name.replace(&name[length - 1..], "X");
                assert!(!parsed.head().begins(&Wanted::new(&wrong)), "{pattern} {wrong}");
                let short = &name[..length - 1];
                assert!(!parsed.head().begins(&Wanted::new(short)), "{pattern} {short}");
            }
        }
    }
}
