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
from tests.faults import injuries, straits
from tests.faults.deeds import DEEDS, TIMES, Deed, killing_during
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
    heal: Act = injuries.nothing
    prepare: Act = injuries.nothing
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
    Row(
        "state-read-only",
        "libvirt's state directories: read-only",
        straits.make_state_read_only,
        straits.make_state_writable,
        told=Told("VM.create says why not", straits.create_is_refused, 10),
    ),
    Row(
        "state-full",
        "libvirt's state directories: full",
        straits.fill_state,
        straits.free_state,
        prepare=straits.move_state,
        told=Told("VM.create says why not", straits.create_is_refused, 10),
    ),
    Row(
        "files-exhausted",
        "the daemon: no file descriptor left",
        straits.exhaust_files,
        straits.allow_files,
        told=Told("nobody new is accepted", straits.nobody_new_is_accepted, 15),
    ),
    Row(
        "memory-exhausted",
        "the daemon: no memory left",
        straits.exhaust_memory,
        straits.allow_memory,
        told=Told("large requests are not answered", straits.memory_is_short, 15),
        hold_s=5,
        silent_s=4,
    ),
    Row(
        "clock-stepped",
        "the daemon's clock: an hour forward, and back",
        straits.step_clock_forward,
        straits.step_clock_back,
        told=Told("the host's time is wrong", straits.clock_is_wrong, 15),
        hold_s=5,
        plugs=0,
        environment=straits.STEPPED_CLOCK,
    ),
    Row(
        "certificate-expired",
        "the host's certificate: expires under way",
        straits.let_certificate_expire,
        straits.renew_certificate,
        told=Told("health says so, new clients refuse it", straits.expiry_is_told, 10),
        plugs=0,
    ),
    Row(
        "daemon-killed-with-many",
        f"the daemon: kill -9 beside {straits.MANY} VMs more",
        straits.kill_daemon_of_many,
        straits.remove_many,
        prepare=straits.make_many,
        # systemd starts it anew after half a second.
        told=Told("all VMs are known", straits.many_are_known, 2.5),
        silent_s=4,
    ),
    *map(_killed_during, DEEDS),
)
