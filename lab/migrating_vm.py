# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM whose guest writes records while it migrates between two hosts of the lab.

What its guest was told is on disk can be compared with what its image holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from lab.base import LabError
from lab.engine import Engine, new_id
from lab.guest.console import GuestConsole
from lab.guest.domains import pty_console
from lab.guest.records import Comparison, compare
from vdsmcinder.errors import RemoteError

DISK_MIB = 64
NO_SUCH_VM = 1


class Traveller:
    """One VM, and the engines of the daemons between which it goes.

    engines: each with a daemon of its own; the key is registered with all of them under the same
    uuid. more: devices beside its disk. here: the one whose host it is on. writing: its guest has
    been told to write, and not to stop. Use it as an async context manager: its guest obeys then,
    and at the end nothing is left of it on any host.
    """

    def __init__(self, engines: Sequence[Engine], *more: Mapping[str, Any], **changes: Any) -> None:
        self.engines = list(engines)
        self.here = self.engines[0]
        self.id = new_id()
        self.image = f"volume-{new_id()}"
        self.run = 0
        self.writing = False
        self.records = 0
        self._heard_before = 0
        self._more = more
        self._changes = changes
        self._console: GuestConsole | None = None

    async def __aenter__(self) -> Traveller:
        lab, engine = self.here.lab, self.here
        await asyncio.to_thread(lab.ceph.create_image, self.image, DISK_MIB)
        boot = lab.guest
        params = engine.flat(
            self.id,
            engine.disk(self.image),
            *self._more,
            kernel=str(boot.kernel),
            initrd=str(boot.initrd),
            kernelArgs=boot.kernel_args,
            **self._changes,
        )
        await engine.run(params)
        self.look_at(engine)
        await asyncio.to_thread(self.console.wait_ready, 120)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._console is not None:
            self._console.close()
        for engine in self.engines:
            with contextlib.suppress(RemoteError):
                await engine.destroy(self.id)
        ceph = self.here.lab.ceph
        if not await asyncio.to_thread(ceph.watchers, self.image):
            await asyncio.to_thread(ceph.remove_image, self.image)

    @property
    def there(self) -> Engine:
        """The engine of the other host, of two."""
        (other,) = (engine for engine in self.engines if engine is not self.here)
        return other

    @property
    def console(self) -> GuestConsole:
        """The guest's console on the host that it is on."""
        assert self._console is not None, "look_at() comes first"
        return self._console

    def look_at(self, engine: Engine) -> None:
        """Read the guest's console on that engine's host from now on."""
        if self._console is not None:
            self._note()
            self._console.close()
        self.here, self._heard_before = engine, 0
        host = engine.daemon.host
        self._console = pty_console(host, host.virsh("ttyconsole", self.id))

    # Writing

    async def begin(self) -> None:
        """Have the guest write a run of its own; returns when the first record is on disk."""
        self.run, self.records = random.randrange(1, 10**6), 0
        self.writing = True
        # What the guest said of the run before stands there still.
        self.console.hear()
        self._heard_before = len(self.console.transcript)
        await asyncio.to_thread(self.console.send, f"hammer vda {self.run}")
        await self.writes_on(1)

    def acknowledged(self) -> int:
        """How many records of this run the guest said are on disk, as far as it was heard."""
        self.console.hear()
        self._note()
        return self.records

    def _note(self) -> None:
        assert self._console is not None
        said = self._console.transcript[self._heard_before :]
        found = re.findall(r"^lab: hammer vda (\d+)\n", said, re.MULTILINE)
        self.records = max([self.records, *(int(number) + 1 for number in found[-1:])])

    async def writes_on(self, more: int, timeout_s: float = 60) -> None:
        """Return when the guest has written so many records more."""
        wanted, until_s = self.acknowledged() + more, time.monotonic() + timeout_s
        while self.acknowledged() < wanted:
            if time.monotonic() > until_s:
                raise LabError(f"the guest did not write {more} more records in {timeout_s:g} s")
            await asyncio.sleep(0.02)

    async def stop(self) -> Comparison:
        """Have the guest stop writing; what the image holds of what it was told is on disk."""
        match = await asyncio.to_thread(self.console.ask, "stop", r"^hammered vda (\d+)$")
        self.records = int(match[1])
        self.writing = False
        return await asyncio.to_thread(self.judge, self.records)

    def judge(self, acknowledged: int) -> Comparison:
        """What the image holds of so many records."""
        return compare(self.here.lab.ceph, self.image, self.run, acknowledged)

    # Going

    def destination(self, engine: Engine | None = None) -> str:
        """The other host as VM.migrate takes it."""
        daemon = (engine or self.there).daemon
        return f"{daemon.host.name}:{daemon.port}"

    async def migrate(self, **params: Any) -> None:
        """VM.migrate to the other host; returns when that has accepted the VM."""
        wanted = {"vmId": self.id, "dst": self.destination(), "dstparams": "", **params}
        await self.here.call("VM.migrate", vmID=self.id, params=wanted)

    async def copying(self, timeout_s: float = 30) -> None:
        """Return when libvirt copies its memory: the daemon could die now and libvirt go on."""
        host, until_s = self.here.daemon.host, time.monotonic() + timeout_s
        while True:
            said = await asyncio.to_thread(host.virsh, "domjobinfo", self.id)
            if "Outgoing migration" in said and "Memory processed" in said:
                return
            if time.monotonic() > until_s:
                raise LabError(f"libvirt did not begin to copy within {timeout_s:g} s: {said}")
            await asyncio.sleep(0.02)

    async def arrives(self, timeout_s: float = 120) -> int:
        """Return when it is Up there and Down here, and forgotten here; the downtime in ms."""
        left, engine, until_s = self.here, self.there, time.monotonic() + timeout_s
        while not await self._has_moved(left, engine):
            if time.monotonic() > until_s:
                raise LabError(f"the VM did not arrive within {timeout_s:g} s")
            # A console that nobody reads makes QEMU's serial port stand, on the other host too.
            self.acknowledged()
            await asyncio.sleep(0.02)
        status = await left.call("VM.getMigrationStatus", vmID=self.id)
        await left.destroy(self.id)
        self.look_at(engine)
        downtime_ms: int = status["downtime"]
        return downtime_ms

    async def _has_moved(self, left: Engine, engine: Engine) -> bool:
        (stats,) = await left.call("VM.getStats", vmID=self.id)
        if stats["status"] == "Up":
            raise LabError(f"the VM stays on {left.daemon.host.name}")
        if stats["status"] != "Down":
            return False
        if stats["exitReason"] != 4:
            raise LabError(f"the VM left {left.daemon.host.name} otherwise: {stats}")
        (stats,) = await engine.call("VM.getStats", vmID=self.id)
        return bool(stats["status"] == "Up")

    async def go(self, **params: Any) -> int:
        """Migrate to the other host and be there; the downtime in ms."""
        await self.migrate(**params)
        return await self.arrives()
