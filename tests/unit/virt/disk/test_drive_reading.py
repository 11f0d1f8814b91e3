# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive.from_xml: disks as libvirt gives them back, and those that a Drive cannot express."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.errors import UnsupportedDrive, VdsmCinderError
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.virt.disk.address import Address
from vdsmcinder.virt.disk.bus_rules import Device
from vdsmcinder.virt.disk.disk_auth import Auth, Encryption
from vdsmcinder.virt.disk.domain_disks import read_drives
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.driver import Driver
from vdsmcinder.virt.disk.source import FileSource, NetworkSource
from vdsmcinder.virt.disk.tuning import IoTune

LIVE = Path(__file__).parents[2] / "data" / "domains" / "live.xml"
SECRET = "148eb4bc-c47c-4ffe-b14e-3a0fb6c76833"


@pytest.fixture(name="devices")
def _devices() -> etree._Element:
    devices = parse(LIVE.read_text(), "test").find("devices")
    assert devices is not None
    return devices


def test_disk_of_a_running_vm(devices: etree._Element) -> None:
    (vda, _, _), _ = read_drives(devices)
    assert vda == Drive(
        device=Device.DISK,
        source=NetworkSource(
            "volumes/volume-1",
            (MonitorHost("10.0.0.1", 6789), MonitorHost("fd00::2", 3300), MonitorHost("mon-c")),
            Auth("cinder", SECRET),
        ),
        target="vda",
        bus="virtio",
        driver=Driver(
            cache="none",
            io="threads",
            error_policy="stop",
            discard="unmap",
            iothread=1,
            options=(("queues", "2"), ("detect_zeroes", "off")),
        ),
        serial="volume-1",
        boot_order=1,
        io_tune=IoTune((("read_iops_sec", 100),), "drive-ua-1"),
        alias="ua-6d5b02f4-55d6-4b4a-8a53-4b1a7ac44f01",
        address=Address(
            "pci", (("domain", "0x0000"), ("bus", "0x03"), ("slot", "0x00"), ("function", "0x0"))
        ),
        extras=("<wwn>5000c50015ea71ac</wwn>",),
    )


def test_auth_and_encryption_within_the_source(devices: etree._Element) -> None:
    (_, sda, _), _ = read_drives(devices)
    secret = "f981dd17-143f-45bc-88e6-ed1fe20ce9da"
    assert sda.source == NetworkSource(
        "volumes/volume-2",
        auth=Auth("cinder", SECRET),
        encryption=Encryption("luks", secret, "librbd"),
    )
    assert sda.shared
    assert sda.readonly


def test_empty_cdrom(devices: etree._Element) -> None:
    (_, _, cdrom), _ = read_drives(devices)
    assert (cdrom.device, cdrom.source, cdrom.target) == (Device.CDROM, FileSource(""), "sdc")


def test_foreign_disks_are_listed_all_the_same(devices: etree._Element) -> None:
    _, opaque = read_drives(devices)
    assert [(disk.target, disk.alias) for disk in opaque] == [
        ("vdb", "virtio-disk1"),
        ("sdd", None),
    ]
    assert "type is 'nvme'; expected file, block or network" in opaque[0].reason
    assert "protocol is 'https'; expected rbd" in opaque[1].reason


RBD = '<source protocol="rbd" name="p/i"><host name="m"/>{}</source><target dev="vda"/>'


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (RBD.format('<slices><slice type="storage"/></slices>'), "child slices"),
        (RBD.format("").replace('"vda"', '"vda" removable="on"'), "attribute removable"),
        (RBD.format("").replace('"vda"', '"xvda"'), "target is a string of 4 characters"),
        ('<source protocol="rbd" name="p/i"/>', "target is a string of 0 characters"),
        ('<source protocol="rbd"/><target dev="vda"/>', "no name attribute"),
        ('<source name="p/i"/><target dev="vda"/>', "no protocol attribute"),
        ('<target dev="vda"/>', "it has no <source>"),
        (RBD.format("<auth username='u'/>"), "<auth> names no secret"),
        (RBD.format("<auth username='u'><secret usage='x'/></auth>"), "no uuid attribute"),
        (RBD.format("") + "<driver><metadata_cache/></driver>", "child metadata_cache"),
        (RBD.format("") + "<iotune><moon>1</moon></iotune>", "child moon"),
        (RBD.format("") + '<boot order="first"/>', "boot.order is a string of 5 characters"),
        (
            RBD.format("") + '<driver type=" "/>',
            "driver.type is a string of 1 character",
        ),
        (RBD.format("") + '<driver type="vmdk"/>', "driver.type is 'vmdk'; expected one of raw"),
        (
            RBD.format("") + '<driver iothread="x"/>',
            "driver.iothread is a string of 1 character",
        ),
        (
            RBD.format("") + '<driver iothread="0"/>',
            "driver.iothread is a string of 1 character",
        ),
        (RBD.format("") + '<driver cache=" "/>', "blank"),
        (
            RBD.format("") + '<address type="pci" slot="08"/>',
            "address.slot is a string of 2 characters",
        ),
        (
            RBD.format("") + '<address type="drive" unit="0x1"/>',
            "address.unit is a string of 3 characters",
        ),
        (RBD.format("") + '<address type="pci"><zpci uid="1"/></address>', "child zpci"),
    ],
)
def test_nothing_is_lost_unnoticed(inner: str, words: str) -> None:
    with pytest.raises(VdsmCinderError) as caught:
        Drive.from_xml(etree.fromstring(f'<disk type="network">{inner}</disk>'))
    assert words in caught.value.message


def test_unknown_attribute_of_the_disk() -> None:
    with pytest.raises(UnsupportedDrive, match="attribute moon"):
        Drive.from_xml(etree.fromstring('<disk moon="full"/>'))


def test_without_hosts_as_with_a_configuration_file_on_this_host() -> None:
    disk = '<disk type="network"><source protocol="rbd" name="p/i"/><target dev="sdb"/></disk>'
    drive = Drive.from_xml(etree.fromstring(disk))
    assert drive.source == NetworkSource("p/i")
    assert drive.bus == "scsi"


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ('type="pci" slot="07"', 7),
        ('type="pci" slot="010"', 8),
        ('type="pci" slot="0x1f"', 31),
        ('type="pci" slot="0X1F"', 31),
        ('type="pci" slot="10"', 10),
        ('type="pci"', 0),
        ('type="drive" slot="0" unit="08"', 8),
        ('type="drive" unit="010"', 10),
    ],
)
def test_parts_of_an_address_are_read_as_libvirt_reads_them(address: str, number: int) -> None:
    disk = etree.fromstring(f'<disk type="network">{RBD.format("")}<address {address}/></disk>')
    found = Drive.from_xml(disk).address
    assert found is not None
    assert found.number("unit" if found.type == "drive" else "slot") == number
