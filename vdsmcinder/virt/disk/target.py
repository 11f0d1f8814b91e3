# SPDX-License-Identifier: GPL-2.0-or-later
"""Target names of disks: vda, sdb, hdc.

They follow from bus and index (contract/wire.md).
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Container, Mapping

# libvirt tells the bus of a disk by its prefix where a document does not.
PREFIXES: Mapping[str, str] = {
    "virtio": "vd",
    "scsi": "sd",
    "sata": "sd",
    "usb": "sd",
    "ide": "hd",
    "fdc": "fd",
}

# Of disks that say no address; it may have many more.
DISKS_PER_SCSI_CONTROLLER = 7

_TARGET = re.compile("(vd|sd|hd|fd)[a-z]+")
_NAME = re.compile("(vd|sd|hd|fd)[a-z]{1,6}")
_BUSES: Mapping[str, str] = {"vd": "virtio", "sd": "scsi", "hd": "ide", "fd": "fdc"}


# Kept, for free() asks for the same ones over and over again.
@functools.lru_cache(maxsize=4096)
def name(bus: str, index: int) -> str:
    """The name of the disk with this index (from 0) on its bus: a to z, then aa."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return PREFIXES[bus] + letters


def free(bus: str, taken: Container[str]) -> str:
    """The name with the lowest index on its bus that is not taken."""
    names = (name(bus, index) for index in itertools.count())
    return next(candidate for candidate in names if candidate not in taken)


def wished_or_free(wish: str | None, bus: str, taken: Container[str]) -> str:
    """The name that is wished for, or the first free one of the bus if it is taken or none is."""
    return free(bus, taken) if wish is None or wish in taken else wish


def is_target(text: str) -> bool:
    """Whether it names a disk on a bus, though perhaps with an index that no disk can have."""
    return _TARGET.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether it is the name of a disk, and so may be repeated in an error."""
    return _NAME.fullmatch(text) is not None


def index(target: str) -> int:
    """The index that a name stands for, the inverse of name()."""
    value = 0
    for letter in target[2:]:
        value = value * 26 + ord(letter) - ord("a") + 1
    return value - 1


def bus_of(target: str) -> str | None:
    """The bus that libvirt takes for a name, None for a name that it does not know."""
    return _BUSES.get(target[:2])
