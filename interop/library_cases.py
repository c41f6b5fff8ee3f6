"""Every scenario with every library, version and link; and each pair of libraries once."""

import contextlib
import itertools
from functools import partial

import relay
from brokers import Broker, Link
from harness import Case, Report
from peers import V5, V311, Connect, Message, Peer, Properties, Subscribe
from peers.aiomqtt_peer import AiomqttPeer
from peers.mqttjs_peer import MqttjsPeer
from peers.paho_peer import PahoPeer
from scenarios import SCENARIOS, Scenario, Stage, same

VERSIONS = {V311: "3.1.1", V5: "5.0"}


def cases(
    broker: Broker, others: contextlib.ExitStack, report: Report, without_node: str | None
) -> list[Case]:
    """All cases of the libraries; relays live as long as `others`."""
    libraries: list[type[Peer]] = [PahoPeer, AiomqttPeer, MqttjsPeer]
    if without_node:
        libraries.remove(MqttjsPeer)
        report.skip("mqttjs", without_node)
    links = [link for link in (broker.tcp, broker.websocket) if link]
    for name, link in (("websocket", broker.websocket), ("unix", broker.unix)):
        if link is None:
            report.skip(name, "no such listener given")
    torn = [others.enter_context(relay.torn(link)) for link in links]
    found = []
    for library, version in itertools.product(libraries, VERSIONS):
        for link, scenario in itertools.product([*links, *torn, broker.unix], SCENARIOS):
            if link is None or version not in scenario.versions:
                continue
            if link in torn and not scenario.torn:
                continue
            if link == broker.unix and library is MqttjsPeer:
                continue
            found.append(_case(library, version, link, scenario, len(found)))
    # The slow ones, which wait, start first.
    found.sort(key=lambda case: "thousand" not in case.name and "large" not in case.name)
    return found + _pairs(libraries, links)


def _case(
    library: type[Peer], version: int, link: Link, scenario: Scenario, number: int
) -> Case:
    name = f"{library.library} {VERSIONS[version]} {link.name}: {scenario.name}"

    def run() -> None:
        stage = Stage(library, link, version, f"interop{number}")
        try:
            scenario.run(stage)
        finally:
            stage.close()

    return Case(name, run)


def _pairs(libraries: list[type[Peer]], links: list[Link]) -> list[Case]:
    """From each library to each other, from each version to each, from each link to each."""
    ends = list(itertools.product(libraries, VERSIONS, links))
    return [
        Case(
            f"{a[0].library} {VERSIONS[a[1]]} {a[2].name} to "
            f"{b[0].library} {VERSIONS[b[1]]} {b[2].name}: message",
            partial(_exchange, a, b, f"pair{number}"),
        )
        for number, (a, b) in enumerate(itertools.product(ends, ends))
        if a[0] is not b[0]
    ]


def _exchange(sender: tuple, receiver: tuple, prefix: str) -> None:
    """QoS 2 with properties, which a receiver before 5.0 does not see."""
    peers = []
    try:
        for name, (library, version, link) in (("pub", sender), ("sub", receiver)):
            peers.append(library(Connect(link, version, f"{prefix}/{name}")))
            peers[-1].connect()
        properties = Properties(user=(("from", prefix),), content_type="text/plain")
        peers[1].subscribe(Subscribe(prefix, 2))
        peers[0].publish(Message(prefix, b"hello", 2, properties=properties))
        got = peers[1].receive()
        same((got.topic, got.payload, got.qos), (prefix, b"hello", 2), "message")
        both_v5 = sender[1] == receiver[1] == V5
        same(got.properties, properties if both_v5 else Properties(), "properties")
    finally:
        for peer in peers:
            peer.close()
