"""aiomqtt (Python asyncio): all its clients live in one event loop on a thread of its own."""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading

import aiomqtt

from . import TIMEOUT_S, V5, Connect, Message, Peer, Subscribe, Unanswered, Unsupported
from . import paho_common as common

_loop = asyncio.new_event_loop()
# When a connection ends under its feet it still watches the closed socket; nothing depends on that.
_loop.set_exception_handler(lambda _loop, _context: None)
_thread = threading.Thread(target=_loop.run_forever, name="aiomqtt", daemon=True)
# It warns of many concurrent publishes, which is what a scenario of a thousand messages is.
logging.getLogger("mqtt").setLevel(logging.CRITICAL)


class AiomqttPeer(Peer):
    """One `aiomqtt.Client`, entered and left from outside its event loop."""

    library = "aiomqtt"

    def __init__(self, connect: Connect) -> None:
        super().__init__(connect)
        if connect.manual_ack:
            raise Unsupported("aiomqtt acknowledges by itself")
        if not _thread.is_alive():
            _thread.start()
        self._ending = False
        self._client: aiomqtt.Client | None = None
        self._reader: asyncio.Task | None = None

    def connect(self) -> None:
        self._run(self._connect())

    def subscribe(self, *subscriptions: Subscribe) -> list[int]:
        topics, properties = common.subscribe_arguments(subscriptions, self.options.version)
        codes = self._run(self._client.subscribe(topics, properties=properties))
        return [getattr(code, "value", code) for code in codes]

    def unsubscribe(self, topic_filter: str) -> None:
        self._run(self._client.unsubscribe(topic_filter))

    def publish(self, *messages: Message) -> None:
        async def all_of_them() -> None:
            await asyncio.gather(*(self._publish(each) for each in messages))

        self._run(all_of_them())

    def disconnect(self, with_will: bool = False) -> None:
        if with_will:
            raise Unsupported("aiomqtt's DISCONNECT has no reason code")
        self._ending = True
        self._run(self._leave())

    def drop(self) -> None:
        self._ending = True
        self._run(self._drop())

    def close(self) -> None:
        self._ending = True
        with contextlib.suppress(Exception):
            self._run(self._leave())

    async def _connect(self) -> None:
        options, v5 = self.options, self.options.version == V5
        unix = options.link.transport == "unix"
        will = options.will and aiomqtt.Will(
            options.will.topic,
            options.will.payload,
            options.will.qos,
            options.will.retain,
            common.message_properties(options.will, options.version, will=True),
        )
        self._client = aiomqtt.Client(
            options.link.path if unix else options.link.host,
            options.link.port or 1883,
            username=options.username,
            password=options.password,
            identifier=options.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if v5 else aiomqtt.ProtocolVersion.V311,
            will=will,
            clean_session=None if v5 else options.clean,
            transport=common.TRANSPORTS[options.link.transport],
            timeout=TIMEOUT_S,
            keepalive=options.keep_alive_s,
            properties=common.connect_properties(options),
            websocket_path=options.link.path if options.link.transport == "websocket" else None,
            **({"clean_start": options.clean} if v5 else {}),
        )
        self._client.pending_calls_threshold = 2000
        await self._client.__aenter__()
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            async for received in self._client.messages:
                self.inbox.put(common.to_message(received))
        except aiomqtt.MqttError as error:
            if not self._ending:
                # The library gives a code of its own (0x80) when the server sent no DISCONNECT.
                code = getattr(getattr(error.__cause__, "rc", None), "value", None)
                self.closings.put(None if code == 0x80 else code)

    async def _publish(self, message: Message) -> None:
        await self._client.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            common.message_properties(message, self.options.version),
        )

    async def _drop(self) -> None:
        # The library offers no other way to end a connection without DISCONNECT.
        common.cut(self._client._client)  # noqa: SLF001
        await self._leave()

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if self._reader:
            self._reader.cancel()
        if client:
            with contextlib.suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)

    def _run(self, coroutine):
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, _loop).result(TIMEOUT_S + 1)
        except (aiomqtt.MqttError, concurrent.futures.TimeoutError) as error:
            cause = error.__cause__ or error
            raise Unanswered(f"{self.options.client_id}: {cause!r}") from None
