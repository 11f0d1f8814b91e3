# SPDX-License-Identifier: GPL-2.0-or-later
"""How the clusters that running VMs use are, looked at in the background.

VMs that wait for their storage are woken when a cluster is back. Clusters are looked at side by
side, so a silent one delays no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from vdsmcinder.ceph.fault_kinds import FULL, KINDS, CephFault, Kind
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.ceph.monitor_survey import Survey, all_silent, survey
from vdsmcinder.ceph.workers import Account, Key, Workers, monitor_text
from vdsmcinder.tasks import Tasks, within

log = logging.getLogger(__name__)

# While a cluster is unreachable it is looked at more often.
_UNREACHABLE_INTERVAL_S = 2.0
_CALM_S = 0.2
_FULL_CHECKS = ("OSD_NEARFULL", "OSD_BACKFILLFULL", "OSD_FULL")


@dataclass(frozen=True)
class Use:
    """How running VMs use an account: its key, as far as it is known, and the pools."""

    key: Key | None
    pools: frozenset[str]


@dataclass(frozen=True)
class MonitorState:
    """One monitor. in_quorum: None where the cluster does not tell. trouble: None if it answers."""

    address: str
    name: str | None
    in_quorum: bool | None
    trouble: str | None


@dataclass(frozen=True)
class PoolRoom:
    """The room in a pool, in bytes; available is what can still be written to it.

    trouble: that there is none left, or little.
    """

    used: int
    available: int
    trouble: CephFault | None = None


@dataclass(frozen=True)
class ClusterState:
    """A cluster when it was last looked at.

    trouble: why it is unreachable, None if it is not. checked_s: monotonic clock. answered_s: how
    long it took to answer. fsid, health and what follows are as they last were known. health: None
    where only its monitors could be asked. checks: Ceph's own words by its codes. may_blocklist:
    whether its user may, or is not known not to.
    """

    account: Account
    trouble: str | None
    checked_s: float
    answered_s: float = 0.0
    fsid: str | None = None
    health: str | None = None
    monitors: tuple[MonitorState, ...] = ()
    checks: Mapping[str, str] = field(default_factory=dict)
    full_osds: tuple[str, ...] = ()
    pools: Mapping[str, PoolRoom] = field(default_factory=dict)
    may_blocklist: bool = True

    @property
    def full_pools(self) -> Mapping[str, CephFault]:
        """Those of the pools to which nothing can be written, and why."""
        troubles = ((name, room.trouble) for name, room in self.pools.items())
        return {name: why for name, why in troubles if why is not None and why.kind in FULL}

    @property
    def name(self) -> str:
        """The fsid, or its monitors as long as the cluster has not told it."""
        return self.fsid or ",".join(map(monitor_text, self.account.hosts)) or "ceph.conf"


class ClusterMonitor:
    """Looks at clusters every interval_s seconds, and at once at those that come into use.

    in_use: tells which those are. on_change: called with a cluster that became unreachable, or
    answers again, and with one of whose pools others are full than before.
    """

    def __init__(
        self,
        workers: Workers,
        interval_s: float,
        tasks: Tasks,
        *,
        in_use: Callable[[], Mapping[Account, Use]],
        on_change: Callable[[ClusterState], None],
    ) -> None:
        self._workers = workers
        self._interval_s = interval_s
        self._in_use = in_use
        self._on_change = on_change
        self._states: dict[Account, ClusterState] = {}
        self._changed = asyncio.Event()
        self._tasks = tasks

    @property
    def clusters(self) -> Collection[ClusterState]:
        """The clusters in use, once they were looked at; never waits."""
        return tuple(self._states.values())

    def start(self) -> None:
        """Begin to look."""
        self._tasks.spawn(self._run(), "look")

    async def close(self) -> None:
        """Stop looking."""
        await self._tasks.close()

    def wake(self) -> None:
        """VMs came or went: look now if other clusters are in use."""
        self._changed.set()

    async def _run(self) -> None:
        due_s = 0.0
        while True:
            uses = self._in_use()
            now = time.monotonic()
            chosen = uses if now >= due_s else {a: u for a, u in uses.items() if self._new(a)}
            for gone in set(self._states) - set(uses):
                del self._states[gone]
            if chosen:
                await asyncio.gather(*(self._look(a, use) for a, use in chosen.items()))
            if now >= due_s:
                troubled = any(state.trouble for state in self._states.values())
                pause_s = min(self._interval_s, _UNREACHABLE_INTERVAL_S if troubled else 1e9)
                due_s = time.monotonic() + pause_s
            self._changed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._changed.wait(), max(0.1, due_s - time.monotonic()))
                # Many VMs may come up at once.
                await asyncio.sleep(_CALM_S)

    def _new(self, account: Account) -> bool:
        return account not in self._states

    async def _look(self, account: Account, use: Use) -> None:
        before = self._states.get(account)
        try:
            state = await self._state(account, use, before)
        except Exception:
            log.exception("cluster %s could not be looked at", account)
            return
        self._states[account] = state
        known = before or ClusterState(account, None, 0.0)
        changed = (state.trouble is None) != (known.trouble is None)
        if changed and state.trouble is None:
            log.info("Ceph cluster %s answers again", state.name)
        elif changed:
            log.warning("Ceph cluster %s is unreachable: %s", state.name, state.trouble)
        if _log_full(known, state) or changed:
            self._on_change(state)

    async def _state(self, account: Account, use: Use, before: ClusterState | None) -> ClusterState:
        known = before or ClusterState(account, None, 0.0)
        try:
            if use.key is None and account.user is not None:
                return await self._from_outside(known)
            vitals = await self._workers.ask(account, use.key, "vitals", pools=sorted(use.pools))
        except CephFault as e:
            found = e.monitors
            if found is None:
                found = await survey(_addresses(known), self._workers.timeout_s)
                if all_silent(found):
                    e = CephFault(Kind.SILENT, monitors=found)
                else:
                    e.monitors = found
            return _unreachable(known, found, e.cause(account.user))
        state = _read(account, vitals)
        return _surveyed(state, await survey(_addresses(state), self._workers.timeout_s))

    async def _from_outside(self, known: ClusterState) -> ClusterState:
        """Without a key only the monitors can be looked at."""
        found = await survey(known.account.hosts, self._workers.timeout_s)
        if all_silent(found):
            trouble = CephFault(Kind.SILENT, monitors=found).cause(known.account.user)
            return _unreachable(known, found, trouble)
        return _surveyed(replace(known, trouble=None, checked_s=time.monotonic()), found)


def _log_full(before: ClusterState, now: ClusterState) -> bool:
    """Whether other pools are full than before; the log has which."""
    for name in now.full_pools.keys() - before.full_pools.keys():
        words = now.full_pools[name].cause(now.account.user)
        log.warning("Ceph cluster %s: %s", now.name, words)
    for name in before.full_pools.keys() - now.full_pools.keys():
        log.info("Ceph cluster %s: pool %s is not full any more", now.name, name)
    return before.full_pools.keys() != now.full_pools.keys()


def _read(account: Account, vitals: Mapping[str, Any]) -> ClusterState:
    checks = vitals["health"]["checks"]
    return ClusterState(
        account,
        None,
        time.monotonic(),
        vitals["answered_s"],
        vitals["fsid"],
        vitals["health"]["status"],
        tuple(
            MonitorState(mon["addresses"][0], mon["name"], mon["in_quorum"], None)
            for mon in vitals["monitors"]
        ),
        {code: check["summary"] for code, check in checks.items()},
        tuple(line for code in _FULL_CHECKS if code in checks for line in checks[code]["detail"]),
        {
            name: PoolRoom(pool["used_bytes"], pool["available_bytes"], _trouble(name, pool))
            for name, pool in vitals["pools"].items()
        },
        vitals["may_blocklist"],
    )


def _trouble(name: str, pool: Mapping[str, Any]) -> CephFault | None:
    return None if pool["room"] is None else CephFault(KINDS[pool["room"]], name)


def _unreachable(known: ClusterState, found: Survey, trouble: str) -> ClusterState:
    state = replace(known, trouble=trouble, checked_s=time.monotonic(), answered_s=0.0)
    return _surveyed(
        replace(state, monitors=tuple(replace(m, in_quorum=None) for m in state.monitors)), found
    )


def _surveyed(state: ClusterState, found: Survey) -> ClusterState:
    """The state with what a survey of its monitors found."""
    troubles = {monitor_text(monitor): why for monitor, why in found.items()}
    if not state.monitors:
        monitors = tuple(MonitorState(a, None, None, why) for a, why in troubles.items())
    else:
        monitors = tuple(replace(m, trouble=troubles.get(m.address)) for m in state.monitors)
    return replace(state, monitors=monitors)


def _addresses(state: ClusterState) -> Sequence[MonitorHost]:
    """The monitors of the cluster's own map, as far as it is known, or those we were given."""
    if not any(monitor.name for monitor in state.monitors):
        return state.account.hosts
    return tuple(_host(monitor.address) for monitor in state.monitors)


def _host(address: str) -> MonitorHost:
    name, _, port = address.rpartition(":")
    return MonitorHost(name.strip("[]"), int(port))
