# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever engines and others do to VMs at once, the daemon and QEMU agree in the end. On host2.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_interleavings.py`.
unit/test_interleavings.py does the same to far more VMs, which are not real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from lxml import etree

from lab.base import LabError
from lab.engine import Engine, new_id
from lab.host.daemon import HostDaemon
from tests.functional.helpers import (
    OPTIONS,
    engine_on,
    eventually,
    new_image,
    paths,
    running,
)
from tests.interleaving import IMAGES, Interleavings, Seen
from vdsmcinder.stomp.client import NoSuchEvent, SessionLost
from vdsmcinder.virt.domain import metadata

STATES = {"running": "Up", "paused": "Paused", "shut off": "Down"}
VERBS = {"plug": "hotplugDisk", "unplug": "hotunplugDisk"}
MORE = {"shutdown": {"delay": 0, "message": "", "timeout": 1, "force": True}}


class Hypervisor:
    """A World of real VMs, with nothing to boot: no guest lets go of a disk, or heeds a button."""

    lets_go = False
    settle_s = 60.0
    others = ("destroy", "resume", "start", "suspend")

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: Engine, images: dict[str, str]):
        self.engine = engine
        self._images = images
        self._names = {f"{engine.lab.ceph.pool}/{image}": name for name, image in images.items()}
        self.run = loop.run_until_complete

    async def call(self, verb: str, vm_id: str, image: str) -> None:
        params: dict[str, Any] = {"vmID": vm_id, **MORE.get(verb, {})}
        if verb == "create":
            name = f"vm-{vm_id}"
            params["vmParams"] = self.engine.flat(vm_id, memSize=64, vmName=name)
        if image:
            # One alias for each VM's disk, whenever it is plugged.
            disk_id = f"{vm_id[:24]}{IMAGES.index(image):012}"
            disk = self.engine.disk(self._images[image], deviceId=disk_id, shared="shared")
            params["params"] = {"vmId": vm_id, "drive": disk}
        await self.engine.call(f"VM.{VERBS.get(verb, verb)}", **params)

    async def interfere(self, action: str, vm_id: str) -> None:
        with suppress(LabError):
            await asyncio.to_thread(self.engine.daemon.host.virsh, action, vm_id)

    async def listed(self) -> dict[str, Seen]:
        vms = await self.engine.call("Host.getVMFullList")
        return {
            vm["vmId"]: self._seen(vm["status"], (disk["path"] for disk in vm["devices"]))
            for vm in vms
        }

    async def defined(self) -> dict[str, Seen]:
        return await asyncio.to_thread(self._of_libvirt)

    def told(self) -> Iterator[tuple[str, str]]:
        with suppress(NoSuchEvent):
            while True:
                wait = self.engine.session.wait_for_event(lambda event: True, 0)
                for vm_id, told in self.run(wait)["params"].items():
                    if isinstance(told, dict) and "status" in told:
                        yield vm_id, told["status"]

    def _of_libvirt(self) -> dict[str, Seen]:
        virsh, found = self.engine.daemon.host.virsh, {}
        for vm_id in virsh("list", "--all", "--uuid").split():
            with suppress(LabError):  # it is gone since it was listed
                domain = etree.fromstring(virsh("dumpxml", vm_id).encode())
                if metadata.is_marked(domain):
                    state = virsh("domstate", vm_id)
                    sources = (s.get("name", "") for s in domain.iterfind("devices/disk/source"))
                    found[vm_id] = self._seen(STATES.get(state, state), sources)
        return found

    def _seen(self, status: str, paths: Iterator[str]) -> Seen:
        if status == "Down":
            return Seen(status)
        return Seen(status, frozenset(self._names.get(path, path) for path in paths))


QUICK = {**OPTIONS, "vms": {**OPTIONS["vms"], "hotunplug_timeout_s": 0.5}}


@pytest.fixture
def world(lab):
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    try:
        made = engine_on(lab, lab.hosts["host2"], "interleavings", QUICK)
        engine = loop.run_until_complete(stack.enter_async_context(made))
        loop.run_until_complete(engine.register_key())
        images = {name: stack.enter_context(new_image(engine, 8)) for name in IMAGES}
        yield Hypervisor(loop, engine, images)
    finally:
        loop.run_until_complete(stack.aclose())
        loop.close()


def test_daemon_and_qemu_agree(world):
    class Machine(Interleavings):
        pass

    Machine.world = world
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=3,
            stateful_step_count=8,
            deadline=None,
            phases=[Phase.generate],
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_disk_that_was_being_plugged_when_the_daemon_was_killed(world, image):
    """QEMU waits for Ceph meanwhile; what comes of it the daemon that is started next tells."""
    world.run(_plugged_by_the_dead(world.engine, image))


async def _plugged_by_the_dead(engine: Engine, image: Any) -> None:
    daemon, ceph = engine.daemon, engine.lab.ceph
    assert isinstance(daemon, HostDaemon)
    async with running(engine, engine.flat(new_id(), memSize=64)) as vm_id:
        # Or the daemon would find out by itself that Ceph does not answer.
        daemon.configure({**QUICK, "ceph": {"preflight": "off"}})
        daemon.restart()
        await engine.connect()
        disk = {"vmId": vm_id, "drive": engine.disk(image())}
        ceph.freeze_osd()
        try:
            call = asyncio.create_task(engine.call("VM.hotplugDisk", vmID=vm_id, params=disk))
            await eventually(lambda: _talks_to_ceph(engine, vm_id), "QEMU to be at it")
            daemon.kill()
            with pytest.raises(SessionLost):
                await call
            daemon.start()
            await engine.connect()
            assert await paths(engine, vm_id) == {}
        finally:
            ceph.thaw_osd()

        async def there() -> bool:
            return "vda" in await paths(engine, vm_id)

        await eventually(there, "the disk to be there")


async def _talks_to_ceph(engine: Engine, vm_id: str) -> bool:
    """Whether QEMU has threads of librados, as it has with the first disk that it opens."""
    pid = (await engine.call("VM.getInfo", vmID=vm_id))["pid"]
    threads = ["ps", "-L", "-o", "comm=", "-p", pid]
    return "msgr-worker" in engine.daemon.host.run(threads)
