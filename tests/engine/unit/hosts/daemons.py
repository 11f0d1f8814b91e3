# SPDX-License-Identifier: GPL-2.0-or-later
"""Real daemons on libvirt's test driver, and the engine's side of a session with them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from cinderengine.hosts.keeper import Hosts
from cinderengine.hosts.keys import HostKey
from cinderengine.hosts.session import Pace
from cinderengine.model.hosts import Host, HostStatus
from lab.engine import client_context
from lab.host.local import HOST, LocalDaemon
from lab.pki import Identity
from tests.engine.unit.hosts import with_secrets
from tests.faults import pluggable
from vdsmcinder.tasks import Tasks

PATIENCE_S = 30
PACE = Pace(look_s=0.2, again_s=0.05, capabilities_s=0.5, patience_s=0.5, grace_s=1.0)


def local_daemon(directory: Path, port: int = 0) -> LocalDaemon:
    """A daemon with TLS. directory: of its own."""
    directory.mkdir(exist_ok=True)
    options = pluggable.host(directory)
    changes = {**options, "listen": {"tls": True, "port": port}}
    return LocalDaemon(directory, changes, program=with_secrets.PROGRAM)


class EngineSide:
    """Sessions as an engine keeps them. wanted: the keys of each host. told: its statuses."""

    def __init__(self, daemon: LocalDaemon, identity: Identity | None = None) -> None:
        self.wanted: list[HostKey] = []
        self.told: list[tuple[HostStatus, str]] = []
        self._any = asyncio.Event()
        self._tasks = Tasks("engine")
        self.context: Callable[[], ssl.SSLContext] = lambda: client_context(
            daemon.pki, identity or daemon.pki.engine
        )
        self.hosts = Hosts(
            self._tasks,
            context=self._context,
            wanted=self._wanted,
            on_change=self._on_change,
            pace=PACE,
        )

    def _context(self) -> ssl.SSLContext:
        return self.context()

    async def _wanted(self, _: str) -> Sequence[HostKey]:
        return list(self.wanted)

    async def _on_change(self, host_id: str, status: HostStatus, reason: str) -> None:
        assert host_id == "h1"
        self.told.append((status, reason))
        self._any.set()

    async def until(self, status: HostStatus, words: str = "") -> str:
        """Wait until the host is told to be so, for a reason with these words; the reason."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._any.clear()
                if self.told and self.told[-1][0] is status and words in self.told[-1][1]:
                    return self.told[-1][1]
                await self._any.wait()

    async def close(self) -> None:
        await self._tasks.close()


def host_of(daemon: LocalDaemon, status: HostStatus = HostStatus.CONNECTING) -> Host:
    return Host("h1", "node1", HOST, "c1", port=daemon.port, status=status)


@contextlib.asynccontextmanager
async def engine_of(
    daemon: LocalDaemon, host: Host | None = None, identity: Identity | None = None
) -> AsyncIterator[EngineSide]:
    """An engine that keeps this host."""
    side = EngineSide(daemon, identity)
    side.hosts.begin([host or host_of(daemon)])
    try:
        yield side
    finally:
        await side.close()
