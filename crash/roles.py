"""The clients of a load: what each does with its session, and how it keeps the ledger."""

import random
import time
from typing import TYPE_CHECKING

from ledger import Interval, Message, Subscription, Topic, Will, encode_payload, matches
from mqtt import QUOTA_EXCEEDED, Client, Handler, Request
from mqtt import Will as MqttWill

if TYPE_CHECKING:
    from load import World


NO_SUBSCRIPTION = 0x11


class Role(Handler):
    """A persistent session and what it does. `wants_connection` says whether it is to be here."""

    def __init__(self, world: "World", client_id: str, **options: object) -> None:
        self.world = world
        self.ledger = world.ledger
        self.random: random.Random = world.random
        self.client = Client(world.loop, client_id, self, **options)
        self.wants_connection = True
        # Reason of the latest CONNACK or DISCONNECT with an error.
        self.refusal: int | None = None

    def violation(self, client: Client, what: str) -> None:
        self.ledger.violation(f"{client.client_id}: {what}")

    def refused(self, client: Client, reason: int) -> None:
        self.refusal = reason
        if not self.world.allows_refusal:
            self.violation(client, f"CONNECT was refused with {reason:#x}")

    def closed(self, client: Client, reason: int | None) -> None:
        self.refusal = reason
        # While the broker is being killed anything may end.
        if self.world.allows_refusal and reason == QUOTA_EXCEEDED:
            return
        if reason is not None and not self.world.is_stopping:
            self.violation(client, f"the server disconnected it with {reason:#x}")
        elif reason is None and not self.world.is_stopping and self.world.is_broker_alive():
            self.violation(client, "the server closed its connection")

    def act(self) -> None:
        """Now and then, while there is load."""

    def is_done(self) -> bool:
        """Nothing of it is under way. Only asked when connected."""
        return not self.client.in_flight and not self.client.requests and not self.client.received


class Publisher(Role):
    """Numbers its messages per topic and keeps up to `window` of them in flight."""

    def __init__(self, world: "World", name: str, topics: list[Topic], window: int) -> None:
        super().__init__(world, name)
        self.topics = topics
        self.window = window
        self.is_publishing = True
        self.sizes_bytes = (0, 200)

    def act(self) -> None:
        for _ in range(self.random.randrange(self.world.burst)):
            if not self.is_publishing or not self.client.may_publish(self.window):
                return
            self.publish(self.random.choice(self.topics))

    def publish(self, topic: Topic) -> Message:
        """Sends the topic's next message."""
        is_retained = topic.name[0] in "re"
        message = topic.new_message(topic.name[0] == "e" and self.random.random() < 0.3)
        size_bytes = self.random.randrange(*self.sizes_bytes)
        if self.random.random() < self.world.large_chance:
            size_bytes = self.random.randrange(4_000, 90_000)
        payload = b""
        if not message.is_empty:
            payload = encode_payload(topic.name, message.number, size_bytes)
        self.client.publish(topic.name, payload, topic.qos, is_retained, message)
        return message

    def sending(self, client: Client, token: Message) -> None:
        self.ledger.sending(token)

    def acknowledged(self, client: Client, token: Message, reason: int) -> None:
        self.ledger.acknowledge(token, reason)
        if reason >= 0x80 and not self.world.allows_refusal:
            self.violation(client, f"{token.topic.name} #{token.number} refused with {reason:#x}")

    def message(self, client: Client, topic: str, *_rest: object) -> None:
        self.violation(client, f"got a message on {topic} without a subscription")


class Subscriber(Role):
    """Subscribes for good to its filters, and on and off to those of `churn`."""

    def __init__(
        self,
        world: "World",
        name: str,
        filters: list[tuple[str, int]],
        churn: list[tuple[str, int]] = (),
        receive_maximum: int = 0,
        away_chance: float = 0.0,
        is_slow: bool = False,
    ) -> None:
        super().__init__(world, name, receive_maximum=receive_maximum)
        self.subscriptions = [self._subscription(name, *each) for each in filters]
        self.churn = [self._subscription(name, *each) for each in churn]
        self.away_chance = away_chance
        self.is_slow = is_slow
        self._of_topic: dict[str, Subscription] = {}

    def _subscription(self, name: str, topic_filter: str, qos: int) -> Subscription:
        if not topic_filter.startswith("$share/"):
            return Subscription(name, topic_filter, qos)
        # One of all members: what matters is that one of them gets it.
        return self.world.groups.setdefault(
            topic_filter, Subscription(topic_filter, topic_filter, qos, is_shared=True)
        )

    def connected(self, client: Client, session_present: bool) -> None:
        self._group_joined = getattr(self, "_group_joined", False) and session_present
        for subscription in self.subscriptions:
            is_there = self._group_joined if subscription.is_shared else None
            if not (subscription.is_acknowledged() if is_there is None else is_there):
                self._subscribe(subscription)
        for subscription in self.churn:
            last = subscription.intervals[-1] if subscription.intervals else None
            if last and last.unsubscribe_sent and not last.unsubscribed:
                self._unsubscribe(subscription)
            elif last and not last.acknowledged:
                self._subscribe(subscription)

    def act(self) -> None:
        if self.is_slow:
            self.client.pause(self.random.random() < 0.9)
        if not self.client.is_connected or self.random.random() > 0.05 or not self.churn:
            return
        subscription = self.random.choice(self.churn)
        last = subscription.intervals[-1] if subscription.intervals else None
        if last is None or last.unsubscribed:
            self._subscribe(subscription)
        elif last.acknowledged and not last.unsubscribe_sent:
            self._unsubscribe(subscription)

    def _subscribe(self, subscription: Subscription) -> None:
        interval = Interval(self.ledger.tick())
        subscription.intervals.append(interval)
        self.client.request(
            Request(subscription.filter, subscription.qos, 2, (subscription, interval))
        )

    def _unsubscribe(self, subscription: Subscription) -> None:
        sent = self.ledger.tick()
        # If the answer to an earlier one was lost, the subscription may be gone.
        is_again = any(x.unsubscribe_sent and not x.unsubscribed for x in subscription.intervals)
        for interval in subscription.intervals:
            interval.unsubscribe_sent = interval.unsubscribe_sent or sent
        self.client.request(Request(subscription.filter, token=(subscription, is_again)))

    def request_done(self, client: Client, request: Request) -> None:
        subscription, interval = request.token
        if request.reason >= 0x80 and self.world.allows_refusal:
            # It is asked for again on the next connection.
            client.drop()
        elif isinstance(interval, bool):
            is_again = interval
            for each in subscription.intervals:
                each.unsubscribed = each.unsubscribed or self.ledger.tick()
            if request.reason != 0 and not (is_again and request.reason == NO_SUBSCRIPTION):
                self.violation(client, f"UNSUBSCRIBE {request.filter}: reason {request.reason:#x}")
        elif request.reason == request.qos:
            interval.acknowledged = self.ledger.tick()
            if subscription.is_shared:
                self._group_joined = True
        else:
            self.violation(client, f"SUBSCRIBE {request.filter}: reason {request.reason:#x}")

    def message(
        self, client: Client, topic: str, payload: bytes, qos: int, dup: bool, retain: bool
    ) -> None:
        subscription = self._of_topic.get(topic) or self._find(topic)
        if subscription is None:
            self.violation(client, f"got a message on {topic} without a subscription")
        elif topic[0] == "w":
            now_s = time.monotonic()
            self.ledger.will_arrived(subscription, topic, payload, qos, dup, now_s)
        else:
            self.ledger.arrived(subscription, topic, payload, qos, dup)
        if retain:
            self.violation(client, f"{topic} came as a retained message")

    def _find(self, topic: str) -> Subscription | None:
        for subscription in [*self.subscriptions, *self.churn]:
            topic_filter = subscription.filter
            if subscription.is_shared:
                topic_filter = topic_filter.split("/", 2)[2]
            if matches(topic_filter, topic):
                self._of_topic[topic] = subscription
                return subscription
        return None


class Dying(Role):
    """A client with a will, whose connection is cut or ended in good order from time to time."""

    def __init__(self, world: "World", name: str, qos: int, delay_s: int) -> None:
        super().__init__(world, name)
        self.topic = f"w/{name}"
        self.qos = qos
        self.delay_s = delay_s
        self.number = -1
        self.will: Will | None = None
        # It stays away until then.
        self.back_s = 0.0

    def prepare(self) -> None:
        """Before each connection: the next will."""
        self.number += 1
        for will in self._delayed():
            will.state = "maybe"
        self.will = Will(self.topic, self.number, self.qos, self.delay_s, self.ledger.tick())
        self.ledger.wills[self.topic, self.number] = self.will
        payload = encode_payload(self.topic, self.number, 40)
        self.client.will = MqttWill(self.topic, payload, self.qos, delay_s=self.delay_s)

    def connected(self, client: Client, session_present: bool) -> None:
        self.will.state = "armed"
        for will in self._delayed():
            # Resumed before the delay had passed: no will. [MQTT-3.1.3-9]
            if time.monotonic() < will.ended_s + will.delay_s - 0.3:
                will.state = "never"

    def closed(self, client: Client, reason: int | None) -> None:
        super().closed(client, reason)
        self.ended()

    def _delayed(self) -> list[Will]:
        """Earlier wills for which this connection may come in time."""
        wills = [self.ledger.wills[self.topic, n] for n in range(self.number)]
        return [
            will
            for will in wills
            if will.ended_s is not None
            and will.delay_s
            and will.state in ("due", "maybe")
            and time.monotonic() < will.due_s + 5
        ]

    def act(self) -> None:
        if not self.client.is_connected or self.random.random() > 0.02:
            return
        self.back_s = time.monotonic() + self.random.choice((0.0, 0.1, 0.5))
        if self.random.random() < 0.3:
            self.leave()
        else:
            self.client.drop()
            self.ended()

    def leave(self) -> None:
        """Disconnects in good order; the will is void once the server has closed."""
        self.will.state = "maybe"
        self.client.leave()

    def left(self, client: Client) -> None:
        # If the broker did so because it was killed, `broker_died` knows better.
        self.will.state = "never"
        self.will.disconnected_s = time.monotonic()

    def ended(self, at_s: float | None = None) -> None:
        """The connection was lost, here or at the server, now or perhaps as early as `at_s`."""
        if self.will is not None and self.will.state == "armed":
            self.will.state = "due"
            self.will.ended_s = at_s or time.monotonic()
            self.will.due_s = time.monotonic() + self.delay_s

    def broker_died(self, at_once: bool, began_s: float | None) -> None:
        """It was killed (`at_once`), or stopped in good order, which began at `began_s`."""
        self.ended(began_s)
        gone_s = self.will.disconnected_s if self.will else None
        if at_once and gone_s is not None and time.monotonic() < gone_s + 0.3:
            # Nothing acknowledges a DISCONNECT.
            self.will.state = "maybe"

    def is_done(self) -> bool:
        return not self.client.is_leaving
