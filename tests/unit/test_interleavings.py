# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever engines and others do to VMs at once, the daemon and libvirt agree in the end.

The whole daemon over libvirt's test driver; functional/test_interleavings.py does it to QEMU.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any, Callable

import libvirt
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults import pluggable
from tests.interleaving import Interleavings, Seen
from tests.unit.whole import Whole, running
from vdsmcinder.stomp.client import NoSuchEvent, StompSession
from vdsmcinder.virt.domain.domain import Domain, is_ours
from vdsmcinder.virt.storage.image_locks import Claims
from vdsmcinder.virt.storage.preflight import Preflight

STATUSES = {
    libvirt.VIR_DOMAIN_RUNNING: "Up",
    libvirt.VIR_DOMAIN_PAUSED: "Paused",
    libvirt.VIR_DOMAIN_SHUTOFF: "Down",
}
OTHERS = {
    "create": libvirt.virDomain.create,
    "destroy": libvirt.virDomain.destroy,
    "suspend": libvirt.virDomain.suspend,
    "resume": libvirt.virDomain.resume,
}
VERBS = {"plug": "hotplugDisk", "unplug": "hotunplugDisk"}
MORE = {"shutdown": {"delay": 0, "message": "", "timeout": 1, "force": True}}
# A call of libvirt's takes one of these, so that others come between.
DELAYS_S = (0, 0.002, 0.01)


class TestDriver:
    """A World of the test driver's domains."""

    __test__ = False
    lets_go = True
    settle_s = 10.0
    others = sorted(OTHERS)

    def __init__(self, loop: asyncio.AbstractEventLoop, whole: Whole, session: StompSession):
        self._whole = whole
        self._session = session
        self.run = loop.run_until_complete

    async def call(self, verb: str, vm_id: str, image: str) -> None:
        params: dict[str, Any] = {"vmID": vm_id, **MORE.get(verb, {})}
        if verb == "create":
            params["vmParams"] = pluggable.domain(vm_id)
        if image:
            target = "vda" if image == "one" else "vdb"
            params["params"] = pluggable.disk(vm_id, image, target)
        await self._session.call(f"VM.{VERBS.get(verb, verb)}", params)

    async def interfere(self, action: str, vm_id: str) -> None:
        with suppress(libvirt.libvirtError):
            await asyncio.to_thread(OTHERS[action], self._handle.lookupByUUIDString(vm_id))

    async def listed(self) -> dict[str, Seen]:
        vms = await self._session.call("Host.getVMFullList")
        return {
            vm["vmId"]: _seen(vm["status"], (disk["path"] for disk in vm["devices"])) for vm in vms
        }

    async def defined(self) -> dict[str, Seen]:
        return await asyncio.to_thread(lambda: dict(map(_of_libvirt, self._ours())))

    def told(self) -> Iterator[tuple[str, str]]:
        with suppress(NoSuchEvent):
            while True:
                event = self.run(self._session.wait_for_event(lambda event: True, 0))
                for vm_id, told in event["params"].items():
                    if isinstance(told, dict) and "status" in told:
                        yield vm_id, told["status"]

    @property
    def _handle(self) -> libvirt.virConnect:
        return self._whole.daemon._connection.handle

    def _ours(self) -> list[libvirt.virDomain]:
        return [dom for dom in self._handle.listAllDomains() if is_ours(dom.XMLDesc())]


def _of_libvirt(dom: libvirt.virDomain) -> tuple[str, Seen]:
    drives = Domain.from_xml(dom.XMLDesc()).drives
    return dom.UUIDString(), _seen(STATUSES[dom.state()[0]], (d.source.path for d in drives))


def _seen(status: str, paths: Iterator[str]) -> Seen:
    if status == "Down":
        return Seen(status)  # what it had plugged then does not matter any more
    return Seen(status, frozenset(path.partition("/")[2] for path in paths))


def _slowly(method: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*args: Any) -> Any:
        time.sleep(random.choice(DELAYS_S))
        return method(*args)

    return slow


async def _check_slowly(self: Preflight, *args: Any, **named: Any) -> Claims:
    await asyncio.sleep(random.choice(DELAYS_S))
    return await check(self, *args, **named)


check = Preflight.check


@pytest.fixture
def world(tmp_path, monkeypatch):
    plugs = pluggable.Plugs()
    plugs.install()
    for kind, name in (
        (libvirt.virConnect, "defineXML"),
        (libvirt.virDomain, "createWithFlags"),
        (libvirt.virDomain, "attachDeviceFlags"),
        (libvirt.virDomain, "destroyFlags"),
        (libvirt.virDomain, "undefineFlags"),
    ):
        monkeypatch.setattr(kind, name, _slowly(getattr(kind, name)))
    monkeypatch.setattr(Preflight, "check", _check_slowly)
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    try:
        made = running(tmp_path, **pluggable.host(tmp_path))
        whole = loop.run_until_complete(stack.enter_async_context(made))
        session = loop.run_until_complete(whole.client())
        loop.run_until_complete(session.subscribe_events())
        yield TestDriver(loop, whole, session)
        loop.run_until_complete(session.close())
    finally:
        loop.run_until_complete(stack.aclose())
        loop.close()
        monkeypatch.undo()
        plugs.uninstall()


def test_daemon_and_libvirt_agree(world):
    class Machine(Interleavings):
        pass

    Machine.world = world
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=15,
            deadline=None,
            # What happens at once happens in another order the next time: nothing can be shrunk.
            phases=[Phase.generate],
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
