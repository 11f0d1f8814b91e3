# SPDX-License-Identifier: GPL-2.0-or-later
"""STOMP for load generators: blocking sockets, frames encoded beforehand, as little as can be done.

For generators that share the machine with the server that they load.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from typing import Any, Callable

from bench import report
from lab.steps import Steps
from vdsmcinder.stomp.frames import Frame, encode
from vdsmcinder.stomp.session import GATHERED

TIMEOUT_S = 30.0
REPLIES = "jms.topic.vdsm_responses"
EVENTS = "jms.queue.events"
_HEADERS = {"destination": "jms.topic.vdsm_requests", "reply-to": REPLIES}


def request(verb: str, request_id: Any = "1", **params: Any) -> bytes:
    """A SEND frame that calls a verb."""
    return encode(Frame("SEND", _HEADERS, json.dumps(_call(verb, request_id, params)).encode()))


def batch(verb: str, count: int) -> bytes:
    """A SEND frame that calls a verb so many times."""
    calls = [_call(verb, n, {}) for n in range(count)]
    return encode(Frame("SEND", _HEADERS, json.dumps(calls).encode()))


def requests_in(frame: bytes) -> int:
    """How many calls a frame of request() or batch() holds."""
    return frame.count(b'"jsonrpc"')


def _call(verb: str, request_id: Any, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": verb, "params": params, "id": request_id}


class Connection:
    """A connection that has said CONNECT and is subscribed to replies, or to events."""

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext | None = None,
        destination: str = REPLIES,
    ) -> None:
        self.socket = socket.create_connection((host, port), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self._received = b""
        about = {"id": "s", "destination": destination, "receipt": "subscribed"}
        opening = {"accept-version": "1.2", "heart-beat": "0,0", GATHERED: "true"}
        self.send(encode(Frame("CONNECT", opening)))
        self.read_frame()
        self.send(encode(Frame("SUBSCRIBE", about)))
        self.read_frame()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def read_frame(self) -> bytes:
        """The next frame, without its NUL; for frames that hold no other."""
        while b"\0" not in self._received:
            data = self.socket.recv(1 << 18)
            if not data:
                raise ConnectionError("the daemon hung up")
            self._received += data
        frame, _, self._received = self._received.partition(b"\0")
        return frame

    def latencies(self, seconds: float, frame: bytes = request("Host.ping2")) -> list[float]:
        """Call one after another for so long; how long each took, in seconds."""
        taken = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            self.socket.sendall(frame)
            self.read_frame()
            taken.append(time.perf_counter() - began)
        return taken

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def print_rows(benchmark: Callable[..., list[report.Row]]) -> None:
    """Run a benchmark that needs no lab on its own, and print its table."""
    machine = report.Machine.here()
    with Steps(sys.stderr).step(benchmark.__module__) as step:
        rows = benchmark(None, step)
    print(report.table(rows, machine))
