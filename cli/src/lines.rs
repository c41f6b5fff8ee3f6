//! Lines of JSON: fields in the order in which they are written, and fields that are all to be
//! understood when they are read.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use whimbrel_codec::{Properties, Property, QoS};

/// An object as it is written.
pub struct Object(String);

impl Object {
    /// Without fields.
    pub fn new() -> Object {
        Object(String::from("{"))
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, name: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{name}\":{json}");
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: impl Into<u64>) {
        self.raw(name, &value.into().to_string());
    }

    /// Text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.raw(name, &quoted(value));
    }

    /// `true`, or nothing at all.
    pub fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.raw(name, "true");
        }
    }

    /// A list of values that are JSON already; nothing at all if it is empty.
    pub fn list(&mut self, name: &str, values: impl Iterator<Item = String>) {
        let values: Vec<String> = values.collect();
        if !values.is_empty() {
            self.raw(name, &format!("[{}]", values.join(",")));
        }
    }

    /// Bytes: as text if they are text, else in base64 under `{name}_base64`.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.text(name, text),
            Err(_) => self.text(&format!("{name}_base64"), &STANDARD.encode(bytes)),
        }
    }

    /// Properties as on the wire, and those that a person can read.
    pub fn properties(&mut self, raw: &[u8]) {
        if raw.is_empty() {
            return;
        }
        self.text("properties_base64", &STANDARD.encode(raw));
        let mut user = Vec::new();
        for property in Properties::from_raw(raw).iter() {
            match property {
                Property::ContentType(kind) => self.text("content_type", kind),
                Property::UserProperty(name, value) => {
                    user.push(format!("[{},{}]", quoted(name), quoted(value)));
                }
                _ => {}
            }
        }
        self.list("user_properties", user.into_iter());
    }

    /// The object.
    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Text as JSON has it.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// An object that was read; each field is taken out, so that none is overlooked.
pub struct Fields(Map<String, Value>);

/// What is wrong with a line.
pub type Wrong = String;

impl Fields {
    /// Of a line.
    pub fn parse(line: &str) -> Result<Fields, Wrong> {
        match serde_json::from_str(line) {
            Ok(value) => Fields::of(value, "the line"),
            Err(error) => Err(format!("this is not JSON: {}", strip_place(&error.to_string()))),
        }
    }

    /// Of a value.
    pub fn of(value: Value, what: &str) -> Result<Fields, Wrong> {
        match value {
            Value::Object(map) => Ok(Fields(map)),
            _ => Err(format!("{what} must be an object")),
        }
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Any value, if it is there.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// A number, if it is there.
    pub fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>, Wrong> {
        let Some(value) = self.value(name) else { return Ok(None) };
        number(&value, &format!("`{name}`")).map(Some)
    }

    /// A number that must be there.
    pub fn need_number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<T, Wrong> {
        self.number(name)?.ok_or_else(|| format!("`{name}` is missing"))
    }

    /// Text, if it is there.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Wrong> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{name}` must be text")),
        }
    }

    /// Text that must be there, and fits where MQTT has it.
    pub fn need_text(&mut self, name: &str) -> Result<String, Wrong> {
        let text = self.text(name)?.ok_or_else(|| format!("`{name}` is missing"))?;
        if text.len() > usize::from(u16::MAX) || text.contains('\0') {
            return Err(format!("`{name}` must have at most 65,535 bytes, and none of them 0"));
        }
        Ok(text)
    }

    /// True or false; false if it is not there.
    pub fn flag(&mut self, name: &str) -> Result<bool, Wrong> {
        self.flag_or(name, false)
    }

    /// True or false.
    pub fn flag_or(&mut self, name: &str, otherwise: bool) -> Result<bool, Wrong> {
        match self.value(name) {
            None => Ok(otherwise),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(format!("`{name}` must be true or false")),
        }
    }

    /// A list; empty if it is not there.
    pub fn list(&mut self, name: &str) -> Result<Vec<Value>, Wrong> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(format!("`{name}` must be a list")),
        }
    }

    /// A list of objects.
    pub fn objects(&mut self, name: &str) -> Result<Vec<Fields>, Wrong> {
        let what = format!("each of `{name}`");
        self.list(name)?.into_iter().map(|value| Fields::of(value, &what)).collect()
    }

    /// An object, if it is there.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, Wrong> {
        let what = format!("`{name}`");
        self.value(name).map(|value| Fields::of(value, &what)).transpose()
    }

    /// QoS, if it is there.
    pub fn qos(&mut self) -> Result<Option<QoS>, Wrong> {
        let qos = self.number::<u8>("qos")?;
        let wrong = || "`qos` must be 0, 1 or 2".to_owned();
        qos.map(|qos| QoS::from_u8(qos).ok_or_else(wrong)).transpose()
    }

    /// Bytes as [`Object::bytes`] writes them, if they are there.
    pub fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, Wrong> {
        let base64 = format!("{name}_base64");
        match (self.text(name)?, self.base64(&base64)?) {
            (Some(text), None) => Ok(Some(text.into_bytes())),
            (None, bytes) => Ok(bytes),
            _ => Err(format!("`{name}` and `{base64}` exclude each other")),
        }
    }

    /// A payload, which must be there.
    pub fn payload(&mut self) -> Result<Vec<u8>, Wrong> {
        let missing = || "`payload` or `payload_base64` is missing".to_owned();
        self.bytes("payload")?.ok_or_else(missing)
    }

    /// Pairs of text; none if there is no such list.
    pub fn pairs(&mut self, name: &str) -> Result<Vec<(String, String)>, Wrong> {
        let pair = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([Value::String(one), Value::String(two)]) => Ok((one.clone(), two.clone())),
            _ => Err(format!("each of `{name}` must be a list of two texts")),
        };
        self.list(name)?.iter().map(pair).collect()
    }

    /// Properties as on the wire.
    pub fn properties(&mut self) -> Result<Vec<u8>, Wrong> {
        let raw = self.base64("properties_base64")?;
        let content_type = self.text("content_type")?;
        let user = self.pairs("user_properties")?;
        if let Some(raw) = raw {
            let mut again = Vec::new();
            let whole = Properties::from_raw(&raw).write_raw(&mut again, |_| true);
            return match whole {
                Ok(()) if again == raw => Ok(raw),
                _ => Err("`properties_base64` are no properties of MQTT 5.0".into()),
            };
        }
        let mut list: Vec<Property<'_>> =
            content_type.as_deref().map(Property::ContentType).into_iter().collect();
        list.extend(user.iter().map(|(name, value)| Property::UserProperty(name, value)));
        let mut made = Vec::new();
        Properties::new(&list)
            .write_raw(&mut made, |_| true)
            .map_err(|_| "`content_type` or `user_properties` are too long".to_owned())?;
        Ok(made)
    }

    fn base64(&mut self, name: &str) -> Result<Option<Vec<u8>>, Wrong> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        STANDARD.decode(text).map(Some).map_err(|_| format!("`{name}` is not base64"))
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), Wrong> {
        match self.0.keys().next() {
            Some(name) => Err(format!("there is no field `{name}` here")),
            None => Ok(()),
        }
    }
}

/// A number in range.
pub fn number<T: TryFrom<u64>>(value: &Value, what: &str) -> Result<T, Wrong> {
    let number = value.as_u64().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("{what} must be a number, and not too large"))
}

/// Each text is a line of its own here, so only the column says something.
fn strip_place(error: &str) -> String {
    error.replace(" at line 1 column", " at column")
}
