# SPDX-License-Identifier: GPL-2.0-or-later
"""Processors and memory of a running VM, as its guest sees them."""

from __future__ import annotations

import asyncio

import pytest

from tests.functional.guests import new_guest
from tests.functional.helpers import refused

pytestmark = pytest.mark.asyncio(loop_scope="session")


MEMORY = "grep MemTotal /proc/meminfo | tr -dc 0-9"


async def test_processors_are_plugged_and_let_go_of(engine):
    async with new_guest(engine) as guest:
        assert await guest.shell("nproc") == "1"
        info = await guest.call("setNumberOfCpus", numberOfCpus=3)
        assert (info["smp"], info["maxVCpus"]) == (3, 4)
        assert {await guest.says("^processor (cpu.) added") for _ in range(2)} == {"cpu1", "cpu2"}
        assert await guest.shell("nproc") == "3"

        # QEMU under emulation does not tell that a processor has gone, so libvirt waits in vain.
        with refused(60, "could not be given 2 processors", "did not let go", "VM.getInfo"):
            await guest.call("setNumberOfCpus", numberOfCpus="2")
        assert await guest.says("^processor (cpu.) removed") == "cpu2"
        assert await guest.shell("nproc") == "2"


@pytest.mark.parametrize("count", [0, 5])
async def test_as_many_as_the_vm_was_created_for(guest, count):
    with refused(60, f"cannot have {count} processors", "1 to 4"):
        await guest.call("setNumberOfCpus", numberOfCpus=count)
    assert (await guest.call("getInfo"))["smp"] == 1


async def test_the_guest_gives_memory_back_and_takes_it(guest):
    async def balloon(target_kib):
        await guest.call("setBalloonTarget", target=target_kib)
        while True:
            info = (await guest.stats()).get("balloonInfo", {})
            if info.get("balloon_cur") == str(target_kib):
                assert info["balloon_target"] == str(target_kib)
                return int(await guest.shell(MEMORY))
            await asyncio.sleep(0.1)

    whole = int(await guest.shell(MEMORY))
    small = await asyncio.wait_for(balloon(200 * 1024), 30)
    assert 50 * 1024 < whole - small < 60 * 1024
    assert await asyncio.wait_for(balloon(256 * 1024), 30) == whole


async def test_more_memory_than_the_vm_has(guest):
    with refused(56, "the balloon of VM", "1048576 KiB"):
        await guest.call("setBalloonTarget", target=1024 * 1024)
