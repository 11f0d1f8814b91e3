# SPDX-License-Identifier: GPL-2.0-or-later
"""VM.create until Up and VM.hotplugDisk, against virsh and libvirt-python with the same XML.

Ours is measured where an engine is: from the request over STOMP and TLS to the event that says Up,
or to the reply. virsh is measured from its start to its end; libvirt-python, in this process and
over a connection that is open, has neither a process to start nor a wire to cross.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import libvirt

from bench.report import Goal, Row, Sample
from lab.base import wait_until
from lab.ceph.cluster import Ceph
from lab.engine import Engine, new_id
from lab.guest.domains import console_of, disk_xml, domain_xml
from lab.host.daemon import HostDaemon
from lab.running import Lab
from lab.steps import Step

CREATE_ROUNDS = 9
PLUG_ROUNDS = 9
ON_TOP = 0.05
ON_TOP_MS = 30
OPTIONS = {"log": {"level": "INFO"}}

Contestant = Callable[[], Awaitable[float]]


def run(lab: Lab, step: Step) -> list[Row]:
    """Start VMs, then plug disks into one, each in the three ways in turn."""
    with HostDaemon(lab.hosts["host1"], lab.pki, OPTIONS, "bench") as daemon:
        return asyncio.run(_run(lab, daemon, step))


async def _run(lab: Lab, daemon: HostDaemon, step: Step) -> list[Row]:
    images = [f"bench-{new_id()}" for _ in range(2)]
    for image in images:
        lab.ceph.create_image(image, 64)
    try:
        async with Engine(lab, daemon) as engine:
            await engine.register_key()
            with libvirt.open(daemon.host.uri) as connection:
                stage = Stage(engine, connection, daemon.directory, *images)
                creates = await _in_turn(Creating(stage).contestants, CREATE_ROUNDS, step)
                async with Plugging(stage) as plugging:
                    plugs = await _in_turn(plugging.contestants, PLUG_ROUNDS, step)
    finally:
        for image in images:
            _remove_image(lab.ceph, image)
    return [*_rows("VM.create until Up", creates), *_rows("VM.hotplugDisk", plugs)]


def _remove_image(ceph: Ceph, image: str) -> None:
    wait_until(lambda: not ceph.watchers(image), f"guests to close image {image}", 30)
    ceph.remove_image(image)


async def _in_turn(contestants: Sequence[Contestant], rounds: int, step: Step) -> list[Sample]:
    """What each contestant took in each of its turns, in ms."""
    times: list[list[float]] = [[] for _ in contestants]
    for n in range(rounds):
        step.progress(f"{n} of {rounds}")
        for taken, contestant in zip(times, contestants):
            taken.append(await contestant() * 1e3)
    return [Sample(tuple(taken), "ms") for taken in times]


def _rows(what: str, samples: Sequence[Sample]) -> list[Row]:
    ours, virsh, python = samples
    rows = [Row(what, ours, "virsh", virsh), Row(what, ours, "libvirt-python", python)]
    return [row.with_goal(_goal(row)) for row in rows]


def _goal(row: Row) -> Goal:
    rounds = zip(row.ours.values, row.theirs.values)
    on_top_ms = statistics.median(ours - theirs for ours, theirs in rounds)
    met = on_top_ms <= max(ON_TOP_MS, ON_TOP * row.theirs.median)
    return Goal(f"≤ +{ON_TOP:.0%} or +{ON_TOP_MS} ms", met)


@dataclass(frozen=True)
class Stage:
    """What all share: an engine's session, a connection to libvirt, an image for each disk.

    directory: where files for virsh go.
    """

    engine: Engine
    connection: libvirt.virConnect
    directory: Path
    boot_image: str
    second_image: str

    def disk(self, image: str, target: str) -> str:
        """A disk on one of the images."""
        return disk_xml(self.engine.lab.ceph, image, target, self.engine.secret_id)

    async def virsh(self, *words: str) -> float:
        """Run one virsh process; how long it took, in seconds."""
        argv = ["virsh", "--quiet", "--connect", self.engine.daemon.host.uri, *words]
        began = time.perf_counter()
        await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True)
        return time.perf_counter() - began


class Creating:
    """Each way to start a VM. It is destroyed at once, so that no guest runs during the next."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._file = stage.directory / "domain.xml"
        self.contestants = (self.ours, self.virsh, self.python)

    async def ours(self) -> float:
        engine, stage, vm_id = self._stage.engine, self._stage, new_id()
        params = engine.document(vm_id, stage.disk(stage.boot_image, "vda"))
        began = time.perf_counter()
        await engine.create(params)
        await engine.wait_status(vm_id, "Up")
        took = time.perf_counter() - began
        await engine.destroy(vm_id)
        return took

    async def virsh(self) -> float:
        """define and start in one process: two would take longer."""
        name = f"bench-{new_id()}"
        self._file.write_text(self._xml(name))
        took = await self._stage.virsh(f"define {self._file}; start {name}")
        self._remove(name)
        return took

    async def python(self) -> float:
        name = f"bench-{new_id()}"
        xml = self._xml(name)
        began = time.perf_counter()
        self._stage.connection.defineXML(xml).create()
        took = time.perf_counter() - began
        self._remove(name)
        return took

    def _xml(self, name: str) -> str:
        lab, stage = self._stage.engine.lab, self._stage
        disk = stage.disk(stage.boot_image, "vda")
        return domain_xml(stage.engine.daemon.host, name, new_id(), [disk], lab.guest)

    def _remove(self, name: str) -> None:
        domain = self._stage.connection.lookupByName(name)
        domain.destroy()
        domain.undefine()


class Plugging:
    """Each way to plug a disk into one and the same VM, whose guest lets go of it again."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._vm_id = new_id()
        self._xml = stage.disk(stage.second_image, "vdb")
        self._file: Path = stage.directory / "disk.xml"
        self.contestants = (self.ours, self.virsh, self.python)

    async def __aenter__(self) -> Plugging:
        self._file.write_text(self._xml)
        engine, name = self._stage.engine, f"vm-{self._vm_id}"
        disk = self._stage.disk(self._stage.boot_image, "vda")
        await engine.run(engine.document(self._vm_id, disk))
        with console_of(engine.daemon.host, name) as console:
            await asyncio.to_thread(console.wait_ready)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stage.engine.destroy(self._vm_id)

    async def ours(self) -> float:
        params = {"vmId": self._vm_id, "xml": self._xml}
        began = time.perf_counter()
        await self._stage.engine.call("VM.hotplugDisk", vmID=self._vm_id, params=params)
        took = time.perf_counter() - began
        await self._stage.engine.call("VM.hotunplugDisk", vmID=self._vm_id, params=params)
        return took

    async def virsh(self) -> float:
        words = ("attach-device", f"vm-{self._vm_id}", str(self._file), "--live")
        took = await self._stage.virsh(*words)
        await self._detach()
        return took

    async def python(self) -> float:
        began = time.perf_counter()
        self._domain.attachDeviceFlags(self._xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        took = time.perf_counter() - began
        await self._detach()
        return took

    @property
    def _domain(self) -> Any:
        return self._stage.connection.lookupByUUIDString(self._vm_id)

    async def _detach(self) -> None:
        domain, image = self._domain, self._stage.second_image
        domain.detachDeviceFlags(self._xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

        def gone() -> bool:
            return image not in domain.XMLDesc()

        await asyncio.to_thread(wait_until, gone, "the guest to let go of its disk", 60)
        # The daemon hears of it a moment later.
        while image in str(await self._stage.engine.call("VM.getInfo", vmID=self._vm_id)):
            pass
