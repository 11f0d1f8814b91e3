# SPDX-License-Identifier: GPL-2.0-or-later
"""A pool that takes no more writes: what is refused and how, what becomes of VMs. On host2.

librados keeps what is to be written to such a pool until there is room, the watch included that an
image is opened with; the client configuration of these disks has it give up.
"""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest

from lab.engine import forget_events, new_id, secret_params
from lab.guest.domains import console_of, disk_xml
from lab.guest.records import compare
from tests.functional.helpers import (
    Machine,
    ask,
    engine_on,
    eventually,
    refused,
    running,
    session_fixture,
)
from vdsmcinder.stomp.client import NoSuchEvent

pytestmark = pytest.mark.asyncio(loop_scope="session")

OSD_TIMEOUT_S = 2
# A VM that is tried in vain is paused again within that, and tried again.
QUIET_S = 8
# The clusters in use are looked at this often.
OPTIONS = {"ceph": {"monitor_interval_s": 1}, "rpc": {"validate_results": True}}
RATIOS = {"nearfull": "0.85", "backfillfull": "0.9", "full": "0.95"}
OF_QUOTA = "pool small is full, for its quota is reached; delete what nobody needs, or raise the"
OF_OSD = "pool small is full, for an OSD of the Ceph cluster is; add OSDs, or delete what nobody"


@session_fixture("module")
async def engine(lab):
    async with engine_on(lab, lab.hosts["host2"], "full", OPTIONS) as engine:
        yield engine


@pytest.fixture(scope="module")
def small(lab):
    """A pool of its own, with the user of it."""
    ceph = dataclasses.replace(lab.ceph, pool="small", user="small")
    ceph.ceph("osd", "pool", "create", "small", 1)
    ceph.rbd("pool", "init", "small")
    yield ceph
    ceph.ceph("osd", "pool", "rm", "small", "small", "--yes-i-really-really-mean-it")
    ceph.ceph("auth", "rm", "client.small")


@session_fixture("module")
async def key(engine, small):
    """The pool's key, registered; its secret."""
    caps = ("mon", "profile rbd", "osd", "profile rbd pool=small, profile rbd pool=volumes")
    value = small.ceph("auth", "get-or-create-key", "client.small", *caps).strip()
    secret = secret_params(new_id(), value)
    await engine.call("Host.registerSecrets", secrets=[secret])
    return secret["uuid"]


@pytest.fixture(scope="module")
def image(small):
    """Makes images of that pool, which go with it."""

    def make(*words):
        name = f"volume-{new_id()}"
        small.rbd("create", "--size", "64M", *words, name)
        return name

    return make


@session_fixture("module")
async def vm(engine, small, key, image):
    """A VM whose guest is ready, with a time-out for its only disk."""
    conf = engine.daemon.directory / "impatient.conf"
    conf.write_text(f"[client]\nrados_osd_op_timeout = {OSD_TIMEOUT_S}\n")
    name = image()
    disk = disk_xml(small, name, "vda", key).replace(
        "cache='none'", "cache='none' error_policy='stop'"
    )
    disk = disk.replace("</source>", f"<config file='{conf}'/></source>")
    async with running(engine, engine.document(new_id(), disk)) as vm_id:
        domain = f"vm-{vm_id}"
        with console_of(engine.daemon.host, domain) as console:
            await asyncio.to_thread(console.wait_for, "^ready")
            yield Machine(vm_id, domain, name, console)


def drive(engine, key, image, **changes):
    auth = {"type": "ceph", "username": "small", "uuid": key}
    return engine.disk(image, **{"path": f"small/{image}", "auth": auth, **changes})


@contextmanager
def quota(ceph, what, limit, pool="small"):
    """A quota that is reached already."""
    ceph.ceph("osd", "pool", "set-quota", pool, what, limit)
    try:
        yield
    finally:
        ceph.ceph("osd", "pool", "set-quota", pool, what, 0)


@contextmanager
def ratios(ceph, **changed):
    """The cluster counts as full from another share of its OSDs' room on."""
    with ExitStack() as undo:
        for name, usual in reversed(RATIOS.items()):
            undo.callback(ceph.ceph, "osd", f"set-{name}-ratio", usual)
        for name, value in changed.items():
            ceph.ceph("osd", f"set-{name}-ratio", value)
        yield


@contextmanager
def full_osd(ceph):
    with ratios(ceph, nearfull="0.0001", backfillfull="0.0002", full="0.0003"):
        yield


async def tells(engine, disk, state, words):
    """Wait until a check of the disk says so of its pool."""

    async def told():
        found = await ask(engine, "Host.checkDisk", drive=disk)
        (pool,) = (step for step in found["steps"] if step["step"] == "pool")
        return pool if pool["state"] == state else None

    found = await eventually(told, f"the pool to be told as {state}")
    assert words in f"{found['message']}; {found.get('remedy', '')}", found


@pytest.fixture(scope="module")
def disks(engine, key, image):
    """Makes disks on images of their own."""
    return lambda **changes: drive(engine, key, image(), **changes)


@pytest.fixture(scope="module")
def probe(disks):
    """A disk to ask about: in the moment in which a pool becomes full its claim may be left."""
    return disks()


@asynccontextmanager
async def full(engine, probe, how, words):
    """The pool is full, and known to be."""
    with how:
        await tells(engine, probe, "wrong", words)
        yield
    await tells(engine, probe, "ok", "small exists")


@pytest.fixture(params=["bytes", "objects", "osd"])
def way(request, small):
    """How the pool becomes full, and in which words that is told."""
    if request.param == "osd":
        return full_osd(small), OF_OSD
    return quota(small, f"max_{request.param}", 1), OF_QUOTA


async def test_what_needs_room_is_refused_in_time(engine, vm, disks, probe, way):
    how, words = way
    disk, reader = disks(), disks(readonly="true")
    async with full(engine, probe, how, words):
        # QEMU would open what is only read as if it wrote to it, and hang.
        for refusable in (disk, reader):
            named = f"({refusable['path']}): {words}"
            with refused(40, named):
                await engine.call("VM.hotplugDisk", vmID=vm.id, params={"drive": refusable})
            with refused(40, named):
                await engine.create(engine.flat(new_id(), refusable))
    for wanted in (disk, reader):
        await engine.call("VM.hotplugDisk", vmID=vm.id, params={"drive": wanted})
        await engine.call("VM.hotunplugDisk", vmID=vm.id, params={"drive": wanted})


async def test_a_vm_stays_paused_until_there_is_room(engine, small, vm, probe, way):
    how, words = way
    run = {OF_QUOTA: 1, OF_OSD: 2}[words]
    await asyncio.to_thread(vm.console.ask, f"hammer vda {run}", r"^hammer vda \d+$")
    async with full(engine, probe, how, words):
        paused = await engine.session.wait_for_event(
            lambda e: e["params"].get(vm.id, {}).get("pauseCode") == "ENOSPC"
        )

        def is_up_again(event):
            later = event["params"]["notify_time"] > paused["params"]["notify_time"]
            return later and event["params"].get(vm.id, {}).get("status") == "Up"

        with pytest.raises(NoSuchEvent):
            await engine.session.wait_for_event(is_up_again, QUIET_S)
        (stats,) = await ask(engine, "VM.getStats", vmID=vm.id)
        told = [stats[name] for name in ("status", "pauseCode", "failedDisks")]
        assert told == ["Paused", "ENOSPC", ["vda"]]
        (check,) = await ask(engine, "VM.checkDisks", vmID=vm.id)
        (step,) = (step for step in check["steps"] if step["step"] == "pool")
        assert step["state"] == "wrong"
        assert f"{step['message']}; {step['remedy']}".startswith(words)
    await engine.wait_status(vm.id, "Up")
    said = await asyncio.to_thread(vm.console.ask, "stop", r"^hammered vda (\d+)$")
    found = compare(small, vm.image, run, int(said[1]))
    assert (found.lost, found.strange) == ((), ())


def about_room(event, *, full):
    """What an event tells of a cluster, if it is of one that has, or has not, a full pool."""
    if not event["method"].startswith("|ceph|cluster_status|"):
        return None
    (notice,) = (told for name, told in event["params"].items() if name != "notify_time")
    return notice if ("fullPools" in notice) is full else None


async def test_operators_are_told(engine, vm, probe):
    cause, _, remedy = OF_QUOTA.partition("; ")

    async def is_known_to_be(full):
        (cluster,) = (await ask(engine, "Host.getStats"))["cephClusters"]
        return cluster["pools"]["small"]["full"] is full

    def reasons():
        return [why for why in engine.daemon.health()["reasons"] if "waits for room" in why]

    await eventually(lambda: is_known_to_be(False), "what was before to be over")
    assert reasons() == []
    await forget_events(engine.session)
    async with full(engine, probe, quota(engine.lab.ceph, "max_bytes", 1, "small"), OF_QUOTA):
        event = await engine.session.wait_for_event(lambda e: about_room(e, full=True))
        assert about_room(event, full=True)["fullPools"] == {"small": cause}
        assert await is_known_to_be(True)
        health = engine.daemon.health()
        assert (health["ready"], health["status"]) == (True, "degraded")
        (reason,) = reasons()
        assert f": {cause}, of Ceph cluster " in reason
        assert f"; {remedy}" in reason
        assert 'ceph_pool_full{cluster="' in engine.daemon.page("/metrics").decode()
    await engine.session.wait_for_event(lambda e: about_room(e, full=False))
    assert reasons() == []


async def test_an_osd_that_is_nearly_full_is_a_warning(engine, small, disks):
    disk = disks()
    words = "pool small is nearly full, for an OSD of the Ceph cluster is; add OSDs"
    for changed in ({"nearfull": "0.0001"}, {"nearfull": "0.0001", "backfillfull": "0.0002"}):
        with ratios(small, **changed):
            await tells(engine, disk, "warning", words)
            async with running(engine, engine.flat(new_id(), disk)):
                pass
        await tells(engine, disk, "ok", "small exists")


async def test_a_pool_that_has_but_the_data(engine, lab, small, key, probe):
    """The pool of the image itself has room."""
    name = f"volume-{new_id()}"
    lab.ceph.rbd("create", "--size", "64M", "--data-pool", "small", name)
    disk = drive(engine, key, name, path=f"volumes/{name}")
    async with full(engine, probe, quota(small, "max_bytes", 1), OF_QUOTA):
        with refused(40, f"(volumes/{name}): {OF_QUOTA}"):
            await engine.create(engine.flat(new_id(), disk))
    async with running(engine, engine.flat(new_id(), disk)):
        pass
    lab.ceph.remove_image(name)
