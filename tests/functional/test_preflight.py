# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon finds out about images before QEMU opens them, on the real cluster.

test_ceph_faults.py has the faults of keys, users, pools and monitors; here are images that are in
use elsewhere, locked or not to be written, and what the checks cost those they do not concern.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import struct
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.engine import Engine, new_id, secret_params
from lab.guest.domains import disk_xml
from lab.host.daemon import HostDaemon
from lab.namespace import children
from tests.functional.helpers import (
    SILENT_MONITOR,
    booted,
    engine_on,
    eventually,
    new_image,
    refused,
    running,
    served,
    session_fixture,
    silent_monitor,
)
from vdsmcinder.errors import RemoteError

pytestmark = pytest.mark.asyncio(loop_scope="session")

IN_USE = "the image is in use elsewhere (client."
BESIDE = {"listen": {"port": 54400}}


@session_fixture("module")
async def elsewhere(lab):
    """An engine of the daemon on host2."""
    async with engine_on(lab, lab.hosts["host2"], "preflight") as engine:
        await engine.register_key()
        yield engine


@session_fixture("module")
async def vm(engine):
    """A VM on host1 whose guest is ready; no test here changes it."""
    async with booted(engine) as machine:
        yield machine


async def plug(engine, vm_id, disk):
    params = {"vmId": vm_id, "drive": disk}
    await engine.call("VM.hotplugDisk", vmID=vm_id, params=params)


async def unplug(engine, vm_id, disk):
    params = {"vmId": vm_id, "drive": disk}
    await engine.call("VM.hotunplugDisk", vmID=vm_id, params=params)


async def test_an_image_in_use_on_another_host_is_refused(engine, elsewhere, vm, lab):
    address = lab.hosts["host1"].address
    named = (f"(volumes/{vm.image}): {IN_USE}", f" at {address}); end the VM that has it")
    with refused(9, *named):
        await elsewhere.create(elsewhere.flat(new_id(), elsewhere.disk(vm.image)))
    with new_image(elsewhere) as image:
        async with running(elsewhere, elsewhere.flat(new_id(), elsewhere.disk(image))) as other:
            with refused(45, *named):
                await plug(elsewhere, other, elsewhere.disk(vm.image))
            # On the same host it is no different, and the other way round neither.
            with refused(45, f"(volumes/{image}): {IN_USE}"):
                await plug(engine, vm.id, engine.disk(image))


async def test_an_image_in_use_is_found_whatever_else_stands_in_its_disk(elsewhere, vm, lab):
    """Each of these was once not looked at, and both VMs wrote."""
    plain = disk_xml(lab.ceph, vm.image, "vda", elsewhere.secret_id)
    scsi = plain.replace("dev='vda' bus='virtio'", "dev='sda' bus='scsi' rotation_rate='1'")
    assert scsi != plain
    for disks in ([scsi], ["</devices><devices>", plain]):
        with refused(9, f"(volumes/{vm.image}): {IN_USE}"):
            await elsewhere.create(elsewhere.document(new_id(), *disks))


async def test_one_image_twice_in_one_vm(elsewhere, lab):
    with new_image(elsewhere) as image:
        twice = (
            disk_xml(lab.ceph, image, target, elsewhere.secret_id) for target in ("vda", "vdb")
        )
        with refused(9, f"disk vdb (volumes/{image}): VM ", "as another disk too"):
            await elsewhere.create(elsewhere.document(new_id(), *twice))


async def test_what_is_shared_or_only_read_may_be_in_use(engine, elsewhere, vm, lab):
    lab.ceph.rbd("snap", "create", f"volumes/{vm.image}@monday")
    for changes in (
        {"shared": "shared"},
        {"readonly": "true"},
        {"readonly": "true", "path": f"volumes/{vm.image}@monday"},
    ):
        params = elsewhere.flat(new_id(), elsewhere.disk(vm.image, **changes))
        async with running(elsewhere, params):
            pass
    lab.ceph.rbd("snap", "purge", "--no-progress", vm.image)
    with refused(13, f"(volumes/{vm.image}@sunday): the image does not have the snapshot; check"):
        changes = {"readonly": "true", "path": f"volumes/{vm.image}@sunday"}
        await elsewhere.create(elsewhere.flat(new_id(), elsewhere.disk(vm.image, **changes)))


async def test_of_two_hosts_that_race_for_an_image_one_gets_it(engine, elsewhere):
    for _ in range(5):
        with new_image(engine) as image:
            starts = {new_id(): host for host in (engine, elsewhere)}
            outcomes = await asyncio.gather(
                *(host.create(host.flat(i, host.disk(image))) for i, host in starts.items()),
                return_exceptions=True,
            )
            refusals = [e for e in outcomes if isinstance(e, RemoteError)]
            assert [e.code for e in refusals] == [9], outcomes
            told = r"in use elsewhere \(client\.|given to another VM just now \(VM .* on .*\)"
            assert re.search(told, refusals[0].message)
            ((vm_id, winner),) = (
                pair for pair, e in zip(starts.items(), outcomes) if e not in refusals
            )
            await winner.wait_status(vm_id, "Up")
            await winner.destroy(vm_id)

            async def closed(name=image):
                return not engine.lab.ceph.watchers(name)

            await eventually(closed, "QEMU to close the image")


async def test_what_a_start_that_failed_had_claimed_is_free_again(engine, elsewhere):
    with new_image(engine) as image:
        bad = engine.disk(image, path="volumes/volume-x")
        with refused(13, "does not exist in its pool"):
            await engine.create(engine.flat(new_id(), engine.disk(image), bad))
        async with running(elsewhere, elsewhere.flat(new_id(), elsewhere.disk(image))):
            pass


async def test_an_image_that_was_locked_by_hand(engine, vm, lab):
    with new_image(engine) as image:
        lab.ceph.rbd("lock", "add", image, "backup")
        with refused(45, "the image was locked by hand ('backup' by client.", "'rbd lock rm'"):
            await plug(engine, vm.id, engine.disk(image))
        (lock,) = json.loads(lab.ceph.rbd("lock", "ls", "--format", "json", image))
        lab.ceph.rbd("lock", "rm", image, "backup", lock["locker"])


async def test_features_that_librbd_does_not_know(engine, vm, lab):
    with new_image(engine) as image:
        header = f"rbd_header.{_image_id(lab, image)}"
        _set_features(lab, header, 1 | 1 << 40)
        with refused(45, "features that librbd on this host does not support (0x10000000000)"):
            await plug(engine, vm.id, engine.disk(image))
        _set_features(lab, header, 1)


async def test_an_image_without_exclusive_lock(engine, elsewhere, vm, lab):
    """On one a host that was cut off would write on; whoever wants that has to say so."""
    with new_image(engine) as image:
        features = ("exclusive-lock", "object-map", "fast-diff", "deep-flatten")
        lab.ceph.rbd("feature", "disable", image, *features)
        words = (
            f"(volumes/{image}): the image has no feature exclusive-lock",
            "'rbd feature enable",
        )
        with refused(45, *words):
            await plug(engine, vm.id, engine.disk(image))
        params = elsewhere.flat(new_id(), elsewhere.disk(image))
        with refused(9, *words):
            await elsewhere.create(params)
        async with running(elsewhere, {**params, "allowNoExclusiveLock": True}):
            pass
        lab.ceph.rbd("feature", "enable", image, "exclusive-lock")
        async with running(elsewhere, params):
            pass


def _image_id(lab, image):
    prefix = re.search(r"block_name_prefix: rbd_data\.(\w+)", lab.ceph.rbd("info", image))
    assert prefix is not None
    return prefix[1]


def _set_features(lab, header, bits):
    file = lab.ceph.directory / "features"
    file.write_bytes(struct.pack("<Q", bits))
    rados = ["rados", "--conf", lab.ceph.conf, "--pool", lab.ceph.pool]
    lab.ceph.namespace.run([*rados, "setomapval", header, "features", "--input-file", file])


async def test_the_copy_of_a_mirrored_image(engine, vm, lab):
    with new_image(engine) as image:
        lab.ceph.rbd("mirror", "pool", "enable", "image")
        lab.ceph.rbd("mirror", "image", "enable", image, "snapshot")
        lab.ceph.rbd("mirror", "image", "demote", image)
        with refused(45, "the image is the copy of one that is mirrored", "image promote'"):
            await plug(engine, vm.id, engine.disk(image))
        lab.ceph.rbd("mirror", "image", "promote", image)
        lab.ceph.rbd("mirror", "image", "disable", image)
        lab.ceph.rbd("mirror", "pool", "disable")


async def test_a_user_who_may_only_read(engine, vm, lab):
    """QEMU opens images for writing even if the disk is only read."""
    caps = ("mon", "profile rbd", "osd", "profile rbd-read-only pool=volumes")
    key = lab.ceph.ceph("auth", "get-or-create-key", "client.reader", *caps).strip()
    secret_id = new_id()
    await engine.call("Host.registerSecrets", secrets=[secret_params(secret_id, key)])
    auth = {"type": "ceph", "username": "reader", "uuid": secret_id}
    words = ("Ceph user reader may not write to the image", "auth get client.reader'")
    with new_image(engine) as image, refused(45, *words):
        await plug(engine, vm.id, engine.disk(image, auth=auth))
    await engine.call("Host.unregisterSecrets", uuids=[secret_id])


@contextmanager
def killed_monitors(ceph, *names):
    for name in names:
        ceph.kill_mon(name)
    try:
        yield
    finally:
        for name in names:
            ceph.start_mon(name)
        ceph.wait_quorum(3)


async def _out_of_quorum(ceph, name):
    socket = ceph.directory / f"run/mon.{name}.asok"
    status = ceph.namespace.run(["ceph", "--admin-daemon", socket, "mon_status"])
    return not json.loads(status)["quorum"]


async def test_monitors_without_a_quorum(engine, elsewhere, vm, lab):
    """One of three is there: it accepts connections, and lets nobody in."""
    with new_image(engine) as image:
        disk = engine.disk(image)
        with killed_monitors(lab.ceph, "b"):
            await served(lambda: plug(engine, vm.id, disk), "the other two to form a quorum")
            await unplug(engine, vm.id, disk)
        with killed_monitors(lab.ceph, "b", "c"):
            await eventually(lambda: _out_of_quorum(lab.ceph, "a"), "monitor a to notice it")
            for host in (engine, elsewhere):
                with refused(
                    40,
                    "1 of 3 Ceph monitors can be reached from this host, but have no quorum",
                    "10.77.0.11 (answers), 10.77.0.12 (connection refused)",
                ):
                    await host.create(host.flat(new_id(), host.disk(image)))
        await served(lambda: plug(engine, vm.id, disk), "the cluster to be found again")
        await unplug(engine, vm.id, disk)


async def test_a_cluster_that_is_silent_delays_nobody_else(engine, vm):
    """Neither disks on another cluster nor statistics wait for it."""
    with new_image(engine) as image, silent_monitor():
        disk, overtaken = engine.disk(image), False
        # Once is enough: whatever else this machine does may keep the others waiting, too.
        for user in ("one", "two", "three"):
            auth = {"type": "ceph", "username": user, "uuid": engine.secret_id}
            silent = engine.disk("volume-x", hosts=[SILENT_MONITOR], auth=auth)
            hopeless = asyncio.create_task(engine.create(engine.flat(new_id(), silent)))
            await plug(engine, vm.id, disk)
            assert await engine.call("Host.getAllVmStats")
            assert await engine.call("Host.getStats")
            overtaken = not hopeless.done()
            await unplug(engine, vm.id, disk)
            with refused(40, "10.77.0.1 (no answer within 2.5 s)"):
                await hopeless
            if overtaken:
                break
        assert overtaken, "the others waited for it"


async def test_sixteen_disks_are_checked_within_three_seconds(engine):
    """With a fault in the last of them, so that nothing but the checks takes time."""
    with ExitStack() as images:
        disks = [engine.disk(images.enter_context(new_image(engine, 8))) for _ in range(15)]
        params = engine.flat(new_id(), *disks, engine.disk("volume-x"))
        began = time.monotonic()
        with refused(13, "disk vdp (volumes/volume-x): the image does not exist in its pool"):
            await engine.create(params)
        assert time.monotonic() - began < 3


async def test_a_host_that_ceph_has_blocklisted(elsewhere, lab):
    """As a host that was fenced is; and once it is let in again, the disk works."""
    address = lab.hosts["host2"].address
    with new_image(elsewhere) as image:
        params = elsewhere.flat(new_id(), elsewhere.disk(image))
        lab.ceph.ceph("osd", "blocklist", "add", address)
        try:
            with refused(9, "the Ceph cluster has blocklisted this host", "osd blocklist ls'"):
                await elsewhere.create(params)
        finally:
            lab.ceph.ceph("osd", "blocklist", "rm", address)
        async with running(elsewhere, params):
            pass


async def test_a_disk_without_monitors_on_a_host_without_ceph_conf(engine, vm):
    data = {"name": "volumes/volume-x", "auth_username": "cinder", "secret_uuid": engine.secret_id}
    disk = {"connectionInfo": {"driver_volume_type": "rbd", "data": data}}
    with refused(45, "it names no monitors and this host has no ceph.conf", "the disk its hosts"):
        await plug(engine, vm.id, disk)


async def test_modes(lab, vm):
    """warn lets QEMU try, off asks Ceph nothing; both leave the words to QEMU.

    What another host has open for certain is refused with warn, too.
    """
    host = lab.hosts["host2"]
    for mode in ("warn", "off"):
        with HostDaemon(host, lab.pki, {**BESIDE, "ceph": {"preflight": mode}}, mode) as daemon:
            async with Engine(lab, daemon) as engine:
                await engine.register_key()
                vm_id = new_id()
                await engine.create(engine.flat(vm_id, engine.disk("volume-x")))
                down = await engine.wait_status(vm_id, "Down")
                words = "disk vda (volumes/volume-x): the image does not exist in its pool"
                assert words in down["exitMessage"]
                assert "error reading header from volume-x" in down["exitMessage"]
                await engine.destroy(vm_id)
                warned = "ceph.preflight is warn, so QEMU is to try although: " + words
                assert (warned in daemon.log.read_text()) is (mode == "warn")
                if mode == "warn":
                    with refused(9, f"(volumes/{vm.image}): {IN_USE}"):
                        await engine.create(engine.flat(new_id(), engine.disk(vm.image)))


async def test_workers_are_few_and_go_with_the_daemon(lab):
    host = lab.hosts["host2"]
    with HostDaemon(
        host, lab.pki, {**BESIDE, "ceph": {"worker_idle_s": 1, "timeout_s": 3}}, "workers"
    ) as daemon:
        async with Engine(lab, daemon) as engine:
            await engine.register_key()
            outside = daemon.process.pid_outside
            for _ in range(2):
                with refused(13, "does not exist"):
                    await engine.create(engine.flat(new_id(), engine.disk("volume-x")))
            (worker,) = children(outside)
            assert lab.ceph.key not in seen_by_others(worker)

            async def ended():
                return not children(outside)

            await eventually(ended, "the idle worker to end")
            with refused(13, "does not exist"):
                await engine.create(engine.flat(new_id(), engine.disk("volume-x")))
            # One that hangs is replaced.
            (worker,) = children(outside)
            os.kill(worker, signal.SIGSTOP)
            with refused(40, "volume-x", "does not answer (no answer within 3 s), though 3"):
                await engine.create(engine.flat(new_id(), engine.disk("volume-x")))

            async def replaced():
                try:
                    await engine.create(engine.flat(new_id(), engine.disk("volume-x")))
                except RemoteError as e:
                    return e.code == 13

            await eventually(replaced, "a worker in its place")
            left = children(outside)
    assert left and not any(lives(pid) for pid in left)


def lives(pid):
    return Path(f"/proc/{pid}").exists()


def seen_by_others(pid):
    return "".join(Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "environ"))
