# SPDX-License-Identifier: GPL-2.0-or-later
"""Who waits for volumes, and how often they are looked at; with a Cinder of a dozen lines."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import pytest_asyncio

from cinderengine.errors import Invalid, Unavailable
from cinderengine.volumes import waiting
from cinderengine.volumes.service import GIB, Volume, VolumeStatus
from cinderengine.volumes.waiting import Listing, Watch
from vdsmcinder.tasks import Tasks


class Provider:
    """Volumes by their ids, and what was asked of them."""

    def __init__(self):
        self.statuses: dict[str, VolumeStatus] = {}
        self.lists: list[float] = []
        self.gets: list[str] = []
        self.asked = asyncio.Event()
        self.fault = None
        self.hidden: set[str] = set()

    def _volume(self, volume_id):
        status = self.statuses[volume_id]
        return Volume(volume_id, "disk", GIB, status, status.value)

    async def list(self):
        self.lists.append(asyncio.get_running_loop().time())
        self.asked.set()
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return [self._volume(i) for i in self.statuses if i not in self.hidden], 1

    async def get(self, volume_id):
        self.gets.append(volume_id)
        self.asked.set()
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return self._volume(volume_id) if volume_id in self.statuses else None

    def all_become(self, status):
        self.statuses.update(dict.fromkeys(self.statuses, status))


@pytest_asyncio.fixture
async def provider(monkeypatch):
    for name in ("PAUSE_S", "FEW_PAUSE_S", "FEW_LATER_S", "TROUBLE_PAUSE_S"):
        monkeypatch.setattr(waiting, name, 0.02)
    return Provider()


@pytest_asyncio.fixture
async def watch(provider):
    async with Tasks("test") as tasks:
        listing = Listing(provider.list, tasks)
        yield Watch(provider.get, listing, tasks, "here")


@pytest_asyncio.fixture
async def listing(provider):
    async with Tasks("test") as tasks:
        yield Listing(provider.list, tasks)


async def looked_at(provider, times):
    """Return when so many more requests have been made."""
    for _ in range(times):
        provider.asked.clear()
        await provider.asked.wait()


async def test_a_few_are_asked_for_one_by_one(provider, watch):
    provider.statuses = dict.fromkeys("ab", VolumeStatus.BUSY)
    both = asyncio.gather(watch.settled("a"), watch.settled("b"))
    await looked_at(provider, 4)
    assert not both.done()
    provider.all_become(VolumeStatus.READY)
    assert [v.status for v in await both] == [VolumeStatus.READY] * 2
    assert provider.lists == []


async def test_many_are_looked_at_by_lists(provider, watch):
    ids = [str(n) for n in range(50)]
    provider.statuses = dict.fromkeys(ids, VolumeStatus.BUSY)
    all_of_them = asyncio.gather(*(watch.settled(i) for i in ids))
    await looked_at(provider, 3)
    provider.all_become(VolumeStatus.READY)
    assert [v.id for v in await all_of_them] == ids
    assert provider.gets == []
    assert all(b - a > 0.015 for a, b in itertools.pairwise(provider.lists))


async def test_those_that_fail_or_go_are_looked_at_themselves(provider, watch):
    """A list does not say why one failed, and one page may miss what another one had."""
    ids = [str(n) for n in range(9)]
    provider.statuses = dict.fromkeys(ids, VolumeStatus.READY)
    provider.statuses["3"] = VolumeStatus.FAILED
    del provider.statuses["4"]
    provider.hidden = {"5"}
    found = await asyncio.gather(*(watch.settled(i) for i in ids))
    assert found[3].status is VolumeStatus.FAILED
    assert found[4] is None
    assert found[5].status is VolumeStatus.READY
    assert provider.gets == ["3", "4", "5"]


async def test_one_that_is_said_to_be_gone_is(provider, watch):
    provider.statuses = {"a": VolumeStatus.GONE}
    assert await watch.settled("a") is None


async def test_several_wait_for_the_same(provider, watch):
    provider.statuses = {"a": VolumeStatus.BUSY}
    first, second = (asyncio.create_task(watch.settled("a")) for _ in range(2))
    await looked_at(provider, 1)
    first.cancel()
    provider.all_become(VolumeStatus.IN_USE)
    assert (await second).status is VolumeStatus.IN_USE
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_passes_is_waited_out(provider, watch, caplog):
    provider.statuses = {"a": VolumeStatus.READY}
    provider.fault = Unavailable("Cinder is away.")
    settled = asyncio.create_task(watch.settled("a"))
    await looked_at(provider, 3)
    assert not settled.done()
    provider.fault = None
    assert (await settled).status is VolumeStatus.READY
    assert caplog.text.count("Cinder is away.") == 1


async def test_what_stays_is_told_to_all(provider, watch):
    provider.fault = Invalid("The password is wrong.")
    outcomes = await asyncio.gather(
        *(watch.settled(str(n)) for n in range(9)), return_exceptions=True
    )
    assert outcomes == [provider.fault] * 9
    provider.fault = None
    assert await watch.settled("1") is None


async def test_the_end_of_all_is_told_to_who_waits(provider):
    tasks = Tasks("test")
    watch = Watch(provider.get, Listing(provider.list, tasks), tasks, "here")
    provider.statuses = {"a": VolumeStatus.BUSY}
    settled = asyncio.create_task(watch.settled("a"))
    await looked_at(provider, 1)
    await tasks.close()
    with pytest.raises(asyncio.CancelledError):
        await settled


async def test_who_comes_as_the_last_one_leaves(provider, watch):
    """Nobody looks in that moment: who comes is looked after by the next."""
    provider.statuses = {"a": VolumeStatus.READY, "b": VolumeStatus.READY}
    for _ in range(20):
        assert (await watch.settled("a")).id == "a"
        # Between the runner's end and what is done at it, some steps of the loop later.
        for _ in range(3):
            assert (await watch.settled("b")).id == "b"
            await asyncio.sleep(0)


async def test_who_needs_a_list_at_the_same_time_shares_it(provider, listing):
    await asyncio.gather(*(listing.fresh() for _ in range(20)))
    assert len(provider.lists) == 1


async def test_a_list_is_begun_after_it_is_asked_for(provider, listing):
    first = asyncio.create_task(listing.fresh())
    await looked_at(provider, 1)
    assert not first.done()
    provider.statuses = {"new": VolumeStatus.READY}
    assert [v.id for v in await listing.fresh()] == ["new"]
    assert len(provider.lists) == 2


async def test_turns_are_as_far_apart_as_lists(provider, listing):
    assert listing.take_turn()
    assert not listing.take_turn()
    began = asyncio.get_running_loop().time()
    await listing.fresh()
    assert provider.lists[0] - began > 0.015
    assert not listing.take_turn()


async def test_a_list_of_many_pages_takes_as_many_turns(provider, monkeypatch):
    monkeypatch.setattr(waiting, "PAUSE_S", 0.01)

    async def pages():
        return (await provider.list())[0], 10

    async with Tasks("test") as tasks:
        listing = Listing(pages, tasks)
        await listing.fresh()
        await listing.fresh()
    sooner, later = provider.lists
    assert later - sooner > 0.08
