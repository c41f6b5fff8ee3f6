//! The keys of a table that is no listener: found, checked, and none left over.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::listener::At;

/// A table, with its name for messages, such as `token`.
pub(super) struct Fields<'a, 'd> {
    name: &'static str,
    keys: &'a DeTable<'d>,
    /// Where it begins.
    pub(super) at: usize,
}

impl<'a, 'd> Fields<'a, 'd> {
    /// The table `name`, which has no other keys than `allowed`.
    pub(super) fn of(
        name: &'static str,
        value: &'a Spanned<DeValue<'d>>,
        allowed: &[&str],
    ) -> Result<Fields<'a, 'd>, At> {
        let at = value.span().start;
        let DeValue::Table(keys) = value.get_ref() else {
            return Err((at, format!("key `{name}` must be a table: write [{name}]")));
        };
        for key in keys.keys() {
            let key_name = key.get_ref().as_ref();
            if !allowed.contains(&key_name) {
                let known = allowed.join(", ");
                let what = format!("unknown key `{name}.{key_name}`; {name} has {known}");
                return Err((key.span().start, what));
            }
        }
        Ok(Fields { name, keys, at })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'d>>> {
        self.keys.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value)
    }

    /// What is wrong with a key's value.
    pub(super) fn wrong(&self, key: &str, what: &str) -> At {
        let at = self.get(key).map_or(self.at, |value| value.span().start);
        (at, format!("key `{}.{key}` {what}", self.name))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, At> {
        match self.get(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::String(text)) => Ok(Some(text.to_string())),
            Some(_) => Err(self.wrong(key, "must be text in quotes")),
        }
    }

    /// Text that must be there.
    pub(super) fn need_text(&self, key: &str) -> Result<String, At> {
        let missing = || (self.at, format!("this {} has no `{key}`", self.name));
        self.text(key)?.ok_or_else(missing)
    }

    /// A list of texts; a single one stands for a list of it.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, At> {
        let wrong = || self.wrong(key, "must be a list of texts, such as [\"a\", \"b\"]");
        let one = |value: &DeValue<'_>| match value {
            DeValue::String(text) => Some(text.to_string()),
            _ => None,
        };
        match self.get(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::Array(items)) => {
                let all = items.iter().map(|item| one(item.get_ref())).collect::<Option<_>>();
                all.map(Some).ok_or_else(wrong)
            }
            Some(value) => one(value).map(|text| Some(vec![text])).ok_or_else(wrong),
        }
    }

    pub(super) fn number(&self, key: &str, most: u64) -> Result<Option<u64>, At> {
        match self.get(key).map(Spanned::get_ref) {
            None => Ok(None),
            Some(DeValue::Integer(n)) => {
                let number = n.to_string().parse::<u64>().ok().filter(|n| *n <= most);
                let wrong = || self.wrong(key, &format!("must be a whole number from 0 to {most}"));
                number.map(Some).ok_or_else(wrong)
            }
            Some(_) => Err(self.wrong(key, "must be a whole number")),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, At> {
        match self.get(key).map(Spanned::get_ref) {
            None => Ok(false),
            Some(DeValue::Boolean(value)) => Ok(*value),
            Some(_) => Err(self.wrong(key, "must be true or false")),
        }
    }
}
