# SPDX-License-Identifier: GPL-2.0-or-later
"""The registry on libvirt's test driver: what it finds, and what others do behind its back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

from tests.faults import pluggable
from tests.unit.transport.serving import until
from tests.unit.whole import Whole, running
from vdsmcinder.errors import CreateFailed, InvalidParameter, VMExists
from vdsmcinder.hypervisor.connection import ConnectionLost
from vdsmcinder.rpc.requests.vm import read_vm
from vdsmcinder.stomp.client import StompSession
from vdsmcinder.virt.domain import domain as domain_module
from vdsmcinder.virt.domain.domain import Document, Domain
from vdsmcinder.virt.fleet.domain_watch import DomainWatch, Found
from vdsmcinder.virt.migration.migrations import Migrations
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage.preflight import Preflight
from vdsmcinder.virt.vm import power
from vdsmcinder.virt.vm.status import ExitReason
from vdsmcinder.virt.vm.vm import VM

OURS = """
  <metadata>
    <ovirt-vm:vm xmlns:ovirt-vm='http://ovirt.org/vm/1.0'>
      <ovirt-vm:vdsmCinder version='{version}'/>{more}
    </ovirt-vm:vm>
  </metadata>
"""
NEWER = """
      <ovirt-vm:exitReason>eaten by a grue</ovirt-vm:exitReason>
      <ovirt-vm:held>perhaps</ovirt-vm:held>
      <ovirt-vm:thawBy unit='era'>soon</ovirt-vm:thawBy>
      <ovirt-vm:placement zone='2'><ovirt-vm:shelf>3</ovirt-vm:shelf></ovirt-vm:placement>
      <ovirt-vm:launchPaused>true</ovirt-vm:launchPaused>"""


def document(vm_id: str, version: str = "1", more: str = "") -> str:
    """A domain of ours as libvirt has it."""
    disks = "".join(
        pluggable.DISK.format(image=f"{vm_id}-{target}", target=target) for target in ("vda", "vdb")
    )
    xml = pluggable.DOMAIN.format(uuid=vm_id)
    xml = xml.replace("<devices/>", f"<devices>{disks}</devices>")
    return xml.replace("</uuid>", f"</uuid>{OURS.format(version=version, more=more)}")


def new_id() -> str:
    return str(uuid.uuid4())


@contextlib.contextmanager
def plugs() -> Iterator[None]:
    """Domains of the test driver can do what the daemon needs."""
    made = pluggable.Plugs()
    made.install()
    try:
        yield
    finally:
        made.uninstall()


def status(whole: Whole, vm_id: str) -> str | None:
    vm = whole.daemon._registry.find(vm_id)
    return None if vm is None else vm.status.value


def domain(whole: Whole, vm_id: str) -> libvirt.virDomain:
    return whole.daemon._connection.handle.lookupByUUIDString(vm_id)


async def test_what_a_newer_daemon_wrote_is_passed_over(tmp_path):
    newer, ours = new_id(), new_id()
    options = pluggable.host(tmp_path, document(newer, "7", NEWER), document(ours))
    with plugs():
        async with running(tmp_path, **options) as whole:
            assert {status(whole, vm_id) for vm_id in (newer, ours)} == {"Up"}
            session = await whole.client()
            info = await session.call("VM.getInfo", {"vmID": newer})
            assert [disk["name"] for disk in info["devices"]] == ["vda", "vdb"]
            await session.call("VM.pause", {"vmID": newer})
            # What it did not understand is there for the newer one.
            xml = (await session.call("Host.dumpxmls", {"vmList": [newer]}))[newer]
            kept = ("eaten by a grue", 'zone="2"', 'version="7"')
            assert [word for word in kept if word not in xml] == []
            await session.call("VM.destroy", {"vmID": newer})
            await session.close()


async def test_a_vm_that_cannot_be_read_keeps_nobody_from_the_others(tmp_path, monkeypatch):
    bad, good = new_id(), new_id()
    read = Domain.from_xml

    def from_xml(xml: str) -> Domain:
        if bad in xml:
            raise InvalidParameter("vcpu is 'many'; expected a whole number", field="vcpu")
        return read(xml)

    monkeypatch.setattr(Domain, "from_xml", from_xml)
    async with running(
        tmp_path, **pluggable.host(tmp_path, document(bad), document(good))
    ) as whole:
        assert (status(whole, bad), status(whole, good)) == (None, "Up")
        _, health = await whole.health()
        assert (health["status"], health["ready"]) == ("degraded", True)
        (reason,) = health["reasons"]
        assert bad in reason and "vcpu is 'many'" in reason


async def test_one_that_somebody_else_started_again_is_up(tmp_path):
    vm_id = new_id()
    async with running(tmp_path, **pluggable.host(tmp_path, document(vm_id))) as whole:
        session = await whole.client()
        await session.subscribe_events()
        domain(whole, vm_id).destroy()
        await told(session, vm_id, "Down")
        domain(whole, vm_id).create()
        await told(session, vm_id, "Up")
        assert status(whole, vm_id) == "Up"
        await session.close()


async def test_one_that_is_set_to_start_with_the_host_is_not_any_more(tmp_path, caplog):
    vm_id, foreign = new_id(), new_id()
    documents = document(vm_id), pluggable.DOMAIN.format(uuid=foreign)
    async with running(tmp_path, **pluggable.host(tmp_path, *documents)) as whole:
        for uuid_of_it in (vm_id, foreign):
            domain(whole, uuid_of_it).setAutostart(1)
        for _ in range(2):
            await whole.daemon._watch.recover()
        assert domain(whole, vm_id).autostart() == 0
        assert domain(whole, foreign).autostart() == 1
        assert caplog.text.count("was set to start with the host, and is not any more") == 1


@pytest.mark.parametrize(
    ("runs", "found", "reason"), [(True, "Up", None), (False, "Down", 3)], ids=["ran", "did not"]
)
async def test_a_start_during_which_libvirt_went_is_known_when_it_is_back(
    tmp_path, monkeypatch, runs, found, reason
):
    """The call fails, whether libvirt got as far as starting the VM or not."""
    create = power._create

    def lose(dom: libvirt.virDomain, flags: int, marks: Mapping[str, str]) -> None:
        if runs:
            create(dom, flags, marks)
        raise ConnectionLost("libvirt went away during the call")

    monkeypatch.setattr(power, "_create", lose)
    vm_id = new_id()
    async with running(tmp_path, **pluggable.host(tmp_path)) as whole:
        session = await whole.client()
        await session.subscribe_events()
        params = {"vmID": vm_id, "vmParams": pluggable.domain(vm_id)}
        await session.call("VM.create", params)
        await until(lambda: whole.daemon._registry.get(vm_id).adrift, "the start did not fail")
        assert status(whole, vm_id) == "Powering up"
        await whole.daemon._watch.recover()
        assert (await told(session, vm_id, found)).get("exitReason") == reason
        await session.close()


async def test_a_destroy_that_another_has_done_leaves_a_new_vm_alone(tmp_path):
    vm_id = new_id()
    with plugs():
        async with running(tmp_path, **pluggable.host(tmp_path)) as whole:
            registry = whole.daemon._registry
            await registry.create(vm_id, read_vm(vm_id, pluggable.domain(vm_id)))
            await until(lambda: status(whole, vm_id) == "Up", "it did not come up")
            first = asyncio.create_task(registry.destroy(vm_id, 1))
            second = asyncio.create_task(registry.destroy(vm_id, 1))
            await first
            await registry.create(vm_id, read_vm(vm_id, pluggable.domain(vm_id)))
            await second
            await until(lambda: status(whole, vm_id) == "Up", "the new one did not come up")
            assert domain(whole, vm_id).isActive()
            await registry.destroy(vm_id, 1)


async def test_a_destroy_during_create_leaves_nothing(tmp_path, monkeypatch):
    looking, go_on = asyncio.Event(), asyncio.Event()
    check = Preflight.check

    async def wait(self: Preflight, *args: Any, **named: Any) -> Any:
        looking.set()
        await go_on.wait()
        return await check(self, *args, **named)

    monkeypatch.setattr(Preflight, "check", wait)
    vm_id = new_id()
    async with running(tmp_path, **pluggable.host(tmp_path)) as whole:
        registry = whole.daemon._registry
        creating = asyncio.create_task(
            registry.create(vm_id, read_vm(vm_id, pluggable.domain(vm_id)))
        )
        await looking.wait()
        destroying = asyncio.create_task(registry.destroy(vm_id, 1))
        await until(lambda: registry.get(vm_id).doomed, "the destroy has not begun")
        go_on.set()
        with pytest.raises(CreateFailed, match="destroyed while it was being created"):
            await creating
        # Its domain is removed by its id yet, which would be that of the next VM.
        with pytest.raises(VMExists):
            await registry.create(vm_id, read_vm(vm_id, pluggable.domain(vm_id)))
        await destroying
        assert registry.find(vm_id) is None
        with pytest.raises(libvirt.libvirtError):
            domain(whole, vm_id)


async def test_a_disk_that_an_earlier_daemon_was_plugging_is_told_when_it_is_there(tmp_path):
    vm_id = new_id()
    with plugs():
        async with running(tmp_path, **pluggable.host(tmp_path, document(vm_id))) as whole:
            registry = whole.daemon._registry
            late = pluggable.DISK.format(image="late", target="vdc")
            domain(whole, vm_id).attachDeviceFlags(late)
            whole.daemon._watch._on_device_added(vm_id, "ua-late")
            disks = registry.get(vm_id).domain
            await until(
                lambda: "vdc" in registry.get(vm_id).domain.targets, f"only {disks.targets}"
            )


async def test_an_end_of_the_guests_own_before_it_was_asked_is_told_as_the_guests(tmp_path):
    vm_id = new_id()
    async with running(tmp_path, **pluggable.host(tmp_path, document(vm_id))) as whole:
        session = await whole.client()
        await session.subscribe_events()
        later = {"vmID": vm_id, "delay": 3600, "message": "", "timeout": 1, "force": True}
        await session.call("VM.shutdown", later)
        await told(session, vm_id, "Powering down")
        domain(whole, vm_id).shutdown()
        assert (await told(session, vm_id, "Down"))["exitReason"] == ExitReason.USER_SHUTDOWN
        await session.close()


async def test_an_end_that_was_asked_for_is_told_as_the_engines(tmp_path):
    vm_id = new_id()
    async with running(tmp_path, **pluggable.host(tmp_path, document(vm_id))) as whole:
        session = await whole.client()
        await session.subscribe_events()
        now = {"vmID": vm_id, "delay": 0, "message": "", "timeout": 30, "force": False}
        await session.call("VM.shutdown", now)
        assert (await told(session, vm_id, "Down"))["exitReason"] == ExitReason.ADMIN_SHUTDOWN
        await session.close()


async def test_a_guest_that_reboots_ends_if_it_was_asked_to(tmp_path):
    vm_id, other = new_id(), new_id()
    with plugs():
        async with running(
            tmp_path, **pluggable.host(tmp_path, document(vm_id), document(other))
        ) as whole:
            session = await whole.client()
            await session.call("VM.setDestroyOnReboot", {"vmID": vm_id})
            # Kept where another daemon finds it, here and on another host.
            xml = (await session.call("Host.dumpxmls", {"vmList": [vm_id]}))[vm_id]
            assert Domain.from_xml(xml).metadata.destroy_on_reboot
            for one in (vm_id, other):
                whole.daemon._watch._on_reboot(one)
            vm = whole.daemon._registry.get(vm_id)
            await vm.wait_until_down()
            assert vm.exit.reason is ExitReason.DESTROYED_ON_REBOOT
            assert status(whole, other) == "Up"
            await session.close()


async def test_a_recovery_during_which_libvirt_goes_is_not_done_with_a_vm_missing(
    tmp_path, monkeypatch
):
    """It goes while a VM is looked at that may be on its way to another host."""
    vm_id, other = new_id(), new_id()
    going = iter([ConnectionLost("libvirt went away during the call"), None])
    found = Migrations.take_up

    async def lose(self: Migrations, vm: VM, document: Document) -> bool:
        if vm.id == vm_id and (lost := next(going)) is not None:
            raise lost
        return await found(self, vm, document)

    monkeypatch.setattr(Migrations, "take_up", lose)
    options = pluggable.host(tmp_path, document(vm_id), document(other))
    async with running(tmp_path, **options) as whole:
        assert (status(whole, vm_id), status(whole, other)) == ("Up", "Up")
        assert whole.daemon._watch.unread == {}


async def test_recoveries_come_one_after_the_other(tmp_path, monkeypatch):
    read, under_way, at_once = DomainWatch._read_domains, 0, []

    async def count(self: DomainWatch) -> list[Found]:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        try:
            await asyncio.sleep(0)  # here the other one's turn comes
            return await read(self)
        finally:
            under_way -= 1

    async def at_once_done(self: Secrets) -> None:
        pass

    async with running(tmp_path, **pluggable.host(tmp_path, document(new_id()))) as whole:
        monkeypatch.setattr(DomainWatch, "_read_domains", count)
        monkeypatch.setattr(Secrets, "restore", at_once_done)
        watch = whole.daemon._watch
        await asyncio.gather(watch.recover(), watch.recover())
        assert at_once == [1, 1]


async def _destroyed(whole: Whole, vm_id: str) -> None:
    await whole.daemon._registry.destroy(vm_id, 0)


async def _undefined(whole: Whole, vm_id: str) -> None:
    domain(whole, vm_id).destroy()
    await until(lambda: status(whole, vm_id) == "Down", "its end was not told")
    domain(whole, vm_id).undefine()


async def _started_again(whole: Whole, vm_id: str) -> None:
    domain(whole, vm_id).destroy()
    await until(lambda: status(whole, vm_id) == "Down", "its end was not told")
    domain(whole, vm_id).create()


@pytest.mark.parametrize("end", [_destroyed, _undefined, _started_again])
async def test_what_was_to_happen_to_a_vm_ends_with_it(tmp_path, end):
    """What presses a power button later would press that of the next VM of its id."""
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    vm_id = new_id()
    with plugs():
        async with running(tmp_path, **pluggable.host(tmp_path, document(vm_id))) as whole:
            vm = whole.daemon._registry.get(vm_id)
            vm.spawn(wait())
            await asyncio.sleep(0)
            await end(whole, vm_id)
            await asyncio.wait_for(ended.wait(), 10)
            assert whole.daemon._registry.find(vm_id) is not vm
            # Nothing begins for it any more either, such as when its monitor is back.
            late = asyncio.Event()

            async def begin() -> None:
                late.set()

            vm.spawn(begin())
            await asyncio.sleep(0)
            assert not late.is_set()


async def test_a_shutdown_that_was_called_for_later_is_not_that_of_the_next_vm(tmp_path):
    vm_id = new_id()
    later = {"vmID": vm_id, "delay": 3600, "message": "", "timeout": 1, "force": True}
    with plugs():
        async with running(tmp_path, **pluggable.host(tmp_path, document(vm_id))) as whole:
            session = await whole.client()
            await session.call("VM.shutdown", later)
            (waiting,) = (t for t in asyncio.all_tasks() if "_bring_down" in repr(t.get_coro()))
            await session.call("VM.destroy", {"vmID": vm_id})
            params = {"vmID": vm_id, "vmParams": pluggable.domain(vm_id)}
            await session.call("VM.create", params)
            assert waiting.done()
            await session.close()


async def test_a_long_document_is_not_read_on_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All clients would wait for it, and a document may have 1 MiB."""
    threads: list[threading.Thread] = []
    read, canonical = etree.fromstring, domain_module._hash

    def parse(text: bytes, *args: Any) -> Any:
        if len(text) > 500_000:
            threads.append(threading.current_thread())
        return read(text, *args)

    def digest(devices: Any) -> str:
        threads.append(threading.current_thread())
        return canonical(devices)

    vm_id, other = new_id(), new_id()
    long = pluggable.DOMAIN.replace("<devices/>", f"<title>{'x' * 800_000}</title><devices/>")
    running_one = document(other).replace("<os>", f"<title>{'x' * 800_000}</title><os>")
    with plugs():
        monkeypatch.setattr(etree, "fromstring", parse)
        monkeypatch.setattr(domain_module, "_hash", digest)
        async with running(tmp_path, **pluggable.host(tmp_path, running_one)) as whole:
            session = await whole.client()
            params = {"vmId": vm_id, "xml": long.format(uuid=vm_id)}
            await session.call("VM.create", {"vmID": vm_id, "vmParams": params})
            await until(lambda: status(whole, vm_id) == "Up", "it did not come up")
            for uuid_ in (vm_id, other):
                await session.call(
                    "VM.hotplugDisk",
                    {"vmID": uuid_, "params": pluggable.disk(uuid_, "late", "vdc")},
                )
                assert len(whole.daemon._registry.get(uuid_).xml) > 800_000
            await session.close()
    assert len(threads) > 8
    assert threading.main_thread() not in threads


async def told(session: StompSession, vm_id: str, status: str) -> dict[str, Any]:
    event = await session.wait_for_event(
        lambda e: e["params"].get(vm_id, {}).get("status") == status, 10
    )
    found: dict[str, Any] = event["params"][vm_id]
    return found
