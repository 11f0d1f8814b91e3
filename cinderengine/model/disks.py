# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks: volumes that the engine knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class DiskStatus(StrEnum):
    """locked: a job of it goes on. illegal: its volume is not as it should be."""

    OK = "ok"
    LOCKED = "locked"
    ILLEGAL = "illegal"


# How to read it: a disk of the status on the left may be given any of those on the right.
NEXT: Mapping[DiskStatus, frozenset[DiskStatus]] = {
    DiskStatus.OK: frozenset({DiskStatus.LOCKED, DiskStatus.ILLEGAL}),
    DiskStatus.LOCKED: frozenset({DiskStatus.OK, DiskStatus.ILLEGAL}),
    DiskStatus.ILLEGAL: frozenset({DiskStatus.LOCKED, DiskStatus.OK}),
}


@dataclass(frozen=True)
class Disk:
    """A volume of a storage domain. id: of its first volume; image_id: of the volume in use now.

    reason: why it is illegal, one sentence. volume_type: Cinder's, by name.
    """

    id: str
    alias: str
    domain_id: str
    size_bytes: int
    image_id: str
    description: str = ""
    status: DiskStatus = DiskStatus.LOCKED
    reason: str = ""
    volume_type: str = ""
    shareable: bool = False
    wipe_after_delete: bool = False
    propagate_errors: bool = False
    created_ms: int = 0
