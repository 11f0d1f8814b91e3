# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of hot-plug and hot-unplug, in both forms, and finding the disk they mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.virt.disk.test_drive import network
from vdsmcinder.errors import (
    InvalidParameter,
    MissingParameter,
    UnsupportedDrive,
    VdsmCinderError,
)
from vdsmcinder.rpc.requests.disk import read_plug, read_unplug
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.storage.consent import Consent

LIVE = Domain.from_xml((Path(__file__).parents[2] / "data" / "domains" / "live.xml").read_text())
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
VDA_ALIAS = "ua-6d5b02f4-55d6-4b4a-8a53-4b1a7ac44f01"

DISK = """
    <disk type="network" device="disk" snapshot="no">
      <source protocol="rbd" name="volumes/volume-9"><host name="10.0.0.1" port="6789"/></source>
      <target dev="vdc" bus="virtio"/>
      <driver name="qemu" type="raw" cache="none" queues="4"/>
      <alias name="ua-9"/>
    </disk>
"""
FORMS = {
    "hotplug": f"<?xml version='1.0'?><hotplug><devices>{DISK}</devices></hotplug>",
    "domain": f"<domain><metadata/><devices>{DISK}</devices></domain>",
    "devices": f"<devices>{DISK}</devices>",
    "disk": DISK.strip(),
}


def plugged(params: Any, taken: Any, default_secret: str | None = None) -> Drive:
    """The disk that a request has plugged into a VM with those targets."""
    wanted, _ = read_plug(params, default_secret)
    return wanted if isinstance(wanted, Drive) else Drive.of(wanted, taken)


@pytest.mark.parametrize(
    "given, vouched",
    [
        ({}, Consent()),
        ({"allowUnchecked": "true"}, Consent(unchecked=True)),
        ({"allowNoExclusiveLock": True}, Consent(unguarded=True)),
    ],
)
def test_what_is_vouched_for(given: dict[str, Any], vouched: Consent) -> None:
    for form in ({"drive": network()}, {"xml": DISK}):
        _, consent = read_plug({"vmId": "x", **form, **given}, None)
        assert consent == vouched


def test_description() -> None:
    params = {"vmId": "x", "drive": network(index=None)}
    assert plugged(params, LIVE.targets).target == "vdc"


@pytest.mark.parametrize("form", FORMS)
def test_document(form: str) -> None:
    drive = plugged({"vmId": "x", "xml": FORMS[form]}, LIVE.targets)
    assert (drive.source.path, drive.target, drive.alias) == ("volumes/volume-9", "vdc", "ua-9")
    assert drive.getXML().find("driver").get("queues") == "4"


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({}, MissingParameter, "xml is missing; expected the description of one disk"),
        (
            {"drive": "vdb"},
            InvalidParameter,
            "drive is a string of 3 characters; expected an object",
        ),
        ({"drive": network(hosts=None)}, MissingParameter, "hosts is missing"),
        ({"xml": "<hotplug"}, InvalidParameter, "not well-formed"),
        ({"xml": "<hotplug/>"}, InvalidParameter, "holds 0 disks; expected exactly one"),
        ({"xml": f"<devices>{DISK}{DISK}</devices>"}, InvalidParameter, "holds 2 disks"),
        ({"xml": "<!DOCTYPE disk><disk/>"}, InvalidParameter, "document type declaration"),
        (
            {"xml": DISK.replace("rbd", "nbd").strip()},
            UnsupportedDrive,
            "protocol is 'nbd'",
        ),
    ],
)
def test_refused(params: dict[str, Any], error: type[VdsmCinderError], words: str) -> None:
    with pytest.raises(error) as caught:
        plugged(params, ())
    assert words in caught.value.message


def unplugged(**drive: Any) -> str | None:
    found = read_unplug({"drive": drive}).find(LIVE.drives)
    return None if found is None else found.target


def test_meant_by_description() -> None:
    assert unplugged(deviceId=VDA_ALIAS[3:]) == "vda"
    assert unplugged(alias=VDA_ALIAS, path="volumes/other") == "vda"
    assert unplugged(path="volumes/volume-2", deviceId=UNKNOWN_ID) == "sda"
    assert unplugged(serial="volume-1") == "vda"
    assert unplugged(iface="scsi", index=0) == "sda"


def test_ids_are_compared_as_they_are_written_and_uuids_in_any_case() -> None:
    written = VDA_ALIAS[:3] + VDA_ALIAS[3:].upper()
    assert unplugged(alias=written) == "vda"
    assert unplugged(serial="VOLUME-1") is None
    assert unplugged(alias=VDA_ALIAS.upper()) is None
    upper = UNKNOWN_ID.replace("4000", "400A")
    wd = LIVE.drives[0]
    one, other = (replace(wd, serial=text) for text in ("WD-WMAP9A966149", upper))
    assert read_unplug({"drive": {"serial": "WD-WMAP9A966149"}}).find([other, one]) is one
    assert read_unplug({"drive": {"serial": upper.lower()}}).find([other, one]) is other


def test_meant_by_cinders_answer() -> None:
    info = {"driver_volume_type": "rbd", "data": {"name": "volumes/volume-2"}}
    assert unplugged(connectionInfo=info, deviceId=UNKNOWN_ID) == "sda"
    assert unplugged(connectionInfo={"connection_info": info}) == "sda"
    assert unplugged(connectionInfo={"data": {"name": "volumes/other"}}, index=0) is None
    flat = {"driver_volume_type": "rbd", "name": "volumes/volume-2"}
    for answer in (flat, {"connection_info": flat}, {"attachment": {"connection_info": flat}}):
        assert unplugged(connectionInfo=answer) == "sda"


def test_cinders_answer_without_a_secret() -> None:
    data = {"name": "volumes/volume-9", "auth_username": "cinder"}
    drive = {"connectionInfo": {"driver_volume_type": "rbd", "data": data}}
    with pytest.raises(MissingParameter, match="secret_uuid is missing"):
        plugged({"drive": drive}, ())
    secret = "148eb4bc-c47c-4ffe-b14e-3a0fb6c76833"
    assert plugged({"drive": drive}, (), secret).source.auth.secret_uuid == secret


def test_other_data_on_the_same_target_is_not_meant() -> None:
    assert unplugged(path="volumes/other", iface="virtio", index="0") is None
    assert unplugged(serial="other", iface="virtio", index="0") is None
    assert unplugged(alias="ua-other", iface="virtio", index="0") is None
    assert unplugged(path="volumes/volume-1@snapshot") is None


@pytest.mark.parametrize(
    ("inner", "target"),
    [
        (f'<alias name="{VDA_ALIAS}"/>', "vda"),
        ('<source name="volumes/volume-2"/><target dev="vda"/>', "sda"),
        ("<serial>volume-1</serial>", "vda"),
        ('<target dev="sda"/>', "sda"),
    ],
)
def test_meant_by_document(inner: str, target: str) -> None:
    xml = f"<hotunplug><devices><disk>{inner}</disk></devices></hotunplug>"
    assert read_unplug({"xml": xml}).find(LIVE.drives).target == target


def test_meant_by_snapshot() -> None:
    source = '<source protocol="rbd" name="p/i"><snapshot name="s"/></source>'
    assert read_unplug({"xml": f"<disk>{source}</disk>"}).path == "p/i@s"


def test_request_that_names_no_disk() -> None:
    with pytest.raises(MissingParameter, match="an alias, a deviceId, a path"):
        read_unplug({"drive": {"device": "disk"}})
    with pytest.raises(MissingParameter, match="an alias, a deviceId, a path"):
        read_unplug({"xml": "<disk/>"})
