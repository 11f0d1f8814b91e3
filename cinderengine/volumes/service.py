# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine asks of wherever volumes are kept, and what it is told: values and one protocol.

Sizes are in bytes, limits in GiB as Cinder counts them. What is refused is an error of
cinderengine.errors in one sentence, which never holds a password or a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

GIB = 1024**3
# In a volume's metadata: the key of the step that made it.
KEY = "cinder-engine.key"


class VolumeStatus(StrEnum):
    """What can be done with a volume now.

    ready: all. busy: nothing, until it has another status. in-use: somebody has it, or is promised
    it. failed: something went wrong and it stays so. gone: it is no more.
    """

    READY = "ready"
    BUSY = "busy"
    IN_USE = "in-use"
    FAILED = "failed"
    GONE = "gone"


# How to read it: on the left each status that Cinder gives a volume (its objects/fields.py, and
# what its manager writes besides); on the right what that means to the engine.
CINDER_STATUSES: Mapping[str, VolumeStatus] = {
    "available": VolumeStatus.READY,
    "creating": VolumeStatus.BUSY,
    "managing": VolumeStatus.BUSY,
    "unmanaging": VolumeStatus.BUSY,
    "downloading": VolumeStatus.BUSY,
    "uploading": VolumeStatus.BUSY,
    "extending": VolumeStatus.BUSY,
    "retyping": VolumeStatus.BUSY,
    "maintenance": VolumeStatus.BUSY,
    "backing-up": VolumeStatus.BUSY,
    "restoring-backup": VolumeStatus.BUSY,
    "attaching": VolumeStatus.BUSY,
    "detaching": VolumeStatus.BUSY,
    "deleting": VolumeStatus.BUSY,
    # Who reserved it may not attach it for long, and who it was offered to not accept it.
    "reserved": VolumeStatus.IN_USE,
    "awaiting-transfer": VolumeStatus.IN_USE,
    "in-use": VolumeStatus.IN_USE,
    "error": VolumeStatus.FAILED,
    "error_managing": VolumeStatus.FAILED,
    "error_unmanaging": VolumeStatus.FAILED,
    "error_managing_deleting": VolumeStatus.FAILED,
    "error_extending": VolumeStatus.FAILED,
    "error_backing-up": VolumeStatus.FAILED,
    "error_restoring": VolumeStatus.FAILED,
    "error_deleting": VolumeStatus.FAILED,
    "deleted": VolumeStatus.GONE,
}


def status_of(words: str) -> VolumeStatus:
    """What a status of Cinder's means; one that nobody knows will pass: busy."""
    return CINDER_STATUSES.get(words, VolumeStatus.BUSY)


@dataclass(frozen=True)
class Volume:
    """A volume of a Cinder, or an image of a pool.

    words: the status as Cinder has it, for people. key: of the step that made it, None for a
    volume that no engine made. reason: why it failed, as far as that is told. type_name: empty for
    one without a type.
    """

    id: str
    name: str
    size_bytes: int
    status: VolumeStatus
    words: str
    type_name: str = ""
    description: str = ""
    key: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class VolumeType:
    """A kind of volumes; properties: Cinder's extra specs, or what images of a pool are."""

    id: str
    name: str
    description: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bound:
    """How much there may be, None for any amount, and how much there is."""

    limit: int | None = None
    used: int = 0

    @property
    def left(self) -> int | None:
        """How much more there may be; None for any amount."""
        return None if self.limit is None else max(0, self.limit - self.used)


@dataclass(frozen=True)
class Allowance:
    """How many volumes there may be, and how many GiB in all of them."""

    volumes: Bound = Bound()
    gib: Bound = Bound()


@dataclass(frozen=True)
class Limits:
    """What a project may have: in all, of each type by its name, and in one volume."""

    whole: Allowance = Allowance()
    types: Mapping[str, Allowance] = field(default_factory=dict)
    per_volume_gib: int | None = None


@dataclass(frozen=True)
class Room:
    """How much is used, and how much is left; None where that is not known."""

    used_bytes: int | None = None
    available_bytes: int | None = None


class VolumeService(Protocol):
    """A Cinder or a pool, for one provider. Each call ends in its time, or raises Unavailable."""

    async def check(self) -> None:
        """Return if volumes can be had: it is reached, lets us in, and is what it should be."""

    async def types(self) -> Sequence[VolumeType]:
        """The types that a volume can have."""

    async def limits(self) -> Limits:
        """What may be had, and what is used of it."""

    async def room(self) -> Room:
        """How much room is used and left."""

    async def create(
        self, key: str, name: str, size_bytes: int, type_name: str = "", description: str = ""
    ) -> Volume:
        """The volume of this key, made unless it is there; it may be busy still.

        size_bytes: rounded up to what can be had. type_name: empty for the default.
        """

    async def find(self, key: str) -> Volume | None:
        """The volume that create() made for this key."""

    async def volumes(self) -> Sequence[Volume]:
        """All that there are."""

    async def get(self, volume_id: str) -> Volume | None:
        """One of them."""

    async def settled(self, volume_id: str) -> Volume | None:
        """A volume once it is not busy any more; None once it is gone. Waits as long as it takes.

        What stands in the way but passes, such as a Cinder that does not answer, is waited for.
        """

    async def rename(self, volume_id: str, name: str, description: str) -> None:
        """Give a volume another name and description. NotFound if it is gone."""

    async def extend(self, volume_id: str, size_bytes: int) -> None:
        """Make a volume that large, unless it is; it may be busy after that. NotFound: gone."""

    async def delete(self, volume_id: str) -> None:
        """Have a volume deleted; it may be busy for a while then. One that is gone is no error.

        One that is busy is waited for. Conflict: somebody uses it.
        """

    async def close(self) -> None:
        """End what goes on for it; who waits is told so by a cancellation."""
