# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that migrate between two real hosts while their guests write.

tests/faults/migration.py has what fails meanwhile; `make migrations` moves a VM twenty times.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import ExitStack, contextmanager

import pytest
import rados
import rbd

from lab.base import ENGINE_ADDRESS
from lab.engine import new_id, secret_params
from lab.host.hypervisor import MIGRATION_PKI
from lab.lifecycle import USERFAULTFD, has_post_copy
from lab.migrating_vm import Traveller
from tests.functional import vnc
from tests.functional.guests import display
from tests.functional.helpers import (
    destroyed_at_last,
    eventually,
    new_image,
    recorded_events,
    refused,
    running,
    session_fixture,
    status,
    told,
    within,
)
from tests.functional.journeys import Journeys
from tests.functional.leaks import Directory, shown
from tests.functional.two_hosts import SLOW, frozen, host2, idle

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRIPS = 4
NOBODY = "11111111-2222-4333-8444-555555555555"
HUGE_MIB = 10_000_000
# What no emulated processor has.
CPU = "<cpu><model>qemu64</model><feature policy='require' name='avx512f'/></cpu>"
DATA_PREFIX = "10.78.0"
# What a guest that writes has to be copied again takes longer than 1 ms.
NEVER = [{"name": "setDowntime", "params": ["1"]}]
BY_POST_COPY = {"name": "postcopy", "params": []}
POST_COPY = {"init": NEVER, "stalling": [{"limit": -1, "action": BY_POST_COPY}]}
# Of a second daemon on host2.
BESIDE = 54401

needs_post_copy = pytest.mark.skipif(
    not has_post_copy(), reason=f"{USERFAULTFD} is 0, and this machine does not let the lab set it"
)


@session_fixture("module")
async def elsewhere(lab, engine):
    """An engine of the daemon on host2."""
    limits = {"incoming_limit": 1, "queue_limit": 0, "hand_over_secrets": True}
    async with host2(lab, engine, "migration", migration=limits) as other:
        yield other


@session_fixture("module")
async def journeys(engine, elsewhere):
    journeys = Journeys((engine, elsewhere), display(engine))
    yield journeys
    await journeys.end()


@session_fixture("function")
async def traveller(journeys):
    """A VM that is at home on host1 when a test begins."""
    async with journeys.one() as vm:
        yield vm


def migrating(vm, **params):
    """The parameters that move the VM to the other host."""
    return {"vmId": vm.id, "dst": vm.destination(), "dstparams": "", **params}


async def call(vm, verb, **params):
    """Call a verb of VM.* on it, on the host that it is on."""
    return await vm.here.call(f"VM.{verb}", vmID=vm.id, **params)


async def is_home(vm):
    """The VM is Up where it was, and the other host knows nothing of it any more."""

    async def forgotten():
        return vm.id not in await vm.there.call("Host.getVMList", onlyUUID=True)

    await eventually(forgotten, "the other host to forget the VM")
    assert await status(vm.here, vm.id) == "Up"
    assert vm.id not in vm.there.daemon.host.virsh("list", "--all", "--uuid")


async def test_back_and_forth_while_it_writes(traveller):
    await traveller.begin()
    hosts = []
    for _ in range(TRIPS):
        before = traveller.acknowledged()
        assert await traveller.go() > 0
        hosts.append(traveller.here.daemon.host.name)
        await traveller.writes_on(3)
        assert traveller.acknowledged() > before
        await is_home(traveller)
    found = await traveller.stop()
    assert (found.lost, found.strange) == ((), ())
    assert hosts == ["host2", "host1"] * (TRIPS // 2)


async def test_what_both_engines_are_told(traveller):
    async with recorded_events(traveller.here) as left, recorded_events(traveller.there) as came:
        await traveller.go(maxBandwidth=64)
    assert told(left, traveller.id) == ["Migration Source", "Down"]
    ended = [e["params"][traveller.id].get("exitMessage") for e in left]
    assert ended[-1] == f"The VM migrated to host {traveller.here.daemon.host.name}:54321."
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


async def test_its_data_is_encrypted_and_takes_the_ways_it_is_given(traveller):
    """By several connections on a network of its own, whose address no certificate names."""
    source = traveller.here.daemon.host
    with data_network(source, traveller.there.daemon.host) as there:
        params = migrating(traveller, maxBandwidth=SLOW, parallel=3, dstqemu=there)
        await call(traveller, "migrate", params=params)
        await traveller.copying()
        used = qemu_says(source, traveller.id, "query-migrate-parameters")
        assert (used["tls-creds"], used["tls-hostname"]) == ("objlibvirt_migrate_tls0", "host2")
        # One more is for what is not the guest's memory.
        streams = ["ss", "-Htn", "state", "established", f"dst {there} and dport >= :49152"]
        assert len(source.run(streams).splitlines()) == 1 + 3
        await call(traveller, "migrateChangeParams", params={"maxBandwidth": 0})
        await traveller.arrives()
        await traveller.go()


@contextmanager
def data_network(*hosts):
    """Give the hosts addresses on a network for migrations; yields the last one's."""
    with ExitStack() as given:
        for n, host in enumerate(hosts, 1):
            address = [f"{DATA_PREFIX}.{n}/24", "dev", "eth0"]
            host.run(["ip", "address", "add", *address])
            given.callback(host.run, ["ip", "address", "del", *address])
        yield f"{DATA_PREFIX}.{len(hosts)}"


def qemu_says(host, vm_id, command):
    """What the VM's QEMU answers to a command of its monitor (qemu-qmp-ref)."""
    asked = json.dumps({"execute": command})
    return json.loads(host.virsh("qemu-monitor-command", vm_id, asked))["return"]


async def test_without_certificates_it_goes_in_the_clear_unless_that_is_forbidden(traveller):
    certificate = traveller.there.daemon.host.path(f"{MIGRATION_PKI}/server-cert.pem")
    aside = certificate.rename(certificate.with_suffix(".aside"))
    try:
        with refused(12, "host host2:54321 has no certificates for that"):
            await call(traveller, "migrate", params=migrating(traveller, encrypted=True))
        await is_home(traveller)
        source = traveller.here.daemon.host
        await call(traveller, "migrate", params=migrating(traveller, maxBandwidth=SLOW))
        await traveller.copying()
        assert qemu_says(source, traveller.id, "query-migrate-parameters")["tls-creds"] == ""
        await call(traveller, "migrateCancel")
        await is_home(traveller)
    finally:
        aside.rename(certificate)


async def test_its_display_moves_along(traveller):
    await call(traveller, "setTicket", password="secret01", ttl=120, existingConnAction="keep")
    for _ in range(2):
        await traveller.go()
        (stats,) = await call(traveller, "getStats")
        (shown,) = stats["displayInfo"]
        assert shown["ipAddress"] == traveller.here.daemon.host.address
        door = (shown["ipAddress"], int(shown["port"]))
        assert vnc.opens(*door, "secret01")
        assert not vnc.opens(*door, "secret02")


async def test_what_would_disturb_is_refused_and_a_cancel_leaves_it_here(traveller):
    await call(traveller, "migrate", params=migrating(traveller, maxBandwidth=SLOW))
    assert await status(traveller.here, traveller.id) == "Migration Source"
    assert await status(traveller.there, traveller.id) == "Migration Destination"
    disk = {"vmId": traveller.id, "drive": traveller.here.disk(traveller.image)}
    for verb, params in (
        ("pause", {}),
        ("reset", {}),
        ("hotplugDisk", {"params": disk}),
        ("setNumberOfCpus", {"numberOfCpus": 1}),
        ("shutdown", {"delay": 0, "message": ""}),
        ("migrate", {"params": migrating(traveller)}),
    ):
        with refused(51, f"VM {traveller.id} migrates to host2:", "VM.migrateCancel"):
            await call(traveller, verb, **params)
    with refused(51, "comes from host1"):
        await traveller.there.call("VM.pause", vmID=traveller.id)
    with refused(47, "only the host that it leaves"):
        await traveller.there.call("VM.migrateCancel", vmID=traveller.id)
    assert (await call(traveller, "getMigrationStatus"))["status"]["message"] == (
        "Migration in progress"
    )
    assert await call(traveller, "migrateCancel")
    assert await status(traveller.here, traveller.id) == "Up"
    with refused(12, "the migration was cancelled"):
        await call(traveller, "getMigrationStatus")
    with refused(47, "does not migrate"):
        await call(traveller, "migrateCancel")
    await is_home(traveller)


async def test_destroying_what_comes_leaves_it_where_it_is(traveller):
    """At once when it is announced, and while it is copied."""
    for wait in (announced, traveller.copying):
        await call(traveller, "migrate", params=migrating(traveller, maxBandwidth=SLOW))
        await wait()
        await traveller.there.destroy(traveller.id)
        await eventually(lambda: stays(traveller), "the VM to stay")
        await is_home(traveller)
        with refused(12, "was not migrated to host host2:"):
            await call(traveller, "getMigrationStatus")


async def announced():
    """VM.migrate returns then."""


async def test_a_migration_that_crawls_is_hurried(traveller):
    await call(traveller, "migrate", params=migrating(traveller, maxBandwidth=SLOW))
    with refused(91, "maxBandwidth is a number"):
        await call(traveller, "migrateChangeParams", params={"maxBandwidth": -1})
    await eventually(lambda: is_copying(traveller), "libvirt to copy")
    assert await call(traveller, "migrateChangeParams", params={"maxBandwidth": 0})
    await traveller.arrives()
    await traveller.go()


async def is_copying(vm):
    return "Outgoing migration" in vm.here.daemon.host.virsh("domjobinfo", vm.id)


async def test_a_schedule_ends_what_does_not_converge(traveller):
    stalling = [{"limit": -1, "action": {"name": "abort", "params": []}}]
    schedule = {"init": NEVER, "stalling": stalling}
    await traveller.begin()
    params = migrating(traveller, maxBandwidth=16, convergenceSchedule=schedule)
    await call(traveller, "migrate", params=params)
    await eventually(lambda: stays(traveller), "the migration to end")
    with refused(12, "was not migrated to host host2:"):
        await call(traveller, "getMigrationStatus")
    assert (await traveller.stop()).lost == ()
    await is_home(traveller)


@needs_post_copy
async def test_a_guest_that_does_not_converge_goes_by_post_copy(engine, elsewhere):
    """It runs there while its memory follows, is never Up on both hosts, and loses no record.

    Whether it writes on is not asked: now and then a guest that QEMU 7.2 emulates stops for good
    after post-copy, its processor at one instruction; after 'virsh migrate --postcopy' as well.
    """
    async with Traveller((engine, elsewhere)) as vm:
        await vm.begin()
        # Faster than it is copied: writing a record a time, a guest on a busy machine converges.
        changing = "sh (while :; do cat /bin/busybox >/tmp/changing; done) &"
        await asyncio.to_thread(vm.console.ask, changing, "^sh 0$")
        async with recorded_events(engine) as left, recorded_events(elsewhere) as came:
            params = migrating(vm, maxBandwidth=8, convergenceSchedule=POST_COPY)
            await call(vm, "migrate", params=params)
            assert await vm.arrives() > 0
        assert told(left, vm.id) == ["Migration Source", "Down"]
        assert told(came, vm.id)[:2] == ["Migration Destination", "Up"]
        name = f"|virt|VM_migration_status|{vm.id}"
        notices = [e["params"][vm.id] for e in left if e["method"] == name]
        assert [notice["postcopy"] for notice in (notices[0], notices[-1])] == [False, True]
        assert notices[-1]["progress"] == 100
        assert notices[-1]["downtime"] > 0
        assert vm.judge(vm.acknowledged()).lost == ()


async def stays(vm):
    return await status(vm.here, vm.id) == "Up"


async def test_one_comes_at_a_time_and_the_other_waits(traveller, engine, elsewhere):
    """The limit of host2 is 1; a second VM waits on host1, and its wait can be cancelled."""
    await call(traveller, "migrate", params=migrating(traveller, maxBandwidth=SLOW))
    with new_image(engine) as image:
        async with running(engine, engine.flat(new_id(), engine.disk(image))) as second:
            params = {**migrating(traveller), "vmId": second}
            assert await engine.call("VM.migrate", vmID=second, params=params)
            assert await status(engine, second) == "Migration Source"
            assert second not in await elsewhere.call("Host.getVMList", onlyUUID=True)
            await engine.call("VM.migrateCancel", vmID=second)
            assert await status(engine, second) == "Up"
            assert await engine.call("VM.migrate", vmID=second, params=params)
            await call(traveller, "migrateCancel")
            await elsewhere.wait_status(second, "Up")
            await engine.wait_status(second, "Down")
            await elsewhere.destroy(second)
    await is_home(traveller)


async def test_more_than_may_wait_are_refused(engine, elsewhere):
    """Of host2's VMs none may wait for another to leave."""
    with new_image(elsewhere) as first, new_image(elsewhere) as second:
        async with idle(elsewhere, first) as going, idle(elsewhere, second) as other:
            where = {"dst": f"host1:{engine.daemon.port}", "dstparams": "", "outgoingLimit": 1}
            slow = {"vmId": going, **where, "maxBandwidth": SLOW}
            await elsewhere.call("VM.migrate", vmID=going, params=slow)
            with refused(82, "1 VMs leave this host and 0 wait", "migration.queue_limit"):
                await elsewhere.call("VM.migrate", vmID=other, params={"vmId": other, **where})
            assert await status(elsewhere, other) == "Up"
            await elsewhere.call("VM.migrateCancel", vmID=going)


async def test_a_key_is_handed_over_where_that_is_wanted(lab, engine, elsewhere):
    """From host2, which may; its VM's key is not known to host1, and shows nowhere."""
    secret = secret_params(new_id(), lab.ceph.key)
    auth = {"type": "ceph", "username": lab.ceph.user, "uuid": secret["uuid"]}
    await elsewhere.call("Host.registerSecrets", secrets=[secret])
    with new_image(elsewhere) as image:
        params = elsewhere.flat(new_id(), elsewhere.disk(image, auth=auth))
        async with running(elsewhere, params) as vm_id, destroyed_at_last(engine, vm_id):
            where = {"vmId": vm_id, "dst": f"host1:{engine.daemon.port}", "dstparams": ""}
            await elsewhere.call("VM.migrate", vmID=vm_id, params=where)
            await engine.wait_status(vm_id, "Up")
            registered = [one["uuid"] for one in await engine.call("Host.getSecrets")]
            assert secret["uuid"] in registered
    for other in (engine, elsewhere):
        await other.call("Host.unregisterSecrets", uuids=[secret["uuid"]])
        logs = {
            **Directory(other.daemon.directory).content(),
            **Directory(other.daemon.host.log).content(),
        }
        assert not shown(lab.ceph.key, logs)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"dst": ""}, 11, ("dst is missing",)),
        ({"dst": "host2:1"}, 10, ("host host2:1 cannot be reached", "Connection refused")),
        ({"dst": "nowhere:54321"}, 10, ("host nowhere:54321 cannot be reached",)),
        ({"dst": "host1"}, 91, ("is on this host already", "name another as dst")),
        ({"mode": "file"}, 75, ("mode is 'file'",)),
        (
            {"convergenceSchedule": {"init": [{"name": "hurry"}]}},
            91,
            ("name is a string of 5", "setDowntime"),
        ),
    ],
)
async def test_what_cannot_be_is_refused(traveller, changes, code, words):
    with refused(code, *words):
        await call(traveller, "migrate", params=migrating(traveller, **changes))
    await is_home(traveller)


async def test_an_unknown_vm(engine):
    params = {"vmId": NOBODY, "dst": "host2", "dstparams": ""}
    with refused(1, f"no VM {NOBODY}"):
        await engine.call("VM.migrate", vmID=NOBODY, params=params)


async def test_a_paused_vm_stays(traveller):
    await call(traveller, "pause")
    with refused(75, "is Paused, and only VMs that are Up migrate"):
        await call(traveller, "migrate", params=migrating(traveller))
    await call(traveller, "cont")


async def test_a_host_without_the_secret(traveller, elsewhere):
    await elsewhere.call("Host.registerSecrets", secrets=[], clear=True)
    try:
        with refused(12, "host host2:54321 refuses it", elsewhere.secret_id, "not registered"):
            await call(traveller, "migrate", params=migrating(traveller))
    finally:
        await elsewhere.register_key()
    await is_home(traveller)


async def test_an_image_that_a_third_has_open(lab, traveller):
    words = (
        "host host2:54321 refuses it",
        f"(volumes/{traveller.image}): the image is open on more hosts than the one that",
        f" at {lab.hosts['host1'].address}",
        f" at {ENGINE_ADDRESS}",
        "end what has it on the other",
    )
    with held_open(lab.ceph, traveller.image), refused(12, *words):
        await call(traveller, "migrate", params=migrating(traveller))
    await is_home(traveller)


@contextmanager
def held_open(ceph, image):
    """Somebody where the engine is has it open, and does nothing with it."""
    with ExitStack() as stack:
        admin = stack.enter_context(rados.Rados(conffile=str(ceph.conf), rados_id="admin"))
        stack.enter_context(rbd.Image(stack.enter_context(admin.open_ioctx(ceph.pool)), image))
        yield


async def test_an_image_that_was_locked_by_hand(lab, engine, elsewhere):
    with new_image(engine) as image:
        # With its exclusive lock there would be none for people to take.
        lab.ceph.rbd("feature", "disable", image, "object-map", "exclusive-lock")
        async with idle(engine, image, allowNoExclusiveLock=True) as vm_id:
            lab.ceph.rbd("lock", "add", image, "backup")
            where = {"dst": f"host2:{elsewhere.daemon.port}", "dstparams": ""}
            with refused(12, f"(volumes/{image}): the image was locked by hand ('backup' by"):
                await engine.call("VM.migrate", vmID=vm_id, params={"vmId": vm_id, **where})
            assert await status(engine, vm_id) == "Up"


async def test_a_host_that_does_not_do_post_copy(traveller):
    host = traveller.there.daemon.host
    host.path("/run/no-userfaultfd").write_text("0\n")
    host.run(["mount", "--bind", "/run/no-userfaultfd", USERFAULTFD])
    try:
        with refused(12, "host host2:54321 refuses it", "vm.unprivileged_userfaultfd is 0"):
            params = migrating(traveller, convergenceSchedule=POST_COPY)
            await call(traveller, "migrate", params=params)
    finally:
        host.run(["umount", USERFAULTFD])
    await is_home(traveller)


async def test_a_host_that_has_not_the_memory(elsewhere, traveller):
    document = (await traveller.here.call("Host.dumpxmls", vmList=[traveller.id]))[traveller.id]
    huge = document.replace("<memory unit='KiB'>262144<", f"<memory unit='MiB'>{HUGE_MIB}<")
    assert huge != document
    with refused(14, f"needs {HUGE_MIB} MiB", "choose another host"):
        await elsewhere.call("VM.migrationCreate", **offer(traveller, huge))


@pytest.mark.parametrize(
    ("pattern", "becomes", "words"),
    [
        ("machine='[^']*'", "machine='pc-from-the-future'", ("'pc-from-the-future' is not supp",)),
        ("(?s)<cpu .*</cpu>", CPU, ("the processor of this host lacks", "qemu64")),
    ],
)
async def test_a_host_of_another_kind(elsewhere, traveller, pattern, becomes, words):
    document = (await traveller.here.call("Host.dumpxmls", vmList=[traveller.id]))[traveller.id]
    other = re.sub(pattern, becomes, document)
    assert other != document
    with refused(12, *words):
        await elsewhere.call("VM.migrationCreate", **offer(traveller, other))


def offer(vm, document):
    """The parameters with which another host's daemon announces a VM."""
    params = {"vmId": vm.id, "xml": document, "migrationId": new_id(), "source": "a test"}
    return {"vmID": vm.id, "params": {**params, "handover": "confirmed"}}


async def test_a_vm_that_is_announced_and_does_not_come(lab, engine, traveller):
    document = (await traveller.here.call("Host.dumpxmls", vmList=[traveller.id]))[traveller.id]
    announced = offer(traveller, document)
    verdict = {"migrationId": announced["params"]["migrationId"], "verdict": "drop"}
    beside = {"listen": {"port": BESIDE}}
    async with host2(lab, engine, "brief", {"arrival_timeout_s": 1}, **beside) as other:
        await other.call("VM.migrationCreate", **announced)
        assert await status(other, traveller.id) == "Migration Destination"
        ended = await other.wait_status(traveller.id, "Down")
        assert (ended["exitCode"], ended["exitReason"]) == (1, 8)
        # It is in nobody's way, and goes when its source is heard of.
        await other.call("VM.migrationCreate", **announced)
        await other.call("VM.migrationConclude", vmID=traveller.id, params=verdict)
        assert await other.call("Host.getVMList") == []
        with refused(1, "did not come to this host"):
            run = {**verdict, "verdict": "run"}
            await other.call("VM.migrationConclude", vmID=traveller.id, params=run)


async def test_a_whole_copy_whose_source_is_not_heard_of(lab, traveller):
    """It runs when somebody vouches that the source is off, and no image is open elsewhere."""
    fenced = {"verdict": "fenced"}
    await traveller.begin()
    await call(traveller, "migrate", params=migrating(traveller, maxBandwidth=SLOW))
    source, there = traveller.here.daemon, traveller.there
    await traveller.copying()
    with refused(12, "has not come whole to this host", "start it anew"):
        await there.call("VM.migrationConclude", vmID=traveller.id, params=fenced)
    with frozen(source):
        source.host.virsh("migrate-setspeed", traveller.id, 1024)
        await eventually(lambda: has_come_whole(there, traveller.id), "the copy to be whole")
        with refused(51, "comes from host1", "see that it is off", "VM.migrationConclude vmID="):
            await there.call("VM.cont", vmID=traveller.id)
        assert await status(there, traveller.id) == "Migration Destination"
        open_there = refused(12, "is still open on another host", f" at {ENGINE_ADDRESS}")
        with held_open(lab.ceph, traveller.image), open_there:
            await there.call("VM.migrationConclude", vmID=traveller.id, params=fenced)
        assert await there.call("VM.migrationConclude", vmID=traveller.id, params=fenced)
        assert await status(there, traveller.id) == "Up"
    await traveller.arrives()
    await traveller.writes_on(3)
    assert (await traveller.stop()).lost == ()
    await traveller.go()


async def test_a_whole_copy_is_given_up(lab, engine, elsewhere):
    """As an engine does that starts the VM anew; its source is told so when it is back."""
    with new_image(elsewhere) as image:
        async with idle(elsewhere, image) as vm_id:
            where = {"dst": f"host1:{engine.daemon.port}", "dstparams": "", "maxBandwidth": SLOW}
            await elsewhere.call("VM.migrate", vmID=vm_id, params={"vmId": vm_id, **where})

            async def copied():
                return "Memory processed" in elsewhere.daemon.host.virsh("domjobinfo", vm_id)

            await eventually(copied, "libvirt to copy, whatever becomes of the daemon")
            with frozen(elsewhere.daemon):
                elsewhere.daemon.host.virsh("migrate-setspeed", vm_id, 1024)
                await eventually(lambda: has_come_whole(engine, vm_id), "the copy to be whole")
                await engine.destroy(vm_id)
                assert vm_id not in engine.daemon.host.virsh("list", "--all", "--uuid")
                assert lab.ceph.watchers(image) == []
            with refused(1, "no VM"):
                await engine.call("VM.cont", vmID=vm_id)
            down = await elsewhere.wait_status(vm_id, "Down")
            assert (down["exitCode"], down["exitReason"]) == (1, 2)


async def has_come_whole(engine, vm_id):
    """libvirt is done with it, there and on its source, whose QEMU has ended."""
    return "paused (user)" in engine.daemon.host.virsh("domstate", "--reason", vm_id)


async def test_a_vm_that_did_not_come_is_not_waited_for(elsewhere, traveller):
    """Its source asks whether it is whole, if its guest shuts down before it is copied."""
    document = (await traveller.here.call("Host.dumpxmls", vmList=[traveller.id]))[traveller.id]
    announced = offer(traveller, document)
    await elsewhere.call("VM.migrationCreate", **announced)
    about = {"migrationId": announced["params"]["migrationId"]}

    async def refused_after_s():
        began_s = time.monotonic()
        with refused(12, "did not arrive whole"):
            params = {**about, "verdict": "run"}
            await elsewhere.call("VM.migrationConclude", vmID=traveller.id, params=params)
        return time.monotonic() - began_s

    await within(5, refused_after_s, "to hear that it did not come")
    params = {**about, "verdict": "drop"}
    await elsewhere.call("VM.migrationConclude", vmID=traveller.id, params=params)
    await is_home(traveller)


async def test_a_vm_that_runs_is_not_dropped(traveller):
    params = {"migrationId": new_id(), "verdict": "drop"}
    with refused(4, "runs on this host and is Up"):
        await call(traveller, "migrationConclude", params=params)
    document = (await traveller.here.call("Host.dumpxmls", vmList=[traveller.id]))[traveller.id]
    with refused(4, "exists on this host already and is Up"):
        await traveller.here.call("VM.migrationCreate", **offer(traveller, document))
