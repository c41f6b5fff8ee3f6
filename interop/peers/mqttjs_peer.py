"""MQTT.js, in a Node.js process that `mqttjs_driver.mjs` runs in."""

import base64
import contextlib
import itertools
import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import environment

from . import TIMEOUT_S, V5, Connect, Message, Peer, Properties, Subscribe, Unanswered, Unsupported

NAMES = {
    "content_type": "contentType",
    "response_topic": "responseTopic",
    "payload_format": "payloadFormatIndicator",
    "expiry_s": "messageExpiryInterval",
    "topic_alias": "topicAlias",
}


# Reason codes of AUTH.
CONTINUE, RENEW = 0x18, 0x19
PROTOCOLS = {"tcp": "mqtt", "tls": "mqtts", "websocket": "ws", "wss": "wss"}


class Driver:
    """The Node.js process, shared by all peers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", str(Path(__file__).with_name("mqttjs_driver.mjs"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "INTEROP_NODE": str(environment.NODE)},
        )
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.Queue] = {}
        self._peers: dict[str, MqttjsPeer] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def join(self, name: str, peer: "MqttjsPeer") -> None:
        """Events of client `name` go to `peer` from now on."""
        self._peers[name] = peer

    def ask(self, operation: str, **arguments):
        """Sends one request; returns its result."""
        return self.begin(operation, **arguments)()

    def begin(self, operation: str, **arguments) -> Callable:
        """Sends one request; what it returns waits for the result."""
        number = next(self._numbers)
        answer = self._answers[number] = queue.Queue()
        line = json.dumps({"id": number, "operation": operation, **arguments})
        with self._lock:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

        def wait():
            try:
                found = answer.get(timeout=TIMEOUT_S)
            except queue.Empty:
                raise Unanswered(f"{operation}: no answer in {TIMEOUT_S} s") from None
            finally:
                del self._answers[number]
            if "error" in found:
                raise Unanswered(f"{operation}: {found['error']}")
            return found["result"]

        return wait

    def _read(self) -> None:
        for line in self._process.stdout:
            said = json.loads(line)
            if "answer" in said:
                with contextlib.suppress(KeyError):
                    self._answers[said["answer"]].put(said)
            elif said["event"] == "message":
                self._peers[said["client"]].inbox.put(_to_message(said))
            elif said["event"] == "auth":
                self._peers[said["client"]].challenged(said["reason"], said["data"])
            else:
                self._peers[said["client"]].closed(said["reason"])


_driver: Driver | None = None
_driver_lock = threading.Lock()


def driver() -> Driver:
    """The running driver, started on first use."""
    global _driver
    with _driver_lock:
        if _driver is None:
            _driver = Driver()
        return _driver


def stop() -> None:
    """Ends the driver, if it ever started."""
    if _driver is not None:
        _driver.stop()


class MqttjsPeer(Peer):
    """One client of MQTT.js."""

    library = "mqttjs"
    _serial = itertools.count(1)

    def __init__(self, connect: Connect) -> None:
        super().__init__(connect)
        if connect.manual_ack or connect.link.transport == "unix":
            raise Unsupported("MQTT.js acknowledges by itself and has no Unix sockets here")
        self._ending = False
        self._challenges: queue.Queue[tuple[int, bytes]] = queue.Queue()
        # Authentication data of CONNACK.
        self.conclusion = b""
        self._name = f"{connect.client_id}#{next(self._serial)}"
        driver().join(self._name, self)

    def connect(self) -> None:
        self.connect_later()()

    def connect_later(self) -> Callable[[], None]:
        """Sends CONNECT, for an exchange that comes before CONNACK; the rest waits for that."""
        options = self._connect_options()
        found = driver().begin("connect", client=self._name, options=options)
        return lambda: self._connected(found())

    def _connected(self, found: dict) -> None:
        self.session_present = found["session_present"]
        self.assigned_client_id = found["assigned"]
        self.conclusion = base64.b64decode(found["data"])

    def subscribe(self, *subscriptions: Subscribe) -> list[int]:
        v5 = self.options.version == V5
        topics = {
            each.filter: {"qos": each.qos}
            | (
                {
                    "nl": each.no_local,
                    "rap": each.retain_as_published,
                    "rh": each.retain_handling,
                }
                if v5
                else {}
            )
            for each in subscriptions
        }
        identifier = subscriptions[0].identifier
        properties = {"subscriptionIdentifier": identifier} if identifier else None
        return driver().ask("subscribe", client=self._name, topics=topics, properties=properties)

    def unsubscribe(self, topic_filter: str) -> None:
        driver().ask("unsubscribe", client=self._name, filter=topic_filter)

    def publish(self, *messages: Message) -> None:
        described = [
            {
                "topic": each.topic,
                "payload": base64.b64encode(each.payload).decode(),
                "options": {
                    "qos": each.qos,
                    "retain": each.retain,
                    **self._properties(each),
                },
            }
            for each in messages
        ]
        driver().ask("publish", client=self._name, messages=described)

    def disconnect(self, with_will: bool = False) -> None:
        self._ending = True
        options = {"reasonCode": 4} if with_will else {}
        driver().ask("disconnect", client=self._name, options=options)

    def drop(self) -> None:
        self._ending = True
        driver().ask("drop", client=self._name)

    def close(self) -> None:
        self._ending = True
        with contextlib.suppress(Unanswered):
            driver().ask("close", client=self._name)

    def authenticate(self, data: bytes) -> tuple[int, bytes]:
        """Authenticates again, from AUTH 0x19 on; the broker's answer."""
        self.renew(data)
        return self.challenge()

    def renew(self, data: bytes) -> None:
        """Sends AUTH 0x19."""
        text = base64.b64encode(data).decode()
        driver().ask("authenticate", client=self._name, reason=RENEW, data=text)

    def answer(self, data: bytes) -> None:
        """Answers the broker's challenge."""
        text = base64.b64encode(data).decode()
        driver().ask("authenticate", client=self._name, reason=CONTINUE, data=text)

    def challenge(self) -> tuple[int, bytes]:
        """Reason code and authentication data of the broker's next AUTH."""
        try:
            return self._challenges.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise Unanswered(f"{self.options.client_id}: no AUTH in {TIMEOUT_S} s") from None

    def challenged(self, reason: int, data: str) -> None:
        """AUTH came."""
        self._challenges.put((reason, base64.b64decode(data)))

    def closed(self, reason: int | None) -> None:
        """The connection ended; `reason` as in the server's DISCONNECT."""
        if not self._ending:
            self.closings.put(reason)

    def _connect_options(self) -> dict:
        options = self.options
        properties = {
            "sessionExpiryInterval": options.session_expiry_s,
            "receiveMaximum": options.receive_maximum,
            "maximumPacketSize": options.maximum_packet_size,
            "topicAliasMaximum": options.topic_alias_maximum,
        }
        wanted = {
            "protocol": PROTOCOLS[options.link.transport],
            "host": options.link.host,
            "port": options.link.port,
            "protocolVersion": options.version,
            "clientId": options.client_id,
            "clean": options.clean,
            "keepalive": options.keep_alive_s,
            "username": options.username,
            "password": options.password,
            "connectTimeout": int(TIMEOUT_S * 1000),
            "will": self._will(),
        }
        if options.link.transport in ("websocket", "wss"):
            wanted["path"] = options.link.path
            wanted["wsOptions"] = {"headers": options.headers}
        if tls := options.link.tls:
            files = {"ca": tls.authority, "cert": tls.certificate, "key": tls.key}
            wanted |= {name: Path(path).read_text() for name, path in files.items() if path}
        if options.authentication:
            method, data = options.authentication
            properties["authenticationMethod"] = method
            properties["authenticationData"] = base64.b64encode(data).decode()
        if options.version == V5:
            wanted["properties"] = _without_none(properties)
        return _without_none(wanted)

    def _will(self) -> dict | None:
        will = self.options.will
        return will and {
            "topic": will.topic,
            "payload": base64.b64encode(will.payload).decode(),
            "qos": will.qos,
            "retain": will.retain,
            **self._properties(will),
        }

    def _properties(self, message: Message) -> dict:
        if self.options.version != V5:
            return {}
        found = {theirs: getattr(message.properties, ours) for ours, theirs in NAMES.items()}
        found["willDelayInterval"] = message.will_delay_s
        if message.properties.payload_format is not None:
            found["payloadFormatIndicator"] = bool(message.properties.payload_format)
        if message.properties.correlation_data is not None:
            found["correlationData"] = base64.b64encode(
                message.properties.correlation_data
            ).decode()
        if message.properties.user:
            user: dict[str, list[str]] = {}
            for name, value in message.properties.user:
                user.setdefault(name, []).append(value)
            found["userProperties"] = user
        return {"properties": _without_none(found)}


def _to_message(said: dict) -> Message:
    theirs = said["properties"]
    identifiers = theirs.get("subscriptionIdentifier") or ()
    correlation_data = theirs.get("correlationData")
    payload_format = theirs.get("payloadFormatIndicator")
    properties = {ours: theirs.get(name) for ours, name in NAMES.items()}
    properties["payload_format"] = None if payload_format is None else int(payload_format)
    return Message(
        said["topic"],
        base64.b64decode(said["payload"]),
        said["qos"],
        said["retain"],
        said["dup"],
        Properties(
            user=tuple((name, value) for name, value in theirs["userProperties"]),
            correlation_data=None if correlation_data is None else base64.b64decode(
                correlation_data
            ),
            identifiers=tuple(identifiers) if isinstance(identifiers, list) else (identifiers,)
            if identifiers
            else (),
            **properties,
        ),
    )


def _without_none(values: dict) -> dict:
    return {key: value for key, value in values.items() if value is not None}
