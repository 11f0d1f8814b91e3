# SPDX-License-Identifier: GPL-2.0-or-later
"""Ceph and libvirt when they do not do their part: what the engine is told, and what goes on.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_ceph_faults.py`.
vdsmcinder/virt/faults.py reads the words of QEMU and librbd that come here from the real ones.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.daemon import HostDaemon
from lab.domains import disk_xml
from lab.engine import Engine, new_id, secret_params
from tests.functional.bystander import untouched
from tests.functional.helpers import booted, eventually, paths, refused, session_fixture
from vdsmcinder.client.session import RemoteError

pytestmark = pytest.mark.asyncio(loop_scope="session")

RBD_DRIVER = "/usr/lib/x86_64-linux-gnu/qemu/block-rbd.so"
MONITORS = "no Ceph monitor of disk"
NETWORK = "; check the monitors and the network to them, then call again"
STRICT = {
    "libvirt": {"reconnect_max_s": 0.2, "call_timeout_s": 5},
    "vms": {"allow_emulation": False, "hotunplug_timeout_s": 3},
}


@session_fixture("module")
async def vm(engine):
    """A VM whose guest is ready; no test here changes it."""
    async with booted(engine) as machine:
        yield machine


async def plug(engine, vm_id, disk):
    return await engine.call("VM.hotplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": disk})


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

    plugging: the code of VM.hotplugDisk. creating: the code of VM.create; None where the start
    fails later on. words: of the sentence. user and secret: its auth; no secret is the engine's.
    key: of that secret, unless it is not registered. changes: what else differs.
    """

    plugging: int
    creating: int | None
    words: tuple[str, ...]
    user: str = "cinder"
    secret: str | None = None
    key: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)


def monitor(address, port="6789"):
    return {"name": address, "port": port, "transport": "tcp"}


SECRET = "5b3b1d3e-8f5c-4f55-9a37-3a1f2c7b9d10"
WRONG_KEY = "AQBzL2FnAAAAABAAvXw3sQ0wVw4o8v0m3l5c2A=="
FAULTS = {
    "missing secret": Fault(
        45,
        9,
        (f"secret {SECRET}, which disk", "is not registered", "; register it with Host.register"),
        secret=SECRET,
    ),
    "missing image": Fault(
        13,
        None,
        ("(volumes/volume-x)", "the image does not exist in its pool; check the volume in Cinder"),
        changes={"path": "volumes/volume-x"},
    ),
    "missing pool": Fault(
        13,
        None,
        ("(elsewhere/volume-x)", "the pool does not exist or", "; check the pool's name"),
        changes={"path": "elsewhere/volume-x"},
    ),
    "pool of others": Fault(
        45,
        None,
        ("the Ceph user may not open the image; check the user's capabilities",),
        changes={"path": "device_health_metrics/volume-x"},
    ),
    "wrong key": Fault(
        45,
        None,
        ("Ceph does not accept the user or its key; register the key that 'ceph auth get-key'",),
        secret=SECRET,
        key=WRONG_KEY,
    ),
    "no key at all": Fault(
        45,
        None,
        ("its secret holds no Ceph key; register the key that 'ceph auth get-key' prints",),
        secret=SECRET,
        key=base64.b64encode(b"swordfish").decode(),
    ),
    "unknown user": Fault(
        45,
        None,
        ("Ceph does not accept the user or its key; register the key",),
        user="nobody",
    ),
    "no auth": Fault(
        45,
        None,
        ("the Ceph cluster wants a user and a key and the disk names none; give the disk its",),
        changes={"auth": None},
    ),
    "refused": Fault(
        40,
        40,
        (MONITORS, "10.77.0.11 (connection refused), 10.77.0.12 (connection refused)", NETWORK),
        changes={"hosts": [monitor("10.77.0.11", "1"), monitor("10.77.0.12", "1")]},
    ),
    "silent": Fault(
        40,
        40,
        (MONITORS, "10.77.0.250 (no answer within 3 s)", NETWORK),
        changes={"hosts": [monitor("10.77.0.250"), monitor("10.77.0.250", "3300")]},
    ),
    "unknown name": Fault(
        40,
        40,
        (MONITORS, "monitor.invalid (", " name", NETWORK),
        changes={"hosts": [monitor("monitor.invalid")]},
    ),
}


@pytest.fixture(params=FAULTS.values(), ids=FAULTS)
def fault(request):
    return request.param


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
    params = engine.flat(new_id(), disk)
    async with untouched(engine, vm):
        if fault.creating is None:
            message = await failed_start(engine, params)
            assert message.startswith(f"VM {params['vmId']} could not be started: disk vda (")
        else:
            with pytest.raises(RemoteError) as caught:
                await engine.create(params)
            assert caught.value.code == fault.creating
            message = caught.value.message
    assert_told(message, fault, disk)


async def test_a_disk_that_cannot_work_is_told_when_it_is_plugged(engine, vm, fault, disk):
    async with untouched(engine, vm):
        with pytest.raises(RemoteError) as caught:
            await plug(engine, vm.id, disk)
    assert caught.value.code == fault.plugging
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
        message = await failed_start(engine, engine.flat(new_id(), good, missing))
    assert "disk vdb (volumes/volume-y): the image does not exist" in message


async def test_a_disk_of_a_domain_document_is_told_of_alike(engine, vm):
    params = engine.document(new_id(), disk_xml(engine.lab.ceph, "volume-x", "vda", SECRET))
    async with untouched(engine, vm):
        with refused(9, f"secret {SECRET}, which disk vda (volumes/volume-x) needs"):
            await engine.create(params)
        params["xml"] = params["xml"].replace(SECRET, engine.secret_id)
        message = await failed_start(engine, params)
    assert "disk vda (volumes/volume-x): the image does not exist in its pool" in message


async def test_one_monitor_of_three_is_enough(engine, vm, image):
    dead = [monitor("10.77.0.250"), monitor("10.77.0.12", "1")]
    disk = engine.disk(image(), hosts=[*dead, monitor("10.77.0.11")])
    async with untouched(engine, vm):
        await plug(engine, vm.id, disk)
        await unplug(engine, vm.id, disk)


async def test_the_message_names_qemus_own_words_last(engine, vm):
    """For whoever has to look further than the sentence; as they are, and not their preamble."""
    with refused(13, "(error reading header from volume-x: No such file or directory)"):
        await plug(engine, vm.id, engine.disk("volume-x"))


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


async def test_a_disk_that_is_slow_to_come_is_plugged_after_all(other, far, image):
    """The daemon gives up waiting for libvirt, says that it does not know, and learns of it."""
    ceph, disk = other.lab.ceph, other.disk(image())
    ceph.freeze_osd()
    try:
        with refused(40, f"whether disk vdb ({disk['path']}) is plugged is not known yet", far.id):
            await plug(other, far.id, disk)
        assert await other.call("Host.ping2") is True
        with refused(40, far.id, "an earlier call still waits"):
            await plug(other, far.id, other.disk("volume-x"))
    finally:
        ceph.thaw_osd()

    async def plugged():
        return disk["path"] in (await paths(other, far.id)).values()

    await eventually(plugged, "the disk to be listed")
    await unplug(other, far.id, disk)
    assert await asyncio.to_thread(far.console.ask, "ping", "^pong$")


async def test_libvirtd_down_is_told_at_once_and_passes(other, far, image):
    host, disk = other.daemon.host, other.disk(image())
    calls = {
        "VM.create": {"vmParams": other.flat(new_id())},
        "VM.hotplugDisk": {"params": {"drive": disk}},
        "VM.hotunplugDisk": {"params": {"drive": {"path": f"volumes/{far.image}"}}},
        "VM.shutdown": {"delay": 0, "message": ""},
        **{f"VM.{name}": {} for name in ("pause", "reset", "destroy")},
    }
    secret = secret_params(SECRET, WRONG_KEY)
    async with untouched(other, far):
        host.stop_libvirtd()
        try:
            for verb, params in calls.items():
                vm_id = params.get("vmParams", {}).get("vmId", far.id)
                with refused(
                    40, f"libvirt at {host.uri} cannot be reached", "; check that libvirtd"
                ):
                    await other.call(verb, vmID=vm_id, **params)
            for verb, params in {
                "Host.registerSecrets": {"secrets": [secret]},
                "Host.unregisterSecrets": {"uuids": [SECRET]},
                "Host.getSecrets": {},
            }.items():
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
    silent = ", ".join(f"{found.address} (no answer within 3 s)" for found in ceph.monitors)
    vm_id = new_id()
    document = other.document(vm_id, disk_xml(ceph, image(), "vda", other.secret_id))
    async with untouched(other, far):
        with frozen_monitors(ceph):
            with refused(40, MONITORS, disk["path"], silent, NETWORK):
                await plug(other, far.id, disk)
            with refused(40, MONITORS, silent, NETWORK):
                await other.create(document)
            # The data path of what runs does not go through them.
            await asyncio.to_thread(far.console.write, "vda", 0, 1, "frozen")
        await plug(other, far.id, disk)
        await unplug(other, far.id, disk)
    await other.run(document)
    await other.destroy(vm_id)
