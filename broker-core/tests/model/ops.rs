//! What clients may do.

use proptest::prelude::*;
use whimbrel_codec::{
    Ack, Filters, Packet, PacketId, Publish, QoS, RetainHandling, Subscribe, Subscription, Version,
};

pub const CLIENTS: usize = 4;
pub const NAMES: [&str; CLIENTS] = ["anna", "bert", "cleo", "dora"];
/// Those under `s/` are for shared subscriptions alone.
pub const TOPICS: [&str; 7] = ["t/a", "t/b", "t/a/c", "u", "t", "s/g/x", "s/h/y"];
pub const WILL_TOPICS: [&str; CLIENTS] = ["t/w0", "t/w1", "t/w2", "t/w3"];
pub const FILTERS: [&str; 10] =
    ["t/a", "t/b", "t/+", "t/#", "t/+/c", "u", "+", "+/a", "$share/g/s/g/#", "$share/h/s/h/y"];

#[derive(Clone, Debug)]
pub enum Op {
    Connect(ConnectOp),
    Subscribe {
        c: usize,
        filter: usize,
        options: Options,
    },
    Unsubscribe {
        c: usize,
        filter: usize,
    },
    Publish(PublishOp),
    /// The oldest QoS 2 PUBLISH that is not released comes again.
    PublishAgain {
        c: usize,
    },
    /// PUBREL for all.
    Release {
        c: usize,
    },
    /// Answers up to `most` of the packets that wait for one.
    Answer {
        c: usize,
        most: usize,
    },
    /// The socket takes nothing any more, or goes on.
    Stall {
        c: usize,
        stalled: bool,
    },
    End {
        c: usize,
        how: How,
    },
    Advance {
        s: u64,
    },
}

#[derive(Clone, Debug)]
pub struct ConnectOp {
    pub c: usize,
    pub version: Version,
    pub clean_start: bool,
    pub expiry_s: u32,
    /// 0: none.
    pub receive_maximum: u16,
    /// A maximum packet size of [`SMALL`].
    pub small: bool,
    pub topic_alias_maximum: u16,
    pub will: Option<WillOp>,
    /// The shard that the socket comes to first.
    pub shard: u16,
}

/// Fits all but the long payloads.
pub const SMALL: u32 = 120;

#[derive(Clone, Debug)]
pub struct WillOp {
    pub delay_s: u32,
    pub qos: QoS,
    pub retain: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
    /// Whether it has a subscription identifier: its filter's number and 1.
    pub id: bool,
}

#[derive(Clone, Debug)]
pub struct PublishOp {
    pub c: usize,
    pub topic: usize,
    pub qos: QoS,
    pub retain: bool,
    pub expiry_s: Option<u32>,
    /// Length of the payload beside its number; none: an empty payload, which removes what is
    /// retained.
    pub padding: Option<usize>,
    pub alias: bool,
    /// QoS 2: PUBREL comes at once.
    pub release: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum How {
    Disconnect,
    /// DISCONNECT that changes the session expiry, where it may.
    DisconnectWithExpiry(u32),
    /// DISCONNECT with 0x04 in 5.0, a lost connection before.
    DisconnectWithWill,
    Cut,
}

fn client() -> std::ops::Range<usize> {
    0..CLIENTS
}

fn qos() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(vec![Version::V5, Version::V5, Version::V3_1_1, Version::V3_1])
}

fn connect() -> impl Strategy<Value = Op> {
    let will = (prop::sample::select(vec![0u32, 2, 6]), qos(), any::<bool>())
        .prop_map(|(delay_s, qos, retain)| WillOp { delay_s, qos, retain });
    let session =
        (version(), prop::bool::weighted(0.3), prop::sample::select(vec![0, 3, 100, u32::MAX]));
    let limits = (prop::sample::select(vec![0u16, 1, 2, 5]), prop::bool::weighted(0.2), 0u16..3);
    (client(), session, limits, prop::option::of(will), 0u16..3).prop_map(
        |(c, (version, clean_start, expiry_s), (receive_maximum, small, aliases), will, shard)| {
            Op::Connect(ConnectOp {
                c,
                version,
                clean_start,
                expiry_s,
                receive_maximum,
                small,
                topic_alias_maximum: aliases,
                will,
                shard,
            })
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    let handling = vec![RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (qos(), flags, prop::sample::select(handling)).prop_map(
        |(qos, (no_local, retain_as_published, id), retain_handling)| Options {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
            id,
        },
    )
}

fn publish() -> impl Strategy<Value = Op> {
    let padding = prop_oneof![
        6 => Just(Some(0usize)),
        1 => Just(Some(300)),
        1 => Just(Some(20_000)),
        1 => Just(None),
    ];
    let expiry = prop::option::weighted(0.2, 1u32..6);
    (client(), 0..TOPICS.len(), qos(), any::<(bool, bool, bool)>(), expiry, padding).prop_map(
        |(c, topic, qos, (retain, alias, release), expiry_s, padding)| {
            Op::Publish(PublishOp {
                c,
                topic,
                qos,
                retain: retain || padding.is_none(),
                expiry_s,
                padding,
                alias,
                release,
            })
        },
    )
}

pub fn op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        Just(How::Disconnect),
        prop::sample::select(vec![0u32, 2, 100]).prop_map(How::DisconnectWithExpiry),
        Just(How::DisconnectWithWill),
        Just(How::Cut),
        Just(How::Cut),
    ];
    prop_oneof![
        6 => connect(),
        8 => (client(), 0..FILTERS.len(), options())
            .prop_map(|(c, filter, options)| Op::Subscribe { c, filter, options }),
        1 => (client(), 0..FILTERS.len()).prop_map(|(c, filter)| Op::Unsubscribe { c, filter }),
        16 => publish(),
        1 => client().prop_map(|c| Op::PublishAgain { c }),
        1 => client().prop_map(|c| Op::Release { c }),
        6 => (client(), 1usize..6).prop_map(|(c, most)| Op::Answer { c, most }),
        2 => (client(), any::<bool>()).prop_map(|(c, stalled)| Op::Stall { c, stalled }),
        4 => (client(), how).prop_map(|(c, how)| Op::End { c, how }),
        2 => (1u64..8).prop_map(|s| Op::Advance { s }),
    ]
}

/// A packet as it is on the wire, now and then one with a flipped byte.
pub fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let packet = (0usize..9, 0usize..TOPICS.len(), qos(), 1u16..5, 0usize..200);
    (packet, prop::option::weighted(0.05, (any::<u16>(), any::<u8>()))).prop_map(
        |((kind, topic, qos, id, len), flip)| {
            let packet_id = PacketId::new(id).expect("not 0");
            let payload = vec![b'x'; len * len];
            let filters = [Subscription::new(FILTERS[topic], qos)];
            let ack = Ack::new(packet_id);
            let packet = match kind {
                0 => Packet::PingReq,
                1 => Packet::PubAck(ack),
                2 => Packet::PubRec(ack),
                3 => Packet::PubRel(ack),
                4 => Packet::Subscribe(Subscribe {
                    packet_id,
                    properties: Default::default(),
                    filters: Filters::new(&filters),
                }),
                _ => Packet::Publish(Publish {
                    qos,
                    retain: id == 1,
                    packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
                    ..Publish::new(TOPICS[topic], &payload)
                }),
            };
            // The packets of both versions differ, so one of them is now and then malformed.
            let version = if len % 7 == 0 { Version::V5 } else { Version::V3_1_1 };
            let mut bytes = Vec::new();
            packet.encode(version, &mut bytes).expect("a small packet");
            if let Some((at, bit)) = flip {
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= 1 << (bit % 8);
            }
            bytes
        },
    )
}
