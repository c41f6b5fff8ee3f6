"""What must work between any two clients of any library, whatever the version and transport.

A scenario is a function of a `Stage`, which makes the peers, topics and client identifiers.
That nothing arrives is shown by a last message on the same path, not by waiting for silence.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from brokers import Link
from peers import V5, Connect, Message, Peer, Properties, Subscribe, Unsupported

END = b"end"
IN_ORDER = 1000
LARGE_BYTES = 1_000_000
SESSION_TAKEN_OVER = 0x8E


@dataclass
class Stage:
    """Peers of one library on one link in one version, for one scenario."""

    library: type[Peer]
    link: Link
    version: int
    prefix: str
    peers: list[Peer] = field(default_factory=list)

    @property
    def v5(self) -> bool:
        return self.version == V5

    def topic(self, suffix: str) -> str:
        """A topic that no other scenario uses."""
        return f"{self.prefix}/{suffix}"

    def peer(self, name: str, **options) -> Peer:
        """A connected peer."""
        connect = Connect(self.link, self.version, f"{self.prefix}/{name}", **options)
        return self.admit(connect)

    def anonymous(self) -> Peer:
        """A connected peer with an empty client identifier."""
        return self.admit(Connect(self.link, self.version, ""))

    def admit(self, connect: Connect) -> Peer:
        """Connects a peer with exactly these options."""
        peer = self.library(connect)
        self.peers.append(peer)
        peer.connect()
        return peer

    def persistent(self, name: str, clean: bool = False, **options) -> Peer:
        """A connected peer whose session outlives its connection."""
        if self.v5:
            options.setdefault("session_expiry_s", 300)
        return self.peer(name, clean=clean, **options)

    def close(self) -> None:
        """Ends all peers."""
        for peer in self.peers:
            with contextlib.suppress(Exception):
                peer.close()


@dataclass(frozen=True)
class Scenario:
    """A registered scenario; `torn` ones also run through the tearing relay."""

    run: Callable[[Stage], None]
    versions: tuple[int, ...]
    torn: bool

    @property
    def name(self) -> str:
        return self.run.__name__.replace("_", " ")


SCENARIOS: list[Scenario] = []


def scenario(versions: tuple[int, ...] = (4, 5), torn: bool = False):
    """Registers a scenario."""

    def register(run: Callable[[Stage], None]) -> Callable[[Stage], None]:
        SCENARIOS.append(Scenario(run, versions, torn))
        return run

    return register


def same(found, wanted, what: str) -> None:
    """Fails with both values unless they are equal."""
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}"[:600])


def until_end(peer: Peer) -> list[Message]:
    """All that `peer` receives before the message `END`."""
    found = []
    while (message := peer.receive()).payload != END:
        found.append(message)
    return found


def payloads(messages: Iterable[Message]) -> list[bytes]:
    return [message.payload for message in messages]


@scenario(torn=True)
def every_quality_of_service_both_ways(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    for granted in (0, 1, 2):
        topic = stage.topic(str(granted))
        codes = subscriber.subscribe(Subscribe(topic, granted))
        same(codes, [granted], "SUBACK")
        for qos in (0, 1, 2):
            publisher.publish(Message(topic, b"%d" % qos, qos))
            got = subscriber.receive()
            same(got.payload, b"%d" % qos, "payload")
            same(got.qos, min(qos, granted), f"QoS {qos} at a subscription of {granted}")
            same((got.retain, got.dup), (False, False), "RETAIN and DUP")


@scenario(torn=True)
def a_thousand_messages_in_order(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    for qos in (0, 1, 2):
        topic = stage.topic(f"order/{qos}")
        subscriber.subscribe(Subscribe(topic, qos))
        wanted = [b"%d" % number for number in range(IN_ORDER)]
        publisher.publish(*(Message(topic, payload, qos) for payload in wanted))
        publisher.publish(Message(topic, END, qos))
        found = payloads(until_end(subscriber))
        if found != wanted:
            first = next((n for n, pair in enumerate(zip(found, wanted)) if len({*pair}) > 1), None)
            raise AssertionError(f"QoS {qos}: {len(found)} messages, first wrong: {first}")


@scenario(torn=True)
def large_payload(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    body = bytes(range(251)) * (LARGE_BYTES // 251)
    subscriber.subscribe(Subscribe(stage.topic("large"), 2))
    for qos in (0, 1, 2):
        publisher.publish(Message(stage.topic("large"), body, qos))
        same(subscriber.receive().payload == body, True, f"payload of QoS {qos} unchanged")


@scenario()
def payload_and_topic_of_any_bytes(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    topic = stage.topic("grüße/\N{BIRD}/a b//+not-a-wildcard".replace("+", "plus"))
    subscriber.subscribe(Subscribe(topic, 1))
    for body in (b"", bytes(range(256)), b"\x00"):
        publisher.publish(Message(topic, body, 1))
        got = subscriber.receive()
        same((got.topic, got.payload), (topic, body), "message")


@scenario()
def wildcards(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    subscriber.subscribe(
        Subscribe(stage.topic("one/+/end"), 1),
        Subscribe(stage.topic("all/#"), 1),
    )
    yes = ["one/a/end", "one//end", "all", "all/a", "all/a/b/c"]
    no = ["one/end", "one/a/b/end", "one/a", "other"]
    for suffix in no + yes:
        publisher.publish(Message(stage.topic(suffix), suffix.encode(), 1))
    publisher.publish(Message(stage.topic("all"), END, 1))
    same([m.topic for m in until_end(subscriber)], [stage.topic(s) for s in yes], "topics")


@scenario()
def dollar_topics_are_hidden_from_wildcards(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    subscriber.subscribe(Subscribe("+/" + stage.topic("x"), 1))
    publisher.publish(Message("$interop/" + stage.topic("x"), b"hidden", 0))
    publisher.publish(Message("shown/" + stage.topic("x"), b"shown", 1))
    publisher.publish(Message("shown/" + stage.topic("x"), END, 1))
    same(payloads(until_end(subscriber)), [b"shown"], "payloads")


@scenario(torn=True)
def retained_message(stage: Stage) -> None:
    publisher, live = stage.peer("pub"), stage.peer("live")
    topic = stage.topic("state")
    live.subscribe(Subscribe(topic, 1))
    publisher.publish(Message(topic, b"old", 1, retain=True))
    publisher.publish(Message(topic, b"new", 1, retain=True))
    same([live.receive().retain for _ in range(2)], [False, False], "RETAIN when live")
    late = stage.peer("late")
    late.subscribe(Subscribe(topic, 1))
    got = late.receive()
    same((got.payload, got.retain), (b"new", True), "payload and RETAIN when late")
    publisher.publish(Message(topic, b"", 1, retain=True))
    same(late.receive().payload, b"", "the empty message itself")
    after = stage.peer("after")
    after.subscribe(Subscribe(topic, 1))
    publisher.publish(Message(topic, END, 1))
    same(until_end(after), [], "after removal")


@scenario(torn=True)
def will_when_the_connection_is_lost(stage: Stage) -> None:
    topic, watcher = stage.topic("will"), stage.peer("watch")
    watcher.subscribe(Subscribe(stage.topic("#"), 2))
    for qos in (0, 1, 2):
        will = Message(topic, b"lost %d" % qos, qos, retain=qos == 1)
        stage.peer(f"mortal{qos}", will=will).drop()
        got = watcher.receive()
        same((got.payload, got.qos, got.retain), (will.payload, qos, False), "will")
    late = stage.peer("late")
    late.subscribe(Subscribe(topic, 1))
    got = late.receive()
    same((got.payload, got.retain), (b"lost 1", True), "retained will")
    late.publish(Message(topic, b"", 1, retain=True))


@scenario()
def no_will_after_disconnect(stage: Stage) -> None:
    topic, watcher = stage.topic("will"), stage.peer("watch")
    watcher.subscribe(Subscribe(topic, 1))
    stage.peer("mortal", will=Message(topic, b"wrong", 1)).disconnect()
    time.sleep(0.2)
    watcher.publish(Message(topic, END, 1))
    same(until_end(watcher), [], "messages")


@scenario(versions=(5,))
def will_on_demand_with_properties_and_delay(stage: Stage) -> None:
    topic, watcher = stage.topic("will"), stage.peer("watch")
    watcher.subscribe(Subscribe(topic, 1))
    properties = Properties(
        user=(("why", "gone"),),
        content_type="text/plain",
        response_topic=stage.topic("answer"),
        correlation_data=b"\x00\x01",
    )
    will = Message(topic, b"bye", 1, properties=properties)
    stage.peer("mortal", will=will).disconnect(with_will=True)
    same(watcher.receive().properties, properties, "properties of the will")
    delayed = dataclasses.replace(will, payload=b"later", will_delay_s=1)
    started_s = time.monotonic()
    stage.peer("delayed", will=delayed, session_expiry_s=60).drop()
    same(watcher.receive().payload, b"later", "delayed will")
    if time.monotonic() - started_s < 0.9:
        raise AssertionError("the delayed will came at once")


@scenario(torn=True)
def persistent_session_keeps_messages(stage: Stage) -> None:
    first = stage.persistent("keeper", clean=True)
    if first.session_present is not None:
        same(first.session_present, False, "session present on the first connection")
    if not stage.v5:
        first.disconnect()
        first = stage.persistent("keeper")
    first.subscribe(Subscribe(stage.topic("a/+"), 1), Subscribe(stage.topic("b"), 2))
    first.disconnect()
    publisher = stage.peer("pub")
    wanted = []
    for number in range(30):
        qos = 1 + number % 2
        topic = stage.topic("b" if qos == 2 else f"a/{number}")
        publisher.publish(Message(topic, b"%d" % number, qos))
        wanted.append((topic, b"%d" % number, qos))
    again = stage.persistent("keeper")
    if again.session_present is not None:
        same(again.session_present, True, "session present")
    publisher.publish(Message(stage.topic("b"), END, 2))
    found = [(m.topic, m.payload, m.qos) for m in until_end(again)]
    # Order is promised among messages of one QoS only.
    same(sorted(found, key=lambda each: each[2]), sorted(wanted, key=lambda each: each[2]), "queue")


@scenario()
def clean_start_forgets_the_session(stage: Stage) -> None:
    topic = stage.topic("x")
    first = stage.persistent("keeper")
    first.subscribe(Subscribe(topic, 1))
    first.disconnect()
    publisher = stage.peer("pub")
    publisher.publish(Message(topic, b"forgotten", 1))
    second = stage.persistent("keeper", clean=True)
    if second.session_present is not None:
        same(second.session_present, False, "session present")
    publisher.publish(Message(topic, b"not subscribed", 1))
    second.subscribe(Subscribe(topic, 1))
    publisher.publish(Message(topic, END, 1))
    same(until_end(second), [], "messages")


@scenario(versions=(5,))
def session_expires(stage: Stage) -> None:
    for name, expiry_s, wait_s in (("at once", 0, 0.2), ("soon", 1, 2.5)):
        first = stage.persistent(name, session_expiry_s=expiry_s)
        first.subscribe(Subscribe(stage.topic(name), 1))
        first.disconnect()
        publisher = stage.peer(f"pub {name}")
        publisher.publish(Message(stage.topic(name), b"lost", 1))
        time.sleep(wait_s)
        second = stage.persistent(name)
        if second.session_present is not None:
            same(second.session_present, False, f"session present, expiry {expiry_s} s")
        second.subscribe(Subscribe(stage.topic(name), 1))
        publisher.publish(Message(stage.topic(name), END, 1))
        same(until_end(second), [], "messages")


@scenario()
def takeover_closes_the_older_connection(stage: Stage) -> None:
    older = stage.persistent("same")
    older.subscribe(Subscribe(stage.topic("x"), 1))
    newer = stage.persistent("same")
    older.receive_closing()
    if newer.session_present is not None:
        same(newer.session_present, True, "session present")
    newer.publish(Message(stage.topic("x"), b"still here", 1))
    same(newer.receive().payload, b"still here", "payload after takeover")


@scenario(versions=(5,))
def takeover_tells_the_older_connection_why(stage: Stage) -> None:
    older = stage.peer("same")
    stage.peer("same")
    same(older.receive_closing(), SESSION_TAKEN_OVER, "reason code of the server's DISCONNECT")


@scenario()
def shared_subscription(stage: Stage) -> None:
    topic = stage.topic("work")
    members = [stage.peer(f"member{number}") for number in range(3)]
    for member in members:
        same(member.subscribe(Subscribe(f"$share/group/{topic}", 1)), [1], "SUBACK")
    everyone = stage.peer("everyone")
    everyone.subscribe(Subscribe(topic, 1))
    publisher = stage.peer("pub")
    wanted = [b"%02d" % number for number in range(60)]
    publisher.publish(*(Message(topic, payload, 1) for payload in wanted))
    same([everyone.receive().payload for _ in wanted], wanted, "ordinary subscription")
    found: list[bytes] = []
    deadline_s = time.monotonic() + 10
    while len(found) < len(wanted) and time.monotonic() < deadline_s:
        found += [m.inbox.get().payload for m in members for _ in range(m.inbox.qsize())]
        time.sleep(0.01)
    time.sleep(0.1)
    found += [m.inbox.get().payload for m in members for _ in range(m.inbox.qsize())]
    same(sorted(found), wanted, "each message to exactly one member")


@scenario(versions=(5,))
def shared_subscription_is_balanced(stage: Stage) -> None:
    topic = stage.topic("work")
    members = [stage.peer(f"member{number}") for number in range(3)]
    for member in members:
        member.subscribe(Subscribe(f"$share/group/{topic}", 1))
    stage.peer("pub").publish(*(Message(topic, b"x", 1) for _ in range(60)))
    for member in members:
        for _ in range(10):
            member.receive()


@scenario()
def unsubscribe(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    subscriber.subscribe(Subscribe(stage.topic("a"), 1), Subscribe(stage.topic("b"), 1))
    subscriber.unsubscribe(stage.topic("a"))
    publisher.publish(Message(stage.topic("a"), b"unwanted", 1))
    publisher.publish(Message(stage.topic("b"), END, 1))
    same(until_end(subscriber), [], "messages")


@scenario()
def empty_client_identifier(stage: Stage) -> None:
    one, two = stage.anonymous(), stage.anonymous()
    if stage.v5 and one.assigned_client_id is not None:
        same(one.assigned_client_id == two.assigned_client_id, False, "same assigned identifier")
    two.subscribe(Subscribe(stage.topic("x"), 1))
    one.publish(Message(stage.topic("x"), b"hello", 1))
    same(two.receive().payload, b"hello", "payload")


@scenario()
def keep_alive_of_an_idle_client(stage: Stage) -> None:
    idle = stage.peer("idle", keep_alive_s=1)
    idle.subscribe(Subscribe(stage.topic("x"), 1))
    time.sleep(3)
    same(idle.closings.empty(), True, "connected after three keep alive intervals")
    idle.publish(Message(stage.topic("x"), b"awake", 1))
    same(idle.receive().payload, b"awake", "payload")


@scenario()
def user_name_where_none_is_needed(stage: Stage) -> None:
    user = stage.peer("user", username="anna", password="secret")
    user.subscribe(Subscribe(stage.topic("x"), 1))
    user.publish(Message(stage.topic("x"), b"hello", 1))
    same(user.receive().payload, b"hello", "payload")


@scenario(versions=(5,), torn=True)
def properties_of_a_message(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    subscriber.subscribe(Subscribe(stage.topic("x"), 2))
    properties = Properties(
        user=(("b", "1"), ("b", "2"), ("a", "ü")),
        content_type="application/json",
        response_topic=stage.topic("answer"),
        correlation_data=bytes(range(256)),
        payload_format=1,
    )
    for qos in (0, 1, 2):
        publisher.publish(Message(stage.topic("x"), b"{}", qos, properties=properties))
        same(subscriber.receive().properties, properties, f"properties at QoS {qos}")


@scenario(versions=(5,))
def retained_message_keeps_its_properties(stage: Stage) -> None:
    properties = Properties(user=(("k", "v"),), content_type="text/plain", expiry_s=100)
    peer = stage.peer("both")
    topic = stage.topic("x")
    peer.publish(Message(topic, b"kept", 1, retain=True, properties=properties))
    peer.subscribe(Subscribe(topic, 1))
    got = peer.receive().properties
    same((got.user, got.content_type), (properties.user, "text/plain"), "properties")
    same(got.expiry_s in range(90, 101), True, f"message expiry {got.expiry_s} s counted down")
    peer.publish(Message(topic, b"", 1, retain=True))


@scenario(versions=(5,))
def message_expiry(stage: Stage) -> None:
    topic = stage.topic("x")
    keeper = stage.persistent("keeper")
    keeper.subscribe(Subscribe(topic, 1))
    keeper.disconnect()
    publisher = stage.peer("pub")
    publisher.publish(Message(topic, b"short", 1, properties=Properties(expiry_s=1)))
    publisher.publish(Message(topic, b"long", 1, properties=Properties(expiry_s=100)))
    time.sleep(2.5)
    keeper = stage.persistent("keeper")
    publisher.publish(Message(topic, END, 1))
    found = until_end(keeper)
    same(payloads(found), [b"long"], "messages that are left")
    same(found[0].properties.expiry_s in range(90, 100), True, "message expiry counted down")


@scenario(versions=(5,))
def request_and_response(stage: Stage) -> None:
    asker, answerer = stage.peer("ask"), stage.peer("answer")
    asker.subscribe(Subscribe(stage.topic("answers"), 1))
    answerer.subscribe(Subscribe(stage.topic("questions"), 1))
    asked = Properties(response_topic=stage.topic("answers"), correlation_data=b"7")
    asker.publish(Message(stage.topic("questions"), b"6 * 7", 1, properties=asked))
    question = answerer.receive().properties
    reply = Properties(correlation_data=question.correlation_data)
    answerer.publish(Message(question.response_topic, b"42", 1, properties=reply))
    got = asker.receive()
    same((got.payload, got.properties.correlation_data), (b"42", b"7"), "response")


@scenario(versions=(5,))
def subscription_identifiers(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    subscriber.subscribe(Subscribe(stage.topic("a/+"), 1, identifier=1))
    subscriber.subscribe(Subscribe(stage.topic("a/#"), 1, identifier=268_435_455))
    publisher.publish(Message(stage.topic("a"), b"", 1))
    same(subscriber.receive().properties.identifiers, (268_435_455,), "one match")
    publisher.publish(Message(stage.topic("a/b"), b"", 1))
    publisher.publish(Message(stage.topic("a"), END, 1))
    found = [number for m in until_end(subscriber) for number in m.properties.identifiers]
    same(sorted(found), [1, 268_435_455], "overlapping subscriptions")


@scenario(versions=(5,))
def topic_alias_from_the_client(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub")
    topic = stage.topic("a/rather/long/topic")
    subscriber.subscribe(Subscribe(topic, 1))
    alias = Properties(topic_alias=1)
    publisher.publish(Message(topic, b"0", 1, properties=alias))
    for number in (1, 2):
        publisher.publish(Message("", b"%d" % number, number, properties=alias))
    for number in range(3):
        got = subscriber.receive()
        same((got.topic, got.payload), (topic, b"%d" % number), "message")


@scenario(versions=(5,))
def topic_alias_from_the_server(stage: Stage) -> None:
    if stage.library.library != "mqttjs":
        raise Unsupported("the library does not resolve topic aliases of the server")
    publisher, subscriber = stage.peer("pub"), stage.peer("sub", topic_alias_maximum=2)
    subscriber.subscribe(Subscribe(stage.topic("#"), 1))
    wanted = [stage.topic(f"long/topic/{number}") for number in (1, 1, 2, 3, 3, 1, 2, 3, 2)]
    publisher.publish(*(Message(topic, b"x", 1) for topic in wanted))
    same([subscriber.receive().topic for _ in wanted], wanted, "topics")


@scenario(versions=(5,))
def options_of_a_subscription(stage: Stage) -> None:
    peer, other = stage.peer("peer"), stage.peer("other")
    topic = stage.topic("x")
    other.publish(Message(topic, b"kept", 1, retain=True))
    peer.subscribe(
        Subscribe(topic, 1, no_local=True, retain_as_published=True, retain_handling=2)
    )
    peer.publish(Message(topic, b"own", 1))
    other.publish(Message(topic, b"live", 1, retain=True))
    other.publish(Message(topic, END, 1))
    found = [(m.payload, m.retain) for m in until_end(peer)]
    same(found, [(b"live", True)], "no local, retain as published, retain handling 2")
    again = stage.peer("again")
    for wanted in ([b"live"], []):
        again.subscribe(Subscribe(topic, 1, retain_handling=1))
        other.publish(Message(topic, END, 1))
        same(payloads(until_end(again)), wanted, "retain handling 1")
    other.publish(Message(topic, b"", 1, retain=True))


@scenario(versions=(5,))
def maximum_packet_size_of_the_client(stage: Stage) -> None:
    publisher, subscriber = stage.peer("pub"), stage.peer("sub", maximum_packet_size=500)
    topic = stage.topic("x")
    subscriber.subscribe(Subscribe(topic, 2))
    for qos in (0, 1, 2):
        publisher.publish(Message(topic, b"x" * 1000, qos))
        publisher.publish(Message(topic, b"small", qos))
    publisher.publish(Message(topic, END, 2))
    same(payloads(until_end(subscriber)), [b"small"] * 3, "messages that fit")


@scenario(versions=(5,))
def receive_maximum_of_the_client(stage: Stage) -> None:
    publisher = stage.peer("pub")
    slow = stage.peer("slow", receive_maximum=2, manual_ack=True)
    topic = stage.topic("x")
    slow.subscribe(Subscribe(topic, 1))
    publisher.publish(*(Message(topic, b"%d" % number, 1) for number in range(6)))
    held = [slow.receive(), slow.receive()]
    time.sleep(0.2)
    same(slow.inbox.qsize(), 0, "messages beyond the receive maximum")
    found = payloads(held)
    while held:
        slow.acknowledge(held.pop(0))
        if len(found) < 6:
            held.append(slow.receive())
            found.append(held[-1].payload)
    same(found, [b"%d" % number for number in range(6)], "payloads")


@scenario()
def unacknowledged_messages_come_again(stage: Stage) -> None:
    topic = stage.topic("x")
    first = stage.persistent("keeper", manual_ack=True)
    first.subscribe(Subscribe(topic, 1))
    publisher = stage.peer("pub")
    publisher.publish(*(Message(topic, b"%d" % number, 1) for number in range(3)))
    first.acknowledge(first.receive())
    first.receive()
    first.receive()
    time.sleep(0.1)
    first.drop()
    again = stage.persistent("keeper")
    publisher.publish(Message(topic, END, 1))
    found = [(m.payload, m.dup) for m in until_end(again)]
    same(found, [(b"1", True), (b"2", True)], "payloads and DUP")
