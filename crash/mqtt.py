"""A small MQTT 5 client for many connections in one thread.

A `Client` is a session of the client's side: it outlives its network connections. What was sent
with QoS 1 or 2 and not acknowledged is sent again, in its order and with DUP, when the next CONNACK
has session present 1; identifiers of received QoS 2 messages are remembered until their PUBREL. A
`Loop` reads and writes for all of them. What happens is told to a `Handler`; what the server must
never do is told to `Handler.violation`.
"""

import errno
import selectors
import socket
import struct
from dataclasses import dataclass, field

NEVER = 0xFFFFFFFF
READ_BYTES = 256 * 1024

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(8, 15)

PACKET_ID_NOT_FOUND = 0x92
QUOTA_EXCEEDED = 0x97


class Handler:
    """What a client reports; each method may be overridden."""

    def violation(self, client: "Client", what: str) -> None:
        """The server broke a rule."""

    def connected(self, client: "Client", session_present: bool) -> None:
        """A CONNACK with reason 0 has come; in-flight messages were sent again already."""

    def refused(self, client: "Client", reason: int) -> None:
        """A CONNACK with an error has come."""

    def closed(self, client: "Client", reason: int | None) -> None:
        """The connection ended otherwise than by us; `reason` is that of a DISCONNECT."""

    def left(self, client: "Client") -> None:
        """The server has closed the connection after our DISCONNECT."""

    def sending(self, client: "Client", token: object) -> None:
        """A PUBLISH with this token goes out, for the first time or again."""

    def acknowledged(self, client: "Client", token: object, reason: int) -> None:
        """The server took a message over (PUBACK, PUBREC), or refused it (reason from 0x80)."""

    def completed(self, client: "Client", token: object) -> None:
        """Nothing more is to come for this message: its identifier is free."""

    def message(
        self, client: "Client", topic: str, payload: bytes, qos: int, dup: bool, retain: bool
    ) -> None:
        """A message, each QoS 2 message once as far as its identifier tells."""

    def request_done(self, client: "Client", request: "Request") -> None:
        """SUBACK or UNSUBACK has come."""


@dataclass
class Will:
    """What CONNECT says about a will message."""

    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    delay_s: int = 0


@dataclass
class Request:
    """A SUBSCRIBE (with `qos`) or UNSUBSCRIBE (without) of one filter."""

    filter: str
    qos: int | None = None
    # 0: send retained messages, 2: do not.
    retain_handling: int = 2
    token: object = None
    reason: int | None = None


@dataclass
class Outgoing:
    """A message that we sent and that is not complete."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    token: object
    # PUBREC has come, PUBREL is what is to be sent again.
    released: bool = False
    # PUBREL went out on a connection before this one, so PUBCOMP may say "not found".
    released_before: bool = False


@dataclass
class Client:
    """A session and, at times, its connection."""

    loop: "Loop"
    client_id: str
    handler: Handler
    clean_start: bool = False
    expiry_s: int = NEVER
    will: Will | None = None
    # How many QoS 1 and 2 messages the server may have in flight to us; 0: do not say.
    receive_maximum: int = 0
    # Sent to the server and not complete, by packet identifier, in the order of sending.
    in_flight: dict[int, Outgoing] = field(default_factory=dict)
    # QoS 2 messages received and not released: identifier -> hash of topic and payload.
    received: dict[int, int] = field(default_factory=dict)
    # Without answer on this connection.
    requests: dict[int, Request] = field(default_factory=dict)
    # A CONNACK for a session that does not end with its connection was received.
    session_acknowledged: bool = False
    # The first CONNACK of a connection has come, and the connection has not ended.
    is_connected: bool = False
    # DISCONNECT was sent, and the server has not closed yet.
    is_leaving: bool = False
    server_receive_maximum: int = 65535
    server_packet_bytes: int = 268435455

    def __post_init__(self) -> None:
        self.sock: socket.socket | None = None
        self._in = bytearray()
        self._out = bytearray()
        self._next_id = 1
        self._is_paused = False
        self._wants_write = False

    # --- commands

    def connect(self, port: int) -> None:
        """Opens a connection to 127.0.0.1 and sends CONNECT; the outcome comes by the handler."""
        assert self.sock is None
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.sock.connect_ex(("127.0.0.1", port)) not in (0, errno.EINPROGRESS):
            self._lost(None)
            return
        self.loop.watch(self)
        self._send(self._connect_packet())

    def leave(self) -> None:
        """Sends DISCONNECT with reason 0, which voids the will; the server is to close then.

        To close at once could reset the connection before the server has read the DISCONNECT.
        """
        self._send(b"\xe0\x00")
        self.is_connected, self.is_leaving = False, True

    def drop(self) -> None:
        """Closes the connection without a word."""
        if self.sock is not None:
            self.loop.forget(self)
            self.sock.close()
        self.sock = None
        self.is_connected = self.is_leaving = False
        self._in.clear()
        self._out.clear()
        self.requests.clear()
        self._wants_write = False
        for outgoing in self.in_flight.values():
            outgoing.released_before = outgoing.released

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, token: object) -> None:
        """Sends a message of QoS 1 or 2. Only while connected and `may_publish`."""
        packet_id = self._free_id()
        outgoing = Outgoing(topic.encode(), payload, qos, retain, token)
        self.in_flight[packet_id] = outgoing
        self._send_publish(packet_id, outgoing, dup=False)

    def request(self, request: Request) -> None:
        """Sends SUBSCRIBE or UNSUBSCRIBE; it is void if the connection ends before the answer."""
        packet_id = self._free_id()
        self.requests[packet_id] = request
        body = struct.pack(">HB", packet_id, 0) + _text(request.filter)
        if request.qos is None:
            self._send(b"\xa2" + _varint(len(body)) + body)
        else:
            body += bytes((request.qos | request.retain_handling << 4,))
            self._send(b"\x82" + _varint(len(body)) + body)

    def pause(self, is_paused: bool) -> None:
        """A paused client does not read."""
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            if self.sock is not None:
                self.loop.update(self)

    def may_publish(self, window: int) -> bool:
        """Connected, and fewer than `window` messages are in flight."""
        return self.is_connected and len(self.in_flight) < min(window, self.server_receive_maximum)

    # --- for the loop

    def interest(self) -> int:
        """What the selector is to wait for; 0: nothing."""
        reading = 0 if self._is_paused and self.is_connected else selectors.EVENT_READ
        return reading | (selectors.EVENT_WRITE if self._wants_write else 0)

    def handle_readable(self) -> None:
        """Reads once and handles all whole packets."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(None)
            return
        self._in += data
        self._handle_packets()

    def handle_writable(self) -> None:
        """Writes what waits."""
        self._flush()

    # --- output

    def _connect_packet(self) -> bytes:
        properties = struct.pack(">BI", 0x11, self.expiry_s)
        if self.receive_maximum:
            properties += struct.pack(">BH", 0x21, self.receive_maximum)
        flags = 2 if self.clean_start else 0
        tail = _text(self.client_id)
        if will := self.will:
            flags |= 4 | will.qos << 3 | (32 if will.retain else 0)
            delay = struct.pack(">BI", 0x18, will.delay_s) if will.delay_s else b""
            tail += _varint(len(delay)) + delay + _text(will.topic)
            tail += struct.pack(">H", len(will.payload)) + will.payload
        head = b"\x00\x04MQTT\x05" + bytes((flags, 0, 0)) + _varint(len(properties)) + properties
        return b"\x10" + _varint(len(head) + len(tail)) + head + tail

    def _send_publish(self, packet_id: int, outgoing: Outgoing, dup: bool) -> None:
        self.handler.sending(self, outgoing.token)
        first = 0x30 | outgoing.qos << 1 | (8 if dup else 0) | (1 if outgoing.retain else 0)
        head = struct.pack(">H", len(outgoing.topic)) + outgoing.topic
        head += struct.pack(">HB", packet_id, 0)
        self._send(bytes((first,)) + _varint(len(head) + len(outgoing.payload)) + head)
        self._out += outgoing.payload

    def _send(self, data: bytes) -> None:
        self._out += data
        self.loop.has_output.add(self)

    def _flush(self) -> None:
        if self.sock is None:
            return
        try:
            while self._out:
                sent = self.sock.send(self._out)
                del self._out[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            # Not connected yet; or the end of it, which reading will tell.
            if error.errno != errno.ENOTCONN:
                self._out.clear()
        wants_write = bool(self._out)
        if wants_write != self._wants_write:
            self._wants_write = wants_write
            self.loop.update(self)

    def _free_id(self) -> int:
        while self._next_id in self.in_flight or self._next_id in self.requests:
            self._next_id = self._next_id % 65535 + 1
        packet_id = self._next_id
        self._next_id = packet_id % 65535 + 1
        return packet_id

    # --- input

    def _handle_packets(self) -> None:
        data, at, sock = self._in, 0, self.sock
        while self.sock is sock and len(data) - at >= 2:
            length, shift, start = 0, 0, at + 1
            while start < len(data):
                byte = data[start]
                length |= (byte & 0x7F) << shift
                start, shift = start + 1, shift + 7
                if byte < 0x80:
                    break
            else:
                break
            end = start + length
            if end > len(data):
                break
            first, body = data[at], bytes(data[start:end])
            at = end
            self._handle_packet(first, body)
        if self.sock is sock and sock is not None:
            del data[:at]

    def _handle_packet(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if not self.is_connected and not self.is_leaving and kind not in (CONNACK, DISCONNECT):
            self.handler.violation(self, f"sent a packet of type {kind} before CONNACK")
        if kind == PUBLISH:
            self._handle_publish(first, body)
        elif kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
            packet_id = body[0] << 8 | body[1]
            self._handle_ack(kind, packet_id, body[2] if len(body) > 2 else 0)
        elif kind == CONNACK:
            self._handle_connack(body)
        elif kind in (SUBACK, UNSUBACK):
            self._handle_request_answer(kind, body)
        elif kind == DISCONNECT:
            self._lost(body[0] if body else 0)
        elif kind != PINGRESP:
            self.handler.violation(self, f"sent a packet of type {kind}")

    def _handle_connack(self, body: bytes) -> None:
        session_present, reason = bool(body[0] & 1), body[1]
        if reason:
            self.drop()
            self.handler.refused(self, reason)
            return
        properties = parse_properties(body, 2)[0]
        self.server_receive_maximum = properties.get(0x21, 65535)
        self.server_packet_bytes = properties.get(0x27, 268435455)
        self.is_connected = True
        if self.clean_start and session_present:
            self.handler.violation(self, "session present 1 after Clean Start 1")
        if not self.clean_start and not session_present and self.session_acknowledged:
            self.handler.violation(self, "session present 0 for an acknowledged session")
        if not session_present:
            # Whoever published these learns from the handler that they are void.
            self.in_flight.clear()
            self.received.clear()
        self.session_acknowledged = self.expiry_s != 0
        for packet_id, outgoing in self.in_flight.items():
            if outgoing.released:
                self._send(struct.pack(">BBH", 0x62, 2, packet_id))
            else:
                self._send_publish(packet_id, outgoing, dup=True)
        if self._is_paused:
            self.loop.update(self)
        self.handler.connected(self, session_present)

    def _handle_publish(self, first: int, body: bytes) -> None:
        qos, dup, retain = first >> 1 & 3, bool(first & 8), bool(first & 1)
        at = 2 + (body[0] << 8 | body[1])
        topic = body[2:at].decode()
        packet_id = 0
        if qos:
            packet_id = body[at] << 8 | body[at + 1]
            at += 2
        at = at + 1 if body[at] == 0 else parse_properties(body, at)[1]
        payload = body[at:]
        if qos == 1:
            self._send(struct.pack(">BBH", 0x40, 2, packet_id))
        elif qos == 2:
            self._send(struct.pack(">BBH", 0x50, 2, packet_id))
            content = hash((topic, payload))
            if packet_id in self.received:
                if self.received[packet_id] != content:
                    self.handler.violation(self, f"QoS 2 identifier {packet_id} used for another")
                elif not dup:
                    self.handler.violation(self, f"QoS 2 identifier {packet_id} again without DUP")
                return
            self.received[packet_id] = content
        self.handler.message(self, topic, payload, qos, dup, retain)

    def _handle_ack(self, kind: int, packet_id: int, reason: int) -> None:
        if kind == PUBREL:
            known = self.received.pop(packet_id, None) is not None
            answer = b"\x70\x02" if known else b"\x70\x03"
            self._send(answer + struct.pack(">H", packet_id) + (b"" if known else b"\x92"))
            return
        outgoing = self.in_flight.get(packet_id)
        wanted = outgoing and (outgoing.qos == 2) == (kind != PUBACK)
        if not wanted or (kind == PUBCOMP and not outgoing.released):
            self.handler.violation(self, f"packet of type {kind} for identifier {packet_id}")
            return
        if kind == PUBREC and reason < 0x80:
            if not outgoing.released:
                outgoing.released = True
                self.handler.acknowledged(self, outgoing.token, reason)
            self._send(struct.pack(">BBH", 0x62, 2, packet_id))
            return
        if kind == PUBCOMP:
            if reason and not (reason == PACKET_ID_NOT_FOUND and outgoing.released_before):
                self.handler.violation(self, f"PUBCOMP with reason {reason:#x}")
        else:
            self.handler.acknowledged(self, outgoing.token, reason)
        del self.in_flight[packet_id]
        self.handler.completed(self, outgoing.token)

    def _handle_request_answer(self, kind: int, body: bytes) -> None:
        request = self.requests.pop(body[0] << 8 | body[1], None)
        if request is None or (request.qos is not None) != (kind == SUBACK):
            self.handler.violation(self, f"packet of type {kind} without a request")
            return
        request.reason = body[parse_properties(body, 2)[1]]
        self.handler.request_done(self, request)

    def _lost(self, reason: int | None) -> None:
        was_leaving = self.is_leaving
        self.drop()
        if was_leaving:
            self.handler.left(self)
        else:
            self.handler.closed(self, reason)

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Loop:
    """Reads and writes for all clients, in the thread that calls `turn`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.has_output: set[Client] = set()

    def renew(self) -> None:
        """After a fork: the child's own, without connections."""
        self._selector = selectors.DefaultSelector()
        self.has_output.clear()

    def turn(self, timeout_s: float) -> None:
        """Sends what waits, handles what has come, sends the answers."""
        self._flush()
        for key, events in self._selector.select(timeout_s):
            client = key.data
            if events & selectors.EVENT_WRITE and client.sock is key.fileobj:
                client.handle_writable()
            if events & selectors.EVENT_READ and client.sock is key.fileobj:
                client.handle_readable()
        self._flush()

    def watch(self, client: Client) -> None:
        """The client has a new socket."""
        self._selector.register(client.sock, client.interest(), client)

    def update(self, client: Client) -> None:
        """The client wants to wait for something else."""
        interest = client.interest()
        is_watched = client.sock in self._selector.get_map()
        if is_watched and interest:
            self._selector.modify(client.sock, interest, client)
        elif is_watched:
            self._selector.unregister(client.sock)
        elif interest:
            self._selector.register(client.sock, interest, client)

    def forget(self, client: Client) -> None:
        """The client's socket will be closed."""
        if client.sock in self._selector.get_map():
            self._selector.unregister(client.sock)

    def _flush(self) -> None:
        ready, self.has_output = self.has_output, set()
        for client in ready:
            client.handle_writable()


# Lengths of property values by identifier; strings and binary data have their length before them.
_FIXED = {0x01: 1, 0x02: 4, 0x11: 4, 0x13: 2, 0x17: 1, 0x18: 4, 0x19: 1, 0x21: 2, 0x22: 2}
_FIXED |= {0x23: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}


def parse_properties(body: bytes, at: int) -> tuple[dict[int, object], int]:
    """The properties at `at`, and where they end. MQTT 5.0, 2.2.2."""
    length, at = _read_varint(body, at)
    end, found = at + length, {}
    while at < end:
        identifier, at = body[at], at + 1
        if identifier == 0x0B:
            found[identifier], at = _read_varint(body, at)
        elif size := _FIXED.get(identifier):
            found[identifier] = int.from_bytes(body[at : at + size], "big")
            at += size
        else:
            for _ in range(2 if identifier == 0x26 else 1):
                size = body[at] << 8 | body[at + 1]
                found[identifier] = body[at + 2 : at + 2 + size]
                at += 2 + size
    return found, end


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = body[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data
