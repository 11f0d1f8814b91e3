# SPDX-License-Identifier: GPL-2.0-or-later
"""Which disks a request means by the identifiers of engines, and whether Ceph can snapshot them.

The forms are contract/types.txt's SnapshotDriveInfo and DriveSpec.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from vdsmcinder import uuids
from vdsmcinder.errors import SnapshotFailed
from vdsmcinder.fields import kind_of
from vdsmcinder.virt.disk.disk_params import is_known_form, same_alias
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.source import NetworkSource
from vdsmcinder.virt.domain.domain import Domain


class By(enum.Enum):
    """What names a disk; an ID is the engine's of the disk, or Cinder's of the volume."""

    ALIAS = "alias"
    TARGET = "target"
    PATH = "path"
    ID = "id"


@dataclass(frozen=True)
class Name:
    """One name of a disk. field: what the request calls it."""

    field: str
    by: By
    text: str

    def __str__(self) -> str:
        return f"{self.field} {self.text if is_known_form(self.text) else kind_of(self.text)}"


@dataclass(frozen=True)
class DiskNames:
    """The names by which a request means one disk, in the order in which they count."""

    names: tuple[Name, ...]

    def __str__(self) -> str:
        """As errors name it: by names that have a form of such names alone."""
        return ", ".join(map(str, self.names)) or "no id"


def find(domain: Domain, wanted: DiskNames) -> Drive | None:
    """The disk that is meant, or None.

    An id is the engine's for the disk (deviceId, also as serial), or Cinder's for the volume, which
    is part of the image's name. Names are compared as they are written, UUIDs in any case.
    """
    for name in wanted.names:
        found = next((d for d in domain.drives if _is(d, name)), None)
        if found is not None:
            return found
    return None


def check_drives(vm_id: str, domain: Domain, drives: Sequence[DiskNames]) -> None:
    """Raise SnapshotFailed (48) for a disk that the VM does not have, or that is no RBD image."""
    for wanted in drives:
        drive = find(domain, wanted)
        if drive is None:
            known = ", ".join(f"{d.name} ({d.source.path})" for d in domain.drives) or "none"
            raise SnapshotFailed(
                f"VM {vm_id} has no disk of {wanted}; its disks are: {known}; name those"
            )
        if not isinstance(drive.source, NetworkSource):
            raise SnapshotFailed(
                f"disk {drive.name} ({drive.source.path}) of VM {vm_id} is no RBD image, which "
                "alone the storage side can make snapshots of; leave it out",
                disk=drive.name,
            )


def _is(drive: Drive, name: Name) -> bool:
    if name.by is By.ALIAS:
        return same_alias(drive.alias, name.text)
    if name.by is By.TARGET:
        return drive.target == name.text
    if name.by is By.PATH:
        return drive.source.location == name.text
    image = drive.source.image if isinstance(drive.source, NetworkSource) else ""
    ids = (drive.device_id, drive.serial, image, image.rpartition("volume-")[2])
    return any(uuids.same(name.text, known) for known in ids if known)
