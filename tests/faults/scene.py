# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fault happens to: a daemon that is restarted as systemd would, VMs, a guest that writes.

A Scene goes through one row after the other, on host2 of the lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lab.base import LabError
from lab.engine import Engine, client_context, new_id, secret_params
from lab.guest.console import GuestConsole
from lab.guest.domains import console_of, disk_xml
from lab.guest.records import Comparison, compare
from lab.host.daemon import HostDaemon
from lab.running import Lab
from tests.faults.calling import CallingEngine
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp import client

DISK_MIB = 64
LOOK_S = 0.05
# systemd/vdsm-cinderd.service, RestartSec=
RESTART_S = 0.5
OPTIONS: Mapping[str, Mapping[str, Any]] = {"vms": {"hotunplug_timeout_s": 10}}


class Late(Exception):
    """Something did not come about in time; the text says what, for the table."""


class Keeper:
    """Starts the daemon again when it ends by itself, as systemd does. restarts: how often."""

    def __init__(self, daemon: HostDaemon) -> None:
        self.daemon = daemon
        self.restarts = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the daemon and watch over it."""
        await asyncio.to_thread(self.daemon.start)
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stop the daemon, or see that it has stopped."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self.daemon.runs:
            await asyncio.to_thread(self.daemon.stop)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if self.daemon.runs:
                continue
            self.restarts += 1
            await asyncio.sleep(RESTART_S)
            with contextlib.suppress(LabError):  # it will be tried again
                await asyncio.to_thread(self.daemon.launch)


@dataclass
class Writer:
    """A guest that writes numbered records to vda; those it said are on disk are counted.

    pid: of its QEMU process, inside the host.
    """

    id: str
    image: str
    console: GuestConsole
    pid: int
    run: int = 0

    @property
    def name(self) -> str:
        """The domain's name."""
        return f"vm-{self.id}"

    def acknowledged(self) -> int:
        """How many records of this run the guest was told are on disk."""
        with contextlib.suppress(LabError):
            self.console.wait_for("^(?!)", 0)
        found = re.findall(r"^lab: hammer vda (\d+)\n", self.console.transcript, re.MULTILINE)
        return int(found[-1]) + 1 if found else 0

    def begin(self) -> None:
        """Begin to write a run of its own."""
        self.run = random.randrange(1, 10**6)
        self.console.transcript = ""
        self.console.send(f"hammer vda {self.run}")

    def stop(self) -> None:
        """Have it stop after the record that it writes now."""
        self.console.ask("stop", r"^hammered vda (\d+)$")


class Scene:
    """The lab's host2 with all that the rows need.

    engine: sets things up and examines them; calling: the one that calls all the time.
    belongings: what rows have added, which goes with the scene. cast: kill_during_verb.py's.
    dismissed: VMs that a row has ended on purpose.
    """

    def __init__(self, lab: Lab, daemon: HostDaemon) -> None:
        self.lab = lab
        self.host = daemon.host
        self.ceph = lab.ceph
        self.daemon = daemon
        self.keeper = Keeper(daemon)
        self.engine = Engine(lab, daemon)
        self.writer: Writer | None = None
        self.bystander = ""
        self._spare = f"volume-{new_id()}"
        self.belongings = AsyncExitStack()
        self.cast: Any = None
        self.dismissed: set[str] = set()
        self.calling = CallingEngine(daemon.pki, (self.host.address, daemon.port))

    # Making and removing

    async def build(self) -> None:
        """Register the key and run two VMs: one that writes, and one beside it."""
        await self.connect()
        await self.engine.register_key()
        key = self.engine.secret_id
        self.calling.keys = {key: secret_params(key, self.ceph.key)}
        await asyncio.to_thread(self.ceph.create_image, self._spare, 8)
        await self.make_bystander()
        await self.make_writer()

    async def connect(self) -> None:
        """Connect the engine that sets things up, once the daemon knows its VMs."""
        await until(self.is_ready, "the daemon to be ready", 60)
        await self._connect()

    async def _connect(self) -> None:
        """Connect; a daemon that was restarted has lost the key, for here no systemd keeps it."""
        await self.engine.connect()
        if self.calling.keys:
            await self.engine.register_key()

    async def make_writer(self) -> None:
        """Run a VM whose guest can write."""
        image, vm_id = f"volume-{new_id()}", new_id()
        await asyncio.to_thread(self.ceph.create_image, image, DISK_MIB)
        disk = disk_xml(self.ceph, image, "vda", self.engine.secret_id)
        await self.engine.run(self.engine.document(vm_id, disk))
        console = console_of(self.host, f"vm-{vm_id}")
        await asyncio.to_thread(console.wait_for, "^ready", 120)
        pid = (await self.engine.call("VM.getInfo", vmID=vm_id))["pid"]
        self.writer = Writer(vm_id, image, console, pid)
        self.calling.reads = (
            ("VM.getStats", {"vmID": vm_id}),
            ("Host.getAllVmStats", {}),
            ("Host.ping2", {}),
            ("VM.getStats", {"vmID": self.bystander}),
        )

    async def make_bystander(self) -> None:
        """Run a VM with a disk and nothing to boot."""
        image, self.bystander = f"volume-{new_id()}", new_id()
        await asyncio.to_thread(self.ceph.create_image, image, DISK_MIB)
        await self.engine.run(self.engine.flat(self.bystander, self.engine.disk(image)))
        tunables = {"name": "vda", "ioTune": {"total_iops_sec": 1000}}
        change = {"vmID": self.bystander, "tunables": [tunables]}
        self.calling.changes = (("VM.setIoTune", change),)

    async def remove_vms(self) -> None:
        """End every VM of the daemon's and forget it."""
        await self.connect()
        for vm in await self.engine.call("Host.getVMList"):
            with contextlib.suppress(RemoteError):
                await self.engine.destroy(vm["vmId"])

    # What is to be seen

    @property
    def writing(self) -> Writer:
        """The VM that writes; build() made it."""
        assert self.writer is not None, "build() comes first"
        return self.writer

    async def health(self) -> dict[str, Any]:
        """What the daemon says of itself; {} while nobody answers."""
        try:
            return await asyncio.to_thread(self.daemon.health)
        except (OSError, ValueError):
            return {}

    async def is_ready(self) -> bool:
        """Whether the daemon says that all is well."""
        return (await self.health()).get("status") == "ready"

    async def stats(self) -> dict[str, Any]:
        """The statistics of the VM that writes; {} while nobody answers."""
        return await self._asked(self.writing.id)

    async def _asked(self, vm_id: str) -> dict[str, Any]:
        (stats,) = await self.asked("VM.getStats", vmID=vm_id) or ({},)
        found: dict[str, Any] = stats
        return found

    async def asked(self, verb: str, **params: Any) -> Any:
        """What a verb answers; None if it does not, and then the engine connects anew."""
        try:
            return await self.engine.call(verb, **params)
        except (OSError, RemoteError, asyncio.TimeoutError):
            with contextlib.suppress(OSError, RemoteError, asyncio.TimeoutError):
                await self._connect()
            return None

    async def another_client(self) -> None:
        """Connect and hang up, as a new client. Raises OSError, of which SSLError is one."""
        context = client_context(self.daemon.pki, self.daemon.pki.engine)
        session = await client.connect(self.host.address, self.daemon.port, context, 0)
        await session.close()

    async def statuses(self) -> tuple[str, str]:
        """What the API says of the VM that writes and of the other."""
        first, second = await self._asked(self.writing.id), await self._asked(self.bystander)
        return str(first.get("status")), str(second.get("status"))

    def qemus(self) -> dict[str, int]:
        """The QEMU processes of this host by the VM that they run; -1 for one that has several."""
        listed = self.host.run(["pgrep", "--list-full", "qemu-system"])
        found: dict[str, int] = {}
        for line in listed.splitlines():
            uuid = re.search(r" -uuid (\S+)", line)
            if uuid is not None:
                found[uuid[1]] = -1 if uuid[1] in found else int(line.split()[0])
        return found

    def judge(self) -> Comparison:
        """What the image holds of the run."""
        writer = self.writing
        return compare(self.ceph, writer.image, writer.run, writer.acknowledged())

    # What is done to it

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of the host."""
        self.host.namespace.kill(pid, number)

    async def plug_and_unplug(self) -> None:
        """Plug a disk into the VM that writes, and unplug it; its guest has to see both."""
        params = {"vmId": self.writing.id, "drive": self.engine.disk(self._spare)}
        await self.engine.call("VM.hotplugDisk", vmID=self.writing.id, params=params)
        await asyncio.to_thread(self.writing.console.wait_for, "^disk vdb added")
        await self.engine.call("VM.hotunplugDisk", vmID=self.writing.id, params=params)
        await asyncio.to_thread(self.writing.console.wait_for, "^disk vdb removed")


async def until(look: Callable[[], Awaitable[Any]], what: str, timeout_s: float) -> float:
    """Look again and again until what is looked for is there; how long that took, in seconds.

    Raises Late.
    """
    began_s = time.monotonic()
    while not await look():
        if time.monotonic() - began_s > timeout_s:
            raise Late(f"waited {timeout_s:g} s for {what} in vain")
        await asyncio.sleep(LOOK_S)
    return time.monotonic() - began_s


@asynccontextmanager
async def scene(
    lab: Lab, options: Mapping[str, Mapping[str, Any]], environment: Mapping[str, str]
) -> AsyncIterator[Scene]:
    """A scene that is built, on host2, with a daemon of these options; nothing is left of it."""
    merged = {k: {**OPTIONS.get(k, {}), **options.get(k, {})} for k in {*OPTIONS, *options}}
    daemon = HostDaemon(lab.hosts["host2"], lab.pki, merged, "faults", environment)
    made = Scene(lab, daemon)
    async with AsyncExitStack() as stack:
        await made.keeper.start()
        stack.push_async_callback(made.keeper.stop)
        stack.push_async_callback(made.remove_vms)
        await stack.enter_async_context(made.belongings)
        await made.build()
        yield made
