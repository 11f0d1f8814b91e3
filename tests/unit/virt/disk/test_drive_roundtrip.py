# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive: XML that is written is XML that is read back, for everything that a Drive can express."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.unit.virt.disk.test_drive import network
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.address import Address
from vdsmcinder.virt.disk.bus_rules import Device
from vdsmcinder.virt.disk.disk_auth import Auth, Encryption
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.driver import Driver
from vdsmcinder.virt.disk.source import BlockSource, FileSource, NetworkSource
from vdsmcinder.virt.disk.tuning import LIMITS, IoTune

# All that XML can carry, line ends and tabs included.
CHARACTERS = st.characters(
    exclude_categories=["Cs"],
    exclude_characters="\ufffe\uffff" + "".join(map(chr, {*range(32)} - {9, 10, 13})),
)
TEXT = st.text(CHARACTERS, min_size=1).filter(str.strip)
NAME = TEXT.filter(lambda text: "/" not in text)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


HOSTS = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z](\.[a-z]{1,10}){0,2}", fullmatch=True),
)
MONITORS = st.builds(
    MonitorHost,
    HOSTS,
    maybe(st.sampled_from([3300, 6789]) | st.integers(1, 65535)),
    maybe(st.just("tcp")),
)
AUTH = st.builds(Auth, TEXT, st.uuids().map(str))
ENCRYPTION = st.builds(
    Encryption, st.sampled_from(["luks", "luks2"]), st.uuids().map(str), maybe(st.just("librbd"))
)
NETWORK = st.builds(
    NetworkSource,
    st.lists(NAME, min_size=2, max_size=3).map("/".join),
    st.lists(MONITORS, max_size=9).map(tuple),
    maybe(AUTH),
    maybe(TEXT),
    maybe(TEXT.map("/{}".format)),
    maybe(ENCRYPTION),
)
PATH = TEXT.map("/{}".format)
# What disks of other buses do not have.
VIRTIOS = {"pinToIoThread": "2", "queues": 4, "queueSize": "256"}
POLICY = st.sampled_from(["mandatory", "requisite", "optional"])
FILE = st.builds(FileSource, PATH, maybe(POLICY), maybe(ENCRYPTION))
BLOCK = st.builds(BlockSource, PATH, maybe(ENCRYPTION))

OPTIONS = st.dictionaries(st.sampled_from(["queues", "detect_zeroes", "copy_on_read"]), TEXT)
DRIVER = st.builds(
    Driver,
    st.sampled_from(["raw", "qcow2"]),
    maybe(TEXT),
    maybe(TEXT),
    maybe(TEXT),
    maybe(TEXT),
    maybe(st.integers(1, 2**31 - 1)),
    OPTIONS.map(lambda options: tuple(options.items())),
)
PARTS = [name for name in sorted(LIMITS) if not name.startswith("total_")]
LIMIT = st.integers(0, 2**32 - 1)
IO_TUNE = st.builds(
    IoTune,
    st.dictionaries(st.sampled_from(PARTS), LIMIT).map(lambda d: tuple(sorted(d.items()))),
    maybe(TEXT),
)
ADDRESS = st.builds(
    Address,
    st.sampled_from(["pci", "drive", "usb", "ccw"]),
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("bus", "unit", "cssid"), st.integers(0, 255).map(str)),
            "slot": st.integers(0, 31).map(str),
        },
    ).map(lambda d: tuple(d.items())),
)
SOURCES = {
    Device.DISK: NETWORK | FILE | BLOCK,
    Device.CDROM: FILE | BLOCK | st.just(FileSource("")),
    Device.FLOPPY: FILE | st.just(FileSource("")),
    Device.LUN: BLOCK,
}


@st.composite
def drives(draw: st.DrawFn) -> Drive:
    """Every Drive that can be built."""
    device = draw(st.sampled_from(list(Device)))
    bus = draw(st.sampled_from(sorted(targets.PREFIXES)))
    lun = device is Device.LUN
    return Drive(
        device=device,
        source=draw(SOURCES[device]),
        target=targets.name(bus, draw(st.integers(0, 20_000))),
        bus=bus,
        driver=draw(DRIVER.filter(lambda driver: not lun or driver.format == "raw")),
        serial=draw(maybe(TEXT)),
        readonly=draw(st.booleans()),
        shared=draw(st.booleans()),
        boot_order=draw(maybe(st.integers(1, 1000))),
        io_tune=draw(maybe(IO_TUNE)),
        alias=draw(maybe(TEXT)),
        address=draw(maybe(ADDRESS)),
        sgio=draw(maybe(st.sampled_from(["filtered", "unfiltered"]))) if lun else None,
        model=draw(maybe(st.just("virtio-transitional"))),
        rawio=draw(maybe(st.sampled_from(["yes", "no"]))) if lun else None,
        extras=draw(st.sampled_from([(), ("<wwn>5000c50015ea71ac</wwn>",)])),
    )


@settings(deadline=None)
@given(drives())
def test_written_and_read_back(drive: Drive) -> None:
    text = etree.tostring(drive.getXML(), encoding="unicode")
    assert Drive.from_xml(parse(text, "test")) == drive
    assert Drive.from_xml(drive.getXML()) == drive


@settings(deadline=None)
@given(drives())
def test_libvirt_finds_the_parts_where_it_looks_for_them(drive: Drive) -> None:
    disk = drive.getXML()
    assert disk.find("target").get("dev") == drive.target
    assert len(disk.findall("source/host")) == len(getattr(drive.source, "hosts", ()))
    if drive.io_tune is not None:
        names = [child.tag for child in disk.find("iotune")]
        assert names == sorted(names)


WIRE = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just({}))


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 999) | st.integers(0, 999).map(str),
            "iface": st.sampled_from(["virtio", "scsi", "sata"]),
            "format": st.sampled_from(["raw", "cow"]),
            "hosts": st.lists(
                st.fixed_dictionaries(
                    {"name": HOSTS},
                    optional={"port": st.integers(1, 65535).map(str), "transport": st.just("tcp")},
                ),
                min_size=1,
            ),
            "path": st.lists(NAME.filter(lambda n: "@" not in n), min_size=2, max_size=3).map(
                "/".join
            ),
            "readonly": st.sampled_from([True, "false", "on"]),
            "shared": st.sampled_from(["none", "shared", True]),
            "propagateErrors": st.sampled_from(["on", "off", "report", False]),
            "bootOrder": st.integers(1, 9).map(str),
            "discard": st.booleans(),
            "serial": st.uuids().map(str),
            "deviceId": st.uuids().map(str),
            "specParams": st.just({"ioTune": {"read_iops_sec": 5}}),
        },
    )
)
def test_described_written_and_read_back(changes: dict[str, Any]) -> None:
    if changes.get("iface", "virtio") == "virtio":
        changes = {**changes, "specParams": {**changes.get("specParams", {}), **VIRTIOS}}
    drive = Drive.from_params(network(**changes))
    text = etree.tostring(drive.getXML(), encoding="unicode")
    assert Drive.from_xml(parse(text, "test")) == drive
