# SPDX-License-Identifier: GPL-2.0-or-later
"""Ceph clusters that running VMs use, and checks of disks on them, as the wire has them.

Types CephCluster, DiskCheck and others (schema.yml).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from vdsmcinder.ceph.cluster_monitor import ClusterState, MonitorState
from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.virt.fleet.disk_checks import DiskCheck


def clusters(states: Collection[ClusterState]) -> list[dict[str, Any]]:
    """One for each cluster and user."""
    return [_cluster(state) for state in states]


def vitals(states: Collection[ClusterState]) -> dict[str, Any]:
    """The clusters whose fsid is known, as vitals of storage domains; the worse of two users'."""
    ordered = sorted(states, key=lambda state: state.trouble is not None)
    return {state.fsid: _vitals(state) for state in ordered if state.fsid is not None}


def status(state: ClusterState) -> tuple[str, dict[str, Any]]:
    """Name and params of the event that tells whether a cluster can be reached and has room."""
    told: dict[str, Any] = {"reachable": state.trouble is None}
    if state.account.user is not None:
        told["user"] = state.account.user
    if state.trouble is not None:
        told["reason"] = state.trouble
    if state.full_pools:
        told["fullPools"] = {
            pool: why.cause(state.account.user) for pool, why in state.full_pools.items()
        }
    return f"|ceph|cluster_status|{state.name}", {state.name: told}


def disk_check(check: DiskCheck) -> dict[str, Any]:
    """A check of a disk as DiskCheck."""
    return {
        "disk": check.image.disk,
        "image": check.image.location,
        "steps": [
            {
                "step": found.check,
                "state": found.state.value,
                "message": found.message,
                **({"remedy": found.remedy} if found.remedy else {}),
            }
            for found in check.findings
        ],
    }


def _cluster(state: ClusterState) -> dict[str, Any]:
    optional = {
        "fsid": state.fsid,
        "user": state.account.user,
        "reason": state.trouble,
        "health": state.health,
    }
    return {
        **{name: value for name, value in optional.items() if value is not None},
        "reachable": state.trouble is None,
        "delay": _seconds(state.answered_s),
        "lastCheck": _seconds(_age_s(state)),
        "monitors": [_monitor(monitor) for monitor in state.monitors],
        "checks": dict(state.checks),
        "fullOsds": list(state.full_osds),
        "pools": {
            name: {
                "usedBytes": str(room.used),
                "availableBytes": str(room.available),
                "full": name in state.full_pools,
            }
            for name, room in state.pools.items()
        },
    }


def _monitor(monitor: MonitorState) -> dict[str, Any]:
    optional = {
        "name": monitor.name,
        "inQuorum": monitor.in_quorum,
        "reason": monitor.trouble,
    }
    return {
        "address": monitor.address,
        "reachable": monitor.trouble is None,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _vitals(state: ClusterState) -> dict[str, Any]:
    answers = state.trouble is None
    return {
        "acquired": True,
        "actual": True,
        "code": 0 if answers else ResourceUnavailable.code,
        "delay": _seconds(state.answered_s),
        "lastCheck": f"{_age_s(state):.1f}",
        "valid": answers,
        "version": 0,
    }


def _age_s(state: ClusterState) -> float:
    return time.monotonic() - state.checked_s


def _seconds(number: float) -> str:
    return f"{number:.6f}"
