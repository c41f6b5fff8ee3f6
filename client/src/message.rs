//! Messages, as the application gives and gets them.

use std::sync::Arc;

use bytes::Bytes;
use whimbrel_codec::{EncodeError, PacketId, Properties, Property, QoS};

use crate::state::AckToken;
use crate::{AckError, CommandError, ReasonCode};

/// Properties that own their strings: a list in the form of the wire (section 2.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyList {
    raw: Vec<u8>,
    /// What could not be added, told when the list is used.
    invalid: Option<EncodeError>,
}

impl PropertyList {
    /// No property.
    pub const fn new() -> PropertyList {
        PropertyList { raw: Vec::new(), invalid: None }
    }

    /// Adds one behind the others. A string of more than 65,535 bytes makes whatever uses the
    /// list fail.
    pub fn push(&mut self, property: Property<'_>) {
        let len = self.raw.len();
        if let Err(error) = Properties::new(&[property]).write_raw(&mut self.raw, |_| true) {
            self.raw.truncate(len);
            self.invalid = Some(error);
        }
    }

    /// True if there is none.
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// In the order of the packet.
    pub fn iter(&self) -> impl Iterator<Item = Property<'_>> {
        self.view().iter()
    }

    pub(crate) fn copy_of(properties: &Properties<'_>) -> PropertyList {
        let mut list = PropertyList::new();
        match properties.raw() {
            Some(raw) => list.raw.extend_from_slice(raw),
            None => properties.iter().for_each(|property| list.push(property)),
        }
        list
    }

    pub(crate) fn view(&self) -> Properties<'_> {
        Properties::from_raw(&self.raw)
    }

    pub(crate) fn check(&self) -> Result<(), EncodeError> {
        self.invalid.map_or(Ok(()), Err)
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.raw.len()
    }
}

/// Of a PUBLISH to the broker (section 3.3.2.3), without the message expiry interval.
pub(crate) fn check_properties(list: &PropertyList) -> Result<(), CommandError> {
    list.check()?;
    let mut seen = 0_u64;
    for property in list.iter() {
        let is_fine = match property {
            Property::UserProperty(..) => continue,
            Property::PayloadFormatIndicator(format) => format <= 1,
            Property::ResponseTopic(topic) => whimbrel_topics::validate_topic_name(topic).is_ok(),
            Property::ContentType(_) | Property::CorrelationData(_) | Property::TopicAlias(_) => {
                true
            }
            _ => false,
        };
        let bit = 1 << property.id();
        if !is_fine || seen & bit != 0 {
            return Err(CommandError::PropertyInvalid);
        }
        seen |= bit;
    }
    Ok(())
}

impl<'a> FromIterator<Property<'a>> for PropertyList {
    fn from_iter<I: IntoIterator<Item = Property<'a>>>(properties: I) -> PropertyList {
        let mut list = PropertyList::new();
        properties.into_iter().for_each(|property| list.push(property));
        list
    }
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to; a topic that is used often costs no copy as an `Arc`.
    pub topic: Arc<str>,
    /// The application's bytes.
    pub payload: Bytes,
    /// Quality of service; [`QoS::AtMostOnce`] at first.
    pub qos: QoS,
    /// To keep as the topic's retained message.
    pub retain: bool,
    /// Seconds after which it is of no use: it leaves the queue by then, and with 5.0 the broker
    /// gets what is left as message expiry interval.
    pub expiry_s: Option<u32>,
    /// 5.0 only; without the message expiry interval.
    pub properties: PropertyList,
}

impl Message {
    /// QoS 0, not retained, without properties.
    pub fn new(topic: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Message {
        Message {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            expiry_s: None,
            properties: PropertyList::new(),
        }
    }

    /// Sets the quality of service.
    pub fn qos(mut self, qos: QoS) -> Message {
        self.qos = qos;
        self
    }

    /// Sets whether the broker keeps it for later subscribers.
    pub fn retain(mut self, retain: bool) -> Message {
        self.retain = retain;
        self
    }

    /// Sets [`Message::expiry_s`].
    pub fn expiry_s(mut self, seconds: u32) -> Message {
        self.expiry_s = Some(seconds);
        self
    }

    /// Adds a property (5.0).
    pub fn property(mut self, property: Property<'_>) -> Message {
        match property {
            Property::MessageExpiryIntervalS(seconds) => self.expiry_s = Some(seconds),
            property => self.properties.push(property),
        }
        self
    }

    /// Adds a name and a value for the receivers (5.0).
    pub fn user_property(self, name: &str, value: &str) -> Message {
        self.property(Property::UserProperty(name, value))
    }

    /// Says what the payload is, such as `application/json` (5.0).
    pub fn content_type(self, content_type: &str) -> Message {
        self.property(Property::ContentType(content_type))
    }

    /// Bytes of memory that it takes while it is queued, about.
    pub(crate) fn len_bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len_bytes()
    }
}

/// A message that a subscription brought.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its topic name; an alias is already resolved.
    pub topic: Arc<str>,
    /// The application's bytes.
    pub payload: Bytes,
    /// Quality of service of this delivery.
    pub qos: QoS,
    /// A retained message, or one published so if the subscription asked to be told.
    pub retain: bool,
    /// Perhaps delivered before.
    pub dup: bool,
    /// With QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// 5.0 only.
    pub properties: PropertyList,
    pub(crate) token: Option<AckToken>,
}

impl Incoming {
    /// Acknowledges: the broker forgets the message. Only with
    /// [`Filter::manual_ack`](crate::Filter::manual_ack) or
    /// [`AllMessages::manual_ack`](crate::AllMessages::manual_ack) there is something to do; QoS 0
    /// needs none. A second call does nothing once one has succeeded.
    ///
    /// Acknowledgements may be given in any order; they are sent in the order of the messages
    /// `[MQTT-4.6.0-2]`, so one that is held back holds back those behind it.
    ///
    /// # Errors
    /// If the connection that brought the message is gone: the broker will deliver it again.
    pub fn ack(&mut self) -> Result<(), AckError> {
        self.answer(ReasonCode::Success)
    }

    /// Tells a 5.0 broker with a reason code of 0x80 or above that the message was not accepted;
    /// it is not delivered again.
    ///
    /// # Errors
    /// As [`Incoming::ack`]; or the reason code is none for this, and the message is still to be
    /// acknowledged.
    pub fn reject(&mut self, reason: ReasonCode) -> Result<(), AckError> {
        self.answer(reason)
    }

    fn answer(&mut self, reason: ReasonCode) -> Result<(), AckError> {
        let Some(token) = &self.token else { return Ok(()) };
        token.answer(reason)?;
        self.token = None;
        Ok(())
    }

    /// What the payload is, if the publisher said so (5.0).
    pub fn content_type(&self) -> Option<&str> {
        self.properties.iter().find_map(|property| match property {
            Property::ContentType(text) => Some(text),
            _ => None,
        })
    }

    /// Where the publisher awaits a response (5.0).
    pub fn response_topic(&self) -> Option<&str> {
        self.properties.iter().find_map(|property| match property {
            Property::ResponseTopic(topic) => Some(topic),
            _ => None,
        })
    }

    /// Which request a response belongs to (5.0).
    pub fn correlation_data(&self) -> Option<&[u8]> {
        self.properties.iter().find_map(|property| match property {
            Property::CorrelationData(data) => Some(data),
            _ => None,
        })
    }

    /// The value of the first user property of this name (5.0).
    pub fn user_property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find_map(|property| match property {
            Property::UserProperty(key, value) if key == name => Some(value),
            _ => None,
        })
    }

    /// The response to this request, to be published: to its response topic and with its
    /// correlation data and QoS. None if no response is asked for.
    pub fn response(&self, payload: impl Into<Bytes>) -> Option<Message> {
        let mut message = Message::new(self.response_topic()?, payload).qos(self.qos);
        if let Some(data) = self.correlation_data() {
            message.properties.push(Property::CorrelationData(data));
        }
        Some(message)
    }
}
