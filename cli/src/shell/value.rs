//! One message as it is kept: its payload up to a limit, and its properties as text.

use whimbrel_codec::{Property, Publish, QoS};

/// A message of a topic's history.
#[derive(Clone, Debug)]
pub struct Value {
    /// When it came, in milliseconds since 1970.
    pub at_ms: u64,
    /// The payload, or its beginning.
    pub payload: Box<[u8]>,
    /// Bytes of the whole payload.
    pub len: usize,
    /// Of the delivery.
    pub qos: QoS,
    /// The retain flag of the delivery.
    pub retain: bool,
    /// Name and value of each property.
    pub properties: Box<[(&'static str, Box<str>)]>,
}

impl Value {
    /// Keeps at most `payload_len_max` bytes of the payload, and as many of the properties.
    pub fn new(at_ms: u64, message: &Publish<'_>, payload_len_max: usize) -> Value {
        let kept = message.payload.get(..payload_len_max).unwrap_or(message.payload);
        Value {
            at_ms,
            payload: kept.into(),
            len: message.payload.len(),
            qos: message.qos,
            retain: message.retain,
            properties: properties(message, payload_len_max),
        }
    }

    /// Whether all of the payload is here.
    pub fn is_whole(&self) -> bool {
        self.payload.len() == self.len
    }

    /// Bytes of memory beyond the struct's own.
    pub fn heap_len(&self) -> usize {
        let property = |(_, text): &(&str, Box<str>)| text.len() + size_of::<(&str, Box<str>)>();
        self.payload.len() + self.properties.iter().map(property).sum::<usize>()
    }

    /// The number to draw: the payload itself, or of the numbers in a JSON object the first by
    /// name, with its name.
    pub fn number(&self) -> Option<(f64, Option<String>)> {
        let text = std::str::from_utf8(&self.payload).ok()?.trim();
        let plain = match text {
            "true" | "on" | "ON" => Some(1.0),
            "false" | "off" | "OFF" => Some(0.0),
            text => text.parse().ok(),
        };
        match plain {
            Some(number) => f64::is_finite(number).then_some((number, None)),
            None if text.starts_with('{') => {
                let object: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_str(text).ok()?;
                let numbers = |(name, value): (String, serde_json::Value)| {
                    Some((value.as_f64()?, Some(name)))
                };
                object.into_iter().find_map(numbers)
            }
            None => None,
        }
    }
}

fn properties(message: &Publish<'_>, len_max: usize) -> Box<[(&'static str, Box<str>)]> {
    let mut left = len_max;
    let mut kept = Vec::new();
    for property in message.properties {
        let Some((name, text)) = named(&property) else { continue };
        left = match left.checked_sub(text.len()) {
            Some(left) => left,
            None => break,
        };
        kept.push((name, text.into()));
    }
    kept.into()
}

/// Those that are about the message, not about its delivery.
fn named(property: &Property<'_>) -> Option<(&'static str, String)> {
    Some(match property {
        Property::ContentType(text) => ("content type", (*text).into()),
        Property::PayloadFormatIndicator(1) => ("payload format", "UTF-8".into()),
        Property::MessageExpiryIntervalS(seconds) => ("expires after", format!("{seconds} s")),
        Property::ResponseTopic(topic) => ("response topic", (*topic).into()),
        Property::CorrelationData(data) => ("correlation", data.escape_ascii().to_string()),
        Property::UserProperty(name, value) => ("user property", format!("{name} = {value}")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_codec::Properties;

    fn number(payload: &str) -> Option<f64> {
        let value = Value::new(0, &Publish::new("t", payload.as_bytes()), 100);
        value.number().map(|(number, _)| number)
    }

    #[test]
    fn numbers_are_found() {
        for (payload, found) in [
            ("21.5", Some(21.5)),
            (" -3\n", Some(-3.0)),
            ("ON", Some(1.0)),
            (r#"{"name": "x", "t": 4}"#, Some(4.0)),
            (r#"{"t": "4"}"#, None),
            ("", None),
            ("NaN", None),
            ("warm", None),
        ] {
            assert_eq!(number(payload), found, "{payload}");
        }
    }

    #[test]
    fn no_more_is_kept_than_allowed() {
        let long = "x".repeat(70);
        let properties = [
            Property::ContentType(&long),
            Property::UserProperty("k", "v"),
            Property::UserProperty(&long, ""),
            Property::ContentType("never seen"),
        ];
        let payload = [7; 1000];
        let properties = Properties::new(&properties);
        let message = Publish { properties, ..Publish::new("t", &payload) };
        let value = Value::new(0, &message, 100);
        assert_eq!((value.payload.len(), value.len, value.is_whole()), (100, 1000, false));
        assert_eq!(value.properties.len(), 2);
        assert!(value.heap_len() < 300);
    }
}
