# SPDX-License-Identifier: GPL-2.0-or-later
"""The faults as a table: what is done, how it is undone, and what has to hold.

A new fault is a row here and, where it is of a new kind, a function of faults.py.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.ceph.cluster import Ceph
from tests.faults import faults, resource_exhaustion
from tests.faults.kill_during_verb import DEEDS, TIMES, Deed, killing_during
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

    name: on the command line. title: in the table. prepare: done before the guest writes.
    inject, heal: what is done, and undone.
    writes: what the guest's writes do meanwhile. hold_s: how long it lasts beyond what is told.
    told: what must become known. end: the status of the VM that writes when all is over.
    plugs: whether a disk can be plugged meanwhile: the code of the refusal, 0 if it works, None if
    it is not tried. silent_s: how long the API may be silent. true_s: how long the status may be
    wrong once the fault is over. options, environment: of the daemon, if it needs others.
    short: whether it belongs to the short form. section: of docs/faults.md.
    """

    name: str
    title: str
    inject: Act
    heal: Act = faults.nothing
    prepare: Act = faults.nothing
    writes: Writes = Writes.GO_ON
    hold_s: float = 1.0
    told: Told | None = None
    end: str = "Up"
    plugs: int | None = None
    silent_s: float = 1.0
    true_s: float = 5.0
    short: bool = False
    section: str = "faults"
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


def _killed_during(deed: Deed) -> Row:
    name = deed.verb.rpartition(".")[2]
    title = f"the daemon: kill -9 during {deed.verb}, {TIMES} times"
    return Row(
        f"killed-in-{name}", title, killing_during(deed), silent_s=4, hold_s=0, section="verbs"
    )


# How to read it: each row is one fault, from the process nearest to us to the one furthest away.
ROWS: Sequence[Row] = (
    Row(
        "daemon-killed",
        "the daemon: kill -9",
        faults.kill_daemon,
        silent_s=4,
        short=True,
    ),
    Row(
        "libvirtd-killed",
        "libvirtd: kill -9, back after 2 s",
        faults.kill_libvirtd,
        faults.start_libvirtd,
        told=Told("health is degraded", _degraded, 2),
        plugs=40,
        hold_s=2,
        true_s=10,
        short=True,
    ),
    Row(
        "daemon-and-libvirtd-killed",
        "the daemon and libvirtd: kill -9",
        faults.kill_daemon_and_libvirtd,
        faults.start_libvirtd,
        silent_s=4,
        true_s=10,
    ),
    Row(
        "libvirtd-stopped",
        "libvirtd: SIGSTOP for 20 s",
        faults.stop_libvirtd,
        faults.continue_libvirtd,
        told=Told("health is degraded", _degraded, 25),
        plugs=40,
        true_s=10,
    ),
    Row(
        "qemu-killed",
        "QEMU: kill -9",
        faults.kill_qemu,
        writes=Writes.END,
        told=Told("Down, exitReason 2", _lost_qemu, 1),
        end="Down",
        short=True,
    ),
    Row(
        "qemu-stopped",
        "QEMU: SIGSTOP for 5 s",
        faults.stop_qemu,
        faults.continue_qemu,
        writes=Writes.STALL,
        told=Told("monitorResponse is -1", _monitor_silent, 2),
        hold_s=5,
        short=True,
    ),
    Row(
        "monitor-killed",
        "Ceph: one monitor killed",
        faults.kill_monitors("b"),
        faults.start_monitors,
        plugs=0,
    ),
    Row(
        "two-monitors-killed",
        "Ceph: two monitors killed, no quorum",
        faults.kill_monitors("b", "c"),
        faults.start_monitors,
    ),
    Row(
        "all-monitors-killed",
        "Ceph: all three monitors killed",
        faults.kill_monitors("a", "b", "c"),
        faults.start_monitors,
        plugs=40,
        true_s=10,
    ),
    Row(
        "osd-killed",
        "Ceph: the OSD killed",
        faults.on_ceph(Ceph.kill_osd),
        faults.on_ceph(Ceph.start_osd, Ceph.wait_osd),
        writes=Writes.STALL,
        hold_s=3,
        short=True,
    ),
    Row(
        "osd-frozen",
        "Ceph: the OSD frozen",
        faults.on_ceph(Ceph.freeze_osd),
        faults.on_ceph(Ceph.thaw_osd),
        writes=Writes.STALL,
        hold_s=3,
    ),
    Row(
        "network-dropped",
        "network to Ceph: packets dropped",
        faults.cut_network("DROP"),
        faults.mend_network,
        writes=Writes.STALL,
        plugs=40,
        hold_s=3,
    ),
    Row(
        "network-refused",
        "network to Ceph: connections refused",
        faults.cut_network("REJECT", "--reject-with", "tcp-reset"),
        faults.mend_network,
        writes=Writes.STALL,
        plugs=40,
        hold_s=3,
    ),
    Row(
        "state-read-only",
        "libvirt's state directories: read-only",
        resource_exhaustion.make_state_read_only,
        resource_exhaustion.make_state_writable,
        told=Told("VM.create says why not", resource_exhaustion.create_is_refused, 10),
    ),
    Row(
        "state-full",
        "libvirt's state directories: full",
        resource_exhaustion.fill_state,
        resource_exhaustion.free_state,
        prepare=resource_exhaustion.move_state,
        told=Told("VM.create says why not", resource_exhaustion.create_is_refused, 10),
    ),
    Row(
        "files-exhausted",
        "the daemon: no file descriptor left",
        resource_exhaustion.exhaust_files,
        resource_exhaustion.allow_files,
        told=Told("nobody new is accepted", resource_exhaustion.nobody_new_is_accepted, 15),
    ),
    Row(
        "memory-exhausted",
        "the daemon: no memory left",
        resource_exhaustion.exhaust_memory,
        resource_exhaustion.allow_memory,
        told=Told("large requests are not answered", resource_exhaustion.memory_is_short, 15),
        hold_s=5,
        silent_s=4,
    ),
    Row(
        "clock-stepped",
        "the daemon's clock: an hour forward, and back",
        resource_exhaustion.step_clock_forward,
        resource_exhaustion.step_clock_back,
        told=Told("the host's time is wrong", resource_exhaustion.clock_is_wrong, 15),
        hold_s=5,
        plugs=0,
        environment=resource_exhaustion.STEPPED_CLOCK,
    ),
    Row(
        "certificate-expired",
        "the host's certificate: expires under way",
        resource_exhaustion.let_certificate_expire,
        resource_exhaustion.renew_certificate,
        told=Told("health says so, new clients refuse it", resource_exhaustion.expiry_is_told, 10),
        plugs=0,
    ),
    Row(
        "daemon-killed-with-many",
        f"the daemon: kill -9 beside {resource_exhaustion.MANY} VMs more",
        resource_exhaustion.kill_daemon_of_many,
        resource_exhaustion.remove_many,
        prepare=resource_exhaustion.make_many,
        # systemd starts it anew after half a second.
        told=Told("all VMs are known", resource_exhaustion.many_are_known, 2.5),
        silent_s=4,
    ),
    *map(_killed_during, DEEDS),
)
