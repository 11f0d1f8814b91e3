# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts: added, joined by their token, edited, put into maintenance and back, removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from cinderengine.errors import Conflict
from cinderengine.flows.caller import Caller
from cinderengine.flows.finding import named, needed, unused
from cinderengine.flows.told import Code, tell
from cinderengine.hosts import joining
from cinderengine.hosts.joining import Answer, Sign, Token, Trust
from cinderengine.hosts.keeper import Hosts as Keeper
from cinderengine.model.events import Severity
from cinderengine.model.hosts import Host, HostStatus
from cinderengine.model.ids import new_id, now_ms
from cinderengine.store.database import Store
from cinderengine.store.entities import clusters, hosts

_KIND = "host"
_REMOVABLE = (HostStatus.PENDING_APPROVAL, HostStatus.INSTALLING, HostStatus.MAINTENANCE)


@dataclass(frozen=True)
class NewHost:
    """A host as it is asked for. address: empty if it is known once the host joins."""

    name: str
    cluster_id: str
    address: str = ""
    port: int = 54321
    description: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Added:
    """A host, and what is to be run on it so that it joins: for whoever added it alone."""

    host: Host
    line: str


@dataclass(frozen=True)
class Joining:
    """What hosts that join are given. url: of the engine, as hosts reach it.

    fingerprint: of the clients' authority, hexadecimal SHA-256. reserved: names that no host has.
    """

    url: str
    fingerprint: str
    trust: Trust
    sign: Sign
    reserved: Sequence[str] = ()


class Hosts:
    """Each method raises EngineError, and then nothing is changed.

    joining_: asked anew each time, for authorities may be renewed.
    """

    def __init__(self, store: Store, keeper: Keeper, joining_: Callable[[], Joining]) -> None:
        self._store = store
        self._keeper = keeper
        self._joining = joining_

    async def add(self, new: NewHost, caller: Caller) -> Added:
        """Add one, which is up once it has joined."""
        how = self._joining()
        token = Token.made(how.fingerprint, now_ms())
        host = token.given_to(Host(new_id(), created_ms=now_ms(), **vars(new)))
        host = await self._store.write(self._add, host, caller)
        self._keeper.keep(host)
        return Added(host, joining.line(how.url, token))

    async def renew_token(self, host_id: str, caller: Caller) -> Added:
        """Let one join anew: its machine was installed anew, or its token has expired."""
        how = self._joining()
        token = Token.made(how.fingerprint, now_ms())

        def change(conn: Connection) -> Host:
            host = token.given_to(needed(conn, hosts, host_id, _KIND))
            _keep(conn, host)
            return host

        return Added(await self._store.write(change), joining.line(how.url, token))

    async def join(self, request: joining.Request) -> Answer:
        """Give certificates to a host that presents a token."""
        how = self._joining()

        def change(conn: Connection) -> Answer:
            answer = joining.join(
                request,
                hosts.all(conn),
                how.trust,
                how.sign,
                now_ms=now_ms(),
                reserved=how.reserved,
            )
            _keep(conn, answer.host)
            text = f"Host {answer.host.name} has joined as {answer.host.address}."
            tell(conn, Code.HOST_JOINED, text, host_id=answer.host.id)
            return answer

        answer = await self._store.write(change)
        await self._keeper.change(answer.host)
        self._keeper.joined(answer.host.id)
        return answer

    async def edit(self, host_id: str, caller: Caller, **changes: Any) -> Host:
        """Give some of its fields other values; one that moves has to be in maintenance."""
        host = await self._store.write(self._edit, host_id, caller, changes)
        if changes.keys() & {"name", "address", "port"}:
            await self._keeper.change(host)
        return host

    async def activate(self, host_id: str, caller: Caller) -> Host:
        """It is to be up; whether it is, its status tells."""
        host = await self._wanted(host_id, True, Code.HOST_ACTIVATED, "activated", caller)
        self._keeper.activate(host_id)
        return host

    async def deactivate(self, host_id: str, caller: Caller) -> Host:
        """It is to be in maintenance, without keys."""
        code = Code.HOST_TO_MAINTENANCE
        host = await self._wanted(host_id, False, code, "put into maintenance", caller)
        self._keeper.deactivate(host_id)
        return host

    async def remove(self, host_id: str, caller: Caller) -> None:
        """Remove one that is in maintenance, or that has never joined."""
        await self._store.write(self._remove, host_id, caller)
        await self._keeper.forget(host_id)

    async def on_change(self, host_id: str, status: HostStatus, reason: str) -> None:
        """A host has another status, by what it told or did not tell."""
        await self._store.write(_changed, host_id, status, reason)

    @staticmethod
    def _add(conn: Connection, host: Host, caller: Caller) -> Host:
        _may_be(conn, host)
        hosts.insert(conn, host)
        text = f"Host {host.name} was added by {caller.user.principal}."
        tell(conn, Code.HOST_ADDED, text, caller, host_id=host.id, cluster_id=host.cluster_id)
        return host

    @staticmethod
    def _edit(conn: Connection, host_id: str, caller: Caller, changes: dict[str, Any]) -> Host:
        before = needed(conn, hosts, host_id, _KIND)
        host = replace(before, **changes)
        _may_be(conn, host)
        moves = host.cluster_id != before.cluster_id
        if moves and before.status not in _REMOVABLE:
            raise Conflict(
                f"host {before.name} is {before.status}; put it into maintenance before it gets "
                "another cluster"
            )
        _keep(conn, host)
        text = f"Host {host.name} was edited by {caller.user.principal}."
        tell(conn, Code.HOST_EDITED, text, caller, host_id=host_id)
        return host

    async def _wanted(
        self, host_id: str, wanted: bool, code: Code, what: str, caller: Caller
    ) -> Host:
        def change(conn: Connection) -> Host:
            host = needed(conn, hosts, host_id, _KIND)
            hosts.update(conn, host_id, wanted=wanted)
            text = f"Host {host.name} was {what} by {caller.user.principal}."
            tell(conn, code, text, caller, host_id=host_id)
            return host

        return await self._store.write(change)

    @staticmethod
    def _remove(conn: Connection, host_id: str, caller: Caller) -> None:
        host = needed(conn, hosts, host_id, _KIND)
        if host.status not in _REMOVABLE:
            raise Conflict(
                f"host {host.name} is {host.status}; put it into maintenance before it is removed"
            )
        hosts.delete(conn, host_id)
        text = f"Host {host.name} was removed by {caller.user.principal}."
        tell(conn, Code.HOST_REMOVED, text, caller, host_id=host_id)


def _may_be(conn: Connection, host: Host) -> None:
    """Make sure that there may be a host like that. Raises EngineError."""
    unused(conn, hosts, _KIND, host.id, name=named(host.name, _KIND))
    if host.address:
        unused(conn, hosts, _KIND, host.id, address=host.address)
    needed(conn, clusters, host.cluster_id, "cluster")


def _keep(conn: Connection, host: Host) -> None:
    fields = dict(vars(host))
    # These are the session's to tell.
    for name in ("id", "status", "reason"):
        del fields[name]
    hosts.update(conn, host.id, **fields)


def _changed(conn: Connection, host_id: str, status: HostStatus, reason: str) -> None:
    host = hosts.get(conn, host_id)
    if host is None or (host.status, host.reason) == (status, reason):
        return
    hosts.update(conn, host_id, status=status, reason=reason)
    up = status is HostStatus.UP
    tell(
        conn,
        Code.HOST_UP if up else Code.HOST_NOT_UP,
        f"Host {host.name} is {status}{': ' if reason else ''}{reason}.",
        severity=Severity.WARNING if reason else Severity.NORMAL,
        host_id=host_id,
        cluster_id=host.cluster_id,
    )
