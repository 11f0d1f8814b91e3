# SPDX-License-Identifier: GPL-2.0-or-later
"""Processors and memory of a running VM, as its guest sees them."""

from __future__ import annotations

import asyncio

import pytest

from lab.engine import new_id
from tests.functional.guests import new_guest
from tests.functional.helpers import eventually, refused

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


BLOCKS = "ls /sys/devices/system/memory | grep -c memory"


async def test_memory_is_plugged_and_let_go_of(engine):
    described = {"type": "memory", "device": "memory", "size": 256, "node": 0}
    async with new_guest(engine, maxMemSize=1024, maxMemSlots=2) as guest:
        before = int(await guest.shell(BLOCKS))
        memory = {**described, "deviceId": new_id()}
        info = await guest.call(
            "hotplugMemory", params={"memory": memory, "memGuaranteedSize": 300}
        )
        told = [info[name] for name in ("memSize", "maxMemSize", "maxMemSlots")]
        assert told == [512, 1024, 2]
        assert info["memGuaranteedSize"] == 300
        # The guest has it in blocks of 128 MiB.
        await eventually(lambda: is_told(guest, BLOCKS, str(before + 2)), "no memory was added")
        with refused(70, "memory could not be plugged", "which is as it was"):
            await guest.call("hotplugMemory", params={"memory": {**described, "size": 4096}})
        assert (await guest.call("getInfo"))["memSize"] == 512
        assert await guest.call("hotunplugMemory", params={"memory": memory})
        await eventually(lambda: is_told(guest, BLOCKS, str(before)), "the memory did not go")
        assert (await guest.call("getInfo"))["memSize"] == 256


async def test_a_vm_without_room_for_memory(guest):
    with refused(70, "has no slots for memory; create it with <maxMemory"):
        await guest.call("hotplugMemory", params={"memory": {"size": 128, "node": 0}})


async def test_a_policy_limits_disks_and_is_kept(guest):
    limits = {"total_iops_sec": 700}
    tunables = [{"name": "vda", "maximum": limits, "guaranteed": limits}]
    assert await guest.call("updateVmPolicy", params={"ioTune": tunables})
    (policy,) = await guest.call("getIoTunePolicy")
    assert (policy["name"], policy["maximum"]) == ("vda", limits)
    (vda, *_) = await guest.call("getIoTune")
    assert vda["ioTune"]["total_iops_sec"] == 700
    no_limits = [{"name": "vda", "maximum": {"total_iops_sec": 0}}]
    assert await guest.call("updateVmPolicy", params={"ioTune": no_limits})
    with refused(63, "has no disk of name vdz"):
        await guest.call("updateVmPolicy", params={"ioTune": [{**tunables[0], "name": "vdz"}]})


async def is_told(guest, command, text):
    return await guest.shell(command) == text
