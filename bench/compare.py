#!/usr/bin/env python3
"""Runs each row of docs/performance.md against Whimbrel and others, in one go on one machine.

A fresh broker serves every row, on an ephemeral loopback port. The load generator is `mqload`, a
neutral program that reports the broker's CPU time and memory; its `floor` is a bare relay, the limit
of the machine for QoS 0.

    python3 bench/compare.py --mqload PATH [--floor PATH] [--whimbrel PATH] [--mosquitto PATH]
                             [--rows REGEX] [--duration SECONDS] [--runs N] [--markdown]
"""

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

CPU = "broker_cpu_us_per_msg"
# name, arguments, [(label, field, target)], whether floor can serve it
ROWS = [
    ("pair, QoS 0, 64 B", "pubsub --topology pair --qos 0 --payload 64", [("CPU us/msg", CPU, 0.30)], True),
    ("pair, QoS 0, 1 KB", "pubsub --topology pair --qos 0 --payload 1024", [("CPU us/msg", CPU, 0.50)], True),
    ("pair, QoS 1", "pubsub --topology pair --qos 1 --payload 64", [("CPU us/msg", CPU, 1.0)], False),
    ("pair, QoS 2", "pubsub --topology pair --qos 2 --payload 64", [("CPU us/msg", CPU, 2.0)], False),
    ("fan-out 100, QoS 0", "pubsub --topology fanout --subs 100 --qos 0 --payload 64", [("CPU us/msg", CPU, 0.90)], True),
    ("fan-out 1000, QoS 0", "pubsub --topology fanout --subs 1000 --qos 0 --payload 64", [("CPU us/msg", CPU, 1.05)], True),
    ("fan-out 100, QoS 1", "pubsub --topology fanout --subs 100 --qos 1 --payload 64", [("CPU us/msg", CPU, 1.3)], False),
    ("fan-in 100, QoS 0", "pubsub --topology fanin --pubs 100 --qos 0 --payload 64", [("CPU us/msg", CPU, 0.60)], False),
    ("fan-in 100, QoS 1", "pubsub --topology fanin --pubs 100 --qos 1 --payload 64", [("CPU us/msg", CPU, 1.1)], False),
    ("shared, QoS 1", "pubsub --topology shared --qos 1 --payload 64", [("CPU us/msg", CPU, 1.5)], False),
    ("10,000 msgs/s, QoS 1", "pubsub --topology pair --pubs 100 --qos 1 --rate 10000 --payload 64",
     [("CPU us/msg", CPU, 27.0), ("p99 us", "latency_us.p99", 500)], False),
    ("10,000 msgs/s, QoS 0", "pubsub --topology pair --pubs 100 --qos 0 --rate 10000 --payload 64",
     [("CPU us/msg", CPU, 15.0), ("p99 us", "latency_us.p99", 500)], True),
    ("connect", "connect --clients 10000", [("CPU us", "broker_cpu_us_per_connect", 20.0),
     ("RSS B", "broker_rss_bytes_per_connection", 600)], True),
    ("connect --subscribe", "connect --clients 10000 --subscribe",
     [("RSS B", "broker_rss_bytes_per_connection", 800)], True),
    ("churn", "churn --qos 1", [("CPU us/cycle", "broker_cpu_us_per_cycle", 48.0)], False),
    ("retained", "retained --count 100000", [("CPU us to store", "store_broker_cpu_us_per_msg", 2.0),
     ("RSS B", "broker_rss_bytes_per_message", 300), ("fetched/s", "fetch_msgs_per_s_best", -1500000)], False),
    ("subs", "subs --count 100000", [("CPU us to subscribe", "broker_cpu_us_per_subscription", 1.5),
     ("RSS B", "broker_rss_bytes_per_subscription", 250), ("CPU us/msg", CPU, 0.8)], False),
    ("queue", "queue --count 100000", [("CPU us to enqueue", "enqueue_broker_cpu_us_per_msg", 1.5),
     ("RSS B", "broker_rss_bytes_per_message", 220), ("CPU us to drain", "drain_broker_cpu_us_per_msg", 1.2),
     ("lost", "lost", 0)], False),
]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(name, path, folder):
    port = free_port()
    if name == "floor":
        command = [path, str(port)]
    elif name == "mosquitto":
        config = os.path.join(folder, f"mosquitto-{port}.conf")
        with open(config, "w") as f:
            f.write(f"listener {port} 127.0.0.1\nallow_anonymous true\n"
                    "max_queued_messages 0\nset_tcp_nodelay true\n")
        command = [path, "-c", config]
    else:
        command = [path, "broker", "--port", str(port), "--no-websocket"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return process, port
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise SystemExit(f"{name} does not answer on port {port}")


def field(result, path):
    for part in path.split("."):
        if not isinstance(result, dict) or part not in result:
            return None
        result = result[part]
    return result


def run(mqload, name, path, arguments, folder, duration):
    process, port = start(name, path, folder)
    try:
        command = [mqload, *arguments.split(), "--port", str(port), "--pid", str(process.pid), "--json"]
        if arguments.startswith(("pubsub", "churn")):
            command += ["--duration", str(duration)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError) as error:
        return {"error": str(error)}
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def show(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mqload", required=True)
    parser.add_argument("--floor")
    parser.add_argument("--whimbrel")
    parser.add_argument("--mosquitto")
    parser.add_argument("--rows", default="")
    parser.add_argument("--duration", type=float, default=3)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    brokers = [(n, getattr(options, n)) for n in ("whimbrel", "mosquitto", "floor") if getattr(options, n)]
    if options.markdown:
        print("| scenario | figure | " + " | ".join(n for n, _ in brokers) + " | target | |")
        print("|---|---|" + "---|" * (len(brokers) + 2))
    with tempfile.TemporaryDirectory() as folder:
        for row, arguments, figures, floor_too in ROWS:
            if not re.search(options.rows, row):
                continue
            values = {}
            for _ in range(options.runs):
                for name, path in brokers:
                    if name == "floor" and not floor_too:
                        continue
                    result = run(options.mqload, name, path, arguments, folder, options.duration)
                    if result.get("error"):
                        print(f"{row}: {name}: {result['error']}", file=sys.stderr)
                    for _, key, _ in figures:
                        value = field(result, key)
                        if value is not None:
                            values.setdefault((name, key), []).append(value)
            for label, key, target in figures:
                medians = [statistics.median(values[(n, key)]) if (n, key) in values else None for n, _ in brokers]
                ours = medians[0]
                reached = "?" if ours is None else "yes" if (ours <= target if target >= 0 else ours >= -target) else "NO"
                goal = f"{show(abs(target))}" + ("+" if target < 0 else "")
                if options.markdown:
                    print(f"| {row} | {label} | " + " | ".join(map(show, medians)) + f" | {goal} | {reached} |")
                else:
                    print(f"{row:<24} {label:<20} " + " ".join(f"{show(m):>12}" for m in medians) + f"   target {goal:>10} {reached}")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
