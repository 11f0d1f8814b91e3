# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests whose file systems are frozen and thawed: they write nothing in between."""

from __future__ import annotations

import pytest
import pytest_asyncio

from lab.engine import Engine, new_id
from lab.guest.domains import disk_xml
from lab.host.daemon import HostDaemon
from tests.functional.guests import DISK_MIB, new_guest
from tests.functional.helpers import eventually, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Appends and syncs without end, and says how far it is, once a round.
ROUND = "n=$((n+1)); echo $n >>/mnt/log; sync; echo $n >/tmp/next; mv /tmp/next /tmp/n"
WRITER = f"n=0; while :; do {ROUND}; done"
OPTIONS = {"vms": {"agent_timeout_s": 2}, "rpc": {"validate_results": True}}


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def patient(lab):
    """A guest on host2 that never stops writing to an ext4 file system on its disk.

    Its daemon is one of its own, which waits for agents no longer than 2 s.
    """
    host = lab.hosts["host2"]
    with HostDaemon(host, lab.pki, OPTIONS, name="daemon-agent") as daemon:
        async with Engine(lab, daemon) as engine:
            await engine.register_key()
            async with new_guest(engine) as guest:
                made = "mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && say made"
                await guest.after(made, "^made$")
                await guest.after(f"echo 0 >/tmp/n; ({WRITER}) & say writing", "^writing$")
                yield guest
            await engine.call("Host.registerSecrets", secrets=[], clear=True)


async def lost(guest):
    """Whether libvirt has lost the agent."""
    return not await guest.has_agent()


async def rounds(guest):
    return int(await guest.shell("cat /tmp/n"))


async def writes(guest):
    """Whether the writer gets on; waits until it does."""
    before = await rounds(guest)

    async def more():
        return await rounds(guest) != before

    return await eventually(more, "the guest to write")


def content(guest):
    """What the host finds on the whole disk."""
    return guest.engine.lab.ceph.checksum(guest.image, 0, DISK_MIB)


async def test_a_frozen_guest_writes_nothing(patient):
    assert await writes(patient)
    assert await patient.call("freeze") is True
    before, done = content(patient), await rounds(patient)
    await patient.shell("sleep 2; echo slept")
    assert content(patient) == before
    # The round under way when it was frozen is as far as it got.
    assert await rounds(patient) <= done + 1
    assert await patient.call("thaw") is True
    assert await writes(patient)
    assert content(patient) != before


async def test_a_snapshot_that_was_taken_while_frozen_is_whole(patient, lab):
    assert await patient.call("snapshot", snapDrives=[{"name": "vda"}]) is True
    snapshot = f"{lab.ceph.pool}/{patient.image}@frozen"
    lab.ceph.rbd("snap", "create", snapshot)
    try:
        done = await rounds(patient)
        assert await patient.call("thaw") is True
        assert await writes(patient)
        copy = lab.directory / "frozen.img"
        lab.ceph.rbd("export", snapshot, copy)
        # A file system that was not frozen would have a journal to replay.
        head = lab.ceph.namespace.run(["dumpe2fs", "-h", copy])
        assert "needs_recovery" not in head
        lab.ceph.namespace.run(["e2fsck", "-fn", copy])
        log = lab.ceph.namespace.run(["debugfs", "-R", "cat /log", copy]).split()
        assert log == [str(n + 1) for n in range(len(log))]
        assert done <= len(log) <= done + 1
        copy.unlink()
    finally:
        lab.ceph.rbd("snap", "rm", snapshot)


async def test_a_guest_that_was_left_frozen_is_thawed(patient):
    await patient.call("snapshot", snapDrives=[], freezeTimeout=2)
    told = await patient.event("VM_thawed")
    assert told == {"thawed": True, "frozenSeconds": 2.0}
    assert await writes(patient)
    with refused(77, "thawed already", "frozen for 2 s", "take it again"):
        await patient.call("thaw")
    # It was told once; a thaw of a guest that is not frozen does no harm.
    assert await patient.call("thaw") is True


async def test_it_is_thawed_also_if_the_daemon_dies(patient):
    await patient.call("snapshot", snapDrives=[], freezeTimeout=3)
    engine = patient.engine
    engine.daemon.kill()
    engine.daemon.start()
    await engine.connect()
    assert (await patient.event("VM_thawed"))["thawed"] is True
    assert await writes(patient)
    await engine.register_key()


async def test_frozen_by_the_caller_already(patient):
    await patient.call("freeze")
    await patient.call("snapshot", snapDrives=[], frozen=True, freezeTimeout=60)
    before = content(patient)
    assert content(patient) == before
    assert await patient.call("thaw") is True
    assert await writes(patient)


async def test_what_cannot_be_part_of_a_snapshot(patient):
    with refused(48, "has no disk of GUID"):
        await patient.call("snapshot", snapDrives=[{"GUID": new_id(), "baseGUID": new_id()}])
    with refused(48, "is no RBD image"):
        await patient.call("snapshot", snapDrives=[{"name": "sda"}])
    with refused(48, "snapMemory"):
        await patient.call("snapshot", snapDrives=[], snapMemory="volume")
    assert await writes(patient)


async def test_an_agent_that_hangs(patient):
    await patient.after("kill -STOP $(pidof qemu-ga); say stopped", "^stopped$")
    try:
        for verb, number in (("freeze", 19), ("thaw", 19)):
            with refused(number, "check that qemu-guest-agent runs in the guest"):
                await patient.call(verb)
        with refused(48, "check that qemu-guest-agent runs in the guest"):
            await patient.call("snapshot", snapDrives=[])
        # Nobody else waits for it.
        assert (await patient.stats())["monitorResponse"] == "0"
        assert await writes(patient)
    finally:
        await patient.after("kill -CONT $(pidof qemu-ga); say continued", "^continued$")
    # Requests that it finds when it wakes up must not leave the guest frozen.
    assert await writes(patient)
    assert await patient.call("freeze") is True
    assert await patient.call("thaw") is True
    assert await writes(patient)


async def test_a_vm_that_is_paused(patient):
    await patient.call("pause")
    with refused(19, "is Paused", "VM.cont"):
        await patient.call("freeze")
    await patient.call("cont")
    await patient.engine.wait_status(patient.id, "Up")


async def test_a_guest_without_an_agent(patient):
    await patient.after("kill $(pidof qemu-ga); say gone", "^gone$")
    await eventually(lambda: lost(patient), "libvirt to lose the agent")
    with refused(19, "agent is not connected"):
        await patient.call("freeze")
    with refused(48, "agent is not connected"):
        await patient.call("snapshot", snapDrives=[])
    assert await writes(patient)
    await patient.after("start_agent; say back", "^back$")
    await eventually(patient.has_agent, "libvirt to find the agent")
    assert await patient.call("freeze") is True
    assert await patient.call("thaw") is True


async def test_a_vm_without_a_channel_for_an_agent(engine, image):
    params = engine.document(new_id(), disk_xml(engine.lab.ceph, image(), "vda", engine.secret_id))
    vm_id = await engine.run(params)
    try:
        for verb in ("freeze", "thaw"):
            with refused(19, "agent is not configured"):
                await engine.call(f"VM.{verb}", vmID=vm_id)
    finally:
        await engine.destroy(vm_id)
