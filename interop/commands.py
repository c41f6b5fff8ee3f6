"""Command-line clients: mosquitto_pub, _sub and _rr, and `whimbrel pub`, `sub` and `rr`.

Both families take the same flags, so each case runs with any publisher and any subscriber.
A retained message on `<topic>/ready` tells that a subscription stands: it is printed first.
"""

import contextlib
import itertools
import json
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import brokers
from brokers import Broker, Link
from harness import Case, Report, Skip
from scenarios import IN_ORDER, LARGE_BYTES, same

TIMEOUT_S = 15
VERSIONS = {"mqttv31": "3.1", "mqttv311": "3.1.1", "mqttv5": "5.0"}
READY = "ready"
_serial = itertools.count(1)


@dataclass(frozen=True)
class Tools:
    """A publisher, a subscriber and a requester, as the words that start their command lines."""

    name: str
    publisher: tuple[str, ...]
    subscriber: tuple[str, ...]
    requester: tuple[str, ...]

    def words(self) -> tuple[tuple[str, ...], ...]:
        return self.publisher, self.subscriber, self.requester


MOSQUITTO = Tools(
    "mosquitto_pub to mosquitto_sub", ("mosquitto_pub",), ("mosquitto_sub",), ("mosquitto_rr",)
)


@dataclass
class Shell:
    """Runs the tools of one case against one link in one version."""

    tools: Tools
    link: Link
    version: str
    prefix: str
    running: list[subprocess.Popen] = field(default_factory=list)

    def topic(self, suffix: str) -> str:
        """A topic that no other case uses."""
        return f"{self.prefix}/{suffix}"

    def publish(self, suffix: str, *flags: str, stdin: str | None = None) -> None:
        """Publishes and waits for success."""
        run(self._command(self.tools.publisher, *flags, "-t", self.topic(suffix)), stdin)

    def announce(self) -> None:
        """Sets the retained message that subscribers wait for."""
        self.publish(READY, "-r", "-q", "1", "-m", READY)

    def subscribe(self, *flags: str) -> "Output":
        """A running subscriber whose subscription to all topics of the case stands."""
        return self.start("-t", self.topic("#"), *flags)

    def start(self, *flags: str) -> "Output":
        """A running subscriber that has printed the retained message."""
        self.announce()
        process = subprocess.Popen(
            self._command(self.tools.subscriber, "-W", str(TIMEOUT_S), *flags),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        output = Output(process)
        if READY not in (line := output.line()):
            raise AssertionError(f"first line of the subscriber: {line!r}")
        return output

    def collect(self, *flags: str) -> list[str]:
        """The lines of a subscriber that ends by itself."""
        return run(self._command(self.tools.subscriber, "-W", str(TIMEOUT_S), *flags)).splitlines()

    def close(self) -> None:
        """Ends what still runs."""
        for process in self.running:
            process.kill()
            process.wait()

    def _command(self, words: tuple[str, ...], *flags: str) -> list[str]:
        to = ["-h", self.link.host, "-p", str(self.link.port)]
        if self.link.transport == "unix":
            to = ["--unix", self.link.path]
        return [*words, *to, "-V", self.version, *flags]


class Output:
    """Lines of a running subscriber."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def line(self) -> str:
        """The next line."""
        try:
            line = self._lines.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise AssertionError(f"no line in {TIMEOUT_S} s") from None
        if line is None:
            errors = self.process.stderr.read()
            raise AssertionError(f"ended with {self.process.wait()}: {errors}")
        return line

    def lines(self, count: int) -> list[str]:
        return [self.line() for _ in range(count)]

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


def run(command: list[str], stdin: str | None = None) -> str:
    """Runs a command that must succeed; returns its stdout."""
    done = subprocess.run(
        command,
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        raise AssertionError(f"{command[:2]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


COMMON: list[Callable[[Shell], None]] = []
MOSQUITTO_ONLY: list[Callable[[Shell], None]] = []


@COMMON.append
def every_quality_of_service(shell: Shell) -> None:
    for granted in "012":
        output = shell.subscribe("-q", granted, "-F", "%t %q %r %p")
        for qos in "012":
            shell.publish("x", "-q", qos, "-m", f"message {qos}")
            wanted = f"{shell.topic('x')} {min(qos, granted)} 0 message {qos}"
            same(output.line(), wanted, "line")


@COMMON.append
def verbose_output_and_retained(shell: Shell) -> None:
    for name in ("a", "b"):
        shell.publish(name, "-r", "-q", "1", "-m", f"value of {name}", "-i", f"{shell.prefix}p")
    found = shell.collect("-v", "-C", "2", "-t", shell.topic("+"), "-i", f"{shell.prefix}s")
    wanted = [f"{shell.topic(name)} value of {name}" for name in ("a", "b")]
    same(sorted(found), wanted, "retained messages")


@COMMON.append
def several_topics(shell: Shell) -> None:
    for name in ("a", "b", "c"):
        shell.publish(name, "-r", "-q", "1", "-m", name)
    found = shell.collect("-C", "2", "-t", shell.topic("a"), "-t", shell.topic("c"))
    same(sorted(found), ["a", "c"], "payloads")


@COMMON.append
def user_name_where_none_is_needed(shell: Shell) -> None:
    output = shell.subscribe("-u", "anna", "-P", "secret")
    shell.publish("x", "-u", "anna", "-P", "secret", "-q", "1", "-m", "hello")
    same(output.line(), "hello", "line")


@COMMON.append
def end_after_waiting_in_vain(shell: Shell) -> None:
    words = shell._command(shell.tools.subscriber, "-W", "1", "-t", shell.topic("silent"))
    started_s = time.monotonic()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)
    same((done.returncode, done.stdout), (27, b""), "exit code and output after -W")
    same(time.monotonic() - started_s >= 0.9, True, "waited for a second")


@COMMON.append
def nobody_listens(shell: Shell) -> None:
    link = Link("tcp", "tcp", port=brokers.free_port())
    words = Shell(shell.tools, link, shell.version, "x")._command(shell.tools.publisher)
    done = subprocess.run(
        [*words, "-t", "x", "-m", "x"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    same(done.returncode != 0, True, "exit code other than 0 when nobody listens")
    same(done.stderr.strip() != "", True, "an error on stderr")


@MOSQUITTO_ONLY.append
def lines_of_stdin_in_order_at_qos_0(shell: Shell) -> None:
    _lines_in_order(shell, "0")


@MOSQUITTO_ONLY.append
def lines_of_stdin_in_order_at_qos_1(shell: Shell) -> None:
    _lines_in_order(shell, "1")


@MOSQUITTO_ONLY.append
def lines_of_stdin_in_order_at_qos_2(shell: Shell) -> None:
    _lines_in_order(shell, "2")


def _lines_in_order(shell: Shell, qos: str) -> None:
    wanted = [str(number) for number in range(IN_ORDER)]
    output = shell.subscribe("-q", qos)
    shell.publish("x", "-l", "-q", qos, stdin="".join(f"{line}\n" for line in wanted))
    same(output.lines(IN_ORDER) == wanted, True, "all lines in order")


@MOSQUITTO_ONLY.append
def large_file(shell: Shell) -> None:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("0123456789abcdef" * (LARGE_BYTES // 16))
        file.flush()
        output = shell.subscribe("-q", "2", "-F", "%l %p")
        shell.publish("x", "-q", "2", "-f", file.name)
        length, payload = output.line().split(" ")
        same((int(length), len(payload)), (LARGE_BYTES, LARGE_BYTES), "length")


@MOSQUITTO_ONLY.append
def will_of_a_killed_subscriber(shell: Shell) -> None:
    watcher = shell.subscribe("-F", "%t %p", "-q", "1")
    will = ("--will-topic", shell.topic("will"), "--will-payload", "killed", "--will-qos", "1")
    mortal = shell.start("-t", shell.topic(READY), *will)
    mortal.process.kill()
    while "ready" in (line := watcher.line()):
        pass
    same(line, f"{shell.topic('will')} killed", "will")


@MOSQUITTO_ONLY.append
def persistent_session(shell: Shell) -> None:
    session = ("-c", "-i", shell.prefix, "-q", "2", "-t", shell.topic("x"))
    shell.collect(*session, "-E")
    for number in range(5):
        shell.publish("x", "-q", "2", "-m", f"queued {number}")
    same(shell.collect(*session, "-C", "5"), [f"queued {n}" for n in range(5)], "queue")


@MOSQUITTO_ONLY.append
def shared_subscription(shell: Shell) -> None:
    flags = ("-q", "1", "-t", f"$share/group/{shell.topic('x')}", "-t", shell.topic(READY))
    one, two = shell.start(*flags), shell.start(*flags)
    # The second start announced itself to the first as well.
    same(one.line(), READY, "line")
    shell.publish("x", "-q", "1", "-l", stdin="".join(f"{number:02}\n" for number in range(20)))
    shell.publish(READY, "-q", "1", "-m", "done")
    found = []
    for output in (one, two):
        while (line := output.line()) != "done":
            found.append(line)
    same(sorted(found), [f"{number:02}" for number in range(20)], "each message once")


def properties(shell: Shell) -> None:
    said = {
        "user-property": ("name", "value"),
        "content-type": ("text/plain",),
        "response-topic": ("answer/here",),
        "correlation-data": ("42",),
        "message-expiry-interval": ("100",),
        "payload-format-indicator": ("1",),
    }
    flags = [word for name, value in said.items() for word in ("-D", "publish", name, *value)]
    output = shell.subscribe("-F", "%j")
    shell.publish("x", "-q", "1", "-m", "body", *flags)
    found = json.loads(output.line())["properties"]
    wanted = {
        "user-properties": {"name": "value"},
        "content-type": "text/plain",
        "response-topic": "answer/here",
        "correlation-data": "42",
        "payload-format-indicator": 1,
    }
    same({key: found.get(key) for key in wanted}, wanted, "properties")
    same(found["message-expiry-interval"] in range(90, 101), True, "message expiry")


def subscription_identifier_and_topic_alias(shell: Shell) -> None:
    output = shell.subscribe("-D", "subscribe", "subscription-identifier", "42", "-F", "%S %p")
    alias = ("-D", "publish", "topic-alias", "7")
    shell.publish("x", *alias, "-q", "1", "-m", "again", "--repeat", "3")
    same(output.lines(3), ["42 again"] * 3, "lines")


def retained_options(shell: Shell) -> None:
    output = shell.subscribe("-F", "%r %p", "--retain-as-published")
    shell.publish("x", "-r", "-q", "1", "-m", "kept")
    same(output.line(), "1 kept", "retain as published")
    shell.publish("x", "-r", "-q", "1", "-n")
    same(output.line().strip(), "1", "the empty message that removes it")


def request_and_response(shell: Shell) -> None:
    topics = ("-t", shell.topic("question"), "-t", shell.topic(READY))
    answerer = shell.start(*topics, "-F", "%R %D %p")
    words = shell._command(shell.tools.requester, "-t", shell.topic("question"), "-m", "6 * 7")
    response = ("-e", shell.topic("answer"), "-D", "publish", "correlation-data", "abc")
    asker = subprocess.Popen(
        [*words, *response, "-W", str(TIMEOUT_S)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    shell.running.append(asker)
    same(answerer.line(), f"{shell.topic('answer')} abc 6 * 7", "question")
    shell.publish("answer", "-q", "1", "-m", "42", "-D", "publish", "correlation-data", "abc")
    same(asker.communicate(timeout=TIMEOUT_S)[0], "42\n", "answer")


FORMATS = {
    "%t|%p|%q|%r|%l|%m": None,
    "%x|%X|%%": None,
    "%A|%C|%D|%F|%P|%R|%S": None,
    "[%20t][%-20t][%.3t][%10.3t][%020t]": None,
    "[%05l][%-5l][%05m][%5m][%5q][%05q][%5r]": None,
    "[%10C][%-10C][%.2C][%010C][%10R][%.2R]": None,
    "[%10F][%010F][%10S][%010S][%-10S][%10A][%010A]": None,
    "[%10P][%-10P][%10D]": None,
    r"@@|\\\\|\a|\e|\r|\t|\v": None,
    # What goes on between two subscribers: seconds, fractions, and lifetimes.
    "%I|%U|@Y-@m-@dT@H:@M:@S.@N|@Z|@j|@a": r"\d",
    "[%30I][%-30I][%.10I]": r"\d",
    "%E|%10E|%010E|%-10E": r"\d",
}
"""Formats, and what in their output may differ from one moment to the next."""


def formats_side_by_side(shell: Shell) -> None:
    """Each -F sequence prints what it prints in mosquitto_sub; JSON may have another order."""
    said = "content-type text/plain user-property k v user-property k w correlation-data c1"
    said += " response-topic r/t payload-format-indicator 1 message-expiry-interval 100000"
    words = iter(said.split())
    flags = []
    for name in words:
        values = [next(words) for _ in range(2 if name == "user-property" else 1)]
        flags += ["-D", "publish", name, *values]
    shell.publish("x", "-r", "-q", "1", "-m", '{"b": [1, 2.5], "a": {}}', *flags)

    def both(text: str) -> list[str]:
        command = ["-q", "1", "-t", shell.topic("x"), "-C", "1", "-W", str(TIMEOUT_S), "-F", text]
        command += ["-D", "subscribe", "subscription-identifier", "9"]
        subscribers = (shell.tools.subscriber, MOSQUITTO.subscriber)
        return [run(shell._command(each, *command)) for each in subscribers]

    for text, varies in FORMATS.items():
        ours, theirs = (re.sub(varies, "#", out) if varies else out for out in both(text))
        same(ours, theirs, text)
    for text in ("%j", "%J"):
        ours, theirs = map(json.loads, both(text))
        for value in (ours, theirs):
            del value["tst"], value["properties"]["message-expiry-interval"]
        same(ours, theirs, text)


V5_ONLY = [
    properties,
    subscription_identifier_and_topic_alias,
    retained_options,
    request_and_response,
]


def mosquitto_cases(broker: Broker, report: Report) -> list[Case]:
    """Debian's mosquitto-clients in each version, over TCP and a Unix socket."""
    if not shutil.which("mosquitto_pub"):
        report.skip("mosquitto_pub", "not installed")
        return []
    found = []
    for link in (broker.tcp, broker.unix):
        for version in VERSIONS if link else ():
            steps = COMMON + MOSQUITTO_ONLY + (V5_ONLY if version == "mqttv5" else [])
            if link.transport == "unix":
                steps = [each for each in steps if each is not nobody_listens]
            found += cases_of(steps, MOSQUITTO, link, version, f"{broker.name} {link.name}")
    return found


def whimbrel_cases(
    binary: str | None, broker: Broker, others: contextlib.ExitStack, report: Report
) -> list[Case]:
    """`whimbrel pub` and `sub` with the broker under test and with Debian's mosquitto."""
    if binary is None:
        report.skip("whimbrel pub and sub", "no binary given")
        return []
    for tool in ("pub", "sub"):
        if (why := _lacks(binary, tool)) is not None:
            report.skip(f"whimbrel {tool}", why)
            return []
    tested = [broker]
    try:
        if broker.name != "mosquitto":
            tested.append(others.enter_context(brokers.mosquitto()))
    except FileNotFoundError as error:
        report.skip("whimbrel pub and sub with mosquitto", str(error))
    pub, sub, rr = (binary, "pub"), (binary, "sub"), (binary, "rr")
    debian = MOSQUITTO.words()
    ours = Tools("whimbrel pub to whimbrel sub", pub, sub, rr)
    families = [
        ours,
        Tools("whimbrel pub to mosquitto_sub", pub, debian[1], debian[2]),
        Tools("mosquitto_pub to whimbrel sub", debian[0], sub, rr),
    ]
    found = []
    for each in tested:
        for tools in families:
            for version in VERSIONS:
                steps = COMMON + (V5_ONLY if version == "mqttv5" else [])
                found += cases_of(steps, tools, each.tcp, version, each.name)
        found += cases_of([formats_side_by_side], ours, each.tcp, "mqttv5", each.name)
    return found


def cases_of(
    steps: list[Callable[[Shell], None]], tools: Tools, link: Link, version: str, where: str
) -> list[Case]:
    """Each of these steps with these tools."""
    def case(step: Callable[[Shell], None]) -> Case:
        name = step.__name__.replace("_", " ")
        prefix = f"command{next(_serial)}"

        def attempt() -> None:
            shell = Shell(tools, link, version, prefix)
            try:
                step(shell)
            finally:
                shell.close()

        return Case(f"{tools.name} {VERSIONS[version]} at {where}: {name}", attempt)

    return [case(step) for step in steps]


def _lacks(binary: str, tool: str) -> str | None:
    """Why the binary has no such subcommand, or `None` when it has."""
    if not Path(binary).exists():
        return f"{binary} does not exist"
    done = subprocess.run(
        [binary, tool, "--help"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S
    )
    if done.returncode != 0 or not done.stdout:
        return "the binary has no such subcommand"
    return None
