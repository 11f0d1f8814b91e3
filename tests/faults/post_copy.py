# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rows of migration.py do to a VM in post-copy, whose memory is on two hosts."""

from __future__ import annotations

import asyncio

from tests.faults.scene import until
from tests.faults.two_hosts import Road

# Passes over a guest's memory that are not made.
NEVER = 10**6


async def depart(road: Road) -> None:
    """The guest runs on the destination, and the rest of its memory crawls."""
    step = {"limit": NEVER, "action": {"name": "postcopy", "params": []}}
    await road.depart(convergenceSchedule={"init": [], "stalling": [step]})
    await road.copying()
    await road.switch()


async def destroy_on_source(road: Road) -> None:
    await road.vm.here.destroy(road.vm.id)


async def destroy_on_destination(road: Road) -> None:
    await road.vm.there.destroy(road.vm.id)


async def lost_there(road: Road) -> None:
    """Return when the destination says that it is."""

    async def down() -> bool:
        return await road.status(road.daemons.index(road.destination)) == "Down"

    await until(down, "the destination to end what cannot go on", 60)


async def source_down_until_back(road: Road) -> None:
    """The source's daemon is killed while libvirt still waits for the other host."""
    await road.keeper(road.source).hold_down()
    await asyncio.sleep(35)
    await road.keeper(road.source).let_up()
