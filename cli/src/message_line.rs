//! A message as fields of a line of JSON, for scripts and recordings.

use whimbrel_codec::{Properties, Property, Publish, QoS};

use crate::lines::{Fields, Object, Wrong, quoted};
use crate::topic;

/// What the fields are, for `--help`.
pub const FIELDS_HELP: &str = "  topic, qos (0, 1, 2), retain (true, false),
  payload (text) or payload_base64 (bytes that are no UTF-8), and with 5.0, where set:
  content_type, response_topic, correlation_data or correlation_data_base64,
  payload_format_indicator, message_expiry_interval_s, user_properties ([[NAME, VALUE], ...]),
  subscription_identifiers ([N, ...])";

/// Appends the fields of `message`.
pub fn put(line: &mut Object, message: &Publish<'_>) {
    line.text("topic", message.topic);
    line.number("qos", message.qos as u8);
    line.raw("retain", if message.retain { "true" } else { "false" });
    line.bytes("payload", message.payload);
    let (mut user, mut ids) = (Vec::new(), Vec::new());
    for property in message.properties {
        match property {
            Property::ContentType(text) => line.text("content_type", text),
            Property::ResponseTopic(text) => line.text("response_topic", text),
            Property::CorrelationData(data) => line.bytes("correlation_data", data),
            Property::PayloadFormatIndicator(value) => {
                line.number("payload_format_indicator", value);
            }
            Property::MessageExpiryIntervalS(seconds) => {
                line.number("message_expiry_interval_s", seconds);
            }
            Property::UserProperty(name, value) => {
                user.push(format!("[{},{}]", quoted(name), quoted(value)));
            }
            Property::SubscriptionIdentifier(id) => ids.push(id.to_string()),
            // A topic alias belongs to the connection.
            _ => {}
        }
    }
    line.list("user_properties", user.into_iter());
    line.list("subscription_identifiers", ids.into_iter());
}

/// A message that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// A topic name.
    pub topic: String,
    /// Any bytes.
    pub payload: Vec<u8>,
    /// As received.
    pub qos: QoS,
    /// As received.
    pub retain: bool,
    /// As on the wire, see [`Properties::from_raw`].
    pub properties: Vec<u8>,
}

impl Message {
    /// Takes the fields of a message; what belongs to one subscriber alone is left out.
    pub fn take(fields: &mut Fields) -> Result<Message, Wrong> {
        let topic = fields.need_text("topic")?;
        if !topic::is_name(&topic) {
            return Err("`topic` must not be empty or contain + or #".into());
        }
        let qos = fields.qos()?.unwrap_or(QoS::AtMostOnce);
        let (retain, payload) = (fields.flag("retain")?, fields.payload()?);
        let properties = properties(fields)?;
        fields.list("subscription_identifiers")?;
        Ok(Message { topic, payload, qos, retain, properties })
    }

    /// To be published.
    pub fn publish(&self) -> Publish<'_> {
        Publish {
            qos: self.qos,
            retain: self.retain,
            properties: Properties::from_raw(&self.properties),
            ..Publish::new(&self.topic, &self.payload)
        }
    }
}

fn properties(fields: &mut Fields) -> Result<Vec<u8>, Wrong> {
    let content_type = fields.text("content_type")?;
    let response_topic = fields.text("response_topic")?;
    let correlation_data = fields.bytes("correlation_data")?;
    let user = fields.pairs("user_properties")?;
    let mut list = Vec::new();
    if let Some(value) = fields.number("payload_format_indicator")? {
        if value > 1 {
            return Err("`payload_format_indicator` must be 0 or 1".into());
        }
        list.push(Property::PayloadFormatIndicator(value));
    }
    list.extend(fields.number("message_expiry_interval_s")?.map(Property::MessageExpiryIntervalS));
    list.extend(content_type.as_deref().map(Property::ContentType));
    if let Some(topic) = &response_topic {
        if !topic::is_name(topic) {
            return Err("`response_topic` must not be empty or contain + or #".into());
        }
        list.push(Property::ResponseTopic(topic));
    }
    list.extend(correlation_data.as_deref().map(Property::CorrelationData));
    list.extend(user.iter().map(|(name, value)| Property::UserProperty(name, value)));
    let mut raw = Vec::new();
    match Properties::new(&list).write_raw(&mut raw, |_| true) {
        Ok(()) => Ok(raw),
        Err(_) => Err("a property has more than 65,535 bytes".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = concat!(
        r#"{"topic":"a/b","qos":1,"retain":true,"payload":"x\"y","content_type":"text/plain","#,
        r#""response_topic":"r","correlation_data_base64":"/w==","payload_format_indicator":1,"#,
        r#""message_expiry_interval_s":50,"user_properties":[["k","v"],["k","w"]],"#,
        r#""subscription_identifiers":[3,4]}"#
    );

    fn read(line: &str) -> Result<Message, Wrong> {
        let mut fields = Fields::parse(line)?;
        let message = Message::take(&mut fields)?;
        fields.finish().map(|()| message)
    }

    #[test]
    fn fields_have_their_names_and_order() {
        let properties = [
            Property::ContentType("text/plain"),
            Property::ResponseTopic("r"),
            Property::CorrelationData(&[255]),
            Property::PayloadFormatIndicator(1),
            Property::SubscriptionIdentifier(3),
            Property::UserProperty("k", "v"),
            Property::MessageExpiryIntervalS(50),
            Property::TopicAlias(7),
            Property::SubscriptionIdentifier(4),
            Property::UserProperty("k", "w"),
        ];
        let properties = Properties::new(&properties);
        let qos = QoS::AtLeastOnce;
        let message = Publish { qos, retain: true, properties, ..Publish::new("a/b", b"x\"y") };
        let mut line = Object::new();
        put(&mut line, &message);
        assert_eq!(line.finish(), LINE);
        let mut line = Object::new();
        put(&mut line, &Publish::new("a", b"\xff"));
        assert_eq!(
            line.finish(),
            r#"{"topic":"a","qos":0,"retain":false,"payload_base64":"/w=="}"#
        );
    }

    #[test]
    fn what_was_written_is_read() {
        let message = read(LINE).unwrap();
        assert_eq!((message.qos, message.retain), (QoS::AtLeastOnce, true));
        assert_eq!(message.payload, b"x\"y");
        let mut line = Object::new();
        put(&mut line, &message.publish());
        let again = read(&line.finish()).unwrap();
        assert_eq!(again, message);
        let properties: Vec<_> = again.publish().properties.iter().collect();
        assert_eq!(properties.len(), 7, "{properties:?}");
        assert!(properties.contains(&Property::CorrelationData(&[255])));
        let least = read(r#"{"topic":"a","payload":""}"#).unwrap();
        assert_eq!((least.qos, least.retain), (QoS::AtMostOnce, false));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, what) in [
            (r#"{"topic":"a"}"#, "`payload` or `payload_base64` is missing"),
            (r#"{"topic":"a/+","payload":""}"#, "`topic` must not be empty or contain"),
            (r#"{"topic":"a","payload":"","qos":3}"#, "`qos` must be 0, 1 or 2"),
            (r#"{"topic":"a","payload":"","payload_base64":""}"#, "exclude each other"),
            (r#"{"topic":"a","payload":"","retian":true}"#, "no field `retian`"),
            (r#"{"topic":"a","payload":"","response_topic":"+"}"#, "`response_topic` must not"),
            (r#"{"topic":"a","payload":"","payload_format_indicator":2}"#, "must be 0 or 1"),
            (r#"{"topic":"a","payload":"","user_properties":[["k"]]}"#, "list of two texts"),
        ] {
            let wrong = read(line).unwrap_err();
            assert!(wrong.contains(what), "{wrong}");
        }
    }
}
