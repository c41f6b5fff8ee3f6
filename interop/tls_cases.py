"""TLS and client certificates: paho-mqtt, MQTT.js, mosquitto's clients and openssl."""

import itertools
import shutil
import subprocess
import threading
from collections.abc import Callable
from functools import partial

import commands
from brokers import Link
from commands import Tools
from harness import Case, Report
from peers import V5, V311, Connect, Message, Peer, Subscribe, Unanswered
from peers.mqttjs_peer import MqttjsPeer
from peers.paho_peer import PahoPeer
from scenarios import LARGE_BYTES, same
from secure import DEVICE, PASSWORD, REVOKED, USER, Secure

TIMEOUT_S = 15
NOT_AUTHORIZED = 0x87
VERSIONS = {V311: "3.1.1", V5: "5.0"}
# Of mosquitto and openssl.
TLS_VERSIONS = {"tlsv1.2": "tls1_2", "tlsv1.3": "tls1_3"}
# CONNECT of 3.1.1 as the user, and DISCONNECT.
HELLO_AND_BYE = (
    bytes([0x10, 12 + 2 + len(USER) + 2 + len(PASSWORD)])
    + b"\0\4MQTT\4\xc2\0\0\0\0"
    + bytes([0, len(USER)])
    + USER.encode()
    + bytes([0, len(PASSWORD)])
    + PASSWORD.encode()
    + b"\xe0\0"
)


def cases(secure: Secure, report: Report, without_node: str | None) -> list[Case]:
    """All cases of TLS."""
    libraries: list[type[Peer]] = [PahoPeer] if without_node else [PahoPeer, MqttjsPeer]
    found = []
    for library, version in itertools.product(libraries, VERSIONS):
        name = f"{library.library} {VERSIONS[version]}"
        for link in (secure.tls, secure.wss):
            for step in (messages_both_ways, large_message, wrong_password):
                what = f"{name} {link.name}: {step.__name__.replace('_', ' ')}"
                found.append(Case(what, partial(step, library, link, version)))
        for step in (own_topics_alone, no_certificate):
            what = step.__name__.replace("_", " ")
            found.append(Case(f"{name} mtls: {what}", partial(step, library, secure, version)))
    found.append(Case("paho 5.0 mtls: cut off when revoked", partial(cut_off_when_revoked, secure)))
    return found + _mosquitto(secure, report) + _openssl(secure, report)


def _connected(library: type[Peer], link: Link, version: int, name: str, **more) -> Peer:
    client_id = f"{name}-{library.library}-{version}-{link.name}"
    peer = library(Connect(link, version, client_id, **more))
    peer.connect()
    return peer


def _as_user(library: type[Peer], link: Link, version: int, name: str) -> Peer:
    return _connected(library, link, version, name, username=USER, password=PASSWORD)


def messages_both_ways(library: type[Peer], link: Link, version: int) -> None:
    """Many small ones, each way at each QoS."""
    peer = _as_user(library, link, version, "both")
    try:
        topic = f"both/{peer.options.client_id}"
        peer.subscribe(Subscribe(topic, 2))
        for qos in (0, 1, 2):
            sent = [Message(topic, f"{qos} {number}".encode(), qos) for number in range(200)]
            peer.publish(*sent)
            got = [peer.receive().payload for _ in sent]
            same(got == [message.payload for message in sent], True, f"all at QoS {qos} in order")
    finally:
        peer.close()


def large_message(library: type[Peer], link: Link, version: int) -> None:
    """Of many records."""
    peer = _as_user(library, link, version, "large")
    try:
        topic = f"large/{peer.options.client_id}"
        peer.subscribe(Subscribe(topic, 1))
        payload = bytes(range(256)) * (LARGE_BYTES // 256)
        peer.publish(Message(topic, payload, 1))
        same(peer.receive().payload == payload, True, "the payload")
    finally:
        peer.close()


def wrong_password(library: type[Peer], link: Link, version: int) -> None:
    """Is refused."""
    refuse(Connect(link, version, "guesses", username=USER, password="guess"), library)


def own_topics_alone(library: type[Peer], secure: Secure, version: int) -> None:
    """The name in the certificate decides."""
    device = _connected(library, secure.showing(DEVICE), version, "device")
    watcher = _as_user(library, secure.tls, version, f"watches-{version}")
    try:
        codes = device.subscribe(Subscribe(f"dev/{DEVICE}/#", 1))
        same(codes, [1], "its own topics")
        denied = NOT_AUTHORIZED if version == V5 else 0x80
        for topic in ("#", f"dev/{REVOKED}/#", "dev/+/x"):
            # MQTT.js tells of no code but that of a failure.
            same(device.subscribe(Subscribe(topic, 1))[0] in (denied, 0x80), True, topic)
        topic = f"dev/{DEVICE}/{library.library}/{version}"
        watcher.subscribe(Subscribe(topic, 1))
        device.publish(Message(topic, b"hello", 1))
        same(watcher.receive().payload, b"hello", "message")
    finally:
        device.close()
        watcher.close()


def no_certificate(library: type[Peer], secure: Secure, version: int) -> None:
    """Is refused before MQTT begins, whatever the password."""
    refuse(Connect(secure.mutual, version, "bare", username=USER, password=PASSWORD), library)


def refuse(connect: Connect, library: type[Peer]) -> None:
    """The client must not come in."""
    peer = library(connect)
    try:
        peer.connect()
    except (Unanswered, OSError):
        return
    finally:
        peer.close()
    raise AssertionError("it was let in")


def cut_off_when_revoked(secure: Secure) -> None:
    """A client that is connected with a certificate that is revoked."""
    link = secure.showing(REVOKED)
    peer = _connected(PahoPeer, link, V5, "revoked")
    try:
        secure.revoke(REVOKED)
        peer.receive_closing()
    finally:
        peer.close()
    refuse(Connect(link, V5, "revoked again"), PahoPeer)


def _mosquitto(secure: Secure, report: Report) -> list[Case]:
    if not shutil.which("mosquitto_pub"):
        report.skip("mosquitto_pub", "not installed")
        return []
    # These are about clients without a password, or without a broker.
    apart = ("user_name_where_none_is_needed", "nobody_listens")
    steps = commands.COMMON + commands.MOSQUITTO_ONLY
    steps = [step for step in steps if step.__name__ not in apart]
    ours = [(secure.binary, tool) for tool in ("pub", "sub", "rr")]
    theirs = commands.MOSQUITTO.words()
    found = []
    for version in TLS_VERSIONS:
        flags = ("--cafile", secure.authority, "--tls-version", version)
        flags += ("-u", USER, "-P", PASSWORD)
        for name, words, some in (
            ("mosquitto_pub to mosquitto_sub", theirs, steps),
            ("mosquitto_pub to whimbrel sub", (theirs[0], *ours[1:]), steps[:1]),
            ("whimbrel pub to mosquitto_sub", (ours[0], *theirs[1:]), steps[:1]),
            ("whimbrel pub to whimbrel sub", ours, steps + commands.V5_ONLY),
        ):
            tools = Tools(f"{name} {version}", *((*each, *flags) for each in words))
            found += commands.cases_of(some, tools, secure.tls, "mqttv5", "tls")
        check = partial(_mosquitto_with_certificate, secure, version)
        found.append(Case(f"mosquitto_pub {version} mtls: with and without certificate", check))
    return found


def _mosquitto_with_certificate(secure: Secure, version: str) -> None:
    link = secure.showing(DEVICE)
    to = ["-h", link.host, "-p", str(link.port), "--cafile", secure.authority]
    to += ["--tls-version", version, "-V", "mqttv5", "-q", "1", "-m", "x"]
    shown = ["--cert", link.tls.certificate, "--key", link.tls.key]
    own, others = f"dev/{DEVICE}/mosquitto", f"dev/{REVOKED}/mosquitto"

    def publish(*flags: str) -> subprocess.CompletedProcess:
        command = ["mosquitto_pub", *to, *flags]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
        )

    done = publish(*shown, "-t", own)
    same((done.returncode, done.stderr), (0, ""), "its own topic")
    done = publish(*shown, "-t", others)
    same("Not authorized" in done.stderr, True, f"another's topic: {done.stderr!r}")
    done = publish("-u", USER, "-P", PASSWORD, "-t", own)
    same(done.returncode != 0, True, "refused without certificate")


def _openssl(secure: Secure, report: Report) -> list[Case]:
    if not shutil.which("openssl"):
        report.skip("openssl", "not installed")
        return []
    steps: list[Callable[[Secure, str], None]] = [handshake, resumption, certificate_is_asked_for]
    return [
        Case(f"openssl {version}: {step.__name__.replace('_', ' ')}", partial(step, secure, flag))
        for version, flag in TLS_VERSIONS.items()
        for step in steps
    ] + [
        Case("openssl: reconnects five times at once", partial(reconnects, secure)),
        Case("openssl: old versions are refused", partial(old_versions, secure)),
        Case("openssl: renegotiation is refused", partial(renegotiation, secure)),
    ]


def s_client(link: Link, *flags: str, stdin: bytes = HELLO_AND_BYE) -> str:
    """What `openssl s_client` prints; the broker ends the connection after DISCONNECT."""
    to = ["-connect", f"{link.host}:{link.port}", "-CAfile", link.tls.authority]
    command = ["openssl", "s_client", *to, "-verify_return_error", *flags]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT_S)
    return (done.stdout + done.stderr).decode(errors="replace")


def _contains(said: str, *wanted: str) -> None:
    for text in wanted:
        if text not in said:
            raise AssertionError(f"no {text!r} in what openssl says: {said[-800:]}")


def handshake(secure: Secure, flag: str) -> None:
    """The certificate is of the authority and for the name; ALPN chooses `mqtt`."""
    said = s_client(
        secure.tls, f"-{flag}", "-alpn", "mqtt", "-verify_hostname", "localhost", "-ign_eof"
    )
    version = {"tls1_2": "TLSv1.2", "tls1_3": "TLSv1.3"}[flag]
    # CONNACK without error follows.
    _contains(said, "Verify return code: 0 (ok)", "ALPN protocol: mqtt", version, " \2\0\0")


def resumption(secure: Secure, flag: str) -> None:
    """A session that was kept is taken up again, without certificates."""
    session = str(secure.certs / f"session-{flag}")
    first = s_client(secure.tls, f"-{flag}", "-sess_out", session, "-ign_eof")
    _contains(first, "New, TLSv1", " \2\0\0")
    second = s_client(secure.tls, f"-{flag}", "-sess_in", session, "-ign_eof")
    _contains(second, "Reused, TLSv1", " \2\0\0")


def certificate_is_asked_for(secure: Secure, flag: str) -> None:
    """And nothing goes on without."""
    said = s_client(secure.mutual, f"-{flag}", "-ign_eof")
    same(" \2\0\0" in said, False, "a CONNACK without certificate")
    tls = secure.showing(DEVICE).tls
    said = s_client(
        secure.mutual, f"-{flag}", "-cert", tls.certificate, "-key", tls.key, "-ign_eof"
    )
    _contains(said, "Acceptable client certificate CA names", " \2\0\0")


def reconnects(secure: Secure) -> None:
    """With the session of the first."""
    said = s_client(secure.tls, "-tls1_2", "-reconnect", "-ign_eof")
    same(said.count("Reused, TLSv1.2"), 5, "sessions taken up again")


def old_versions(secure: Secure) -> None:
    """TLS 1.0 and 1.1, even if the client's library would."""
    for flag in ("-tls1", "-tls1_1"):
        said = s_client(secure.tls, flag, "-cipher", "DEFAULT@SECLEVEL=0", "-ign_eof")
        # By the broker, not by openssl itself.
        _contains(said, "Cipher is (NONE)", "SSL alert number")
        same(" \2\0\0" in said, False, "a CONNACK")


def renegotiation(secure: Secure) -> None:
    """Whatever the client asks for in the middle of a connection."""
    link = secure.tls
    process = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"{link.host}:{link.port}", "-tls1_2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    guard = threading.Timer(TIMEOUT_S, process.kill)
    guard.start()
    try:
        process.stdin.write(b"R\n")
        process.stdin.flush()
        said = process.stdout.read().decode(errors="replace")
    finally:
        guard.cancel()
        process.kill()
        process.wait()
    _contains(said, "RENEGOTIATING", "no renegotiation")
