//! `-D COMMAND IDENTIFIER VALUE`: properties of 5.0 on the command line.

use std::str::FromStr;

use whimbrel_codec::Property;

use crate::failure::Failure;

/// The properties for each packet.
#[derive(Debug, Default)]
pub struct Lists<'a> {
    /// For CONNECT.
    pub connect: Vec<Property<'a>>,
    /// For PUBLISH.
    pub publish: Vec<Property<'a>>,
    /// For SUBSCRIBE.
    pub subscribe: Vec<Property<'a>>,
    /// For UNSUBSCRIBE.
    pub unsubscribe: Vec<Property<'a>>,
    /// For DISCONNECT.
    pub disconnect: Vec<Property<'a>>,
    /// For the will message in CONNECT.
    pub will: Vec<Property<'a>>,
}

const CONNECT: &[&str] = &[
    "authentication-data",
    "authentication-method",
    "maximum-packet-size",
    "receive-maximum",
    "request-problem-information",
    "request-response-information",
    "session-expiry-interval",
    "topic-alias-maximum",
];
const MESSAGE: &[&str] = &[
    "content-type",
    "correlation-data",
    "message-expiry-interval",
    "payload-format-indicator",
    "response-topic",
];

impl<'a> Lists<'a> {
    /// From the values of all `-D` in a row: three each, or four for a user property.
    pub fn parse(words: &'a [String]) -> Result<Lists<'a>, Failure> {
        let mut lists = Lists::default();
        let mut rest = words;
        loop {
            rest = match rest {
                [] => return Ok(lists),
                [command, id, name, value, rest @ ..] if id == "user-property" => {
                    let property = Property::UserProperty(name, value);
                    lists.list(command, id)?.push(property);
                    rest
                }
                [command, id, value, rest @ ..] if id != "user-property" => {
                    let list = lists.list(command, id)?;
                    let property = parse(id, value)?;
                    if list.iter().any(|p| p.id() == property.id()) {
                        return Err(Failure::usage(format!("-D {command} {id} is given twice")));
                    }
                    list.push(property);
                    rest
                }
                rest => {
                    let text = rest.join(" ");
                    let what = format!("-D {text}: give a command, an identifier and its value");
                    return Err(Failure::usage(what));
                }
            };
        }
    }

    fn list(&mut self, command: &str, id: &str) -> Result<&mut Vec<Property<'a>>, Failure> {
        let (list, own, messages) = match command.to_ascii_lowercase().as_str() {
            "connect" => (&mut self.connect, CONNECT, false),
            "publish" => (&mut self.publish, &["topic-alias"][..], true),
            "subscribe" => (&mut self.subscribe, &["subscription-identifier"][..], false),
            "unsubscribe" => (&mut self.unsubscribe, &[][..], false),
            "disconnect" => (&mut self.disconnect, &["session-expiry-interval"][..], false),
            "will" => (&mut self.will, &["will-delay-interval"][..], true),
            _ => {
                return Err(Failure::usage(format!(
                    "-D {command}: the command must be connect, publish, subscribe, unsubscribe, \
                     disconnect or will"
                )));
            }
        };
        let known = id == "user-property" || own.contains(&id);
        if known || (messages && MESSAGE.contains(&id)) {
            return Ok(list);
        }
        let names = own.iter().chain(if messages { MESSAGE } else { &[] });
        let names: Vec<_> = names.chain(&["user-property"]).copied().collect();
        let names = names.join(", ");
        Err(Failure::usage(format!("-D {command} {id}: {command} takes {names}")))
    }
}

fn parse<'a>(id: &str, value: &'a str) -> Result<Property<'a>, Failure> {
    Ok(match id {
        "authentication-data" => Property::AuthenticationData(value.as_bytes()),
        "authentication-method" => Property::AuthenticationMethod(value),
        "maximum-packet-size" => Property::MaximumPacketSizeBytes(number(id, value, 1)?),
        "receive-maximum" => Property::ReceiveMaximum(number(id, value, 1)?),
        "request-problem-information" => Property::RequestProblemInformation(flag(id, value)?),
        "request-response-information" => Property::RequestResponseInformation(flag(id, value)?),
        "session-expiry-interval" => Property::SessionExpiryIntervalS(number(id, value, 0)?),
        "topic-alias-maximum" => Property::TopicAliasMaximum(number(id, value, 0)?),
        "topic-alias" => Property::TopicAlias(number(id, value, 1)?),
        "subscription-identifier" => Property::SubscriptionIdentifier(number(id, value, 1)?),
        "content-type" => Property::ContentType(value),
        "correlation-data" => Property::CorrelationData(value.as_bytes()),
        "message-expiry-interval" => Property::MessageExpiryIntervalS(number(id, value, 0)?),
        "payload-format-indicator" => Property::PayloadFormatIndicator(flag(id, value)?),
        "response-topic" => Property::ResponseTopic(value),
        "will-delay-interval" => Property::WillDelayIntervalS(number(id, value, 0)?),
        _ => return Err(Failure::usage(format!("-D: there is no property {id}"))),
    })
}

fn number<T: FromStr + PartialOrd>(id: &str, value: &str, min: T) -> Result<T, Failure> {
    let invalid = || Failure::usage(format!("-D {id} {value}: the number is out of range"));
    value.parse().ok().filter(|number| *number >= min).ok_or_else(invalid)
}

fn flag(id: &str, value: &str) -> Result<u8, Failure> {
    match value {
        "0" => Ok(0),
        "1" => Ok(1),
        _ => Err(Failure::usage(format!("-D {id} {value}: the value must be 0 or 1"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    #[test]
    fn properties_go_to_their_packets_in_order() {
        let words = words(
            "publish content-type text/plain PUBLISH user-property k v publish user-property k w \
             connect receive-maximum 7 will will-delay-interval 5",
        );
        let lists = Lists::parse(&words).unwrap();
        let publish = [
            Property::ContentType("text/plain"),
            Property::UserProperty("k", "v"),
            Property::UserProperty("k", "w"),
        ];
        assert_eq!(lists.publish, publish);
        assert_eq!(lists.connect, [Property::ReceiveMaximum(7)]);
        assert_eq!(lists.will, [Property::WillDelayIntervalS(5)]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, what) in [
            ("publish receive-maximum 7", "publish takes topic-alias, content-type"),
            ("publsh content-type x", "the command must be"),
            ("connect receive-maximum 0", "out of range"),
            ("connect receive-maximum 70000", "out of range"),
            ("publish payload-format-indicator 2", "0 or 1"),
            ("publish user-property k", "give a command"),
            ("publish content-type a publish content-type b", "twice"),
        ] {
            let message = Lists::parse(&words(text)).unwrap_err().message;
            assert!(message.contains(what), "{message}");
        }
    }
}
