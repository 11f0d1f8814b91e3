# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of hosts, looked up in a few threads of their own, and remembered.

While no name server answers each lookup takes a thread for many seconds. The event loop's own
threads are for files, and clients wait for those.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import OrderedDict
from typing import Any, NamedTuple

from vdsmcinder.system.threads import Threads

# Lookups at the same time, and those that may wait for one; more are refused.
THREADS = 4
MOST_UNDER_WAY = 64
# An answer is taken as it is for so many seconds, and that there was none.
FRESH_S = 30.0
FAILED_S = 5.0
# Once an answer is old, a new one is waited for so long, in seconds; then, or if there is none, the
# old one is as good as before.
PATIENCE_S = 2.0
# Answers that are remembered; the one that was asked for longest ago is forgotten first.
MOST_KNOWN = 256

Addresses = list[tuple[Any, ...]]  # as socket.getaddrinfo() gives them


class _Asked(NamedTuple):
    """The arguments of socket.getaddrinfo()."""

    host: str | bytes | None
    port: str | int | bytes | None
    family: int
    type: int
    proto: int
    flags: int


class _Known(NamedTuple):
    """What lookups came to. at_s: when, by the monotonic clock; failed_s: of a failure."""

    addresses: Addresses | None
    at_s: float
    failure: OSError | None = None
    failed_s: float = 0.0


class Names:
    """Looks names up for an event loop, and all that connects on it."""

    def __init__(self) -> None:
        self._pool = Threads("names", THREADS)
        self._known: OrderedDict[_Asked, _Known] = OrderedDict()
        self._under_way: dict[_Asked, asyncio.Future[Addresses]] = {}

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop look names up here; asyncio lets nothing but its executor be chosen."""
        loop.getaddrinfo = self.getaddrinfo  # type: ignore[method-assign]

    @property
    def busy(self) -> bool:
        """Whether a thread has not come back, which the end of the process would wait for."""
        return self._pool.busy

    def close(self) -> None:
        """Begin no more lookups."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def getaddrinfo(
        self,
        host: str | bytes | None,
        port: str | int | bytes | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Addresses:
        """As the event loop's own. Raises socket.gaierror."""
        asked = _Asked(host, port, family, type, proto, flags)
        known, now_s = self._known.get(asked), time.monotonic()
        if known is None:
            return await asyncio.shield(self._lookup(asked))
        self._known.move_to_end(asked)
        failed_lately = known.failure is not None and now_s - known.failed_s < FAILED_S
        if known.addresses is None:
            if failed_lately and known.failure is not None:
                raise known.failure.with_traceback(None)
            return await asyncio.shield(self._lookup(asked))
        if now_s - known.at_s >= FRESH_S and not failed_lately:
            # Too many may be waiting for theirs.
            with contextlib.suppress(socket.gaierror):
                await asyncio.wait({self._lookup(asked)}, timeout=PATIENCE_S)
            known = self._known.get(asked, known)
        assert known.addresses is not None
        return known.addresses

    def _lookup(self, asked: _Asked) -> asyncio.Future[Addresses]:
        """The lookup of that name, begun or under way. Raises socket.gaierror if it cannot be."""
        looking = self._under_way.get(asked)
        if looking is None:
            if len(self._under_way) >= MOST_UNDER_WAY:
                raise socket.gaierror(
                    socket.EAI_AGAIN, f"{MOST_UNDER_WAY} other names are being looked up"
                )
            loop = asyncio.get_running_loop()
            looking = self._under_way[asked] = loop.run_in_executor(self._pool, _look, asked)
            looking.add_done_callback(lambda done: self._found(asked, done))
        return looking

    def _found(self, asked: _Asked, done: asyncio.Future[Addresses]) -> None:
        del self._under_way[asked]
        if done.cancelled():
            return
        failure, now_s = done.exception(), time.monotonic()
        if failure is None:
            self._known[asked] = _Known(done.result(), now_s)
        elif isinstance(failure, OSError):
            before = self._known.get(asked, _Known(None, now_s))
            self._known[asked] = before._replace(failure=failure, failed_s=now_s)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


def _look(asked: _Asked) -> Addresses:
    return socket.getaddrinfo(*asked)
