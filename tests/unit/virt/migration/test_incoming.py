# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell of an incoming migration: what its source is answered, and what is left of it."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest

from tests.refusals import libvirt_error
from vdsmcinder.client import arguments
from vdsmcinder.config import Migration as MigrationOptions
from vdsmcinder.errors import MigrationFailed, PeerUnreachable
from vdsmcinder.rpc.schema import schema
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.disk.ceph_images import NO_IMAGES
from vdsmcinder.virt.migration.common.context import Counts, Direction, Travel
from vdsmcinder.virt.migration.incoming import machine, shell
from vdsmcinder.virt.migration.incoming.shell import Incoming
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.migration import PeerRefused, Source
from vdsmcinder.virt.vm.migration_request import Address

VM = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
COMES = (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED)
IS_WHOLE = (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)
IO_ERROR = (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR)
ENDED = (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED)


class Web:
    """A VM, and its source. told: what became of it. whole: whether its copy is.

    answers: the source's, one after the other; without one it cannot be reached. marked: what the
    images say, None if they cannot be asked.
    """

    id, name, wanted_exit = VM, "web", None
    status = SimpleNamespace(value="Migration Destination")

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.whole = False
        self.answers: list[Any] = []
        self.marked: str | None = None
        self.domain = SimpleNamespace(ceph=NO_IMAGES)
        self.began_here_s: float | None = None
        self.migration: Incoming | None = None
        self.services = SimpleNamespace(connection=self)

    async def on_domain(self, _uuid: str, func: Any, *_: Any) -> Any:
        if func is shell._let_run:
            return self.whole
        if func is shell._drop:
            return True
        assert func in (shell._unmark, shell._forget)
        raise libvirt_error("domain not found")

    async def dial(self, _address: Address) -> Any:
        return self

    async def keeps(self, _vm_id: str, _migration_id: str) -> bool:
        if not self.answers:
            raise PeerUnreachable("no route to host1")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    async def close(self) -> None:
        self.told.append("bye")

    async def found(self, _images: object, _migration_id: str, failure: Any) -> str | None:
        """What the images say."""
        if self.marked is None:
            raise failure("Ceph does not answer")
        return self.marked or None

    async def is_kept(self, incoming: Incoming) -> None:
        await incoming.drop("its source keeps it")
        self.told.append("forgotten")

    def arrived(self, change: lifecycle.Change) -> None:
        self.told.append(("arrived", change))

    def apply(self, change: lifecycle.Change) -> None:
        self.told.append(change)

    happened = apply

    def settles(self) -> None:
        self.migration = None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """It keeps to its policy's limit here; it has none."""
        work.close()

    def guest_began(self, at_s: float | None) -> None:
        self.began_here_s = at_s


@asynccontextmanager
async def coming(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Web, Incoming]]:
    """The VM, that comes; nothing of that is under way in the end."""
    monkeypatch.setattr(machine, "LOOK_S", 0.001)
    before, tasks, web = asyncio.all_tasks(), Tasks("migrations"), Web()
    vm: Any = web
    unused: Any = None
    travel = Travel(
        vm, unused, MigrationOptions(), web.dial, Source("host2"), unused, tasks, Counts(), vm
    )
    web.migration = Incoming(
        vm,
        "1",
        Source("host1", Address("host1", 54321)),
        travel,
        on_arrival=lambda vm: None,
        on_end=lambda vm_id: None,
        on_kept=web.is_kept,
    )
    running = tasks.spawn(web.migration.run(), "comes")
    try:
        yield web, web.migration
        if web.migration is None:
            await asyncio.wait_for(running, 10)
            assert sum(travel.counts.over.values()) == 1
            assert [direction for direction, _ in travel.counts.over] == [Direction.IN]
    finally:
        await tasks.close()
    assert asyncio.all_tasks() == before


def asking(incoming: Incoming) -> asyncio.Task[None]:
    """Its source, that says that it may run."""
    return asyncio.get_running_loop().create_task(incoming.let_run())


async def test_it_runs_when_it_is_whole_and_its_source_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with coming(monkeypatch) as (web, incoming):
        incoming.expect()
        incoming.lifecycle(*COMES)
        letting = asyncio.gather(incoming.let_run(), incoming.let_run())
        await asyncio.sleep(0)
        assert not letting.done()
        web.whole = True
        incoming.lifecycle(*IS_WHOLE)
        await asyncio.wait_for(letting, 10)
        assert web.told == [("arrived", lifecycle.RUNNING)]
        assert web.began_here_s is not None


async def test_its_source_is_told_that_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with coming(monkeypatch) as (web, incoming):
        incoming.lifecycle(*COMES)
        letting = asking(incoming)
        await asyncio.sleep(0)
        incoming.lifecycle(*ENDED)
        with pytest.raises(MigrationFailed, match="did not arrive whole"):
            await asyncio.wait_for(letting, 10)
        assert web.told == [lifecycle.DID_NOT_ARRIVE]


async def test_who_asks_too_late_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with coming(monkeypatch) as (_, incoming):
        incoming.lifecycle(*COMES)
        incoming.lifecycle(*ENDED)
        with pytest.raises(MigrationFailed, match="did not arrive whole"):
            await asyncio.wait_for(incoming.let_run(), 10)


async def test_it_is_dropped_when_that_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    async with coming(monkeypatch) as (web, incoming):
        incoming.expect()
        await asyncio.wait_for(incoming.drop("its source keeps it"), 10)
        assert web.migration is None
        assert web.told == [lifecycle.DID_NOT_ARRIVE]


async def test_its_source_says_that_it_keeps_it_when_it_can_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "SILENT_S", 0.0)
    monkeypatch.setattr(machine, "MOST_RETRY_S", 0.001)
    async with coming(monkeypatch) as (web, incoming):
        web.answers += [PeerRefused(1, "there is no VM", {}), OSError("a fault"), False, True]
        incoming.lifecycle(*COMES)
        incoming.lifecycle(*IS_WHOLE)
        for _ in range(1000):
            if "forgotten" in web.told:
                break
            await asyncio.sleep(0.01)
        assert web.migration is None
    assert web.told == ["bye"] * 4 + [lifecycle.DID_NOT_ARRIVE, "forgotten"]


async def test_a_source_that_is_not_heard_has_marked_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "SILENT_S", 0.0)
    monkeypatch.setattr(machine, "MOST_RETRY_S", 0.001)
    async with coming(monkeypatch) as (web, incoming):
        incoming.lifecycle(*COMES)
        incoming.lifecycle(*IS_WHOLE)
        for marked in (None, ""):
            web.marked = marked
            for _ in range(20):
                await asyncio.sleep(0.001)
        assert web.migration is incoming
        assert "no route to host1" in incoming.trouble
        web.marked = "VM web stayed on host1"
        for _ in range(1000):
            if "forgotten" in web.told:
                break
            await asyncio.sleep(0.01)
        assert web.migration is None


async def test_what_libvirt_tells_next_is_the_vm_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with coming(monkeypatch) as (web, incoming):
        resumed = libvirt.VIR_DOMAIN_EVENT_RESUMED
        incoming.lifecycle(resumed, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED)
        incoming.lifecycle(*IO_ERROR)
        await asyncio.wait_for(incoming.let_run(), 10)
        assert web.told == [("arrived", lifecycle.RUNNING), lifecycle.PAUSED_BY_IO_ERROR]


async def test_nothing_is_left_of_one_that_comes_when_the_daemon_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with coming(monkeypatch) as (web, incoming):
        incoming.lifecycle(*COMES)
        letting = asking(incoming)
        await asyncio.sleep(0)
    assert web.migration is incoming
    with pytest.raises(asyncio.CancelledError):
        await letting


def test_what_to_do_about_a_source_that_is_silent_is_a_command() -> None:
    web = machine.IncomingMachine(VM, "web", "host1")
    web.state = machine.State.SILENT
    words = shlex.split(web.trouble[web.trouble.index("vdsm-cinder call") :])
    verb = schema.load().verbs[words[2]]
    given = arguments.parameters(verb, words[3:])
    verb.values(given)
    assert given == {"vmID": VM, "params": {"verdict": "fenced"}}
