# SPDX-License-Identifier: GPL-2.0-or-later
"""Ceph and libvirt when they do not do their part: what the engine is told, and what goes on.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_ceph_faults.py`. The
words that vdsmcinder/virt/vm/libvirt_errors.py reads come here from the real QEMU and librbd.
"""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.engine import Engine, new_id, secret_params
from lab.guest.domains import disk_xml
from lab.host.daemon import HostDaemon
from tests.functional.bystander import untouched
from tests.functional.helpers import (
    SILENT_MONITOR,
    booted,
    eventually,
    foreign_secret,
    paths,
    refused,
    served,
    session_fixture,
    silent_monitor,
)
from vdsmcinder.errors import RemoteError

pytestmark = pytest.mark.asyncio(loop_scope="session")

RBD_DRIVER = "/usr/lib/x86_64-linux-gnu/qemu/block-rbd.so"
MONITORS = ": no Ceph monitor can be reached from this host: "
SILENT = "no answer within 2.5 s"
NETWORK = "; check the monitors and the network to them, then call again"
STRICT = {
    "libvirt": {"reconnect_max_s": 0.2, "call_timeout_s": 5},
    "vms": {"allow_emulation": False},
    # So that no OSD stands for long.
    "ceph": {"timeout_s": 3},
}


@session_fixture("module")
async def vm(engine):
    """A VM whose guest is ready; no test here changes it."""
    async with booted(engine) as machine:
        yield machine


async def plug(engine, vm_id, disk, **more):
    params = {"vmId": vm_id, "drive": disk, **more}
    return await engine.call("VM.hotplugDisk", vmID=vm_id, params=params)


async def unplug(engine, vm_id, disk):
    return await engine.call("VM.hotunplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": disk})


async def failed_start(engine, params):
    """Create a VM whose start fails; the message that the event told, and the statistics tell."""
    vm_id = params["vmId"]
    await engine.create(params)
    told = await engine.wait_status(vm_id, "Down")
    (stats,) = await engine.call("VM.getStats", vmID=vm_id)
    for source in (told, stats):
        assert (source["exitCode"], source["exitReason"]) == (1, 3)
    assert stats["exitMessage"] == told["exitMessage"]
    await engine.destroy(vm_id)
    return told["exitMessage"]


# What is wrong with the disk


@dataclass(frozen=True)
class Fault:
    """A disk that cannot work.

    code: of the error; None where the verb's own counts. words: of the sentence. user and secret:
    its auth; no secret is the engine's. key: of that secret, unless it is not registered. changes:
    what else differs.
    """

    code: int | None
    words: tuple[str, ...]
    user: str = "cinder"
    secret: str | None = None
    key: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)


def monitor(address, port="6789"):
    return {"name": address, "port": port, "transport": "tcp"}


SECRET = "5b3b1d3e-8f5c-4f55-9a37-3a1f2c7b9d10"
WRONG_KEY = "AQBzL2FnAAAAABAAvXw3sQ0wVw4o8v0m3l5c2A=="
REGISTER = "; register the key that 'ceph auth get-key client."
FAULTS = {
    "missing secret": Fault(
        None,
        (f"secret {SECRET}, which disk", "is not registered", "; register it with Host.register"),
        secret=SECRET,
    ),
    "missing image": Fault(
        13,
        ("(volumes/volume-x): the image does not exist in its pool; check the volume in Cinder",),
        changes={"path": "volumes/volume-x"},
    ),
    "missing pool": Fault(
        13,
        ("(elsewhere/volume-x): the pool does not exist; check its name with 'ceph osd pool ls'",),
        changes={"path": "elsewhere/volume-x"},
    ),
    "missing namespace": Fault(
        13,
        ("(volumes/ns/volume-x): the namespace does not exist in its pool; check its name",),
        changes={"path": "volumes/ns/volume-x"},
    ),
    "pool of others": Fault(
        None,
        (
            "(device_health_metrics/volume-x): Ceph user cinder may not open the image; check its "
            "capabilities with 'ceph auth get client.cinder'",
        ),
        changes={"path": "device_health_metrics/volume-x"},
    ),
    "wrong key": Fault(
        None,
        ("Ceph knows no user cinder, or that user has another key", f"{REGISTER}cinder'"),
        secret=SECRET,
        key=WRONG_KEY,
    ),
    "no key at all": Fault(
        None,
        ("the secret of user cinder holds no Ceph key", f"{REGISTER}cinder'"),
        secret=SECRET,
        key=base64.b64encode(b"swordfish").decode(),
    ),
    "unknown user": Fault(
        None,
        ("Ceph knows no user nobody, or that user has another key", f"{REGISTER}nobody'"),
        user="nobody",
    ),
    "no auth": Fault(
        None,
        ("the Ceph cluster wants a user and a key and the disk names none; give the disk its",),
        changes={"auth": None},
    ),
    "refused": Fault(
        40,
        (MONITORS, "10.77.0.11 (connection refused), 10.77.0.12 (connection refused)", NETWORK),
        changes={"hosts": [monitor("10.77.0.11", "1"), monitor("10.77.0.12", "1")]},
    ),
    "silent": Fault(
        40,
        (MONITORS, f"10.77.0.1 ({SILENT})", NETWORK),
        changes={"hosts": [SILENT_MONITOR]},
    ),
    "unknown name": Fault(
        40,
        (MONITORS, "monitor.invalid (", " name", NETWORK),
        changes={"hosts": [monitor("monitor.invalid")]},
    ),
    "one unknown name": Fault(
        40,
        ("cannot look up the name of one of its monitors: ", "invalid (", "10.77.0.11 (answers)"),
        changes={"hosts": [monitor("monitor.invalid"), monitor("10.77.0.11")]},
    ),
}


@pytest.fixture(params=FAULTS.values(), ids=list(FAULTS))
def fault(request):
    with silent_monitor():
        yield request.param


@session_fixture("function")
async def disk(engine, fault, image):
    """The faulty disk; the key of its secret is registered if it has one."""
    if fault.key is not None:
        secret = secret_params(fault.secret, fault.key)
        await engine.call("Host.registerSecrets", secrets=[secret])
    auth = {"type": "ceph", "username": fault.user, "uuid": fault.secret or engine.secret_id}
    yield engine.disk(image(), **{"auth": auth, **fault.changes})
    await engine.call("Host.unregisterSecrets", uuids=[SECRET])


async def test_a_disk_that_cannot_work_is_told_when_a_vm_is_created(engine, vm, fault, disk):
    async with untouched(engine, vm):
        with pytest.raises(RemoteError) as caught:
            await engine.create(engine.flat(new_id(), disk))
    assert caught.value.code == (fault.code or 9)
    assert_told(caught.value.message, fault, disk)


async def test_a_disk_that_cannot_work_is_told_when_it_is_plugged(engine, vm, fault, disk):
    async with untouched(engine, vm):
        with pytest.raises(RemoteError) as caught:
            await plug(engine, vm.id, disk)
    assert caught.value.code == (fault.code or 45)
    assert_told(caught.value.message, fault, disk)
    assert await paths(engine, vm.id) == {"vda": f"volumes/{vm.image}"}


def assert_told(message, fault, disk):
    assert "\n" not in message
    assert disk["path"] in message
    assert [word for word in fault.words if word not in message] == [], message
    # Neither QEMU's command line nor the key.
    assert "blockdev" not in message
    assert fault.key is None or fault.key not in message


async def test_of_several_disks_the_one_at_fault_is_named(engine, vm, image):
    good, missing = engine.disk(image()), engine.disk("volume-y")
    async with untouched(engine, vm):
        with refused(13, "disk vdb (volumes/volume-y): the image does not exist"):
            await engine.create(engine.flat(new_id(), good, missing))


async def test_a_disk_of_a_domain_document_is_told_of_alike(engine, vm):
    params = engine.document(new_id(), disk_xml(engine.lab.ceph, "volume-x", "vda", SECRET))
    async with untouched(engine, vm):
        with refused(9, f"secret {SECRET}, which disk vda (volumes/volume-x) needs"):
            await engine.create(params)
        params["xml"] = params["xml"].replace(SECRET, engine.secret_id)
        with refused(13, "disk vda (volumes/volume-x): the image does not exist in its pool"):
            await engine.create(params)


async def test_one_monitor_of_three_is_enough(engine, vm, image):
    dead = [monitor("10.77.0.250"), monitor("10.77.0.12", "1")]
    disk = engine.disk(image(), hosts=[*dead, monitor("10.77.0.11")])
    async with untouched(engine, vm):
        await plug(engine, vm.id, disk)
        await unplug(engine, vm.id, disk)


# What breaks for all at once, on a host of its own


class EmulatingEngine(Engine):
    """An engine whose documents ask for QEMU's emulation themselves."""

    def document(self, vm_id, *disks, name=None):
        params = super().document(vm_id, *disks, name=name)
        return {**params, "xml": params["xml"].replace("<domain type='kvm'", "<domain type='qemu'")}


@session_fixture("module")
async def other(lab):
    """An engine on host2, where things break; its daemon allows no emulation."""
    host = lab.hosts["host2"]
    with HostDaemon(host, lab.pki, STRICT, "faults") as daemon:
        async with EmulatingEngine(lab, daemon) as engine:
            await engine.register_key()
            yield engine
            for found in await engine.call("Host.getVMList"):
                await engine.destroy(found["vmId"])
            await engine.call("Host.registerSecrets", secrets=[], clear=True)


@session_fixture("module")
async def far(other):
    """A VM on host2 whose guest is ready."""
    async with booted(other) as machine:
        yield machine


@contextmanager
def frozen_monitors(ceph):
    for found in ceph.monitors:
        ceph.freeze_mon(found.name)
    try:
        yield
    finally:
        for found in ceph.monitors:
            ceph.thaw_mon(found.name)
        ceph.wait_quorum(3)


async def test_a_host_without_hardware_virtualisation_says_so(other, far):
    params = Engine.document(other, new_id())
    async with untouched(other, far):
        with refused(
            9, params["vmId"], "hardware virtualisation is not usable on this host; enable"
        ):
            await other.create(params)


async def test_a_host_without_qemus_rbd_driver_says_so(other, far, image):
    params = other.document(new_id(), disk_xml(other.lab.ceph, image(), "vda", other.secret_id))
    host = other.daemon.host
    host.run(["mv", RBD_DRIVER, f"{RBD_DRIVER}.away"])
    try:
        async with untouched(other, far):
            message = await failed_start(other, params)
    finally:
        host.run(["mv", f"{RBD_DRIVER}.away", RBD_DRIVER])
    assert "QEMU's rbd driver is not installed on this host; install qemu-" in message


async def test_osds_that_hang_are_told(other, far, image):
    ceph, disk = other.lab.ceph, other.disk(image())
    ceph.freeze_osd()
    try:
        words = (disk["path"], "the OSDs that have the image do not answer", "; check them with")
        with refused(40, *words):
            await plug(other, far.id, disk)
        with refused(40, *words):
            await other.create(other.flat(new_id(), disk))
    finally:
        ceph.thaw_osd()
    await plug(other, far.id, disk)
    await unplug(other, far.id, disk)


async def test_a_disk_that_is_slow_to_come_is_plugged_after_all(other, far, image, foreign_key):
    """The daemon gives up waiting for libvirt, says that it does not know, and learns of it.

    libvirt's key is not known to the daemon, which cannot see who has the image open: that is
    vouched for, and told to the log.
    """
    auth = {"type": "ceph", "username": "cinder", "uuid": foreign_key}
    ceph, disk, next_disk = (
        other.lab.ceph,
        other.disk(image(), auth=auth),
        other.disk(image(), auth=auth),
    )
    with refused(45, f"disk vdb ({disk['path']}): whether the image is open on another host"):
        await plug(other, far.id, disk)
    ceph.freeze_osd()
    try:
        with refused(40, f"whether disk vdb ({disk['path']}) is plugged is not known yet", far.id):
            await plug(other, far.id, disk, allowUnchecked=True)
        warned = (
            f"the request vouches for it, so QEMU is to try although: disk vdb ({disk['path']}): "
        )
        assert warned in other.daemon.log.read_text()
        assert await other.call("Host.ping2") is True
        with refused(40, far.id, "an earlier call still waits"):
            await plug(other, far.id, next_disk, allowUnchecked=True)
    finally:
        ceph.thaw_osd()

    async def plugged():
        return disk["path"] in (await paths(other, far.id)).values()

    await eventually(plugged, "the disk to be listed")
    await unplug(other, far.id, disk)
    assert await asyncio.to_thread(far.console.ask, "ping", "^pong$")


@pytest.fixture
def foreign_key(other):
    """The uuid of a secret with the cluster's key that an operator defined by hand."""
    with foreign_secret(other.daemon.host, other.lab.ceph.key) as uuid:
        yield uuid


async def test_libvirtd_down_is_told_at_once_and_passes(other, far, image):
    host, disk = other.daemon.host, other.disk(image())
    calls: dict[str, dict[str, Any]] = {
        "VM.create": {"vmParams": other.flat(new_id())},
        "VM.hotplugDisk": {"params": {"drive": disk}},
        "VM.hotunplugDisk": {"params": {"drive": {"path": f"volumes/{far.image}"}}},
        "VM.shutdown": {"delay": 0, "message": ""},
        **{f"VM.{name}": {} for name in ("pause", "reset", "destroy")},
    }
    of_secrets: dict[str, dict[str, Any]] = {
        "Host.registerSecrets": {"secrets": [secret_params(SECRET, WRONG_KEY)]},
        "Host.unregisterSecrets": {"uuids": [SECRET]},
        "Host.getSecrets": {},
    }
    async with untouched(other, far):
        host.stop_libvirtd()
        try:
            for verb, params in calls.items():
                vm_id = params.get("vmParams", {}).get("vmId", far.id)
                with refused(
                    40, f"libvirt at {host.uri} cannot be reached", "; check that libvirtd"
                ):
                    await other.call(verb, vmID=vm_id, **params)
            for verb, params in of_secrets.items():
                with refused(40, "libvirt", "; check that libvirtd runs"):
                    await other.call(verb, **params)
            # What is known goes on being told.
            assert await other.call("Host.ping2") is True
            (stats,) = await other.call("VM.getStats", vmID=far.id)
            assert stats["status"] == "Up"
            health = other.daemon.health()
            assert (health["ready"], health["status"]) == (False, "degraded")
            assert f"libvirt at {host.uri} cannot be reached" in health["reasons"][0]
            assert await asyncio.to_thread(far.console.ask, "ping", "^pong$")
        finally:
            host.start_libvirtd()
        await eventually(lambda: _ready(other.daemon), "the daemon to find libvirt again")
        await other.register_key()
        await plug(other, far.id, disk)
        await unplug(other, far.id, disk)


async def _ready(daemon):
    return daemon.health()["ready"]


async def test_monitors_that_all_hang_are_told_before_qemu_hangs_with_them(other, far, image):
    """Their kernels go on accepting connections; QEMU would wait for 300 s, and its guest along."""
    ceph, disk = other.lab.ceph, other.disk(image())
    silent = ", ".join(f"{found.address} ({SILENT})" for found in ceph.monitors)
    vm_id = new_id()
    document = other.document(vm_id, disk_xml(ceph, image(), "vda", other.secret_id))
    async with untouched(other, far):
        with frozen_monitors(ceph):
            with refused(40, MONITORS, disk["path"], silent, NETWORK):
                await plug(other, far.id, disk)
            # The next one is told at once.
            began = time.monotonic()
            with refused(40, MONITORS, silent, NETWORK):
                await other.create(document)
            assert time.monotonic() - began < 2
            # The data path of what runs does not go through them.
            await asyncio.to_thread(far.console.write, "vda", 0, 1, "frozen")
        await served(lambda: plug(other, far.id, disk), "a probe to find the cluster again")
        await unplug(other, far.id, disk)
    await other.run(document)
    await other.destroy(vm_id)
