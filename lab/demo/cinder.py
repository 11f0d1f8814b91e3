# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo with Cinder: an engine that has volumes made, runs VMs on them and takes snapshots.

`make demo-cinder`. What Cinder answers goes to the daemon as it came.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from lab.base import LabError
from lab.cinder.volumes import Volumes
from lab.demo.stage import Show, on_host1
from lab.engine import Engine, new_id, secret_params
from lab.guest.console import GuestConsole
from lab.guest.domains import pty_console
from lab.guest.image import pattern_checksum
from lab.host.daemon import HostDaemon
from lab.running import Lab
from lab.steps import Steps

OPENING = "A Ceph cluster, a hypervisor and a Cinder, all real, on this machine alone:"
GIB = 1024**3
LIMIT_IOPS = 4000
BOOT_S = 180


class Play:
    """The engine's part, step by step."""

    def __init__(self, lab: Lab, daemon: HostDaemon, steps: Steps) -> None:
        self._lab = lab
        self._host = daemon.host
        self._step = steps.step
        self._engine = Engine(lab, daemon)
        self._volumes = Volumes(lab.cinder.url, daemon.host.name)

    async def run(self) -> list[str]:
        """All steps; returns what they proved."""
        with self._step("the engine connects, and registers Ceph's key as Cinder names it"):
            await self._connect()
        with self._step("Cinder takes over a golden image, and makes a volume with a limit"):
            system, data = self._make_volumes()
        with self._step("Cinder initializes a connection to each"):
            answers = [self._volumes.attach(volume) for volume in (system, data)]
        first, copy_vm = new_id(), new_id()
        with self._step("VM.create with Cinder's answer, and the guest boots from the volume"):
            console = await self._boot(first, answers[0])
        with console:
            await self._use(first, console, data, answers[1])
            snapshots = await self._snapshot(first, console, (system, data))
            with self._step("VM.hotunplugDisk, VM.destroy"):
                await self._unplug(first, answers[1])
                await self._engine.destroy(first)
        with self._step("Cinder makes volumes from the snapshots"):
            copies = [
                self._volumes.create(size, snapshot_id=snapshot)
                for size, snapshot in zip((1, 2), snapshots)
            ]
            answers = [self._volumes.attach(volume) for volume in copies]
        with self._step("a second VM boots from the first one's snapshot"):
            console = await self._boot(copy_vm, answers[0])
        with console, self._step("it mounts the other snapshot: the file is as it was when frozen"):
            await self._read_back(copy_vm, console, answers[1])
            await self._engine.destroy(copy_vm)
        with self._step("connections are terminated, volumes and snapshots deleted"):
            self._delete((system, data, *copies), copies, snapshots)
        await self._engine.session.close()
        return [
            "A VM ran on what Cinder answered, untranslated: it booted from one volume,",
            f"  and got the other, limited to {LIMIT_IOPS} operations a second, while it ran.",
            "The volume grew from 1 to 2 GiB in use, and the guest saw it at once.",
            "Snapshots were taken while the guest was frozen; a second VM booted from one",
            "  and found the file on the other whole, and without what was written later.",
            "Cinder has no volume left, and the pool no image.",
        ]

    async def _connect(self) -> None:
        await self._engine.connect()
        # A Cinder that was told no secret names the one that has the cluster's own id.
        fsid = json.loads(self._lab.ceph.ceph("--format", "json", "fsid"))["fsid"]
        secret = secret_params(fsid, self._lab.ceph.key)
        await self._engine.call("Host.registerSecrets", secrets=[secret])

    def _make_volumes(self) -> tuple[str, str]:
        self._lab.ceph.create_image("golden", 1024, self._lab.guest.boot_image)
        self._volumes.create_type("limited", {"total_iops_sec": str(LIMIT_IOPS)})
        return self._volumes.manage("golden"), self._volumes.create(1, volume_type="limited")

    async def _boot(self, vm_id: str, answer: Mapping[str, Any]) -> GuestConsole:
        disk = {"type": "disk", "device": "disk", "bootOrder": "1", "connectionInfo": answer}
        await self._engine.run(self._engine.flat(vm_id, disk))
        console = pty_console(self._host, self._host.virsh("ttyconsole", vm_id))
        console.wait_ready(BOOT_S)
        return console

    async def _plug(self, vm_id: str, answer: Mapping[str, Any]) -> None:
        drive = {"deviceId": new_id(), "connectionInfo": answer}
        params = {"vmId": vm_id, "drive": drive}
        await self._engine.call("VM.hotplugDisk", vmID=vm_id, params=params)

    async def _unplug(self, vm_id: str, answer: Mapping[str, Any]) -> None:
        params = {"vmId": vm_id, "drive": {"connectionInfo": answer}}
        await self._engine.call("VM.hotunplugDisk", vmID=vm_id, params=params)

    async def _use(
        self, vm_id: str, console: GuestConsole, data: str, answer: Mapping[str, Any]
    ) -> None:
        with self._step("VM.hotplugDisk with Cinder's answer, and the guest writes to the disk"):
            await self._plug(vm_id, answer)
            console.wait_for("^disk vdb added")
            written = console.write("vdb", 0, 2, "cinder")
            read = self._lab.ceph.checksum(f"volume-{data}", 0, 2)
            _expect(written == read == pattern_checksum(2, "cinder"), "the volume lacks the data")
        with self._step("Cinder's limit is in force"):
            told = await self._engine.call("VM.getIoTune", vmID=vm_id)
            limits = [t["ioTune"]["total_iops_sec"] for t in told if t["name"] == "vdb"]
            _expect(limits == [LIMIT_IOPS], f"the limits of vdb are {limits}")
        with self._step("Cinder extends the volume in use, VM.diskSizeExtend tells the guest"):
            self._volumes.extend(data, 2)
            size, spec = str(2 * GIB), {"volumeID": data}
            await self._engine.call("VM.diskSizeExtend", vmID=vm_id, driveSpecs=spec, newSize=size)
            console.wait_for(f"^disk vdb resized {size}$")

    async def _snapshot(
        self, vm_id: str, console: GuestConsole, volumes: tuple[str, ...]
    ) -> list[str]:
        with self._step("the guest makes a file system on it, and writes a file"):
            made = "mkfs.ext4 -q -F /dev/vdb && mount /dev/vdb /mnt && echo before >/mnt/log"
            console.ask(f"sh {made} && say made", "^made$")
        with self._step("VM.snapshot freezes the guest, Cinder makes snapshots, VM.thaw"):
            await self._engine.call("VM.snapshot", vmID=vm_id, snapDrives=[], snapMemory=None)
            # This waits until the guest is thawed, and so is in no snapshot.
            console.ask("sh (echo after >>/mnt/log; sync; say written) & say tries", "^tries$")
            snapshots = [self._volumes.snapshot(volume) for volume in volumes]
            await self._engine.call("VM.thaw", vmID=vm_id)
            console.wait_for("^written$")
        console.ask("sh umount /mnt; say let go", "^let go$")
        return snapshots

    async def _read_back(
        self, vm_id: str, console: GuestConsole, answer: Mapping[str, Any]
    ) -> None:
        await self._plug(vm_id, answer)
        console.wait_for("^disk vdb added")
        read = "mount -o ro /dev/vdb /mnt && say \"log $(cat /mnt/log | tr '\\n' ' ')\""
        log = console.ask(f"sh {read}", "^log (.*)")[1].split()
        _expect(log == ["before"], f"the file holds {log}")

    def _delete(self, volumes: tuple[str, ...], copies: list[str], snapshots: list[str]) -> None:
        for volume in volumes:
            self._volumes.detach(volume)
        for copy in copies:
            self._volumes.delete(copy)
        for snapshot in snapshots:
            self._volumes.delete_snapshot(snapshot)
        for volume in volumes[: -len(copies)]:
            self._volumes.delete(volume)
        left = self._volumes.ids()
        _expect(not any(left.values()), f"Cinder still has {left}")
        _expect(not self._lab.ceph.images(), f"the pool still has {self._lab.ceph.images()}")


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise LabError(otherwise)


if __name__ == "__main__":
    show = Show(
        "lab.demo.cinder", OPENING, on_host1(lambda *parts: Play(*parts).run()), with_cinder=True
    )
    sys.exit(show.main())
