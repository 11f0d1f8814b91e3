# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Cinder: what it refuses, in its words; what its limits say; how often it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3

import pytest
import pytest_asyncio

from cinderengine.errors import Conflict, Incomplete, Invalid, NotFound, Unavailable
from cinderengine.model.ids import new_id
from cinderengine.volumes import cinder
from cinderengine.volumes.service import GIB, Allowance, Bound, Room, VolumeStatus
from cinderengine.volumes.sizes import check_room, offered
from lab.base import ENGINE_ADDRESS
from lab.cinder.server import PORT, PROJECT
from lab.cinder.volumes import Volumes
from tests.engine.functional.providers import cinder_of, opened, refused

pytestmark = pytest.mark.nightly


@pytest_asyncio.fixture
async def service(lab):
    async with opened(cinder_of(lab)) as service:
        yield service
        ours = [volume for volume in await service.volumes() if volume.key is not None]
        for volume in ours:
            await service.delete(volume.id)
        await asyncio.gather(*(service.settled(volume.id) for volume in ours))


@pytest.fixture
def by_hand(lab):
    """Somebody else who works with this Cinder."""
    return Volumes(lab.cinder.url, "host1")


async def check(lab, **changes):
    async with opened(cinder_of(lab, **changes)) as service:
        await service.check()


async def test_urls_that_lead_to_it(lab):
    root = f"http://{ENGINE_ADDRESS}:{PORT}"
    for url in (root, f"{root}/", f"{root}/v3", f"{root}/v3/{PROJECT}", f"{root}/v3/{PROJECT}/"):
        await check(lab, url=url)
    await check(lab, url=f"{root}/v3/{PROJECT}", project="")


async def test_urls_that_do_not(lab):
    with refused(Unavailable, "no.such.name.invalid", "DNS"):
        await check(lab, url="http://no.such.name.invalid:8776")
    with refused(Unavailable, f"{ENGINE_ADDRESS}:1", "refuses connections"):
        await check(lab, url=f"http://{ENGINE_ADDRESS}:1")
    with refused(Invalid, "does not speak TLS"):
        await check(lab, url=f"https://{ENGINE_ADDRESS}:{PORT}")
    with refused(Invalid, "version 2"):
        await check(lab, url=f"http://{ENGINE_ADDRESS}:{PORT}/v2")
    with refused(Invalid, "no Cinder API"):
        await check(lab, url=f"http://{ENGINE_ADDRESS}:{PORT}/elsewhere")
    with refused(Invalid, PROJECT, "other"):
        await check(lab, url=lab.cinder.url, project="other")
    with refused(Incomplete, "tenant"):
        await check(lab, project="")


@contextlib.asynccontextmanager
async def quota(service, **limits):
    """The project's quota is so, until the end of the block."""
    path = f"/os-quota-sets/{PROJECT}"
    await service._call("PUT", path, "quota", body={"quota_set": limits})
    try:
        yield
    finally:
        await service._call("DELETE", path, "quota")


async def made(service, **fields):
    volume = await service.create(new_id(), **{"name": "disk", "size_bytes": GIB, **fields})
    return await service.settled(volume.id)


async def test_a_type_that_cinder_has_not(service):
    with refused(Invalid, "no-such-type"):
        await service.create(new_id(), "disk", GIB, "no-such-type")


async def test_types_and_their_properties(service, by_hand):
    name = f"gold-{new_id()}"
    await asyncio.to_thread(by_hand.create_type, name)
    (kind,) = [kind for kind in await service.types() if kind.name == name]
    assert kind.properties == {"volume_backend_name": "ceph"}
    assert (await made(service, type_name=name)).type_name == name


async def test_limits_are_those_of_cinder(service, by_hand):
    name = f"silver-{new_id()}"
    await asyncio.to_thread(by_hand.create_type, name)
    await made(service, type_name=name)
    changes = {"volumes": -1, "gigabytes": 100, "per_volume_gigabytes": 3, f"volumes_{name}": 1}
    async with quota(service, **changes):
        limits = await service.limits()
        assert limits.whole.volumes == Bound(None, 1)
        assert limits.whole.gib == Bound(100, 1)
        assert limits.per_volume_gib == 3
        assert limits.types[name] == Allowance(Bound(1, 1), Bound(None, 1))
        assert await service.room() == Room(GIB, 99 * GIB)
        check_room(limits, 3 * GIB, "another")
        with refused(Conflict, name, "1 of the 1 volumes"):
            check_room(limits, GIB, name)


async def test_over_quota_in_the_words_of_cinder(service):
    async with quota(service, gigabytes=1, per_volume_gigabytes=-1):
        with refused(Conflict, "disk of 2 GiB", "exceeds", "quota"):
            await service.create(new_id(), "disk", 2 * GIB)
        volume = await made(service)
        with refused(Conflict, volume.id, "quota"):
            await service.extend(volume.id, 2 * GIB)
    async with quota(service, volumes=1, gigabytes=-1):
        with refused(Conflict, "disk of 1 GiB", "quota"):
            await service.create(new_id(), "disk", GIB)


async def test_a_volume_that_fails(service):
    """No backend takes it: Cinder tells its users why, and so do we."""
    name = f"nowhere-{new_id()}"
    kind = {"name": name, "extra_specs": {"volume_backend_name": "nowhere"}}
    await service._call("POST", "/types", "type", body={"volume_type": kind})
    key = new_id()
    volume = await service.create(key, "disk", GIB, name)
    failed = await service.settled(volume.id)
    assert (failed.status, failed.words) == (VolumeStatus.FAILED, "error")
    assert "backend" in failed.reason
    assert (await service.create(key, "disk", GIB, name)).id == volume.id
    assert offered(await service.volumes(), []) == []
    await service.delete(volume.id)
    assert await service.settled(volume.id) is None


async def test_a_volume_in_use(service, by_hand):
    volume = await made(service)
    await asyncio.to_thread(by_hand.attach, volume.id)
    used = await service.settled(volume.id)
    assert (used.status, used.words) == (VolumeStatus.IN_USE, "in-use")
    with refused(Conflict, volume.id, "in-use"):
        await service.delete(volume.id)
    await service.extend(volume.id, 2 * GIB)
    assert (await service.settled(volume.id)).size_bytes == 2 * GIB
    assert volume.id not in [found.id for found in offered(await service.volumes(), [])]
    await asyncio.to_thread(by_hand.detach, volume.id)
    assert volume.id in [found.id for found in offered(await service.volumes(), [])]


async def test_a_status_that_nobody_knows(service, lab, caplog):
    """It is waited for another one, and told of once."""
    volume = await made(service)

    def becomes(status):
        with contextlib.closing(sqlite3.connect(lab.directory / "cinder" / "database")) as database:
            database.execute("UPDATE volumes SET status = ? WHERE id = ?", (status, volume.id))
            database.commit()

    becomes("daydreaming")
    waiting = asyncio.create_task(service.settled(volume.id))
    for _ in range(3):
        assert (await service.get(volume.id)).status is VolumeStatus.BUSY
    assert not waiting.done()
    becomes("available")
    assert (await waiting).status is VolumeStatus.READY
    told = [record for record in caplog.records if "daydreaming" in record.getMessage()]
    assert len(told) == 1 and volume.id in told[0].getMessage()


async def test_lists_come_in_pages(service, monkeypatch):
    monkeypatch.setattr(cinder, "PAGE", 2)
    keys = {new_id() for _ in range(5)}
    volumes = await asyncio.gather(*(service.create(key, "disk", GIB) for key in keys))
    await asyncio.gather(*(service.settled(volume.id) for volume in volumes))
    listed, count = await service._list()
    assert keys == {volume.key for volume in listed}
    assert count == 3


async def test_how_often_it_is_asked_for_lists(service, monkeypatch):
    """However many volumes come and go at once: one list request a second at most."""
    asked = []
    pages = service._pages

    async def counted(query):
        asked.append(asyncio.get_running_loop().time())
        volumes, count = await pages(query)
        assert count == 1
        return volumes, count

    monkeypatch.setattr(service, "_pages", counted)
    keys = [new_id() for _ in range(20)]
    async with quota(service, volumes=-1):
        volumes = await asyncio.gather(*(service.create(key, "disk", GIB) for key in keys))
        await asyncio.gather(*(service.settled(volume.id) for volume in volumes))
        await asyncio.gather(*(service.delete(volume.id) for volume in volumes))
        gone = await asyncio.gather(*(service.settled(volume.id) for volume in volumes))
    assert gone == [None] * 20
    assert len(asked) > 2
    assert all(later - sooner > 0.99 for sooner, later in itertools.pairwise(asked)), asked


async def test_gone_behind_our_back(service, by_hand):
    volume = await made(service)
    await asyncio.to_thread(by_hand.delete, volume.id)
    with refused(NotFound, volume.id):
        await service.extend(volume.id, 2 * GIB)
    assert await service.settled(volume.id) is None
