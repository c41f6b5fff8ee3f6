//! Strategies for packets with any contents that the standard allows.
//!
//! Packets borrow, strategies own: what a packet points to is leaked, a few bytes for each case.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use whimbrel_codec::*;

fn leak<T: ?Sized>(value: impl Into<Box<T>>) -> &'static T {
    Box::leak(value.into())
}

fn text_of(chars: BoxedStrategy<char>, min: usize) -> BoxedStrategy<&'static str> {
    vec(chars, min..12).prop_map(|chars| leak::<str>(chars.into_iter().collect::<String>())).boxed()
}

/// Any string without U+0000, empty ones and ones with a byte order mark included.
fn text() -> BoxedStrategy<&'static str> {
    let plain = prop::char::range('\u{1}', '\u{7f}');
    let chars = prop_oneof![6 => plain, 2 => any::<char>(), 1 => Just('\u{feff}')];
    text_of(chars.prop_filter("U+0000", |c| *c != '\0').boxed(), 0)
}

fn topic() -> BoxedStrategy<&'static str> {
    let chars = prop_oneof![4 => prop::char::range('a', 'z'), 2 => Just('/'), 1 => any::<char>()];
    text_of(chars.prop_filter("wildcard", |c| !['\0', '+', '#'].contains(c)).boxed(), 1)
}

fn bytes() -> BoxedStrategy<&'static [u8]> {
    // The longest lies beyond the one-byte and two-byte forms of a remaining length.
    prop_oneof![
        20 => vec(any::<u8>(), 0..40),
        2 => vec(any::<u8>(), 100..400),
        1 => vec(any::<u8>(), 16_000..17_000),
    ]
    .prop_map(leak::<[u8]>)
    .boxed()
}

fn password() -> BoxedStrategy<&'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(leak::<[u8]>).boxed()
}

fn bit() -> BoxedStrategy<u8> {
    (0..=1u8).boxed()
}

/// Identifiers of table 2-4 and the values that sections 3.1 to 3.15 allow.
fn property(id: u8) -> BoxedStrategy<Property<'static>> {
    use Property::*;
    match id {
        1 => bit().prop_map(PayloadFormatIndicator).boxed(),
        2 => any::<u32>().prop_map(MessageExpiryIntervalS).boxed(),
        3 => text().prop_map(ContentType).boxed(),
        8 => topic().prop_map(ResponseTopic).boxed(),
        9 => password().prop_map(CorrelationData).boxed(),
        11 => prop_oneof![1..300u32, 1..=268_435_455u32].prop_map(SubscriptionIdentifier).boxed(),
        17 => any::<u32>().prop_map(SessionExpiryIntervalS).boxed(),
        18 => text().prop_map(AssignedClientIdentifier).boxed(),
        19 => any::<u16>().prop_map(ServerKeepAliveS).boxed(),
        21 => text().prop_map(AuthenticationMethod).boxed(),
        22 => password().prop_map(AuthenticationData).boxed(),
        23 => bit().prop_map(RequestProblemInformation).boxed(),
        24 => any::<u32>().prop_map(WillDelayIntervalS).boxed(),
        25 => bit().prop_map(RequestResponseInformation).boxed(),
        26 => text().prop_map(ResponseInformation).boxed(),
        28 => text().prop_map(ServerReference).boxed(),
        31 => text().prop_map(ReasonString).boxed(),
        33 => (1..=u16::MAX).prop_map(ReceiveMaximum).boxed(),
        34 => any::<u16>().prop_map(TopicAliasMaximum).boxed(),
        35 => (1..=u16::MAX).prop_map(TopicAlias).boxed(),
        36 => bit().prop_map(MaximumQos).boxed(),
        37 => bit().prop_map(RetainAvailable).boxed(),
        38 => (text(), text()).prop_map(|(name, value)| UserProperty(name, value)).boxed(),
        39 => (1..=u32::MAX).prop_map(MaximumPacketSizeBytes).boxed(),
        40 => bit().prop_map(WildcardSubscriptionAvailable).boxed(),
        41 => bit().prop_map(SubscriptionIdentifierAvailable).boxed(),
        42 => bit().prop_map(SharedSubscriptionAvailable).boxed(),
        _ => unreachable!("no property {id}"),
    }
}

/// Some of `ids` once, all of `always` once, those of `repeated` up to three times more: in any
/// order.
fn properties(
    version: Version,
    ids: &'static [u8],
    always: &'static [u8],
    repeated: &'static [u8],
) -> BoxedStrategy<Properties<'static>> {
    if !version.is_v5() {
        return Just(Properties::NONE).boxed();
    }
    (subsequence(ids, 0..=ids.len()), vec(select(repeated), 0..=3))
        .prop_map(move |(mut chosen, again)| {
            // Authentication data needs a method.
            if !always.contains(&21) && !chosen.contains(&21) {
                chosen.retain(|id| *id != 22);
            }
            [&chosen[..], always, &again].concat()
        })
        .prop_shuffle()
        .prop_flat_map(|ids| ids.into_iter().map(property).collect::<Vec<_>>())
        .prop_map(|list| Properties::new(leak::<[_]>(list)))
        .boxed()
}

const USER: &[u8] = &[38];

fn packet_id() -> BoxedStrategy<PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).expect("not 0")).boxed()
}

fn qos() -> BoxedStrategy<QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..]).boxed()
}

/// The codes that `packet_type` has in tables 3-1 and 3-4 to 3-11, or 0 before 5.0.
fn reason(version: Version, codes: &'static [u8]) -> BoxedStrategy<ReasonCode> {
    let codes = if version.is_v5() { codes } else { &codes[..1] };
    select(codes).prop_map(|code| ReasonCode::from_u8(code).expect("a code")).boxed()
}

pub const CONNACK: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97,
    0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
];
pub const PUBLISHED: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
pub const RELEASED: &[u8] = &[0x00, 0x92];
pub const SUBACK: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
pub const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
/// Table 2-6 gives 0x8C to DISCONNECT, table 3-10 does not.
pub const DISCONNECT: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94,
    0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];
pub const AUTH: &[u8] = &[0x00, 0x18, 0x19];

fn will(version: Version) -> BoxedStrategy<Will<'static>> {
    let properties = properties(version, &[1, 2, 3, 8, 9, 24], &[], USER);
    (topic(), password(), qos(), any::<bool>(), properties)
        .prop_map(|(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        })
        .boxed()
}

fn connect(version: Version) -> BoxedStrategy<Packet<'static>> {
    let properties = properties(version, &[17, 21, 22, 23, 25, 33, 34, 39], &[], USER);
    let credentials = (option::of(text()), option::of(password()));
    let rest = (option::of(will(version)), credentials);
    (any::<bool>(), any::<u16>(), properties, text(), rest)
        .prop_map(move |(clean_start, keep_alive_s, properties, client_id, (will, credentials))| {
            let (user_name, password) = credentials;
            // [MQTT-3.1.2-22] of 3.1.1
            let password = password.filter(|_| version.is_v5() || user_name.is_some());
            Packet::Connect(Connect {
                version,
                clean_start,
                keep_alive_s,
                properties,
                client_id,
                will,
                user_name,
                password,
            })
        })
        .boxed()
}

fn connack(version: Version) -> BoxedStrategy<Packet<'static>> {
    let ids = &[17, 18, 19, 21, 22, 26, 28, 31, 33, 34, 36, 37, 39, 40, 41, 42];
    let reason = if version.is_v5() {
        reason(version, CONNACK)
    } else {
        // The five return codes before 5.0.
        reason(Version::V5, &[0x00, 0x84, 0x85, 0x88, 0x86, 0x87])
    };
    (any::<bool>(), reason, properties(version, ids, &[], USER))
        .prop_map(move |(present, reason, properties)| {
            let session_present = present && !reason.is_error() && version != Version::V3_1;
            Packet::ConnAck(ConnAck { session_present, reason, properties })
        })
        .boxed()
}

fn publish(version: Version) -> BoxedStrategy<Packet<'static>> {
    let properties = properties(version, &[1, 2, 3, 8, 9, 35], &[], &[11, 38]);
    let flags = (any::<bool>(), any::<bool>(), qos(), any::<bool>());
    (flags, packet_id(), topic(), properties, bytes())
        .prop_map(move |((dup, retain, qos, no_topic), id, topic, properties, payload)| {
            let acknowledged = qos != QoS::AtMostOnce;
            let alias = properties.iter().any(|p| matches!(p, Property::TopicAlias(_)));
            Packet::Publish(Publish {
                dup: dup && acknowledged,
                qos,
                retain,
                topic: if no_topic && alias { "" } else { topic },
                packet_id: acknowledged.then_some(id),
                properties,
                payload,
            })
        })
        .boxed()
}

fn ack(version: Version, codes: &'static [u8]) -> BoxedStrategy<Ack<'static>> {
    (packet_id(), reason(version, codes), properties(version, &[31], &[], USER))
        .prop_map(|(packet_id, reason, properties)| Ack { packet_id, reason, properties })
        .boxed()
}

fn subscription(version: Version) -> BoxedStrategy<Subscription<'static>> {
    use RetainHandling::*;
    let handling = select(&[Send, SendIfNew, DoNotSend][..]);
    (text(), qos(), any::<bool>(), any::<bool>(), handling)
        .prop_map(move |(filter, qos, no_local, retain_as_published, retain_handling)| {
            if !version.is_v5() {
                return Subscription::new(filter, qos);
            }
            let no_local = no_local && !filter.starts_with("$share/");
            Subscription { filter, qos, no_local, retain_as_published, retain_handling }
        })
        .boxed()
}

fn subscribe(version: Version) -> BoxedStrategy<Packet<'static>> {
    (packet_id(), properties(version, &[11], &[], USER), vec(subscription(version), 1..6))
        .prop_map(|(packet_id, properties, list)| {
            let filters = Filters::new(leak::<[_]>(list));
            Packet::Subscribe(Subscribe { packet_id, properties, filters })
        })
        .boxed()
}

fn unsubscribe(version: Version) -> BoxedStrategy<Packet<'static>> {
    (packet_id(), properties(version, &[], &[], USER), vec(text(), 1..6))
        .prop_map(|(packet_id, properties, list)| {
            let filters = Topics::new(leak::<[_]>(list));
            Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters })
        })
        .boxed()
}

fn suback(version: Version) -> BoxedStrategy<Packet<'static>> {
    let codes: &[u8] = if version.is_v5() { SUBACK } else { &[0, 1, 2, 0x80] };
    (packet_id(), properties(version, &[31], &[], USER), vec(select(codes), 1..6))
        .prop_map(|(packet_id, properties, codes)| {
            let codes = Codes::new(leak::<[u8]>(codes));
            Packet::SubAck(SubAck { packet_id, properties, codes })
        })
        .boxed()
}

fn unsuback(version: Version) -> BoxedStrategy<Packet<'static>> {
    let count = if version.is_v5() { 1..6 } else { 0..1 };
    (packet_id(), properties(version, &[31], &[], USER), vec(select(UNSUBACK), count))
        .prop_map(|(packet_id, properties, codes)| {
            let codes = Codes::new(leak::<[u8]>(codes));
            Packet::UnsubAck(UnsubAck { packet_id, properties, codes })
        })
        .boxed()
}

fn disconnect(version: Version) -> BoxedStrategy<Packet<'static>> {
    (reason(version, DISCONNECT), properties(version, &[17, 28, 31], &[], USER))
        .prop_map(|(reason, properties)| Packet::Disconnect(Disconnect { reason, properties }))
        .boxed()
}

fn auth() -> BoxedStrategy<Packet<'static>> {
    let full = (reason(Version::V5, AUTH), properties(Version::V5, &[22, 31], &[21], USER));
    let bare = Just((ReasonCode::Success, Properties::NONE));
    prop_oneof![4 => full, 1 => bare]
        .prop_map(|(reason, properties)| Packet::Auth(Auth { reason, properties }))
        .boxed()
}

/// Every packet that `version` has.
pub fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    let mut kinds = vec![
        connect(version),
        connack(version),
        publish(version),
        ack(version, PUBLISHED).prop_map(Packet::PubAck).boxed(),
        ack(version, PUBLISHED).prop_map(Packet::PubRec).boxed(),
        ack(version, RELEASED).prop_map(Packet::PubRel).boxed(),
        ack(version, RELEASED).prop_map(Packet::PubComp).boxed(),
        subscribe(version),
        suback(version),
        unsubscribe(version),
        unsuback(version),
        disconnect(version),
        select(&[Packet::PingReq, Packet::PingResp][..]).boxed(),
    ];
    if version.is_v5() {
        kinds.push(auth());
    }
    proptest::strategy::Union::new(kinds).boxed()
}

/// Every packet of every version.
pub fn versioned() -> BoxedStrategy<(Version, Packet<'static>)> {
    select(&super::VERSIONS[..])
        .prop_flat_map(|version| packet(version).prop_map(move |packet| (version, packet)))
        .boxed()
}
