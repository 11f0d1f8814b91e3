# SPDX-License-Identifier: GPL-2.0-or-later
"""When the storage of a VM that was paused for it counts as back, by what Ceph tells of images."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from vdsmcinder.ceph.fault_kinds import CephFault, Kind
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.virt.disk.ceph_images import CephImage, CephImages
from vdsmcinder.virt.vm import io_resume
from vdsmcinder.virt.vm.parts.io_errors import IoTrouble
from vdsmcinder.virt.vm.status import PauseCode

WELL = {
    **{"size": 1, "features": 61, "unknown": 0, "watchers": [], "locks": [], "primary": True},
    **{"room": {}, "may_blocklist": True},
}
LEFT = [{"client": "client.7", "cookie": "auto 1", "address": "10.0.0.9"}]


class Ceph:
    """Workers that tell so of any image, and count what they were asked."""

    def __init__(self, told: Mapping[str, Any] | CephFault) -> None:
        self.told = told
        self.asked: list[Any] = []

    async def ask(self, _account: object, _key: object, op: str, **args: Any) -> Any:
        self.asked += args["images"]
        if isinstance(self.told, CephFault):
            raise self.told
        return [{"result": self.told}]


def paused(told: Mapping[str, Any] | CephFault, **changes: Any) -> Any:
    """A VM whose disk vda failed with EIO."""
    image = CephImage("vda", "volumes/a", (MonitorHost("10.0.0.1"),), **changes)
    io = IoTrouble(held=False)
    io.met("vda", PauseCode.EIO)
    services = SimpleNamespace(ceph=Ceph(told), secrets=None)
    domain = SimpleNamespace(ceph=CephImages((image,)))
    return SimpleNamespace(
        name="vm", domain=domain, io=io, services=services, lacks_room=io.lacks_room
    )


@pytest.mark.parametrize(
    ("told", "back", "code"),
    [
        (WELL, True, PauseCode.EIO),
        ({**WELL, "room": {"volumes": "quota"}}, False, PauseCode.ENOSPC),
        ({**WELL, "room": {"data": "full"}}, False, PauseCode.ENOSPC),
        ({**WELL, "room": {"volumes": "scarce"}}, True, PauseCode.EIO),
        ({**WELL, "may_blocklist": False}, True, PauseCode.EIO),
        ({**WELL, "may_blocklist": False, "locks": LEFT}, False, PauseCode.EIO),
        ({**WELL, "locks": LEFT}, True, PauseCode.EIO),
        ({**WELL, "primary": False}, False, PauseCode.EIO),
        # QEMU has it open: its librbd may know them.
        ({**WELL, "unknown": 1 << 20}, True, PauseCode.EIO),
        (CephFault(Kind.SLOW), False, PauseCode.EIO),
        # Of the question, not of the storage.
        (CephFault(Kind.KEY), True, PauseCode.EIO),
    ],
)
async def test_a_vm_is_continued_when_it_could_write(told, back, code):
    vm = paused(told)
    assert await io_resume._storage_answers(vm) is back
    assert vm.io.code is code
    (question,) = vm.services.ceph.asked
    assert (question["writes"], question["claim"]) == (True, None)


async def test_a_disk_that_is_only_read_needs_no_room():
    vm = paused({**WELL, "room": {"volumes": "full"}}, readonly=True)
    assert await io_resume._storage_answers(vm) is True
    assert vm.io.code is PauseCode.EIO
