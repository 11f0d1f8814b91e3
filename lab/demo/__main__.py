# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo: a lab, the daemon on its hypervisor, and an engine that runs a VM on Ceph through it.

`make demo`. It plays the engine inside the lab's network.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import Any

from lab.base import LabError
from lab.demo.stage import Show, on_host1
from lab.engine import Engine, new_id
from lab.guest.console import GuestConsole
from lab.guest.domains import pty_console
from lab.host.daemon import HostDaemon
from lab.running import Lab
from lab.steps import Steps

IMAGE_MIB = 128
# Behind the guest's own boot loader, kernel and initramfs.
PATTERN_AT_MIB = 96
PATTERN_MIB = 8
RECORDS = 20


class Play:
    """The engine's part, step by step."""

    def __init__(self, lab: Lab, daemon: HostDaemon, steps: Steps) -> None:
        self._lab = lab
        self._daemon = daemon
        self._steps = steps
        self._engine = Engine(lab, daemon)
        self._vm_id = new_id()
        self._system, self._data = (f"volume-{new_id()}" for _ in range(2))

    async def run(self) -> list[str]:
        """All steps; returns what they proved."""
        await self._step("the engine connects with its certificate", self._engine.connect())
        await self._step("its CEPHX key becomes a libvirt secret", self._engine.register_key())
        with self._steps.step("two images in the pool, as Cinder would make them"):
            guest = self._lab.guest
            self._lab.ceph.create_image(self._system, IMAGE_MIB, guest.boot_image)
            self._lab.ceph.create_image(self._data, IMAGE_MIB)
        await self._step("VM.create, and the event that the VM is Up", self._create())
        with self._open_console() as console:
            with self._steps.step("the guest boots from Ceph, through three monitors"):
                console.wait_ready(120)
            self._write(console, "vda", self._system)
            await self._step("VM.hotplugDisk, and the guest has the disk", self._plug(console))
            self._write(console, "vdb", self._data)
            survived = self._lose_monitor(console)
            await self._step("VM.hotunplugDisk, and the guest lets go", self._unplug(console))
        statistics = await self._statistics()
        ended = await self._step("VM.shutdown, and the event that it is Down", self._shut_down())
        await self._step("VM.destroy", self._engine.destroy(self._vm_id))
        await self._engine.session.close()
        return [
            "The guest booted from an RBD image and wrote to it, with CEPHX and three monitors;",
            f"  the {PATTERN_MIB} MiB that it wrote to each disk are what rbd read back.",
            "A second disk came and went while the VM ran.",
            f"With monitor b killed, the guest wrote {survived} more records.",
            f"Statistics of vda: {statistics}",
            f"The engine was told how it ended: {ended}",
        ]

    async def _step(self, title: str, work: Awaitable[Any]) -> Any:
        with self._steps.step(title):
            return await work

    async def _create(self) -> None:
        disk = self._engine.disk(self._system, bootOrder="1", index="0")
        await self._engine.run(self._engine.flat(self._vm_id, disk, vmName="demo"))

    def _open_console(self) -> GuestConsole:
        host = self._daemon.host
        return pty_console(host, host.virsh("ttyconsole", self._vm_id))

    def _write(self, console: GuestConsole, disk: str, image: str) -> None:
        title = f"the guest writes {PATTERN_MIB} MiB to {disk}, rbd reads them back"
        with self._steps.step(title) as step:
            step.progress("writing")
            written = console.write(disk, PATTERN_AT_MIB, PATTERN_MIB, f"demo-{disk}")
            step.progress("reading back")
            read = self._lab.ceph.checksum(image, PATTERN_AT_MIB, PATTERN_MIB)
        if written != read:
            raise LabError(f"image {image} does not hold what the guest wrote to {disk}")

    async def _plug(self, console: GuestConsole) -> None:
        drive = self._engine.disk(self._data)
        await self._engine.call(
            "VM.hotplugDisk", vmID=self._vm_id, params={"vmId": self._vm_id, "drive": drive}
        )
        console.wait_for("^disk vdb added")

    def _lose_monitor(self, console: GuestConsole) -> int:
        """Kill a monitor while the guest writes; how many records it wrote after that."""
        with self._steps.step("monitor b is killed while the guest goes on writing") as step:
            console.send("hammer vdb")
            before = int(console.wait_for(r"^hammer vdb (\d+)")[1])
            self._lab.ceph.kill_mon("b")
            step.progress("waiting for the other two to form a quorum")
            self._lab.ceph.wait_quorum(2)
            wanted = int(console.wait_for(r"^hammer vdb (\d+)")[1]) + RECORDS
            while (record := int(console.wait_for(r"^hammer vdb (\d+)", 60)[1])) < wanted:
                step.progress(f"{record - before} of {RECORDS} records")
            console.send("stop")
            total = int(console.wait_for(r"^hammered vdb (\d+)", 60)[1])
            self._lab.ceph.start_mon("b")
        return total - before

    async def _unplug(self, console: GuestConsole) -> None:
        drive = {"path": f"{self._lab.ceph.pool}/{self._data}"}
        await self._engine.call(
            "VM.hotunplugDisk", vmID=self._vm_id, params={"vmId": self._vm_id, "drive": drive}
        )
        if "vdb" in console.disks() or self._lab.ceph.watchers(self._data):
            raise LabError("VM.hotunplugDisk returned although the disk is still in use")

    async def _statistics(self) -> str:
        (statistics,) = await self._engine.call("VM.getStats", vmID=self._vm_id)
        disk = statistics["disks"]["vda"]
        return f"{disk['readBytes']} bytes read, {disk['writtenBytes']} written."

    async def _shut_down(self) -> str:
        await self._engine.call("VM.shutdown", vmID=self._vm_id, delay=0, message="", timeout=30)
        told = await self._engine.wait_status(self._vm_id, "Down")
        return str(told["exitMessage"])


OPENING = "A Ceph cluster, a hypervisor and a guest, all real, on this machine alone:"

if __name__ == "__main__":
    sys.exit(Show("lab.demo", OPENING, on_host1(lambda *parts: Play(*parts).run())).main())
