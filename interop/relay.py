"""A relay that tears: whatever passes, in either direction, arrives in small odd pieces."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator

from brokers import Link

# Single bytes first, so that every header of a handshake is torn; then sizes that divide nothing.
FIRST_BYTES = 256
PIECES_BYTES = (1, 2, 3, 7, 611, 1, 4099, 13, 16411)


@contextlib.contextmanager
def torn(link: Link) -> Iterator[Link]:
    """The same broker behind the relay."""
    listener = socket.create_server(("127.0.0.1", 0))
    sockets: list[socket.socket] = [listener]

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                broker = socket.create_connection((link.host, link.port))
                sockets.extend((client, broker))
                for source, sink in ((client, broker), (broker, client)):
                    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        port = listener.getsockname()[1]
        yield Link(f"torn {link.name}", link.transport, "127.0.0.1", port, link.path)
    finally:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    sizes = itertools.chain(itertools.repeat(1, FIRST_BYTES), itertools.cycle(PIECES_BYTES))
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            while data:
                size = next(sizes)
                sink.sendall(data[:size])
                data = data[size:]
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
