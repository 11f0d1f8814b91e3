# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks that verbs are asked about: one to plug, to unplug, to check, to resize, to snapshot.

Hot-plug has two forms (contract/wire.md): {vmId, drive: {...}} and {vmId, xml: "<hotplug>..." or a
fragment of a domain}. Others name a disk by an identifier of the engine's, or of Cinder's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lxml import etree

from vdsmcinder.ceph import connection_info
from vdsmcinder.fields import BOOLEAN, TEXT, Fields, Kind
from vdsmcinder.hypervisor.xmldoc import child_attribute, only
from vdsmcinder.virt.disk import bus_rules, disk_params
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.disk_params import DriveParams
from vdsmcinder.virt.disk.domain_disks import DriveQuery
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.domain.disk_lookup import By, DiskNames, Name
from vdsmcinder.virt.storage.consent import Consent

_XML = Kind(TEXT.convert, "the description of one disk, in drive or in xml")

# By which fields a disk is named, in the order in which they count. The new volume of a snapshot is
# not there yet: its base counts.
_NAMES: Mapping[str, By] = {
    "alias": By.ALIAS,
    "name": By.TARGET,
    "path": By.PATH,
    **dict.fromkeys(("deviceId", "imageID", "volumeID", "serial", "GUID", "UUID"), By.ID),
    **dict.fromkeys(("baseVolumeID", "baseGUID", "baseUUID"), By.ID),
}


def read_drive(params: Mapping[str, Any], default_secret: str | None) -> DriveParams:
    """Read a DriveDescription.

    default_secret: what an answer of Cinder's without secret_uuid means. Raises MissingParameter
    (11), UnsupportedDrive (36), InvalidParameter (91).
    """
    return disk_params.read(params, default_secret)


def read_consent(fields: Fields) -> Consent:
    """Read what a request vouches for. Raises InvalidParameter (91)."""
    return Consent(
        unchecked=fields.get("allowUnchecked", BOOLEAN) or False,
        unguarded=fields.get("allowNoExclusiveLock", BOOLEAN) or False,
    )


def read_plug(
    params: Mapping[str, Any], default_secret: str | None
) -> tuple[DriveParams | Drive, Consent]:
    """Read the disk that is to be plugged, and what is vouched for of its image.

    A disk in xml says itself which target it is.

    Raises as read_drive and Drive.wanted do, and InvalidParameter for XML that does not hold
    exactly one disk.
    """
    fields = Fields(params, "hot-plug")
    if "drive" in fields:
        drive = disk_params.read(fields.section("drive").values, default_secret)
        return drive, read_consent(fields)
    return Drive.wanted(_only_disk(fields.need("xml", _XML))), read_consent(fields)


def read_unplug(params: Mapping[str, Any]) -> DriveQuery:
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


def read_names(params: Mapping[str, Any]) -> DiskNames:
    """Read the identifiers of a disk: a DriveSpec or a SnapshotDriveInfo.

    What is no text, or empty, names nothing.
    """
    given = ((field, by, params.get(field)) for field, by in _NAMES.items())
    return DiskNames(
        tuple(Name(f, by, text) for f, by, text in given if isinstance(text, str) and text)
    )


def read_all_names(params: Sequence[Mapping[str, Any]]) -> tuple[DiskNames, ...]:
    """Read the identifiers of several disks."""
    return tuple(map(read_names, params))


def _query_of_params(drive: Fields) -> DriveQuery:
    index = drive.get("index", bus_rules.INDEX)
    return DriveQuery(
        alias=disk_params.alias(drive),
        path=drive.get("path", TEXT)
        or connection_info.image_path(drive.section("connectionInfo").values),
        serial=disk_params.serial(drive),
        target=None if index is None else targets.name(disk_params.bus(drive), index),
    )


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
