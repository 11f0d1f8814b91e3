# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that migrate between two real hosts while their guests write.

tests/faults/migration.py has what fails meanwhile; `make migrations` moves a VM twenty times.
"""

from __future__ import annotations

import pytest

from lab.traveller import Traveller
from tests.functional.helpers import (
    engine_on,
    recorded_events,
    session_fixture,
    status,
    told,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRIPS = 3
NOBODY = "11111111-2222-4333-8444-555555555555"
# So slow that the copying is under way for as long as a test wants.
SLOW = {"maxBandwidth": 1}


@session_fixture("module")
async def elsewhere(lab, engine):
    """An engine of the daemon on host2, with the same key."""
    async with engine_on(lab, lab.hosts["host2"], "migration") as other:
        other.secret_id = engine.secret_id
        await other.register_key()
        yield other


@session_fixture("module")
async def traveller(engine, elsewhere):
    """A VM that is at home on host1 between the tests."""
    async with Traveller((engine, elsewhere)) as vm:
        yield vm


@pytest.fixture
async def writing(traveller):
    """The VM while its guest writes; nothing of that may be lost."""
    await traveller.begin()
    yield traveller
    await traveller.writes_on(5)
    found = await traveller.stop()
    assert (found.lost, found.strange) == ((), ())


async def cancelled(vm):
    """End a migration; the VM is where it was."""
    await vm.here.call("VM.migrateCancel", vmID=vm.id)
    assert await status(vm.here, vm.id) == "Up"


async def test_back_and_forth_while_it_writes(writing):
    hosts = [writing.here.daemon.host.name]
    for _ in range(TRIPS + 1):
        before = writing.acknowledged()
        downtime_ms = await writing.go()
        hosts.append(writing.here.daemon.host.name)
        assert downtime_ms > 0
        await writing.writes_on(3)
        assert writing.acknowledged() > before
        assert await status(writing.here, writing.id) == "Up"
        assert writing.id not in await writing.there.call("Host.getVMList", onlyUUID=True)
        assert writing.id not in writing.there.daemon.host.virsh("list", "--all", "--uuid")
    assert hosts == ["host1", "host2"] * 2 + ["host1"]


async def test_what_both_engines_are_told(traveller):
    async with recorded_events(traveller.here) as left, recorded_events(traveller.there) as came:
        await traveller.go(**{"maxBandwidth": 64})
    assert told(left, traveller.id) == ["Migration Source", "Down"]
    statuses = told(came, traveller.id)
    assert statuses[:2] == ["Migration Destination", "Up"]
    assert set(statuses[2:]) <= {"Up"}
    name = f"|virt|VM_migration_status|{traveller.id}"
    progress = [e["params"][traveller.id] for e in left if e["method"] == name]
    percents = [notice["progress"] for notice in progress]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert progress[-1]["downtime"] > 0
    assert not any(notice["postcopy"] for notice in progress)
    await traveller.go()
