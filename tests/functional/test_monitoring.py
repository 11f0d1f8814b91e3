# SPDX-License-Identifier: GPL-2.0-or-later
"""How the clusters of running VMs are watched: statistics, metrics, health, events. On host2."""

from __future__ import annotations

import asyncio
import time

import pytest

from lab.engine import Engine, forget_events, new_id
from lab.host.daemon import HostDaemon
from tests.functional.helpers import (
    CONTRACT,
    ask,
    eventually,
    new_image,
    running,
    session_fixture,
)
from vdsmcinder.errors import RemoteError

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECOVERING = 99
OPTIONS = {"ceph": {"monitor_interval_s": 0.5}, "rpc": {"validate_results": True}}


@session_fixture("module")
async def engine(lab):
    with HostDaemon(lab.hosts["host2"], lab.pki, OPTIONS, "monitoring") as daemon:
        async with Engine(lab, daemon) as engine:
            await engine.register_key()
            yield engine


@session_fixture("module")
async def vm(engine):
    """A VM with nothing to boot; its id."""
    with new_image(engine) as image:
        async with running(engine, engine.flat(new_id(), engine.disk(image))) as vm_id:
            yield vm_id


async def cluster(engine):
    """The only cluster in use, once it has been looked at."""

    async def looked_at():
        try:
            return (await ask(engine, "Host.getStats"))["cephClusters"]
        except RemoteError as e:
            # A daemon that has just started still reads its VMs from libvirt.
            assert e.code == RECOVERING, e
            return None

    (found,) = await eventually(looked_at, "the cluster to be looked at")
    return found


async def until(engine, what, look):
    async def seen():
        found = await cluster(engine)
        return found if look(found) else None

    return await eventually(seen, what)


async def test_statistics_tell_of_the_cluster(engine, vm, lab):
    found = await until(engine, "the fsid", lambda c: "fsid" in c)
    assert found["fsid"] == lab.ceph.ceph("fsid").strip()
    assert (found["reachable"], found["user"]) == (True, "cinder")
    assert found["health"] == "HEALTH_OK", found["checks"]
    assert [(m["name"], m["inQuorum"], m["reachable"]) for m in found["monitors"]] == [
        (name, True, True) for name in "abc"
    ]
    assert list(found["pools"]) == ["volumes"]
    assert int(found["pools"]["volumes"]["availableBytes"]) > 2**30
    assert 0 < float(found["delay"]) < 1
    domains = (await ask(engine, "Host.getStats"))["storageDomains"]
    vitals = domains[found["fsid"]]
    assert (vitals["valid"], vitals["code"]) == (True, 0)
    page = engine.daemon.page("/metrics").decode()
    named = f'cluster="{found["fsid"]}"'
    for line in (
        f'ceph_up{{{named},user="cinder"}} 1.0',
        f'ceph_health{{{named},user="cinder"}} 0.0',
        f'ceph_monitor_in_quorum{{{named},monitor="b",user="cinder"}} 1.0',
        f'ceph_pool_available_bytes{{{named},pool="volumes",user="cinder"}} ',
    ):
        assert f"vdsm_cinder_{line}" in page


async def test_a_monitor_that_died_is_told(engine, vm, lab):
    def is_down(found):
        b = found["monitors"][1]
        return not b["reachable"] and b.get("inQuorum") is False

    lab.ceph.kill_mon("b")
    try:
        found = await until(engine, "monitor b to be missed", is_down)
        assert found["reachable"] is True
        assert found["monitors"][1]["reason"] == "connection refused"
        found = await until(engine, "Ceph to say so", lambda c: "MON_DOWN" in c["checks"])
        assert found["health"] == "HEALTH_WARN"
    finally:
        lab.ceph.start_mon("b")
        lab.ceph.wait_quorum(3)
    await until(engine, "monitor b", lambda c: all(m["reachable"] for m in c["monitors"]))


async def test_osds_that_fill_up_are_told(engine, vm, lab):
    lab.ceph.ceph("osd", "set-nearfull-ratio", "0.0000001")
    try:
        found = await until(engine, "a full OSD", lambda c: c["fullOsds"])
        assert found["fullOsds"] == ["osd.0 is near full"]
        assert "OSD_NEARFULL" in found["checks"]
    finally:
        lab.ceph.ceph("osd", "set-nearfull-ratio", "0.85")
    await until(engine, "no full OSD", lambda c: not c["fullOsds"])


async def test_a_cluster_that_goes_and_comes_back_is_told(engine, vm, lab):
    fsid = (await until(engine, "the cluster", lambda c: "fsid" in c and c["reachable"]))["fsid"]
    # While monitors elect a leader nobody is answered, which was told when one had died.
    await forget_events(engine.session)

    async def told(reachable):
        name = f"|ceph|cluster_status|{fsid}"
        event = await engine.session.wait_for_event(
            lambda e: e["method"] == name and e["params"][fsid]["reachable"] is reachable, 60
        )
        declared = next(e for e in CONTRACT.events if e.name.startswith("|ceph|"))
        declared.params.check(event["params"], "params")
        return event["params"][fsid]

    for name in "abc":
        lab.ceph.freeze_mon(name)
    try:
        reason = (await told(False))["reason"]
        assert reason.startswith("no Ceph monitor can be reached from this host: 10.77.0.11 (no")
        began = time.monotonic()
        stats = await ask(engine, "Host.getStats")
        assert await ask(engine, "Host.getAllVmStats")
        assert time.monotonic() - began < 2
        assert stats["cephClusters"][0]["reason"] == reason
        assert stats["storageDomains"][fsid]["valid"] is False
        health = await asyncio.to_thread(engine.daemon.health)
        assert (health["status"], health["ready"]) == ("degraded", True)
        assert f"Ceph cluster {fsid}, which running VMs use, is unreachable" in health["reasons"][0]
    finally:
        for name in "abc":
            lab.ceph.thaw_mon(name)
        lab.ceph.wait_quorum(3)
    assert "reason" not in await told(True)


async def test_without_the_key_the_monitors_are_watched(engine, vm, lab):
    """And a daemon whose cluster is silent starts as fast as ever."""
    for name in "abc":
        lab.ceph.freeze_mon(name)
    try:
        engine.daemon.stop()
        engine.daemon.launch()
        assert engine.daemon.ready_after_s < 5
        await engine.connect()
        found = await until(engine, "silence", lambda c: not c["reachable"])
        assert [m["reachable"] for m in found["monitors"]] == [False] * 3
    finally:
        for name in "abc":
            lab.ceph.thaw_mon(name)
        lab.ceph.wait_quorum(3)
    found = await until(engine, "the monitors", lambda c: c["reachable"])
    assert [m["reachable"] for m in found["monitors"]] == [True] * 3
    assert "fsid" not in found
    await engine.register_key()
    await until(engine, "the fsid", lambda c: "fsid" in c)


async def test_nobody_watches_what_nobody_uses(engine, vm):
    await engine.destroy(vm)

    async def none():
        return not (await ask(engine, "Host.getStats"))["cephClusters"]

    await eventually(none, "the cluster to be forgotten")
