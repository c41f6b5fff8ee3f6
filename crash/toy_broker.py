#!/usr/bin/env python3
"""A slow, small, durable MQTT 5 broker to test the crash tests with: `self_test.py` starts it.

It has the command line, the lines on stdout and the exit codes of Whimbrel, and a log of commands:
a command is written, applied, synced, and only then answered. $TOY_FAULT names one of `FAULTS`,
each of which some check must notice.
"""

import errno
import os
import pickle
import selectors
import signal
import socket
import struct
import sys
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ledger import matches
from mqtt import parse_properties

FAULTS = (
    "no-sync",
    "no-directory-sync",
    "answers-before-writing",
    "forgets-a-session",
    "forgets-subscriptions",
    "qos-2-again",
    "no-dup",
    "wrong-order",
    "old-retained",
    "will-twice",
    "no-will",
    "wrong-payload",
    "skips-a-message",
    "ignores-damage",
    "loses-when-full",
    "accepts-nothing-after-full",
)
FAULT = os.environ.get("TOY_FAULT", "")
FRAME = struct.Struct("<4sIIQQ")
RESERVE_BYTES = 1 << 20


class Log:
    """Frames of pickled commands; as in Whimbrel's format each says what was synced before it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.size, self.synced, self.is_full = folder, 0, 0, False
        self.pending: list[tuple] = []

    def open(self) -> list[tuple]:
        """What it holds. Exits with 2 when it is damaged."""
        stamp, path = self.folder / "STORE", self.folder / "log-0000000000000000"
        for old in self.folder.glob("*.tmp"):
            old.unlink()
        if path.exists() != stamp.exists() and stamp.exists():
            self.refuse(stamp, 0, "the log is gone")
        if stamp.exists() and stamp.read_bytes() != b"toy store\nformat 1\n":
            self.refuse(stamp, 0, "unknown contents")
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        commands = self._read(path)
        reserve = self.folder / "reserve"
        if not reserve.exists():
            with open(reserve, "wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
                except OSError:
                    reserve.unlink()
        os.fsync(self.fd)
        if not stamp.exists():
            with open(self.folder / "STORE.tmp", "w") as file:
                file.write("toy store\nformat 1\n")
                file.flush()
                os.fsync(file.fileno())
            os.rename(self.folder / "STORE.tmp", stamp)
        self.sync_folder()
        return commands

    def _read(self, path: Path) -> list[tuple]:
        data, commands, at = path.read_bytes(), [], 0
        while (frame := self._frame(data, at)) is not None:
            commands += pickle.loads(frame[1])
            at += FRAME.size + len(frame[1])
        if at < len(data):
            # A whole frame behind it that says this was synced: not torn, but damaged.
            found = data.find(b"TOY1", at)
            while found >= 0:
                frame = self._frame(data, found)
                if frame and frame[0] > at and FAULT != "ignores-damage":
                    self.refuse(path, at, "damaged")
                found = data.find(b"TOY1", found + 1)
            os.ftruncate(self.fd, at)
        os.lseek(self.fd, at, os.SEEK_SET)
        self.size = at
        return commands

    def _frame(self, data: bytes, at: int) -> tuple[int, bytes] | None:
        if at + FRAME.size > len(data):
            return None
        magic, length, crc, position, synced = FRAME.unpack_from(data, at)
        body = data[at + FRAME.size : at + FRAME.size + length]
        if magic != b"TOY1" or position != at or len(body) != length:
            return None
        return (synced, body) if crc == self._crc(position, synced, body) else None

    def _crc(self, position: int, synced: int, body: bytes) -> int:
        return zlib.crc32(body, zlib.crc32(struct.pack("<QQ", position, synced)))

    def refuse(self, path: Path, at: int, why: str) -> None:
        """The end."""
        print(f"{path} at offset {at}: {why}; see `whimbrel store check`", file=sys.stderr)
        sys.exit(2)

    def write(self) -> bool:
        """Writes what was added; False if there is no room, and then it is dropped."""
        body = pickle.dumps(self.pending)
        crc = self._crc(self.size, self.synced, body)
        data = FRAME.pack(b"TOY1", len(body), crc, self.size, self.synced) + body
        try:
            at = self.size
            while data:
                written = os.pwrite(self.fd, data, at)
                data, at = data[written:], at + written
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG):
                raise
            os.ftruncate(self.fd, self.size)
            self.is_full = True
            return False
        self.size = at
        self.pending.clear()
        return True

    def sync(self) -> None:
        """What was written is durable."""
        while FAULT != "no-sync":
            try:
                os.fdatasync(self.fd)
                break
            except OSError:
                # What it was to cover is lost, so all is written again to another file.
                self.replace(self.all())
        self.synced = self.size

    def all(self) -> list[tuple]:
        """All commands, as this process sees them."""
        data, commands, at = os.pread(self.fd, self.size, 0), [], 0
        while at < len(data):
            frame = self._frame(data, at)
            commands += pickle.loads(frame[1])
            at += FRAME.size + len(frame[1])
        return commands

    def replace(self, commands: list[tuple]) -> bool:
        """A new log with these commands takes the place of the old."""
        temporary, path = self.folder / "log.tmp", self.folder / "log-0000000000000000"
        old = (self.fd, self.size, self.pending)
        self.fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self.size, self.synced, self.pending = 0, 0, list(commands)
        if not self.write():
            os.close(self.fd)
            self.fd, self.size, self.pending = old
            temporary.unlink()
            return False
        self.pending = old[2]
        os.fsync(self.fd)
        os.rename(temporary, path)
        self.sync_folder()
        os.close(old[0])
        return True

    def sync_folder(self) -> None:
        """Names are durable."""
        if FAULT in ("no-sync", "no-directory-sync"):
            return
        fd = os.open(self.folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def free_reserve(self) -> None:
        """Room for what frees room."""
        (self.folder / "reserve").unlink(missing_ok=True)


def header(first: int, length: int) -> bytes:
    """The fixed header of a packet."""
    head = bytearray((first,))
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


class Session:
    """What outlives a connection."""

    def __init__(self) -> None:
        self.filters: dict[str, int] = {}
        # Waiting: (topic, payload, QoS). In flight: identifier -> (topic, payload, QoS, released).
        self.queue: list[tuple] = []
        self.in_flight: dict[int, tuple] = {}
        self.received: set[int] = set()
        self.next_id = 0
        self.expiry, self.will, self.will_at, self.maximum = 0, None, None, 65535
        self.is_connected = False


class State:
    """Sessions and retained messages; `apply` is all that changes them, the same when replayed."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, tuple[bytes, int]] = {}
        self.turn = 0
        self.out: list[tuple[str, bytes]] = []

    def apply(self, command: tuple) -> None:
        """Carries a command out; answers are in `out`."""
        getattr(self, command[0])(*command[1:])

    def connect(self, who: str, clean: bool, expiry: int, maximum: int, will: tuple | None) -> None:
        session = self.sessions.get(who)
        present = session is not None and not clean
        if not present:
            session = self.sessions[who] = Session()
        session.expiry, session.will, session.will_at = expiry, will, None
        session.maximum, session.is_connected = maximum or 65535, True
        self.out.append((who, bytes((0x20, 3, present, 0, 0))))
        for packet_id, (topic, payload, qos, released) in session.in_flight.items():
            if released:
                self.out.append((who, struct.pack(">BBH", 0x62, 2, packet_id)))
            else:
                self.send(who, packet_id, topic, payload, qos, FAULT != "no-dup")
        self.pump(who)

    def gone(self, who: str, with_will: bool, at: float) -> None:
        session = self.sessions[who]
        session.is_connected = False
        if not with_will or FAULT == "no-will":
            session.will = None
        if session.will:
            session.will_at = at + session.will[3]
        if not session.expiry:
            del self.sessions[who]

    def restart(self, at: float) -> None:
        for who in list(self.sessions):
            if self.sessions[who].is_connected:
                self.gone(who, True, at)
        self.faults()

    def faults(self) -> None:
        names = sorted(self.sessions)
        if FAULT == "forgets-a-session" and names:
            del self.sessions[names[len(names) // 2]]
        for session in self.sessions.values():
            if FAULT == "forgets-subscriptions":
                session.filters = {}
            if FAULT in ("qos-2-again", "wrong-order"):
                again = [entry[:3] for entry in session.in_flight.values() if entry[0]]
                if FAULT == "wrong-order":
                    session.queue.reverse()
                else:
                    session.in_flight.clear()
                    session.queue[:0] = again
            if FAULT == "wrong-payload":
                session.queue = [(t, p[:-1] + b"?", q) for t, p, q in session.queue]
            if FAULT == "skips-a-message":
                del session.queue[:1]

    def will(self, who: str) -> None:
        session = self.sessions[who]
        topic, payload, qos, _delay = session.will
        session.will, session.will_at = None, None
        for _ in range(2 if FAULT == "will-twice" else 1):
            self.route(topic, payload, qos)

    def publish(
        self, who: str, packet_id: int, topic: str, payload: bytes, qos: int, retain: bool
    ) -> None:
        session = self.sessions[who]
        self.out.append((who, struct.pack(">BBH", 0x40 if qos == 1 else 0x50, 2, packet_id)))
        if qos == 2:
            if packet_id in session.received:
                return
            session.received.add(packet_id)
        if retain and payload and not (FAULT == "old-retained" and topic in self.retained):
            self.retained[topic] = (payload, qos)
        elif retain and not payload:
            self.retained.pop(topic, None)
        self.route(topic, payload, qos)

    def route(self, topic: str, payload: bytes, qos: int) -> None:
        groups: dict[str, list[str]] = {}
        for who, session in self.sessions.items():
            for topic_filter, maximum in session.filters.items():
                if topic_filter.startswith("$share/"):
                    if matches(topic_filter.split("/", 2)[2], topic):
                        groups.setdefault(topic_filter, []).append(who)
                elif matches(topic_filter, topic):
                    session.queue.append((topic, payload, min(qos, maximum)))
                    self.pump(who)
        for topic_filter, members in groups.items():
            self.turn += 1
            who = members[self.turn % len(members)]
            maximum = self.sessions[who].filters[topic_filter]
            self.sessions[who].queue.append((topic, payload, min(qos, maximum)))
            self.pump(who)

    def pump(self, who: str) -> None:
        session = self.sessions[who]
        while session.is_connected and session.queue and len(session.in_flight) < session.maximum:
            topic, payload, qos = session.queue.pop(0)
            session.next_id = session.next_id % 65535 + 1
            while session.next_id in session.in_flight:
                session.next_id = session.next_id % 65535 + 1
            session.in_flight[session.next_id] = (topic, payload, qos, False)
            self.send(who, session.next_id, topic, payload, qos, False)

    def send(
        self, who: str, packet_id: int, topic: str, payload: bytes, qos: int, dup: bool
    ) -> None:
        name = topic.encode()
        body = struct.pack(">H", len(name)) + name + struct.pack(">HB", packet_id, 0) + payload
        self.out.append((who, header(0x30 | qos << 1 | dup << 3, len(body)) + body))

    def acked(self, who: str, packet_id: int) -> None:
        self.sessions[who].in_flight.pop(packet_id, None)
        self.pump(who)

    def recorded(self, who: str, packet_id: int) -> None:
        flights = self.sessions[who].in_flight
        if packet_id in flights:
            flights[packet_id] = ("", b"", 2, True)
        self.out.append((who, struct.pack(">BBH", 0x62, 2, packet_id)))

    def released(self, who: str, packet_id: int) -> None:
        known = packet_id in self.sessions[who].received
        self.sessions[who].received.discard(packet_id)
        answer = b"\x70\x02" if known else b"\x70\x03"
        self.out.append((who, answer + struct.pack(">H", packet_id) + (b"" if known else b"\x92")))

    def subscribe(self, who: str, packet_id: int, topic_filter: str, options: int) -> None:
        self.sessions[who].filters[topic_filter] = options & 3
        self.out.append((who, struct.pack(">BBHBB", 0x90, 4, packet_id, 0, options & 3)))
        if options >> 4 & 3 == 0:
            for topic, (payload, qos) in self.retained.items():
                if matches(topic_filter, topic):
                    name = topic.encode()
                    body = struct.pack(">H", len(name)) + name + b"\0" + payload
                    self.out.append((who, header(0x31, len(body)) + body))

    def unsubscribe(self, who: str, packet_id: int, topic_filter: str) -> None:
        known = self.sessions[who].filters.pop(topic_filter, None) is not None
        self.out.append((who, struct.pack(">BBHBB", 0xB0, 4, packet_id, 0, 0 if known else 0x11)))

    def snapshot(self, state: dict) -> None:
        self.__dict__.update(pickle.loads(pickle.dumps(state)))


class Connection:
    """A socket and what waits on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.data, self.out, self.who = sock, bytearray(), bytearray(), None


class Broker:
    """The event loop."""

    def __init__(self, folder: Path, port: int) -> None:
        self.log, self.state = Log(folder), State()
        for command in self.log.open():
            self.state.apply(command)
            self.state.out.clear()
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=500)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.here: dict[str, Connection] = {}
        self.command("restart", time.time())
        self.finish()

    def command(self, *command: object) -> None:
        """Writes and applies; a PUBLISH is refused if there is no room."""
        is_early = FAULT == "answers-before-writing" and command[0] == "publish"
        if not is_early:
            self.log.pending.append(command)
            if not self.write(command):
                return
        self.state.apply(command)

    def write(self, command: tuple) -> bool:
        is_publish = command[0] == "publish"
        refuses = is_publish and FAULT == "accepts-nothing-after-full" and self.log.is_full
        if refuses or (is_publish and self.no_room()):
            written = False
        else:
            written = self.log.write()
        if not written and not is_publish:
            self.log.free_reserve()
            self.shrink()
            written = self.log.write()
        if not written:
            self.log.pending.clear()
            _, who, packet_id, _, _, qos, _ = command
            if FAULT == "loses-when-full":
                answer = struct.pack(">BBH", 0x40 if qos == 1 else 0x50, 2, packet_id)
            else:
                answer = struct.pack(">BBHB", 0x40 if qos == 1 else 0x50, 3, packet_id, 0x97)
            self.state.out.append((who, answer))
        return written

    def no_room(self) -> bool:
        """Whether the room that acknowledgements will need is all that is left."""
        for _ in range(2):
            room = os.statvfs(self.log.folder)
            self.log.is_full = room.f_bavail * room.f_bsize < 4 << 20
            if not self.log.is_full or not self.shrink():
                break
        return self.log.is_full

    def shrink(self) -> bool:
        """Writes the state instead of its history, if that is much less."""
        state = {k: v for k, v in self.state.__dict__.items() if k != "out"}
        if len(pickle.dumps(state)) * 2 > self.log.size:
            return False
        return self.log.replace([("snapshot", state)])

    def turn(self) -> None:
        events = self.selector.select(0.05)
        for key, _ in events:
            if key.data is None:
                try:
                    self.accept()
                except BlockingIOError:
                    pass
            elif key.data.sock is not None:
                self.read(key.data)
        now = time.time()
        for who, session in list(self.state.sessions.items()):
            if session.will_at is not None and session.will_at <= now:
                self.command("will", who)
        if not events and self.log.synced == self.log.size and not getattr(self, "marked", False):
            self.log.write()
            self.log.sync()
            self.marked = True
        if events:
            self.marked = False
        self.finish()

    def finish(self) -> None:
        """Syncs, then answers."""
        if self.log.synced != self.log.size:
            self.log.sync()
        for who, data in self.state.out:
            if who in self.here:
                self.here[who].out += data
        self.state.out.clear()
        for connection in list(self.here.values()):
            self.flush(connection)

    def accept(self) -> None:
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, Connection(sock))

    def flush(self, connection: Connection) -> None:
        try:
            while connection.out and connection.sock:
                del connection.out[: connection.sock.send(connection.out)]
        except BlockingIOError:
            pass
        except OSError:
            connection.out.clear()

    def read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close(connection, True)
        connection.data += data
        while connection.sock is not None and (packet := self.packet(connection.data)):
            self.handle(connection, *packet)

    def packet(self, data: bytearray) -> tuple[int, bytes] | None:
        length, at = 0, 1
        while at < len(data):
            length |= (data[at] & 0x7F) << 7 * (at - 1)
            at += 1
            if data[at - 1] < 0x80:
                break
        else:
            return None
        if len(data) < at + length:
            return None
        first, body = data[0], bytes(data[at : at + length])
        del data[: at + length]
        return first, body

    def close(self, connection: Connection, with_will: bool) -> None:
        if connection.sock is not None:
            self.selector.unregister(connection.sock)
            connection.sock.close()
            connection.sock = None
            if connection.who and self.here.get(connection.who) is connection:
                del self.here[connection.who]
                # What was for this connection is not for the next one.
                self.state.out = [out for out in self.state.out if out[0] != connection.who]
                self.command("gone", connection.who, with_will, time.time())

    def handle(self, connection: Connection, first: int, body: bytes) -> None:
        kind, who = first >> 4, connection.who
        packet_id = body[0] << 8 | body[1] if len(body) > 1 else 0
        if kind == 1:
            self.handle_connect(connection, body)
        elif kind == 3:
            at = 2 + (body[0] << 8 | body[1])
            topic, packet_id = body[2:at].decode(), body[at] << 8 | body[at + 1]
            payload = body[parse_properties(body, at + 2)[1] :]
            self.command("publish", who, packet_id, topic, payload, first >> 1 & 3, bool(first & 1))
        elif kind in (4, 7):
            self.command("acked", who, packet_id)
        elif kind == 5:
            self.command("recorded", who, packet_id)
        elif kind == 6:
            self.command("released", who, packet_id)
        elif kind in (8, 10):
            at = parse_properties(body, 2)[1]
            end = at + 2 + (body[at] << 8 | body[at + 1])
            topic_filter = body[at + 2 : end].decode()
            if kind == 8:
                self.command("subscribe", who, packet_id, topic_filter, body[end])
            else:
                self.command("unsubscribe", who, packet_id, topic_filter)
        elif kind == 14:
            self.close(connection, bool(body and body[0]))

    def handle_connect(self, connection: Connection, body: bytes) -> None:
        flags = body[7]
        properties, at = parse_properties(body, 10)

        def text() -> bytes:
            nonlocal at
            start, at = at + 2, at + 2 + (body[at] << 8 | body[at + 1])
            return body[start:at]

        who, will = text().decode(), None
        if flags & 4:
            delay, at = parse_properties(body, at)
            topic = text().decode()
            will = (topic, text(), flags >> 3 & 3, delay.get(0x18, 0))
        if who in self.here:
            self.close(self.here[who], True)
        connection.who, self.here[who] = who, connection
        maximum = properties.get(0x21, 0)
        self.command("connect", who, bool(flags & 2), properties.get(0x11, 0), maximum, will)


def main() -> None:
    words = sys.argv[1:]
    folder = Path(words[words.index("--data-dir") + 1])
    folder.mkdir(exist_ok=True)
    broker = Broker(folder, int(words[words.index("--port") + 1]))
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    print(f"listening tcp 127.0.0.1:{broker.listener.getsockname()[1]}\nready", flush=True)
    while not stopping:
        broker.turn()
    broker.log.write()
    broker.log.sync()


if __name__ == "__main__":
    main()
