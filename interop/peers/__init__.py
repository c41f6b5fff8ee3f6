"""Real MQTT clients behind one small interface, so that each scenario is written once.

A `Peer` is one client: it connects, subscribes, publishes, and hands out what it received.
Calls block and end within `TIMEOUT_S`, with `Unanswered` if the broker stayed silent.
"""

import queue
from dataclasses import dataclass, field

from brokers import Link

TIMEOUT_S = 20.0
V311, V5 = 4, 5


class Unanswered(AssertionError):
    """The broker did not answer in time, or closed the connection."""


class Unsupported(Exception):
    """The client library offers no way to do this."""


@dataclass(frozen=True)
class Properties:
    """The properties of a message; `None` or empty where absent."""

    user: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    payload_format: int | None = None
    expiry_s: int | None = None
    topic_alias: int | None = None
    identifiers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Message:
    """A message to publish, or one received."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    properties: Properties = field(default_factory=Properties)
    will_delay_s: int | None = None


@dataclass(frozen=True)
class Connect:
    """What a client says in CONNECT."""

    link: Link
    version: int
    client_id: str
    clean: bool = True
    session_expiry_s: int | None = None
    will: Message | None = None
    username: str | None = None
    password: str | None = None
    keep_alive_s: int = 30
    receive_maximum: int | None = None
    maximum_packet_size: int | None = None
    topic_alias_maximum: int | None = None
    manual_ack: bool = False
    # Further headers of the WebSocket handshake.
    headers: dict[str, str] = field(default_factory=dict)
    # Authentication method, and the data that CONNECT carries.
    authentication: tuple[str, bytes] | None = None


@dataclass(frozen=True)
class Subscribe:
    """One subscription with its options."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    identifier: int | None = None


class Peer:
    """One client. A subclass wraps one library and fills `inbox` and `closings`."""

    library = "?"

    def __init__(self, connect: Connect) -> None:
        self.options = connect
        self.inbox: queue.Queue[Message] = queue.Queue()
        # Reason code of the server's DISCONNECT, or `None` when only the connection ended.
        self.closings: queue.Queue[int | None] = queue.Queue()
        self.session_present: bool | None = None
        self.assigned_client_id: str | None = None

    def connect(self) -> None:
        """Connects; sets `session_present` where the library tells."""
        raise NotImplementedError

    def subscribe(self, *subscriptions: Subscribe) -> list[int]:
        """One SUBSCRIBE; returns the codes of its SUBACK."""
        raise NotImplementedError

    def unsubscribe(self, topic_filter: str) -> None:
        """Returns after UNSUBACK."""
        raise NotImplementedError

    def publish(self, *messages: Message) -> None:
        """Publishes without waiting in between; returns when all are acknowledged."""
        raise NotImplementedError

    def acknowledge(self, message: Message) -> None:
        """Acknowledges a received message, with `manual_ack`."""
        raise Unsupported

    def disconnect(self, with_will: bool = False) -> None:
        """DISCONNECT, then the end of the connection."""
        raise NotImplementedError

    def drop(self) -> None:
        """Cuts the connection without DISCONNECT."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees everything; never fails."""

    def receive(self, timeout_s: float = TIMEOUT_S) -> Message:
        """The next message."""
        try:
            return self.inbox.get(timeout=timeout_s)
        except queue.Empty:
            raise Unanswered(f"{self.options.client_id}: no message in {timeout_s} s") from None

    def receive_closing(self) -> int | None:
        """Waits until the server ends the connection; the reason code if it sent one."""
        try:
            return self.closings.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise Unanswered(f"{self.options.client_id}: connection was not closed") from None
