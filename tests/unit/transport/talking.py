# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of a daemon that is a process of its own: blocking, and exact about what it is told."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any, Optional, Protocol

from vdsmcinder.stomp.frames import Decoder, Frame, Limits

TIMEOUT_S = 60
MIB = 1024 * 1024

CONNECT = b"CONNECT\naccept-version:1.2\nheart-beat:0,0\n\n\0"
SUBSCRIBE = b"SUBSCRIBE\nid:r\ndestination:replies\nreceipt:subscribed\n\n\0"
SEND = b"SEND\ndestination:jms.topic.vdsm_requests\nreply-to:replies\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"

# What a client shows and trusts; None is plain TCP.
Tls = Optional[ssl.SSLContext]


class Served(Protocol):
    """A daemon that clients reach."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""


def call(verb: str, request_id: object = 1, **params: object) -> bytes:
    return json.dumps(
        {"jsonrpc": "2.0", "method": verb, "params": params, "id": request_id}
    ).encode()


def send(body: bytes) -> bytes:
    return SEND + b"content-length:%d\n\n%b\0" % (len(body), body)


def post(body: bytes) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class Client:
    """A well-behaved client on a blocking socket."""

    def __init__(self, daemon: Served, tls: Tls = None) -> None:
        self.socket = connect(daemon, tls)
        self._decoder = Decoder(Limits(frame=64 * MIB))
        self.socket.sendall(CONNECT + SUBSCRIBE)
        assert [self.read().command for _ in range(2)] == ["CONNECTED", "RECEIPT"]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def read(self) -> Frame:
        while (frame := self._decoder.next_frame()) is None:
            data = self.socket.recv(1 << 18)
            assert data, "the daemon hung up"
            self._decoder.receive(data)
        return frame

    def ask(self, body: bytes) -> Any:
        self.socket.sendall(send(body))
        return json.loads(self.read().body)

    def ping(self) -> None:
        assert self.ask(call("Host.ping2"))["result"] is True


def connect(daemon: Served, tls: Tls = None) -> socket.socket:
    """A connection, over which nothing has been said yet."""
    plain = socket.create_connection(daemon.address, TIMEOUT_S)
    if tls is None:
        return plain
    try:
        return tls.wrap_socket(plain, server_hostname=daemon.address[0])
    except BaseException:
        plain.close()
        raise
