#!/usr/bin/env python3
"""A full disk: nothing acknowledged is lost, and the broker goes on when there is room again.

    python3 crash/full_disk.py --whimbrel target/release/whimbrel

The data directory is on a tmpfs of 48 MiB, of which a file takes a part. Publishers fill it: they
must be refused with 0x97 or held back, the broker must stay up, subscribers must get what there is.
When the file is removed, and when a subscriber that was away has got its messages, publishing must
work again without a restart. Then kill -9, on the full disk too, restart, and the check of
`load.py`.

Needs root, or user namespaces; says `skipped` otherwise. The last line is
`full disk: N passed, N failed`, in steps.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import broker
import rounds
from load import World
from roles import Publisher, Subscriber

INSIDE = "WHIMBREL_CRASH_INSIDE"
FULL_AFTER_REFUSALS = 30
FULL_AFTER_SILENCE_S = 3.0
FILL_TIMEOUT_S = 60.0
ROOM_TIMEOUT_S = 20.0


class FullWorld(World):
    """Publishers of large messages, subscribers here and away, no wills."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, publishers=6, idlers=0)
        self.dying = []
        self.allows_refusal = True
        self.large_chance = 0.0
        self.refused = 0
        for publisher in self.publishers:
            publisher.sizes_bytes = (2_000, 24_000)

    def _publisher(self, i: int) -> Publisher:
        topics = [self.ledger.add_topic(f"t/{i}/{qos}", qos) for qos in (1, 2)]
        topics.append(self.ledger.add_topic(f"r/{i}/1", 1))
        return Refused(self, f"pub-{i}", topics, (1, 10, 50)[i % 3])

    def _subscribers(self, publishers: int, idlers: int) -> list[Subscriber]:
        return [
            Subscriber(self, "here-2", [("t/#", 2), ("r/#", 2)]),
            Subscriber(self, "here-1", [("t/+/1", 1)], receive_maximum=20),
            Subscriber(self, "away-2", [("t/#", 2)]),
            Subscriber(self, "away-1", [("t/+/2", 1)], receive_maximum=20),
        ]

    def away(self) -> None:
        """Those who collect messages leave."""
        for subscriber in self.subscribers[2:]:
            subscriber.wants_connection = False
            subscriber.client.drop()


class Refused(Publisher):
    """Counts refusals, which must say why."""

    def acknowledged(self, client: object, token: object, reason: int) -> None:
        super().acknowledged(client, token, reason)
        if reason >= 0x80:
            self.world.refused += 1
            if reason != 0x97:
                self.violation(client, f"refused with {reason:#x} instead of 0x97")


class Steps:
    """The steps, in their order, each of which needs the ones before."""

    def __init__(self, command: broker.Command, folder: Path, seed: int, filler_bytes: int) -> None:
        self.command, self.folder, self.filler_bytes = command, folder, filler_bytes
        self.disk = folder / "disk"
        self.log = folder / "log"
        self.world = FullWorld(seed)
        self.broker: broker.Broker | None = None

    def all(self) -> list:
        """In order."""
        return [
            self.start,
            self.fill,
            self.deliver_while_full,
            self.go_on_when_a_file_is_removed,
            self.fill,
            self.drain_while_full,
            self.go_on_when_drained,
            self.fill,
            self.kill_and_restart_while_full,
            self.go_on_when_drained,
            self.kill_under_load_and_restart,
        ]

    def start(self) -> None:
        """Starts with little room."""
        (self.disk / "data").mkdir()
        with (self.disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.filler_bytes)
        self._start()
        self.world.verify()

    def fill(self) -> None:
        """Publishes until nothing more is accepted."""
        self.world.away()
        self.world.refused = 0
        end_s = time.monotonic() + FILL_TIMEOUT_S
        last, since_s = -1, time.monotonic()
        while time.monotonic() < end_s:
            self.world.run(0.1)
            self._must_be_alive()
            if self.world.ledger.acknowledged != last:
                last, since_s = self.world.ledger.acknowledged, time.monotonic()
            is_silent = time.monotonic() - since_s > FULL_AFTER_SILENCE_S
            if self.world.refused >= FULL_AFTER_REFUSALS or is_silent:
                return
        self.world.ledger.violation(f"the disk was not full after {FILL_TIMEOUT_S} s")

    def deliver_while_full(self) -> None:
        """Those who are here get everything that was acknowledged."""
        self.world.settle(finish=False)

    def go_on_when_a_file_is_removed(self) -> None:
        """Messages are accepted again."""
        (self.disk / "filler").unlink()
        self._must_accept()

    def drain_while_full(self) -> None:
        """Those who were away get everything, though nothing can be published."""
        self.world.settle(everybody=True, finish=False)

    def go_on_when_drained(self) -> None:
        """What has been delivered leaves room for more."""
        self._must_accept()
        self.world.verify(everybody=True)

    def kill_and_restart_while_full(self) -> None:
        """It starts on the full disk, and those who were away get everything."""
        self._kill()
        self._start()
        self.world.settle(everybody=True, finish=False)

    def kill_under_load_and_restart(self) -> None:
        """As always."""
        self.world.run(0.5)
        self._kill()
        self._start()
        self.world.verify(everybody=True)

    def _start(self) -> None:
        self.broker = broker.Broker(self.command, self.disk / "data", self.log)
        self.broker.wait_ready()
        self.world.broker_started(self.broker)

    def _kill(self) -> None:
        self.world.is_stopping = True
        self.broker.kill()
        self.world.broker_gone(at_once=True)

    def _must_be_alive(self) -> None:
        if self.broker.has_ended():
            code = self.broker.process.returncode
            raise broker.BrokerFailed(f"ended with {code}{self.broker.tail()}")

    def _must_accept(self) -> None:
        goal = self.world.ledger.acknowledged + 50
        end_s = time.monotonic() + ROOM_TIMEOUT_S
        while self.world.ledger.acknowledged < goal:
            if time.monotonic() > end_s:
                self.world.ledger.violation(f"nothing is accepted {ROOM_TIMEOUT_S} s after")
                return
            self.world.run(0.1)
            self._must_be_alive()


def mount(folder: Path, size_mib: int) -> str | None:
    """Mounts a tmpfs; returns why it cannot be, or None."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "whimbrel-crash", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return None if done.returncode == 0 else done.stderr.strip()


def enter_namespace() -> None:
    """Runs this program again where it may mount, if there is such a place."""
    words = ["unshare", "--user", "--map-root-user", "--mount"]
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        if subprocess.run([*words, "true"], capture_output=True, timeout=20).returncode == 0:
            os.execvp(words[0], [*words, sys.executable, *sys.argv])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    broker.add_arguments(parser)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--size-mib", type=int, default=48)
    parser.add_argument("--filler-mib", type=int, default=16)
    options = parser.parse_args()
    passed = failed = 0
    with rounds.temporary_folder([]) as folder:
        disk = folder / "disk"
        disk.mkdir()
        if why := mount(disk, options.size_mib):
            disk.rmdir()
            enter_namespace()
            print(f"full disk: skipped: {why}\nfull disk: 0 passed, 0 failed")
            return 0
        steps = Steps(broker.Command(options), folder, options.seed, options.filler_mib << 20)
        try:
            for step in steps.all():
                began_s = time.monotonic()
                try:
                    step()
                except broker.BrokerFailed as error:
                    steps.world.ledger.violation(f"the broker {error}")
                name = step.__name__.replace("_", " ")
                if steps.world.ledger.violations:
                    failed += 1
                    print(f"FAILED full disk seed {options.seed}: {name}")
                    for violation in steps.world.ledger.violations[: rounds.SHOWN_VIOLATIONS]:
                        print(f"  {violation}")
                    break
                passed += 1
                acknowledged = steps.world.ledger.acknowledged
                took_s = time.monotonic() - began_s
                print(f"{took_s:5.1f} s  {name} ({acknowledged} acknowledged so far)", flush=True)
        finally:
            if steps.broker is not None:
                steps.broker.kill()
            steps.world.broker_gone(at_once=True)
            if subprocess.run(["umount", str(disk)], timeout=20).returncode != 0:
                subprocess.run(["umount", "-l", str(disk)], timeout=20)
    print(f"full disk: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
