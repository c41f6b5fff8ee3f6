"""The broker's process: started, killed, stopped; Whimbrel, or mosquitto to test the tests."""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0


class BrokerFailed(Exception):
    """The broker did not start or did not stop as it should: what happened, and its log's end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to name the broker."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--whimbrel", metavar="BINARY", help="the broker to test")
    which.add_argument("--mosquitto", action="store_true", help="Debian's, to test the tests")
    parser.add_argument("--durability", help="passed on to Whimbrel")


class Command:
    """How to start a broker with a data directory."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.binary = None
        if options.whimbrel:
            self.binary = str(Path(shutil.which(options.whimbrel) or options.whimbrel).resolve())
        self.durability = options.durability

    def line(self, data_dir: Path, port: int) -> list[str]:
        """The words of the command."""
        if self.binary:
            words = [self.binary, "broker", "--data-dir", str(data_dir), "--port", str(port)]
            words += ["--no-websocket"]
            return words + (["--durability", self.durability] if self.durability else [])
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            raise BrokerFailed("mosquitto is not installed")
        config = data_dir.with_suffix(".conf")
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            f"max_inflight_messages 1000\npersistence true\npersistence_location {data_dir}/\n"
            "user root\n"
        )
        return [program, "-c", str(config)]


class Broker:
    """A running broker. `port` is there from `wait_ready` on."""

    def __init__(
        self, command: Command, data_dir: Path, log: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.is_ready = threading.Event()
        self.port = 0
        self.log = log
        given = 0
        if command.binary is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                given = probe.getsockname()[1]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command.line(data_dir, given),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | (environment or {}),
            )
        threading.Thread(target=self._read, daemon=True).start()
        if given:
            threading.Thread(target=self._probe, args=(given,), daemon=True).start()

    def _read(self) -> None:
        """Reads stdout to its end, lest the pipe fill."""
        for line in self.process.stdout:
            if found := re.search(r"listening\s+tcp\s+\S*?:(\d+)\s*$", line):
                self.port = int(found[1])
            if line.strip().lower().startswith("ready") and self.port:
                self.is_ready.set()

    def _probe(self, port: int) -> None:
        while self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.01)
                continue
            self.port = port
            self.is_ready.set()
            return

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Raises when the broker ends or takes longer."""
        deadline_s = time.monotonic() + timeout_s
        while not self.is_ready.wait(0.005):
            if self.process.poll() is not None:
                # Its last lines may still be on their way.
                raise BrokerFailed(f"ended with {self.process.returncode} at start{self.tail()}")
            if time.monotonic() > deadline_s:
                self.kill()
                raise BrokerFailed(f"was not ready within {timeout_s} s{self.tail()}")

    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self.process.poll() is not None

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM; it must end with exit code 0."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerFailed(f"did not stop after SIGTERM{self.tail()}") from None
        if code != 0:
            raise BrokerFailed(f"exit code {code} after SIGTERM{self.tail()}")

    def errors(self) -> str:
        """What it wrote to stderr."""
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        """The end of it, for a message."""
        lines = self.errors().splitlines()[-12:]
        return "; its log ends:\n    " + "\n    ".join(lines) if lines else " without a word"
