//! What ends with the network connection: its state, its limits, its timers.

use whimbrel_codec::{ConnAck, Connect, MAX_REMAINING_LENGTH, Properties, Property, QoS, Version};

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
    pub(crate) wildcard_subscriptions: bool,
    pub(crate) subscription_identifiers: bool,
    pub(crate) shared_subscriptions: bool,
}

impl Allowed {
    const DEFAULT: Allowed = Allowed {
        receive_maximum: u16::MAX,
        maximum_packet_size_bytes: u32::MAX,
        topic_alias_maximum: 0,
        maximum_qos: QoS::ExactlyOnce,
        retain: true,
        wildcard_subscriptions: true,
        subscription_identifiers: true,
        shared_subscriptions: true,
    };
}

/// What this client can take in, whatever the application announces.
#[derive(Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) receive_maximum: u16,
    pub(crate) maximum_packet_size_bytes: u32,
    pub(crate) topic_alias_maximum: u16,
}

impl Capacity {
    const UNLIMITED: Capacity = Capacity {
        receive_maximum: u16::MAX,
        maximum_packet_size_bytes: MAX_REMAINING_LENGTH + 5,
        topic_alias_maximum: u16::MAX,
    };

    /// Whether the application must not announce what it asks for.
    pub(crate) fn is_less_than_asked(&self, connect: &Connect<'_>) -> bool {
        let asked = Capacity::UNLIMITED.within(connect);
        self.receive_maximum < asked.receive_maximum
            || self.maximum_packet_size_bytes < asked.maximum_packet_size_bytes
            || self.topic_alias_maximum < asked.topic_alias_maximum
    }

    /// What is announced in the end: what the application asks for, where that is less.
    pub(crate) fn within(self, connect: &Connect<'_>) -> Capacity {
        let mut announced = Capacity { topic_alias_maximum: 0, ..self };
        let properties =
            if connect.version.is_v5() { connect.properties } else { Properties::NONE };
        for property in properties {
            match property {
                Property::ReceiveMaximum(max) => {
                    announced.receive_maximum = max.min(self.receive_maximum);
                }
                Property::TopicAliasMaximum(max) => {
                    announced.topic_alias_maximum = max.min(self.topic_alias_maximum);
                }
                Property::MaximumPacketSizeBytes(max) => {
                    announced.maximum_packet_size_bytes = max.min(self.maximum_packet_size_bytes);
                }
                _ => {}
            }
        }
        announced
    }
}

pub(crate) struct Connection {
    pub(crate) state: State,
    pub(crate) version: Version,
    pub(crate) clean_start: bool,
    pub(crate) allowed: Allowed,
    /// What this client announced.
    pub(crate) announced: Capacity,
    /// Session expiry interval of CONNECT.
    pub(crate) session_expiry_interval_s: u32,
    /// The session ends with the connection, as far as the server has agreed to one.
    pub(crate) session_ends: bool,
    /// QoS 2 messages of this connection that are acknowledged and that the server has not
    /// released.
    pub(crate) unreleased: u16,
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
            announced: Capacity {
                receive_maximum: u16::MAX,
                maximum_packet_size_bytes: 0,
                topic_alias_maximum: 0,
            },
            session_expiry_interval_s: 0,
            session_ends: false,
            unreleased: 0,
            keep_alive_ms: 0,
            connect_deadline: Millis(0),
            last_sent: Millis(0),
            last_received: Millis(0),
            ping_sent: None,
        }
    }

    pub(crate) fn connecting(
        now: Millis,
        connect: &Connect<'_>,
        limits: &Limits,
        announced: Capacity,
    ) -> Connection {
        let expiry = connect.properties.iter().find_map(|property| match property {
            Property::SessionExpiryIntervalS(s) => Some(s),
            _ => None,
        });
        Connection {
            state: State::Connecting,
            version: connect.version,
            clean_start: connect.clean_start,
            announced,
            session_expiry_interval_s: expiry.unwrap_or(0),
            keep_alive_ms: u64::from(connect.keep_alive_s) * 1000,
            connect_deadline: now.plus(limits.connect_timeout_ms),
            last_sent: now,
            last_received: now,
            ..Connection::closed()
        }
    }

    pub(crate) fn handle_connack(&mut self, ack: &ConnAck<'_>) {
        self.state = State::Connected;
        let v5 = self.version.is_v5();
        self.session_ends = if v5 { self.session_expiry_interval_s == 0 } else { self.clean_start };
        for property in ack.properties {
            let allowed = &mut self.allowed;
            match property {
                Property::ReceiveMaximum(max) => allowed.receive_maximum = max,
                Property::MaximumPacketSizeBytes(max) => allowed.maximum_packet_size_bytes = max,
                Property::TopicAliasMaximum(max) => allowed.topic_alias_maximum = max,
                Property::MaximumQos(0) => allowed.maximum_qos = QoS::AtMostOnce,
                Property::MaximumQos(_) => allowed.maximum_qos = QoS::AtLeastOnce,
                Property::RetainAvailable(available) => allowed.retain = available == 1,
                Property::WildcardSubscriptionAvailable(available) => {
                    allowed.wildcard_subscriptions = available == 1;
                }
                Property::SubscriptionIdentifierAvailable(available) => {
                    allowed.subscription_identifiers = available == 1;
                }
                Property::SharedSubscriptionAvailable(available) => {
                    allowed.shared_subscriptions = available == 1;
                }
                Property::SessionExpiryIntervalS(s) => self.session_ends = s == 0,
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
    #[inline]
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
}
