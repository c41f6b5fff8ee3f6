#!/usr/bin/env python3
"""Interoperability of the client: its scenarios at brokers that nobody here wrote, and at Whimbrel.

    python3 interop/foreign.py --scenarios target/debug/whimbrel-scenarios \\
        --whimbrel target/debug/whimbrel [--rumqttd PATH] [--only REGEX] [--verbose]

Debian's mosquitto, aedes, amqtt, NATS and, where it was built (`interop/rumqttd`), rumqttd, each in
every version and by every transport that it offers. What is missing is installed below `target`.
`foreign_faults.py` says what a broker does not do. Such a scenario is run all the same, and if it
passes that is a failure, as the list is not true then.
One line per failure, then `foreign: N passed, N failed, N known`; exit code 1 on failure.
"""

import argparse
import concurrent.futures
import re
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from urllib.parse import quote

import environment

# Brokers at once: the machine is to keep up with all.
AT_ONCE = 2
WAY_TIMEOUT_S = 60
# How the reason of a fault begins that does not always show.
SOMETIMES = "sometimes "


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", required=True, help="whimbrel-scenarios")
    parser.add_argument("--whimbrel", help="the broker of this repository")
    parser.add_argument("--rumqttd", help="interop-rumqttd, built from interop/rumqttd")
    parser.add_argument("--only", default="", help="of `BROKER VERSION SCHEME: SCENARIO`")
    parser.add_argument("--verbose", action="store_true", help="a line for each scenario")
    return parser.parse_args()


class Tally:
    """Counts what came of scenarios, and prints what was not expected."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.passed = self.failed = self.known = 0
        self.lock = threading.Lock()
        # Faults that the scenarios are about.
        self.met: set[tuple[str, str]] = set()

    def result(self, kind, name: str, why: str | None) -> None:
        """Counts one scenario, which failed if there is a `why`."""
        fault = next((pattern for pattern in kind.faults if re.search(pattern, name)), None)
        reason = kind.faults.get(fault)
        full = f"{kind.name} {name}"
        with self.lock:
            self.met.add((kind.name, fault))
            if self.options.verbose:
                print(f"{full}: {why or 'passed'}{f' (known: {reason})' if reason else ''}")
            if why is not None and reason is None:
                self.fail(full, why)
            elif why is not None:
                self.known += 1
            elif reason is None or reason.startswith(SOMETIMES):
                self.passed += 1
            else:
                self.fail(full, "passes; take it off foreign_faults.py")

    def fail(self, name: str, why: str) -> None:
        """Counts and prints one failure."""
        self.failed += 1
        print(f"FAILED {name}: {why}", flush=True)

    def close(self, kinds: list) -> int:
        """Prints the totals; returns the exit code."""
        for kind in kinds if not self.options.only else ():
            for fault in kind.faults:
                if (kind.name, fault) not in self.met:
                    self.fail(kind.name, f"`{fault}` of foreign_faults.py is no scenario")
        print(f"foreign: {self.passed} passed, {self.failed} failed, {self.known} known")
        return 1 if self.failed or not self.passed else 0


def run_kind(kind, tally: Tally) -> None:
    """Starts the broker and runs the scenarios by each way to it."""
    import brokers

    try:
        with tempfile.TemporaryDirectory(prefix="whimbrel-foreign-") as folder:
            with kind.started(Path(folder)) as ways:
                for way in ways:
                    run_way(kind, way, tally)
    except (brokers.BrokerFailed, AssertionError) as error:
        with tally.lock:
            tally.fail(kind.name, " ".join(str(error).split()))


def run_way(kind, way, tally: Tally) -> None:
    import foreign_brokers

    wanted = tally.options.only
    scheme, rest = way.url.split("://")
    user = f"{quote(foreign_brokers.USER)}:{quote(foreign_brokers.PASSWORD)}"
    command = [tally.options.scenarios, f"{scheme}://{user}@{rest}", "--version", way.version]
    command += ["--at-once", str(kind.at_once)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAY_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        with tally.lock:
            tally.fail(f"{kind.name} {way.name}", f"no end after {WAY_TIMEOUT_S} s")
        return
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    for word, scenario, *why in lines:
        name = f"{way.name}: {scenario}"
        if re.search(wanted, f"{kind.name} {name}"):
            tally.result(kind, name, why[0] if word == "failed" else None)
    if not lines:
        with tally.lock:
            tally.fail(f"{kind.name} {way.name}", f"nothing was run: {done.stderr.strip()}")


def main() -> int:
    options = arguments()
    environment.enter_venv()
    without_node = environment.prepare_node()

    # These need what the virtual environment holds.
    import foreign_brokers
    from foreign_brokers import Kind

    kinds = list(foreign_brokers.PACKAGED)
    if without_node:
        print(f"left out aedes: {without_node}")
        kinds = [kind for kind in kinds if kind.name != "aedes"]
    if options.rumqttd and Path(options.rumqttd).exists():
        kinds.append(Kind("rumqttd", partial(foreign_brokers.rumqttd, options.rumqttd)))
    else:
        print("left out rumqttd: it was not built")
    if options.whimbrel:
        kinds.append(Kind("whimbrel", partial(foreign_brokers.whimbrel, options.whimbrel)))
    first = options.only.split(" ")[0]
    kinds = [kind for kind in kinds if re.search(first, kind.name)] or kinds
    tally = Tally(options)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(run_kind, kind, tally) for kind in kinds]:
            done.result()
    return tally.close(kinds)


if __name__ == "__main__":
    sys.exit(main())
