//! What came from the broker, kept after its bytes are gone.

use whimbrel_codec::{
    DecodeError, Frame, Packet, PacketId, PacketType, Properties, Property, Publish, QoS,
    ReasonCode, Version,
};

/// A packet's bytes; decoded when they came, so they decode again.
#[derive(Clone)]
pub struct Raw {
    version: Version,
    frame: Frame,
    bytes: Vec<u8>,
}

impl Raw {
    /// Takes the first packet off `bytes`; none while it is incomplete.
    pub fn take(version: Version, bytes: &mut Vec<u8>) -> Result<Option<Raw>, DecodeError> {
        let Some(frame) = Frame::parse(bytes, u32::MAX)? else { return Ok(None) };
        if bytes.len() < frame.packet_len() {
            return Ok(None);
        }
        Packet::decode(version, &frame, bytes)?;
        let rest = bytes.split_off(frame.packet_len());
        let bytes = std::mem::replace(bytes, rest);
        Ok(Some(Raw { version, frame, bytes }))
    }

    /// The type in the fixed header.
    pub fn packet_type(&self) -> PacketType {
        self.frame.packet_type
    }

    /// Length of the whole packet, in bytes.
    pub fn packet_len(&self) -> usize {
        self.bytes.len()
    }

    /// Decodes it.
    pub fn packet(&self) -> Result<Packet<'_>, DecodeError> {
        Packet::decode(self.version, &self.frame, &self.bytes)
    }

    /// One line for a person.
    pub fn describe(&self) -> String {
        let mut text = match self.packet() {
            Ok(packet) => format!("{packet:?}"),
            Err(error) => error.to_string(),
        };
        if text.len() > 300 {
            text = format!("{}...", text.chars().take(300).collect::<String>());
        }
        text
    }
}

/// A PUBLISH from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Perhaps sent before.
    pub dup: bool,
    /// As it was delivered.
    pub qos: QoS,
    /// Whether RETAIN is set.
    pub retain: bool,
    /// Empty if only an alias came.
    pub topic: String,
    /// With QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// The application's bytes.
    pub payload: Vec<u8>,
    /// Length of the whole packet, in bytes.
    pub packet_len: usize,
    properties: Vec<u8>,
}

impl Message {
    pub(crate) fn new(publish: &Publish<'_>, packet_len: usize) -> Message {
        Message {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: publish.topic.to_owned(),
            packet_id: publish.packet_id,
            payload: publish.payload.to_vec(),
            packet_len,
            properties: publish.properties.raw().unwrap_or_default().to_vec(),
        }
    }

    /// In the order of the packet.
    pub fn properties(&self) -> Properties<'_> {
        Properties::from_raw(&self.properties)
    }

    /// Its payload, for comparisons and messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The first value that `pick` finds among the properties.
    pub fn property<T>(&self, pick: impl Fn(Property<'_>) -> Option<T>) -> Option<T> {
        self.properties().iter().find_map(pick)
    }

    /// All subscription identifiers, in ascending order.
    pub fn subscription_ids(&self) -> Vec<u32> {
        let id = |property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        };
        let mut ids: Vec<u32> = self.properties().iter().filter_map(id).collect();
        ids.sort_unstable();
        ids
    }
}

/// Any other packet from the broker: CONNACK, an acknowledgement, DISCONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0 where the packet has none.
    pub packet_id: u16,
    /// Success where the packet has none.
    pub reason: ReasonCode,
    /// Of a CONNACK.
    pub session_present: bool,
    /// Of a SUBACK or UNSUBACK.
    pub codes: Vec<u8>,
    properties: Vec<u8>,
}

impl Answer {
    pub(crate) const NONE: Answer = Answer {
        packet_id: 0,
        reason: ReasonCode::Success,
        session_present: false,
        codes: Vec::new(),
        properties: Vec::new(),
    };

    pub(crate) fn new(packet: &Packet<'_>) -> Answer {
        let mut answer = Answer::NONE;
        let properties = match packet {
            Packet::ConnAck(p) => {
                answer.reason = p.reason;
                answer.session_present = p.session_present;
                p.properties
            }
            Packet::PubAck(p) | Packet::PubRec(p) | Packet::PubRel(p) | Packet::PubComp(p) => {
                answer.reason = p.reason;
                answer.packet_id = p.packet_id.get();
                p.properties
            }
            Packet::SubAck(p) => {
                answer.packet_id = p.packet_id.get();
                answer.codes = p.codes.bytes().to_vec();
                p.properties
            }
            Packet::UnsubAck(p) => {
                answer.packet_id = p.packet_id.get();
                answer.codes = p.codes.bytes().to_vec();
                p.properties
            }
            Packet::Disconnect(p) => {
                answer.reason = p.reason;
                p.properties
            }
            Packet::Auth(p) => {
                answer.reason = p.reason;
                p.properties
            }
            _ => Properties::NONE,
        };
        answer.properties = properties.raw().unwrap_or_default().to_vec();
        answer
    }

    /// In the order of the packet.
    pub fn properties(&self) -> Properties<'_> {
        Properties::from_raw(&self.properties)
    }

    /// The first value that `pick` finds among the properties.
    pub fn property<T>(&self, pick: impl Fn(Property<'_>) -> Option<T>) -> Option<T> {
        self.properties().iter().find_map(pick)
    }

    /// True if a reason string or a user property is there.
    pub fn has_problem_information(&self) -> bool {
        self.properties()
            .iter()
            .any(|p| matches!(p, Property::ReasonString(_) | Property::UserProperty(..)))
    }
}

/// What a CONNACK announces; without properties, what the standard assumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// QoS 1 and 2 publications that it takes at a time.
    pub receive_maximum: u16,
    /// Highest topic alias that it accepts.
    pub topic_alias_maximum: u16,
    /// Largest packet that it accepts, in bytes.
    pub maximum_packet_size_bytes: Option<u32>,
    /// Highest QoS that it accepts.
    pub maximum_qos: u8,
    /// Whether it keeps retained messages.
    pub retain: bool,
    /// Whether filters may have wildcards.
    pub wildcards: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_ids: bool,
    /// Whether subscriptions may be shared.
    pub shared: bool,
    /// Instead of the client's keep alive, in seconds.
    pub keep_alive_s: Option<u16>,
    /// Instead of the client's session expiry interval, in seconds.
    pub session_expiry_s: Option<u32>,
    /// The identifier that it chose for the client.
    pub client_id: Option<String>,
}

impl Server {
    pub(crate) fn new(connack: &Answer) -> Server {
        let mut server = Server {
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
            maximum_packet_size_bytes: None,
            maximum_qos: 2,
            retain: true,
            wildcards: true,
            subscription_ids: true,
            shared: true,
            keep_alive_s: None,
            session_expiry_s: None,
            client_id: None,
        };
        for property in connack.properties() {
            match property {
                Property::ReceiveMaximum(v) => server.receive_maximum = v,
                Property::TopicAliasMaximum(v) => server.topic_alias_maximum = v,
                Property::MaximumPacketSizeBytes(v) => server.maximum_packet_size_bytes = Some(v),
                Property::MaximumQos(v) => server.maximum_qos = v,
                Property::RetainAvailable(v) => server.retain = v == 1,
                Property::WildcardSubscriptionAvailable(v) => server.wildcards = v == 1,
                Property::SubscriptionIdentifierAvailable(v) => server.subscription_ids = v == 1,
                Property::SharedSubscriptionAvailable(v) => server.shared = v == 1,
                Property::ServerKeepAliveS(v) => server.keep_alive_s = Some(v),
                Property::SessionExpiryIntervalS(v) => server.session_expiry_s = Some(v),
                Property::AssignedClientIdentifier(v) => server.client_id = Some(v.to_owned()),
                _ => {}
            }
        }
        server
    }
}
