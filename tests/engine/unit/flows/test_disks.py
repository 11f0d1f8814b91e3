# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks: killed at every step of every flow, failing at every step; volumes and disks agree."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from cinderengine.errors import Conflict, Invalid, OutsideError, Unavailable
from cinderengine.flows.disks import NewDisk
from cinderengine.jobs.runner import Moment
from cinderengine.model.disks import DiskStatus
from cinderengine.model.jobs import JobStatus
from cinderengine.store.entities import disks, events, jobs
from cinderengine.volumes.service import Allowance, Bound, Limits, VolumeStatus
from tests.engine.unit.flows.memory import REFUSED, World, goes_wrong
from tests.engine.unit.flows.whole import ADMIN, Whole, settle_in

GIB = 1 << 30
FORWARD = (Moment.INTENDED, Moment.DID, Moment.MARKED)


@pytest.fixture
def world():
    return World()


@pytest_asyncio.fixture
async def whole(store, world):
    whole = Whole(store, world)
    await settle_in(whole)
    return whole


async def add(whole, domain_id, alias="one"):
    return await whole.disks.add(NewDisk(alias, domain_id, GIB, "ceph", "mine"), ADMIN)


async def added(whole):
    disk = await add(whole, whole.domain_id)
    await whole.done()
    return disk


async def extend(whole, disk):
    await whole.disks.edit(disk.id, ADMIN, size_bytes=2 * GIB)


async def remove(whole, disk):
    await whole.disks.remove(disk.id, ADMIN)


async def test_a_disk_is_locked_until_its_volume_is_ready(whole, world):
    world.let_go.clear()
    disk = await add(whole, whole.domain_id)
    assert (disk.status, disk.alias, disk.size_bytes) == (DiskStatus.LOCKED, "one", GIB)
    assert [disk.id] == list(world.volumes)
    world.let_go.set()
    await whole.done()
    (disk,) = await whole.store.read(disks.all)
    assert (disk.status, disk.reason, disk.volume_type) == (DiskStatus.OK, "", "ceph")
    await whole.reckon()
    told = await whole.store.read(events.all)
    assert [event.code for event in told[-2:]] == [2020, 2021]
    assert {event.correlation_id for event in told[-2:]} == {"flow-1"}


async def test_a_disk_that_was_extended_and_removed(whole, world):
    disk = await added(whole)
    await extend(whole, disk)
    await whole.done()
    (larger,) = await whole.store.read(disks.all)
    assert (larger.size_bytes, larger.status) == (2 * GIB, DiskStatus.OK)
    await remove(whole, disk)
    await whole.done()
    assert await whole.store.read(disks.all) == [] == list(world.volumes)


# What is killed, with the steps that it has.
VERBS = {
    "add": lambda whole, disk: add(whole, whole.domain_id),
    "extend": extend,
    "remove": remove,
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("moment", FORWARD)
@pytest.mark.parametrize("number", [0, 1])
async def test_a_kill_loses_nothing(whole, verb, moment, number):
    store, world = whole.store, whole.world
    disk = None if verb == "add" else await added(whole)
    killed = Whole(store, world, moment, number)
    killed.domain_id = whole.domain_id
    asked = asyncio.ensure_future(VERBS[verb](killed, disk))
    await killed.killed.wait()
    asked.cancel()
    after = Whole(store, world)
    await after.jobs.start()
    await after.done()
    await after.reckon()
    found = await store.read(disks.all)
    assert [d.size_bytes for d in found] == {
        "add": [GIB],
        "extend": [2 * GIB],
        "remove": [],
    }[verb]
    last = (await store.read(jobs.all))[-1]
    assert {j.status for j in await store.read(jobs.all)} == {JobStatus.FINISHED}, last.reason
    await after.jobs.close()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("error", [REFUSED, Unavailable("the provider is away; wait")])
async def test_what_the_provider_refuses_changes_nothing(whole, world, verb, error):
    disk = None if verb == "add" else await added(whole)
    before = dict(world.volumes)
    world.failing[{"add": "create", "extend": "extend", "remove": "delete"}[verb]] = error
    with pytest.raises(type(error), match=str(error)):
        await VERBS[verb](whole, disk)
    world.failing.clear()
    # At once: who was refused finds all as it was.
    await whole.reckon()
    assert world.volumes == before
    assert {d.status for d in await whole.store.read(disks.all)} <= {DiskStatus.OK}
    assert (await whole.store.read(jobs.find, status=JobStatus.FAILED)).reason == str(error)


@pytest.mark.parametrize(
    ("verb", "words"),
    [("add", "error"), ("extend", "error_extending")],
)
async def test_a_volume_that_goes_wrong_makes_the_disk_illegal(whole, world, verb, words):
    disk = None if verb == "add" else await added(whole)
    good = world.becomes
    world.becomes = goes_wrong(words, "no host has room")
    disk = await add(whole, whole.domain_id) if disk is None else disk
    if verb == "extend":
        await extend(whole, disk)
    await whole.done()
    (disk,) = await whole.store.read(disks.all)
    assert disk.status is DiskStatus.ILLEGAL
    assert disk.reason == (
        f"volume {disk.id} is in status {words} (no host has room); mend it in the provider, or "
        "remove its disk"
    )
    await whole.reckon()
    with pytest.raises(Conflict, match=f"^disk one is illegal: volume {disk.id} is in"):
        await whole.disks.edit(disk.id, ADMIN, description="new")
    # Mended in the provider, it is a disk again.
    world.becomes = good
    world.volumes[disk.id] = good(world.volumes[disk.id])
    mended = await whole.disks.edit(disk.id, ADMIN, description="new")
    assert (mended.status, mended.description) == (DiskStatus.OK, "new")


async def test_who_waits_is_told_how_it_ends(whole, world):
    disk = await whole.disks.add(NewDisk("one", whole.domain_id, GIB), ADMIN, wait=True)
    assert disk.status is DiskStatus.OK
    world.becomes = goes_wrong("error", "no host has room")
    with pytest.raises(OutsideError, match=r"is in status error \(no host has room\); mend it"):
        await whole.disks.add(NewDisk("two", whole.domain_id, GIB), ADMIN, wait=True)
    await whole.done()
    assert (await whole.store.read(disks.find, alias="two")).status is DiskStatus.ILLEGAL


async def test_an_illegal_disk_goes_with_its_volume(whole, world):
    world.becomes = goes_wrong("error")
    disk = await added(whole)
    await remove(whole, disk)
    await whole.done()
    assert await whole.store.read(disks.all) == [] == list(world.volumes)


async def test_a_volume_that_was_deleted_by_somebody(whole, world):
    world.becomes = lambda volume: None
    disk = await added(whole)
    (disk,) = await whole.store.read(disks.all)
    assert disk.reason == f"volume {disk.id} was deleted by somebody else; remove its disk"
    await remove(whole, disk)
    await whole.done()
    assert await whole.store.read(disks.all) == []


async def test_limits_are_looked_at_before(whole, world):
    world.limits = Limits(Allowance(Bound(1, 1), Bound(None)))
    with pytest.raises(Conflict):
        await add(whole, whole.domain_id)
    assert "create" not in world.calls


async def test_what_cannot_be_is_refused(whole, world):
    with pytest.raises(Invalid, match="cannot have a size of 0 bytes; give it one above 0"):
        await whole.disks.add(NewDisk("one", whole.domain_id, 0), ADMIN)
    with pytest.raises(Invalid, match="does not have; give it one of: ceph"):
        await whole.disks.add(NewDisk("one", whole.domain_id, GIB, "gold"), ADMIN)
    disk = await added(whole)
    with pytest.raises(Invalid, match="cannot become smaller; give it at least that size"):
        await whole.disks.edit(disk.id, ADMIN, size_bytes=1)


async def test_two_who_remove_a_disk(whole):
    disk = await added(whole)
    asked = await asyncio.gather(*(remove(whole, disk) for _ in "ab"), return_exceptions=True)
    refused = [error for error in asked if error is not None]
    assert [type(error) for error in refused] == [Conflict]
    assert "is locked by a job; wait until the job is over" in str(refused[0])
    await whole.done()


async def test_a_provider_is_not_removed_from_under_a_job(whole, world):
    """Its job would find no way to the volume any more."""
    world.let_go.clear()
    await add(whole, whole.domain_id)
    with pytest.raises(Conflict, match="a job of storage domain ceph goes on"):
        await whole.domains.deactivate(whole.domain_id, ADMIN)
    world.let_go.set()
    await whole.done()


async def test_names_are_the_providers_too(whole, world):
    disk = await added(whole)
    edited = await whole.disks.edit(disk.id, ADMIN, alias="other", description="words")
    assert (edited.alias, edited.description) == ("other", "words")
    assert world.volumes[disk.id].name == "other"
    assert world.volumes[disk.id].status is VolumeStatus.READY
    await whole.reckon()


async def test_a_provider_that_fails_while_a_job_is_undone(whole, world):
    world.failing["create"] = OutsideError("over quota; free some")
    with pytest.raises(OutsideError, match="over quota"):
        await add(whole, whole.domain_id)
    await whole.done()
    await whole.reckon()
