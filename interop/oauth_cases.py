"""OAuth against a real authorization server: `oidc-provider`, on loopback."""

import base64
import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import brokers
import environment
from brokers import Link
from harness import Case
from peers import TIMEOUT_S, V5, V311, Connect, Message, Peer, Subscribe
from peers.mqttjs_peer import MqttjsPeer
from peers.paho_peer import PahoPeer
from scenarios import same
from tls_cases import refuse

METHOD = "OAUTH2-JWT"
NOT_AUTHORIZED = 0x87
CLIENT, OTHER = "device", "other"
SCOPE = "mqtt:pub:dev/%u/# mqtt:sub:dev/%u/#"
# Life of a short token, and how long the broker believes that an opaque one is valid.
SHORT_S, CACHE_S = 4, 1
START_TIMEOUT_S = 20

CONFIG = """\
[[listener]]
type = "tcp"
bind = "127.0.0.1:0"

[[listener]]
type = "websocket"
bind = "127.0.0.1:0"
path = "/mqtt"

[[token]]
issuer = "{issuer}"
audience = ["mqtt.interop"]
leeway_s = 0
name_claims = ["client_id"]
[token.introspection]
client_id = "broker"
client_secret_file = "{folder}/secret"
cache_s = {cache_s}
"""


@dataclass(frozen=True)
class Place:
    """A broker that trusts an authorization server."""

    issuer: str
    tcp: Link
    websocket: Link

    def token(self, kind: str, client: str = CLIENT, scope: str = SCOPE) -> str:
        """An access token: `RS256`, `ES256` or `opaque`, with `:short` or `:elsewhere`."""
        answer = self._post(
            "/token",
            client,
            grant_type="client_credentials",
            resource=f"urn:interop:{kind}",
            scope=scope,
        )
        found = json.loads(answer)
        same(found["scope"], scope, "granted scope")
        return found["access_token"]

    def revoke(self, token: str) -> None:
        """As the client it was issued to (RFC 7009)."""
        self._post("/token/revocation", CLIENT, token=token)

    def _post(self, path: str, client: str, **form: str) -> bytes:
        secret = urllib.parse.quote_plus(f"{client} has a secret")
        authorization = base64.b64encode(f"{client}:{secret}".encode()).decode()
        request = urllib.request.Request(
            self.issuer + path,
            urllib.parse.urlencode(form).encode(),
            {"Authorization": f"Basic {authorization}"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.read()


@contextlib.contextmanager
def place(binary: str) -> Iterator[Place]:
    """Starts both."""
    with _provider() as issuer, tempfile.TemporaryDirectory(prefix="whimbrel-oauth-") as folder:
        (Path(folder) / "secret").write_text("broker has a secret\n")
        config = CONFIG.format(issuer=issuer, folder=folder, cache_s=CACHE_S)
        with brokers.configured(binary, Path(folder), config) as (tcp, websocket):
            yield Place(issuer, tcp, websocket)


@contextlib.contextmanager
def _provider() -> Iterator[str]:
    process = subprocess.Popen(
        ["node", str(Path(__file__).parent / "oauth" / "provider.mjs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "INTEROP_NODE": str(environment.NODE), "SHORT_S": str(SHORT_S)},
    )
    # Ends the wait below should nothing come.
    guard = threading.Timer(START_TIMEOUT_S, process.kill)
    guard.start()
    try:
        issuer = next((line.split()[1] for line in process.stdout if "issuer " in line), None)
        guard.cancel()
        if issuer is None:
            raise AssertionError("oidc-provider did not start")
        yield issuer
    finally:
        guard.cancel()
        process.kill()
        process.wait()


def cases(found: Place) -> list[Case]:
    """Each kind of token by each carrier, and what becomes of tokens."""
    kinds = ("RS256", "ES256", "opaque")
    carriers: dict[str, Callable[[str], Peer]] = {
        "paho 3.1.1 password": partial(_by_password, PahoPeer, V311, found.tcp),
        "paho 5.0 password": partial(_by_password, PahoPeer, V5, found.tcp),
        "paho 5.0 Authorization": partial(_by_header, PahoPeer, found.websocket),
        "mqttjs 3.1.1 password": partial(_by_password, MqttjsPeer, V311, found.tcp),
        "mqttjs 5.0 password": partial(_by_password, MqttjsPeer, V5, found.websocket),
        "mqttjs 5.0 Authorization": partial(_by_header, MqttjsPeer, found.websocket),
        f"mqttjs 5.0 {METHOD}": partial(_by_method, found.tcp),
    }
    made = []
    for (name, carrier), kind in itertools.product(carriers.items(), kinds):
        for step in (messages, elsewhere):
            what = f"oauth {name} {kind}: {step.__name__}"
            made.append(Case(what, partial(step, found, carrier, kind)))
    for kind, step in itertools.product(kinds, (ends, renewed, of_another, fewer_rights)):
        what = f"oauth {kind}: {step.__name__.replace('_', ' ')}"
        made.append(Case(what, partial(step, found, kind)))
    for name, carrier in carriers.items():
        made.append(Case(f"oauth {name} opaque: revoked", partial(revoked, found, carrier)))
    return made


_serial = itertools.count(1)


def _by_password(library: type[Peer], version: int, link: Link, token: str) -> Peer:
    client_id = f"oauth{next(_serial)}"
    return library(Connect(link, version, client_id, username="ignored", password=token))


def _by_header(library: type[Peer], link: Link, token: str) -> Peer:
    headers = {"Authorization": f"Bearer {token}"}
    return library(Connect(link, V5, f"oauth{next(_serial)}", headers=headers))


def _by_method(link: Link, token: str) -> MqttjsPeer:
    authentication = (METHOD, token.encode())
    return MqttjsPeer(Connect(link, V5, f"oauth{next(_serial)}", authentication=authentication))


def messages(found: Place, carrier: Callable[[str], Peer], kind: str) -> None:
    """Within the scopes, and not beyond."""
    peer = carrier(found.token(kind))
    try:
        peer.connect()
        _within_scopes(peer)
    finally:
        peer.close()


def _within_scopes(peer: Peer) -> None:
    for topic in ("#", "dev/#", f"dev/{OTHER}/x", "news/today", f"$share/g/dev/{OTHER}/x"):
        same(peer.subscribe(Subscribe(topic, 1))[0] in (NOT_AUTHORIZED, 0x80), True, topic)
    topic = f"dev/{CLIENT}/{peer.options.client_id}"
    same(peer.subscribe(Subscribe(topic, 1)), [1], "its own topic")
    peer.publish(Message(topic, b"hello", 1))
    same(peer.receive().payload, b"hello", "message")


def elsewhere(found: Place, carrier: Callable[[str], Peer], kind: str) -> None:
    """A token for another service is refused."""
    peer = carrier(found.token(f"{kind}:elsewhere"))
    refuse(peer.options, type(peer))
    peer.close()


def ends(found: Place, kind: str) -> None:
    """With its token, wherever that was carried."""
    token = found.token(f"{kind}:short")
    peers = [
        _by_password(PahoPeer, V5, found.tcp, token),
        _by_header(MqttjsPeer, found.websocket, token),
        _by_method(found.tcp, token),
    ]
    try:
        for peer in peers:
            peer.connect()
        for peer in peers:
            same(peer.receive_closing(), NOT_AUTHORIZED, "reason code of DISCONNECT")
    finally:
        for peer in peers:
            peer.close()


def renewed(found: Place, kind: str) -> None:
    """A client that renews its token outlives one with the same that does not."""
    token = found.token(f"{kind}:short")
    stays, goes = _by_method(found.tcp, token), _by_method(found.tcp, token)
    try:
        stays.connect()
        goes.connect()
        same(stays.authenticate(found.token(kind).encode())[0], 0, "reason code of AUTH")
        same(goes.receive_closing(), NOT_AUTHORIZED, "reason code of DISCONNECT")
        _within_scopes(stays)
    finally:
        stays.close()
        goes.close()


def of_another(found: Place, kind: str) -> None:
    """Renewal with the token of another client ends the connection."""
    peer = _by_method(found.tcp, found.token(kind))
    try:
        peer.connect()
        peer.renew(found.token(kind, OTHER).encode())
        same(peer.receive_closing(), NOT_AUTHORIZED, "reason code of DISCONNECT")
    finally:
        peer.close()


def fewer_rights(found: Place, kind: str) -> None:
    """Renewal with fewer scopes takes subscriptions away."""
    reader = _by_method(found.tcp, found.token(kind))
    writer = _by_password(PahoPeer, V5, found.tcp, found.token(kind))
    topic = f"dev/{CLIENT}/fewer/{kind}"
    try:
        reader.connect()
        writer.connect()
        same(reader.subscribe(Subscribe(topic, 1)), [1], "its own topic")
        writer.publish(Message(topic, b"before", 1))
        same(reader.receive().payload, b"before", "message")
        less = found.token(kind, scope="mqtt:pub:dev/%u/# mqtt:sub:news/#")
        same(reader.authenticate(less.encode())[0], 0, "reason code of AUTH")
        writer.publish(Message(topic, b"after", 1))
        # What came would have come before this answer.
        same(reader.subscribe(Subscribe(topic, 1))[0] in (NOT_AUTHORIZED, 0x80), True, topic)
        same(reader.inbox.qsize(), 0, "messages after the renewal")
    finally:
        reader.close()
        writer.close()


def revoked(found: Place, carrier: Callable[[str], Peer]) -> None:
    """A token that its client takes back ends the connection."""
    token = found.token("opaque")
    peer = carrier(token)
    try:
        peer.connect()
        found.revoke(token)
        reason = peer.receive_closing()
        wanted = NOT_AUTHORIZED if peer.options.version == V5 else None
        same(reason, wanted, "reason code of DISCONNECT")
    finally:
        peer.close()
    again = carrier(token)
    refuse(again.options, type(again))
    again.close()
