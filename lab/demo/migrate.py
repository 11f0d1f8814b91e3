# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo of migration: a VM goes from one hypervisor to another and back while its guest writes.

`make demo-migrate`. It plays the engine inside the lab's network.
"""

from __future__ import annotations

import asyncio
import sys

from lab.base import LabError
from lab.demo.stage import Show, on_host1
from lab.engine import Engine
from lab.host.daemon import HostDaemon
from lab.migrating_vm import Traveller
from lab.running import Lab
from lab.steps import Steps

SLOW_MIB_S = 4
RECORDS = 20


class Play:
    """The engine's part, step by step."""

    def __init__(self, lab: Lab, daemon: HostDaemon, steps: Steps) -> None:
        self._steps = steps
        self._second = HostDaemon(lab.hosts["host2"], lab.pki)
        self._engines = [Engine(lab, daemon), Engine(lab, self._second)]
        self._vm = Traveller(self._engines)

    async def run(self) -> list[str]:
        """All steps; returns what they proved."""
        with self._steps.step("vdsm-cinderd starts on host2"):
            self._second.start()
        try:
            return await self._run()
        finally:
            self._second.stop()

    async def _run(self) -> list[str]:
        with self._steps.step("the engine connects to both, and each has the CEPHX key"):
            for engine in self._engines:
                engine.secret_id = self._engines[0].secret_id
                await engine.connect()
                await engine.register_key()
        with self._steps.step("VM.create on host1; the guest boots and writes to its RBD image"):
            await self._vm.__aenter__()
            await self._vm.begin()
        try:
            downtimes_ms = [await self._go("host2"), await self._go("host1")]
            kept = await self._cancelled()
            survived_ms = await self._daemon_killed()
            with self._steps.step("the guest stops; rbd reads what it wrote"):
                found = await self._vm.stop()
        finally:
            await self._vm.__aexit__(None, None, None)
        for engine in self._engines:
            await engine.session.close()
        if found.lost or found.strange:
            raise LabError(f"{len(found.lost)} of {found.acknowledged} records are lost")
        return [
            "The VM ran on host1, host2, host1 and host2, and never on both;",
            f"  it stood still for {', '.join(f'{ms} ms' for ms in downtimes_ms)},",
            f"  and for {survived_ms} ms where the source's daemon was killed under way.",
            f"Cancelled, it stayed where it was; its guest wrote {kept} records.",
            f"Of {found.acknowledged} records that its guest was told are on disk none is lost.",
        ]

    async def _go(self, name: str) -> int:
        with self._steps.step(f"VM.migrate to {name}: Up there, and Down here") as step:
            await self._vm.migrate()
            step.progress("its memory is copied")
            return await self._vm.arrives()

    async def _cancelled(self) -> int:
        with self._steps.step("VM.migrate, slowly, and VM.migrateCancel: Up here as before"):
            before = self._vm.acknowledged()
            await self._vm.migrate(maxBandwidth=SLOW_MIB_S)
            await self._vm.here.call("VM.migrateCancel", vmID=self._vm.id)
            await self._vm.writes_on(RECORDS)
        return self._vm.acknowledged() - before

    async def _daemon_killed(self) -> int:
        source = self._vm.here.daemon
        assert isinstance(source, HostDaemon)
        with self._steps.step("the source's daemon is killed under way, and started again") as step:
            await self._vm.migrate(maxBandwidth=SLOW_MIB_S)
            await self._vm.copying()
            source.kill()
            await asyncio.to_thread(source.start)
            await self._vm.here.connect()
            step.progress("it has found the migration, and is told to hurry")
            limits = {"maxBandwidth": 0}
            await self._vm.here.call("VM.migrateChangeParams", vmID=self._vm.id, params=limits)
            return await self._vm.arrives()


OPENING = "A Ceph cluster, two hypervisors and a guest, all real, on this machine alone:"

if __name__ == "__main__":
    sys.exit(
        Show(
            "lab.demo.migrate", OPENING, on_host1(lambda *parts: Play(*parts).run()), hosts=2
        ).main()
    )
