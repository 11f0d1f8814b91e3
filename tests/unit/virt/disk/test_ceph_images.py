# SPDX-License-Identifier: GPL-2.0-or-later
"""The images on Ceph that a domain opens are those that libvirt reads, whatever else stands there.

Disks are made up from libvirt's own schema, and libvirt says what it understands of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt
import pytest
from lxml import etree

from tests.unit.virt.disk.rng import SCHEMAS, Grammar
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.virt.disk import ceph_images
from vdsmcinder.virt.disk.ceph_images import CephImage, CephImages, Part
from vdsmcinder.virt.secrets.secret import SecretName, UsageType

ID = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
KEY = f"<secret type='ceph' uuid='{ID}'/>"
AUTH = f"<auth username='cinder'>{KEY}</auth>"
SOURCE = "<source protocol='rbd' name='volumes/v'><host name='10.0.0.1' port='6789'/></source>"
TARGET = "<target dev='vda' bus='virtio'/>"
DOMAIN = """\
<domain type='test'>
  <name>x</name><uuid>11111111-2222-3333-4444-555555555555</uuid><memory>65536</memory>
  <os><type arch='x86_64'>hvm</type>{os}</os>
  {devices}
</domain>"""
VALUES = {
    "": ("volumes/v", "pool/namespace/image", "volumes/v-2"),
    "string": ("text",),
    "unsignedInt": ("1", "6789"),
    "UUID": (ID, ID.upper(), f"{ID[:-1]}e"),
    "genericName": ("cinder", "monday"),
    "objectName": ("name",),
    "objectNameWithSlash": ("name/of/it",),
    "dnsName": ("mon.example.com",),
    "ipAddr": ("10.0.0.1", "fd00::1"),
    "absFilePath": ("/a/file",),
    "filePath": ("/a/file",),
    "absDirPath": ("/a",),
    "dirPath": ("/a",),
    "deviceName": ("sda",),
    "volName": ("volume",),
    "vmwarePath": ("[local] a.vmdk",),
    "positiveInteger": ("1", "512"),
    "unsignedLong": ("4096",),
    "unsignedShort": ("3",),
    "scaledInteger": ("1024",),
    "wwn": ("5000c50015ea71aa",),
    "uint16": ("0x1",),
    "diskSerial": ("serial",),
    "diskTargetDev": ("vda",),
    "rotationRate": ("1", "7200"),
    "aliasName": ("ua-x",),
    "driverCache": ("none",),
    "PortNumber": ("80",),
    "hexuint": ("0x1",),
    "usbPortDevice": ("1",),
    "duration": ("1",),
    "double": ("1",),
    "int": ("1",),
    "integer": ("1",),
    "positiveLong": ("1",),
    "NCName": ("x",),
    "token": ("x",),
}
RBD = ("diskSourceNetwork", "diskSourceNetworkProtocolRBD", "ipAddr")


def domain(*disks: str, os: str = "", second: str = "") -> etree._Element:
    """A domain with these disks; second: in another <devices>."""
    devices = f"<devices>{''.join(disks)}</devices>{second}"
    return etree.fromstring(DOMAIN.format(devices=devices, os=os))


def disk(content: str, attributes: str = "") -> str:
    return f"<disk type='network' {attributes}>{content}</disk>"


@contextmanager
def test_driver() -> Iterator[libvirt.virConnect]:
    connection = libvirt.open("test:///default")
    try:
        yield connection
    finally:
        connection.close()


test_driver.__test__ = False  # type: ignore[attr-defined]


def as_libvirt_reads(connection: libvirt.virConnect, document: str) -> etree._Element | None:
    """What libvirt makes of a document; None for one that it refuses."""
    try:
        defined = connection.defineXML(document)
    except libvirt.libvirtError:
        return None
    xml = defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    defined.undefine()
    return etree.fromstring(xml)


def made_up(grammar: Grammar, chance: random.Random) -> str:
    """A domain with some disks that libvirt's schema allows, in one or two <devices>."""
    root = domain(second="<devices/>" if chance.random() < 0.3 else "")
    places = root.findall("devices")
    for number in range(chance.randint(1, 3)):
        chance.choice(places).append(acceptable(grammar.element("disk", chance), number))
    return etree.tostring(root, encoding="unicode")


def acceptable(made: etree._Element, number: int) -> etree._Element:
    """A disk without what the schema allows and libvirt refuses, or that collides with another."""
    for name in ("address", "boot", "alias", "wwn", "geometry", "blockio", "driver"):
        for child in made.findall(name):
            made.remove(child)
    for name in ("device", "rawio", "sgio", "model"):
        if made.get(name) not in ("disk", "cdrom", "floppy"):
            made.attrib.pop(name, "")
    for secret in made.iterfind(".//auth/secret"):
        secret.set("type", "ceph")
    for source in made.iter("source"):
        if source.get("protocol") == "rbd":
            source.set("name", source.get("name", "volumes/v"))
        for name in ("auth", "encryption"):
            outer = made.find(name)
            if outer is not None and source.find(name) is not None:
                made.remove(outer)
    target = made.find("target")
    assert target is not None
    target.set("dev", f"{'fd' if made.get('device') == 'floppy' else 'sd'}{'abc'[number]}")
    for name in ("bus", "removable", "tray"):
        target.attrib.pop(name, "")
    return made


def test_what_is_read_is_what_libvirt_reads_in_all_that_its_schema_allows():
    grammar = Grammar(SCHEMAS / "domain.rng", VALUES, RBD)
    seen: Counter[object] = Counter()
    with test_driver() as connection:
        for seed in range(600):
            document = made_up(grammar, random.Random(seed))
            understood = as_libvirt_reads(connection, document)
            if understood is None:
                continue
            ours = ceph_images.of_domain(etree.fromstring(document)).opened
            its = ceph_images.of_domain(understood).opened
            assert _sorted(ours) == _sorted(its), document
            seen.update(_kinds(ours, document))
    rare = {what: number for what, number in seen.items() if number < 5}
    assert (rare, len(seen)) == ({}, 12), seen


def _sorted(found: CephImages) -> tuple[list[str], list[str], list[str]]:
    return (
        sorted(map(repr, found.images)),
        sorted(untold.disk for untold in found.untold),
        sorted(map(repr, found.needs)),
    )


def _kinds(found: CephImages, document: str) -> Iterator[object]:
    for image in found.images:
        yield image.part
        for name in ("shared", "readonly", "snapshot", "config_file", "secret", "hosts"):
            if getattr(image, name):
                yield name
        if "rotation_rate" in document:
            yield "rotation rate"
        if document.count("<devices") == 2:
            yield "two devices"
        if image.secret is not None and image.secret.usage_id is not None:
            yield "key by usage"
    if found.untold:
        yield "untold"


def test_what_the_drive_cannot_express_is_read_all_the_same():
    """Each of these was not looked at once: another host's VM could have its image open."""
    plain = CephImage("vda", "volumes/v", (MonitorHost("10.0.0.1", 6789),))
    for content in (
        disk(SOURCE + "<target dev='vda' bus='scsi' rotation_rate='1'/>"),
        disk(SOURCE + TARGET + "<transient/>"),
        disk("<driver name='qemu' type='raw' unheard='of'/>" + SOURCE + TARGET),
        disk(SOURCE + TARGET, "unheard='of'"),
    ):
        assert ceph_images.of_domain(domain(content)).images == (plain,)
    apart = domain(second=f"<devices>{disk(SOURCE + TARGET)}</devices>")
    assert ceph_images.of_domain(apart).images == (plain,)
    (cd,) = ceph_images.of_domain(domain(disk(SOURCE + TARGET, "device='cdrom'"))).images
    assert cd.readonly and not cd.exclusive


def test_what_stands_below_an_image_and_in_the_firmware():
    below = f"<backingStore type='network'><format type='raw'/>{SOURCE}</backingStore>"
    top = SOURCE.replace("volumes/v", "volumes/top")
    nvram = f"<nvram type='network'>{SOURCE.replace('volumes/v', 'volumes/nv')}</nvram>"
    found = ceph_images.of_domain(domain(disk(top + TARGET + below), os=nvram)).images
    assert [(image.disk, image.path, image.part, image.exclusive) for image in found] == [
        ("vda", "volumes/top", Part.DATA, True),
        ("vda", "volumes/v", Part.BASE, False),
        ("nvram", "volumes/nv", Part.DATA, True),
    ]


def test_a_copy_under_way_is_seen_and_not_opened_anew():
    copy = f"<mirror type='network' job='copy'>{SOURCE}</mirror>"
    top = SOURCE.replace("volumes/v", "volumes/top")
    found = ceph_images.of_domain(domain(disk(top + TARGET + copy)))
    assert [image.path for image in found.images] == ["volumes/top", "volumes/v"]
    assert [image.path for image in found.opened.images] == ["volumes/top"]


def test_keys_by_uuid_and_by_usage_in_the_disk_or_in_its_source():
    inner = SOURCE.replace("</source>", f"{AUTH}</source>")
    for content in (AUTH + SOURCE, inner):
        (image,) = ceph_images.of_domain(domain(disk(content + TARGET))).images
        assert (image.user, image.secret) == ("cinder", SecretName(ID))
    by_usage = "<auth username='cinder'><secret type='ceph' usage='ovirt/x'/></auth>"
    passphrase = f"<encryption format='luks'><secret type='passphrase' uuid='{ID}'/></encryption>"
    found = ceph_images.of_domain(domain(disk(by_usage + SOURCE + TARGET + passphrase)))
    assert found.images[0].secret == SecretName(None, UsageType.CEPH, "ovirt/x")
    assert found.needs == (("vda", found.images[0].secret), ("vda", SecretName(ID)))


@pytest.mark.parametrize(
    "source, why",
    [
        ("<source protocol='rbd'/>", "its image is ''"),
        ("<source protocol='rbd' name='a/b/c/d'/>", "its image is 'a/b/c/d'"),
        ("<source protocol='rbd' name='p/i'><host name='a b'/></source>", "host.name"),
        (
            "<source protocol='rbd' name='p/i'><host transport='unix' socket='/s'/></source>",
            "host.name",
        ),
        (
            "<source protocol='rbd' name='p/i'><auth username='u'><secret type='ceph'/></auth>"
            "</source>",
            "names no secret",
        ),
    ],
)
def test_an_image_that_cannot_be_asked_for_is_told_by_its_disk(source, why):
    found = ceph_images.of_domain(domain(disk(source + TARGET)))
    assert found.images == ()
    (untold,) = found.untold
    assert untold.disk == "vda"
    assert why in untold.why and "disk vda" in untold.why


def images(*given: tuple[str, str]) -> tuple[CephImage, ...]:
    disks = (
        disk(SOURCE.replace("volumes/v", path) + f"<target dev='vd{'abc'[n]}'/>{more}")
        for n, (path, more) in enumerate(given)
    )
    return ceph_images.of_domain(domain(*disks)).images


@pytest.mark.parametrize(
    "given, refused",
    [
        ([("volumes/a", ""), ("volumes/b", "")], None),
        ([("volumes/a", ""), ("volumes/a", "")], "vdb"),
        ([("volumes/a", "<readonly/>"), ("volumes/b", ""), ("volumes/a", "")], "vdc"),
        ([("volumes/a", "<shareable/>"), ("volumes/a", "<shareable/>")], None),
        ([("volumes/a", "<shareable/>"), ("volumes/a", "")], "vdb"),
        ([("volumes/a", "<readonly/>"), ("volumes/a", "<readonly/>")], None),
    ],
)
def test_the_same_image_twice_in_one_vm(given, refused):
    found = ceph_images.twice(images(*given))
    assert (found and found.disk) == refused


def test_a_snapshot_beside_its_image_and_the_same_name_in_two_clusters():
    snapshot = SOURCE.replace("</source>", "<snapshot name='monday'/></source>")
    elsewhere = SOURCE.replace("10.0.0.1", "10.9.9.9")
    for other in (snapshot, elsewhere):
        both = domain(disk(SOURCE + TARGET), disk(other + "<target dev='vdb'/>"))
        assert ceph_images.twice(ceph_images.of_domain(both).images) is None
    (one,) = images(("volumes/a", ""))
    assert ceph_images.twice([one], [one]) is one
