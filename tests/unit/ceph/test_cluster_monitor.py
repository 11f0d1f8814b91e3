# SPDX-License-Identifier: GPL-2.0-or-later
"""Which changes of a cluster are told, with answers of a worker that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from vdsmcinder.ceph import cluster_monitor
from vdsmcinder.ceph.cluster_monitor import ClusterMonitor, ClusterState, Use
from vdsmcinder.ceph.fault_kinds import CephFault, Kind
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.ceph.workers import Account
from vdsmcinder.tasks import Tasks

ACCOUNT = Account((MonitorHost("10.0.0.1"),))


def vitals(rooms: Mapping[str, str | None], *, may_blocklist: bool = True) -> dict[str, Any]:
    """What ceph/worker.py tells of a cluster with these pools."""
    pool = {"used_bytes": 1, "available_bytes": 2, "used_ratio": 0.5}
    return {
        "fsid": "5a1f",
        "answered_s": 0.1,
        "monitors": [],
        "may_blocklist": may_blocklist,
        "health": {"status": "HEALTH_OK", "checks": {}},
        "pools": {name: {**pool, "room": room} for name, room in rooms.items()},
    }


class Cluster:
    """Workers whose answers to "vitals" are these, one after the other; then the last for ever."""

    timeout_s = 1.0

    def __init__(self, *answers: dict[str, Any] | CephFault) -> None:
        self._answers = list(answers)
        self.given = 0

    async def ask(self, account: Account, key: object, op: str, **args: Any) -> Any:
        answer = self._answers[min(self.given, len(self._answers) - 1)]
        self.given += 1
        if isinstance(answer, CephFault):
            raise answer
        return answer


async def changes(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> list[ClusterState]:
    """What is told of a cluster that answers so."""

    async def silent(hosts: tuple[MonitorHost, ...], _timeout_s: float) -> dict[Any, str]:
        return dict.fromkeys(hosts, "no answer")

    monkeypatch.setattr(cluster_monitor, "survey", silent)
    monkeypatch.setattr(cluster_monitor, "_CALM_S", 0.0)
    told: list[ClusterState] = []
    cluster, tasks = Cluster(*answers), Tasks("clusters")
    use = {ACCOUNT: Use(None, frozenset({"volumes"}))}
    monitor = ClusterMonitor(
        cluster,  # type: ignore[arg-type]
        0.0,
        tasks,
        in_use=lambda: use,
        on_change=told.append,
    )
    monitor.start()
    while cluster.given <= len(answers):
        monitor.wake()
        await asyncio.sleep(0)
    await monitor.close()
    return told


async def test_pools_that_become_full_are_told_once_and_when_they_have_room(monkeypatch, caplog):
    quiet, full = vitals({"volumes": None}), vitals({"volumes": "quota"})
    scarce = vitals({"volumes": "scarce"})
    caplog.set_level("INFO")
    told = await changes(monkeypatch, quiet, scarce, full, full, scarce, quiet)
    assert [list(state.full_pools) for state in told] == [["volumes"], []]
    assert told[0].full_pools["volumes"].kind is Kind.QUOTA
    assert caplog.text.count("5a1f: pool volumes is full, for its quota is reached") == 1
    assert caplog.text.count("5a1f: pool volumes is not full any more") == 1


async def test_a_pool_that_is_full_from_the_start(monkeypatch):
    (state,) = await changes(monkeypatch, vitals({"volumes": "full"}))
    assert (state.trouble, list(state.full_pools)) == (None, ["volumes"])


async def test_a_cluster_that_cannot_be_reached_keeps_what_was_known(monkeypatch):
    down, full = CephFault(Kind.SILENT), vitals({"volumes": "full"})
    told = await changes(monkeypatch, full, down, down, full)
    assert [state.trouble is None for state in told] == [True, False, True]
    assert [list(state.full_pools) for state in told] == [["volumes"]] * 3


async def test_a_right_that_is_lacking_is_known(monkeypatch):
    lacking = vitals({"volumes": "full"}, may_blocklist=False)
    (state,) = await changes(monkeypatch, lacking)
    assert state.may_blocklist is False
