#!/usr/bin/env python3
"""Damaged files: the broker says so, or delivers exactly what it must.

    python3 crash/corrupt.py --whimbrel target/release/whimbrel --rounds 30

Two stores are made by a load: one that was stopped in good order, and one that was killed after an
idle second. Both hold sessions with waiting messages, retained messages and subscriptions. Each
round damages one file of a copy (bits, bytes, 512-byte blocks that are zeros or another's,
truncation, removal) and starts the broker. It must

- refuse: exit code 2, and an error that names the file, the offset if it is a log, and `whimbrel
  store check`; or
- start, and pass the whole check of `load.py`, as the damage was harmless; or
- start, and lack messages of which its log says that this file is damaged; or
- where the end of the log is gone (truncated or removed), which cannot be told from a power cut
  before it was synced: start with what was there before, some session at least or a word about this
  file in its log. Then only wrong payloads, and messages that were never sent, are looked for.

The last lines are counts of these outcomes and `corrupt: N passed, N failed`.
"""

import argparse
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import broker
import rounds
from broker import Broker, BrokerFailed, Command
from load import World

BLOCK_BYTES = 512


class Refused(Exception):
    """The broker did not start, as it should."""


def make(
    folder: Path, command: Command, seed: int, in_good_order: bool, drain_timeout_s: float
) -> World:
    """A store in `folder`/data, not damaged, and the world that must find everything there."""
    world = World(seed, publishers=6, idlers=6)
    world.large_chance = 0.02
    world.drain_timeout_s = drain_timeout_s
    data = folder / "data"
    data.mkdir()
    running = Broker(command, data, folder / "log")
    try:
        running.wait_ready()
        world.broker_started(running)
        world.verify(everybody=True)
        for dying in world.dying:
            dying.wants_connection = False
        for subscriber in world.subscribers[::2]:
            subscriber.wants_connection = False
            subscriber.client.drop()
        world.run(0.8)
        world.settle()
        world.is_stopping = True
        if in_good_order:
            running.stop()
        else:
            world.turns(1.2)
            running.kill()
        world.broker_gone(at_once=not in_good_order)
    finally:
        running.kill()
    return world


class Damage:
    """What is done to one file of a data directory."""

    def __init__(self, data: Path, rng: random.Random) -> None:
        files = sorted(path for path in data.iterdir() if path.is_file())
        logs = [path for path in files if path.name.startswith("log-")]
        self.random = rng
        self.is_end = False
        while True:
            self.path = rng.choice(logs if rng.random() < 0.8 and logs else files)
            before = self.path.read_bytes()
            kinds = [self._flip, self._overwrite, self._zero, self._copy, self._truncate]
            kind: Callable = rng.choice(kinds * 4 + [self._remove])
            self.what = kind(before)
            if not self.path.exists() or self.path.read_bytes() != before:
                break
        is_last = bool(logs) and self.path == logs[-1]
        self.is_end = is_last and kind in (self._truncate, self._remove)
        self.what = f"{self.path.name}: {self.what}"

    def _offset(self, content: bytes) -> int:
        """Mostly where there is something."""
        used = len(content.rstrip(b"\0"))
        return self.random.randrange(max(1, used if self.random.random() < 0.9 else len(content)))

    def _write(self, at: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def _flip(self, content: bytes) -> str:
        if not content:
            return ""
        at = self._offset(content)
        self._write(at, bytes((content[at] ^ 1 << self.random.randrange(8),)))
        return f"a bit flipped at {at}"

    def _overwrite(self, content: bytes) -> str:
        at = self._offset(content)
        data = self.random.randbytes(min(self.random.randrange(1, 32), len(content) - at))
        self._write(at, data)
        return f"{len(data)} random bytes at {at}"

    def _zero(self, content: bytes) -> str:
        at = self._offset(content) // BLOCK_BYTES * BLOCK_BYTES
        self._write(at, bytes(min(BLOCK_BYTES, len(content) - at)))
        return f"zeros from {at} to {min(at + BLOCK_BYTES, len(content))}"

    def _copy(self, content: bytes) -> str:
        at, other = (self._offset(content) // BLOCK_BYTES * BLOCK_BYTES for _ in range(2))
        self._write(at, content[other : other + BLOCK_BYTES][: len(content) - at])
        return f"the block of {other} at {at}"

    def _truncate(self, content: bytes) -> str:
        at = self._offset(content)
        os.truncate(self.path, at)
        return f"truncated from {len(content)} to {at}"

    def _remove(self, content: bytes) -> str:
        self.path.unlink()
        return f"removed, {len(content)} bytes"


def attempt(world: World, data: Path, command: Command, damage: Damage) -> str:
    """Starts the broker on the damaged directory; returns the outcome or raises BrokerFailed."""
    log = data.parent / "log-of-round"
    running = Broker(command, data, log)
    try:
        try:
            running.wait_ready()
        except BrokerFailed as error:
            return must_refuse(running, damage, str(error))
        world.broker_started(running)
        if damage.is_end:
            # Everybody may lack anything, so there is no point in waiting long.
            world.drain_timeout_s = 0.5
        world.verify(everybody=True)
        violations = world.ledger.violations
        is_named = damage.path.name in running.errors()
        if not violations:
            return "all delivered"
        wrong = [v for v in violations if "payload" in v or "never sent" in v]
        wrong += [v for v in violations if "the broker" in v]
        missing = [v for v in violations if "missing" in v or "retained" in v]
        if is_named and missing and not wrong and len(missing) == len(violations):
            return "reported late"
        gone = sum("session present 0" in violation for violation in violations)
        if damage.is_end and not wrong and (is_named or gone < len(world.roles())):
            return "end lost"
        shown = "; ".join((wrong + violations)[: rounds.SHOWN_VIOLATIONS])
        raise BrokerFailed(f"started, but: {shown}{running.tail()}")
    finally:
        running.kill()


def must_refuse(running: Broker, damage: Damage, error: str) -> str:
    """Whether it refused in the right words."""
    errors = running.errors()
    if running.process.returncode != 2:
        raise BrokerFailed(f"{error}; it should end with 2")
    # Of a file that is gone only its neighbour or the directory can tell.
    name = damage.path.name if damage.path.exists() else damage.path.parent.name
    found = errors.find(name)
    if found < 0:
        raise BrokerFailed(f"refuses, but its error does not name {name}{running.tail()}")
    is_log = damage.path.exists() and name.startswith("log-")
    if is_log and not re.search(r"\d", errors[found + len(name) :]):
        raise BrokerFailed(f"refuses, but its error names no offset{running.tail()}")
    if "whimbrel store check" not in errors:
        raise BrokerFailed(f"refuses, but does not name `whimbrel store check`{running.tail()}")
    return "refused"


def in_child(world: World, folder: Path, command: Command, seed: int) -> str:
    """One round in a child process, as it changes the world. Returns its outcome."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            outcome = run_round(world, folder, command, seed)
        except BaseException as error:  # noqa: BLE001: whatever it is, the parent must know
            outcome = f"FAILED {type(error).__name__}: {error}"
        os.write(writer, outcome.encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        outcome = pipe.read().decode()
    os.waitpid(child, 0)
    return outcome or "FAILED: the round died"


def run_round(world: World, folder: Path, command: Command, seed: int) -> str:
    """One round: a copy, the damage, the broker."""
    began_s = time.monotonic()
    world.loop.renew()
    place = folder / f"round-{seed}"
    place.mkdir()
    try:
        data = place / "data"
        shutil.copytree(folder / "data", data)
        damage = Damage(data, random.Random(seed))
        try:
            outcome = attempt(world, data, command, damage)
        except BrokerFailed as error:
            outcome = f"FAILED {damage.what}: {error}"
        took_s = time.monotonic() - began_s
        return f"{outcome}\n{took_s:.2f} s  {damage.what}"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def make_both(
    folder: Path, command: Command, seed: int, drain_timeout_s: float
) -> list[tuple[World, Path]]:
    """Both stores. Raises BrokerFailed when already that goes wrong."""
    stores = []
    for in_good_order in (True, False):
        place = folder / ("stopped" if in_good_order else "killed")
        place.mkdir()
        world = make(place, command, seed, in_good_order, drain_timeout_s)
        if world.ledger.violations:
            raise BrokerFailed(f"failed: {world.ledger.violations[:5]}")
        stores.append((world, place))
    return stores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    broker.add_arguments(parser)
    rounds.arguments(parser)
    options = parser.parse_args()
    seed = options.seed
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    command = Command(options)
    outcomes: Counter[str] = Counter()
    failed = 0
    with rounds.temporary_folder([]) as folder:
        try:
            stores = make_both(folder, command, seed, options.drain_timeout_s)
        except BrokerFailed as error:
            print(f"FAILED corrupt seed {seed}: making a store: the broker {error}")
            print("corrupt: 0 passed, 1 failed")
            return 1
        for number in range(options.rounds):
            world, place = stores[number % 2]
            outcome = in_child(world, place, command, seed * 100_000 + number)
            outcome, _, what = outcome.partition("\n")
            if outcome.startswith("FAILED"):
                failed += 1
                print(f"FAILED corrupt seed {seed} round {number} ({place.name}): {outcome[7:]}")
                print("\n".join(what.splitlines()[:14]), flush=True)
                if options.fail_fast:
                    break
            else:
                outcomes[outcome] += 1
                if options.verbose:
                    print(f"round {number} ({place.name}): {outcome}: {what}", flush=True)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"corrupt: {counts}")
    print(f"corrupt: {sum(outcomes.values())} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
