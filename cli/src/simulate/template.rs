//! Texts with places to fill in: `io/{client_id}/T{index:03}`.

use std::fmt::Write as _;

use serde_json::Value;

/// A text with places; `{{` and `}}` stand for braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A name, and the digits to which a number is filled up with zeros.
    Place(String, usize),
}

impl Template {
    /// Fails with what is wrong.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            literal += before;
            if let Some(after) = after.strip_prefix("{{").or_else(|| after.strip_prefix("}}")) {
                literal.push_str(rest.get(at..=at).unwrap_or_default());
                rest = after;
                continue;
            }
            let place = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let Some((place, after)) = place else {
                return Err(format!("`{text}` has a lone brace; write {{{{ or }}}} for one"));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(parse_place(place)?);
            rest = after;
        }
        literal += rest;
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Template { parts })
    }

    /// The names of its places.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Place(name, _) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The name, if it is nothing but one place.
    pub fn only_place(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Place(name, 0)] => Some(name),
            _ => None,
        }
    }

    /// The text with the values that `value` has for names.
    pub fn fill(&self, value: &mut dyn FnMut(&str) -> Value) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out += text,
                Part::Place(name, width) => push(&mut out, &value(name), *width),
            }
        }
        out
    }
}

fn parse_place(place: &str) -> Result<Part, String> {
    let (name, width) = place.split_once(':').unwrap_or((place, "0"));
    let well_named =
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if !well_named {
        return Err(format!("{{{place}}} has no name of letters, digits, _ and -"));
    }
    match width.parse() {
        Ok(width) if width <= 20 => Ok(Part::Place(name.into(), width)),
        _ => Err(format!("{{{place}}}: after the colon stands a number of digits, 20 at most")),
    }
}

/// Text without quotes, everything else as JSON has it.
fn push(out: &mut String, value: &Value, width: usize) {
    // Writing to a string cannot fail.
    let _ = match value {
        Value::String(text) => write!(out, "{text:0>width$}"),
        other => write!(out, "{:0>width$}", other.to_string()),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fill(text: &str) -> String {
        Template::parse(text).unwrap().fill(&mut |name| match name {
            "index" => json!(7),
            "id" => json!("x"),
            _ => json!({ "a": [1.5, true] }),
        })
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(fill("io/{id}/{index:03}/{index}"), "io/x/007/7");
        assert_eq!(fill("{{{id}}}"), "{x}");
        assert_eq!(fill("{other}"), "{\"a\":[1.5,true]}");
        assert_eq!(fill(""), "");
        let names: Vec<_> =
            Template::parse("{a}-{b:2}").unwrap().names().map(String::from).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(Template::parse("{a}").unwrap().only_place(), Some("a"));
        assert_eq!(Template::parse("{a:2}").unwrap().only_place(), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, what) in [
            ("a{b", "lone brace"),
            ("a}b", "lone brace"),
            ("{}", "has no name"),
            ("{a b}", "has no name"),
            ("{a:x}", "number of digits"),
            ("{a:21}", "number of digits"),
        ] {
            let said = Template::parse(text).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_through_with_its_braces_doubled(text in ".{0,40}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(fill(&escaped), text);
        }

        #[test]
        fn no_text_is_too_odd(text in "[{}a:1-]{0,12}") {
            let _ = Template::parse(&text);
        }
    }
}
