# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts with their daemons, and a VM that writes and is to go from one to the other.

A Road goes through one row after the other, while it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from lab.base import LabError
from lab.engine import Engine
from lab.host.daemon import HostDaemon
from lab.host.hypervisor import Host
from lab.migrating_vm import Traveller
from lab.running import Lab
from tests.faults.scene import LOOK_S, Keeper, until
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp.client import SessionLost

# Of its memory a guest of the lab has some 60 MiB in use.
SLOW_MIB_S = 2
FAST_MIB_S = 1024
ABSENT = "absent"
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "migration": {
        "arrival_timeout_s": 10,
        "progress_interval_s": 0.2,
    }
}


class PatientKeeper(Keeper):
    """One that can be told to leave a daemon where it is."""

    def __init__(self, daemon: HostDaemon) -> None:
        super().__init__(daemon)
        self._watching: asyncio.Task[None] | None = None

    async def hold_down(self) -> None:
        """Kill the daemon, and do not start it again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self.daemon.kill)

    async def let_up(self) -> None:
        """Start it and watch over it again."""
        await self.start()


class Road:
    """Two hosts, a daemon and an engine on each, and the VM, which is on one of them.

    vm: made by new_vm(). seen: what both daemons said of it, over and over; see watch().
    """

    def __init__(self, lab: Lab, daemons: list[HostDaemon]) -> None:
        self.lab = lab
        self.daemons = daemons
        self.engines = [Engine(lab, daemon) for daemon in daemons]
        self.seen: list[tuple[str | None, ...]] = []
        self._keepers = {id(daemon): PatientKeeper(daemon) for daemon in daemons}
        self._vm: Traveller | None = None
        self._asked: asyncio.Task[None] | None = None

    # Who is who

    @property
    def vm(self) -> Traveller:
        """The VM that goes."""
        assert self._vm is not None, "new_vm() comes first"
        return self._vm

    @property
    def source(self) -> HostDaemon:
        """The daemon of the host that the VM is on."""
        return self.daemons[self.engines.index(self.vm.here)]

    @property
    def destination(self) -> HostDaemon:
        """The other daemon."""
        return self.daemons[1 - self.daemons.index(self.source)]

    def keeper(self, daemon: HostDaemon) -> PatientKeeper:
        """Who starts that daemon again when it ends."""
        return self._keepers[id(daemon)]

    # Making and removing

    async def build(self) -> None:
        """Start the daemons, connect the engines, register the key."""
        for keeper in self._keepers.values():
            await keeper.start()
        for engine in self.engines:
            engine.secret_id = self.engines[0].secret_id
            await engine.connect()
        await self.register_keys()

    async def register_keys(self) -> None:
        """As an engine does whose hosts have lost them: here no systemd keeps them for daemons."""
        for engine in self.engines:
            await engine.register_key()

    async def take_down(self) -> None:
        """End the VM, and the daemons."""
        await self.drop_vm()
        for keeper in self._keepers.values():
            await keeper.stop()

    async def new_vm(self) -> None:
        """Run a VM whose guest obeys, on the first host."""
        self._vm = Traveller(self.engines)
        await self._vm.__aenter__()

    async def drop_vm(self) -> None:
        """End the VM, wherever it is."""
        vm, self._vm = self._vm, None
        if vm is not None:
            for n in range(len(self.engines)):
                await self.reach(n)
            await vm.__aexit__(None, None, None)

    @property
    def has_vm(self) -> bool:
        """Whether there is one that lives."""
        return self._vm is not None

    # Going

    async def depart(self, mib_s: int = SLOW_MIB_S, **params: Any) -> None:
        """Call VM.migrate and do not wait for its answer."""
        self._asked = asyncio.create_task(self.vm.migrate(maxBandwidth=mib_s, **params))

    async def answered(self) -> str:
        """What VM.migrate answered: 'accepted', the code of its refusal, or 'cut off'."""
        assert self._asked is not None, "depart() comes first"
        try:
            await self._asked
        except RemoteError as e:
            return f"code {e.code}"
        except (SessionLost, OSError):
            return "cut off"
        return "accepted"

    async def copying(self) -> None:
        """Return when libvirt copies the VM's memory."""
        await self.answered()
        await self.vm.copying()

    async def switch(self) -> None:
        """Go over to post-copy; returns when the guest runs on the destination."""

        async def runs_there() -> bool:
            # QEMU takes it only once it copies, of which libvirt tells a little too early.
            await virsh(self.source.host, "migrate-postcopy", self.vm.id)
            state = await virsh(self.destination.host, "domstate", "--reason", self.vm.id)
            return state == "running (post-copy)"

        await until(runs_there, "the guest to run on the destination", 30)

    async def hurry(self) -> None:
        """Have the rest of the copying done as fast as it goes."""
        for phase in ([], ["--postcopy"]):
            await virsh(self.source.host, "migrate-setspeed", self.vm.id, FAST_MIB_S, *phase)

    async def left(self) -> None:
        """Return when there is no QEMU process of the VM on its source any more."""
        host = self.source.host

        async def gone() -> bool:
            return not await asyncio.to_thread(self.qemus, host)

        await until(gone, "QEMU on the source to end", 60)

    # Looking

    def qemus(self, host: Host) -> list[int]:
        """The QEMU processes that the VM has on a host, as that counts them."""
        try:
            listed = host.run(["pgrep", "--full", f"qemu-system.* -uuid {self.vm.id}"])
        except LabError:
            return []
        return [int(word) for word in listed.split()]

    async def running(self) -> list[int]:
        """The hosts, by number, on which libvirt says that the VM's CPUs run."""
        found = [await virsh(d.host, "domstate", self.vm.id) for d in self.daemons]
        return [n for n, state in enumerate(found) if state == "running"]

    async def reach(self, n: int) -> None:
        """Connect the engine of that host again if it was cut off."""
        with contextlib.suppress(RemoteError):
            try:
                await self.engines[n].session.call("Host.ping2", timeout_s=10)
            except (OSError, asyncio.TimeoutError):
                with contextlib.suppress(OSError, asyncio.TimeoutError):
                    await self.engines[n].connect()

    async def status(self, n: int) -> str | None:
        """What the daemon of that host says of the VM, or None while it does not answer."""
        params = {"vmID": self.vm.id}
        try:
            (stats,) = await self.engines[n].session.call("VM.getStats", params, timeout_s=10)
        except RemoteError as e:
            return ABSENT if e.code == 1 else None
        except (OSError, asyncio.TimeoutError):
            await self.reach(n)
            return None
        status: str = stats["status"]
        return status

    async def statuses(self) -> tuple[str | None, ...]:
        """What both daemons say of the VM."""
        return tuple(await asyncio.gather(self.status(0), self.status(1)))

    async def watch(self) -> None:
        """Note what both say, until this is cancelled."""
        await asyncio.gather(self._note_statuses(), self._listen())

    async def _note_statuses(self) -> None:
        while True:
            now = await self.statuses()
            if not self.seen or self.seen[-1] != now:
                self.seen.append(now)
            await asyncio.sleep(LOOK_S)

    async def _listen(self) -> None:
        """A console that nobody reads makes QEMU's serial port stand, on the other host too.

        So this waits for no daemon that is slow to say something.
        """
        while True:
            self.vm.acknowledged()
            await asyncio.sleep(LOOK_S)


async def virsh(host: Host, *words: object) -> str:
    """What virsh says on a host, be it an error."""
    try:
        return await asyncio.to_thread(host.virsh, *words)
    except LabError as e:
        return str(e)


@asynccontextmanager
async def road(lab: Lab, options: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[Road]:
    """A road between host1 and host2 with daemons of these options; nothing is left of it."""
    merged = {k: {**OPTIONS.get(k, {}), **options.get(k, {})} for k in {*OPTIONS, *options}}
    hosts = [lab.hosts["host1"], lab.hosts["host2"]]
    made = Road(lab, [HostDaemon(host, lab.pki, merged, "road") for host in hosts])
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.take_down)
        await made.build()
        yield made
