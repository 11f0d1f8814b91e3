# SPDX-License-Identifier: GPL-2.0-or-later
"""A load generator, for STOMP and HTTP: keeps requests in flight and checks every reply.

A process of its own that does as little as it can while the clock runs, because it shares the
machine with the server: requests are encoded beforehand, replies are counted by their last byte and
kept, and read only when the clock has stopped.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import select
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from vdsmcinder.stomp.frames import Decoder, Frame, Limits, encode
from vdsmcinder.stomp.session import GATHERED

# Ids are used again after this many requests of one connection; far more than are in flight.
RING = 64
WARM_UP_S = 0.05
TIMEOUT_S = 10.0
REPLIES = "jms.topic.vdsm_responses"


@dataclass(frozen=True)
class Load:
    """What the server took: requests per second, latencies, its CPU time for one request.

    The last in the thread that runs its event loop; whatever else the machine does, it stays.
    """

    per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float


class WrongReply(Exception):
    """The server's replies are not those that were asked for."""


class Stomp:
    """Requests and replies as STOMP has them. gathered: several replies may come at once.

    end: the last byte of a reply, and no other of it.
    """

    end = b"\0"

    def __init__(self, gathered: bool) -> None:
        self._gathered = str(gathered).lower()

    @staticmethod
    def request(call: bytes) -> bytes:
        """What is sent for a call."""
        headers = {
            "destination": "jms.topic.vdsm_requests",
            "reply-to": REPLIES,
            "content-type": "application/json",
        }
        return encode(Frame("SEND", headers, call))

    @staticmethod
    def replies(received: bytes) -> Iterator[bytes]:
        """The replies in what was received."""
        decoder = Decoder(Limits(frame=2**31))
        decoder.receive(received)
        while (frame := decoder.next_frame()) is not None:
            yield frame.body

    def begin(self, sock: socket.socket, host: str) -> None:
        """Exchange frames until replies are subscribed to."""
        about = {"accept-version": "1.2", "host": host, "heart-beat": "0,0"}
        _exchange(sock, Frame("CONNECT", {**about, GATHERED: self._gathered}))
        headers = {"id": "replies", "destination": REPLIES, "ack": "auto", "receipt": "subscribed"}
        _exchange(sock, Frame("SUBSCRIBE", headers))


class Http:
    """The same for HTTP."""

    end = b"}"

    @staticmethod
    def request(call: bytes) -> bytes:
        """What is sent for a call."""
        head = b"POST / HTTP/1.1\r\nHost: host1\r\nContent-Type: application/json\r\n"
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(call), call)

    @staticmethod
    def replies(received: bytes) -> Iterator[bytes]:
        """The replies in what was received."""
        for reply in received.split(b"HTTP/1.1 200 OK\r\n")[1:]:
            yield reply.partition(b"\r\n\r\n")[2]

    @staticmethod
    def begin(sock: socket.socket, host: str) -> None:
        """Nothing is said before the first request."""


Wire = Union[Stomp, Http]


class Client:
    """One connection: sends requests out of a ring, notes how long each reply took."""

    def __init__(self, sock: socket.socket, wire: Wire) -> None:
        self.socket = sock
        self._wire = wire
        self.latencies: list[float] = []
        self._ids = [str(uuid.uuid4()) for _ in range(RING)]
        requests = [wire.request(_call(i)) for i in self._ids]
        self._length = len(requests[0])
        # Twice, so that any number of requests in a row is one slice of it.
        self._ring = memoryview(b"".join(requests) * 2)
        self._next = 0
        self._sent: collections.deque[float] = collections.deque()
        self._received: list[bytes] = []

    def send(self, count: int) -> None:
        """Send the next requests."""
        start = self._next % RING
        now = time.perf_counter()
        self.socket.sendall(self._ring[start * self._length : (start + count) * self._length])
        self._sent.extend([now] * count)
        self._next += count

    def receive(self) -> int:
        """Take what has arrived; how many replies end in it."""
        count = 0
        while True:
            try:
                data = self.socket.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            if not data:
                raise WrongReply("the server hung up")
            self._received.append(data)
            count += data.count(self._wire.end)
            if not isinstance(self.socket, ssl.SSLSocket) or not self.socket.pending():
                break
        now = time.perf_counter()
        self.latencies.extend([now - self._sent.popleft() for _ in range(count)])
        return count

    def check(self, constant: bool) -> None:
        """Raise WrongReply unless every request got its reply, in order; constant: any reply."""
        replies = list(self._wire.replies(b"".join(self._received)))
        if len(replies) != self._next:
            raise WrongReply(f"{self._next} requests got {len(replies)} replies")
        for n, reply in enumerate(replies):
            content = json.loads(reply)
            if content.get("result") is not True:
                raise WrongReply(f"reply {n} is {content}")
            if not constant and content["id"] != self._ids[n % RING]:
                raise WrongReply(f"reply {n} has id {content['id']}, not {self._ids[n % RING]}")


class Target:
    """A server under load, by connections that stay open: `slice` loads it for a while."""

    def __init__(self, clients: list[Client], pid: int) -> None:
        self._clients = clients
        self._schedstat = Path(f"/proc/{pid}/schedstat")
        self._by_fd = {client.socket.fileno(): client for client in clients}
        self._poll = select.epoll()
        for fd, client in self._by_fd.items():
            client.socket.setblocking(False)
            self._poll.register(fd, select.EPOLLIN)

    def slice(self, in_flight: int, seconds: float) -> Load:
        """Keep in_flight requests of each client under way for so long."""
        for client in self._clients:
            client.send(in_flight)
        self._pump(time.perf_counter() + WARM_UP_S)
        for client in self._clients:
            client.latencies.clear()
        began, cpu_s = time.perf_counter(), self._cpu_s()
        self._pump(began + seconds)
        took_s, cpu_s = time.perf_counter() - began, self._cpu_s() - cpu_s
        latencies = sorted(latency for client in self._clients for latency in client.latencies)
        self._drain(in_flight * len(self._clients))
        return Load(
            per_second=len(latencies) / took_s,
            p50_us=latencies[len(latencies) // 2] * 1e6,
            p99_us=latencies[len(latencies) * 99 // 100] * 1e6,
            cpu_us=cpu_s / len(latencies) * 1e6,
        )

    def check(self, constant: bool) -> None:
        """Raise WrongReply unless all replies so far are right."""
        for client in self._clients:
            client.check(constant)

    def _cpu_s(self) -> float:
        """CPU time of the server's main thread (Documentation/scheduler/sched-stats.rst)."""
        return int(self._schedstat.read_text(encoding="ascii").split()[0]) / 1e9

    def _pump(self, end: float) -> None:
        """Follow replies with new requests until `end`."""
        while time.perf_counter() < end:
            for fd, _ in self._poll.poll(TIMEOUT_S) or _nothing_came():
                client = self._by_fd[fd]
                count = client.receive()
                if count:
                    client.send(count)

    def _drain(self, missing: int) -> None:
        while missing:
            for fd, _ in self._poll.poll(TIMEOUT_S) or _nothing_came():
                missing -= self._by_fd[fd].receive()


def _nothing_came() -> list[tuple[int, int]]:
    raise WrongReply(f"no reply came for {TIMEOUT_S:g} s")


def connect(host: str, port: int, context: ssl.SSLContext | None, wire: Wire) -> socket.socket:
    """Open a connection that is ready for requests."""
    sock = socket.create_connection((host, port), TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname=host)
    wire.begin(sock, host)
    return sock


def _exchange(sock: socket.socket, frame: Frame) -> None:
    sock.sendall(encode(frame))
    answer = b""
    while not answer.endswith(b"\0"):
        answer += sock.recv(65536)
    if answer.startswith(b"ERROR"):
        raise WrongReply(f"{frame.command} was answered with {answer!r}")


def _call(request_id: str) -> bytes:
    request = {"jsonrpc": "2.0", "method": "Host.ping2", "params": {}, "id": request_id}
    return json.dumps(request).encode()


def main() -> None:
    """Load the servers in turn, so that all meet the same machine; print {port: [Load, ...]}."""
    arguments = _parse()
    context = None
    if arguments.tls:
        certificate, key, ca = arguments.tls
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
    wire: Wire = Http() if arguments.http else Stomp(arguments.gathered)
    targets = {}
    for port, pid in arguments.servers:
        sockets = (
            connect(arguments.host, port, context, wire) for _ in range(arguments.connections)
        )
        targets[port] = Target([Client(sock, wire) for sock in sockets], pid)
    loads: dict[int, list[Load]] = {port: [] for port in targets}
    for _ in range(arguments.rounds):
        for port, target in targets.items():
            loads[port].append(target.slice(arguments.in_flight, arguments.seconds))
    for n, target in enumerate(targets.values()):
        target.check(constant=n > 0)
    json.dump({p: [dataclasses.asdict(load) for load in of] for p, of in loads.items()}, sys.stdout)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("host")
    parser.add_argument(
        "--server",
        dest="servers",
        action="append",
        nargs=2,
        type=int,
        required=True,
        metavar=("PORT", "PID"),
        help="one that is loaded; the first has to answer with the right ids, others with any",
    )
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="of one server's turn")
    parser.add_argument("--gathered", action="store_true", help="several replies may come at once")
    parser.add_argument("--http", action="store_true", help="speak HTTP in place of STOMP")
    parser.add_argument("--tls", nargs=3, metavar=("CERT", "KEY", "CA"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
