# SPDX-License-Identifier: GPL-2.0-or-later
"""What no VM is given: the same in every form in which a request can describe a disk."""

from __future__ import annotations

import copy
from typing import Any, Callable

import pytest
from lxml import etree

from tests.unit.virt.disk.test_drive import DEVICE_ID, SECRET, network
from vdsmcinder.errors import InvalidParameter
from vdsmcinder.rpc.requests.disk import read_drive, read_plug
from vdsmcinder.rpc.requests.nic import read_plug as read_nic
from vdsmcinder.rpc.requests.vm import read_vm
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.domain.create_request import make_domain
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.secrets.secret import SecretName

VM_ID = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
OTHER = "f981dd17-143f-45bc-88e6-ed1fe20ce9da"
DOMAIN = """
<domain type='kvm'><name>x</name><memory>1024</memory><os><type>hvm</type></os>
  <devices>{}</devices>
</domain>
"""

DISK = f"""
<disk type='network' device='disk'>
  <driver name='qemu' type='raw' cache='none' io='threads' error_policy='stop'/>
  <source protocol='rbd' name='volumes/volume-1'><host name='10.0.0.1' port='6789'/></source>
  <auth username='cinder'><secret type='ceph' uuid='{SECRET}'/></auth>
  <target dev='vda' bus='virtio'/>
</disk>
"""


def create(vm_id: str, params: dict[str, Any]) -> Domain:
    request = read_vm(vm_id, params)
    made = make_domain(vm_id, request, allow_emulation=False, spare_pcie_ports=0)
    return Domain.from_xml(made.xml)


def in_fields(**changes: Any) -> list[Callable[[], Any]]:
    """The ways in for a disk that is described in fields, which some are changed of."""
    drive = network(type="disk", **changes)
    info = {
        "driver_volume_type": "rbd",
        "data": {"name": drive["path"], "hosts": ["10.0.0.1"], "auth_enabled": False},
    }
    told = {n: v for n, v in drive.items() if n not in ("path", "hosts", "auth", "protocol")}
    cinders = {**told, "connectionInfo": info}
    return [
        way
        for one in (drive, cinders)
        for way in (
            lambda one=one: read_drive(one, None),
            lambda one=one: read_plug({"vmId": VM_ID, "drive": one}, None),
            lambda one=one: create(VM_ID, {"memSize": 1, "devices": [one]}),
        )
    ]


def in_xml(*changes: tuple[str, str]) -> list[Callable[[], Any]]:
    """The ways in for a disk that is described in XML, in which some text is changed."""
    disk = DISK
    for old, new in changes:
        assert old in disk
        disk = disk.replace(old, new)
    return [
        lambda: read_plug(
            {"vmId": VM_ID, "xml": f"<hotplug><devices>{disk}</devices></hotplug>"}, None
        ),
        lambda: read_plug({"vmId": VM_ID, "xml": disk.strip()}, None),
        lambda: create(VM_ID, {"xml": DOMAIN.format(disk)}),
    ]


def child(xml: str) -> tuple[str, str]:
    return ("<target", f"{xml}<target")


TARGET = "<target dev='vda' bus='virtio'/>"
SOURCE = "<host name='10.0.0.1' port='6789'/>"


def encryption(xml: str) -> tuple[str, str]:
    return (SOURCE, f"{SOURCE}{xml}")


PASSPHRASE = f"<secret type='passphrase' uuid='{OTHER}'/>"
LIMITS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"total_bytes_sec_max": 5}, "total_bytes_sec_max is"),
    ({"read_iops_sec_max": 5}, "read_iops_sec_max is"),
    ({"total_iops_sec": 5, "total_iops_sec_max": 4}, "total_iops_sec_max is"),
    ({"total_iops_sec": 5, "write_iops_sec": 5}, "write_iops_sec is"),
    (
        {
            **{"total_bytes_sec": 5, "total_bytes_sec_max": 9},
            **{"read_bytes_sec_max": 9, "read_bytes_sec": 0},
        },
        "read_bytes_sec_max is",
    ),
    ({"write_iops_sec": 5, "write_iops_sec_max_length": 2}, "write_iops_sec_max_length is"),
    (
        {"read_iops_sec": 5, "read_iops_sec_max": 10**14, "read_iops_sec_max_length": 11},
        "read_iops_sec_max_length is",
    ),
    ({"read_iops_sec": 5, "read_iops_sec_max_length": 2**32}, "read_iops_sec_max_length is"),
    ({"size_iops_sec": 4096}, "size_iops_sec is"),
    ({"size_iops_sec": 4096, "total_bytes_sec": 5}, "size_iops_sec is"),
    ({"total_bytes_sec": 10**15 + 1}, "total_bytes_sec is"),
    ({"total_bytes_sec": 5, "total_bytes_sec_max": 10**15 + 1}, "total_bytes_sec_max is"),
    ({"total_iops_sec": -1}, "total_iops_sec is"),
    ({"group_name": "g"}, "group_name is a string of 1 character; expected none without limits"),
    ({"group_name": "g", "total_iops_sec": 0}, "group_name is a string of 1 character; expected"),
)


def limits_xml(limits: dict[str, Any]) -> tuple[str, str]:
    return child(
        f"<iotune>{''.join(f'<{n}>{value}</{n}>' for n, value in limits.items())}</iotune>"
    )


def driver(xml: str) -> tuple[str, str]:
    return ("<driver ", f"<driver {xml} ")


def on(dev: str, bus: str) -> tuple[str, str]:
    return (TARGET, f"<target dev='{dev}' bus='{bus}'/>")


def at(**parts: str) -> tuple[str, str]:
    return child(f"<address {' '.join(f'{n}={text!r}' for n, text in parts.items())}/>")


def on_controller(**parts: str) -> dict[str, str]:
    return {"type": "drive", "controller": "0", "bus": "0", "target": "0", "unit": "0", **parts}


PLACES: tuple[tuple[str, dict[str, str], str], ...] = (
    ("virtio", on_controller(), "address.type is a string of 5 characters; expected pci or ccw"),
    ("virtio", {"type": "usb", "bus": "0", "port": "1"}, "expected pci or ccw for iface virtio"),
    ("scsi", {"type": "pci", "bus": "0x01", "slot": "0x00"}, "expected drive for iface scsi"),
    ("usb", on_controller(), "expected usb for iface usb"),
    ("scsi", on_controller(controller="256"), "address.controller is"),
    ("scsi", on_controller(controller="4294967295"), "address.controller is"),
    ("scsi", on_controller(bus="1"), "address.bus is a string of 1 character; expected a whole"),
    ("scsi", on_controller(target="256"), "expected a whole number from 0 to 255"),
    ("scsi", on_controller(unit="16384"), "expected a whole number from 0 to 16383"),
    ("sata", on_controller(unit="6"), "expected a whole number from 0 to 5"),
    ("sata", on_controller(target="1"), "address.target is"),
    ("virtio", {"type": "pci", "domain": "0x10000", "slot": "0"}, "address.domain is"),
    ("virtio", {"type": "pci", "bus": "256", "slot": "0"}, "address.bus is"),
    ("virtio", {"type": "pci", "bus": "0x1", "slot": "0x20"}, "address.slot is"),
    ("virtio", {"type": "pci", "bus": "1", "slot": "0", "function": "010"}, "address.function is"),
)
# A target that names the bus, for domain documents.
NAMES = {"virtio": "vda", "scsi": "sda", "sata": "sda", "usb": "sda", "ide": "hda", "fdc": "fda"}


@pytest.mark.parametrize(
    ("ways", "words"),
    [
        *(
            (in_fields(iface=bus, address=where) + in_xml(on(NAMES[bus], bus), at(**where)), words)
            for bus, where, words in PLACES
        ),
        (in_fields(iface="scsi", index=1024) + in_xml(on("sdamk", "scsi")), "index is"),
        (in_fields(index=2**31 - 1) + in_xml(on("vdfxshrxx", "virtio")), "index is"),
        (in_fields(iface="sata", index=2**31) + in_xml(on("sdfxshrxxabcdefgh", "sata")), "index"),
        (
            in_fields(iface="fdc") + in_xml(on("fda", "fdc")),
            "iface is a string of 3 characters; expected virtio or scsi or sata or usb or ide for "
            "a disk",
        ),
        (
            in_fields(iface="sata", specParams={"queues": 2})
            + in_xml(on("sda", "sata"), driver("queues='2'")),
            "queues is",
        ),
        (
            in_fields(iface="scsi", specParams={"queueSize": 64})
            + in_xml(on("sda", "scsi"), driver("queue_size='64'")),
            "expected none with iface scsi, as virtio alone has it",
        ),
        (
            in_fields(iface="usb", specParams={"pinToIoThread": 1})
            + in_xml(on("sda", "usb"), driver("iothread='1'")),
            "pinToIoThread is 1; expected none with iface usb",
        ),
        *(
            (
                in_fields(specParams={"queueSize": size}) + in_xml(driver(f"queue_size='{size}'")),
                "expected a power of 2 from 4 to 1024",
            )
            for size in (0, 2, 3, 100, 1025, 2048)
        ),
        *(
            (
                in_fields(specParams={"queues": n}) + in_xml(driver(f"queues='{n}'")),
                "expected a whole number from 1 to 1024",
            )
            for n in (0, 1025)
        ),
        (
            in_fields(specParams={"pinToIoThread": 1025}) + in_xml(driver("iothread='1025'")),
            "expected a whole number from 1 to 1024",
        ),
        (
            in_fields(shared="shared", cache="writeback")
            + in_xml(child("<shareable/>"), ("cache='none'", "cache='writeback'")),
            "expected none or directsync, as the disk is shared",
        ),
        (
            in_fields(path="volumes/volume-1@s")
            + in_xml((SOURCE, f"{SOURCE}<snapshot name='s'/>")),
            "readonly is null; expected true, as path names a snapshot",
        ),
        (
            in_fields(detectZeroes="unmap", discard=False)
            + in_xml(("cache='none'", "cache='none' detect_zeroes='unmap'")),
            "detectZeroes is a string of 5 characters",
        ),
        (in_fields(cache="fast") + in_xml(("cache='none'", "cache='fast'")), "cache is a"),
        (in_xml(("io='threads'", "io='fast'")), "io is a string of 4 characters"),
        (in_xml(("error_policy='stop'", "error_policy='x'")), "propagateErrors is a"),
        (
            in_xml(("cache='none'", "cache='none' discard='x'")),
            "discard is a",
        ),
        (in_xml(("cache='none'", "cache='none' iothread='x'")), "driver.iothread is a"),
        (in_fields(serial="a;b") + in_xml(child("<serial>a;b</serial>")), "serial is a"),
        (
            in_fields(encryption={"uuid": OTHER, "format": "luks2", "engine": "qemu"})
            + in_xml(encryption(f"<encryption format='luks2'>{PASSPHRASE}</encryption>")),
            "expected librbd for luks2, which QEMU itself does not read",
        ),
        (
            in_xml(encryption(f"<encryption format='luks'>{PASSPHRASE * 2}</encryption>")),
            "<encryption> has secret twice; expected it once",
        ),
        (
            in_xml(("type='ceph'", "type='iscsi' usage='a'"), child(TARGET)),
            "<disk> has target twice",
        ),
        (in_xml((SOURCE, f"{SOURCE}<config file='/a'/><config file='/b'/>")), "has config twice"),
        (
            in_xml((SOURCE, f"{SOURCE}<auth username='x'>{PASSPHRASE}</auth>")),
            "auth stands in <disk> and in <source>",
        ),
        (in_xml(child("<address type='pci' slot='08'/>")), "address.slot is a"),
        *(
            (
                in_fields(alias=alias) + in_xml(child(f"<alias name='{alias}'/>")),
                "expected letters, digits, '_' and '-', and '.' only where it does",
            )
            for alias in ("ua-data.disk", "ua-", "ua-a b")
        ),
        *(
            (in_fields(specParams={"ioTune": limits}) + in_xml(limits_xml(limits)), words)
            for limits, words in LIMITS
        ),
    ],
)
def test_a_rule_holds_for_every_way_in(ways: list[Callable[[], Any]], words: str) -> None:
    for way in ways:
        with pytest.raises(InvalidParameter) as caught:
            way()
        assert words in caught.value.message
        assert "disk" in caught.value.message or "volume" in caught.value.message


def test_what_is_described_without_a_fault_comes_in_every_way() -> None:
    good = {"alias": f"ua-{DEVICE_ID}_x", "serial": "WD-1 .+_", "shared": "shared"}
    for way in in_fields(**good) + in_xml(
        child(f"<shareable/><serial>WD-1 .+_</serial><alias name='ua-{DEVICE_ID}_x'/>")
    ):
        way()
    for way in in_xml(child("<shareable/><readonly/>"), ("cache='none'", "cache='writeback'")):
        way()


def test_a_disk_that_runs_is_told_as_it_is() -> None:
    """Whoever started it: rules are for requests."""
    live = DISK.replace("cache='none'", "cache='writeback'").replace(
        "<target", "<shareable/><target"
    )
    uuid = f"<uuid>{VM_ID}</uuid><devices>"
    domain = Domain.from_xml(DOMAIN.format(live).replace("<devices>", uuid))
    assert [drive.target for drive in domain.drives] == ["vda"]


def test_secrets_are_named_in_lower_case_as_libvirt_has_them() -> None:
    disk = DISK.replace(SECRET, SECRET.upper())
    wanted = Drive.wanted(etree.fromstring(disk))
    assert wanted == Drive.wanted(etree.fromstring(DISK))
    assert create(VM_ID, {"xml": DOMAIN.format(disk)}).ceph.secrets == {SecretName(SECRET)}


def test_encryption_of_disks_that_are_not_on_ceph() -> None:
    block = {"diskType": "block", "path": "/dev/x", "encryption": {"uuid": OTHER}}
    encryption = read_drive(block, None).source.encryption
    assert encryption is not None and encryption.secret_uuid == OTHER
    asked = copy.deepcopy(block)
    asked["encryption"] = {"uuid": OTHER, "engine": "librbd"}
    for disk in (asked, {**asked, "diskType": "file", "path": "/x"}):
        with pytest.raises(InvalidParameter, match="expected qemu, as the disk is not on Ceph"):
            read_drive(disk, None)


@pytest.mark.parametrize("alias", ["ua-data.nic", "ua-", "ua-é"])
def test_a_nics_alias_is_one_that_libvirt_keeps(alias: str) -> None:
    nic = f"<interface type='bridge'><source bridge='br0'/><alias name='{alias}'/></interface>"
    for way in (
        lambda: read_nic({"nic": {"network": "br0", "alias": alias}}),
        lambda: read_nic({"xml": nic}),
        lambda: create(VM_ID, {"xml": DOMAIN.format(nic)}),
        lambda: create(
            VM_ID,
            {"memSize": 1, "devices": [{"type": "interface", "network": "br0", "alias": alias}]},
        ),
    ):
        with pytest.raises(InvalidParameter, match="expected letters, digits, '_' and '-'"):
            way()


def test_what_is_not_known_here_is_for_libvirt_to_judge() -> None:
    for odd in (("type='raw'", "type='vmdk'"), ("protocol='rbd'", "protocol='nbd'")):
        domain = create(VM_ID, {"xml": DOMAIN.format(DISK.replace(*odd))})
        assert [opaque.target for opaque in domain.opaque_drives] == ["vda"]
        assert domain.targets == {"vda"}


@pytest.mark.parametrize(
    ("device", "bus", "expected"),
    [
        ("cdrom", "virtio", "scsi or sata or usb or ide"),
        ("cdrom", "fdc", "scsi or sata or usb or ide"),
        ("floppy", "sata", "fdc"),
        ("lun", "sata", "virtio or scsi"),
    ],
)
def test_what_a_bus_does_not_take(device: str, bus: str, expected: str) -> None:
    path = "/dev/sdx" if device == "lun" else "/x"
    described = {"type": "disk", "device": device, "iface": bus, "path": path}
    source = f"<source dev='{path}'/>" if device == "lun" else f"<source file='{path}'/>"
    kind = "block" if device == "lun" else "file"
    disk = f"<disk type='{kind}' device='{device}'>{source}<target dev='{NAMES[bus]}' bus='{bus}'/>"
    for way in (
        lambda: create(VM_ID, {"memSize": 1, "devices": [described]}),
        lambda: create(VM_ID, {"xml": DOMAIN.format(f"{disk}</disk>")}),
    ):
        with pytest.raises(InvalidParameter) as caught:
            way()
        assert caught.value.message.endswith(f"; expected {expected} for a {device}")


@pytest.mark.parametrize(
    ("xml", "field"),
    [
        ("<iothreads>1025</iothreads>", "iothreads"),
        ("<iothreads>4294967295</iothreads>", "iothreads"),
        (
            "<devices><channel type='null'><target type='virtio' name='x'/><address "
            "type='virtio-serial' controller='4294967295' bus='0' port='1'/></channel></devices>",
            "address.controller",
        ),
        (
            "<devices><disk type='nvme'><target dev='sdfxshrxx' bus='sata'/></disk></devices>",
            "target.index",
        ),
    ],
)
def test_numbers_up_to_which_libvirt_would_make_things(xml: str, field: str) -> None:
    """Of what stands in a document, whatever kind it is: libvirt would take all memory for them."""
    document = DOMAIN.format("").replace("<devices>", f"{xml}<devices>")
    with pytest.raises(InvalidParameter) as caught:
        create(VM_ID, {"xml": document})
    assert caught.value.data["field"] == field
