# SPDX-License-Identifier: GPL-2.0-or-later
"""What another host is still to be told: until it answers, whatever restarts or goes elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tests.refusals import libvirt_error
from vdsmcinder.errors import DestroyFailed, PeerUnreachable
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.disk.ceph_images import NO_IMAGES, CephImage, CephImages
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.domain.metadata import Debt, MigrationMark, VmMetadata
from vdsmcinder.virt.migration.common import backoff, migration_job
from vdsmcinder.virt.migration.incoming import shell
from vdsmcinder.virt.migration.outgoing import debts, last_word
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.migration.outgoing.debts import Debts
from vdsmcinder.virt.vm.migration import PeerRefused
from vdsmcinder.virt.vm.migration_request import Address

DEBT = Debt("11111111-2222-4333-8444-555555555555", "host2:54321", "drop", may_yield=True)
OTHER = Debt("21111111-2222-4333-8444-555555555555", "[fd00::3]:54321", "run", may_run=True)
VM_EXISTS = PeerRefused(4, "it runs there", {})


class World:
    """libvirt with one domain, and another host that answers with what stands in answers.

    owed: what the domain's metadata hold. said: what the other host was told. refusal: libvirt's.
    marks: those on the images. no_ceph: they cannot be changed.
    """

    def __init__(self, *answers: Exception | None) -> None:
        self.owed = ""
        self.said: list[tuple[str, str]] = []
        self.refusal: Exception | None = None
        self.marks: dict[str, str] = {}
        self.no_ceph = False
        self.call_timeout_s = 0.05
        self._answers = list(answers)
        self.address = "192.0.2.2"

    async def on_domain(self, _uuid: str, func: Any, *args: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        if func is migration_job.set_owed:
            (self.owed,) = args

    async def leave(self, _images: object, migration_id: str, words: str) -> bool:
        if not self.no_ceph:
            self.marks[migration_id] = words
        return not self.no_ceph

    async def remove(self, _images: object, migration_id: str) -> None:
        del self.marks[migration_id]

    async def dial(self, _address: Address) -> Any:
        return self

    async def conclude(self, _vm_id: str, migration_id: str, verdict: Any) -> None:
        self.said.append((migration_id, verdict.value))
        answer = self._answers.pop(0) if self._answers else None
        if answer is not None:
            raise answer

    async def close(self) -> None:
        """Nothing is open."""


def vm(world: World) -> Any:
    """The VM, as it is found now."""
    told = VmMetadata(debts=metadata._read_debts(world.owed))
    return SimpleNamespace(
        id="web",
        name="web",
        running=True,
        doomed=False,
        wanted_exit=None,
        migration=None,
        domain=SimpleNamespace(metadata=told, ceph=NO_IMAGES),
        services=SimpleNamespace(connection=world),
        ending=SimpleNamespace(want=lambda change: None),
    )


@asynccontextmanager
async def daemon(world: World) -> AsyncIterator[Debts]:
    """One run of it; what is under way at its end is cut off."""
    tasks = Tasks("debts")
    connection: Any = world
    marks: Any = world
    try:
        yield Debts(connection, world.dial, marks, "host1", tasks)
    finally:
        await tasks.close()


async def until(condition: Any) -> None:
    """Its tasks run without waiting for anything."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come to that")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_S", 0.0)
    monkeypatch.setattr(last_word, "LOOK_S", 0.0)


def test_debts_are_read_as_they_were_written() -> None:
    text = metadata.write_debts([DEBT, OTHER])
    assert metadata._read_debts(text) == (DEBT, OTHER)
    assert OTHER.may_run
    assert metadata._read_debts("") == metadata._read_debts("of a newer,daemon") == ()


async def test_a_debt_outlives_the_daemon_until_it_is_paid() -> None:
    away = PeerUnreachable("no answer")
    world = World(*[away] * 50)
    async with daemon(world) as first:
        first.owe(vm(world), DEBT)
        await until(lambda: len(world.said) >= 20)
    assert metadata._read_debts(world.owed) == (DEBT,)
    async with daemon(world) as second:
        second.found(vm(world))
        # libvirt was gone for a moment.
        second.found(vm(world))
        await until(lambda: not world.owed)
    assert world.said == [(DEBT.id, "drop")] * 51


async def test_what_could_not_be_noted_is_noted_when_that_can_be() -> None:
    world = World(*[PeerUnreachable("no answer")] * 8)
    world.refusal = libvirt_error("No space left on device")
    async with daemon(world) as running:
        running.owe(vm(world), DEBT)
        await until(lambda: len(world.said) >= 3)
        assert world.owed == ""
        world.refusal = None
        await until(lambda: world.owed)
        assert metadata._read_debts(world.owed) == (DEBT,)
        await until(lambda: not world.owed)


async def test_each_of_several_is_paid_by_itself() -> None:
    world = World(PeerUnreachable("no answer"))
    async with daemon(world) as running:
        web = vm(world)
        running.owe(web, DEBT)
        running.owe(web, OTHER)
        assert metadata._read_debts(running.written(web)) == (DEBT, OTHER)
        await until(lambda: len(world.said) == 3 and not world.owed)


async def test_nothing_is_said_while_the_vm_migrates_again() -> None:
    """It may be that host that it goes to, in post-copy: it must not give way then."""
    world = World(VM_EXISTS)
    async with daemon(world) as running:
        web = vm(world)
        web.migration = SimpleNamespace(id=OTHER.id)
        running.owe(web, DEBT)
        for _ in range(100):
            await asyncio.sleep(0)
        assert world.said == []
        web.migration = None
        web.running = False
        await until(lambda: world.said and not world.owed)


@pytest.mark.parametrize("debt", [DEBT, Debt(DEBT.id, DEBT.peer, "drop")])
async def test_who_may_have_been_replaced_gives_way(
    monkeypatch: pytest.MonkeyPatch, debt: Debt
) -> None:
    ended: list[str] = []

    class Domain:
        def __init__(self, web: Any) -> None:
            self._vm = web

        async def destroy(self) -> Any:
            ended.append(self._vm.id)
            return ev.Destroyed()

    monkeypatch.setattr(debts, "SourceDomain", Domain)
    world = World(VM_EXISTS)
    async with daemon(world) as running:
        running.owe(vm(world), debt)
        await until(lambda: world.said and running.written(vm(world)) == "")
    assert ended == (["web"] if debt.may_yield else [])


def test_what_comes_along_with_a_vm() -> None:
    """The host that it has come to is not told, which has it by right, and never gives way."""
    mark = MigrationMark("1", "a host", OTHER.peer, "confirmed")
    kept = VmMetadata(migration=mark, debts=(DEBT, OTHER))
    assert list(shell._taken_over(kept)) == [Debt(DEBT.id, DEBT.peer, "drop", may_yield=False)]


async def test_a_host_that_is_away_for_long_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(PeerUnreachable("no answer"))
    monkeypatch.setattr(backoff, "FIRST_RETRY_S", 60.0)
    async with daemon(world) as running:
        running.owe(vm(world), DEBT)
        await until(lambda: world.said)
        await asyncio.sleep(0)
        assert running.troubles() == []
        monkeypatch.setattr(debts, "TROUBLE_S", 0.0)
        (told,) = running.troubles()
    assert told.startswith("host host2:54321 has not been told yet that its copy of VM web (web)")
    assert "(no answer)" in told


async def test_while_it_is_not_heard_the_images_say_it() -> None:
    away = PeerUnreachable("no answer")
    world = World(*[away] * 5)
    world.no_ceph = True
    async with daemon(world) as running:
        running.owe(vm(world), DEBT)
        await until(lambda: len(world.said) >= 2)
        assert world.marks == {}
        world.no_ceph = False
        await until(lambda: world.marks)
        assert "VM web stayed on host1; its copy on host2:54321" in world.marks[DEBT.id]
        await until(lambda: not world.owed)
        assert world.marks == {}


# VM.destroy of the VM


AWAY = PeerUnreachable("no answer")


@pytest.mark.parametrize(
    ("debt", "answers", "no_ceph", "doubt"),
    [
        (DEBT, [AWAY], True, None),
        (DEBT, [AWAY] * 10_000, False, None),
        (
            DEBT,
            [AWAY] * 10_000,
            True,
            r"may let its copy run and cannot be told not to \(no answer",
        ),
        # It has been said that it may run, so that a mark may come too late.
        (OTHER, [AWAY] * 10_000, False, "may let its copy run"),
        (DEBT, [VM_EXISTS], False, "runs on host host2:54321, .* destroy it there"),
    ],
)
async def test_a_vm_is_destroyed_when_no_copy_of_it_can_run(
    debt: Debt, answers: list[Exception], no_ceph: bool, doubt: str | None
) -> None:
    world = World(*answers)
    world.no_ceph = no_ceph
    async with daemon(world) as running:
        web = vm(world)
        web.doomed, web.domain.ceph = True, CephImages((CephImage("vda", "volumes/web"),))
        running.owe(web, debt)
        found = await running.end("web")
        if doubt is None:
            assert found is None
        else:
            assert isinstance(found, DestroyFailed)
            assert re.search(doubt, found.message)
        assert await running.end("another") is None


async def test_that_it_runs_elsewhere_is_told_once() -> None:
    world = World(VM_EXISTS)
    async with daemon(world) as running:
        web = vm(world)
        web.doomed = True
        running.owe(web, DEBT)
        await until(lambda: running.written(web) == "")
        assert await running.end("web") is not None
        assert await running.end("web") is None
