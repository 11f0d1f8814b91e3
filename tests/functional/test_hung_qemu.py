# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU processes that die or hang: what is told of them, and that nobody else notices. On host2.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_hung_qemu.py`.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from lab.engine import Engine, new_id
from lab.host.daemon import HostDaemon
from tests.functional.helpers import (
    OPTIONS,
    ask,
    booted,
    destroyed_at_last,
    eventually,
    refused,
    running,
    session_fixture,
    status,
    within,
)
from vdsmcinder.errors import RemoteError

pytestmark = pytest.mark.asyncio(loop_scope="session")

INTERVAL_S = 2
MANY = 10
# Longer than any verb on a VM that is well takes, and shorter than one that waits for another VM.
PROMPT_S = 5


@session_fixture("module")
async def engine(lab):
    host = lab.hosts["host2"]
    vms = {**OPTIONS["vms"], "sample_interval_s": INTERVAL_S}
    options = {**OPTIONS, "vms": vms, "libvirt": {"call_timeout_s": 10}}
    with HostDaemon(host, lab.pki, options, "hung") as daemon:
        async with Engine(lab, daemon) as engine:
            await engine.register_key()
            yield engine
            for vm in await engine.call("Host.getVMList"):
                await engine.destroy(vm["vmId"])
            await engine.call("Host.registerSecrets", secrets=[], clear=True)


@session_fixture("module")
async def well(engine):
    """A VM whose guest writes all the time."""
    async with booted(engine) as vm:
        await asyncio.to_thread(vm.console.ask, "hammer vda", r"^hammer vda \d+$")
        yield vm


@pytest.fixture
def empty(engine, image):
    """Makes descriptions of VMs with nothing to boot, which are up at once."""
    return lambda: engine.flat(new_id(), engine.disk(image()), memSize=64)


async def pid_of(engine, vm_id):
    return (await engine.call("VM.getInfo", vmID=vm_id))["pid"]


@asynccontextmanager
async def hung(engine, vm_id):
    """The VM's QEMU process is stopped within."""
    namespace, pid = engine.daemon.host.namespace, await pid_of(engine, vm_id)
    namespace.freeze(pid)
    try:
        yield
    finally:
        if namespace.has(pid):
            namespace.kill(pid, signal.SIGCONT)


async def responses(engine):
    """monitorResponse of each VM that runs."""
    every = await ask(engine, "Host.getAllVmStats")
    return {s["vmId"]: s["monitorResponse"] for s in every if s["status"] != "Down"}


async def written(engine, vm):
    (stats,) = await engine.call("VM.getStats", vmID=vm.id)
    return int(stats["disks"]["vda"]["writtenBytes"])


async def assert_well(engine, vm):
    """The VM's verbs are prompt, and there is a sample of it in each interval."""
    for _ in range(2):
        known, began = await written(engine, vm), time.monotonic()

        async def sampled(known=known):
            return await written(engine, vm) > known

        await eventually(sampled, "the next sample")
        assert time.monotonic() - began < PROMPT_S
    for verb in ("VM.pause", "VM.cont"):
        await asyncio.wait_for(engine.call(verb, vmID=vm.id), PROMPT_S)


async def disk_of(engine, vm):
    (stats,) = await engine.call("VM.getStats", vmID=vm.id)
    return stats["disks"]["vda"]


@pytest.mark.parametrize("busy", [False, True], ids=["hangs", "busy"])
async def test_statistics_of_one_that_hangs_stand_with_their_time(engine, well, busy):
    """Counters do not fall, and there is no rate of what was not told, neither then nor after."""
    host = engine.daemon.host
    async with booted(engine) as vm:
        await asyncio.to_thread(vm.console.ask, "hammer vda", r"^hammer vda \d+$")

        async def written_some():
            return int((await disk_of(engine, vm))["writtenBytes"]) > 0

        await eventually(written_some, "the guest to write")
        pid = await pid_of(engine, vm.id)
        host.namespace.freeze(pid)
        # What waits for QEMU holds its job: libvirt then tells what it knows without QEMU.
        question = ("qemu-monitor-command", vm.id, "--hmp", "info status")
        waiting = asyncio.create_task(asyncio.to_thread(host.virsh, *question)) if busy else None
        try:
            known = await disk_of(engine, vm)

            async def silent():
                return (await responses(engine))[vm.id] == "-1"

            await eventually(silent, "QEMU to be told silent")
            # Rounds of samples are seen by those of another VM.
            for _ in range(3):
                round_s = (await disk_of(engine, well))["sampleTime"]

                async def next_round(before=round_s):
                    return (await disk_of(engine, well))["sampleTime"] > before

                await eventually(next_round, "the next round of samples")
                now = await disk_of(engine, vm)
                assert int(now["apparentsize"]) == 64 * 1024**2
                assert int(now["writtenBytes"]) >= int(known["writtenBytes"])
                # The round that has just passed brought none of its own.
                assert now["sampleTime"] <= round_s
                known = now
        finally:
            host.namespace.kill(pid, signal.SIGCONT)
            if waiting is not None:
                await waiting

        async def sampled():
            after = await disk_of(engine, vm)
            return after if after["sampleTime"] > known["sampleTime"] else None

        after = await eventually(sampled, "a sample once it answers")
        passed_s = after["sampleTime"] - known["sampleTime"]
        most = (int(after["writtenBytes"]) - int(known["writtenBytes"])) / passed_s
        assert float(after["writeRate"]) <= most * 1.01 + 1


async def test_one_that_dies_is_down_within_a_second(engine, empty):
    async def die():
        async with running(engine, empty()) as vm_id:
            pid = await pid_of(engine, vm_id)
            engine.daemon.host.namespace.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            told = await engine.wait_status(vm_id, "Down")
            assert (told["exitCode"], told["exitReason"]) == (1, 2)
            return time.monotonic() - began

    await within(1, die, "the event")


async def test_one_that_hangs_is_told_and_well_again_when_it_goes_on(engine, well, empty):
    async with running(engine, empty()) as vm_id:
        async with hung(engine, vm_id):
            began = time.monotonic()

            async def told():
                return (await responses(engine)) == {vm_id: "-1", well.id: "0"}

            await eventually(told, "the VM not to answer")
            assert time.monotonic() - began < PROMPT_S
            for verb in ("VM.pause", "VM.reset"):
                with refused(40, vm_id, "QEMU process"):
                    await engine.call(verb, vmID=vm_id)
            await assert_well(engine, well)
            assert engine.daemon.health()["ready"]

        async def again():
            return set((await responses(engine)).values()) == {"0"}

        await eventually(again, "the VM to answer again")
        await engine.call("VM.pause", vmID=vm_id)
        assert await status(engine, vm_id) == "Paused"


async def test_ten_that_hang_keep_nobody_else_waiting(engine, well, empty, record_property):
    async with AsyncExitStack() as stack:
        ids = [await stack.enter_async_context(running(engine, empty())) for _ in range(MANY)]
        for vm_id in ids:
            await stack.enter_async_context(hung(engine, vm_id))
        began = time.monotonic()
        # Before anybody knows: as many calls as an engine may make at once.
        calls = [engine.call("VM.pause", vmID=vm_id) for vm_id in ids for _ in range(2)]
        waiting = asyncio.gather(*calls, return_exceptions=True)
        await assert_well(engine, well)

        async def told():
            return (await responses(engine)) == {**dict.fromkeys(ids, "-1"), well.id: "0"}

        await eventually(told, "all of them not to answer")
        record_property("ten hung VMs told after", f"{time.monotonic() - began:.1f} s")
        await assert_well(engine, well)
        async with destroyed_at_last(engine, new_id()):
            began = time.monotonic()
            async with running(engine, empty()):
                pass
            record_property("create and destroy beside them", f"{time.monotonic() - began:.1f} s")
        began = time.monotonic()
        await engine.destroy(ids[0])
        record_property("destroy of one of them", f"{time.monotonic() - began:.1f} s")
        results = await waiting
        # The first one was destroyed while its calls waited.
        assert [result.code for result in results[2:]] == [40] * 2 * (MANY - 1)
        assert all(isinstance(result, RemoteError) for result in results)
        assert engine.daemon.health()["ready"]
        for vm_id in ids[1:]:
            engine.daemon.host.namespace.kill(await pid_of(engine, vm_id), signal.SIGCONT)

        async def again():
            return set((await responses(engine)).values()) == {"0"}

        await eventually(again, "all of them to answer again")
    assert engine.daemon.health()["status"] == "ready"
