# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell of an outgoing migration: what goes on while it is under way, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest

from tests.refusals import libvirt_error
from vdsmcinder.config import Migration as MigrationOptions
from vdsmcinder.errors import MigrationFailed
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.disk.ceph_images import NO_IMAGES
from vdsmcinder.virt.domain.metadata import MigrationMark, VmMetadata
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.migration.common.context import Counts, Travel
from vdsmcinder.virt.migration.common.migration_job import Situation
from vdsmcinder.virt.migration.outgoing import shell
from vdsmcinder.virt.migration.outgoing.debts import Debts
from vdsmcinder.virt.migration.outgoing.shell import Outgoing
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.convergence import Schedule
from vdsmcinder.virt.vm.migration import Acceptance, Progress, Source
from vdsmcinder.virt.vm.migration_request import Address, MigrationRequest
from vdsmcinder.virt.vm.parts.commands import Commands
from vdsmcinder.virt.vm.parts.ending import Ending
from vdsmcinder.virt.vm.parts.io_errors import IoTrouble

ADDRESS = Address("host2", 54321)
RUNS = Situation(libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED, busy=False)
REQUEST = MigrationRequest(
    peer=ADDRESS,
    data_host="host2",
    console_address=None,
    auto_converge=False,
    compressed=False,
    abort_on_error=True,
    encrypted=False,
    connections=0,
    max_bandwidth_mib_s=0,
    schedule=Schedule(()),
    outgoing_limit=2,
    incoming_limit=None,
)


class Libvirt:
    """A domain that is copied until somebody ends that.

    figures: how many times they were asked for, as a condition to wait on.
    """

    call_timeout_s = 5.0
    open_another = None

    def __init__(self) -> None:
        self.aborted = asyncio.Event()
        self.looks = 0
        self.looked = asyncio.Condition()

    async def call(self, func: Any, *_: Any, timeout_s: float | None = None) -> None:
        assert func is migration_job.migrate
        await self.aborted.wait()
        raise libvirt_error("the job was cancelled")

    async def on_domain(self, _uuid: str, func: Any, *args: Any) -> Any:
        if func is migration_job.situation:
            return RUNS
        if func is migration_job.progress:
            async with self.looked:
                self.looks += 1
                self.looked.notify_all()
            return Progress(transferred=1, remaining=100)
        if func is libvirt.virDomain.abortJob:
            self.aborted.set()
            return None
        return lifecycle.RUNNING, "<domain/>"

    async def looked_again(self, times: int) -> None:
        until = self.looks + times
        async with self.looked:
            await asyncio.wait_for(self.looked.wait_for(lambda: self.looks >= until), 10)


class Peer:
    """The daemon of the other host, which takes whatever comes."""

    address = "192.0.2.2"

    def __init__(self) -> None:
        self.said: list[str] = []

    async def offer(self, _offer: object) -> Acceptance:
        return Acceptance(encryption=False)

    async def conclude(self, _vm_id: str, _migration_id: str, verdict: Any) -> None:
        self.said.append(verdict.value)

    async def keeps(self, _vm_id: str, _migration_id: str) -> bool:
        raise AssertionError("that is what it is asked, and does not ask")

    async def close(self) -> None:
        self.said.append("bye")


@pytest.fixture
async def host() -> Libvirt:
    return Libvirt()


@pytest.fixture
def web(host: Libvirt) -> Any:
    """A VM that may be migrated, of whose QEMU process nothing is known."""

    async def command(func: Any, *args: Any, doing: str, failure: Any) -> Any:
        if func is migration_job.set_speed:
            raise MigrationFailed("QEMU refused")
        return await host.on_domain("web", func, *args)

    vm = SimpleNamespace(
        id="web",
        name="web",
        pid=0,
        xml="<domain/>",
        io=IoTrouble(held=False),
        domain=SimpleNamespace(drives=(), ceph=NO_IMAGES, metadata=VmMetadata()),
        migration=None,
        running_since_s=0,
        wanted_exit=None,
        services=SimpleNamespace(connection=host),
        call=lambda func, *args: host.on_domain("web", func, *args),
        command=command,
        commands=Commands(),
        ending=Ending(),
        take=lambda document: None,
        apply=lambda change: None,
        happened=lambda change: None,
    )
    vm.settles = lambda: setattr(vm, "migration", None)
    return vm


@asynccontextmanager
async def leaving(web: Any, host: Any, **options: Any) -> AsyncIterator[tuple[Outgoing, Peer]]:
    """The VM, that leaves; all that is spawned for it is awaited in the end."""
    peer, tasks = Peer(), Tasks("migrations")

    async def dial(_address: Address) -> Peer:
        return peer

    unused: Any = None
    travel = Travel(
        host,
        SimpleNamespace(specs=list),  # type: ignore[arg-type]
        MigrationOptions(**options),
        dial,
        Source("host1"),
        lambda vm, progress: None,
        tasks,
        Counts(),
        unused,
    )
    debts = Debts(host, dial, unused, "host1", tasks)
    mark = MigrationMark("1", "", "", "confirmed")
    going = Outgoing(web, mark, ADDRESS, travel, debts=debts, request=REQUEST)
    web.migration = going
    tasks.spawn(going.run(), "leaves")
    going.its_turn()
    try:
        yield going, peer
    finally:
        if web.migration is None:
            await tasks.finish(10)
        await tasks.close()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "LOOK_S", 0.001)


async def test_it_is_watched_when_a_bandwidth_limit_cannot_be_set(
    web: Any, host: Libvirt, caplog: pytest.LogCaptureFixture
) -> None:
    async with leaving(web, host, stall_timeout_s=0.2) as (going, _):
        await going.answer
        await going.limit_bandwidth(8)
        await host.looked_again(5)
        assert "its bandwidth could not be limited (QEMU refused)" in caplog.text
        # Its figures never become less.
        await asyncio.wait_for(host.aborted.wait(), 10)


async def test_it_is_cancelled_and_the_other_host_is_told(web: Any, host: Libvirt) -> None:
    async with leaving(web, host) as (going, peer):
        await going.answer
        await going.cancel()
        assert going.outcome == "cancelled"
        assert web.migration is None
    assert sorted(peer.said) == ["bye", "bye", "drop"]


@pytest.mark.parametrize("wait", ["not yet answered", "while it is copied"])
async def test_nothing_is_left_running_of_one_that_is_given_up(
    web: Any, host: Libvirt, wait: str
) -> None:
    """As the daemon does with all of them when it ends."""
    before = asyncio.all_tasks()
    async with leaving(web, host) as (going, peer):
        if wait == "while it is copied":
            await going.answer
            await host.looked_again(1)
            assert len(asyncio.all_tasks() - before) > 2
    assert asyncio.all_tasks() == before
    assert peer.said == ([] if wait == "not yet answered" else ["bye"])
    assert web.migration is going
