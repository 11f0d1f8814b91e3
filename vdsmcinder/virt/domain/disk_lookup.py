# SPDX-License-Identifier: GPL-2.0-or-later
"""Which disks a request means by the identifiers of engines, and whether Ceph can snapshot them.

guest_agent.py checks the disks of a snapshot with it, resize.py finds the disk that has grown. The
forms are contract/types.txt's SnapshotDriveInfo and DriveSpec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vdsmcinder.errors import SnapshotFailed
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.source import NetworkSource
from vdsmcinder.virt.domain.domain import Domain

# In the order in which they count; the first three name a disk, the rest what is on it.
_NAMES = ("alias", "name", "path")
_IDS = ("deviceId", "imageID", "volumeID", "serial", "GUID", "UUID")
_BASES = ("baseVolumeID", "baseGUID", "baseUUID")


def find(domain: Domain, params: Mapping[str, Any]) -> Drive | None:
    """The disk that params mean, or None.

    An id is the engine's for the disk (deviceId, also as serial), or Cinder's for the volume, which
    is part of the image's name. The new volume of a snapshot is not there yet: its base counts.
    """
    for key in (*_NAMES, *_IDS, *_BASES):
        wanted = params.get(key)
        if isinstance(wanted, str) and wanted:
            found = next((d for d in domain.drives if _is(d, key, wanted)), None)
            if found is not None:
                return found
    return None


def check_drives(vm_id: str, domain: Domain, drives: Sequence[Mapping[str, Any]]) -> None:
    """Raise SnapshotFailed (48) for a disk that the VM does not have, or that is no RBD image."""
    for params in drives:
        drive = find(domain, params)
        if drive is None:
            ids = ", ".join(f"{k} {v}" for k, v in params.items() if isinstance(v, str))
            known = ", ".join(f"{d.name} ({d.source.path})" for d in domain.drives) or "none"
            raise SnapshotFailed(
                f"VM {vm_id} has no disk of {ids or 'no id'}; its disks are: {known}; name those"
            )
        if not isinstance(drive.source, NetworkSource):
            raise SnapshotFailed(
                f"disk {drive.name} ({drive.source.path}) of VM {vm_id} is no RBD image, which "
                "alone the storage side can make snapshots of; leave it out",
                disk=drive.name,
            )


def _is(drive: Drive, key: str, wanted: str) -> bool:
    if key == "alias":
        return drive.alias == wanted
    if key == "name":
        return drive.target == wanted
    if key == "path":
        return drive.source.location == wanted
    wanted = wanted.lower()
    image = drive.source.image if isinstance(drive.source, NetworkSource) else ""
    return wanted in (drive.device_id, drive.serial, image, image.rpartition("volume-")[2])
