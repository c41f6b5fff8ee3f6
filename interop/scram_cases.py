"""SCRAM as enhanced authentication: MQTT.js carries what the library scramp says."""

import itertools
from functools import partial

from brokers import Link
from harness import Case
from peers import V5, Connect, Message, Subscribe, Unanswered
from peers.mqttjs_peer import CONTINUE, MqttjsPeer
from scenarios import same
from scramp import ScramClient, ScramException
from secure import PASSWORD, USER, Secure

METHODS = ("SCRAM-SHA-256", "SCRAM-SHA-512")


def cases(secure: Secure) -> list[Case]:
    """Each method, over TCP and wss."""
    steps = (login, again, wrong_password, unknown_user, tampered_proof)
    links = (secure.plain, secure.wss)
    return [
        Case(
            f"scramp {method} {link.name}: {step.__name__.replace('_', ' ')}",
            partial(step, method, link),
        )
        for method, link, step in itertools.product(METHODS, links, steps)
    ]


class Login:
    """One exchange of a client."""

    def __init__(self, method: str, link: Link, password: str = PASSWORD, user: str = USER) -> None:
        self.scram = ScramClient([method], user, password)
        first = self.scram.get_client_first().encode()
        client_id = f"{method}-{link.name}-{id(self)}"
        self.peer = MqttjsPeer(Connect(link, V5, client_id, authentication=(method, first)))

    def run(self, change=lambda text: text) -> None:
        """Until CONNACK, whose data proves that the broker knows the user's keys."""
        waiting = self.peer.connect_later()
        self._answer(*self.peer.challenge(), change)
        waiting()
        self.scram.set_server_final(self.peer.conclusion.decode())

    def again(self, method: str) -> None:
        """The same on the connection that stands."""
        self.scram = ScramClient([method], USER, PASSWORD)
        self._answer(*self.peer.authenticate(self.scram.get_client_first().encode()))
        reason, data = self.peer.challenge()
        same(reason, 0, "reason code of AUTH")
        self.scram.set_server_final(data.decode())

    def _answer(self, reason: int, data: bytes, change=lambda text: text) -> None:
        same(reason, CONTINUE, "reason code of AUTH")
        self.scram.set_server_first(data.decode())
        self.peer.answer(change(self.scram.get_client_final()).encode())


def login(method: str, link: Link) -> None:
    """Both know the password, and messages flow."""
    exchange = Login(method, link)
    try:
        exchange.run()
        _exchange_message(exchange.peer)
    finally:
        exchange.peer.close()


def again(method: str, link: Link) -> None:
    """Re-authentication, twice, with messages after it."""
    exchange = Login(method, link)
    try:
        exchange.run()
        for _ in range(2):
            exchange.again(method)
        _exchange_message(exchange.peer)
    finally:
        exchange.peer.close()


def wrong_password(method: str, link: Link) -> None:
    """Is refused."""
    _refused(Login(method, link, password="guess"))


def unknown_user(method: str, link: Link) -> None:
    """Gets a challenge like everybody, and is refused."""
    _refused(Login(method, link, user="nobody"))


def tampered_proof(method: str, link: Link) -> None:
    """With one letter changed is refused."""

    def tampered(text: str) -> str:
        before, proof = text.split(",p=")
        return f"{before},p={'B' if proof[0] == 'A' else 'A'}{proof[1:]}"

    _refused(Login(method, link), tampered)


def _refused(exchange: Login, change=lambda text: text) -> None:
    try:
        exchange.run(change)
    except Unanswered as error:
        same("bad user name or password" in str(error).lower(), True, f"{error}: why refused")
        return
    except ScramException as error:
        raise AssertionError(f"let in, and then: {error}") from None
    finally:
        exchange.peer.close()
    raise AssertionError("it was let in")


def _exchange_message(peer: MqttjsPeer) -> None:
    topic = f"scram/{peer.options.client_id}"
    peer.subscribe(Subscribe(topic, 1))
    peer.publish(Message(topic, b"hello", 1))
    same(peer.receive().payload, b"hello", "message")
