"""Whimbrel with TLS, client certificates, passwords and SCRAM, as its own commands set them up."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import brokers
from brokers import Link, Tls

USER, PASSWORD = "ann", "correct horse"
DEVICE, REVOKED = "device-1", "device-2"
COMMAND_TIMEOUT_S = 60

# `ann` may do everything, a device what is below its own name.
RULES = f"""\
[[rule]]
allow = ["publish", "subscribe"]
topics = "#"
user = "{USER}"

[[rule]]
allow = ["publish", "subscribe"]
topics = "dev/%{{certificate}}/#"
method = "certificate"
"""

CONFIG = """\
password_file = "{folder}/passwords"
rules_file = "{folder}/rules.toml"

[[listener]]
type = "tcp"
bind = "127.0.0.1:0"

[[listener]]
type = "tcp"
bind = "127.0.0.1:0"
[listener.tls]
certificate = "{folder}/certs/server.pem"
key = "{folder}/certs/server.key"

[[listener]]
type = "websocket"
bind = "127.0.0.1:0"
path = "/mqtt"
[listener.tls]
certificate = "{folder}/certs/server.pem"
key = "{folder}/certs/server.key"

[[listener]]
type = "tcp"
bind = "127.0.0.1:0"
authentication = ["certificate"]
[listener.tls]
certificate = "{folder}/certs/server.pem"
key = "{folder}/certs/server.key"
client_certificates = "required"
client_ca = "{folder}/certs/ca.pem"
crl = ["{folder}/certs/ca.crl"]
"""


@dataclass(frozen=True)
class Secure:
    """The broker, and the ways to reach it."""

    binary: str
    certs: Path
    plain: Link
    tls: Link
    wss: Link
    # Where certificates are demanded; shows none by itself.
    mutual: Link

    def showing(self, name: str) -> Link:
        """The way for the client whose certificate has this name."""
        files = (str(self.certs / f"{name}.{kind}") for kind in ("pem", "key"))
        return replace(self.mutual, tls=Tls(self.authority, *files))

    @property
    def authority(self) -> str:
        """The certificate that all clients trust."""
        return str(self.certs / "ca.pem")

    def revoke(self, name: str) -> None:
        """Puts the certificate of this name on the revocation list."""
        run(self.binary, "certs", "--dir", str(self.certs), "revoke", name)


@contextlib.contextmanager
def whimbrel(binary: str) -> Iterator[Secure]:
    """Starts it, with certificates of `whimbrel certs` and users of `whimbrel passwd`."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-secure-") as place:
        folder = Path(place)
        certs = folder / "certs"
        clients = [word for name in (DEVICE, REVOKED) for word in ("--client", name)]
        run(binary, "certs", "--dir", str(certs), *clients)
        passwords = str(folder / "passwords")
        run(binary, "passwd", "add", "--scram", "--stdin", passwords, USER, stdin=PASSWORD)
        (folder / "rules.toml").write_text(RULES)
        with brokers.configured(binary, folder, CONFIG.format(folder=folder)) as links:
            trusting = Tls(str(certs / "ca.pem"))
            plain, tls, wss, mutual = links
            named = {"tls": tls, "wss": wss, "mtls": mutual}
            links = [replace(link, name=name, tls=trusting) for name, link in named.items()]
            yield Secure(binary, certs, plain, *links)


def run(*command: str, stdin: str = "") -> None:
    """Runs a command that must succeed."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
    )
    if done.returncode != 0:
        raise AssertionError(f"{command[:3]} ended with {done.returncode}: {done.stderr}")
