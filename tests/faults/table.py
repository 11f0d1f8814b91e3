# SPDX-License-Identifier: GPL-2.0-or-later
"""The faults as a table: what is done, how it is undone, and what has to hold.

run.py works through it; a new fault is a row here and, where it is of a new kind, an injury.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.ceph import Ceph
from tests.faults import injuries
from tests.faults.scene import Scene

Act = Callable[[Scene], Awaitable[None]]
Look = Callable[[Scene], Awaitable[Any]]


class Writes(enum.Enum):
    """What the guest's writes do while the fault lasts."""

    GO_ON = "go on"
    STALL = "stall"
    END = "end"


@dataclass(frozen=True)
class Told:
    """What an engine or an operator has to learn while the fault lasts, and within which time."""

    what: str
    look: Look
    within_s: float


@dataclass(frozen=True)
class Row:
    """One fault.

    name: on the command line. title: in the table. inject, heal: what is done, and undone.
    writes: what the guest's writes do meanwhile. hold_s: how long it lasts beyond what is told.
    told: what must become known. end: the status of the VM that writes when all is over.
    plugs: whether a disk can be plugged meanwhile: the code of the refusal, 0 if it works, None if
    it is not tried. silent_s: how long the API may be silent. true_s: how long the status may be
    wrong once the fault is over. options, environment: of the daemon, if it needs others.
    short: whether it belongs to the short form.
    """

    name: str
    title: str
    inject: Act
    heal: Act = injuries.nothing
    writes: Writes = Writes.GO_ON
    hold_s: float = 1.0
    told: Told | None = None
    end: str = "Up"
    plugs: int | None = None
    silent_s: float = 1.0
    true_s: float = 5.0
    short: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


# What is told


async def _degraded(scene: Scene) -> bool:
    return (await scene.health()).get("status") == "degraded"


async def _monitor_silent(scene: Scene) -> bool:
    return (await scene.stats()).get("monitorResponse") == "-1"


async def _lost_qemu(scene: Scene) -> bool:
    stats = await scene.stats()
    return stats.get("status") == "Down" and stats.get("exitReason") == 2


# How to read it: each row is one fault, from the process nearest to us to the one furthest away.
ROWS: Sequence[Row] = (
    Row(
        "daemon-killed",
        "the daemon: kill -9",
        injuries.kill_daemon,
        silent_s=4,
        short=True,
    ),
    Row(
        "libvirtd-killed",
        "libvirtd: kill -9, back after 2 s",
        injuries.kill_libvirtd,
        injuries.start_libvirtd,
        told=Told("health is degraded", _degraded, 2),
        plugs=40,
        hold_s=2,
        true_s=10,
        short=True,
    ),
    Row(
        "daemon-and-libvirtd-killed",
        "the daemon and libvirtd: kill -9",
        injuries.kill_daemon_and_libvirtd,
        injuries.start_libvirtd,
        silent_s=4,
        true_s=10,
    ),
    Row(
        "libvirtd-stopped",
        "libvirtd: SIGSTOP for 20 s",
        injuries.stop_libvirtd,
        injuries.continue_libvirtd,
        told=Told("health is degraded", _degraded, 25),
        plugs=40,
        true_s=10,
    ),
    Row(
        "qemu-killed",
        "QEMU: kill -9",
        injuries.kill_qemu,
        writes=Writes.END,
        told=Told("Down, exitReason 2", _lost_qemu, 1),
        end="Down",
        short=True,
    ),
    Row(
        "qemu-stopped",
        "QEMU: SIGSTOP for 5 s",
        injuries.stop_qemu,
        injuries.continue_qemu,
        writes=Writes.STALL,
        told=Told("monitorResponse is -1", _monitor_silent, 2),
        hold_s=5,
        short=True,
    ),
    Row(
        "monitor-killed",
        "Ceph: one monitor killed",
        injuries.kill_monitors("b"),
        injuries.start_monitors,
        plugs=0,
    ),
    Row(
        "two-monitors-killed",
        "Ceph: two monitors killed, no quorum",
        injuries.kill_monitors("b", "c"),
        injuries.start_monitors,
    ),
    Row(
        "all-monitors-killed",
        "Ceph: all three monitors killed",
        injuries.kill_monitors("a", "b", "c"),
        injuries.start_monitors,
        plugs=40,
        true_s=10,
    ),
    Row(
        "osd-killed",
        "Ceph: the OSD killed",
        injuries.on_ceph(Ceph.kill_osd),
        injuries.on_ceph(Ceph.start_osd, Ceph.wait_osd),
        writes=Writes.STALL,
        hold_s=3,
        short=True,
    ),
    Row(
        "osd-frozen",
        "Ceph: the OSD frozen",
        injuries.on_ceph(Ceph.freeze_osd),
        injuries.on_ceph(Ceph.thaw_osd),
        writes=Writes.STALL,
        hold_s=3,
    ),
    Row(
        "network-dropped",
        "network to Ceph: packets dropped",
        injuries.cut_network("DROP"),
        injuries.mend_network,
        writes=Writes.STALL,
        plugs=40,
        hold_s=3,
    ),
    Row(
        "network-refused",
        "network to Ceph: connections refused",
        injuries.cut_network("REJECT", "--reject-with", "tcp-reset"),
        injuries.mend_network,
        writes=Writes.STALL,
        plugs=40,
        hold_s=3,
    ),
)
