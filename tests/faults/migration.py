# SPDX-License-Identifier: GPL-2.0-or-later
"""What fails while a VM migrates, as a table: a fault in a phase, and what must become of the VM.

A new fault is a row here and, where it is of a new kind, an act.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults import lost_source, post_copy
from tests.faults.faults import CEPH_PORTS
from tests.faults.scene import until
from tests.faults.two_hosts import FAST_MIB_S, Road, virsh
from vdsmcinder.errors import RemoteError


class Ends(enum.Enum):
    """Where the VM is when all is over."""

    HERE = "stays"
    THERE = "arrives"
    EITHER = "stays or arrives"
    NOWHERE = "ends"


Act = Callable[[Road], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """One fault in one phase.

    name: on the command line. title: in the table. act: from VM.migrate to the end of the fault.
    ends: what becomes of the VM. answers: what VM.migrate may answer. options: of both daemons.
    """

    name: str
    title: str
    act: Act
    ends: Ends
    answers: Sequence[str] = ("accepted",)
    short: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


# What is done


def both(*acts: Act) -> Act:
    """One after the other."""

    async def work(road: Road) -> None:
        for act in acts:
            await act(road)

    return work


async def _refused_while_away(road: Road) -> None:
    """The destination's daemon does not run, and nothing restarts it until the call is over."""
    keeper = road.keeper(road.destination)
    await keeper.hold_down()
    await road.depart()
    await road.answered()
    await keeper.let_up()


def _meanwhile_offered(*acts: Act) -> Act:
    """What happens while the destination is slow to say whether it can run the VM."""

    async def work(road: Road) -> None:
        await _freeze_destination(road)
        await road.depart()
        await asyncio.sleep(0.5)
        for act in acts:
            await act(road)

    return work


async def _depart(road: Road) -> None:
    await road.depart()
    await road.copying()


async def _kill_source(road: Road) -> None:
    road.source.process.send_signal(signal.SIGKILL)


async def _kill_destination(road: Road) -> None:
    road.destination.process.send_signal(signal.SIGKILL)
    # The nsenter above it stops when it is stopped.
    os.kill(road.destination.process.pid, signal.SIGCONT)


def _libvirtd(which: int) -> Act:
    async def kill(road: Road) -> None:
        host = (road.source, road.destination)[which].host
        await asyncio.to_thread(host.kill_libvirtd)
        await asyncio.sleep(1)
        await asyncio.to_thread(host.start_libvirtd)

    return kill


def _qemu(which: int) -> Act:
    async def kill(road: Road) -> None:
        host = (road.source, road.destination)[which].host
        for pid in road.qemus(host):
            host.namespace.kill(pid, signal.SIGKILL)

    return kill


async def _cancel(road: Road) -> None:
    with contextlib.suppress(RemoteError):
        await road.vm.here.call("VM.migrateCancel", vmID=road.vm.id)


async def _cancel_at_once(road: Road) -> None:
    await road.depart()
    await asyncio.sleep(0.05)
    await _cancel(road)


async def _cancel_at_the_end(road: Road) -> None:
    """So late that either may come of it."""
    await road.hurry()
    await _cancel(road)


async def _hurry(road: Road) -> None:
    await road.hurry()


async def _answered(road: Road) -> None:
    await road.answered()


async def _freeze_destination(road: Road) -> None:
    """It will hear nothing of the end of the source's QEMU."""
    road.destination.process.send_signal(signal.SIGSTOP)


async def _thaw_destination(road: Road) -> None:
    os.kill(road.destination.process.pid, signal.SIGCONT)
    road.destination.process.send_signal(signal.SIGCONT)


async def _left(road: Road) -> None:
    await road.left()


async def _source_down_until_left(road: Road) -> None:
    """The source's daemon is killed under way and comes back when libvirt is done."""
    await road.keeper(road.source).hold_down()
    await road.hurry()
    await road.left()
    await road.keeper(road.source).let_up()


async def _network_cut(road: Road) -> None:
    """Between the hosts alone: engine and Ceph reach both."""
    for daemon, other in ((road.source, road.destination), (road.destination, road.source)):
        daemon.host.run(["iptables", "-A", "OUTPUT", "-d", other.host.address, "-j", "DROP"])


async def _network_back(road: Road) -> None:
    for daemon in (road.source, road.destination):
        daemon.host.run(["iptables", "-F", "OUTPUT"])


def _wait(time_s: float) -> Act:
    async def wait(_road: Road) -> None:
        await asyncio.sleep(time_s)

    return wait


async def _freeze_libvirtd(road: Road) -> None:
    host = road.destination.host
    await asyncio.to_thread(host.namespace.freeze, host.libvirtd_pid)


async def _thaw_libvirtd(road: Road) -> None:
    host = road.destination.host
    host.namespace.kill(host.libvirtd_pid, signal.SIGCONT)


async def _ceph_cut(road: Road) -> None:
    ports = ["-p", "tcp", "-m", "multiport", "--dports", CEPH_PORTS]
    road.destination.host.run(["iptables", "-A", "OUTPUT", *ports, "-j", "DROP"])


async def _ceph_back(road: Road) -> None:
    road.destination.host.run(["iptables", "-F", "OUTPUT"])


async def _depart_fast(road: Road) -> None:
    await road.depart(FAST_MIB_S)
    await road.answered()


async def _stands(road: Road) -> None:
    """The guest has been stopped to be handed over."""

    async def stopped() -> bool:
        return (await virsh(road.source.host, "domstate", road.vm.id)) == "paused"

    await until(stopped, "the guest to be stopped at its handover", 60)


# The destination's libvirtd is asked for the last step, and cannot take it yet.
_handover_held = both(_depart, _freeze_libvirtd, _hurry, _stands, _wait(3))
# libvirtd gives another one up after 30 s of silence (qemu.conf, keepalive_interval and _count).
_last_word_lost = both(
    _handover_held,
    _network_cut,
    _thaw_libvirtd,
    _wait(37),
    _network_back,
)

# How to read it: by the phase in which it happens, and within a phase from us outwards.
ROWS: Sequence[Row] = (
    Row(
        "destination-away",
        "offered: the destination's daemon does not run",
        _refused_while_away,
        Ends.HERE,
        answers=("code 10",),
    ),
    Row(
        "destination-killed-offered",
        "offered: the destination's daemon, kill -9",
        _meanwhile_offered(_kill_destination),
        Ends.HERE,
        answers=("code 10",),
    ),
    Row(
        "source-killed-offered",
        "offered: the source's daemon, kill -9",
        _meanwhile_offered(_kill_source, _wait(1), _thaw_destination),
        Ends.HERE,
        answers=("cut off",),
    ),
    Row(
        "destination-libvirtd-killed-offered",
        "offered: the destination's libvirtd, kill -9",
        _meanwhile_offered(_libvirtd(1), _thaw_destination, _answered, _hurry),
        Ends.EITHER,
        answers=("accepted", "code 12", "code 40"),
    ),
    Row(
        "network-cut-offered",
        "offered: the network between the hosts cut for 40 s",
        _meanwhile_offered(_network_cut, _thaw_destination, _wait(40), _network_back),
        Ends.HERE,
        answers=("code 10",),
    ),
    Row(
        "cancelled-offered",
        "offered: cancelled",
        _cancel_at_once,
        Ends.EITHER,
        answers=("accepted", "code 12"),
    ),
    Row(
        "ceph-cut-offered",
        "offered: Ceph out of the destination's reach",
        both(_ceph_cut, _depart_fast, _ceph_back),
        Ends.HERE,
        answers=("code 40",),
        short=True,
    ),
    Row(
        "destination-killed-copying",
        "copying: the destination's daemon, kill -9",
        both(_depart, _kill_destination, _hurry),
        Ends.THERE,
    ),
    Row(
        "source-killed-copying",
        "copying: the source's daemon, kill -9",
        both(_depart, _kill_source, _wait(1), _hurry),
        Ends.THERE,
        answers=("accepted", "cut off"),
        short=True,
    ),
    Row(
        "destination-libvirtd-killed-copying",
        "copying: the destination's libvirtd, kill -9",
        both(_depart, _libvirtd(1)),
        Ends.HERE,
        short=True,
    ),
    Row(
        "source-libvirtd-killed-copying",
        "copying: the source's libvirtd, kill -9",
        both(_depart, _libvirtd(0)),
        Ends.HERE,
    ),
    Row(
        "destination-qemu-killed-copying",
        "copying: QEMU on the destination, kill -9",
        both(_depart, _qemu(1)),
        Ends.HERE,
        short=True,
    ),
    Row(
        "source-qemu-killed-copying",
        "copying: QEMU on the source, kill -9",
        both(_depart, _qemu(0)),
        Ends.NOWHERE,
    ),
    Row(
        "cancelled-copying",
        "copying: cancelled",
        both(_depart, _cancel),
        Ends.HERE,
        short=True,
    ),
    Row(
        "network-cut-copying",
        "copying: the network between the hosts cut for 40 s",
        both(_depart, _network_cut, _wait(40), _network_back),
        Ends.HERE,
    ),
    Row(
        "network-cut-briefly",
        "copying: the network between the hosts cut for 3 s",
        both(_depart, _network_cut, _wait(3), _network_back, _hurry),
        Ends.EITHER,
    ),
    Row(
        "ceph-cut-copying",
        "copying: Ceph out of the destination's reach for 10 s",
        both(_depart, _ceph_cut, _hurry, _wait(10), _ceph_back),
        Ends.EITHER,
    ),
    Row(
        "cancelled-handover",
        "handover: cancelled",
        both(_depart, _cancel_at_the_end),
        Ends.EITHER,
    ),
    Row(
        "destination-killed-handover",
        "handover: the destination's daemon, kill -9",
        both(_depart, _freeze_destination, _hurry, _left, _kill_destination),
        Ends.THERE,
        short=True,
    ),
    Row(
        "source-killed-handover",
        "handover: the source's daemon killed, back when libvirt is done",
        both(_depart, _source_down_until_left),
        Ends.THERE,
        answers=("accepted", "cut off"),
    ),
    Row(
        "destination-libvirtd-killed-handover",
        "handover: the destination's libvirtd, kill -9",
        both(_depart, _freeze_destination, _hurry, _left, _libvirtd(1), _thaw_destination),
        Ends.THERE,
    ),
    Row(
        "source-libvirtd-killed-handover",
        "handover: the source's libvirtd, kill -9",
        both(_depart, _freeze_destination, _hurry, _left, _libvirtd(0), _thaw_destination),
        Ends.THERE,
    ),
    Row(
        "ceph-cut-handover",
        "handover: Ceph out of the destination's reach for 10 s",
        both(
            _depart,
            _freeze_destination,
            _hurry,
            _left,
            _ceph_cut,
            _thaw_destination,
            _wait(10),
            _ceph_back,
        ),
        Ends.THERE,
    ),
    Row(
        "destination-qemu-killed-handover",
        "handover: QEMU on the destination, kill -9",
        both(_depart, _freeze_destination, _hurry, _left, _qemu(1), _thaw_destination),
        Ends.NOWHERE,
    ),
    Row(
        "source-lost-handover",
        "handover: the source's host lost, its copy let run; then it is back",
        both(
            _handover_held,
            lost_source.cut_off,
            lost_source.leave_only_qemu,
            _qemu(0),
            _thaw_libvirtd,
            lost_source.speak_for_it,
            lost_source.back,
        ),
        Ends.THERE,
    ),
    Row(
        "source-stranded-handover",
        "handover: the same, but QEMU stands there when it is back",
        both(
            _handover_held,
            lost_source.cut_off,
            lost_source.leave_only_qemu,
            _thaw_libvirtd,
            lost_source.speak_for_it,
            lost_source.back,
        ),
        Ends.THERE,
    ),
    Row(
        "source-cut-off-handover",
        "handover: the source cut off and said to be off, which it is not; then it is back",
        both(
            _handover_held,
            lost_source.cut_off,
            _thaw_libvirtd,
            _wait(40),
            lost_source.speak_for_it,
            lost_source.in_reach,
        ),
        Ends.THERE,
    ),
    Row(
        "network-cut-handover",
        "handover: libvirt's last word lost, the network cut for 40 s",
        _last_word_lost,
        Ends.EITHER,
    ),
    Row(
        "network-cut-handover-libvirt",
        "handover by libvirt: its last word lost, the network cut for 40 s",
        _last_word_lost,
        Ends.EITHER,
        options={"migration": {"handover": "libvirt"}},
    ),
    Row(
        "cancelled-post-copy",
        "post-copy: cancelled",
        both(post_copy.depart, _cancel, _hurry),
        Ends.THERE,
    ),
    Row(
        "destination-killed-post-copy",
        "post-copy: the destination's daemon, kill -9",
        both(post_copy.depart, _kill_destination, _wait(1), _hurry),
        Ends.THERE,
    ),
    Row(
        "source-killed-post-copy",
        "post-copy: the source's daemon, kill -9",
        both(post_copy.depart, _kill_source, _wait(1), _hurry),
        Ends.THERE,
        short=True,
    ),
    Row(
        "destination-libvirtd-killed-post-copy",
        "post-copy: the destination's libvirtd, kill -9",
        both(post_copy.depart, _libvirtd(1), _hurry),
        Ends.THERE,
    ),
    Row(
        "source-libvirtd-killed-post-copy",
        "post-copy: the source's libvirtd, kill -9",
        both(post_copy.depart, _libvirtd(0), _hurry),
        Ends.THERE,
    ),
    Row(
        "network-cut-briefly-post-copy",
        "post-copy: the network between the hosts cut for 3 s",
        both(post_copy.depart, _network_cut, _wait(3), _network_back, _hurry),
        Ends.THERE,
    ),
    Row(
        "network-cut-post-copy",
        "post-copy: the network between the hosts cut for 40 s",
        both(post_copy.depart, _network_cut, _wait(40), _network_back, _hurry),
        Ends.THERE,
    ),
    Row(
        "network-cut-source-killed-post-copy",
        "post-copy: the network cut for 40 s, and the source's daemon killed meanwhile",
        both(
            post_copy.depart,
            _network_cut,
            post_copy.source_down_until_back,
            _wait(5),
            _network_back,
            _hurry,
        ),
        Ends.THERE,
    ),
    Row(
        "destination-qemu-killed-post-copy",
        "post-copy: QEMU on the destination, kill -9",
        both(post_copy.depart, _qemu(1)),
        Ends.NOWHERE,
    ),
    Row(
        "source-qemu-killed-post-copy",
        "post-copy: QEMU on the source, kill -9",
        both(post_copy.depart, _qemu(0), post_copy.lost_there),
        Ends.NOWHERE,
    ),
    Row(
        "source-destroyed-post-copy",
        "post-copy: VM.destroy on the source",
        both(post_copy.depart, post_copy.destroy_on_source, post_copy.lost_there),
        Ends.NOWHERE,
    ),
    Row(
        "destination-destroyed-post-copy",
        "post-copy: VM.destroy on the destination",
        both(post_copy.depart, post_copy.destroy_on_destination),
        Ends.NOWHERE,
    ),
)
