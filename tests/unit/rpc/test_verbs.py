# SPDX-License-Identifier: GPL-2.0-or-later
"""The Host.* and VM.* verbs through the dispatcher, over stand-ins for what asks libvirt."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.rpc.test_wire import UUID, XML, vm
from vdsmcinder import fair_scheduling, logs
from vdsmcinder.config import Config
from vdsmcinder.errors import NoSuchVM, VMIsDown
from vdsmcinder.rpc.dispatch import Caller, Dispatcher, Rules, handlers
from vdsmcinder.rpc.host import HostVerbs
from vdsmcinder.rpc.schema import schema
from vdsmcinder.rpc.vm import VmVerbs
from vdsmcinder.rpc.wire import listing
from vdsmcinder.rpc.wire.listing import Listings
from vdsmcinder.rpc.wire.stats import EncodedStats
from vdsmcinder.virt.migration.departures import Departures
from vdsmcinder.virt.secrets.secret import RegisteredSecret, UsageType
from vdsmcinder.virt.vm.status import Status

OTHER = "11111111-2222-4333-8444-555555555555"
CALLER = Caller("", "root", "unix")


class FakeRegistry:
    """Two VMs, and what was asked of them."""

    recovered = True

    def __init__(self):
        self.known = {UUID: vm(), OTHER: vm(id=OTHER, name="db", status=Status.PAUSED)}
        self.asked = []

    def vms(self):
        return list(self.known.values())

    def find(self, vm_id):
        return self.known.get(vm_id)

    def get(self, vm_id):
        if vm_id not in self.known:
            raise NoSuchVM(f"there is no VM {vm_id}")
        return self.known[vm_id]

    async def create(self, vm_id, request):
        self.asked.append((vm_id, request.memory_mib))
        return vm(status=Status.WAIT_FOR_LAUNCH, sample=None, pid=0)

    async def destroy(self, vm_id, graceful_attempts):
        self.asked.append((vm_id, graceful_attempts))


class FakeSecrets:
    """Remembers what it was given."""

    def __init__(self):
        self.asked = []

    async def register(self, specs, *, clear):
        self.asked.append(([spec.uuid for spec in specs], clear))

    async def unregister(self, uuids):
        self.asked.append(uuids)

    async def registered(self):
        return [RegisteredSecret(UUID, UsageType.CEPH, f"ovirt/{UUID}")]


@pytest.fixture
def registry():
    return FakeRegistry()


@pytest.fixture
def secrets():
    return FakeSecrets()


@pytest.fixture
def call(registry, secrets, caplog):
    """Calls a verb; the result has to fit the schema."""
    nothing: Any = SimpleNamespace()
    none_of_these = (nothing, nothing, nothing, nothing)
    listings = Listings()
    stats = EncodedStats(listings)
    host = HostVerbs(registry, secrets, *none_of_these, listings, stats, nothing, Config())
    migrations: Any = SimpleNamespace(
        departures=Departures(registry, nothing, nothing), arrivals=nothing
    )
    verbs = handlers(Host=host, VM=VmVerbs(registry, migrations, nothing, Config()))
    dispatcher = Dispatcher(schema.load(), verbs, Rules(lambda: True, True), max_batch=1)

    async def called(verb, *params):
        request = {"jsonrpc": "2.0", "method": verb, "params": params, "id": 1}
        reply = dispatcher.handle(json.dumps(request).encode(), CALLER)
        body = await reply if isinstance(reply, Awaitable) else reply
        content = json.loads(body or b"")
        assert "does not fit the schema" not in caplog.text
        return content["result"] if "result" in content else content["error"]["code"]

    return called


@pytest.mark.parametrize("verb", ["Host.ping", "Host.ping2"])
async def test_ping(call, verb):
    assert await call(verb) is True


async def test_echo(call):
    assert await call("Host.echo", "grüß\ud800") == "grüß\ud800"


async def test_vm_list_in_its_three_forms(call):
    assert await call("Host.getVMList") == [
        {"vmId": UUID, "status": "Up"},
        {"vmId": OTHER, "status": "Paused"},
    ]
    assert await call("Host.getVMList", False, [], True) == [UUID, OTHER]
    assert await call("Host.getVMList", True, [], True) == [UUID, OTHER]
    (full,) = await call("Host.getVMList", "true", [OTHER.upper()])
    assert (full["vmName"], full["memSize"]) == ("db", 1024)


LISTS: dict[str, list[Any] | None] = {
    "Host.getVMList": [True],
    "Host.getVMFullList": [],
    "Host.dumpxmls": [],
    "Host.getAllVmStats": None,
    "Host.getAllVmIoTunePolicies": None,
}


@pytest.mark.parametrize("verb", [verb for verb, before in LISTS.items() if before is not None])
async def test_a_vm_is_told_of_once_however_often_it_is_asked_for(call, monkeypatch, verb):
    monkeypatch.setattr(listing, "MOST_BYTES", 100_000)
    before = LISTS[verb] or []
    assert await call(verb, *before, [UUID] * 4000) == await call(verb, *before, [UUID])
    assert len(await call(verb, *before, [UUID, OTHER, UUID.upper()])) == 2


@pytest.mark.parametrize("verb", LISTS)
async def test_what_tells_of_many_vms_is_made_in_turns_and_bounded(
    call, registry, monkeypatch, verb
):
    xml = XML.replace("</domain>", f"<!-- {'x' * 100} --></domain>")
    registry.known = {f"{UUID[:-3]}{n}": vm(xml, id=f"{UUID[:-3]}{n}") for n in range(100, 200)}
    monkeypatch.setattr(fair_scheduling, "turn_end", lambda: 0.0)  # every turn is over at once
    passes = 0

    async def count():
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    limited = sum(bool(v.domain.io_tune_policy) for v in registry.known.values())
    expected = limited if verb.endswith("Policies") else 100
    assert len(await call(verb, *(LISTS[verb] or []))) == expected
    assert passes >= expected
    monkeypatch.setattr(listing, "MOST_BYTES", 1000)
    assert await call(verb, *(LISTS[verb] or [])) == (1100 if expected else {})
    counting.cancel()


async def test_a_client_has_one_list_written_at_a_time_and_holds_up_no_other(call):
    listings, mine, other = Listings(), Caller("", "CN=a", "stomp"), Caller("", "CN=b", "stomp")
    begun: list[str] = []

    def of(caller: Caller, name: str) -> asyncio.Future[Any]:
        def write(number: int) -> bytes:
            begun.append(f"{name}{number}")
            return b"1"

        mark = logs.call.set(logs.Call("Host.getVMFullList", caller))
        try:
            return asyncio.ensure_future(listings.array(range(3), write))
        finally:
            logs.call.reset(mark)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fair_scheduling, "turn_end", lambda: 0.0)
        done = await asyncio.gather(of(mine, "a"), of(mine, "A"), of(other, "b"))
    assert [written.read() for written in done] == [[1, 1, 1]] * 3
    assert begun.index("a2") < begun.index("A0")
    assert begun.index("b0") < begun.index("a2")


async def test_a_list_of_many_elements_is_refused_before_it_is_read(call):
    assert await call("Host.getVMFullList", [UUID] * 26_000) == -32602
    assert await call("Host.unregisterSecrets", [UUID] * 26_000) == -32602
    many = [{"type": "disk", "index": str(n)} for n in range(1001)]
    assert await call("VM.create", OTHER[:-1] + "6", {"memSize": 1, "devices": many}) == 91


async def test_so_is_an_object_of_many_members(call):
    """A VM with 60,000 properties of an engine's own kept all clients waiting for seconds."""
    many = {f"p{n}": "x" for n in range(1001)}
    assert await call("VM.create", OTHER[:-1] + "6", {"memSize": 1, "custom": many}) == 91
    more = {f"p{n}": "x" for n in range(4097)}
    assert await call("VM.setTicket", UUID, "x", 1, "keep", more) == -32602


async def test_ids_of_no_vm_are_passed_over(call):
    unknown = OTHER.replace("1", "9")
    assert await call("Host.getVMList", False, [unknown, OTHER], True) == [OTHER]
    assert [d["vmId"] for d in await call("Host.getVMFullList", [unknown, UUID])] == [UUID]
    assert await call("Host.dumpxmls", [unknown, UUID]) == {UUID: XML}
    assert await call("Host.dumpxmls", [unknown]) == {}


async def test_full_list_and_statistics_are_of_all_vms(call):
    assert [d["vmId"] for d in await call("Host.getVMFullList")] == [UUID, OTHER]
    assert [s["vmId"] for s in await call("Host.getAllVmStats")] == [UUID, OTHER]
    assert (await call("Host.dumpxmls")).keys() == {UUID, OTHER}


async def test_log_level(call):
    name = "vdsmcinder.rpc.method"
    try:
        assert await call("Host.setLogLevel", "ERROR", name) is True
        assert logging.getLogger(name).level == logging.ERROR
    finally:
        logging.getLogger(name).setLevel(logging.NOTSET)
    assert await call("Host.setLogLevel", "ERROR", "no.such") == 91


async def test_secrets(call, secrets):
    sent = {"uuid": UUID, "usageType": "ceph", "usageID": f"ovirt/{UUID}", "password": "a2V5"}
    assert await call("Host.registerSecrets", [sent], "true") is True
    assert await call("Host.unregisterSecrets", [UUID.upper()]) is True
    assert secrets.asked == [([UUID], True), {UUID}]
    assert await call("Host.registerSecrets", ["x"]) == 72
    assert await call("Host.unregisterSecrets", [UUID, "nonsense"]) == 72
    assert await call("Host.getSecrets") == [
        {"uuid": UUID, "usageType": "ceph", "usageID": f"ovirt/{UUID}"}
    ]


async def test_create_and_destroy(call, registry):
    created = await call("VM.create", UUID.upper(), {"vmId": UUID, "memSize": "256"})
    assert (created["vmId"], created["status"]) == (UUID, "WaitForLaunch")
    assert await call("VM.destroy", UUID, "3") is True
    assert registry.asked == [(UUID, 256), (UUID, 3)]
    assert await call("VM.create", OTHER, {"vmId": UUID, "memSize": "256"}) == 91


@pytest.mark.parametrize(
    "verb",
    ["hotplugDisk", "hotunplugDisk", "hotplugNic", "hotunplugNic", "updateDevice", "changeCD"],
)
async def test_that_a_vm_is_down_is_told_before_what_is_wrong_with_a_request(call, registry, verb):
    def refuse(doing):
        raise VMIsDown(f"the VM is Down and cannot be {doing}")

    registry.known[UUID].require_running = refuse
    assert await call(f"VM.{verb}", UUID, {}) == 6
    registry.known[UUID].require_running = lambda doing: None
    assert await call(f"VM.{verb}", UUID, {"diskType": "network"}) in {11, 36}


async def test_one_vm(call):
    assert (await call("VM.getInfo", UUID))["vmName"] == "web"
    (stats,) = await call("VM.getStats", UUID)
    assert stats["vmName"] == "web"


async def test_what_engines_ask_of_every_host(call):
    policy = {"balloonEnabled": True, "ksmEnabled": False, "ksmMergeAcrossNodes": True}
    assert await call("Host.setMOMPolicyParameters", policy) is True
    assert await call("Host.hostdevListByCaps") == {}
    assert await call("Host.hostdevListByCaps", ["pci"]) == {}
    assert await call("Host.setSafeNetworkConfig") is True


async def test_data_outside_a_vms_disks(call, registry):
    for kind in ("tpm", "nvram"):
        assert await call("VM.getExternalData", UUID, kind, None, False) == {"hash": ""}
    assert await call("VM.getExternalData", UUID, "floppy") == 91
    outside = XML.replace("<devices>", "<devices><tpm><backend type='emulator'/></tpm>", 1)
    registry.known[UUID] = vm(outside)
    assert await call("VM.getExternalData", UUID, "tpm") == 75
    assert await call("VM.getExternalData", UUID, "nvram") == {"hash": ""}


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("VM.getInfo", []),
        ("VM.getStats", []),
        ("VM.shutdown", []),
        ("VM.reset", []),
        ("VM.pause", []),
        ("VM.cont", []),
        ("VM.hotplugDisk", [{}]),
        ("VM.hotunplugDisk", [{}]),
        ("VM.hotplugNic", [{}]),
        ("VM.hotunplugNic", [{}]),
        ("VM.updateDevice", [{}]),
        ("VM.changeCD", [""]),
        ("VM.diskSizeExtend", [{}, "1"]),
        ("VM.setIoTune", [[]]),
        ("VM.getIoTune", []),
        ("VM.getIoTunePolicy", []),
        ("VM.freeze", []),
        ("VM.thaw", []),
        ("VM.snapshot", [[]]),
        ("VM.setNumberOfCpus", [1]),
        ("VM.setBalloonTarget", [1]),
        ("VM.setTicket", ["x", 1]),
        ("VM.hotplugMemory", [{}]),
        ("VM.hotunplugMemory", [{}]),
        ("VM.updateVmPolicy", [{}]),
        ("VM.setDestroyOnReboot", []),
        ("VM.getExternalData", ["tpm"]),
        ("VM.screenshot", []),
        ("VM.migrate", [{}]),
        ("VM.migrateCancel", []),
        ("VM.getMigrationStatus", []),
        ("VM.migrateChangeParams", [{}]),
    ],
)
async def test_a_vm_that_is_not_there(call, verb, more):
    assert await call(verb, OTHER.replace("1", "9"), *more) == 1
