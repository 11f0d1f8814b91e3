# SPDX-License-Identifier: GPL-2.0-or-later
"""What volumes of a Cinder and images of a pool have in common: the engine sees no difference."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from cinderengine.errors import NotFound
from cinderengine.model.ids import new_id
from cinderengine.volumes.service import GIB, VolumeStatus
from cinderengine.volumes.sizes import check_room
from tests.engine.functional.providers import (
    cinder_of,
    opened,
    pool_of,
    refused,
)

pytestmark = pytest.mark.nightly

MIB = 1024**2


@pytest_asyncio.fixture(params=["cinder", "pool"])
async def service(request, lab):
    """A provider's volumes; those that a test left are deleted."""
    if request.param == "cinder":
        provider, password = cinder_of(lab), ""
    else:
        provider, password = pool_of(lab), lab.ceph.key
    async with opened(provider, password) as service:
        yield service
        ours = [volume for volume in await service.volumes() if volume.key is not None]
        for volume in ours:
            await service.delete(volume.id)
        await asyncio.gather(*(service.settled(volume.id) for volume in ours))


async def made(service, **fields):
    """A volume that is ready."""
    fields = {"name": "disk", "size_bytes": GIB, **fields}
    volume = await service.create(new_id(), **fields)
    ready = await service.settled(volume.id)
    assert ready is not None and ready.status is VolumeStatus.READY, ready
    return ready


async def test_it_can_be_used(service):
    await service.check()
    assert [kind for kind in await service.types() if kind.name]
    room = await service.room()
    assert room.used_bytes is not None
    limits = await service.limits()
    check_room(limits, GIB, "")
    assert limits.per_volume_gib is None


async def test_a_volume_comes_into_being(service, lab):
    key = new_id()
    volume = await service.create(key, "first", GIB, description="what it is for")
    ready = await service.settled(volume.id)
    assert (ready.name, ready.description, ready.key) == ("first", "what it is for", key)
    assert (ready.size_bytes, ready.status) == (GIB, VolumeStatus.READY)
    assert await service.get(volume.id) == await service.find(key) == ready
    assert ready in await service.volumes()
    assert lab.ceph.image_size(f"volume-{volume.id}") == GIB


@pytest.mark.parametrize("size_bytes", [1, GIB - 1, GIB + 1, 3 * GIB // 2])
async def test_sizes_are_rounded_up(service, size_bytes):
    volume = await made(service, size_bytes=size_bytes)
    assert size_bytes <= volume.size_bytes < size_bytes + GIB


async def test_what_is_created_again_is_found(service):
    key = new_id()
    first = await service.create(key, "once", GIB)
    again = await service.create(key, "once", GIB)
    assert again.id == first.id
    assert [v.id for v in await service.volumes() if v.key == key] == [first.id]


async def test_many_at_once(service):
    keys = [new_id() for _ in range(8)]
    volumes = await asyncio.gather(*(service.create(key, key, GIB) for key in keys))
    ready = await asyncio.gather(*(service.settled(volume.id) for volume in volumes))
    assert [v.key for v in ready] == keys
    assert {v.status for v in ready} == {VolumeStatus.READY}


async def test_it_grows_and_never_shrinks(service, lab):
    volume = await made(service)
    for size in (3 * GIB // 2, 3 * GIB // 2, MIB):
        await service.extend(volume.id, size)
        grown = await service.settled(volume.id)
        assert grown.status is VolumeStatus.READY
        assert 3 * GIB // 2 <= grown.size_bytes <= 2 * GIB
    assert lab.ceph.image_size(f"volume-{volume.id}") == grown.size_bytes


async def test_it_is_renamed(service):
    volume = await made(service)
    await service.rename(volume.id, "öther", "")
    renamed = await service.get(volume.id)
    assert (renamed.name, renamed.description, renamed.key) == ("öther", "", volume.key)


async def test_it_is_deleted_and_stays_so(service, lab):
    volume = await made(service)
    await service.delete(volume.id)
    assert await service.settled(volume.id) is None
    await service.delete(volume.id)
    assert await service.get(volume.id) is None
    assert await service.find(volume.key) is None
    assert f"volume-{volume.id}" not in lab.ceph.images()


# The id is another in each process, and workers have to know tests by the same names.
@pytest.mark.parametrize(
    "volume_id", [new_id(), "no id", "../types"], ids=["an id", "no id", "a path"]
)
async def test_what_is_not_there(service, volume_id):
    assert await service.get(volume_id) is None
    assert await service.settled(volume_id) is None
    with refused(NotFound, volume_id):
        await service.rename(volume_id, "name", "")
    with refused(NotFound, volume_id):
        await service.extend(volume_id, GIB)
    await service.delete(volume_id)
