"""What brokers do not do: patterns of `VERSION SCHEME: SCENARIO`, each with the reason.

Such a scenario is run all the same. If it passes, the entry has to go, unless its reason begins
with `sometimes `: then it depends on how busy the machine is.
"""

_NO_SHARES = "has no shared subscriptions"
_LATE = "sometimes delivers by a subscription that was made after the acknowledgement"
_UPGRADES = "delivers with the QoS of the publisher, whatever was granted"
_NO_DUP = "sends again without DUP"
_RECEIVE_MAXIMUM = "sends more than the client's receive maximum"

# Of 2.0.11.
_MOSQUITTO = {
    "5.0 .*: the client's receive maximum": _RECEIVE_MAXIMUM,
    "5.0 .*: a slow consumer": f"sometimes {_RECEIVE_MAXIMUM}, and the consumer leaves",
}

FAULTS: dict[str, dict[str, str]] = {
    "mosquitto": _MOSQUITTO,
    "mosquitto-with-limits": _MOSQUITTO,
    "aedes": {
        "shared subscriptions": _NO_SHARES,
        "what is not acknowledged comes again": _NO_DUP,
        "retained messages": _LATE,
        "a clean session is forgotten": _LATE,
        "a kept session": "sometimes repeats, reorders and loses what it has queued",
        "publishes go on at QoS 2": "sometimes says that a session is new that it has",
        "messages come": "sometimes repeats, reorders and loses what it has queued",
        "a slow consumer": "sometimes stops sending to it",
        "several publishers at once": "sometimes stops sending when many send",
    },
    "amqtt": {
        "shared subscriptions": _NO_SHARES,
        "each QoS to each QoS": _UPGRADES,
        "a session is taken over": "leaves the older connection open",
        "retained messages": _LATE,
        "a clean session is forgotten": _LATE,
        "a kept session": "sometimes delivers after UNSUBSCRIBE, or answers late",
        "a lost connection": "sometimes loses or repeats what was in flight, or answers late",
        "what is not acknowledged": "sometimes does not send it again",
        "a will when|no will": "sometimes takes a client that leaves for lost",
        "a slow consumer": "sometimes stops sending to it",
        "empty payloads|topics of all|many at QoS|several publ": "sometimes is too slow",
    },
    "nats": {
        "shared subscriptions": _NO_SHARES,
        "topics of all kinds": "takes no space in a topic",
        "an idle connection stays": "sometimes closes at a keep alive of one second",
        "what is not acknowledged|messages come": "sometimes sends it again only after its ack_wait",
        "a slow consumer": "sometimes sends again what is not acknowledged, without a loss",
    },
    "rumqttd": {
        "a wrong password is refused": "closes the connection without CONNACK",
        "each QoS to each QoS": _UPGRADES,
        "what is not acknowledged comes again": _NO_DUP,
        "publishes go on": "sometimes leaves a part of what comes again without acknowledgement",
        "5.0 .*: (topic al|topics of|several)": "has one topic alias for all topics of a filter",
        "5.0 .*: options of a subscription": "leaves the options out of account",
        "5.0 .*: the broker's maximum packet size": "does not name it",
        "5.0 .*: the client's maximum packet size": "stops sending at a larger message",
        "5.0 .*: the client's receive maximum": _RECEIVE_MAXIMUM,
        "5.0 .*: a slow consumer": f"{_RECEIVE_MAXIMUM}, and the consumer leaves",
        "3.1.1 .*: a slow consumer|messages come": "sometimes stops sending to it",
    },
}
