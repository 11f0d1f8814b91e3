# SPDX-License-Identifier: GPL-2.0-or-later
"""A source that is lost at its handover, what an operator does then, and that it comes back."""

from __future__ import annotations

import asyncio
import shlex

from lab.base import LabError
from tests.faults.scene import until
from tests.faults.two_hosts import Road


async def cut_off(road: Road) -> None:
    """From everybody: the other host, Ceph and the engine."""
    for chain in ("INPUT", "OUTPUT"):
        road.source.host.run(["iptables", "-A", chain, "-j", "DROP"])


async def leave_only_qemu(road: Road) -> None:
    """Kill daemon and libvirtd, and let nobody start them again."""
    await asyncio.to_thread(road.source.host.kill_libvirtd)
    await road.keeper(road.source).hold_down()


async def speak_for_it(road: Road) -> None:
    """What an operator does: look what is wrong with the destination, and do what it says."""
    there = road.destination

    async def told() -> bool:
        return any(road.vm.id in reason for reason in there.health()["reasons"])

    await until(told, "the destination to say that its copy waits", 90)
    (reason,) = (reason for reason in there.health()["reasons"] if road.vm.id in reason)
    _, *words = shlex.split(reason[reason.index("vdsm-cinder call") :])

    async def accepted() -> bool:
        try:
            await asyncio.to_thread(road.lab.namespace.run, there.command(*words))
        except LabError as e:
            # What the source had open, Ceph lets go after 30 s.
            if "the image is still open on another host" not in str(e):
                raise
            return False
        return True

    await until(accepted, "the copy to be let run", 60)


async def in_reach(road: Road) -> None:
    """End what cut_off() did."""
    for chain in ("INPUT", "OUTPUT"):
        road.source.host.run(["iptables", "-F", chain])


async def back(road: Road) -> None:
    """The same, and start what leave_only_qemu() killed."""
    await in_reach(road)
    await asyncio.to_thread(road.source.host.start_libvirtd)
    await road.keeper(road.source).let_up()
