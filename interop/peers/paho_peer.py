"""paho-mqtt (Python), driven by its own network thread."""

import contextlib
import queue
import threading

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from . import TIMEOUT_S, V5, Connect, Message, Peer, Subscribe, Unanswered
from . import paho_common as common

DISCONNECT_WITH_WILL = 0x04


class PahoPeer(Peer):
    """One `paho.mqtt.client.Client`."""

    library = "paho"

    def __init__(self, connect: Connect) -> None:
        super().__init__(connect)
        v5 = connect.version == V5
        self._answers: queue.Queue = queue.Queue()
        self._ending = threading.Event()
        self._packet_ids: dict[int, int] = {}
        self._client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=connect.client_id,
            clean_session=None if v5 else connect.clean,
            protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
            transport=common.TRANSPORTS[connect.link.transport],
            reconnect_on_failure=False,
            manual_ack=connect.manual_ack,
        )
        if connect.link.transport in ("websocket", "wss"):
            client.ws_set_options(path=connect.link.path, headers=connect.headers or None)
        if tls := connect.link.tls:
            client.tls_set(tls.authority, tls.certificate, tls.key)
        if connect.username is not None:
            client.username_pw_set(connect.username, connect.password)
        if will := connect.will:
            properties = common.message_properties(will, connect.version, will=True)
            client.will_set(will.topic, will.payload, will.qos, will.retain, properties)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = lambda _c, _u, mid, codes, _p: self._answers.put((mid, codes))
        client.on_unsubscribe = lambda _c, _u, mid, codes, _p: self._answers.put((mid, codes))

    def connect(self) -> None:
        options = self.options
        v5 = {}
        if options.version == V5:
            v5 = {"clean_start": options.clean, "properties": common.connect_properties(options)}
        address = options.link.path if options.link.transport == "unix" else options.link.host
        self._client.connect(
            address, options.link.port or 1883, keepalive=options.keep_alive_s, **v5
        )
        self._client.loop_start()
        kind, reason = self._answer()
        if kind != "connected" or reason.is_failure:
            raise Unanswered(f"{options.client_id}: {kind}: {reason}")

    def subscribe(self, *subscriptions: Subscribe) -> list[int]:
        topics, properties = common.subscribe_arguments(subscriptions, self.options.version)
        _, mid = self._client.subscribe(topics, properties=properties)
        return [code.value for code in self._answer_to(mid)]

    def unsubscribe(self, topic_filter: str) -> None:
        _, mid = self._client.unsubscribe(topic_filter)
        self._answer_to(mid)

    def publish(self, *messages: Message) -> None:
        sent = [
            self._client.publish(
                each.topic,
                each.payload,
                each.qos,
                each.retain,
                common.message_properties(each, self.options.version),
            )
            for each in messages
        ]
        for info in sent:
            info.wait_for_publish(TIMEOUT_S)
            if not info.is_published():
                raise Unanswered(f"{self.options.client_id}: publish was not acknowledged")

    def acknowledge(self, message: Message) -> None:
        self._client.ack(self._packet_ids.pop(id(message)), message.qos)

    def disconnect(self, with_will: bool = False) -> None:
        self._ending.set()
        reason = None
        if with_will:
            reason = ReasonCode(PacketTypes.DISCONNECT, identifier=DISCONNECT_WITH_WILL)
        self._client.disconnect(reason)
        self._client.loop_stop()

    def drop(self) -> None:
        self._ending.set()
        common.cut(self._client)
        self._client.loop_stop()

    def close(self) -> None:
        self._ending.set()
        with contextlib.suppress(Exception):
            self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, _client, _userdata, flags, reason, properties) -> None:
        self.session_present = flags.session_present
        self.assigned_client_id = getattr(properties, "AssignedClientIdentifier", None)
        self._answers.put(("connected", reason))

    def _on_disconnect(self, _client, _userdata, flags, reason, _properties) -> None:
        self._answers.put(("closed", reason))
        if not self._ending.is_set():
            told = flags.is_disconnect_packet_from_server
            self.closings.put(reason.value if told else None)

    def _on_message(self, _client, _userdata, received) -> None:
        message = common.to_message(received)
        self._packet_ids[id(message)] = received.mid
        self.inbox.put(message)

    def _answer(self) -> tuple:
        try:
            return self._answers.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise Unanswered(f"{self.options.client_id}: no answer in {TIMEOUT_S} s") from None

    def _answer_to(self, mid: int) -> list:
        kind, codes = self._answer()
        if kind != mid:
            raise Unanswered(f"{self.options.client_id}: {kind}: {codes}")
        return codes
