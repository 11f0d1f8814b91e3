# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a VM that was to migrate stays, as its engine is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest

from tests.refusals import libvirt_error
from vdsmcinder.virt.domain.metadata import MigrationMark
from vdsmcinder.virt.migration import migration_job, outgoing
from vdsmcinder.virt.migration.outgoing import Outgoing
from vdsmcinder.virt.vm.io_errors import IoTrouble
from vdsmcinder.virt.vm.migration import Phase, Progress
from vdsmcinder.virt.vm.migration_request import Address
from vdsmcinder.virt.vm.status import PauseCode

STOPPED = libvirt.VIR_DOMAIN_EVENT_STOPPED
SHUT_DOWN = libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN
MIGRATED = libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED


@pytest.fixture
async def going() -> Any:
    vm: Any = SimpleNamespace(
        id="web", name="web", io=IoTrouble(held=False), domain=SimpleNamespace(drives=())
    )
    travel: Any = SimpleNamespace()
    going = Outgoing(vm, MigrationMark("", "", "", "confirmed"), Address("host2", 54321), travel)
    going.phase = Phase.COPYING
    return going


def why(going: Outgoing, failure: BaseException | None = None) -> str:
    message = going.explain(failure).message
    head, reason = message.split(": ", maxsplit=1)
    assert head == "VM web was not migrated to host host2:54321"
    return reason


async def test_nothing_is_known(going: Outgoing) -> None:
    assert "libvirt ended the migration and does not tell why" in why(going)


async def test_what_libvirt_says(going: Outgoing) -> None:
    failure = libvirt_error("the job failed")
    assert "libvirt says: the job failed; that host's logs tell more" in why(going, failure)


async def test_it_ended_meanwhile(going: Outgoing) -> None:
    going.lifecycle(STOPPED, SHUT_DOWN)
    assert going.halted.is_set()
    assert "it ended meanwhile: The guest shut itself down" in why(
        going, libvirt_error("domain is not running")
    )


async def test_that_it_has_been_copied_is_no_end_of_its_own(going: Outgoing) -> None:
    going.lifecycle(STOPPED, MIGRATED)
    assert "does not tell why" in why(going)


async def test_its_storage_failed(going: Outgoing) -> None:
    going.vm.io.met("vdb", PauseCode.EIO)
    going.vm.io.met("vda", PauseCode.EIO)
    told = why(going, libvirt_error("Read section footer failed: -5"))
    assert "QEMU paused it for an I/O error (EIO) on vda, vdb; migrate it again when" in told


async def looks(going: Any, remaining: Iterator[int], count: int) -> bool:
    """Whether it was ended within so many looks at libvirt's figures, which tell this remains."""
    ended, looked = asyncio.Event(), itertools.count()

    async def call(func: Any, *_: Any) -> Any:
        if func is migration_job.progress:
            if next(looked) == count:
                await asyncio.Event().wait()
            return Progress(remaining=next(remaining), transferred=1)
        assert func is libvirt.virDomain.abortJob
        ended.set()
        return None

    going.vm.call = call
    watching = asyncio.create_task(going._watch())
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(ended.wait(), 2)
    watching.cancel()
    return ended.is_set()


@pytest.mark.parametrize(
    ("remaining", "ends"),
    [(itertools.cycle((900, 500, 100)), True), (itertools.count(10**6, -1), False)],
    ids=["each pass leaves as much as the one before", "it comes nearer slowly"],
)
async def test_one_that_does_not_come_nearer_is_ended(
    going: Any, monkeypatch: pytest.MonkeyPatch, remaining: Iterator[int], ends: bool
) -> None:
    monkeypatch.setattr(outgoing, "LOOK_S", 0.001)
    options = SimpleNamespace(stall_timeout_s=0.2, progress_interval_s=100)
    going.travel = SimpleNamespace(options=options, on_progress=lambda *_: None)
    assert await looks(going, remaining, 400) is ends
    assert ("it had not come nearer for 0.2 s" in why(going)) is ends
