"""The load on a broker that is to be killed, and the check when it is back.

A `World` is all clients of one store and their ledger; it outlives the broker's processes:

    world = World(seed)
    each round:  world.broker_started(broker); world.verify(); world.run(seconds)
                 kill the broker; world.broker_gone(at_once=True)
    at the end:  world.broker_started(broker); world.verify(everybody=True)

`world.ledger.violations` has what went wrong. What must hold stands in `ledger.py`.
"""

import random
import time

from broker import Broker
from ledger import Ledger, Subscription
from mqtt import Client, Handler, Loop, Request
from roles import Dying, Publisher, Role, Subscriber

# When nothing has come for so long, nothing will, on a busy machine too.
DRAIN_TIMEOUT_S = 10.0
# And nothing more may come for so long.
QUIET_S = 0.04
WILL_MARGIN_S = 5.0


class World:
    """All clients of one store."""

    def __init__(self, seed: int, publishers: int = 12, idlers: int = 40) -> None:
        self.random = random.Random(seed)
        self.ledger = Ledger()
        self.loop = Loop()
        self.broker: Broker | None = None
        self.is_stopping = True
        # Whether the server may refuse messages and connections for want of room.
        self.allows_refusal = False
        self.drain_timeout_s = DRAIN_TIMEOUT_S
        self.groups: dict[str, Subscription] = {}
        # Most messages of a publisher in one go, and how many of them are large.
        self.burst = 5
        self.large_chance = 0.004
        self.publishers = [self._publisher(i) for i in range(publishers)]
        self.subscribers = self._subscribers(publishers, idlers)
        self.dying = [Dying(self, f"dying-{i}", 1 + i % 2, (0, 0, 1, 30)[i % 4]) for i in range(6)]

    def _publisher(self, i: int) -> Publisher:
        names = [(f"t/{i}/1", 1), (f"t/{i}/2", 2), (f"s/{i}/1", 1), (f"s/{i}/2", 2)]
        names += [(f"{'re'[i % 2]}/{i}/{qos}", qos) for qos in (1, 2)]
        topics = [self.ledger.add_topic(*name) for name in names]
        # The topics of one kind only weigh more than the others.
        return Publisher(self, f"pub-{i}", topics + topics[:2] * 2, (1, 8, 40, 200)[i % 4])

    def _subscribers(self, publishers: int, idlers: int) -> list[Subscriber]:
        every = [("t/#", 2), ("r/+/+", 2)]
        wills = ("w/#", 2)
        found = [
            Subscriber(self, "all-2", [*every, wills]),
            Subscriber(self, "all-1", [("t/#", 1)], receive_maximum=50),
            Subscriber(self, "away-2", [*every, wills], away_chance=0.7),
            Subscriber(self, "away-1", [("t/+/1", 1), ("w/#", 1)], away_chance=0.9),
            Subscriber(self, "slow-2", [("t/+/2", 2)], receive_maximum=20, is_slow=True),
            Subscriber(self, "slow-1", [("t/1/+", 1)], receive_maximum=3, is_slow=True),
        ]
        for i in range(3):
            group = [("$share/group/s/#", 2)]
            found.append(Subscriber(self, f"member-{i}", group, away_chance=0.3 * (i == 2)))
        for i in range(3):
            churn = [(f"t/{n}/{qos}", 2) for n in range(publishers) for qos in (1, 2)]
            found.append(Subscriber(self, f"churn-{i}", [], churn))
        for i in range(idlers):
            one = [(f"t/{i % publishers}/{1 + i // publishers % 2}", 1 + i % 2)]
            found.append(Subscriber(self, f"idler-{i}", one, away_chance=0.2))
        return found

    def roles(self) -> list[Role]:
        """All clients."""
        return [*self.subscribers, *self.publishers, *self.dying]

    # --- the broker

    def broker_started(self, broker: Broker) -> None:
        """It is ready: those that are not away this time connect."""
        self.broker, self.is_stopping = broker, False
        for subscriber in self.subscribers:
            never_there = not subscriber.client.session_acknowledged
            is_here = never_there or self.random.random() >= subscriber.away_chance
            subscriber.wants_connection = is_here
        for will in self.ledger.wills.values():
            if will.state == "due":
                # The server begins to count again when it is back.
                will.due_s = max(will.due_s, time.monotonic() + will.delay_s)
        self._connect_all()

    def is_broker_alive(self) -> bool:
        """Whether its process runs, as far as we know."""
        return self.broker is not None and not self.broker.has_ended()

    def broker_gone(self, at_once: bool, began_s: float | None = None) -> None:
        """It was killed (`at_once`), or stopped, which began at `began_s`."""
        self.is_stopping = True
        if at_once:
            # What it had sent is ours, so the last acknowledgements count.
            for role in self.roles():
                role.client.pause(False)
            for _ in range(5):
                self.loop.turn(0)
        for role in self.roles():
            role.client.drop()
        for dying in self.dying:
            dying.broker_died(at_once, began_s)
        self.broker = None

    def _connect_all(self) -> None:
        now_s = time.monotonic()
        for role in self.roles():
            if role.client.sock is not None or not role.wants_connection:
                continue
            if isinstance(role, Dying):
                if now_s < role.back_s:
                    continue
                role.prepare()
            role.client.connect(self.broker.port)

    # --- load

    def run(self, duration_s: float) -> None:
        """Publishes and all else, until the time is over or the broker is gone."""
        end_s = time.monotonic() + duration_s
        for publisher in self.publishers:
            publisher.is_publishing = True
        next_s = 0.0
        while (now_s := time.monotonic()) < end_s and not self.broker.has_ended():
            if now_s >= next_s:
                next_s = now_s + 0.01
                self._connect_all()
                for role in self.roles():
                    role.act()
            self.loop.turn(0.002)

    def cut_some(self) -> None:
        """Some connections are lost, as it happens."""
        for role in self.random.sample(self.publishers + self.subscribers, 5):
            role.client.drop()

    # --- check

    def verify(self, everybody: bool = False) -> None:
        """Lets everything come to rest, and checks that nothing is missing.

        `everybody`: those who are away come back as well, and no will is left.
        """
        if self.settle(everybody, finish=True):
            self._check_retained()

    def settle(self, everybody: bool = False, finish: bool = True) -> bool:
        """As `verify`, without retained messages. `finish`: publishers get theirs acknowledged."""
        for subscriber in self.subscribers:
            subscriber.wants_connection |= everybody
            subscriber.client.pause(False)
        for dying in self.dying:
            # A client with a will stays away at the end, so that its will is sent.
            if everybody and dying.client.is_connected:
                dying.leave()
            dying.wants_connection = dying.wants_connection and not everybody
        last, since_s = -1, 0.0
        while unfinished := self._unfinished(finish, everybody):
            if self.ledger.arrivals != last:
                last, since_s = self.ledger.arrivals, time.monotonic()
            if time.monotonic() > since_s + self.drain_timeout_s or self.broker.has_ended():
                self._give_up(unfinished)
                return False
            self._connect_all()
            self.turns(0.015)
        self.turns(QUIET_S)
        return True

    def turns(self, duration_s: float) -> None:
        """Only reads and answers, for so long."""
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            self.loop.turn(left_s)

    def _unfinished(self, finish: bool, everybody: bool) -> list[str]:
        """What is still to come, in words; a few of them are enough."""
        found = []
        for role in self.roles():
            if isinstance(role, Dying):
                if not role.is_done():
                    found.append(f"{role.client.client_id} was not closed after DISCONNECT")
            elif role.wants_connection and not role.client.is_connected:
                why = f" (refused with {role.refusal:#x})" if role.refusal else ""
                found.append(f"{role.client.client_id} is not connected{why}")
            elif role.wants_connection and not role.is_done():
                if finish or not isinstance(role, Publisher):
                    found.append(f"{role.client.client_id} has unanswered packets")
            if isinstance(role, Subscriber) and role.client.is_connected:
                for subscription in [*role.subscriptions, *role.churn]:
                    if not subscription.is_shared:
                        found += self._missing(subscription)
            if found and len(found) > 20:
                return found
        members = [s for s in self.subscribers if any(x.is_shared for x in s.subscriptions)]
        if all(member.client.is_connected for member in members):
            for group in self.groups.values():
                found += self._missing(group)
        return found + self._missing_wills(everybody)

    def _missing(self, subscription: Subscription) -> list[str]:
        missing = self.ledger.missing(subscription)
        if not missing:
            return []
        named = ", ".join(f"{m.topic.name} #{m.number}" for m in missing[:5])
        return [f"{subscription.owner}: {len(missing)} acknowledged messages are missing: {named}"]

    def _missing_wills(self, everybody: bool) -> list[str]:
        found, now_s = [], time.monotonic()
        for subscriber in self.subscribers:
            for subscription in subscriber.subscriptions:
                if not subscriber.client.is_connected or subscription.filter != "w/#":
                    continue
                for will in self.ledger.missing_wills(subscription):
                    is_late = now_s > will.due_s + WILL_MARGIN_S
                    if will.delay_s < 5 and (everybody or is_late or not will.delay_s):
                        name = f"{will.topic} #{will.number}"
                        found.append(f"{subscription.owner}: will {name} is missing")
        return found

    def _give_up(self, unfinished: list[str]) -> None:
        if self.broker.has_ended():
            code = self.broker.process.returncode
            # First, as all else follows from it.
            self.ledger.violations.insert(0, f"the broker ended with {code}{self.broker.tail()}")
        for what in unfinished:
            self.ledger.violation(f"after {self.drain_timeout_s:g} s: {what}")

    def _check_retained(self) -> None:
        reader = RetainedReader(self)
        wanted = [topic for topic in self.ledger.topics.values() if topic.name[0] in "re"]
        must = {t.name for t in wanted if None not in self.ledger.may_be_retained(t)}
        reader.client.connect(self.broker.port)
        deadline_s = time.monotonic() + self.drain_timeout_s
        while not (reader.is_subscribed and must <= reader.found.keys()):
            if time.monotonic() > deadline_s or self.broker.has_ended():
                break
            self.loop.turn(0.005)
        self.turns(QUIET_S)
        for topic in wanted:
            self.ledger.check_retained(topic, reader.found.get(topic.name))
        reader.client.drop()


class RetainedReader(Handler):
    """A new session that takes all retained messages."""

    def __init__(self, world: World) -> None:
        self.ledger = world.ledger
        self.client = Client(world.loop, "retained-reader", self, clean_start=True, expiry_s=0)
        self.found: dict[str, bytes] = {}
        self.waiting = {"r/#", "e/#"}
        self.is_subscribed = False

    def violation(self, client: Client, what: str) -> None:
        self.ledger.violation(f"{client.client_id}: {what}")

    def connected(self, client: Client, session_present: bool) -> None:
        for topic_filter in self.waiting:
            client.request(Request(topic_filter, 1, retain_handling=0))

    def request_done(self, client: Client, request: Request) -> None:
        self.waiting.discard(request.filter)
        self.is_subscribed = not self.waiting

    def message(
        self, client: Client, topic: str, payload: bytes, qos: int, dup: bool, retain: bool
    ) -> None:
        if topic in self.found:
            self.violation(client, f"two retained messages of {topic}")
        if not retain:
            self.violation(client, f"{topic} came without the retain flag")
        self.found[topic] = payload
