#!/usr/bin/env python3
"""What durability costs: the rows of "Durable" in docs/performance.md, in one go on one machine.

Messages of QoS 1 from 100 publishers are queued for absent persistent sessions and then drained, by
`mqload queue`, with everything in memory and with each value of `durability`; then one lone
publisher with one message in flight, beside bare fdatasync calls of as many bytes on the same disk.

    python3 bench/durable.py --mqload PATH --whimbrel PATH [--dir DIR] [--count N] [--runs N]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from compare import free_port

# name, arguments of the broker
MODES = [
    ("memory only", []),
    ("durability memory", ["--durability", "memory"]),
    ("durability os", ["--durability", "os"]),
    ("durability fsync", ["--durability", "fsync"]),
]


def broker(args, extra, folder):
    """Starts a broker that keeps its store in `folder`; gives the process and the port."""
    port = free_port()
    command = [args.whimbrel, "broker", "--port", str(port), "--no-websocket", "--log-level", "error"]
    if extra:
        command += ["--data-dir", folder, *extra]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == "ready":
            return process, port
    sys.exit("the broker does not start")


def load(args, extra, scenario):
    folder = tempfile.mkdtemp(prefix="whimbrel-bench-", dir=args.dir)
    process, port = broker(args, extra, folder)
    try:
        command = [args.mqload, *scenario.split(), "--port", str(port), "--pid", str(process.pid), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            sys.exit(f"mqload failed: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def bare_sync_us(folder, count):
    """Mean time of writing 200 bytes and syncing them, to a file that has its blocks already."""
    path = os.path.join(folder, "whimbrel-bench-sync")
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(file, bytes(4 << 20), 0)
    os.fsync(file)
    start = time.perf_counter()
    for at in range(count):
        os.pwrite(file, b"x" * 200, at * 200)
        os.fdatasync(file)
    took = time.perf_counter() - start
    os.close(file)
    os.unlink(path)
    return took / count * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mqload", required=True)
    parser.add_argument("--whimbrel", required=True)
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="on the disk that is meant")
    parser.add_argument("--count", type=int, default=600_000)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    args.dir = os.path.abspath(args.dir)

    fields = [
        "enqueue_msgs_per_s", "enqueue_broker_cpu_us_per_msg", "broker_rss_bytes_per_message",
        "drain_msgs_per_s", "drain_broker_cpu_us_per_msg", "lost", "duplicates", "out_of_order",
    ]
    print("| 100 publishers | enqueued/s | CPU us/msg | RSS B/msg | drained/s | CPU us/msg | lost, doubled, disordered |")
    print("|---|---|---|---|---|---|---|")
    for subs in (100, 1):
        for name, extra in MODES:
            scenario = f"queue --pubs 100 --subs {subs} --count {args.count} --timeout 120"
            runs = [load(args, extra, scenario) for _ in range(args.runs)]
            values = [statistics.median(run[field] for run in runs) for field in fields]
            cells = [f"{values[0]:,.0f}", f"{values[1]:.2f}", f"{values[2]:.0f}", f"{values[3]:,.0f}", f"{values[4]:.2f}"]
            wrong = ", ".join(f"{value:.0f}" for value in values[5:])
            sessions = "session" if subs == 1 else "sessions"
            print(f"| {name}, {subs} {sessions} | {' | '.join(cells)} | {wrong} |", flush=True)

    print("\n| one publisher, one message in flight | us |\n|---|---|")
    count = 3000
    bare, puback = [], []
    for _ in range(args.runs):
        bare.append(bare_sync_us(args.dir, count))
        rate = load(args, MODES[-1][1], f"queue --pubs 1 --subs 1 --inflight 1 --count {count} --timeout 120")
        puback.append(1e6 / rate["enqueue_msgs_per_s"])
    print(f"| bare fdatasync | {statistics.median(bare):.0f} |")
    print(f"| PUBLISH to PUBACK, fsync | {statistics.median(puback):.0f} |")
    print(f"| ratio | {statistics.median(p / b for p, b in zip(puback, bare)):.2f} |")


if __name__ == "__main__":
    main()
