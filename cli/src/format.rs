//! The output formats of `whimbrel sub -F`, as mosquitto_sub(1) defines them.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::Zoned;
use whimbrel_codec::{Property, Publish};

use crate::lines::quoted;
use crate::view::{self, JsonLayout, View};

/// A format, parsed once.
#[derive(Debug)]
pub struct Format {
    pieces: Vec<Piece>,
    pretty: bool,
    view: View,
}

#[derive(Debug)]
enum Piece {
    Literal(Vec<u8>),
    Field(Field),
    /// `@X`: strftime's `%X`.
    Time(String),
    /// `@N`.
    Nanoseconds,
}

#[derive(Clone, Copy, Debug, Default)]
struct Field {
    what: char,
    zero: bool,
    left: bool,
    width: usize,
    max: Option<usize>,
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

impl Format {
    /// `pretty` is for JSON, `view` for `%p`; fails with what is wrong with `text`.
    pub fn parse(text: &str, pretty: bool, view: View) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            let piece = match char {
                '%' => field(&mut chars)?,
                '@' => time(&mut chars)?,
                '\\' => Piece::Literal(vec![escape(&mut chars)?]),
                char => Piece::Literal(char.to_string().into_bytes()),
            };
            match (pieces.last_mut(), piece) {
                (Some(Piece::Literal(text)), Piece::Literal(more)) => text.extend(more),
                (_, piece) => pieces.push(piece),
            }
        }
        Ok(Format { pieces, pretty, view })
    }

    /// The same with this text, which is no format, behind it.
    pub fn with_end(mut self, end: &str) -> Format {
        self.pieces.push(Piece::Literal(end.into()));
        self
    }

    /// Appends `message` to `out`; fails, and leaves a part out, if %J meets a payload that is
    /// not JSON.
    pub fn render(&self, message: &Publish<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        self.render_at(message, None, out)
    }

    fn render_at(
        &self,
        message: &Publish<'_>,
        at: Option<&Zoned>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut now = at.cloned();
        let mut now = || now.get_or_insert_with(Zoned::now).clone();
        let mut result = Ok(());
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Time(format) => out.extend(strftime(format, &now()).into_bytes()),
                Piece::Nanoseconds => {
                    out.extend(format!("{:09}", now().subsec_nanosecond()).into_bytes());
                }
                Piece::Field(field) => match field.what {
                    'p' => out.extend_from_slice(&self.view.show(message.payload)),
                    'D' => out.extend_from_slice(correlation_data(message).unwrap_or_default()),
                    'j' | 'J' => match self.json_payload(field.what, message.payload) {
                        Some(payload) => {
                            out.extend(json(message, &now(), &payload, self.pretty).into_bytes());
                        }
                        None => result = Err(not_json(message.topic)),
                    },
                    'I' => {
                        field.put(&strftime("%Y-%m-%dT%H:%M:%S%z", &now()), out);
                    }
                    'U' => {
                        let at = now().timestamp();
                        let text = format!("{}.{:09}", at.as_second(), at.subsec_nanosecond());
                        out.extend(text.into_bytes());
                    }
                    _ => field.put(&field.value(message), out),
                },
            }
        }
        result
    }

    /// A value in JSON: text for `%j`, and what it says itself for `%J`.
    fn json_payload(&self, what: char, payload: &[u8]) -> Option<String> {
        let layout = if self.pretty { JsonLayout::TABS } else { JsonLayout::COMPACT };
        match what {
            _ if payload.is_empty() => Some("null".into()),
            'j' => Some(quoted(&String::from_utf8_lossy(payload))),
            _ => view::json(payload, layout, 1),
        }
    }
}

fn not_json(topic: &str) -> String {
    format!("Message payload is not valid JSON on topic {topic}")
}

impl Field {
    fn value<'a>(&self, message: &Publish<'a>) -> Cow<'a, str> {
        let hexadecimal = |digit: fn(&u8) -> String| message.payload.iter().map(digit).collect();
        match self.what {
            't' => message.topic.into(),
            'q' => (message.qos as u8).to_string().into(),
            'r' => u8::from(message.retain).to_string().into(),
            'l' => message.payload.len().to_string().into(),
            'm' => message.packet_id.map_or(0, |id| id.get()).to_string().into(),
            'x' => hexadecimal(|byte| format!("{byte:02x}")),
            'X' => hexadecimal(|byte| format!("{byte:02X}")),
            'P' => {
                let pairs = message.properties.iter().filter_map(|property| match property {
                    Property::UserProperty(name, value) => Some(format!("{name}:{value}")),
                    _ => None,
                });
                pairs.collect::<Vec<_>>().join(" ").into()
            }
            'S' => {
                let ids = message.properties.iter().filter_map(|property| match property {
                    Property::SubscriptionIdentifier(id) => Some(id.to_string()),
                    _ => None,
                });
                ids.collect::<Vec<_>>().join(" ").into()
            }
            what => {
                let mut properties = message.properties.iter();
                properties.find_map(|property| named(what, property)).unwrap_or_default()
            }
        }
    }

    /// Pads and cuts by characters, so that no character is torn.
    fn put(&self, text: &str, out: &mut Vec<u8>) {
        let text: String = match self.max {
            Some(max) if "CIRt".contains(self.what) => text.chars().take(max).collect(),
            _ => text.into(),
        };
        let padded = !"qrP".contains(self.what);
        let missing = if padded { self.width.saturating_sub(text.chars().count()) } else { 0 };
        let zero = self.zero && !self.left && "AEFlmSXx".contains(self.what);
        let padding = std::iter::repeat_n(if zero { b'0' } else { b' ' }, missing);
        if self.left {
            out.extend(text.into_bytes());
            out.extend(padding);
        } else {
            out.extend(padding);
            out.extend(text.into_bytes());
        }
    }
}

fn named(what: char, property: Property<'_>) -> Option<Cow<'_, str>> {
    match (what, property) {
        ('A', Property::TopicAlias(alias)) => Some(alias.to_string().into()),
        ('C', Property::ContentType(text)) | ('R', Property::ResponseTopic(text)) => {
            Some(text.into())
        }
        ('E', Property::MessageExpiryIntervalS(seconds)) => Some(seconds.to_string().into()),
        ('F', Property::PayloadFormatIndicator(value)) => Some(value.to_string().into()),
        _ => None,
    }
}

fn correlation_data<'a>(message: &Publish<'a>) -> Option<&'a [u8]> {
    message.properties.iter().find_map(|property| match property {
        Property::CorrelationData(data) => Some(data),
        _ => None,
    })
}

fn field(chars: &mut Chars<'_>) -> Result<Piece, String> {
    let mut field = Field::default();
    while let Some(flag) = chars.next_if(|char| "0-".contains(*char)) {
        field.zero |= flag == '0';
        field.left |= flag == '-';
    }
    field.width = number(chars).unwrap_or(0);
    if chars.next_if_eq(&'.').is_some() {
        field.max = Some(number(chars).unwrap_or(0));
    }
    match chars.next() {
        None => Err("the format ends inside a % sequence".into()),
        Some('%') => Ok(Piece::Literal(b"%".into())),
        Some(what) if "ACDEFIjJlmPpqRrStUxX".contains(what) => {
            Ok(Piece::Field(Field { what, ..field }))
        }
        Some(what) => Err(format!("there is no sequence %{what}")),
    }
}

/// Wider than any terminal is no width; it bounds what a format can make of a message.
fn number(chars: &mut Chars<'_>) -> Option<usize> {
    let mut value = None;
    while let Some(digit) = chars.peek().and_then(|char| char.to_digit(10)) {
        chars.next();
        value = Some((value.unwrap_or(0) * 10 + digit as usize).min(10_000));
    }
    value
}

fn time(chars: &mut Chars<'_>) -> Result<Piece, String> {
    match chars.next() {
        None => Err("the format ends inside an @ sequence".into()),
        Some('@') => Ok(Piece::Literal(b"@".into())),
        Some('N') => Ok(Piece::Nanoseconds),
        Some(what) => {
            let format = format!("%{what}");
            match jiff::fmt::strtime::format(&format, &Zoned::now()) {
                Ok(_) => Ok(Piece::Time(format)),
                Err(_) => Err(format!("there is no sequence @{what}")),
            }
        }
    }
}

fn escape(chars: &mut Chars<'_>) -> Result<u8, String> {
    Ok(match chars.next() {
        Some('\\') => b'\\',
        Some('0') => 0,
        Some('a') => 7,
        Some('e') => 0x1b,
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('v') => 0x0b,
        Some(what) => return Err(format!("there is no sequence \\{what}")),
        None => return Err("the format ends inside a \\ sequence".into()),
    })
}

fn strftime(format: &str, at: &Zoned) -> String {
    jiff::fmt::strtime::format(format, at).unwrap_or_default()
}

/// A JSON object whose members keep their order.
struct Object {
    members: Vec<(String, String)>,
    indent: Option<usize>,
}

impl Object {
    fn text(&mut self, name: &str, value: &str) {
        self.raw(name, quoted(value));
    }

    fn raw(&mut self, name: &str, value: impl ToString) {
        self.members.push((name.into(), value.to_string()));
    }

    fn finish(self) -> String {
        let (open, colon, close) = match self.indent {
            Some(depth) => (
                format!("\n{}", "\t".repeat(depth + 1)),
                ":\t",
                format!("\n{}", "\t".repeat(depth)),
            ),
            None => (String::new(), ":", String::new()),
        };
        let mut text = String::from("{");
        for (index, (name, value)) in self.members.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(text, "{comma}{open}{}{colon}{value}", quoted(name));
        }
        text + &close + "}"
    }
}

/// `payload` is JSON.
fn json(message: &Publish<'_>, now: &Zoned, payload: &str, pretty: bool) -> String {
    let mut object = Object { members: Vec::new(), indent: pretty.then_some(0) };
    let micros = now.subsec_nanosecond() / 1000;
    let (date, zone) = (strftime("%Y-%m-%dT%H:%M:%S", now), strftime("%z", now));
    object.text("tst", &format!("{date}.{micros:06}{zone}"));
    object.text("topic", message.topic);
    object.raw("qos", message.qos as u8);
    object.raw("retain", u8::from(message.retain));
    object.raw("payloadlen", message.payload.len());
    if let Some(id) = message.packet_id {
        object.raw("mid", id.get());
    }
    if !message.properties.is_empty() {
        object.raw("properties", json_properties(message, pretty));
    }
    object.raw("payload", payload);
    object.finish()
}

fn json_properties(message: &Publish<'_>, pretty: bool) -> String {
    let mut object = Object { members: Vec::new(), indent: pretty.then_some(1) };
    let mut users = Object { members: Vec::new(), indent: pretty.then_some(2) };
    let mut ids = Vec::new();
    for property in message.properties {
        match property {
            Property::UserProperty(name, value) => users.text(name, value),
            Property::ContentType(text) => object.text("content-type", text),
            Property::ResponseTopic(text) => object.text("response-topic", text),
            Property::CorrelationData(data) => {
                object.text("correlation-data", &String::from_utf8_lossy(data));
            }
            Property::PayloadFormatIndicator(value) => {
                object.raw("payload-format-indicator", value);
            }
            Property::MessageExpiryIntervalS(seconds) => {
                object.raw("message-expiry-interval", seconds);
            }
            Property::TopicAlias(alias) => object.raw("topic-alias", alias),
            Property::SubscriptionIdentifier(id) => ids.push(id.to_string()),
            _ => {}
        }
    }
    if !users.members.is_empty() {
        object.raw("user-properties", users.finish());
    }
    match ids.as_slice() {
        [] => {}
        [id] => object.raw("subscription-identifier", id),
        ids => object.raw("subscription-identifier", format!("[{}]", ids.join(","))),
    }
    object.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use jiff::tz::TimeZone;
    use whimbrel_codec::{PacketId, Properties, QoS};

    const PROPERTIES: &[Property<'static>] = &[
        Property::ContentType("text"),
        Property::UserProperty("k", "v"),
        Property::UserProperty("k", "w"),
        Property::CorrelationData(b"xyz"),
        Property::ResponseTopic("r/t"),
        Property::MessageExpiryIntervalS(50),
        Property::PayloadFormatIndicator(1),
        Property::SubscriptionIdentifier(3),
    ];

    fn render(format: &str, payload: &[u8]) -> String {
        let message = Publish {
            qos: QoS::AtLeastOnce,
            packet_id: PacketId::new(7),
            properties: Properties::new(PROPERTIES),
            ..Publish::new("a/b", payload)
        };
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let at = date(2020, 5, 6).at(22, 12, 0, 120).to_zoned(zone).unwrap();
        let mut out = Vec::new();
        let format = Format::parse(format, false, View::Raw).unwrap();
        match format.render_at(&message, Some(&at), &mut out) {
            Ok(()) => String::from_utf8(out).unwrap(),
            Err(error) => error,
        }
    }

    #[test]
    fn sequences() {
        for (format, text) in [
            ("%t %p %q %r %l %m", "a/b hi 1 0 2 7"),
            ("%x %X", "6869 6869"),
            ("%C %D %E %F %R %S %P %A.", "text xyz 50 1 r/t 3 k:v k:w ."),
            ("[%5t|%-5t|%.2t|%5.2t]", "[  a/b|a/b  |a/|   a/]"),
            ("[%5l|%05l|%-05l|%3q]", "[    2|00002|2    |1]"),
            ("%05A", "00000"),
            ("%% @@ \\\\ \\t|\\e[0m", "% @ \\ \t|\x1b[0m"),
            ("%I", "2020-05-06T22:12:00+0100"),
            ("%U @s.@N", "1588799520.000000120 1588799520.000000120"),
            ("@Y-@m-@d", "2020-05-06"),
        ] {
            assert_eq!(render(format, b"hi"), text, "{format}");
        }
    }

    #[test]
    fn json_of_a_message() {
        let head = r#"{"tst":"2020-05-06T22:12:00.000000+0100","topic":"a/b","qos":1,"retain":0,"#;
        let properties = concat!(
            r#""properties":{"content-type":"text","correlation-data":"xyz","#,
            r#""response-topic":"r/t","#,
            r#""message-expiry-interval":50,"payload-format-indicator":1,"#,
            r#""user-properties":{"k":"v","k":"w"},"subscription-identifier":3}"#
        );
        let quoted = format!(r#"{head}"payloadlen":3,"mid":7,{properties},"payload":"x\"y"}}"#);
        assert_eq!(render("%j", b"x\"y"), quoted);
        let raw = format!(r#"{head}"payloadlen":8,"mid":7,{properties},"payload":{{"a":1}}}}"#);
        assert_eq!(render("%J", b"{\"a\": 1}"), raw);
        let null = format!(r#"{head}"payloadlen":0,"mid":7,{properties},"payload":null}}"#);
        assert_eq!(render("%J", b""), null);
        assert!(render("%J", b"{").contains("not valid JSON on topic a/b"));
    }

    #[test]
    fn wrong_formats_are_refused() {
        for format in ["%z", "%5", "@", "\\q", "\\", "%"] {
            assert!(Format::parse(format, false, View::Raw).is_err(), "{format}");
        }
    }
}
