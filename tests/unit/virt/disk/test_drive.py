# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive: what descriptions come to, compared as whole documents, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from vdsmcinder.errors import (
    InvalidParameter,
    MissingParameter,
    UnsupportedDrive,
    VdsmCinderError,
)
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.drive_json import drive_xml
from vdsmcinder.virt.disk.source import FileSource

DATA = Path(__file__).parents[2] / "data" / "drives"
KEY = "AQAAAAAAAAAAABAAihjHgccb4t7alQcseE5tnA=="
SECRET = "148eb4bc-c47c-4ffe-b14e-3a0fb6c76833"
DEVICE_ID = "6d5b02f4-55d6-4b4a-8a53-4b1a7ac44f01"


def network(**changes: Any) -> dict[str, Any]:
    """A valid description of an RBD disk with some fields changed; None takes a field away."""
    params = {
        "type": "disk",
        "device": "disk",
        "iface": "virtio",
        "index": "0",
        "diskType": "network",
        "protocol": "rbd",
        "path": "volumes/volume-1",
        "format": "raw",
        "hosts": [{"name": "10.0.0.1", "port": "6789", "transport": "tcp"}],
        "auth": {"type": "ceph", "username": "cinder", "uuid": SECRET},
        **changes,
    }
    return {name: value for name, value in params.items() if value is not None}


def host(**changes: Any) -> dict[str, Any]:
    """A network disk whose only monitor has some fields changed."""
    return network(hosts=[{"name": "10.0.0.1", "port": "6789", "transport": "tcp", **changes}])


def auth(**changes: Any) -> dict[str, Any]:
    """A network disk whose auth has some fields changed."""
    return network(auth={"type": "ceph", "username": "cinder", "uuid": SECRET, **changes})


def local(device: str, **changes: Any) -> dict[str, Any]:
    """A disk of this host."""
    return {"device": device, "path": "/dev/mapper/x", "diskType": "block", **changes}


@pytest.mark.parametrize("path", sorted(DATA.glob("*.json")), ids=lambda p: p.stem)
def test_document(path: Path) -> None:
    xml = drive_xml(json.loads(path.read_text()))
    expected = path.with_suffix(".xml").read_text()
    assert etree.canonicalize(xml) == etree.canonicalize(expected.rstrip())


def test_from_cinder_and_from_engine_come_to_the_same() -> None:
    info = {
        "driver_volume_type": "rbd",
        "data": {
            "name": "volumes/volume-1",
            "hosts": ["10.0.0.1"],
            "ports": ["6789"],
            "auth_enabled": True,
            "auth_username": "cinder",
            "secret_uuid": SECRET,
        },
    }
    assert Drive.from_connection_info(info, index="0") == Drive.from_params(network())


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        (network(hosts=None), MissingParameter, ("hosts is missing", "Ceph monitor")),
        (network(hosts=[]), MissingParameter, ("hosts is missing",)),
        (
            network(hosts="10.0.0.1"),
            InvalidParameter,
            ("hosts is a string of 8 characters", "a list"),
        ),
        (
            network(hosts=["mon"]),
            InvalidParameter,
            ("hosts[0] is a string of 3 characters", "an object"),
        ),
        (network(protocol=None), MissingParameter, ("protocol is missing", "rbd")),
        (
            network(protocol="gluster"),
            UnsupportedDrive,
            ("protocol is 'gluster'", "rbd"),
        ),
        (network(path=None), MissingParameter, ("path is missing", "pool/image")),
        (
            network(path="image"),
            InvalidParameter,
            ("path is a string of 5 characters", "pool/image"),
        ),
        (
            network(path="/image"),
            InvalidParameter,
            ("path is a string of 6 characters", "pool/image"),
        ),
        (
            network(path="a/b/c/d"),
            InvalidParameter,
            ("path is a string of 7 characters", "pool/image"),
        ),
        (
            network(path="pool/a@"),
            InvalidParameter,
            ("path is a string of 7 characters", "pool/image"),
        ),
        (
            network(path="pool/\x00"),
            InvalidParameter,
            (r"path is a string of 6 characters", "pool/image"),
        ),
        (network(path="pool/a@snap"), InvalidParameter, ("readonly is null", "snapshot")),
        (
            network(diskType="nvme"),
            InvalidParameter,
            ("diskType is a string of 4 characters", "network"),
        ),
        (
            network(device="tape"),
            InvalidParameter,
            ("device is a string of 4 characters", "cdrom, floppy"),
        ),
        (network(device="cdrom"), UnsupportedDrive, ("'network' on a cdrom", "file or block")),
        (network(device="floppy"), UnsupportedDrive, ("'network' on a floppy", "file")),
        (network(device="lun"), UnsupportedDrive, ("network on a lun", "block")),
        (local("floppy"), UnsupportedDrive, ("block on a floppy", "file")),
        (local("lun", format="cow"), UnsupportedDrive, ("qcow2 on a lun", "raw")),
        (local("disk", sgio="filtered"), UnsupportedDrive, ("set on a disk", "luns only")),
        (
            local("lun", sgio="yes"),
            InvalidParameter,
            ("sgio is a string of 3 characters", "unfiltered"),
        ),
        (
            local("disk", path="sdb"),
            InvalidParameter,
            ("path is a string of 3 characters", "absolute"),
        ),
        (local("disk", path=""), MissingParameter, ("path is missing", "absolute")),
        (
            network(iface="nvme"),
            InvalidParameter,
            ("iface is a string of 4 characters", "virtio, scsi"),
        ),
        (network(index="-1"), InvalidParameter, ("index is a string of 2 characters", "from 0")),
        (
            network(index="first"),
            InvalidParameter,
            ("index is a string of 5 characters", "a whole number"),
        ),
        (network(index=True), InvalidParameter, ("index is a boolean", "a whole number")),
        (
            network(format="vmdk"),
            InvalidParameter,
            ("format is a string of 4 characters", "raw, cow"),
        ),
        (
            network(cache="fast"),
            InvalidParameter,
            ("cache is a string of 4 characters", "writeback"),
        ),
        (network(bootOrder=0), InvalidParameter, ("bootOrder is a number", "from 1")),
        (
            network(readonly="maybe"),
            InvalidParameter,
            ("readonly is a string of 5 characters", "true or false"),
        ),
        (
            network(shared="half"),
            InvalidParameter,
            ("shared is a string of 4 characters", "exclusive"),
        ),
        (network(discard=3), InvalidParameter, ("discard is a number", "true or false")),
        (
            network(propagateErrors="x"),
            InvalidParameter,
            ("propagateErrors is a string of 1 character", "report"),
        ),
        (
            network(serial="a;b"),
            InvalidParameter,
            ("serial is a string of 3 characters", "letters"),
        ),
        (
            network(deviceId="7"),
            InvalidParameter,
            ("deviceId is a string of 1 character", "a UUID"),
        ),
        (network(alias="a b"), InvalidParameter, ("alias is a string of 3 characters", "letters")),
        (network(address={"bus": "1"}), MissingParameter, ("address.addressType", "pci")),
        (
            network(address={"type": "moon"}),
            InvalidParameter,
            ("address.type is a string of 4 characters", "pci"),
        ),
        (
            network(address={"type": "pci", "slot": "0xyz"}),
            InvalidParameter,
            ("address.slot is a string of 4 characters", "hexadecimal"),
        ),
        (
            network(specParams={"pinToIoThread": 0}),
            InvalidParameter,
            ("specParams.pinToIoThread is a number", "from 1"),
        ),
        (
            network(specParams={"ioTune": {"read_iops_sec": "fast"}}),
            InvalidParameter,
            ("specParams.ioTune.read_iops_sec is a string of 4 characters", "a whole number"),
        ),
        (
            network(specParams={"ioTune": {"iops": 1}}),
            InvalidParameter,
            ("specParams.ioTune.iops is 1", "read_iops_sec"),
        ),
        (
            network(specParams={"ioTune": {"total_iops_sec": 5, "read_iops_sec": 3}}),
            InvalidParameter,
            ("total_iops_sec is 5", "read_iops_sec is 3", "not on both"),
        ),
        (host(name=None), MissingParameter, ("hosts[0].name is missing", "host name")),
        (
            host(name="mon 1"),
            InvalidParameter,
            ("hosts[0].name is a string of 5 characters", "host name"),
        ),
        (host(name="10.0.0.1:6789"), InvalidParameter, ("hosts[0].name", "an IPv4 address")),
        (host(name="10.0.0.256"), InvalidParameter, ("hosts[0].name", "an IPv4 address")),
        (host(name="[fd00::z]"), InvalidParameter, ("hosts[0].name", "an IPv6 address")),
        (host(name="[mon]"), InvalidParameter, ("hosts[0].name", "host name")),
        (host(port=0), InvalidParameter, ("hosts[0].port is a number", "from 1 to 65535")),
        (
            host(port="65536"),
            InvalidParameter,
            ("hosts[0].port is a string of 5 characters", "from 1 to 65535"),
        ),
        (
            host(port="http"),
            InvalidParameter,
            ("hosts[0].port is a string of 4 characters", "from 1 to 65535"),
        ),
        (
            host(transport="rdma"),
            InvalidParameter,
            ("hosts[0].transport is a string of 4 characters", "tcp"),
        ),
        (auth(username=None), MissingParameter, ("auth.username is missing",)),
        (auth(uuid=None), MissingParameter, ("auth.uuid is missing", "a UUID")),
        (
            auth(uuid="abcdef"),
            InvalidParameter,
            ("auth.uuid is a string of 6 characters", "a UUID"),
        ),
        (auth(type="chap"), InvalidParameter, ("auth.type is a string of 4 characters", "ceph")),
        (
            network(auth="cinder"),
            InvalidParameter,
            ("auth is a string of 6 characters", "an object"),
        ),
        (["no", "object"], InvalidParameter, ("the description is a list of 2", "an object")),
    ],
)
def test_refused(params: Any, error: type[VdsmCinderError], words: tuple[str, ...]) -> None:
    with pytest.raises(error) as caught:
        Drive.from_params(params)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "params", [auth(uuid=KEY), auth(type=KEY), network(auth=KEY), network(auth=[{"key": KEY}])]
)
def test_a_key_in_place_of_its_secrets_name_is_not_told(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match=r"auth.* is a \w+ of \d+.*; expected") as caught:
        Drive.from_params(params)
    assert KEY[16:] not in f"{caught.value.message} {caught.value.data}"


def test_what_a_payload_holds_is_not_told() -> None:
    payload = {"file": {"user-data": "s3cret-pass"}}
    with pytest.raises(UnsupportedDrive, match="vmPayload is set") as caught:
        Drive.from_params({"device": "cdrom", "specParams": {"vmPayload": payload}})
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("value", [True, "true", "True", "on", "yes", "1", 1])
def test_true_in_all_its_forms(value: Any) -> None:
    drive = Drive.from_params(network(readonly=value, discard=value, shared=value))
    assert drive.readonly
    assert drive.shared
    assert drive.driver.discard == "unmap"


@pytest.mark.parametrize("value", [False, "false", "FALSE", "off", "no", "0", 0, None, ""])
def test_false_in_all_its_forms(value: Any) -> None:
    drive = Drive.from_params(network(readonly=value, discard=value, shared=value))
    assert not drive.readonly
    assert not drive.shared
    assert drive.driver.discard is None


@pytest.mark.parametrize(
    ("given", "name", "port"),
    [
        ({"name": "192.0.2.1", "port": 3300}, "192.0.2.1", 3300),
        ({"name": "192.0.2.1", "port": "6789"}, "192.0.2.1", 6789),
        ({"name": "fd00::1"}, "fd00::1", None),
        ({"name": "[fd00::1]", "port": ""}, "fd00::1", None),
        ({"name": "mon-1.storage.example.", "port": None}, "mon-1.storage.example.", None),
    ],
)
def test_monitor(given: dict[str, Any], name: str, port: int | None) -> None:
    (monitor,) = Drive.from_params(network(hosts=[given])).source.hosts
    assert (monitor.name, monitor.port) == (name, port)


@pytest.mark.parametrize(
    ("bus", "index", "target"),
    [
        ("virtio", 0, "vda"),
        ("virtio", 25, "vdz"),
        ("virtio", 26, "vdaa"),
        ("virtio", 701, "vdzz"),
        ("virtio", 702, "vdaaa"),
        ("scsi", 1, "sdb"),
        ("sata", 2, "sdc"),
        ("usb", 3, "sdd"),
        ("ide", 2, "hdc"),
    ],
)
def test_target(bus: str, index: int, target: str) -> None:
    drive = Drive.from_params(network(iface=bus, index=str(index)))
    assert (drive.target, drive.index, drive.name) == (target, index, target)


def test_without_index_the_lowest_free_target_of_the_bus() -> None:
    taken = ("vda", "vdc", "sda")
    assert Drive.from_params(network(index=None), taken).target == "vdb"
    assert Drive.from_params(network(index=None, iface="sata"), taken).target == "sdb"
    assert Drive.from_params(network(index=None)).target == "vda"


@pytest.mark.parametrize(
    ("given", "alias"),
    [
        ({}, None),
        ({"alias": "ua-mine"}, "ua-mine"),
        ({"deviceId": DEVICE_ID}, f"ua-{DEVICE_ID}"),
        ({"deviceId": DEVICE_ID, "alias": "ua-mine"}, "ua-mine"),
        # libvirt would replace this one by its own, and the engine lose sight of the disk.
        ({"deviceId": DEVICE_ID, "alias": "virtio-disk0"}, f"ua-{DEVICE_ID}"),
    ],
)
def test_alias(given: dict[str, Any], alias: str | None) -> None:
    assert Drive.from_params(network(**given)).alias == alias


def test_device_id() -> None:
    assert Drive.from_params(network(deviceId=DEVICE_ID.upper())).device_id == DEVICE_ID
    assert Drive.from_params(network(alias="virtio-disk0")).device_id is None


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"path": "volumes/image", "protocol": "rbd", "hosts": [{"name": "m"}]}, "network"),
        ({"path": "/dev/mapper/x"}, "block"),
        ({"path": "/srv/x.img"}, "file"),
        ({"device": "cdrom"}, "file"),
    ],
)
def test_type_of_source_where_none_is_given(params: dict[str, Any], expected: str) -> None:
    assert Drive.from_params(params).source.type == expected


@pytest.mark.parametrize(("cache", "io"), [("none", "native"), ("writeback", "threads")])
def test_native_io_needs_direct_io(cache: str, io: str) -> None:
    assert Drive.from_params(local("disk", cache=cache)).driver.io == io


def test_special_characters_survive() -> None:
    name = "volumes/\"a\" & 'b' <c>\t\n]]> ünï 🦑"
    text = etree.tostring(Drive.from_params(network(path=name)).getXML(), encoding="unicode")
    assert Drive.from_xml(parse(text, "test")).source.path == name


def test_same_disk() -> None:
    drive = Drive.from_params(network(deviceId=DEVICE_ID))
    assert drive.same_as(Drive.from_params(network(index="3", serial="other")))
    assert drive.same_as(Drive.from_params(network(path="volumes/other", deviceId=DEVICE_ID)))
    assert not drive.same_as(Drive.from_params(network(path="volumes/other")))
    snapshot = network(path="volumes/volume-1@s", readonly=True)
    assert not drive.same_as(Drive.from_params(snapshot))


def test_empty_drives_are_not_the_same() -> None:
    first, second = (Drive.from_params({"device": "cdrom", "index": i}) for i in (0, 1))
    assert not first.same_as(second)


def test_constructor_refuses_what_xml_cannot_carry() -> None:
    with pytest.raises(InvalidParameter, match="control characters"):
        FileSource("/srv/\x01")
    with pytest.raises(InvalidParameter, match="control characters"):
        FileSource("/srv/\ud800")
