# SPDX-License-Identifier: GPL-2.0-or-later
"""A provider in memory, which does as it is told: for what a real one cannot be made to do."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cinderengine.errors import NotFound, OutsideError
from cinderengine.volumes.service import Limits, Room, Volume, VolumeStatus, VolumeType


@dataclass
class World:
    """What is kept when an engine is killed. failing: what a call raises, by the call's name.

    let_go: set unless volumes are to stay busy until it is.
    """

    volumes: dict[str, Volume] = field(default_factory=dict)
    failing: dict[str, Exception] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    types: tuple[str, ...] = ("ceph",)
    # What volumes become that are asked for anything; tests have that last, or go wrong.
    becomes: Callable[[Volume], Volume | None] = lambda volume: replace(
        volume, status=VolumeStatus.READY, words="available"
    )
    calls: list[str] = field(default_factory=list)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.let_go.set()


class MemoryVolumes:
    """A VolumeService of a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def _called(self, name: str) -> None:
        self.world.calls.append(name)
        if name in self.world.failing:
            raise self.world.failing[name]

    async def check(self) -> None:
        self._called("check")

    async def types(self) -> Sequence[VolumeType]:
        self._called("types")
        return [VolumeType(name, name) for name in self.world.types]

    async def limits(self) -> Limits:
        self._called("limits")
        return self.world.limits

    async def room(self) -> Room:
        self._called("room")
        return Room(1, 2)

    async def create(
        self, key: str, name: str, size_bytes: int, type_name: str = "", description: str = ""
    ) -> Volume:
        self._called("create")
        volume = await self.find(key)
        if volume is None:
            volume_id = str(uuid.uuid5(uuid.NAMESPACE_OID, key))
            volume = Volume(
                volume_id, name, size_bytes, VolumeStatus.BUSY, "creating", type_name, key=key
            )
            self.world.volumes[volume_id] = volume
        return volume

    async def find(self, key: str) -> Volume | None:
        self._called("find")
        return next((v for v in self.world.volumes.values() if v.key == key), None)

    async def volumes(self) -> Sequence[Volume]:
        self._called("volumes")
        return list(self.world.volumes.values())

    async def get(self, volume_id: str) -> Volume | None:
        self._called("get")
        return self.world.volumes.get(volume_id)

    async def settled(self, volume_id: str) -> Volume | None:
        self._called("settled")
        await self.world.let_go.wait()
        volume = self.world.volumes.get(volume_id)
        if volume is not None and volume.status is VolumeStatus.BUSY:
            volume = None if volume.words == "deleting" else self.world.becomes(volume)
            self._put(volume_id, volume)
        return volume

    async def rename(self, volume_id: str, name: str, description: str) -> None:
        self._called("rename")
        self._put(volume_id, replace(self._get(volume_id), name=name, description=description))

    async def extend(self, volume_id: str, size_bytes: int) -> None:
        self._called("extend")
        volume = self._get(volume_id)
        if volume.size_bytes < size_bytes:
            self._put(volume_id, _busy(replace(volume, size_bytes=size_bytes), "extending"))

    async def delete(self, volume_id: str) -> None:
        self._called("delete")
        if volume_id in self.world.volumes:
            self._put(volume_id, _busy(self._get(volume_id), "deleting"))

    async def close(self) -> None:
        pass

    def _get(self, volume_id: str) -> Volume:
        if volume_id not in self.world.volumes:
            raise NotFound(f"volume {volume_id} is gone; remove its disk")
        return self.world.volumes[volume_id]

    def _put(self, volume_id: str, volume: Volume | None) -> None:
        if volume is None:
            self.world.volumes.pop(volume_id, None)
        else:
            self.world.volumes[volume_id] = volume


def _busy(volume: Volume, words: str) -> Volume:
    return replace(volume, status=VolumeStatus.BUSY, words=words)


def goes_wrong(words: str, reason: str = "") -> Callable[[Volume], Volume | None]:
    """What World.becomes is for volumes that end in an error."""
    return lambda volume: replace(volume, status=VolumeStatus.FAILED, words=words, reason=reason)


REFUSED = OutsideError("the provider refuses; ask it why")
