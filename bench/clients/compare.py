#!/usr/bin/env python3
"""Whimbrel's client beside rumqttc and paho-mqtt, in one run: a table for docs/performance.md.

    cargo build --release --manifest-path bench/clients/Cargo.toml
    python3 bench/clients/compare.py --whimbrel target/release/whimbrel --bench PATH
                                     [--rounds N] [--rows REGEX] [--scale FACTOR] [--json FILE]

One broker without a data directory serves all rows. Each figure comes from a process of its own, the
libraries take turns in another order in each round, as what ran before leaves its traces in broker
and machine, and medians are shown.
"""

import argparse
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIBRARIES = ("whimbrel", "rumqttc", "paho")
RUN_TIMEOUT_S = 180
RATE, CPU = "messages_per_s", "cpu_us_per_message"
CONFIG = """\
[[listener]]
type = "tcp"
bind = "127.0.0.1:{port}"
[limits]
max_queued_messages = 10_000_000
max_queued_bytes = 4_000_000_000
max_reconnects = 0
"""


def rows() -> list[tuple[str, list[str], int, list[tuple[str, str, bool]]]]:
    """Name, task with its words, count, and figures: label, key, and whether more is better."""
    found = []
    for task in ("publish", "receive"):
        for qos in (0, 1, 2):
            for name, payload_bytes in (("64 B", 64), ("1 KB", 1024)):
                count = 300_000 if qos == 0 else 100_000
                figures = [("messages/s", RATE, True), ("CPU us/message", CPU, False)]
                words = [task, str(qos), str(payload_bytes)]
                found.append((f"{task}, QoS {qos}, {name}", words, count, figures))
    times = [("p50 us", "p50_us", False), ("p99 us", "p99_us", False)]
    found.append(("request and response", ["request"], 20_000, times))
    memory = [("bytes each", "bytes_per_client", False)]
    found.append(("1,000 idle clients", ["idle"], 1000, memory))
    return found


def start_broker(binary: str, folder: str) -> tuple[subprocess.Popen, int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = Path(folder) / "whimbrel.toml"
    config.write_text(CONFIG.format(port=port))
    process = subprocess.Popen(
        [binary, "broker", "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RUST_LOG": "off"},
    )
    for line in process.stdout:
        if line.startswith("ready"):
            return process, port
    sys.exit("the broker did not start")


def measure(bench: str, library: str, port: int, words: list[str], count: int) -> dict:
    task, *others = words
    command = [bench, library, task, str(port), *others, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[1:])}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--whimbrel", required=True, help="the broker")
    parser.add_argument("--bench", required=True, help="bench-clients")
    parser.add_argument("--libraries", nargs="*", default=LIBRARIES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="", help="a regular expression")
    parser.add_argument("--scale", type=float, default=1, help="of the number of messages")
    parser.add_argument("--json", help="a file for all figures of all rounds")
    options = parser.parse_args()
    libraries, everything, behind = options.libraries, {}, []
    turns = random.Random(1)
    print("| task | figure | " + " | ".join(libraries) + " | ahead |")
    print("|---|---|" + "---|" * (len(libraries) + 1))
    with tempfile.TemporaryDirectory() as folder:
        broker, port = start_broker(options.whimbrel, folder)
        try:
            for name, words, count, figures in rows():
                if not re.search(options.rows, name):
                    continue
                if words != ["idle"]:
                    count = max(1000, int(count * options.scale))
                found = {library: [] for library in libraries}
                for _ in range(options.rounds):
                    for library in turns.sample(libraries, len(libraries)):
                        result = measure(options.bench, library, port, words, count)
                        found[library].append(result)
                        time.sleep(0.05)
                everything[name] = found
                for label, key, more_is_better in figures:
                    medians = [statistics.median(r[key] for r in found[of]) for of in libraries]
                    best = (max if more_is_better else min)(medians)
                    ahead = medians[0] == best
                    if not ahead:
                        behind.append(f"{name}: {label}")
                    shown = " | ".join(map(show, medians))
                    print(f"| {name} | {label} | {shown} | {'yes' if ahead else 'NO'} |")
                    sys.stdout.flush()
        finally:
            broker.kill()
            broker.wait()
    if options.json:
        Path(options.json).write_text(json.dumps(everything, indent=1))
    for what in behind:
        print(f"not ahead: {what}", file=sys.stderr)
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main())
