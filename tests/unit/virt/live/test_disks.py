# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugging disks into a VM: where they go when the name that they wish for is taken."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from lxml import etree

from tests.unit.rpc.test_wire import XML
from tests.unit.virt.disk.test_drive import network
from vdsmcinder.config import Policy
from vdsmcinder.errors import HotplugDiskFailed, HotunplugDiskFailed
from vdsmcinder.rpc.requests.disk import read_plug
from vdsmcinder.virt.disk.domain_disks import DriveQuery
from vdsmcinder.virt.domain.document_policy import DocumentPolicy
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.live import disks


class Vm:
    """A VM with disks vda, sdb and sdc, which takes whatever is plugged."""

    id = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.domain = Domain.from_xml(XML)
        self.services = SimpleNamespace(preflight=self, policy=DocumentPolicy(Policy()))
        self.plugged: list[tuple[str, str]] = []

    def require_running(self, _doing: str) -> None: ...

    async def check(self, *_: Any, **_named: Any) -> Vm:
        return self

    async def release(self) -> None: ...

    def confirms(self, _plugged: object) -> bool:
        return False

    async def call(self, _attach: object, xml: str) -> Domain:
        (target,) = etree.fromstring(xml).iterfind("target")
        self.plugged.append((target.get("dev", ""), target.get("bus", "")))
        return self.domain

    def take(self, _document: Domain) -> None: ...


def as_xml(target: str, bus: str) -> dict[str, Any]:
    return {
        "xml": f"""<hotplug><devices><disk type="network" device="disk">
            <source protocol="rbd" name="volumes/volume-9"><host name="192.0.2.1"/></source>
            <target dev="{target}" bus="{bus}"/></disk></devices></hotplug>"""
    }


def as_description(index: object, iface: str) -> dict[str, Any]:
    return {"drive": network(path="volumes/volume-9", index=index, iface=iface)}


@pytest.mark.parametrize(
    ("params", "target"),
    [
        # As oVirt's engine writes every disk that it has plugged.
        (as_xml("vda", "virtio"), ("vdb", "virtio")),
        (as_description("0", "virtio"), ("vdb", "virtio")),
        # sdb is another bus's, which has the same names.
        (as_xml("sdb", "scsi"), ("sda", "scsi")),
        (as_description(2, "scsi"), ("sda", "scsi")),
        (as_description(1, "usb"), ("sda", "usb")),
        # What is free is kept.
        (as_xml("vdf", "virtio"), ("vdf", "virtio")),
        (as_description(5, "virtio"), ("vdf", "virtio")),
        (as_xml("sda", "scsi"), ("sda", "scsi")),
    ],
)
async def test_a_target_that_is_taken_becomes_a_free_one(
    params: dict[str, Any], target: tuple[str, str]
) -> None:
    vm: Any = Vm()
    await disks.plug(vm, *read_plug(params, None))
    assert vm.plugged == [target]


async def test_what_is_plugged_already_is_refused_whatever_target_it_wishes_for() -> None:
    vm: Any = Vm()
    twice = read_plug({"drive": network(path="volumes/volume-1", index=0)}, None)
    with pytest.raises(HotplugDiskFailed, match=r"volumes/volume-1 is plugged .* as vda"):
        await disks.plug(vm, *twice)
    assert vm.plugged == []


CONTROLLERS = """<devices><controller type='pci' index='0' model='pcie-root'/>
<controller type='usb' index='0' model='none'/>{}"""


@pytest.mark.parametrize(
    ("controllers", "taken", "refused"),
    [
        ("", ["virtio"], ["scsi", "usb"]),
        ("<controller type='scsi' index='0' model='virtio-scsi'/>", ["scsi"], ["usb"]),
        ("<controller type='usb' index='1' model='qemu-xhci'/>", ["usb"], ["scsi"]),
    ],
)
async def test_a_disk_is_plugged_where_there_is_a_controller_for_it(
    controllers: str, taken: list[str], refused: list[str]
) -> None:
    domain = Domain.from_xml(XML.replace("<devices>", CONTROLLERS.format(controllers), 1))
    for bus in [*taken, *refused]:
        vm: Any = Vm()
        vm.domain = domain
        wanted = read_plug(as_description(None, bus), None)
        if bus in taken:
            await disks.plug(vm, *wanted)
        else:
            with pytest.raises(HotplugDiskFailed, match=rf"no controller for {bus} disks; plug it"):
                await disks.plug(vm, *wanted)
        assert [plugged_bus for _, plugged_bus in vm.plugged] == [bus] * (bus in taken)


SCSI = "<controller type='scsi' index='0' model='virtio-scsi'/>"


@pytest.mark.parametrize("bus", ["sata", "ide"])
async def test_a_bus_that_takes_no_disks_while_a_vm_runs(bus: str) -> None:
    vm: Any = Vm()
    for params in (as_description(None, bus), as_xml({"sata": "sdf", "ide": "hda"}[bus], bus)):
        with pytest.raises(HotplugDiskFailed, match=f"the bus {bus} takes none then; plug it with"):
            await disks.plug(vm, *read_plug(params, None))
    assert vm.plugged == []


async def test_a_bus_that_lets_no_disk_go_while_a_vm_runs() -> None:
    vm: Any = Vm()
    with pytest.raises(HotunplugDiskFailed, match="the bus sata lets none go then"):
        await disks.unplug(vm, DriveQuery(target="sdb"))


@pytest.mark.parametrize(
    ("params", "target"),
    [
        (as_description(6, "scsi"), "sdg"),
        (as_description(50, "scsi"), "sda"),
        (as_xml("sdz", "scsi"), "sda"),
    ],
)
async def test_an_index_of_a_scsi_controller_that_is_not_there(
    params: dict[str, Any], target: str
) -> None:
    vm: Any = Vm()
    vm.domain = Domain.from_xml(XML.replace("<devices>", CONTROLLERS.format(SCSI), 1))
    await disks.plug(vm, *read_plug(params, None))
    assert vm.plugged == [(target, "scsi")]


async def test_an_address_on_a_scsi_controller_that_is_not_there() -> None:
    vm: Any = Vm()
    vm.domain = Domain.from_xml(XML.replace("<devices>", CONTROLLERS.format(SCSI), 1))
    where = {"type": "drive", "controller": "3", "bus": "0", "target": "0", "unit": "1"}
    wanted = read_plug({"drive": {**as_description(1, "scsi")["drive"], "address": where}}, None)
    with pytest.raises(HotplugDiskFailed, match="no SCSI controller 3; give it an address on one"):
        await disks.plug(vm, *wanted)
    assert vm.plugged == []
