# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of VM.hotplugDisk and VM.hotunplugDisk, in both of their forms.

virt/live/disks.py plugs the Drive and looks for the one to unplug. The forms are
contract/wire.md's: {vmId, drive: {...}} and {vmId, xml: "<hotplug>..." or a fragment of a domain}.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from lxml import etree

from vdsmcinder.fields import TEXT, Fields, Kind
from vdsmcinder.hypervisor.xmldoc import child_attribute, only
from vdsmcinder.virt.disk import disk_params
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.domain_disks import DriveQuery
from vdsmcinder.virt.disk.drive import Drive

_XML = Kind(TEXT.convert, "the description of one disk, in drive or in xml")


def parse_hotplug(
    params: Mapping[str, Any], taken: Container[str], default_secret: str | None = None
) -> Drive:
    """Read the disk that is to be plugged.

    taken: target names in use on the VM. default_secret: what an answer of Cinder's without
    secret_uuid means. Raises what Drive.from_params and Drive.from_xml raise,
    and InvalidParameter for XML that does not hold exactly one disk.
    """
    fields = Fields(params, "hot-plug")
    if "drive" in fields:
        return Drive.from_params(fields.section("drive").values, taken, default_secret)
    return Drive.from_xml(_only_disk(fields.need("xml", _XML)))


def parse_hotunplug(params: Mapping[str, Any]) -> DriveQuery:
    """Read which disk is to be unplugged; engines may name it by nothing but its alias.

    Raises MissingParameter for a request that names none, InvalidParameter for values that do not
    fit and for XML that does not hold exactly one disk.
    """
    fields = Fields(params, "hot-unplug")
    query = (
        _query_of_params(fields.section("drive"))
        if "drive" in fields
        else _query_of_xml(_only_disk(fields.need("xml", _XML)))
    )
    if query == DriveQuery():
        raise fields.missing("drive", "an alias, a deviceId, a path, a serial or an index")
    return query


def _query_of_params(drive: Fields) -> DriveQuery:
    index = drive.get("index", disk_params.INDEX)
    return DriveQuery(
        alias=disk_params.alias(drive),
        path=drive.get("path", TEXT) or _path_of_volume(drive.section("connectionInfo")),
        serial=disk_params.serial(drive),
        target=None if index is None else targets.name(disk_params.bus(drive), index),
    )


def _path_of_volume(info: Fields) -> str | None:
    """Cinder's name of a volume is the path of its image; the rest of its answer may be stale."""
    answer = info.section("connection_info") if "connection_info" in info else info
    return answer.section("data").get("name", TEXT)


def _query_of_xml(disk: etree._Element) -> DriveQuery:
    source = disk.find("source")
    attributes = ("name", "dev", "file")
    paths = () if source is None else (source.get(name) for name in attributes)
    path = next(filter(None, paths), None)
    snapshot = None if source is None else child_attribute(source, "snapshot", "name")
    return DriveQuery(
        alias=child_attribute(disk, "alias", "name"),
        path=f"{path}@{snapshot}" if path and snapshot else path,
        serial=disk.findtext("serial") or None,
        target=child_attribute(disk, "target", "dev"),
    )


def _only_disk(xml: str) -> etree._Element:
    return only(xml, "disk", "hot-plug xml")
