"""Translation between the suite's types and paho-mqtt's, which aiomqtt uses as well."""

import contextlib
import os
import socket

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties
from paho.mqtt.subscribeoptions import SubscribeOptions

from . import V5, Connect, Message, Properties, Subscribe

TRANSPORTS = {
    "tcp": "tcp",
    "tls": "tcp",
    "websocket": "websockets",
    "wss": "websockets",
    "unix": "unix",
}

NAMES = {
    "content_type": "ContentType",
    "response_topic": "ResponseTopic",
    "correlation_data": "CorrelationData",
    "payload_format": "PayloadFormatIndicator",
    "expiry_s": "MessageExpiryInterval",
    "topic_alias": "TopicAlias",
}


def connect_properties(options: Connect) -> PahoProperties | None:
    """Properties of CONNECT."""
    if options.version != V5:
        return None
    wanted = {
        "SessionExpiryInterval": options.session_expiry_s,
        "ReceiveMaximum": options.receive_maximum,
        "MaximumPacketSize": options.maximum_packet_size,
        "TopicAliasMaximum": options.topic_alias_maximum,
    }
    return _filled(PacketTypes.CONNECT, wanted)


def message_properties(message: Message, version: int, will: bool = False):
    """Properties of PUBLISH or of a will message."""
    if version != V5:
        return None
    wanted = {theirs: getattr(message.properties, ours) for ours, theirs in NAMES.items()}
    if will:
        wanted["WillDelayInterval"] = message.will_delay_s
    kind = PacketTypes.WILLMESSAGE if will else PacketTypes.PUBLISH
    properties = _filled(kind, wanted)
    if message.properties.user:
        properties.UserProperty = list(message.properties.user)
    return properties


def subscribe_arguments(subscriptions: tuple[Subscribe, ...], version: int) -> tuple:
    """The (filter, options) list and the properties of SUBSCRIBE."""
    if version != V5:
        return [(each.filter, each.qos) for each in subscriptions], None
    topics = [
        (
            each.filter,
            SubscribeOptions(
                each.qos, each.no_local, each.retain_as_published, each.retain_handling
            ),
        )
        for each in subscriptions
    ]
    return topics, _filled(
        PacketTypes.SUBSCRIBE, {"SubscriptionIdentifier": subscriptions[0].identifier}
    )


def to_message(received: paho.MQTTMessage) -> Message:
    """A received message in the suite's terms."""
    theirs = received.properties

    def get(name: str):
        return getattr(theirs, name, None) if theirs is not None else None

    properties = Properties(
        user=tuple(tuple(pair) for pair in get("UserProperty") or ()),
        identifiers=tuple(get("SubscriptionIdentifier") or ()),
        **{ours: get(name) for ours, name in NAMES.items()},
    )
    return Message(
        str(received.topic),
        bytes(received.payload),
        received.qos,
        bool(received.retain),
        bool(getattr(received, "dup", False)),
        properties,
    )


def cut(client: paho.Client) -> None:
    """Ends a client's TCP connection under its feet, whatever layers lie above."""
    connection = client.socket()
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as raw:
        raw.shutdown(socket.SHUT_RDWR)


def _filled(packet_type: int, wanted: dict) -> PahoProperties:
    properties = PahoProperties(packet_type)
    for name, value in wanted.items():
        if value is not None:
            setattr(properties, name, value)
    return properties
