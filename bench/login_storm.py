#!/usr/bin/env python3
"""A storm of logins with passwords while others exchange messages.

    bench/login_storm.py BINARY [SECONDS [CONNECTIONS]]

Starts the broker with a password file, keeps CONNECTIONS logins going at once, half of them with a
wrong password, and sends a QoS 1 message every 10 ms from one client to another. Prints the time
from PUBLISH to delivery (p50, p99, most) without and with the storm, and how many logins were
answered. Loopback only; bounded in time. Bans are off, so that every guess is checked.
"""

import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time


def string(data):
    return struct.pack(">H", len(data)) + data


def packet(first, body):
    length, out = len(body), b""
    while True:
        byte, length = length % 128, length // 128
        out += bytes([byte | (0x80 if length else 0)])
        if not length:
            return bytes([first]) + out + body


def connect(user, password, client):
    head = string(b"MQTT") + bytes([4, 0xC2]) + struct.pack(">H", 60)
    return packet(0x10, head + string(client) + string(user) + string(password))


class Client:
    """A blocking client that knows just enough."""

    def __init__(self, port, name):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(connect(b"ann", b"right", name))
        assert self.read()[0] == 0x20

    def read(self):
        head = self.exactly(2)
        return head[0], self.exactly(head[1])

    def exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data


class Storm:
    """Logins, so many at once, each again as soon as it is answered."""

    def __init__(self, port, count):
        self.port, self.selector, self.answered, self.started = port, selectors.DefaultSelector(), 0, 0
        for _ in range(count):
            self.start()

    def start(self):
        one = socket.create_connection(("127.0.0.1", self.port))
        password = b"right" if self.started % 2 else b"wrong"
        self.started += 1
        one.sendall(connect(b"ann", password, b"storm-%d" % self.started))
        one.setblocking(False)
        self.selector.register(one, selectors.EVENT_READ)

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in self.selector.select(0.05):
                self.selector.unregister(key.fileobj)
                key.fileobj.close()
                self.answered += 1
                self.start()


def traffic(port, seconds):
    """Milliseconds from PUBLISH to delivery."""
    receiver, sender = Client(port, b"receiver-%d" % time.time_ns()), Client(port, b"sender")
    receiver.socket.sendall(packet(0x82, struct.pack(">H", 1) + string(b"t") + b"\0"))
    assert receiver.read()[0] == 0x90
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        sender.socket.sendall(packet(0x32, string(b"t") + struct.pack(">H", 1) + b"x"))
        receiver.read()
        times.append(1000 * (time.monotonic() - began))
        sender.read()
        time.sleep(max(0, 0.01 - (time.monotonic() - began)))
    times.sort()
    at = lambda part: times[min(len(times) - 1, int(part * len(times)))]
    return f"p50 {at(0.5):.2f} ms, p99 {at(0.99):.2f} ms, most {times[-1]:.2f} ms ({len(times)} messages)"


def main():
    binary = sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10
    connections = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    with tempfile.TemporaryDirectory() as folder:
        users = os.path.join(folder, "users")
        subprocess.run([binary, "passwd", "add", users, "ann", "--stdin"], input=b"right\n", check=True)
        flags = ["--port", "0", "--no-websocket", "--password-file", users, "--max-failed-logins", "0",
                 "--max-failed-logins-per-address", "0"]
        broker = subprocess.Popen([binary, "broker", *flags], stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, "RUST_LOG": "off"})
        try:
            port = 0
            for line in broker.stdout:
                if line.startswith("listening tcp "):
                    port = int(line.rsplit(":", 1)[1])
                if line == "ready\n":
                    break
            print("quiet:", traffic(port, seconds), flush=True)
            child = os.fork()
            if child == 0:
                os.nice(5)
                storm = Storm(port, connections)
                storm.run(seconds + 1)
                print(f"logins: {storm.answered / (seconds + 1):.0f}/s answered, {connections} at once", flush=True)
                os._exit(0)
            time.sleep(0.5)
            print("storm:", traffic(port, seconds), flush=True)
            os.waitpid(child, 0)
        finally:
            broker.terminate()
            broker.wait()


main()
