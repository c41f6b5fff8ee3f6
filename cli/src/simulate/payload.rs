//! What messages carry: text, JSON, CBOR or bytes, with values filled in.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::field::plain;
use super::template::Template;

/// How a payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Text,
    Json,
    Cbor,
    /// Numbers one after another; see [`Item`].
    Binary,
}

/// A payload with places.
#[derive(Clone, Debug)]
pub enum Payload {
    Text(Template),
    Json(Node),
    Cbor(Node),
    Binary(Vec<Item>),
}

/// A value with places; a text that is nothing but a place becomes a value of that place's type.
#[derive(Clone, Debug)]
pub enum Node {
    Constant(Value),
    Text(Template),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// A number in a binary payload: `{ value = "{voltage}", as = "u16", scale = 1000 }`.
#[derive(Clone, Debug)]
pub struct Item {
    value: Template,
    kind: Kind,
    scale: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemInFile {
    value: String,
    r#as: Kind,
    #[serde(default = "unscaled")]
    scale: f64,
}

fn unscaled() -> f64 {
    1.0
}

/// Big-endian, as networks have it; those in `le` the other way round.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    U16le,
    I16le,
    U32le,
    I32le,
    U64le,
    I64le,
    F32le,
    F64le,
}

impl Payload {
    /// From the value of `payload`; without a format a text is text and everything else JSON.
    pub fn parse(value: &toml::Value, format: Option<Format>) -> Result<Payload, String> {
        let format = format.unwrap_or(match value {
            toml::Value::String(_) => Format::Text,
            _ => Format::Json,
        });
        match (format, value) {
            (Format::Text, toml::Value::String(text)) => Ok(Payload::Text(Template::parse(text)?)),
            (Format::Text, _) => Err("must be a text; for a table write format = \"json\"".into()),
            (Format::Json, value) => Ok(Payload::Json(Node::parse(value)?)),
            (Format::Cbor, value) => Ok(Payload::Cbor(Node::parse(value)?)),
            (Format::Binary, toml::Value::Array(items)) => {
                let items = items.iter().map(Item::parse).collect::<Result<_, _>>()?;
                Ok(Payload::Binary(items))
            }
            (Format::Binary, _) => {
                Err("must be a list: [{ value = \"{n}\", as = \"u16\" }]".into())
            }
        }
    }

    /// An object of all these names.
    pub fn of_fields<'a>(
        names: impl Iterator<Item = &'a String>,
        format: Option<Format>,
    ) -> Result<Payload, String> {
        let place = |name: &String| (name.clone(), toml::Value::String(format!("{{{name}}}")));
        let table = toml::Value::Table(names.map(place).collect());
        Payload::parse(&table, Some(format.unwrap_or(Format::Json)))
    }

    /// The names of its places.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Payload::Text(template) => template.names().collect(),
            Payload::Json(node) | Payload::Cbor(node) => node.names(),
            Payload::Binary(items) => items.iter().flat_map(|item| item.value.names()).collect(),
        }
    }

    /// The bytes, with the values that `value` has for names.
    pub fn fill(&self, value: &mut dyn FnMut(&str) -> Value) -> Vec<u8> {
        match self {
            Payload::Text(template) => template.fill(value).into_bytes(),
            Payload::Json(node) => node.fill(value).to_string().into_bytes(),
            Payload::Cbor(node) => crate::cbor::encoded(&node.fill(value)),
            Payload::Binary(items) => items.iter().flat_map(|item| item.bytes(value)).collect(),
        }
    }
}

impl Node {
    fn parse(value: &toml::Value) -> Result<Node, String> {
        Ok(match value {
            toml::Value::String(text) => Node::Text(Template::parse(text)?),
            toml::Value::Array(items) => {
                Node::List(items.iter().map(Node::parse).collect::<Result<_, _>>()?)
            }
            toml::Value::Table(table) => {
                let pair = |(key, value): (&String, _)| Ok((key.clone(), Node::parse(value)?));
                Node::Object(table.iter().map(pair).collect::<Result<_, String>>()?)
            }
            other => Node::Constant(plain(other)),
        })
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Node::Constant(_) => Vec::new(),
            Node::Text(template) => template.names().collect(),
            Node::List(nodes) => nodes.iter().flat_map(Node::names).collect(),
            Node::Object(pairs) => pairs.iter().flat_map(|(_, node)| node.names()).collect(),
        }
    }

    fn fill(&self, value: &mut dyn FnMut(&str) -> Value) -> Value {
        match self {
            Node::Constant(constant) => constant.clone(),
            Node::Text(template) => match template.only_place() {
                Some(name) => value(name),
                None => Value::String(template.fill(value)),
            },
            Node::List(nodes) => nodes.iter().map(|node| node.fill(value)).collect(),
            Node::Object(pairs) => {
                let pairs = pairs.iter().map(|(key, node)| (key.clone(), node.fill(value)));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }
}

impl Item {
    fn parse(value: &toml::Value) -> Result<Item, String> {
        let item: ItemInFile = value
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| error.message().replace('\n', " "))?;
        let value = Template::parse(&item.value)?;
        Ok(Item { value, kind: item.r#as, scale: item.scale })
    }

    /// What is no number counts as 0, and what is too large as the largest there is.
    fn bytes(&self, value: &mut dyn FnMut(&str) -> Value) -> Vec<u8> {
        let number = match self.value.only_place().map(&mut *value) {
            Some(Value::Bool(flag)) => f64::from(u8::from(flag)),
            Some(Value::Number(number)) => number.as_f64().unwrap_or(0.0),
            Some(other) => other.as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0),
            None => self.value.fill(value).parse().unwrap_or(0.0),
        };
        let exact = number * self.scale;
        let whole = exact.round();
        match self.kind {
            Kind::U8 => (whole as u8).to_be_bytes().into(),
            Kind::I8 => (whole as i8).to_be_bytes().into(),
            Kind::U16 => (whole as u16).to_be_bytes().into(),
            Kind::I16 => (whole as i16).to_be_bytes().into(),
            Kind::U32 => (whole as u32).to_be_bytes().into(),
            Kind::I32 => (whole as i32).to_be_bytes().into(),
            Kind::U64 => (whole as u64).to_be_bytes().into(),
            Kind::I64 => (whole as i64).to_be_bytes().into(),
            Kind::F32 => (exact as f32).to_be_bytes().into(),
            Kind::F64 => exact.to_be_bytes().into(),
            Kind::U16le => (whole as u16).to_le_bytes().into(),
            Kind::I16le => (whole as i16).to_le_bytes().into(),
            Kind::U32le => (whole as u32).to_le_bytes().into(),
            Kind::I32le => (whole as i32).to_le_bytes().into(),
            Kind::U64le => (whole as u64).to_le_bytes().into(),
            Kind::I64le => (whole as i64).to_le_bytes().into(),
            Kind::F32le => (exact as f32).to_le_bytes().into(),
            Kind::F64le => exact.to_le_bytes().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(payload: &str, format: Option<Format>) -> Result<Payload, String> {
        let table: toml::Table = toml::from_str(&format!("payload = {payload}")).unwrap();
        Payload::parse(&table["payload"], format)
    }

    fn fill(payload: &str, format: Option<Format>) -> Vec<u8> {
        parse(payload, format).unwrap().fill(&mut |name| match name {
            "t" => json!(-1.5),
            "n" => json!(7),
            "on" => json!(true),
            _ => json!("x"),
        })
    }

    #[test]
    fn text_is_filled() {
        assert_eq!(fill("\"{id}: {t} C\"", None), b"x: -1.5 C");
    }

    #[test]
    fn json_keeps_the_types_of_values() {
        let text = fill("{ a = \"{t}\", b = [\"n={n}\", \"{on}\", 3], c = { d = \"e\" } }", None);
        assert_eq!(text, br#"{"a":-1.5,"b":["n=7",true,3],"c":{"d":"e"}}"#);
        assert_eq!(fill("\"{n}\"", Some(Format::Json)), b"7");
    }

    #[test]
    fn cbor_is_what_rfc_8949_says() {
        assert_eq!(
            fill("{ n = \"{n}\", t = \"{t}\" }", Some(Format::Cbor)),
            [0xa2, 0x61, b'n', 0x07, 0x61, b't', 0xf9, 0xbe, 0x00]
        );
    }

    #[test]
    fn numbers_are_packed() {
        let list = "[{ value = \"{t}\", as = \"i16\", scale = 10 }, { value = \"{n}\", as = \"u8\" }, \
                    { value = \"{n}\", as = \"u32le\" }, { value = \"{on}\", as = \"u8\" }, \
                    { value = \"{t}\", as = \"f32\" }, { value = \"{t}\", as = \"u8\" }, \
                    { value = \"{id}\", as = \"u8\" }, { value = \"258\", as = \"u16\" }]";
        let bytes = fill(list, Some(Format::Binary));
        assert_eq!(bytes, [0xff, 0xf1, 7, 7, 0, 0, 0, 1, 0xbf, 0xc0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (payload, format, what) in [
            ("{ a = 1 }", Some(Format::Text), "must be a text"),
            ("\"a\"", Some(Format::Binary), "must be a list"),
            ("[{ value = \"{n}\", as = \"u7\" }]", Some(Format::Binary), "unknown variant `u7`"),
            ("[{ as = \"u8\" }]", Some(Format::Binary), "missing field `value`"),
            ("{ a = \"{\" }", None, "lone brace"),
        ] {
            let said = parse(payload, format).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn names_are_found_at_any_depth() {
        let payload = parse("{ a = [{ b = \"{x} {y}\" }], c = \"{z}\" }", None).unwrap();
        assert_eq!(payload.names(), ["x", "y", "z"]);
    }
}
