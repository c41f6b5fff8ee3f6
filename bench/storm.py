#!/usr/bin/env python3
"""New devices do not disturb those that are there: 10,000 messages/s flow while 10,000 clients connect.

    python3 bench/storm.py --mqload PATH [--whimbrel PATH] [--mosquitto PATH] [--runs N] [--realtime]

Prints the flow's latency over the seconds around the storm. On two cores the two load generators and
the broker's threads share the processors, so a part of the tail is waiting for a processor; with
`--realtime` the broker and the flow's generator run before all others (chrt -r), the storm does not.
"""

import argparse
import json
import subprocess
import tempfile
import time

from compare import start

FLOW = "pubsub --topology pair --pubs 10 --qos 0 --rate 10000 --payload 64 --duration 4"
STORM = "connect --clients 10000 --hold 1"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mqload", required=True)
    parser.add_argument("--whimbrel")
    parser.add_argument("--mosquitto")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--realtime", action="store_true")
    options = parser.parse_args()
    first = ["chrt", "-r", "10"] if options.realtime else []
    for name in ("whimbrel", "mosquitto"):
        path = getattr(options, name)
        for _ in range(options.runs if path else 0):
            with tempfile.TemporaryDirectory() as folder:
                process, port = start(name, path, folder)
                if options.realtime:
                    subprocess.run(["chrt", "-a", "-r", "-p", "10", str(process.pid)], check=True)
                target = ["--port", str(port), "--pid", str(process.pid), "--json"]
                flow = subprocess.Popen([*first, options.mqload, *FLOW.split(), *target],
                                        stdout=subprocess.PIPE, text=True)
                time.sleep(2)
                storm = subprocess.run([options.mqload, *STORM.split(), *target], capture_output=True, text=True)
                latency = json.loads(flow.communicate()[0])["latency_us"]
                connects = json.loads(storm.stdout)["connects_per_s"]
                process.kill()
                process.wait()
                print(f"{name}: p50 {latency['p50']:.0f} us, p99 {latency['p99']:.0f} us, "
                      f"p99.9 {latency['p99.9']:.0f} us, max {latency['max']:.0f} us; "
                      f"{connects:,.0f} connects/s", flush=True)


if __name__ == "__main__":
    main()
