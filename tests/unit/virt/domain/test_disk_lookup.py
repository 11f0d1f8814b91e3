# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the disk that an engine means by one of its many identifiers."""

from __future__ import annotations

import pytest

from tests.unit.rpc.test_wire import DISK, XML
from vdsmcinder.errors import SnapshotFailed
from vdsmcinder.rpc.requests.disk import read_all_names, read_names
from vdsmcinder.virt.domain.disk_lookup import check_drives, find
from vdsmcinder.virt.domain.domain import Domain

VOLUME = "0a1b2c3d-0000-4000-8000-000000000001"
NAMED = Domain.from_xml(XML.replace("volume-1", f"volume-{VOLUME}"))


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"name": "vda"}, "vda"),
        ({"path": f"volumes/volume-{VOLUME}"}, "vda"),
        ({"path": "/tmp/a.iso"}, "sdb"),
        ({"alias": f"ua-{DISK}"}, "vda"),
        ({"deviceId": DISK}, "vda"),
        ({"imageID": DISK.upper(), "volumeID": "none"}, "vda"),
        ({"imageID": "none", "volumeID": VOLUME}, "vda"),
        ({"GUID": f"volume-{VOLUME}"}, "vda"),
        # What the snapshot will be is not known here yet, what it is of is.
        ({"volumeID": "new", "imageID": "none", "baseVolumeID": VOLUME}, "vda"),
        ({"UUID": "new", "baseUUID": VOLUME}, "vda"),
        # Empty and missing identifiers do not mean disks that have none.
        ({}, None),
        ({"serial": "", "GUID": None, "name": 7}, None),
        ({"path": "volumes/volume-2"}, None),
    ],
)
def test_which_disk_is_meant(params, target):
    found = find(NAMED, read_names(params))
    assert (found.target if found else None) == target


@pytest.mark.parametrize("serial", ["WD-WMAP9A966149", "A b.c+D_e-F", VOLUME.upper()])
def test_serials_are_compared_as_they_are_written(serial):
    written = XML.replace("<boot order='1'/>", f"<boot order='1'/><serial>{serial}</serial>")
    domain = Domain.from_xml(written)
    for field in ("serial", "imageID", "volumeID", "GUID", "UUID", "deviceId"):
        found = find(domain, read_names({field: serial}))
        assert found is not None and found.target == "vda"
    other_case = find(domain, read_names({"serial": serial.lower()}))
    assert (other_case is not None) == (serial == VOLUME.upper())


def test_disks_that_can_be_part_of_a_snapshot():
    check_drives("x", NAMED, [])
    check_drives("x", NAMED, read_all_names([{"name": "vda"}]))
    with pytest.raises(SnapshotFailed, match="no disk of GUID a string of 1 character; its disks"):
        check_drives("x", NAMED, read_all_names([{"name": "vda"}, {"GUID": "y"}]))
    with pytest.raises(SnapshotFailed, match=r"disk sdc \(/dev/x\) of VM x is no RBD image"):
        check_drives("x", NAMED, read_all_names([{"name": "sdc"}]))
