"""What was acknowledged, what arrived, and what follows from both.

All events have a time on one logical clock (`Ledger.tick`): one thread sends and receives
everything, so the order of its events is the order in which they happened as far as a client can
know.

What must hold, and what may be either way:

- A message whose PUBACK or PUBREC (below 0x80) came is *acknowledged*. It must reach every
  persistent session that had the SUBACK of a matching subscription before the message was first
  sent and has sent no UNSUBSCRIBE since.
- A message without acknowledgement may or may not be there, on every session for itself. So may one
  that was first sent before the SUBACK, or that was acknowledged when UNSUBSCRIBE was sent (what
  waits in a session may be dropped by it, MQTT-3.10.4). Nothing that was first sent after UNSUBACK
  may come, nothing that was acknowledged before SUBSCRIBE was sent may come (subscriptions here ask
  for no retained messages), and nothing that was never sent.
- QoS 2 (of the delivery: the lower of message and subscription) arrives once, whatever happened.
- QoS 1 may arrive again with DUP, or once the publisher has sent the message more than once.
- Per topic, which has one publisher and one QoS, the first arrivals on a session are in order. Not
  so in a shared group, where a message may move from one member to another.
- A message for a shared group arrives at one member. It is looked for when all members are here,
  for it may wait for one that is away.
- The retained message of a topic is the last acknowledged one or any that was sent (again) after it
  was first sent; nothing at all only if none was acknowledged, or one of these was empty.
- A will (one for each CONNECT, see `Will`) is due, void, or either.
"""

import struct
import zlib
from dataclasses import dataclass, field

HEADER = struct.Struct(">4sIII")
_BLOCK = bytes((i * 197 + (i >> 8) * 61) & 0xFF for i in range(1 << 17))


def encode_payload(topic: str, number: int, size_bytes: int) -> bytes:
    """A payload that says what it is, and whose checksum covers topic and number."""
    filler = _BLOCK[number % 251 : number % 251 + size_bytes]
    return HEADER.pack(b"WHIM", number, len(filler), _checksum(topic, number, filler)) + filler


def decode_payload(topic: str, payload: bytes) -> int | None:
    """The number in it; None if it is not exactly what was published to this topic."""
    if len(payload) < HEADER.size:
        return None
    magic, number, length, checksum = HEADER.unpack_from(payload)
    filler = payload[HEADER.size :]
    whole = magic == b"WHIM" and length == len(filler)
    return number if whole and checksum == _checksum(topic, number, filler) else None


def _checksum(topic: str, number: int, filler: bytes) -> int:
    return zlib.crc32(filler, zlib.crc32(f"{topic} {number}".encode()))


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter (without `$share/group/`) matches a topic name."""
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    for i, level in enumerate(filter_levels):
        if level == "#":
            return True
        if i >= len(levels) or level not in ("+", levels[i]):
            return False
    return len(filter_levels) == len(levels)


@dataclass(slots=True)
class Message:
    """One message of a publisher; times are of the logical clock."""

    topic: "Topic"
    number: int
    is_empty: bool = False
    first_sent: int = 0
    last_sent: int = 0
    attempts: int = 0
    acknowledged: int | None = None
    refused: int | None = None


@dataclass
class Topic:
    """A topic name with one publisher and one QoS."""

    name: str
    qos: int
    messages: list[Message] = field(default_factory=list)

    def new_message(self, is_empty: bool = False) -> Message:
        """The next message."""
        message = Message(self, len(self.messages), is_empty)
        self.messages.append(message)
        return message


@dataclass(slots=True)
class Interval:
    """One SUBSCRIBE of a filter, to its UNSUBSCRIBE."""

    sent: int
    acknowledged: int | None = None
    unsubscribe_sent: int | None = None
    unsubscribed: int | None = None

    def demands(self, message: Message) -> bool:
        """The message must arrive because of it, if it is acknowledged."""
        is_before = self.acknowledged is not None and self.acknowledged < message.first_sent
        return is_before and self.unsubscribe_sent is None

    def allows(self, message: Message) -> bool:
        """The message may arrive because of it."""
        after = self.unsubscribed is not None and message.first_sent > self.unsubscribed
        before = message.acknowledged is not None and message.acknowledged < self.sent
        return not after and not before


@dataclass
class Subscription:
    """A filter of a session, or of a shared group, and what came because of it."""

    owner: str
    filter: str
    qos: int
    is_shared: bool = False
    intervals: list[Interval] = field(default_factory=list)
    # By topic name: how often each number arrived; the largest number; what is verified so far.
    arrived: dict[str, bytearray] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)
    verified: dict[str, int] = field(default_factory=dict)

    def is_acknowledged(self) -> bool:
        """Subscribed, as far as the client knows."""
        last = self.intervals[-1] if self.intervals else None
        return bool(last and last.acknowledged and last.unsubscribe_sent is None)


@dataclass
class Will:
    """The will of one CONNECT.

    `state` is *maybe* until CONNACK, then *armed*: the server has it. When the connection ends
    otherwise than by DISCONNECT 0, also by the end of the server, it is *due* after its delay,
    once. It is *never* to come after DISCONNECT 0 or if the session was resumed before the delay
    had passed; *maybe* if that was too close to tell.
    """

    topic: str
    number: int
    qos: int
    delay_s: float
    first_sent: int
    state: str = "maybe"
    # Wall times: the connection ended; the client sent DISCONNECT; it must have arrived by then.
    ended_s: float | None = None
    disconnected_s: float | None = None
    due_s: float = 0.0


class Ledger:
    """Everything that was sent, acknowledged and received with one store."""

    def __init__(self) -> None:
        self.now = 0
        self.topics: dict[str, Topic] = {}
        self.wills: dict[tuple[str, int], Will] = {}
        self.violations: list[str] = []
        self.acknowledged = self.arrivals = 0
        self._of_filter: dict[str, list[Topic]] = {}

    def tick(self) -> int:
        """The time of a new event."""
        self.now += 1
        return self.now

    def add_topic(self, name: str, qos: int) -> Topic:
        """A topic to publish to, before anybody subscribes."""
        self.topics[name] = Topic(name, qos)
        self._of_filter.clear()
        return self.topics[name]

    def violation(self, what: str) -> None:
        """Something that must not be."""
        self.violations.append(what)

    # --- publishers

    def sending(self, message: Message) -> None:
        """A PUBLISH goes out."""
        message.last_sent = self.tick()
        message.first_sent = message.first_sent or message.last_sent
        message.attempts += 1

    def acknowledge(self, message: Message, reason: int) -> None:
        """PUBACK or PUBREC has come."""
        if reason >= 0x80:
            message.refused = reason
        else:
            message.acknowledged = self.tick()
            self.acknowledged += 1

    # --- subscribers

    def arrived(
        self, subscription: Subscription, topic: str, payload: bytes, qos: int, dup: bool
    ) -> None:
        """A message came for this subscription."""
        self.arrivals += 1
        owner, number = subscription.owner, decode_payload(topic, payload)
        known = self.topics.get(topic)
        if number is None or known is None:
            self.violation(f"{owner}: wrong payload on {topic}: {payload[:32]!r}")
            return
        if number >= len(known.messages) or known.messages[number].attempts == 0:
            self.violation(f"{owner}: {topic} #{number} was never sent")
            return
        message = known.messages[number]
        if qos != min(known.qos, subscription.qos):
            self.violation(f"{owner}: {topic} #{number} came with QoS {qos}")
        counts = subscription.arrived.setdefault(topic, bytearray())
        if number >= len(counts):
            counts.extend(bytes(number + 64 - len(counts)))
        counts[number] = min(counts[number] + 1, 255)
        if counts[number] > 1:
            self._again(owner, message, qos, dup)
            return
        if not any(interval.allows(message) for interval in subscription.intervals):
            self.violation(f"{owner}: {topic} #{number} came outside of its subscription")
        largest = subscription.largest.get(topic, -1)
        # One that was on its way when the client subscribed may miss it, and come to it later: when
        # it is published again, or when a start completes its way.
        was_early = not any(
            interval.acknowledged is not None and interval.acknowledged < message.first_sent
            for interval in subscription.intervals
        )
        if number < largest and not subscription.is_shared and not was_early:
            self.violation(f"{owner}: {topic} #{number} came after #{largest}")
        subscription.largest[topic] = max(number, largest)

    def _again(self, owner: str, message: Message, qos: int, dup: bool) -> None:
        what = f"{owner}: {message.topic.name} #{message.number}"
        if qos == 2:
            self.violation(f"{what} came again with QoS 2")
        elif not dup and message.attempts < 2:
            self.violation(f"{what} came again without DUP and was sent once")

    def topics_of(self, subscription: Subscription) -> list[Topic]:
        """Topics that the filter matches."""
        topic_filter = subscription.filter
        if topic_filter.startswith("$share/"):
            topic_filter = topic_filter.split("/", 2)[2]
        if topic_filter not in self._of_filter:
            self._of_filter[topic_filter] = [
                topic for topic in self.topics.values() if matches(topic_filter, topic.name)
            ]
        return self._of_filter[topic_filter]

    def missing(self, subscription: Subscription) -> list[Message]:
        """Acknowledged messages that must have arrived and have not."""
        found = []
        for topic in self.topics_of(subscription):
            counts = subscription.arrived.get(topic.name, b"")
            at, verified = subscription.verified.get(topic.name, 0), True
            while at < len(topic.messages):
                message = topic.messages[at]
                has_arrived = at < len(counts) and counts[at]
                is_open = message.acknowledged is None and message.refused is None
                if not has_arrived and message.acknowledged is not None:
                    if any(interval.demands(message) for interval in subscription.intervals):
                        found.append(message)
                        is_open = True
                verified = verified and not is_open
                at += 1
                if verified:
                    subscription.verified[topic.name] = at
        return found

    # --- retained messages

    def check_retained(self, topic: Topic, payload: bytes | None) -> None:
        """`payload` is the retained message that a new subscription got."""
        allowed = self.may_be_retained(topic)
        number = None
        if payload is not None:
            number = decode_payload(topic.name, payload)
            if number is None:
                self.violation(f"retained {topic.name}: wrong payload {payload[:32]!r}")
                return
        if number not in allowed:
            named = sorted(str(n) for n in allowed)[:8]
            self.violation(f"retained {topic.name} is #{number}; it must be one of {named}")

    def may_be_retained(self, topic: Topic) -> set[int | None]:
        """Numbers of messages that may be retained now; None: none at all."""
        messages = [message for message in topic.messages if message.attempts]
        acknowledged = [message for message in messages if message.acknowledged is not None]
        since = acknowledged[-1].first_sent if acknowledged else 0
        allowed = {None} if not acknowledged else set()
        for message in messages:
            if message.last_sent >= since:
                allowed.add(None if message.is_empty else message.number)
        return allowed

    # --- wills

    def will_arrived(
        self,
        subscription: Subscription,
        topic: str,
        payload: bytes,
        qos: int,
        dup: bool,
        now_s: float,
    ) -> None:
        """A message on a topic of wills came."""
        owner, number = subscription.owner, decode_payload(topic, payload)
        will = self.wills.get((topic, number))
        if will is None:
            self.violation(f"{owner}: wrong will on {topic}: {payload[:32]!r}")
            return
        if will.state == "never":
            self.violation(f"{owner}: will {topic} #{number} came though it was void")
        if will.state == "armed":
            self.violation(f"{owner}: will {topic} #{number} came while its client is connected")
        if will.ended_s is not None and now_s < will.ended_s + will.delay_s - 0.1:
            self.violation(f"{owner}: will {topic} #{number} came before its delay had passed")
        counts = subscription.arrived.setdefault(topic, bytearray())
        if number >= len(counts):
            counts.extend(bytes(number + 64 - len(counts)))
        counts[number] = min(counts[number] + 1, 255)
        if counts[number] > 1 and (qos == 2 or not dup):
            times = counts[number]
            self.violation(f"{owner}: will {topic} #{number} came {times} times, QoS {qos}")

    def missing_wills(self, subscription: Subscription) -> list[Will]:
        """Wills that are due and have not arrived, whether or not they had time for it."""
        found = []
        for (topic, number), will in self.wills.items():
            counts = subscription.arrived.get(topic, b"")
            is_subscribed = any(
                interval.acknowledged is not None and interval.acknowledged < will.first_sent
                for interval in subscription.intervals
            )
            has_arrived = number < len(counts) and counts[number]
            if will.state == "due" and is_subscribed and not has_arrived:
                found.append(will)
        return found
