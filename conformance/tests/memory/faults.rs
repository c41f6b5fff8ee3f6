//! The faults that the tests must notice.

use whimbrel_codec::{
    Ack, Codes, ConnAck, Connect, Disconnect, Filters, Packet, PacketId, Properties, Property,
    Publish, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, Subscription, UnsubAck,
    Unsubscribe, Will,
};

use crate::faulty::Fault;
use crate::faulty::Kind::{self, Down, Leaks, NeverCloses, NoClock, OverlooksMalformed, Up};
use crate::faulty::Wires;

const fn fault(name: &'static str, kind: Kind) -> Fault {
    Fault { name, kind }
}

/// Forwards a CONNECT after `change`.
fn connect(packet: &Packet<'_>, wires: &mut Wires, change: fn(&mut Connect<'_>)) -> bool {
    let Packet::Connect(mut connect) = *packet else { return false };
    change(&mut connect);
    wires.broker(Packet::Connect(connect))
}

/// Forwards a CONNECT with its will after `change`.
fn will(packet: &Packet<'_>, wires: &mut Wires, change: fn(&mut Will<'_>)) -> bool {
    connect_with_will(packet, wires, change).unwrap_or(false)
}

fn connect_with_will(
    packet: &Packet<'_>,
    wires: &mut Wires,
    change: fn(&mut Will<'_>),
) -> Option<bool> {
    let Packet::Connect(connect) = *packet else { return None };
    let mut will = connect.will?;
    change(&mut will);
    Some(wires.broker(Packet::Connect(Connect { will: Some(will), ..connect })))
}

/// Forwards a CONNECT without some of its properties.
fn connect_without(
    packet: &Packet<'_>,
    wires: &mut Wires,
    drop: fn(&Property<'_>) -> bool,
) -> bool {
    let Packet::Connect(connect) = *packet else { return false };
    let kept: Vec<_> = connect.properties.iter().filter(|p| !drop(p)).collect();
    wires.broker(Packet::Connect(Connect { properties: Properties::new(&kept), ..connect }))
}

/// Forwards a PUBLISH to the broker after `change`.
fn publish_up(packet: &Packet<'_>, wires: &mut Wires, change: fn(&mut Publish<'_>)) -> bool {
    let Packet::Publish(mut publish) = *packet else { return false };
    change(&mut publish);
    wires.broker(Packet::Publish(publish))
}

/// Delivers a PUBLISH after `change`.
fn publish_down(packet: &Packet<'_>, wires: &mut Wires, change: fn(&mut Publish<'_>)) -> bool {
    let Packet::Publish(mut publish) = *packet else { return false };
    change(&mut publish);
    wires.client(Packet::Publish(publish))
}

/// Delivers a PUBLISH with other properties.
fn properties_down(
    packet: &Packet<'_>,
    wires: &mut Wires,
    change: fn(&mut Vec<Property<'_>>),
) -> bool {
    let Packet::Publish(publish) = *packet else { return false };
    let mut list = publish.properties.iter().collect();
    change(&mut list);
    wires.client(Packet::Publish(Publish { properties: Properties::new(&list), ..publish }))
}

/// Forwards a SUBSCRIBE after `change` of each subscription.
fn subscribe(packet: &Packet<'_>, wires: &mut Wires, change: fn(&mut Subscription<'_>)) -> bool {
    let Packet::Subscribe(subscribe) = *packet else { return false };
    let mut list: Vec<_> = subscribe.filters.iter().collect();
    list.iter_mut().for_each(change);
    wires.broker(Packet::Subscribe(Subscribe { filters: Filters::new(&list), ..subscribe }))
}

/// Sends a CONNACK after `change`.
fn connack(packet: &Packet<'_>, wires: &mut Wires, change: fn(&mut ConnAck<'_>)) -> bool {
    let Packet::ConnAck(mut connack) = *packet else { return false };
    change(&mut connack);
    wires.client(Packet::ConnAck(connack))
}

/// Sends a CONNACK of success with one property more.
fn connack_with(packet: &Packet<'_>, wires: &mut Wires, property: Property<'_>) -> bool {
    let Packet::ConnAck(connack) = *packet else { return false };
    if !wires.version.is_v5() || connack.reason.is_error() {
        return false;
    }
    let list: Vec<_> = connack.properties.iter().chain([property]).collect();
    wires.client(Packet::ConnAck(ConnAck { properties: Properties::new(&list), ..connack }))
}

/// Sends any acknowledgement after `change`.
fn ack(packet: &Packet<'_>, wires: &mut Wires, change: fn(&mut Ack<'_>)) -> bool {
    if let Packet::PubAck(mut ack)
    | Packet::PubRec(mut ack)
    | Packet::PubRel(mut ack)
    | Packet::PubComp(mut ack) = *packet
    {
        ack.properties = Properties::NONE;
        change(&mut ack);
        return wires.client(match packet {
            Packet::PubAck(_) => Packet::PubAck(ack),
            Packet::PubRec(_) => Packet::PubRec(ack),
            Packet::PubRel(_) => Packet::PubRel(ack),
            _ => Packet::PubComp(ack),
        });
    }
    match packet {
        Packet::SubAck(suback) => {
            let mut ack = Ack::new(suback.packet_id);
            change(&mut ack);
            let SubAck { codes, .. } = *suback;
            let (packet_id, properties) = (ack.packet_id, ack.properties);
            wires.client(Packet::SubAck(SubAck { packet_id, properties, codes }))
        }
        Packet::UnsubAck(unsuback) => {
            let mut ack = Ack::new(unsuback.packet_id);
            change(&mut ack);
            let UnsubAck { codes, .. } = *unsuback;
            let (packet_id, properties) = (ack.packet_id, ack.properties);
            wires.client(Packet::UnsubAck(UnsubAck { packet_id, properties, codes }))
        }
        _ => false,
    }
}

const LONG: &[Property<'static>] =
    &[Property::ReasonString("a reason that takes more than thirty bytes")];

/// All of them; each is noticed by a test at least.
pub const FAULTS: &[Fault] = &[
    fault("never closes a connection", NeverCloses),
    fault("overlooks malformed packets", OverlooksMalformed),
    fault("has no clock", NoClock),
    fault("sends every message to every client", Leaks),
    // CONNECT and CONNACK
    fault(
        "always begins a new session",
        Up(|p, w| connect(p, w, |connect| connect.clean_start = true)),
    ),
    fault(
        "always resumes the session",
        Up(|p, w| connect(p, w, |connect| connect.clean_start = false)),
    ),
    fault("knows no wills", Up(|p, w| connect(p, w, |connect| connect.will = None))),
    fault("sends wills at QoS 0", Up(|p, w| will(p, w, |will| will.qos = QoS::AtMostOnce))),
    fault("never retains wills", Up(|p, w| will(p, w, |will| will.retain = false))),
    fault("always retains wills", Up(|p, w| will(p, w, |will| will.retain = true))),
    fault(
        "forgets the will's properties",
        Up(|p, w| will(p, w, |will| will.properties = Properties::NONE)),
    ),
    fault("confuses payload and topic of wills", Up(|p, w| will(p, w, |will| will.payload = b"?"))),
    fault("has no keep alive", Up(|p, w| connect(p, w, |connect| connect.keep_alive_s = 0))),
    fault("expects a packet each second", Up(|p, w| connect(p, w, |c| c.keep_alive_s = 1))),
    fault(
        "knows one client identifier only",
        Up(|p, w| connect(p, w, |connect| connect.client_id = "same")),
    ),
    fault(
        "gives all clients without identifier the same",
        Up(|p, w| match p {
            Packet::Connect(Connect { client_id: "", .. }) => {
                connect(p, w, |connect| connect.client_id = "same")
            }
            _ => false,
        }),
    ),
    fault(
        "assigns identifiers to all",
        Down(|p, w| connack_with(p, w, Property::AssignedClientIdentifier("you"))),
    ),
    fault(
        "refuses long client identifiers",
        Up(|p, _| matches!(p, Packet::Connect(Connect { client_id, .. }) if client_id.len() > 20)),
    ),
    fault(
        "refuses passwords without user name",
        Up(|p, _| matches!(p, Packet::Connect(Connect { password: Some(_), user_name: None, .. }))),
    ),
    fault(
        "refuses passwords and user names",
        Up(|p, _| matches!(p, Packet::Connect(Connect { user_name: Some(_), .. }))),
    ),
    fault(
        "ignores session expiry",
        Up(|p, w| connect_without(p, w, |p| matches!(p, Property::SessionExpiryIntervalS(_)))),
    ),
    fault(
        "ignores receive maximum",
        Up(|p, w| connect_without(p, w, |p| matches!(p, Property::ReceiveMaximum(_)))),
    ),
    fault(
        "ignores maximum packet size",
        Up(|p, w| connect_without(p, w, |p| matches!(p, Property::MaximumPacketSizeBytes(_)))),
    ),
    fault(
        "ignores topic alias maximum",
        Up(|p, w| connect_without(p, w, |p| matches!(p, Property::TopicAliasMaximum(_)))),
    ),
    fault(
        "ignores authentication methods",
        Up(|p, w| connect_without(p, w, |p| matches!(p, Property::AuthenticationMethod(_)))),
    ),
    fault(
        "ignores request problem information",
        Up(|p, w| connect_without(p, w, |p| matches!(p, Property::RequestProblemInformation(_)))),
    ),
    fault(
        "tells an authentication method nobody asked for",
        Down(|p, w| connack_with(p, w, Property::AuthenticationMethod("mine"))),
    ),
    fault(
        "tells response information nobody asked for",
        Down(|p, w| connack_with(p, w, Property::ResponseInformation("here"))),
    ),
    fault("says that there is a session", Down(|p, w| connack(p, w, |c| c.session_present = true))),
    fault("says that there is none", Down(|p, w| connack(p, w, |c| c.session_present = false))),
    fault(
        "accepts what it refuses",
        Down(|p, w| connack(p, w, |connack| connack.reason = ReasonCode::Success)),
    ),
    fault(
        "refuses without a CONNACK",
        Down(|p, _| matches!(p, Packet::ConnAck(c) if c.reason.is_error())),
    ),
    fault(
        "answers a CONNECT twice",
        Down(|p, w| match p {
            Packet::Disconnect(_) => {
                let connack = ConnAck {
                    session_present: false,
                    reason: ReasonCode::Success,
                    properties: Properties::NONE,
                };
                w.client(Packet::ConnAck(connack)) && w.client(*p)
            }
            _ => false,
        }),
    ),
    // PUBLISH from clients
    fault("never retains", Up(|p, w| publish_up(p, w, |publish| publish.retain = false))),
    fault("always retains", Up(|p, w| publish_up(p, w, |publish| publish.retain = true))),
    fault(
        "retains empty messages",
        Up(|p, w| {
            publish_up(p, w, |publish| {
                if publish.payload.is_empty() {
                    publish.payload = b"empty";
                }
            })
        }),
    ),
    fault(
        "does not tell upper from lower case",
        Up(|p, w| match p {
            Packet::Publish(publish) => {
                let topic = publish.topic.to_lowercase();
                w.broker(Packet::Publish(Publish { topic: &topic, ..*publish }))
            }
            _ => false,
        }),
    ),
    fault(
        "drops byte order marks",
        Up(|p, w| match p {
            Packet::Publish(publish) => {
                let topic = publish.topic.replace('\u{feff}', "");
                w.broker(Packet::Publish(Publish { topic: &topic, ..*publish }))
            }
            _ => false,
        }),
    ),
    fault(
        "delivers repeated QoS 2 messages again",
        Up(|p, w| match p {
            Packet::Publish(publish) if publish.dup && publish.qos == QoS::ExactlyOnce => {
                let qos = QoS::AtMostOnce;
                let again = Publish { dup: false, qos, packet_id: None, ..*publish };
                w.broker(Packet::Publish(again)) && w.broker(*p)
            }
            _ => false,
        }),
    ),
    fault(
        "takes DUP of QoS 1 for a duplicate",
        Up(|p, w| match p {
            Packet::Publish(Publish {
                dup: true,
                qos: QoS::AtLeastOnce,
                packet_id: Some(id),
                ..
            }) => w.client(Packet::PubAck(Ack::new(*id))),
            _ => false,
        }),
    ),
    fault(
        "forgets message expiry",
        Up(|p, w| match p {
            Packet::Publish(publish) => {
                let is_expiry = |p: &Property<'_>| matches!(p, Property::MessageExpiryIntervalS(_));
                let kept: Vec<_> = publish.properties.iter().filter(|p| !is_expiry(p)).collect();
                w.broker(Packet::Publish(Publish {
                    properties: Properties::new(&kept),
                    ..*publish
                }))
            }
            _ => false,
        }),
    ),
    // PUBLISH to clients
    fault("delivers nothing", Down(|p, _| matches!(p, Packet::Publish(_)))),
    fault(
        "delivers everything twice",
        Down(|p, w| match p {
            Packet::Publish(publish) if publish.qos == QoS::AtMostOnce => {
                w.client(*p) && w.client(*p)
            }
            Packet::Publish(publish) => {
                let copy =
                    Publish { dup: false, qos: QoS::AtMostOnce, packet_id: None, ..*publish };
                w.client(*p) && w.client(Packet::Publish(copy))
            }
            _ => false,
        }),
    ),
    fault("always sets DUP", Down(|p, w| publish_down(p, w, |p| p.dup = p.qos != QoS::AtMostOnce))),
    fault("never sets DUP", Down(|p, w| publish_down(p, w, |publish| publish.dup = false))),
    fault("always sets RETAIN", Down(|p, w| publish_down(p, w, |publish| publish.retain = true))),
    fault("never sets RETAIN", Down(|p, w| publish_down(p, w, |publish| publish.retain = false))),
    fault(
        "delivers at QoS 0 only",
        Down(|p, w| {
            publish_down(p, w, |p| {
                (p.qos, p.dup, p.packet_id) = (QoS::AtMostOnce, false, None);
            })
        }),
    ),
    fault(
        "has one packet identifier",
        Down(|p, w| {
            publish_down(p, w, |publish| {
                publish.packet_id = publish.packet_id.map(|_| PacketId::MIN);
            })
        }),
    ),
    fault("delivers another topic", Down(|p, w| publish_down(p, w, |p| p.topic = "other"))),
    fault("delivers another payload", Down(|p, w| publish_down(p, w, |p| p.payload = b"other"))),
    fault("forgets properties", Down(|p, w| properties_down(p, w, |list| list.clear()))),
    fault(
        "turns the order of properties",
        Down(|p, w| properties_down(p, w, |list| list.reverse())),
    ),
    fault(
        "forgets one of several subscription identifiers",
        Down(|p, w| {
            properties_down(p, w, |list| {
                let is_id = |p: &Property<'_>| matches!(p, Property::SubscriptionIdentifier(_));
                if let Some(at) = list.iter().rposition(is_id) {
                    list.remove(at);
                }
            })
        }),
    ),
    fault(
        "sends an alias above the maximum",
        Down(|p, w| {
            w.version.is_v5()
                && properties_down(p, w, |list| {
                    list.retain(|p| !matches!(p, Property::TopicAlias(_)));
                    list.push(Property::TopicAlias(9));
                })
        }),
    ),
    // Acknowledgements
    fault("sends no PUBACK", Down(|p, _| matches!(p, Packet::PubAck(_)))),
    fault("sends no PUBREC", Down(|p, _| matches!(p, Packet::PubRec(_)))),
    fault("sends no PUBREL", Down(|p, _| matches!(p, Packet::PubRel(_)))),
    fault("sends no PUBCOMP", Down(|p, _| matches!(p, Packet::PubComp(_)))),
    fault("sends no PINGRESP", Down(|p, _| matches!(p, Packet::PingResp))),
    fault(
        "acknowledges another packet identifier",
        Down(|p, w| ack(p, w, |ack| ack.packet_id = ack.packet_id.next())),
    ),
    fault(
        "always acknowledges success",
        Down(|p, w| ack(p, w, |a| a.reason = ReasonCode::Success)),
    ),
    fault(
        "adds long reason strings",
        Down(|p, w| ack(p, w, |a| a.properties = Properties::new(LONG))),
    ),
    fault(
        "forgets a PUBREC",
        Up(|p, w| match p {
            Packet::PubRec(ack) => w.client(Packet::PubRel(Ack::new(ack.packet_id))),
            _ => false,
        }),
    ),
    fault("forgets a PUBACK", Up(|p, _| matches!(p, Packet::PubAck(_)))),
    fault("forgets a PUBCOMP", Up(|p, _| matches!(p, Packet::PubComp(_)))),
    // SUBSCRIBE and UNSUBSCRIBE
    fault("ignores no local", Up(|p, w| subscribe(p, w, |s| s.no_local = false))),
    fault(
        "never sends a client its own messages",
        Up(|p, w| subscribe(p, w, |s| s.no_local = !s.filter.starts_with("$share"))),
    ),
    fault(
        "ignores retain as published",
        Up(|p, w| subscribe(p, w, |s| s.retain_as_published = false)),
    ),
    fault(
        "always sends retained messages",
        Up(|p, w| subscribe(p, w, |s| s.retain_handling = RetainHandling::Send)),
    ),
    fault(
        "sends retained messages to new subscriptions only",
        Up(|p, w| subscribe(p, w, |s| s.retain_handling = RetainHandling::SendIfNew)),
    ),
    fault(
        "never sends retained messages",
        Up(|p, w| subscribe(p, w, |s| s.retain_handling = RetainHandling::DoNotSend)),
    ),
    fault(
        "does not share subscriptions",
        Up(|p, w| {
            subscribe(p, w, |s| {
                let mut levels = s.filter.splitn(3, '/');
                if levels.next() == Some("$share") {
                    s.filter = levels.nth(1).unwrap_or("none");
                }
            })
        }),
    ),
    fault(
        "forgets subscription identifiers",
        Up(|p, w| match p {
            Packet::Subscribe(subscribe) => {
                let properties = Properties::NONE;
                w.broker(Packet::Subscribe(Subscribe { properties, ..*subscribe }))
            }
            _ => false,
        }),
    ),
    fault(
        "lets a leading wildcard match $ topics",
        Up(|p, w| match p {
            Packet::Subscribe(subscribe) => {
                if subscribe.filters.iter().any(|s| s.filter == "#") {
                    w.client(Packet::Publish(Publish::new("$hidden", b"x")));
                }
                false
            }
            _ => false,
        }),
    ),
    fault(
        "turns the order of the codes",
        Down(|p, w| match p {
            Packet::SubAck(suback) => {
                let codes: Vec<u8> = suback.codes.bytes().iter().rev().copied().collect();
                w.client(Packet::SubAck(SubAck { codes: Codes::new(&codes), ..*suback }))
            }
            _ => false,
        }),
    ),
    fault("sends no SUBACK", Down(|p, _| matches!(p, Packet::SubAck(_)))),
    fault("sends no UNSUBACK", Down(|p, _| matches!(p, Packet::UnsubAck(_)))),
    fault(
        "says that every subscription existed",
        Down(|p, w| match p {
            Packet::UnsubAck(unsuback) => {
                let codes = vec![0; unsuback.codes.bytes().len()];
                w.client(Packet::UnsubAck(UnsubAck { codes: Codes::new(&codes), ..*unsuback }))
            }
            _ => false,
        }),
    ),
    fault(
        "does not unsubscribe",
        Up(|p, w| match p {
            Packet::Unsubscribe(Unsubscribe { packet_id, filters, .. }) => {
                let len = if w.version.is_v5() { filters.iter().count() } else { 0 };
                let codes = vec![0; len];
                w.client(Packet::UnsubAck(UnsubAck {
                    packet_id: *packet_id,
                    properties: Properties::NONE,
                    codes: Codes::new(&codes),
                }))
            }
            _ => false,
        }),
    ),
    // DISCONNECT
    fault("does not understand DISCONNECT", Up(|p, _| matches!(p, Packet::Disconnect(_)))),
    fault(
        "takes every DISCONNECT for a normal one",
        Up(|p, w| match p {
            Packet::Disconnect(_) => {
                w.broker(Packet::Disconnect(Disconnect::new(ReasonCode::Success)))
            }
            _ => false,
        }),
    ),
    fault("does not say why it closes", Down(|p, _| matches!(p, Packet::Disconnect(_)))),
    fault(
        "says the wrong reason",
        Down(|p, w| match p {
            Packet::Disconnect(_) => {
                w.client(Packet::Disconnect(Disconnect::new(ReasonCode::UnspecifiedError)))
            }
            _ => false,
        }),
    ),
    fault(
        "sends a session expiry interval",
        Down(|p, w| match p {
            Packet::Disconnect(disconnect) => {
                let properties = Properties::new(&[Property::SessionExpiryIntervalS(1)]);
                w.client(Packet::Disconnect(Disconnect { properties, ..*disconnect }))
            }
            _ => false,
        }),
    ),
];
