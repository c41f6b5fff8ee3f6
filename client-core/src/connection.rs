//! What ends with the network connection: its state, its limits, its timers.

use alloc::collections::BTreeMap;
use alloc::string::String;

use whimbrel_codec::{
    ConnAck, Connect, DecodeError, Properties, Property, Publish, QoS, ReasonCode, Version,
};

use crate::{Limits, Millis};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No network connection.
    Closed,
    /// CONNECT is under way.
    Connecting,
    /// CONNACK has come.
    Connected,
    /// Only what is still to be sent is left.
    Closing,
}

/// What the server allows, as its CONNACK says (section 3.2.2.3).
pub(crate) struct Allowed {
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size_bytes: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) maximum_qos: QoS,
    pub(crate) retain: bool,
}

impl Allowed {
    const DEFAULT: Allowed = Allowed {
        receive_maximum: u16::MAX,
        maximum_packet_size_bytes: u32::MAX,
        topic_alias_maximum: 0,
        maximum_qos: QoS::ExactlyOnce,
        retain: true,
    };
}

pub(crate) struct Connection {
    pub(crate) state: State,
    pub(crate) version: Version,
    pub(crate) clean_start: bool,
    pub(crate) allowed: Allowed,
    /// What this client announced.
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size_bytes: u32,
    topic_alias_maximum: u16,
    /// QoS 2 messages of this connection that the server has not released.
    pub(crate) unreleased: u16,
    aliases: BTreeMap<u16, String>,
    keep_alive_ms: u64,
    connect_deadline: Millis,
    last_sent: Millis,
    last_received: Millis,
    ping_sent: Option<Millis>,
}

/// What the passing of time asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    ConnectTimeout,
    KeepAliveTimeout,
}

impl Connection {
    pub(crate) const fn closed() -> Connection {
        Connection {
            state: State::Closed,
            version: Version::V5,
            clean_start: true,
            allowed: Allowed::DEFAULT,
            receive_maximum: u16::MAX,
            maximum_packet_size_bytes: 0,
            topic_alias_maximum: 0,
            unreleased: 0,
            aliases: BTreeMap::new(),
            keep_alive_ms: 0,
            connect_deadline: Millis(0),
            last_sent: Millis(0),
            last_received: Millis(0),
            ping_sent: None,
        }
    }

    pub(crate) fn connecting(now: Millis, connect: &Connect<'_>, limits: &Limits) -> Connection {
        let mut connection = Connection {
            state: State::Connecting,
            version: connect.version,
            clean_start: connect.clean_start,
            maximum_packet_size_bytes: limits.max_packet_size_bytes,
            keep_alive_ms: u64::from(connect.keep_alive_s) * 1000,
            connect_deadline: now.plus(limits.connect_timeout_ms),
            last_sent: now,
            last_received: now,
            ..Connection::closed()
        };
        let announced = if connect.version.is_v5() { connect.properties } else { Properties::NONE };
        for property in announced {
            match property {
                Property::ReceiveMaximum(max) => connection.receive_maximum = max,
                Property::TopicAliasMaximum(max) => connection.topic_alias_maximum = max,
                Property::MaximumPacketSizeBytes(max) => {
                    connection.maximum_packet_size_bytes = max.min(limits.max_packet_size_bytes);
                }
                _ => {}
            }
        }
        connection
    }

    pub(crate) fn handle_connack(&mut self, ack: &ConnAck<'_>) {
        self.state = State::Connected;
        for property in ack.properties {
            match property {
                Property::ReceiveMaximum(max) => self.allowed.receive_maximum = max,
                Property::MaximumPacketSizeBytes(max) => {
                    self.allowed.maximum_packet_size_bytes = max;
                }
                Property::TopicAliasMaximum(max) => self.allowed.topic_alias_maximum = max,
                Property::MaximumQos(0) => self.allowed.maximum_qos = QoS::AtMostOnce,
                Property::MaximumQos(_) => self.allowed.maximum_qos = QoS::AtLeastOnce,
                Property::RetainAvailable(available) => self.allowed.retain = available == 1,
                // [MQTT-3.2.2-21]
                Property::ServerKeepAliveS(s) => self.keep_alive_ms = u64::from(s) * 1000,
                _ => {}
            }
        }
    }

    pub(crate) fn handle_sent(&mut self, now: Millis) {
        self.last_sent = now;
    }

    /// Whatever comes shows that the server lives, so it serves as the answer to a ping.
    pub(crate) fn handle_received(&mut self, now: Millis) {
        self.last_received = now;
        self.ping_sent = None;
    }

    /// When time is to be told of next.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        match self.state {
            State::Connecting => Some(self.connect_deadline),
            State::Connected if self.keep_alive_ms > 0 => {
                // Silence of the server counts too: a client that only sends QoS 0 learns in no
                // other way that nobody listens.
                let since = self.ping_sent.unwrap_or(self.last_sent.min(self.last_received));
                Some(since.plus(self.keep_alive_ms))
            }
            _ => None,
        }
    }

    /// [MQTT-3.1.2-20]
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> Due {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Due::Nothing;
        }
        if self.state == State::Connecting {
            return Due::ConnectTimeout;
        }
        if self.ping_sent.is_some() {
            return Due::KeepAliveTimeout;
        }
        self.ping_sent = Some(now);
        Due::Ping
    }

    /// Learns the alias of a PUBLISH, or checks that it is known (section 3.3.2.3.4).
    pub(crate) fn learn_alias(&mut self, publish: &Publish<'_>) -> Result<(), DecodeError> {
        const INVALID: DecodeError = DecodeError {
            reason: ReasonCode::TopicAliasInvalid,
            what: "a topic alias that is too high or unknown",
        };
        let Some(alias) = topic_alias(publish) else { return Ok(()) };
        if alias > self.topic_alias_maximum {
            return Err(INVALID);
        }
        if !publish.topic.is_empty() {
            self.aliases.insert(alias, publish.topic.into());
            return Ok(());
        }
        if self.aliases.contains_key(&alias) { Ok(()) } else { Err(INVALID) }
    }

    /// The topic name of a PUBLISH that [`Connection::learn_alias`] let pass.
    pub(crate) fn topic<'a>(&'a self, publish: &Publish<'a>) -> &'a str {
        if publish.topic.is_empty()
            && let Some(topic) = topic_alias(publish).and_then(|alias| self.aliases.get(&alias))
        {
            return topic;
        }
        publish.topic
    }
}

pub(crate) fn topic_alias(publish: &Publish<'_>) -> Option<u16> {
    publish.properties.iter().find_map(|property| match property {
        Property::TopicAlias(alias) => Some(alias),
        _ => None,
    })
}
