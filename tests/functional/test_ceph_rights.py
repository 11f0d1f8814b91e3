# SPDX-License-Identifier: GPL-2.0-or-later
"""Ceph users that lack a right which shows only later: to write, or to outlive a host. On host2.

librbd has the dead owner of an image's lock blocklisted before it writes to the image.
"""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import asynccontextmanager

import pytest

from lab.engine import new_id, secret_params
from lab.guest.domains import console_of, disk_xml
from tests.functional.helpers import (
    ask,
    engine_on,
    eventually,
    new_image,
    refused,
    running,
    session_fixture,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

OSD = "profile rbd pool=volumes"
MAY = ("mon", "profile rbd", "osd", OSD)
MAY_NOT = ("mon", "allow r", "osd", OSD)
LACKS = "may not blocklist clients, so that nothing can be written to an image whose last user died"
REMEDY = "the capability mon 'profile rbd' with 'ceph auth caps'"


@session_fixture("module")
async def engine(lab):
    options = {"ceph": {"monitor_interval_s": 1}, "rpc": {"validate_results": True}}
    async with engine_on(lab, lab.hosts["host2"], "rights", options) as engine:
        yield engine


@pytest.fixture
def user(engine):
    """Makes users with capabilities, whose keys are registered: a disk's auth for each."""
    made: list[str] = []

    async def make(*caps):
        name = f"user-{new_id()[:8]}"
        key = engine.lab.ceph.ceph("auth", "get-or-create-key", f"client.{name}", *caps)
        made.append(f"client.{name}")
        secret = secret_params(new_id(), key.strip())
        await engine.call("Host.registerSecrets", secrets=[secret])
        return {"type": "ceph", "username": name, "uuid": secret["uuid"]}

    yield make
    for name in made:
        engine.lab.ceph.ceph("auth", "rm", name)


def give(engine, auth, *caps):
    engine.lab.ceph.ceph("auth", "caps", f"client.{auth['username']}", *caps)


async def steps(engine, disk):
    found = await ask(engine, "Host.checkDisk", drive=disk)
    return {step["step"]: step for step in found["steps"]}


@asynccontextmanager
async def writing(engine, disk):
    """A VM whose guest has written to its disk; its id."""
    ceph, image, vm_id = engine.lab.ceph, disk["path"].rpartition("/")[2], new_id()
    xml = disk_xml(ceph, image, "vda", disk["auth"]["uuid"])
    xml = xml.replace(f"username='{ceph.user}'", f"username='{disk['auth']['username']}'")
    async with running(engine, engine.document(vm_id, xml)):
        with console_of(engine.daemon.host, f"vm-{vm_id}") as console:
            await asyncio.to_thread(console.wait_for, "^ready")
            await asyncio.to_thread(console.write, "vda", 0, 1, "x")
        yield vm_id


async def left_by_a_dead_host(engine, disk):
    """A VM writes to the image and is gone, as with its host: who has it locked and watches not."""
    ceph, image = engine.lab.ceph, disk["path"].rpartition("/")[2]
    async with writing(engine, disk) as vm_id:
        pid = (await engine.call("VM.getInfo", vmID=vm_id))["pid"]
        engine.daemon.host.namespace.end(pid, signal.SIGKILL)
        await engine.wait_status(vm_id, "Down")

    async def gone():
        return not ceph.watchers(image)

    await eventually(gone, "Ceph to let go of the image")
    (lock,) = json.loads(ceph.rbd("lock", "ls", "--format", "json", image))
    return lock["locker"]


async def test_a_lock_that_a_dead_host_left(engine, user):
    auth = await user(*MAY_NOT)
    with new_image(engine) as image:
        disk = engine.disk(image, auth=auth)
        dead = await left_by_a_dead_host(engine, disk)
        named = (f"user {auth['username']} {LACKS} ({dead} at ", "has it locked", REMEDY)
        with refused(9, f"(volumes/{image}): Ceph ", *named):
            await engine.create(engine.flat(new_id(), disk))
        found = (await steps(engine, disk))["user"]
        assert found["state"] == "wrong"
        assert [w for w in named if w not in f"{found['message']}; {found['remedy']}"] == []
        # Who only reads takes over no lock.
        assert (await steps(engine, {**disk, "readonly": "true"}))["user"]["state"] == "ok"
        # What it was when this host connected does not count any more.
        give(engine, auth, *MAY)
        async with writing(engine, disk):
            pass


async def test_before_a_host_dies(engine, user):
    """The VM runs, and everybody who asks is told."""
    auth = await user(*MAY_NOT)
    told = f"Ceph user {auth['username']} {LACKS}"
    with new_image(engine) as image:
        disk = engine.disk(image, auth=auth)
        found = (await steps(engine, disk))["user"]
        assert (found["state"], found["message"]) == ("warning", told)
        assert REMEDY in found["remedy"]

        async def warned():
            return [words for words in engine.daemon.health()["warnings"] if told in words]

        async with running(engine, engine.flat(new_id(), disk)):
            assert f"(volumes/{image}): {told}; give" in engine.daemon.log.read_text()
            (warning,) = await eventually(warned, "the warning")
            assert REMEDY in warning
            # Rights are those of new connections, and a check makes one.
            give(engine, auth, *MAY)
            shared = {**disk, "shared": "shared"}
            assert (await steps(engine, shared))["user"]["state"] == "ok"

            async def content():
                return not await warned()

            await eventually(content, "the warning to go")


@pytest.mark.parametrize(
    ("mon", "state"),
    [
        ("profile rbd", "ok"),
        ("allow r", "warning"),
        # As it was written before Ceph renamed the command, which librbd asks for now.
        ('allow r, allow command "osd blacklist"', "warning"),
        ('allow r, allow command "osd blocklist"', "ok"),
        ("allow *", "ok"),
    ],
)
async def test_capabilities_of_monitors(engine, user, mon, state):
    auth = await user("mon", mon, "osd", OSD)
    before = engine.lab.ceph.ceph("osd", "blocklist", "ls")
    with new_image(engine) as image:
        found = await steps(engine, engine.disk(image, auth=auth))
    assert {name for name, step in found.items() if step["state"] != "ok"} == (
        set() if state == "ok" else {"user"}
    )
    assert found["user"]["state"] == state
    assert engine.lab.ceph.ceph("osd", "blocklist", "ls") == before


async def test_an_image_without_a_lock_needs_no_blocklist(engine, user):
    auth, ceph = await user(*MAY_NOT), engine.lab.ceph
    image = f"volume-{new_id()}"
    ceph.rbd("create", "--size", "64M", "--image-feature", "layering", image)
    assert (await steps(engine, engine.disk(image, auth=auth)))["user"]["state"] == "ok"
    ceph.remove_image(image)


async def test_a_right_to_write_counts_once_it_is_given(engine, user):
    auth = await user("mon", "profile rbd", "osd", "profile rbd-read-only pool=volumes")
    with new_image(engine) as image:
        params = engine.flat(new_id(), engine.disk(image, auth=auth))
        with refused(9, "may not write to the image; check its capabilities"):
            await engine.create(params)
        give(engine, auth, *MAY)
        async with running(engine, params):
            pass


@pytest.fixture(scope="module")
def data_pool(lab):
    """Another pool for images' data."""
    lab.ceph.ceph("osd", "pool", "create", "data", 1)
    lab.ceph.ceph("osd", "pool", "application", "enable", "data", "rbd")
    yield "data"
    lab.ceph.ceph("osd", "pool", "rm", "data", "data", "--yes-i-really-really-mean-it")


async def test_data_in_a_pool_that_the_user_may_not_write_to(engine, user, data_pool):
    ceph, image = engine.lab.ceph, f"volume-{new_id()}"
    ceph.rbd("create", "--size", "64M", "--data-pool", data_pool, image)
    for osd in (OSD, f"{OSD}, profile rbd-read-only pool={data_pool}"):
        auth = await user("mon", "profile rbd", "osd", osd)
        words = f"user {auth['username']} may not write to pool {data_pool}, which has the image's"
        with refused(9, f"(volumes/{image}): Ceph ", words, "ceph auth get"):
            await engine.create(engine.flat(new_id(), engine.disk(image, auth=auth)))
    give(engine, auth, "mon", "profile rbd", "osd", f"{OSD}, profile rbd pool={data_pool}")
    async with running(engine, engine.flat(new_id(), engine.disk(image, auth=auth))):
        pass
    ceph.remove_image(image)
