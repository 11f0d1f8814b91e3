# SPDX-License-Identifier: GPL-2.0-or-later
"""All hosts: a session for each, what they tell, and word of each new status."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence

from cinderengine.errors import EngineError, NotFound
from cinderengine.hosts.facts import HostFacts
from cinderengine.hosts.keys import HostKey
from cinderengine.hosts.session import HostSession, Pace, Surroundings
from cinderengine.hosts.state import Activated, Deactivated, Joined
from cinderengine.model.hosts import Host, HostStatus
from vdsmcinder.stomp.client import Event
from vdsmcinder.tasks import Tasks

log = logging.getLogger(__name__)

# Until what could not be told is told again.
AGAIN_S = 1.0

# Takes the id of a host, its new status and the reason in a sentence, or none.
OnChange = Callable[[str, HostStatus, str], Awaitable[None]]


class Changes:
    """Tells of new statuses, one at a time and in order; of one host's only the newest."""

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._waiting: dict[str, tuple[HostStatus, str]] = {}
        self._any = asyncio.Event()

    def put(self, host_id: str, status: HostStatus, reason: str) -> None:
        """It is to be told."""
        self._waiting[host_id] = status, reason
        self._any.set()

    async def tell(self) -> None:
        """Tell for ever."""
        while True:
            await self._any.wait()
            self._any.clear()
            while self._waiting:
                host_id = next(iter(self._waiting))
                await self._tell(host_id, *self._waiting.pop(host_id))

    async def _tell(self, host_id: str, status: HostStatus, reason: str) -> None:
        try:
            await self._on_change(host_id, status, reason)
        except EngineError as e:
            log.warning("the status of host %s is not kept yet: %s", host_id, e.detail)
            # Unless a newer one has come meanwhile.
            self._waiting.setdefault(host_id, (status, reason))
            await asyncio.sleep(AGAIN_S)


class Hosts:
    """The sessions of all hosts that are kept."""

    def __init__(
        self,
        tasks: Tasks,
        *,
        context: Callable[[], ssl.SSLContext],
        wanted: Callable[[str], Awaitable[Sequence[HostKey]]],
        on_change: OnChange,
        on_event: Callable[[str, Event], None] = lambda host_id, event: None,
        pace: Pace | None = None,
    ) -> None:
        """context: of TLS to hosts. wanted: the keys that a host must have, by its id.

        on_change: takes each new status; if it raises EngineError it is told again. on_event: takes
        each event of a host's.
        """
        self._tasks = tasks.group("hosts")
        self._changes = Changes(on_change)
        self._around = Surroundings(context, wanted, self._changes.put, on_event, pace or Pace())
        self._sessions: dict[str, HostSession] = {}

    def begin(self, hosts: Sequence[Host]) -> None:
        """Keep these, as the database has them, and tell what becomes of them."""
        self._tasks.spawn(self._changes.tell(), "statuses")
        for host in hosts:
            self.keep(host)

    def keep(self, host: Host) -> None:
        """Keep one more."""
        session = self._sessions[host.id] = HostSession(host, self._around, self._tasks)
        session.begin()

    async def change(self, host: Host) -> None:
        """It has another name or address; its state stays, and it is connected anew.

        One that another process added is kept from now on.
        """
        old = self._sessions.get(host.id)
        await self.forget(host.id)
        if old is not None:
            host = dataclasses.replace(host, status=old.status, reason=old.reason)
        self.keep(host)

    async def forget(self, host_id: str) -> None:
        """Keep it no more."""
        session = self._sessions.pop(host_id, None)
        if session is not None:
            await session.close()

    async def close(self) -> None:
        """Hang up on all."""
        await self._tasks.close()

    def session(self, host_id: str) -> HostSession:
        """Its session. Raises NotFound."""
        try:
            return self._sessions[host_id]
        except KeyError:
            raise NotFound(f"there is no host {host_id}; list the hosts that there are") from None

    def facts(self, host_id: str) -> HostFacts:
        """What it tells; nothing of a host that is not kept."""
        session = self._sessions.get(host_id)
        return HostFacts(host_id) if session is None else session.facts

    def joined(self, host_id: str) -> None:
        """It was given certificates."""
        self.session(host_id).take(Joined())

    def activate(self, host_id: str) -> None:
        """It is to be up."""
        self.session(host_id).take(Activated())

    def deactivate(self, host_id: str) -> None:
        """It is to go to maintenance."""
        self.session(host_id).take(Deactivated())

    async def deliver(self, host_id: str, flow_id: str = "") -> bool:
        """Have it get the keys that it must have now; False if it gets them when it is back.

        Raises KeysRefused, with a sentence for each that it does not take.
        """
        return await self.session(host_id).deliver(flow_id)
