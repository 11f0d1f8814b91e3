# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of a pool without a Cinder: how they are made, and what Ceph refuses, in words."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
import pytest_asyncio

from cinderengine.errors import Conflict, Incomplete, Invalid, NotFound, Unavailable
from cinderengine.model.ids import new_id
from cinderengine.model.secret import Secret
from cinderengine.volumes.addresses import PoolAddress
from cinderengine.volumes.rbd import FEATURES, PoolVolumes, id_of, image_of
from cinderengine.volumes.service import GIB, VolumeStatus
from lab.base import ENGINE_ADDRESS, wait_until
from tests.engine.functional.providers import nothing_logged_of, opened, pool_of, refused

pytestmark = pytest.mark.nightly

OTHER_KEY = "AQDuPz9lAAAAABAA7Vg0bQ1r5oY1+0m6p2b1Gg=="


@pytest_asyncio.fixture
async def service(lab):
    async with opened(pool_of(lab), lab.ceph.key) as service:
        yield service
        for volume in await service.volumes():
            if volume.key is not None:
                await service.delete(volume.id)


async def check(lab, password=None, **changes):
    """Open the lab's pool with other fields, and check it."""
    async with opened(pool_of(lab, **changes), lab.ceph.key if password is None else password) as s:
        await s.check()


async def test_how_an_image_is_made(service, lab):
    key = new_id()
    volume = await service.create(key, "disk", GIB)
    assert volume.id == id_of(key)
    info = json.loads(lab.ceph.rbd("info", "--format", "json", image_of(volume.id)))
    assert set(info["features"]) == set(FEATURES.split(","))
    assert lab.ceph.rbd("image-meta", "get", image_of(volume.id), "cinder-engine.key") == f"{key}\n"


async def test_an_image_that_is_open(service, lab):
    volume = await service.create(new_id(), "disk", GIB)
    image = image_of(volume.id)
    script = f"import rados,rbd,sys;c=rados.Rados(conffile={str(lab.ceph.conf)!r});c.connect()"
    script += f";i=rbd.Image(c.open_ioctx({lab.ceph.pool!r}),{image!r});print('open',flush=True)"
    script += ";sys.stdin.read();i.close()"
    process = await asyncio.create_subprocess_exec(
        *("/usr/bin/python3", "-c", script),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert await process.stdout.readline() == b"open\n"
    used = await service.get(volume.id)
    assert used.status is VolumeStatus.IN_USE
    with refused(Conflict, image, lab.ceph.pool, ENGINE_ADDRESS):
        await service.delete(volume.id)
    await service.extend(volume.id, 2 * GIB)
    process.stdin.close()
    await process.wait()
    free = await service.get(volume.id)
    assert (free.status, free.size_bytes) == (VolumeStatus.READY, 2 * GIB)


async def test_an_image_with_a_snapshot(service, lab):
    volume = await service.create(new_id(), "disk", GIB)
    lab.ceph.rbd("snap", "create", f"{image_of(volume.id)}@one")
    with refused(Conflict, image_of(volume.id), "snapshots"):
        await service.delete(volume.id)
    lab.ceph.rbd("snap", "rm", "--no-progress", f"{image_of(volume.id)}@one")


async def test_other_images_are_no_volumes(service, lab):
    lab.ceph.create_image("golden", 64)
    by_hand = f"volume-{new_id()}"
    lab.ceph.create_image(by_hand, 64)
    found = {volume.name: volume for volume in await service.volumes()}
    assert "golden" not in found
    assert found[by_hand].key is None
    for name in ("golden", by_hand):
        lab.ceph.remove_image(name)


async def test_a_type_that_a_pool_has_not(service, lab):
    with refused(Invalid, "gold", lab.ceph.pool):
        await service.create(new_id(), "disk", GIB, "gold")
    (kind,) = await service.types()
    volume = await service.create(new_id(), "disk", GIB, kind.name)
    assert volume.type_name == kind.name == lab.ceph.pool
    assert kind.properties == {"features": FEATURES}


async def test_what_ceph_does_not_let_in(lab, caplog):
    for key in (OTHER_KEY, lab.ceph.key_of("client.admin")):
        with nothing_logged_of(key, caplog), refused(Invalid, "client.cinder", without=key):
            await check(lab, key)
    with refused(Invalid, "client.nobody"):
        await check(lab, username="nobody")
    for text in ("secret", "c2VjcmV0", "ö"):
        with nothing_logged_of(text, caplog), refused(Invalid, "CEPHX key", without=text):
            await check(lab, text)
    with refused(Incomplete, "CEPHX key"):
        await check(lab, "")


async def test_a_pool_that_is_not_there(lab):
    url = pool_of(lab).url
    with refused(Invalid, "pool none", "create the pool"):
        await check(lab, url=url.replace(f"/{lab.ceph.pool}", "/none"))


async def test_a_user_that_may_only_read(lab):
    pool = lab.ceph.pool
    caps = ("mon", "profile rbd", "osd", f"profile rbd-read-only pool={pool}")
    lab.ceph.ceph("auth", "get-or-create", "client.reader", *caps)
    key = lab.ceph.ceph("auth", "print-key", "client.reader").strip()
    async with opened(pool_of(lab, username="reader"), key) as service:
        with refused(Invalid, "client.reader", f"profile rbd pool={pool}", without=key):
            await service.check()
        with refused(Invalid, "client.reader", without=key):
            await service.create(new_id(), "disk", GIB)
        # What was lacking is given, and counts at once.
        lab.ceph.ceph(
            "auth", "caps", "client.reader", "mon", caps[1], "osd", f"profile rbd pool={pool}"
        )
        await service.check()
    lab.ceph.ceph("auth", "rm", "client.reader")


@pytest.mark.parametrize(
    ("hosts", "words"),
    [(f"{ENGINE_ADDRESS}:1", "quorum"), ("no.such.name.invalid", "DNS")],
)
async def test_no_monitor_there(lab, hosts, words):
    address = PoolAddress.of(f"rbd://{hosts}/{lab.ceph.pool}")
    service = PoolVolumes(address, lab.ceph.user, Secret(lab.ceph.key), 3)
    try:
        with refused(Unavailable, hosts, words):
            await service.check()
    finally:
        await service.close()


async def test_a_pool_at_its_quota(service, lab):
    volume = await service.create(new_id(), "disk", GIB)
    quota = ("osd", "pool", "set-quota", lab.ceph.pool, "max_objects")
    lab.ceph.ceph(*quota, 1)
    try:
        await asyncio.to_thread(wait_until, lambda: _is_full(lab), "the pool to be full", 60)
        with refused(Conflict, lab.ceph.pool, "quota"):
            await service.create(new_id(), "disk", GIB)
        with refused(Conflict, lab.ceph.pool, "quota"):
            await service.extend(volume.id, 2 * GIB)
        await service.delete(volume.id)
        assert await service.get(volume.id) is None
    finally:
        lab.ceph.ceph(*quota, 0)
        await asyncio.to_thread(wait_until, lambda: not _is_full(lab), "room in the pool", 60)


def _is_full(lab):
    return "full_quota" in lab.ceph.ceph("osd", "pool", "ls", "detail")


async def test_a_worker_that_hangs_is_replaced(service, lab):
    await service.check()
    pid = service._worker.pid
    os.kill(pid, signal.SIGSTOP)
    with refused(Unavailable, lab.ceph.monitors[0].address):
        await service._ask("check", "writing", 1)
    await service.check()
    assert service._worker.pid not in (0, pid)


async def test_where_the_key_is_not(service, lab):
    await service.check()
    process = Path(f"/proc/{service._worker.pid}")
    for name in ("cmdline", "environ"):
        assert lab.ceph.key.encode() not in (process / name).read_bytes()
    assert "Max core file size        0 " in (process / "limits").read_text()


async def test_nothing_is_left_running(lab):
    async with opened(pool_of(lab), lab.ceph.key) as service:
        await service.check()
        pid = service._worker.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_gone_behind_our_back(service, lab):
    volume = await service.create(new_id(), "disk", GIB)
    lab.ceph.remove_image(image_of(volume.id))
    with refused(NotFound, image_of(volume.id), lab.ceph.pool):
        await service.extend(volume.id, 2 * GIB)
    await service.delete(volume.id)
