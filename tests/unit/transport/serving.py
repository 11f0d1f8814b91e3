# SPDX-License-Identifier: GPL-2.0-or-later
"""A real listener on a free port and a unix socket, for the tests of transport/ and client/.

Behind it stand a few verbs that show what a transport does with what it is handed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from lab.pki import Identity, Pki
from tests.unit.certificates import copied_pki
from vdsmcinder.config import Listen, Rpc
from vdsmcinder.fair_scheduling import Turns
from vdsmcinder.rpc.access import Role
from vdsmcinder.rpc.dispatch import Caller
from vdsmcinder.rpc.events import Events
from vdsmcinder.tasks import Tasks
from vdsmcinder.transport.listener import Listener
from vdsmcinder.transport.status_pages import Page, Pages


class Verbs:
    """Stands in for the dispatcher.

    echo answers its params at once; big answers that many bytes; later answers when the gate is
    open; anything else is an error.
    """

    def __init__(self) -> None:
        self.turns = Turns()
        self.gate = asyncio.Event()
        self.under_way = asyncio.Event()
        self.finished = asyncio.Event()
        self.calls: list[tuple[str, Caller, str | None]] = []

    def role(self, names: Iterable[str]) -> Role:
        return Role.ADMIN

    def handle(self, body: bytes, caller: Caller, flow_id: str | None = None) -> Any:
        try:
            request = json.loads(body)
        except ValueError:
            return b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not JSON"}}'
        verb = request["method"]
        self.calls.append((verb, caller, flow_id))
        if verb == "later":
            return self._later(request)
        if verb == "echo":
            return _reply(request, result=request.get("params"))
        if verb == "big":
            return _reply(request, result="x" * request["params"]["size"])
        return _reply(request, error={"code": 1, "message": f"no {verb}", "data": {"verb": verb}})

    async def _later(self, request: dict[str, Any]) -> bytes | None:
        self.under_way.set()
        await self.gate.wait()
        self.finished.set()
        return _reply(request, result="done")


def _reply(request: dict[str, Any], **content: Any) -> bytes | None:
    if "id" not in request:
        return None
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], **content}).encode()


@dataclass
class Host:
    """A host that listens: what tests need to talk to it and to look behind it."""

    listener: Listener
    listen: Listen
    pki: Pki
    verbs: Verbs
    events: Events
    health: dict[str, Any] = field(default_factory=lambda: {"ready": True})

    @property
    def port(self) -> int:
        return self.listener.port

    @property
    def engine_tls(self) -> ssl.SSLContext:
        """The context of a client that the host accepts."""
        return client_tls(self.pki, self.pki.engine)

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare TCP connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)


async def metrics() -> Page:
    """What these hosts answer to GET /metrics."""
    return Page("text/plain; version=0.0.4", b"up 1\n")


@contextlib.asynccontextmanager
async def listening(directory: Path, **options: Any) -> AsyncIterator[Host]:
    """A host with these options of section listen, and max_queue; plain TCP unless tls is given.

    handed: file descriptors of sockets that listen already.

    Fails if the listener leaves a task behind.
    """
    rpc = Rpc(max_queue=options.pop("max_queue", Rpc.max_queue))
    handed = options.pop("handed", ())
    pki = Pki(directory / "pki")
    if options.get("tls"):
        copied_pki(pki.directory)
    defaults: dict[str, Any] = {
        "address": "127.0.0.1",
        "port": 0,
        "tls": False,
        "certificate": str(pki.identity("host").cert),
        "key": str(pki.identity("host").key),
        "ca": str(pki.ca),
        "unix_socket": str(directory / "run" / "sock"),
        "heartbeat_ms": 100,
    }
    listen = Listen(**{**defaults, **options})
    verbs, events = Verbs(), Events()
    health: dict[str, Any] = {"ready": True}
    before, tasks = asyncio.all_tasks(), Tasks("listener")
    pages = Pages(lambda: health, metrics)
    listener = Listener(listen, rpc, verbs, events, pages, tasks, handed)  # type: ignore[arg-type]
    await listener.start()
    try:
        yield Host(listener, listen, pki, verbs, events, health)
    finally:
        verbs.gate.set()
        await listener.close()
    assert asyncio.all_tasks() <= before, "the listener left tasks behind"


def client_tls(pki: Pki, identity: Identity | None) -> ssl.SSLContext:
    """What a client with this certificate, or without one, uses."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    if identity is not None:
        context.load_cert_chain(identity.cert, identity.key)
    return context


async def until(condition: Callable[[], object], message: str, timeout_s: float = 30) -> None:
    """Wait for what nobody announces; the message is for the test that waits in vain."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, message
        await asyncio.sleep(0.005)


def stop_reading(writer: asyncio.StreamWriter) -> None:
    """Have a client take nothing any more of what it is sent."""
    assert isinstance(writer.transport, asyncio.Transport)
    writer.transport.pause_reading()


async def read_frames(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    """The next frames, without the NUL; for bodies that hold none."""
    return [(await reader.readuntil(b"\0"))[:-1].lstrip(b"\n") for _ in range(count)]
