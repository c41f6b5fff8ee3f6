"""Brokers to test against: Whimbrel, Debian's mosquitto, or any that already runs."""

import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

READY_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Tls:
    """What a client needs for TLS: paths of files in PEM."""

    authority: str
    # Of the client itself, where it shows one.
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Link:
    """One way to reach a broker: `transport` is `tcp`, `websocket`, `unix`, `tls` or `wss`."""

    name: str
    transport: str
    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""
    tls: Tls | None = None


@dataclass(frozen=True)
class Broker:
    """A broker that accepts connections, and the ways to reach it; `None` where it has no such."""

    name: str
    tcp: Link
    websocket: Link | None = None
    unix: Link | None = None
    # Patterns of case names that this broker is known to fail, skipped visibly; and why.
    known_to_fail: tuple[tuple[str, str], ...] = ()


def running(host: str, port: int, ws_port: int | None, ws_path: str, unix: str | None) -> Broker:
    """A broker that somebody else started."""
    return Broker(
        f"{host}:{port}",
        Link("tcp", "tcp", host, port),
        Link("websocket", "websocket", host, ws_port, ws_path) if ws_port else None,
        Link("unix", "unix", path=unix) if unix else None,
    )


WHIMBREL_CONFIG = """\
[[listener]]
type = "tcp"
bind = "127.0.0.1:0"

[[listener]]
type = "websocket"
bind = "127.0.0.1:0"
path = "/mqtt"

[[listener]]
type = "unix"
path = "{folder}/whimbrel.sock"
"""


@contextlib.contextmanager
def whimbrel(binary: str) -> Iterator[Broker]:
    """Whimbrel with a listener of each kind and nothing else configured."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-interop-") as folder:
        config = WHIMBREL_CONFIG.format(folder=folder)
        with configured(binary, Path(folder), config) as links:
            by_transport = {link.transport: link for link in links}
            get = by_transport.get
            yield Broker("whimbrel", by_transport["tcp"], get("websocket"), get("unix"))


@contextlib.contextmanager
def configured(binary: str, folder: Path, config: str) -> Iterator[list[Link]]:
    """Whimbrel with this configuration, on ports that the system chose: its listeners in order."""
    path = folder / "whimbrel.toml"
    path.write_text(config)
    log = folder / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [binary, "broker", "--config", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield _whimbrel_links(process, log)
        if process.poll() is not None:
            raise BrokerFailed("whimbrel", f"ended with {process.returncode}", log)
    finally:
        stop(process)
    if process.returncode != 0:
        raise BrokerFailed("whimbrel", f"exit code {process.returncode} after SIGTERM", log)


def _whimbrel_links(process: subprocess.Popen, log: Path) -> list[Link]:
    """Reads stdout until `ready`; the rest of it is read and dropped, lest the pipe fill."""
    links: list[Link] = []
    ready = threading.Event()

    def read() -> None:
        for line in process.stdout:
            if link := parse_listening(line):
                links.append(link)
            if line.strip().lower().startswith("ready"):
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    if not ready.wait(READY_TIMEOUT_S) or not links:
        raise BrokerFailed("whimbrel", "did not report its listeners and `ready`", log)
    return links


def parse_listening(line: str) -> Link | None:
    """The listener that a line such as `listening websocket 127.0.0.1:1234/mqtt` names."""
    found = re.search(r"^listening (tcp|tls|websocket|wss|unix) (\S+)", line)
    if not found:
        return None
    transport, address = found.groups()
    if transport == "unix":
        return Link("unix", "unix", path=address)
    host, port, path = re.match(r"(.*):(\d+)(/\S*)?", address).groups()
    return Link(transport, transport, host.strip("[]"), int(port), path or "")


# Of version 2.0.11.
MOSQUITTO_FAILS = (
    ("takeover tells the older connection why", "closes it without DISCONNECT"),
    (r" 5\.0 at .*: lines of stdin in order at qos 2", "exceeds the client's receive maximum"),
)


@contextlib.contextmanager
def mosquitto(binary: str = "mosquitto") -> Iterator[Broker]:
    """Debian's mosquitto, the steady reference: a failure here is a fault of the suite."""
    program = shutil.which(binary) or shutil.which(binary, path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise FileNotFoundError("mosquitto is not installed")
    with tempfile.TemporaryDirectory(prefix="mosquitto-interop-") as folder:
        # Started as root it would change to its own user, who may not enter the folder.
        Path(folder).chmod(0o777)
        tcp, websocket = free_port(), free_port()
        config = Path(folder) / "mosquitto.conf"
        config.write_text(
            "allow_anonymous true\n"
            "max_queued_messages 0\n"
            # It stalls when a client of 3.1.1, which cannot know the limit, exceeds it.
            "max_inflight_messages 2000\n"
            "set_tcp_nodelay true\n"
            f"listener {tcp} 127.0.0.1\n"
            f"listener {websocket} 127.0.0.1\nprotocol websockets\n"
            f"listener 0 {folder}/mosquitto.sock\n"
        )
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            for port in (tcp, websocket):
                wait_for_port("mosquitto", port, process, log)
            yield Broker(
                "mosquitto",
                Link("tcp", "tcp", port=tcp),
                Link("websocket", "websocket", port=websocket, path="/mqtt"),
                Link("unix", "unix", path=f"{folder}/mosquitto.sock"),
                MOSQUITTO_FAILS,
            )
        finally:
            stop(process)


class BrokerFailed(Exception):
    """A broker that did not start, or died: what happened, and the end of its log."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        super().__init__(f"{name}: {what}; its log ends:\n{log.read_text()[-2000:]}")


def free_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(name: str, port: int, process: subprocess.Popen, log: Path) -> None:
    """Returns when the broker accepts there; raises when it does not."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise BrokerFailed(name, f"does not accept on port {port}", log)


def stop(process: subprocess.Popen) -> None:
    """Ends it by SIGTERM, or else by SIGKILL."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
