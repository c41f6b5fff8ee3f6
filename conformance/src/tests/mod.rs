//! The tests, by section of the standard.

mod connect;
mod connect_format;
mod disconnect;
mod flow_control;
mod malformed;
mod properties;
mod publish;
mod qos;
mod redelivery;
mod retain;
mod session;
mod shared;
mod subscribe;
mod subscribe_options;
mod topic_alias;
mod topics;
mod unsubscribe;
mod versions;
mod websocket;
mod will;

use crate::test::Test;

/// What the tests are written with.
mod prelude {
    pub use whimbrel_codec::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
    pub use whimbrel_codec::ReasonCode::*;
    pub use whimbrel_codec::{
        Ack, Auth, Connect, Disconnect, Filters, Packet, PacketId, PacketType, Properties,
        Property, Publish, RetainHandling, Subscribe, Subscription, Version, Will,
    };

    pub use crate::bench::Bench;
    pub use crate::outcome::{Outcome, check, equal, need, one_of};
    pub use crate::packets::Message;
    pub use crate::peer::Client;
    pub use crate::raw;
    pub use crate::test::{Test, all, both, v3, v5};

    /// A packet identifier for a packet that the script numbers itself.
    pub fn packet_id(id: u16) -> PacketId {
        PacketId::new(id).unwrap_or(PacketId::MIN)
    }
}

/// Every test.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [
        connect::TESTS,
        connect_format::TESTS,
        session::TESTS,
        will::TESTS,
        publish::TESTS,
        properties::TESTS,
        topic_alias::TESTS,
        retain::TESTS,
        qos::TESTS,
        redelivery::TESTS,
        flow_control::TESTS,
        subscribe::TESTS,
        subscribe_options::TESTS,
        shared::TESTS,
        unsubscribe::TESTS,
        topics::TESTS,
        disconnect::TESTS,
        malformed::TESTS,
        versions::TESTS,
        websocket::TESTS,
    ]
    .into_iter()
    .flatten()
}
