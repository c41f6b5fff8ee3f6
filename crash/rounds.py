"""Rounds of load, end and restart on one store after another."""

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from broker import Broker, BrokerFailed, Command
from load import World

SHOWN_VIOLATIONS = 8


class Disk:
    """Where the data directory is, and what is left of it when the broker is killed."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()

    def environment(self, rng: random.Random) -> dict[str, str]:
        """Of the broker's next process."""
        return {}

    def started(self) -> None:
        """The broker is ready."""

    def killed(self, rng: random.Random) -> str:
        """The broker was killed; says what was done to the data directory."""
        return "kill -9"

    def stopped(self, rng: random.Random) -> str:
        """The broker ended in good order; says what was done then."""
        return ""

    # The next process may see a sync fail, and refuse messages then.
    sync_fails = False


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of all programs with rounds."""
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, help="of the first store")
    parser.add_argument("--rounds-per-store", type=int, default=20)
    parser.add_argument("--keep", action="store_true", help="keep the folder of a failed store")
    parser.add_argument("--fail-fast", action="store_true", help="end at the first failure")
    parser.add_argument("--drain-timeout-s", type=float, default=10.0)
    parser.add_argument("--verbose", action="store_true", help="a line for each round")


@contextlib.contextmanager
def temporary_folder(keep: list[bool]) -> Iterator[Path]:
    """A folder that is removed, after SIGTERM too, unless something true was put into `keep`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="whimbrel-crash-"))
    # The broker may change to a user of its own.
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if any(keep):
            print(f"kept {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


class Rounds:
    """Counts rounds, and prints those that fail with their seed."""

    def __init__(
        self, name: str, options: argparse.Namespace, command: Command, disk: type[Disk]
    ) -> None:
        self.name, self.options, self.command, self.disk = name, options, command, disk
        self.passed = self.failed = 0
        self.acknowledged = self.arrivals = 0
        # Chances of what a round may be.
        self.stop_chance = 0.12
        self.early_kill_chance = 0.25

    def run(self) -> int:
        """All rounds; returns the exit code."""
        seed = self.options.seed
        if seed is None:
            seed = random.SystemRandom().randrange(1_000_000)
        while (left := self.options.rounds - self.passed - self.failed) > 0:
            Store(self, seed).run(min(left, self.options.rounds_per_store))
            seed += 1
            if self.failed and self.options.fail_fast:
                break
        print(f"{self.name}: {self.acknowledged} acknowledged messages, {self.arrivals} arrivals")
        print(f"{self.name}: {self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed else 0


class Store:
    """One data directory and its rounds; the first failure ends it."""

    def __init__(self, rounds: Rounds, seed: int) -> None:
        self.rounds, self.seed = rounds, seed
        self.random = random.Random(seed)
        self.broker: Broker | None = None

    def run(self, count: int) -> None:
        """Runs so many rounds at most."""
        keep: list[bool] = []
        with temporary_folder(keep) as folder:
            self.world = World(self.seed)
            self.world.drain_timeout_s = self.rounds.options.drain_timeout_s
            self.log = folder / "log"
            self.disk = self.rounds.disk(folder)
            try:
                for number in range(count):
                    if not self._round(number, is_last=number == count - 1):
                        keep.append(self.rounds.options.keep)
                        break
            finally:
                if self.broker is not None:
                    self.broker.kill()
                self.rounds.acknowledged += self.world.ledger.acknowledged
                self.rounds.arrivals += self.world.ledger.arrivals

    def _round(self, number: int, is_last: bool) -> bool:
        started_s, what = time.monotonic(), ["start"]
        violations = self.world.ledger.violations
        try:
            if number == 0:
                self._start()
                self.world.verify()
            self._load(what)
            self._end(what)
            while self.random.random() < self.rounds.early_kill_chance:
                self._kill_early(what)
            self._start()
            # Now and then it is killed again before all has come to rest.
            if is_last or self.random.random() < 0.9:
                self.world.verify(everybody=is_last)
        except BrokerFailed as error:
            violations.insert(0, f"the broker {error}")
        took_s = time.monotonic() - started_s
        if not violations:
            self.rounds.passed += 1
            if self.rounds.options.verbose:
                print(f"{took_s:5.2f} s  seed {self.seed} round {number}: {', '.join(what)}")
                sys.stdout.flush()
            return True
        self.rounds.failed += 1
        print(f"FAILED {self.rounds.name} seed {self.seed} round {number}: {', '.join(what)}")
        for violation in violations[:SHOWN_VIOLATIONS]:
            print(f"  {violation}")
        if len(violations) > SHOWN_VIOLATIONS:
            print(f"  and {len(violations) - SHOWN_VIOLATIONS} more")
        sys.stdout.flush()
        return False

    def _new_broker(self) -> Broker:
        environment = self.disk.environment(self.random)
        return Broker(self.rounds.command, self.disk.data, self.log, environment)

    def _start(self) -> None:
        self.broker = self._new_broker()
        self.world.allows_refusal = self.disk.sync_fails
        self.broker.wait_ready()
        self.disk.started()
        self.world.broker_started(self.broker)

    def _load(self, what: list[str]) -> None:
        duration_s = self.random.choice((0.02, 0.1, 0.3, 0.6, 1.0)) * self.random.uniform(0.5, 1)
        what.append(f"load {duration_s:.2f} s")
        self.world.run(duration_s / 2)
        if self.random.random() < 0.3:
            what.append("connections cut")
            self.world.cut_some()
        self.world.run(duration_s / 2)
        if self.broker.has_ended():
            code = self.broker.process.returncode
            raise BrokerFailed(f"ended by itself with {code}{self.broker.tail()}")

    def _end(self, what: list[str]) -> None:
        self.world.is_stopping = True
        if self.random.random() < self.rounds.stop_chance:
            began_s = time.monotonic()
            self.broker.stop()
            self.world.broker_gone(at_once=False, began_s=began_s)
            what.append(f"SIGTERM {self.disk.stopped(self.random)}".strip())
        else:
            self.broker.kill()
            self.world.broker_gone(at_once=True)
            what.append(self.disk.killed(self.random))
        self.broker = None

    def _kill_early(self, what: list[str]) -> None:
        """Kills it while it starts, reads the store, or has just begun to listen."""
        self.broker = self._new_broker()
        after_s = self.random.choice((0.001, 0.003, 0.01, 0.03, 0.1)) * self.random.random()
        time.sleep(after_s)
        self.broker.kill()
        self.broker = None
        done = self.disk.killed(self.random)
        what.append(f"again {after_s * 1000:.1f} ms after its start ({done})")
