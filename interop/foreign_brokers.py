"""Brokers that nobody here wrote, and Whimbrel: each started for one user, on ports that were free.

`KINDS` also says what of the scenarios a broker does not do, and why.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import brokers
import environment
import secure
from brokers import free_port
from foreign_faults import FAULTS

USER, PASSWORD = "ann", "correct horse"
V311, V5 = "3.1.1", "5.0"
# What a client may send, where a broker can be told: scenarios send more.
PACKET_BYTES_MAX, RECEIVE_MAXIMUM = 1_000_000, 20


@dataclass(frozen=True)
class Way:
    """One way to a broker: the URL without the user, and the version to speak."""

    url: str
    version: str

    @property
    def name(self) -> str:
        """As in `5.0 ws`."""
        return f"{self.version} {self.url.split(':')[0]}"


@dataclass(frozen=True)
class Recipe:
    """How to start a broker: the command, its ports, and the ways to it."""

    command: list[str]
    ports: list[int]
    ways: list[Way]


@dataclass(frozen=True)
class Kind:
    """A broker that can be started in a folder of its own."""

    name: str
    recipe: Callable[[Path], Recipe]
    # Scenarios side by side.
    at_once: int = 64

    @property
    def faults(self) -> dict[str, str]:
        """Patterns of `VERSION SCHEME: SCENARIO` that fail, each with the reason."""
        return FAULTS.get(self.name, {})

    @contextlib.contextmanager
    def started(self, folder: Path) -> Iterator[list[Way]]:
        """Runs it until the block ends, once it accepts connections on all ports."""
        recipe = self.recipe(folder)
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                recipe.command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "INTEROP_NODE": str(environment.NODE)},
            )
        try:
            for port in recipe.ports:
                brokers.wait_for_port(self.name, port, process, log)
            yield recipe.ways
            if process.poll() is not None:
                raise brokers.BrokerFailed(self.name, f"ended with {process.returncode}", log)
        finally:
            brokers.stop(process)


def mqtt(port: int, version: str) -> Way:
    return Way(f"mqtt://127.0.0.1:{port}", version)


def websocket(port: int, version: str, path: str = "/mqtt") -> Way:
    return Way(f"ws://127.0.0.1:{port}{path}", version)


def both_versions(port: int, ws_port: int) -> list[Way]:
    return [way(at, v) for way, at in ((mqtt, port), (websocket, ws_port)) for v in (V311, V5)]


def password_file(folder: Path) -> Path:
    """For mosquitto and Whimbrel, with a hash that is quick to check."""
    path = folder / "passwords"
    secure.run("mosquitto_passwd", "-b", "-c", str(path), USER, PASSWORD)
    path.chmod(0o644)
    return path


def whimbrel(binary: str, folder: Path) -> Recipe:
    port, ws_port = free_port(), free_port()
    passwords = password_file(folder)
    (folder / "whimbrel.toml").write_text(
        f'password_file = "{passwords}"\n'
        f"[limits]\nmax_packet_size_bytes = {PACKET_BYTES_MAX}\nreceive_maximum = {RECEIVE_MAXIMUM}\n"
        f'[[listener]]\ntype = "tcp"\nbind = "127.0.0.1:{port}"\n'
        f'[[listener]]\ntype = "websocket"\nbind = "127.0.0.1:{ws_port}"\npath = "/mqtt"\n'
    )
    command = [binary, "broker", "--config", str(folder / "whimbrel.toml")]
    return Recipe(command, [port, ws_port], both_versions(port, ws_port))


def mosquitto(receive_maximum: int, versions: tuple[str, ...], folder: Path) -> Recipe:
    port, ws_port = free_port(), free_port()
    # Started as root it changes to a user of its own.
    folder.chmod(0o755)
    passwords = password_file(folder)
    (folder / "mosquitto.conf").write_text(
        f"allow_anonymous false\npassword_file {passwords}\n"
        f"max_packet_size {PACKET_BYTES_MAX}\nmax_inflight_messages {receive_maximum}\n"
        f"max_queued_messages 0\nset_tcp_nodelay true\n"
        f"listener {port} 127.0.0.1\n"
        f"listener {ws_port} 127.0.0.1\nprotocol websockets\n"
    )
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    command = [program, "-c", str(folder / "mosquitto.conf")]
    ways = [way for way in both_versions(port, ws_port) if way.version in versions]
    return Recipe(command, [port, ws_port], ways)


def rumqttd(program: str, folder: Path) -> Recipe:
    port, port_5, ws_port = free_port(), free_port(), free_port()
    listeners = (("v4", port), ("v5", port_5), ("ws", ws_port))
    router = (
        "id = 0\n[router]\nid = 0\nmax_connections = 1000\nmax_outgoing_packet_count = 200\n"
        "max_segment_size = 10485760\nmax_segment_count = 10\n"
    )
    (folder / "rumqttd.toml").write_text(
        router
        + "".join(
            f'[{kind}.1]\nname = "{kind}"\nlisten = "127.0.0.1:{at}"\nnext_connection_delay_ms = 1\n'
            f"[{kind}.1.connections]\nconnection_timeout_ms = 5000\n"
            f"max_payload_size = {PACKET_BYTES_MAX}\nmax_inflight_count = 100\n"
            f'dynamic_filters = true\nauth = {{ {USER} = "{PASSWORD}" }}\n'
            for kind, at in listeners
        )
    )
    ways = [mqtt(port, V311), mqtt(port_5, V5), websocket(ws_port, V311)]
    command = [program, str(folder / "rumqttd.toml")]
    return Recipe(command, [port, port_5, ws_port], ways)


def aedes(_folder: Path) -> Recipe:
    port, ws_port = free_port(), free_port()
    script = str(Path(__file__).with_name("aedes.mjs"))
    command = ["node", script, str(port), str(ws_port), USER, PASSWORD]
    return Recipe(command, [port, ws_port], [mqtt(port, V311), websocket(ws_port, V311)])


def amqtt(folder: Path) -> Recipe:
    # It comes with amqtt.
    from pwdlib import PasswordHash
    from pwdlib.hashers.argon2 import Argon2Hasher

    port, ws_port = free_port(), free_port()
    # Quick to check: logins are not what is tried.
    hasher = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1)
    hashed = PasswordHash((hasher,)).hash(PASSWORD)
    (folder / "passwords").write_text(f"{USER}:{hashed}\n")
    listeners = {
        "default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 1000},
        "ws": {"type": "ws", "bind": f"127.0.0.1:{ws_port}"},
    }
    file_auth = {"password_file": str(folder / "passwords")}
    plugins = {"amqtt.plugins.authentication.FileAuthPlugin": file_auth}
    # JSON is YAML.
    (folder / "amqtt.yaml").write_text(json.dumps({"listeners": listeners, "plugins": plugins}))
    command = [str(Path(sys.prefix) / "bin" / "amqtt"), "-c", str(folder / "amqtt.yaml")]
    return Recipe(command, [port, ws_port], [mqtt(port, V311), websocket(ws_port, V311)])


def nats(folder: Path) -> Recipe:
    port, ws_port, own_port = free_port(), free_port(), free_port()
    user = {"user": USER, "password": PASSWORD}
    # JSON is in its configuration language.
    config = {
        "server_name": "interop",
        "listen": f"127.0.0.1:{own_port}",
        "max_payload": 8_000_000,
        "jetstream": {"store_dir": str(folder / "store")},
        "authorization": {"users": [user]},
        "mqtt": {"listen": f"127.0.0.1:{port}", "ack_wait": "3s"},
        "websocket": {"listen": f"127.0.0.1:{ws_port}", "no_tls": True},
    }
    (folder / "nats.conf").write_text(json.dumps(config))
    program = str(Path(sys.prefix) / "bin" / "nats-server")
    command = [program, "-c", str(folder / "nats.conf")]
    return Recipe(command, [port, ws_port], [mqtt(port, V311), websocket(ws_port, V311)])


PACKAGED = (
    # It stalls when a client of 3.1.1, which cannot know the limit, exceeds it.
    Kind("mosquitto", partial(mosquitto, 2000, (V311, V5))),
    Kind("mosquitto-with-limits", partial(mosquitto, RECEIVE_MAXIMUM, (V5,))),
    Kind("aedes", aedes, 16),
    Kind("amqtt", amqtt, 4),
    Kind("nats", nats),
)
