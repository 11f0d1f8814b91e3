# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM with all that verbs on running VMs work on: agent, display, CD drive, spare processors.

Those who leave it as it was share one, `guest` in conftest.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lab.engine import Engine, new_id
from lab.guest.console import GuestConsole
from lab.guest.domains import pty_console
from tests.functional.helpers import eventually

DISK_MIB = 64


@dataclass(frozen=True)
class Guest:
    """A VM whose guest is ready: its first disk is vda on `image`, its CD drive is sr0."""

    id: str
    image: str
    console: GuestConsole
    engine: Engine

    async def call(self, verb: str, **params: Any) -> Any:
        """Call a verb of VM.* on it."""
        return await self.engine.call(f"VM.{verb}", vmID=self.id, **params)

    async def says(self, pattern: str, timeout_s: float = 60) -> str:
        """Wait until the guest says it; the first group of the pattern, or all of the match."""
        match = await asyncio.to_thread(self.console.wait_for, pattern, timeout_s)
        return match[1] if match.groups() else match[0]

    async def shell(self, command: str) -> str:
        """Run a command in the guest; the last line of its output, which must not be empty."""
        return await self.after(f'say "out $({command} | tail -n 1)"', "^out (.*)")

    async def after(self, command: str, pattern: str) -> str:
        """Run shell code in the guest's init and wait until the guest says something."""
        await asyncio.to_thread(self.console.send, f"sh {command}")
        return await self.says(pattern)

    async def stats(self) -> dict[str, Any]:
        """Its statistics."""
        (stats,) = await self.call("getStats")
        return stats

    async def has_agent(self) -> bool:
        """Whether libvirt has found an agent in the guest."""
        documents = await self.engine.call("Host.dumpxmls", vmList=[self.id])
        return "state='connected'" in documents[self.id]

    async def event(self, name: str, timeout_s: float = 60) -> dict[str, Any]:
        """What the next event of that name says of it."""
        wanted = f"|virt|{name}|{self.id}"
        event = await self.engine.session.wait_for_event(lambda e: e["method"] == wanted, timeout_s)
        return event["params"][self.id]


def display(engine: Engine) -> dict[str, Any]:
    """A VNC display on the address of the engine's host."""
    where = {"displayIp": engine.daemon.host.address}
    return {"type": "graphics", "device": "vnc", "specParams": where}


@asynccontextmanager
async def new_guest(engine: Engine, *more: Any, **changes: Any) -> AsyncIterator[Guest]:
    """A VM from a flat description whose guest obeys; gone at the end, and its image too.

    more: further devices.
    """
    lab, vm_id, image = engine.lab, new_id(), f"volume-{new_id()}"
    lab.ceph.create_image(image, DISK_MIB)
    boot = lab.guest
    params = engine.flat(
        vm_id,
        engine.disk(image),
        {"type": "disk", "device": "cdrom", "iface": "scsi", "index": "0", "path": ""},
        display(engine),
        *more,
        kernel=str(boot.kernel),
        initrd=str(boot.initrd),
        kernelArgs=boot.kernel_args,
        smp="1",
        maxVCpus="4",
        **changes,
    )
    host = engine.daemon.host
    try:
        await engine.run(params)
        with pty_console(host, host.virsh("ttyconsole", vm_id)) as console:
            await asyncio.to_thread(console.wait_ready)
            guest = Guest(vm_id, image, console, engine)
            await eventually(guest.has_agent, "libvirt to find the guest's agent")
            yield guest
    finally:
        await engine.destroy(vm_id)
        lab.ceph.remove_image(image)
