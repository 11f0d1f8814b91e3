# SPDX-License-Identifier: GPL-2.0-or-later
"""What Ceph offers and a disk can say of it, each on a running guest: see docs/storage.md."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager

import pytest

from lab.engine import new_id, secret_params
from lab.guest.image import pattern, pattern_checksum
from tests.functional.guests import new_guest
from tests.functional.helpers import refused, session_fixture

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024
OBJECT_MIB = 4
LUKS_MAGIC = b"LUKS\xba\xbe"
PASSPHRASE = b"correct horse battery staple"


@session_fixture("module")
async def vm(engine):
    """A VM with an I/O thread; tests leave it with its first disk alone."""
    async with new_guest(engine, numOfIoThreads="1") as guest:
        yield guest


@asynccontextmanager
async def plugged(vm, image, **changes):
    """A disk of the guest's on the image, by the name that the guest gives it."""
    disk = vm.engine.disk(image, **changes)
    await vm.call("hotplugDisk", params={"vmId": vm.id, "drive": disk})
    try:
        yield await vm.says(r"^disk (vd\w) added")
    finally:
        drive = {"deviceId": disk["deviceId"], "path": disk["path"]}
        await vm.call("hotunplugDisk", params={"vmId": vm.id, "drive": drive})


async def write(vm, disk, offset_mib, count_mib, seed):
    return await asyncio.to_thread(vm.console.write, disk, offset_mib, count_mib, seed)


async def read(vm, disk, offset_mib, count_mib):
    return await asyncio.to_thread(vm.console.checksum, disk, offset_mib, count_mib)


async def assert_works(vm, disk, image):
    """What the guest writes and syncs is in the image at once."""
    seed = new_id()
    assert await write(vm, disk, 0, 2, seed) == pattern_checksum(2, seed)
    assert vm.engine.lab.ceph.checksum(image, 0, 2) == pattern_checksum(2, seed)


def in_qemu(vm, disk):
    """The line of `virsh dumpxml` with a disk's driver."""
    document = vm.engine.daemon.host.virsh("dumpxml", vm.id)
    (found,) = (part for part in document.split("<disk ") if f"<target dev='{disk}'" in part)
    return next(line for line in found.splitlines() if "<driver " in line)


class TestMonitors:
    async def test_by_msgr2_alone(self, vm, lab, image):
        name = image()
        hosts = [
            {"name": m.address, "port": str(m.v2_port), "transport": "tcp"}
            for m in lab.ceph.monitors
        ]
        async with plugged(vm, name, hosts=hosts) as disk:
            await assert_works(vm, disk, name)

    async def test_by_a_configuration_file_of_the_disks_own(self, vm, host, lab, image):
        """It names the monitors, and has the connections encrypted, which msgr2 alone can."""
        name = image()
        file = host.path("/etc/ceph/lab.conf")
        file.parent.mkdir(exist_ok=True)
        monitors = ",".join(f"v2:{m.address}:{m.v2_port}" for m in lab.ceph.monitors)
        modes = "ms_mon_client_mode = secure\nms_client_mode = secure\n"
        file.write_text(f"[global]\nmon_host = {monitors}\n{modes}")
        try:
            async with plugged(vm, name, hosts=None, configFile="/etc/ceph/lab.conf") as disk:
                await assert_works(vm, disk, name)
                (listed,) = [
                    device
                    for device in (await vm.call("getInfo"))["devices"]
                    if device["path"] == f"volumes/{name}"
                ]
                assert listed["configFile"] == "/etc/ceph/lab.conf"
                assert listed["hosts"] == []
        finally:
            file.unlink()

    async def test_a_disk_that_names_neither(self, vm, image):
        with refused(11, "hosts is missing"):
            async with plugged(vm, image(), hosts=[]):
                pass


class TestImages:
    async def test_a_snapshot_is_what_it_was_and_is_not_written(self, vm, lab, image, tmp_path):
        old = tmp_path / "old"
        old.write_bytes(pattern(2, "old"))
        name = image(8, old)
        lab.ceph.rbd("snap", "create", "--no-progress", f"{name}@then")
        try:
            async with plugged(vm, name) as disk:
                await write(vm, disk, 0, 2, "new")
            path = f"volumes/{name}@then"
            async with plugged(vm, name, path=path, readonly="true") as disk:
                assert path in [d["path"] for d in (await vm.call("getInfo"))["devices"]]
                assert await read(vm, disk, 0, 2) == pattern_checksum(2, "old")
                assert await vm.shell(f"cat /sys/block/{disk}/ro") == "1"
            assert lab.ceph.checksum(name, 0, 2) == pattern_checksum(2, "new")
            with refused(91, "readonly", "path names a snapshot"):
                async with plugged(vm, name, path=path):
                    pass
        finally:
            lab.ceph.rbd("snap", "purge", "--no-progress", name)

    async def test_a_namespace_that_libvirt_does_not_know(self, vm, lab, image):
        """docs/storage.md says from which version on it does; then this has to find the disk."""
        name = new_id()
        lab.ceph.rbd("namespace", "create", "--namespace", "tenant")
        lab.ceph.rbd("create", "--size", "8M", f"volumes/tenant/{name}")
        try:
            with refused(36, f"tenant/{name}", "RBD namespace", "update libvirt"):
                async with plugged(vm, name, path=f"volumes/tenant/{name}"):
                    pass
        finally:
            lab.ceph.rbd("rm", "--no-progress", f"volumes/tenant/{name}")
            lab.ceph.rbd("namespace", "remove", "--namespace", "tenant")


def objects(ceph, image):
    """How many objects of the pool hold data of the image."""
    info = ceph.rbd("info", image)
    prefix = info.partition("block_name_prefix: ")[2].split()[0]
    rados = ["rados", "--conf", ceph.conf, "--pool", ceph.pool, "ls"]
    listed = ceph.namespace.run(rados)
    return sum(line.startswith(prefix) for line in listed.splitlines())


class TestSpace:
    """Objects come with what the guest writes and go with what it discards, if a disk says so."""

    async def test_discarded_blocks_are_given_back(self, vm, lab, image):
        name = image()
        async with plugged(vm, name, discard="true") as disk:
            await write(vm, disk, 0, 4 * OBJECT_MIB, "full")
            assert objects(lab.ceph, name) == 4
            await vm.after(f"blkdiscard -o 0 -l {3 * OBJECT_MIB * MIB} /dev/{disk}; say $?", "^0$")
            assert objects(lab.ceph, name) == 1

    async def test_without_discard_they_stay(self, vm, lab, image):
        name = image()
        async with plugged(vm, name) as disk:
            await write(vm, disk, 0, 2 * OBJECT_MIB, "full")
            length = 2 * OBJECT_MIB * MIB
            await vm.after(f"blkdiscard -o 0 -l {length} /dev/{disk}; say tried $?", "^tried")
            assert objects(lab.ceph, name) == 2

    @pytest.mark.parametrize(("detect", "left"), [("unmap", 0), ("off", 32)])
    async def test_zeroes_are_detected_if_wanted(self, vm, lab, image, detect, left):
        """An object goes when one request covers it: these are small enough for the guest's."""
        name = image()
        lab.ceph.remove_image(name)
        lab.ceph.rbd("create", "--size", "8M", "--object-size", "64K", name)
        async with plugged(vm, name, discard="true", detectZeroes=detect) as disk:
            await write(vm, disk, 0, 2, "full")
            assert objects(lab.ceph, name) == 32
            zeroes = f"dd if=/dev/zero of=/dev/{disk} bs=64K count=32 oflag=direct conv=fsync"
            await vm.after(f"{zeroes} 2>/dev/null; say zeroed $?", "^zeroed 0$")
            assert objects(lab.ceph, name) == left
            assert lab.ceph.read_image(name, 0, 2) == bytes(2 * MIB)


class TestPerformance:
    @pytest.mark.parametrize("cache", ["writeback", "writethrough", "directsync", "unsafe"])
    async def test_cache_modes(self, vm, image, cache):
        name = image()
        async with plugged(vm, name, cache=cache) as disk:
            assert f"cache='{cache}'" in in_qemu(vm, "vdb")
            seed = new_id()
            await write(vm, disk, 0, 2, seed)
            # What is unsafe is in the image at the latest when QEMU has closed it.
            if cache != "unsafe":
                assert vm.engine.lab.ceph.checksum(name, 0, 2) == pattern_checksum(2, seed)
        assert vm.engine.lab.ceph.checksum(name, 0, 2) == pattern_checksum(2, seed)

    async def test_a_cache_on_a_shared_disk(self, vm, image):
        with refused(91, "cache is a string of 9 characters", "shared"):
            async with plugged(vm, image(), cache="writeback", shared="shared"):
                pass

    async def test_an_io_thread_and_queues(self, vm, image):
        name = image()
        tuning = {"pinToIoThread": "1", "queues": "2", "queueSize": "128"}
        async with plugged(vm, name, specParams=tuning) as disk:
            driver = in_qemu(vm, "vdb")
            assert "iothread='1'" in driver
            assert await vm.shell(f"ls /sys/block/{disk}/mq | wc -l") == "2"
            assert await vm.shell(f"cat /sys/block/{disk}/queue/nr_requests") == "128"
            await assert_works(vm, disk, name)

    async def test_an_io_thread_that_the_vm_does_not_have(self, vm, image):
        with refused(45, "iothread", "7"):
            async with plugged(vm, image(), specParams={"pinToIoThread": "7"}):
                pass


@session_fixture("module")
async def passphrase(engine):
    """The uuid of a registered secret that holds the passphrase."""
    uuid = new_id()
    secret = secret_params(uuid, base64.b64encode(PASSPHRASE).decode(), "volume")
    await engine.call("Host.registerSecrets", secrets=[secret])
    yield uuid
    await engine.call("Host.unregisterSecrets", uuids=[uuid])


def assert_encrypted(ceph, image):
    """What is stored is LUKS, and holds nothing of the guest's pattern in the clear."""
    stored = ceph.read_image(image, 0, 32)
    assert stored.startswith(LUKS_MAGIC)
    assert b"lab seed" not in stored


@pytest.fixture(scope="module")
def originals(lab, tmp_path_factory):
    """An image for each kind of LUKS, made once: its key takes librbd seconds to derive."""
    file = tmp_path_factory.mktemp("luks") / "passphrase"
    file.write_bytes(PASSPHRASE)
    names = {kind: f"volume-{new_id()}" for kind in ("luks1", "luks2")}
    for kind, name in names.items():
        lab.ceph.create_image(name, 64)
        lab.ceph.rbd("encryption", "format", name, kind, file, timeout_s=120)
    yield names
    for name in names.values():
        lab.ceph.remove_image(name)


class TestEncryption:
    @pytest.fixture
    def encrypted(self, lab, image, originals):
        """Makes images of a kind of LUKS, whose passphrase is PASSPHRASE."""

        def make(kind):
            name = image()
            lab.ceph.remove_image(name)
            lab.ceph.rbd("cp", "--no-progress", f"volumes/{originals[kind]}", f"volumes/{name}")
            return name

        return make

    async def test_a_plug_of_what_librbd_decrypts(self, vm, encrypted, passphrase):
        """libvirt 9 forgets QEMU's object for the passphrase; the VM is as it was."""
        name = encrypted("luks2")
        with refused(45, name, "librbd decrypts", "from the start"):
            async with plugged(vm, name, encryption={"uuid": passphrase, "format": "luks2"}):
                pass

    async def test_the_guest_reads_and_ceph_does_not(self, vm, encrypted, passphrase):
        name, encryption = encrypted("luks1"), {"uuid": passphrase}
        async with plugged(vm, name, encryption=encryption) as disk:
            listed = (await vm.call("getInfo"))["devices"]
            assert [d["encryption"] for d in listed if "encryption" in d] == [
                {"uuid": passphrase, "format": "luks", "engine": "qemu"}
            ]
            await write(vm, disk, 0, 2, "secret")
        assert_encrypted(vm.engine.lab.ceph, name)
        async with plugged(vm, name, encryption=encryption) as disk:
            assert await read(vm, disk, 0, 2) == pattern_checksum(2, "secret")

    async def test_librbd_decrypts_luks_and_luks2(self, engine, encrypted, passphrase):
        names = encrypted("luks1"), encrypted("luks2")
        disks = [
            engine.disk(name, encryption={"uuid": passphrase, "format": kind, "engine": "librbd"})
            for name, kind in zip(names, ("luks", "luks2"))
        ]
        async with new_guest(engine, *disks) as guest:
            for name, disk in zip(names, ("vdb", "vdc")):
                await write(guest, disk, 0, 2, disk)
                assert await read(guest, disk, 0, 2) == pattern_checksum(2, disk)
                assert_encrypted(engine.lab.ceph, name)

    @pytest.mark.parametrize("who", ["qemu", "librbd"])
    async def test_an_encrypted_disk_grows(self, engine, encrypted, passphrase, who):
        """The image is what Cinder made it, and the guest gets what the header leaves of it."""
        name, ceph = encrypted("luks1"), engine.lab.ceph
        encryption = {"uuid": passphrase, "format": "luks", "engine": who}
        async with new_guest(engine, engine.disk(name, encryption=encryption)) as guest:
            before = (await asyncio.to_thread(guest.console.disks))["vdb"]
            made, grown = ceph.image_size(name), 96 * 1024**2
            await write(guest, "vdb", 0, 2, "before")
            ceph.resize_image(name, 96)
            for _ in range(2):
                call = {"driveSpecs": {"name": "vdb"}, "newSize": str(grown)}
                assert await guest.call("diskSizeExtend", **call) == str(grown)
                assert ceph.image_size(name) == grown
            seen = (await asyncio.to_thread(guest.console.disks))["vdb"]
            assert seen == before + grown - made
            last_mib = seen // 1024**2 - 2
            await write(guest, "vdb", last_mib, 2, "beyond")
            assert await read(guest, "vdb", last_mib, 2) == pattern_checksum(2, "beyond")
            assert await read(guest, "vdb", 0, 2) == pattern_checksum(2, "before")
            assert ceph.image_size(name) == grown

    async def test_another_passphrase(self, engine, vm, encrypted):
        """The sentence says what is wrong, not what was tried."""
        name, uuid = encrypted("luks1"), new_id()
        secret = secret_params(uuid, base64.b64encode(b"tr0ub4dor&3").decode(), "volume")
        await engine.call("Host.registerSecrets", secrets=[secret])
        try:
            encryption = {"uuid": uuid, "format": "luks"}
            with refused(45, name, "passphrase does not open it", without=("tr0ub4dor",)):
                async with plugged(vm, name, encryption=encryption):
                    pass
            by_librbd = engine.disk(name, encryption={**encryption, "engine": "librbd"})
            params = engine.flat(new_id(), by_librbd)
            await engine.create(params)
            told = (await engine.wait_status(params["vmId"], "Down"))["exitMessage"]
            assert name in told
            assert "passphrase does not open it" in told
            await engine.destroy(params["vmId"])
        finally:
            await engine.call("Host.unregisterSecrets", uuids=[uuid])

    async def test_a_passphrase_that_is_not_registered(self, vm, encrypted):
        name = encrypted("luks1")
        with refused(45, name, "not registered", "Host.registerSecrets"):
            async with plugged(vm, name, encryption={"uuid": new_id()}):
                pass
