//! A TOML text whose mistakes are told with file, line and key.

use std::fmt;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A text and where it comes from.
pub struct Document<'a> {
    name: &'a str,
    text: &'a str,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `file:line`.
    place: String,
    /// As `group[0].publish[1].topic`; empty if no key is at fault.
    key: String,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.what),
            key => write!(f, "{}: key `{key}`: {}", self.place, self.what),
        }
    }
}

impl<'a> Document<'a> {
    /// `name` is for messages.
    pub fn new(name: &'a str, text: &'a str) -> Document<'a> {
        Document { name, text }
    }

    /// The text as a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Mistake> {
        let mistake = |error: toml::de::Error, key: String| {
            let offset = error.span().map_or(0, |span| span.start);
            let what = error.message().replace('\n', " ");
            Mistake { place: self.place(offset), key, what }
        };
        let table = DeTable::parse(self.text).map_err(|error| mistake(error, String::new()))?;
        toml::from_str(self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let key = key_at(&table, offset);
            mistake(error, key)
        })
    }

    /// A mistake in the value of a key that [`Document::read`] has taken.
    pub fn mistake(&self, key: &str, what: impl Into<String>) -> Mistake {
        let table = DeTable::parse(self.text).ok();
        let offset = table.and_then(|table| offset_of(&table, key)).unwrap_or(0);
        Mistake { place: self.place(offset), key: key.into(), what: what.into() }
    }

    fn place(&self, offset: usize) -> String {
        let before = self.text.as_bytes().iter().take(offset);
        format!("{}:{}", self.name, before.filter(|byte| **byte == b'\n').count() + 1)
    }
}

/// The innermost key whose name or value stands at this byte.
fn key_at(table: &Spanned<DeTable<'_>>, offset: usize) -> String {
    let mut path = String::new();
    let mut table = table.get_ref();
    loop {
        let here = table.iter().find(|(key, value)| {
            key.span().contains(&offset) || value.span().contains(&offset) || has(value, offset)
        });
        let Some((key, value)) = here else { return path };
        path = if path.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{path}.{}", key.get_ref())
        };
        let mut value = value;
        while let DeValue::Array(items) = value.get_ref() {
            let here = items
                .iter()
                .enumerate()
                .find(|(_, item)| item.span().contains(&offset) || has(item, offset));
            let Some((index, item)) = here else { return path };
            path += &format!("[{index}]");
            value = item;
        }
        let DeValue::Table(inner) = value.get_ref() else { return path };
        table = inner;
    }
}

/// Whether something inside stands at this byte: the parts of a table may be far apart.
fn has(value: &Spanned<DeValue<'_>>, offset: usize) -> bool {
    match value.get_ref() {
        DeValue::Array(items) => {
            items.iter().any(|item| item.span().contains(&offset) || has(item, offset))
        }
        DeValue::Table(table) => table.iter().any(|(key, value)| {
            key.span().contains(&offset) || value.span().contains(&offset) || has(value, offset)
        }),
        _ => false,
    }
}

/// Where the value of a key begins; of its nearest parent that is there, if it is not.
fn offset_of(table: &Spanned<DeTable<'_>>, path: &str) -> Option<usize> {
    let mut table = table.get_ref();
    let mut offset = None;
    for step in path.split('.') {
        let mut parts = step.split('[');
        let name = parts.next()?;
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else {
            return offset;
        };
        offset = Some(key.span().start);
        let mut value = value;
        for index in parts {
            let DeValue::Array(items) = value.get_ref() else { return offset };
            let Some(item) =
                index.trim_end_matches(']').parse().ok().and_then(|i: usize| items.get(i))
            else {
                return offset;
            };
            offset = Some(item.span().start);
            value = item;
        }
        let DeValue::Table(inner) = value.get_ref() else { return offset };
        table = inner;
    }
    offset
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Fleet {
        #[serde(default)]
        seed: u64,
        #[serde(default)]
        group: Vec<Group>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Group {
        count: u32,
        #[serde(default)]
        publish: Vec<Group>,
    }

    fn message(text: &str) -> String {
        Document::new("f.toml", text).read::<Fleet>().unwrap_err().to_string()
    }

    #[test]
    fn mistakes_name_file_line_and_key() {
        assert_eq!(
            message("seed = 1\n[[group]]\ncount = \"many\"\n"),
            "f.toml:3: key `group[0].count`: invalid type: string \"many\", expected u32"
        );
        let nested =
            "[[group]]\ncount = 1\n\n[[group.publish]]\ncount = 2\n[[group.publish]]\ncount = -2";
        let said = message(nested);
        assert!(said.starts_with("f.toml:7: key `group[0].publish[1].count`: "), "{said}");
        let said = message("[[group]]\ncount = 1\ncolour = 2\n");
        assert!(said.starts_with("f.toml:3: key `group[0].colour`: unknown field"), "{said}");
        let said = message("seed = \n");
        assert!(said.starts_with("f.toml:1: "), "{said}");
        let said = message("\n[[group]]\n");
        assert!(said.starts_with("f.toml:2: key `group[0]`: missing field `count`"), "{said}");
    }

    #[test]
    fn later_mistakes_are_placed_by_their_key() {
        let text = "seed = 1\n[[group]]\ncount = 1\n[[group.publish]]\n\ncount = 3\n";
        let document = Document::new("f.toml", text);
        let said = document.mistake("group[0].publish[0].count", "is odd").to_string();
        assert_eq!(said, "f.toml:6: key `group[0].publish[0].count`: is odd");
        let said = document.mistake("group[0].publish[0].topic", "is missing").to_string();
        assert!(said.starts_with("f.toml:4: "), "{said}");
    }
}
