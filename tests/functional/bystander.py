# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request that fails must leave as it was: the daemon, the host's domains, another VM.

untouched() wraps the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import libvirt
from lxml import etree

from lab.engine import Engine
from lab.host.hypervisor import Host
from tests.functional.helpers import Machine, status


@asynccontextmanager
async def untouched(engine: Engine, vm: Machine) -> AsyncIterator[None]:
    """Afterwards the daemon answers, the VM is Up, its guest obeys, and no domain has changed."""
    before = await asyncio.to_thread(domains, engine.daemon.host)
    listed = await engine.call("Host.getVMList")
    yield
    assert await engine.call("Host.ping2") is True
    assert await engine.call("Host.getVMList") == listed
    assert await status(engine, vm.id) == "Up"
    assert await asyncio.to_thread(vm.console.ask, "ping", "^pong$")
    assert await asyncio.to_thread(domains, engine.daemon.host) == before


def domains(host: Host) -> dict[str, Any]:
    """What libvirt knows of each domain: its name, its state and its disks."""
    with closing(libvirt.open(host.uri)) as connection:
        return {
            domain.UUIDString(): (domain.name(), domain.state(), _disks(domain.XMLDesc()))
            for domain in connection.listAllDomains()
        }


def _disks(xml: str) -> list[bytes]:
    return [etree.tostring(disk) for disk in etree.fromstring(xml).iterfind("devices/disk")]
