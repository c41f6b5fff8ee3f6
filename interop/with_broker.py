#!/usr/bin/env python3
"""Runs a command while Whimbrel runs: `with_broker.py BINARY COMMAND...`.

In the command, `{host}`, `{port}`, `{ws_port}` and `{unix}` become the broker's. The exit code is
the command's, or 1 when the broker failed.
"""

import subprocess
import sys

import brokers


def main() -> int:
    binary, *command = sys.argv[1:]
    try:
        with brokers.whimbrel(binary) as broker:
            places = {
                "{host}": broker.tcp.host,
                "{port}": str(broker.tcp.port),
                "{ws_port}": str(broker.websocket.port if broker.websocket else ""),
                "{unix}": broker.unix.path if broker.unix else "",
            }
            return subprocess.run([places.get(word, word) for word in command]).returncode
    except brokers.BrokerFailed as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
