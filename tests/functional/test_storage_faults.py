# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that QEMU paused because a disk failed: what is told, that it goes on by itself. On host2.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_storage_faults.py`.
librbd waits for its OSDs for ever; the client configuration of these disks has it give up.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager

import pytest

from lab.engine import Engine, new_id
from lab.guest.domains import console_of, disk_xml
from lab.guest.records import compare
from lab.host.daemon import HostDaemon
from tests.functional.helpers import (
    Machine,
    ask,
    destroyed_at_last,
    engine_on,
    eventually,
    hears,
    new_image,
    refused,
    running,
    session_fixture,
    status,
)
from vdsmcinder.stomp.client import NoSuchEvent

pytestmark = pytest.mark.asyncio(loop_scope="session")

OSD_TIMEOUT_S = 2
SMALL = "/mnt/small"
BESIDE = {"listen": {"port": 54400}}
CEPH_PORTS = "3300,6789,6800:7568"
# What tells that nothing happens any more: several times as long as it takes to happen.
QUIET_S = 4


@session_fixture("module")
async def engine(lab):
    async with engine_on(lab, lab.hosts["host2"], "storage") as engine:
        yield engine


@pytest.fixture(scope="module")
def small(lab):
    """A file of 64 MiB on a file system that has not the room for it; its path on host2."""
    host = lab.hosts["host2"]
    host.run(["mkdir", "-p", SMALL])
    host.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "small", SMALL])
    host.run(["truncate", "--size=64M", f"{SMALL}/disk"])
    host.run(["chmod", "666", f"{SMALL}/disk"])
    yield f"{SMALL}/disk"
    host.run(["umount", "--lazy", SMALL])


@session_fixture("module")
async def vm(engine, small):
    """A VM whose guest is ready: vda on Ceph, with a time-out, and vdb on the small file system."""
    await engine.register_key()
    conf = engine.daemon.directory / "impatient.conf"
    conf.write_text(f"[client]\nrados_osd_op_timeout = {OSD_TIMEOUT_S}\n")
    with new_image(engine) as image:
        rbd = disk_xml(engine.lab.ceph, image, "vda", engine.secret_id)
        rbd = rbd.replace("</source>", f"<config file='{conf}'/></source>")
        file = (
            "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='writeback' "
            f"error_policy='stop'/><source file='{small}'/><target dev='vdb' bus='virtio'/></disk>"
        )
        stop = rbd.replace("cache='none'", "cache='none' error_policy='stop'")
        async with running(engine, engine.document(new_id(), stop, file)) as vm_id:
            name = f"vm-{vm_id}"
            with console_of(engine.daemon.host, name) as console:
                await asyncio.to_thread(console.wait_for, "^ready")
                yield Machine(vm_id, name, image, console)


@session_fixture("function")
async def keyed(engine):
    """Ceph can be asked about: a restart without systemd forgets the key."""
    await engine.register_key()


@contextmanager
def frozen_osd(ceph):
    ceph.freeze_osd()
    try:
        yield
    finally:
        ceph.thaw_osd()


async def hammering(vm, run: int) -> None:
    await asyncio.to_thread(vm.console.ask, f"hammer vda {run}", r"^hammer vda \d+$")


async def all_written(engine, vm, run: int) -> None:
    """Stop the guest's writing: all that it wrote is in the image, and none of it failed."""
    said = await asyncio.to_thread(vm.console.ask, "stop", r"^hammered vda (\d+)$")
    found = compare(engine.lab.ceph, vm.image, run, int(said[1]))
    assert (found.lost, found.strange) == ((), ())


async def paused(engine, vm, code, disk) -> None:
    """Wait until the engine is told; statistics and definition tell the same."""
    told = await engine.wait_status(vm.id, "Paused")

    async def sampled():
        (stats,) = await ask(engine, "VM.getStats", vmID=vm.id)
        return stats["status"] == "Paused" and stats

    # The event may be of a test before, in which the VM was tried in vain.
    stats = await eventually(sampled, "the VM to be paused")
    info = await ask(engine, "VM.getInfo", vmID=vm.id)
    for source in (told, stats, info):
        assert (source["status"], source["pauseCode"]) == ("Paused", code)
        assert source["failedDisks"] == [disk]


@pytest.mark.usefixtures("keyed")
async def test_goes_on_by_itself_when_ceph_is_back(engine, vm):
    await hammering(vm, 1)
    with frozen_osd(engine.lab.ceph):
        await paused(engine, vm, "EIO", "vda")
        # While Ceph does not answer nobody tries in vain.
        with pytest.raises(NoSuchEvent):
            await engine.wait_status(vm.id, "Up", QUIET_S)
    told = await engine.wait_status(vm.id, "Up")
    assert "failedDisks" not in told
    (stats,) = await ask(engine, "VM.getStats", vmID=vm.id)
    assert (stats["pauseCode"], "failedDisks" in stats) == ("NOERR", False)
    await all_written(engine, vm, 1)


async def test_goes_on_after_the_daemon_was_killed_meanwhile(engine, vm):
    """Which disk it was is asked of libvirt, and Ceph cannot be asked: the key is gone."""
    await hammering(vm, 2)
    with frozen_osd(engine.lab.ceph):
        await paused(engine, vm, "EIO", "vda")
        engine.daemon.kill()
        engine.daemon.start()
        await engine.connect()

        async def told():
            (stats,) = await ask(engine, "VM.getStats", vmID=vm.id)
            return stats.get("failedDisks") == ["vda"] and stats

        assert (await eventually(told, "the disk to be known"))["pauseCode"] == "EIO"
    await engine.wait_status(vm.id, "Up")
    await all_written(engine, vm, 2)


@pytest.mark.usefixtures("keyed")
async def test_stays_paused_if_an_operator_paused_it_too(engine, vm):
    await hammering(vm, 3)
    with frozen_osd(engine.lab.ceph):
        await paused(engine, vm, "EIO", "vda")
        info = await engine.call("VM.pause", vmID=vm.id)
        assert (info["status"], info["pauseCode"]) == ("Paused", "EIO")
    engine.daemon.restart()
    await engine.connect()
    with pytest.raises(NoSuchEvent):
        await engine.wait_status(vm.id, "Up", QUIET_S)
    assert await status(engine, vm.id) == "Paused"
    info = await engine.call("VM.cont", vmID=vm.id)
    assert info["status"] == "Up"
    await all_written(engine, vm, 3)


async def test_a_full_disk_is_told_and_goes_on_when_there_is_room(engine, vm):
    await asyncio.to_thread(vm.console.send, "write vdb 0 8 full")
    await paused(engine, vm, "ENOSPC", "vdb")
    engine.daemon.host.run(["mount", "-o", "remount,size=32m", SMALL])
    await hears(vm, "^wrote vdb 0 8 full")
    assert await status(engine, vm.id) == "Up"


@contextmanager
def cut_off_from_ceph(host):
    """Ceph hears nothing from the host any more; engines do."""
    ports = ["-p", "tcp", "-m", "multiport", "--dports", CEPH_PORTS]
    host.run(["iptables", "-A", "OUTPUT", *ports, "-j", "DROP"])
    try:
        yield
    finally:
        host.run(["iptables", "-F", "OUTPUT"])


@pytest.mark.usefixtures("keyed")
async def test_never_goes_on_once_another_host_has_its_image(engine, lab):
    """It was cut off for so long that Ceph took its image for free, and host1 started it anew."""
    conf = engine.daemon.directory / "impatient.conf"
    conf.write_text(f"[client]\nrados_osd_op_timeout = {OSD_TIMEOUT_S}\n")
    async with beside(lab) as taker:
        with new_image(engine) as image:
            disk = disk_xml(lab.ceph, image, "vda", engine.secret_id)
            disk = disk.replace("</source>", f"<config file='{conf}'/></source>")
            disk = disk.replace("cache='none'", "cache='none' error_policy='stop'")
            async with running(engine, engine.document(new_id(), disk)) as lost:
                with console_of(engine.daemon.host, f"vm-{lost}") as console:
                    await asyncio.to_thread(console.wait_for, "^ready")
                    await asyncio.to_thread(console.ask, "hammer vda 1", r"^hammer vda \d+$")
                    await _never_again(engine, taker, image, lost)


@asynccontextmanager
async def beside(lab):
    """An engine of host1 beside the one that the tests share: it leaves that one's VMs alone."""
    with HostDaemon(lab.hosts["host1"], lab.pki, BESIDE, "taker") as daemon:
        async with Engine(lab, daemon) as taker:
            await taker.register_key()
            yield taker
            await taker.call("Host.unregisterSecrets", uuids=[taker.secret_id])


async def _never_again(engine, taker, image, lost):
    ceph = engine.lab.ceph
    with cut_off_from_ceph(engine.daemon.host):
        await engine.wait_status(lost, "Paused")

        async def free():
            return not ceph.watchers(image)

        await eventually(free, "Ceph to let go of what the host had")
        other = await taker.run(taker.flat(new_id(), taker.disk(image)))
    async with destroyed_at_last(taker, other):
        await _is_told(engine, image, lost)
    # Nor when the other has ended: it has changed what this one believes to know.
    with refused(16, "cannot be continued", "is open on another host"):
        await engine.call("VM.cont", vmID=lost)


async def _is_told(engine, image, lost):
    name = f"|virt|VM_image_taken|{lost}"
    told = await engine.session.wait_for_event(lambda e: e["method"] == name, 150)
    words = f"the image of disk vda (volumes/{image}) is open on another host (client."
    assert words in told["params"][lost]["reason"]
    (stats,) = await ask(engine, "VM.getStats", vmID=lost)
    assert (stats["status"], stats["pauseCode"]) == ("Paused", "EPERM")
    assert any(lost in reason and words in reason for reason in engine.daemon.health()["reasons"])
    with refused(16, "cannot be continued", words):
        await engine.call("VM.cont", vmID=lost)
