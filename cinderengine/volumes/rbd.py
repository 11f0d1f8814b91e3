# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes of a Ceph pool without a Cinder: images named as Cinder names its own, volume-ID.

What they are called and which step made them is in the images' metadata. All of it is done by
librbd in a process of its own (rbd_worker.py).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from cinderengine.errors import Incomplete, Invalid
from cinderengine.model.secret import Secret
from cinderengine.volumes.addresses import PoolAddress
from cinderengine.volumes.rbd_faults import PoolFault, of_pool
from cinderengine.volumes.rbd_process import Worker
from cinderengine.volumes.service import KEY, Limits, Room, Volume, VolumeStatus, VolumeType
from vdsmcinder.tasks import Tasks

MIB = 1024**2
NAME = "cinder-engine.name"
DESCRIPTION = "cinder-engine.description"
FEATURES = "layering,exclusive-lock,object-map,fast-diff,deep-flatten"
# Ids that are made of keys, and of pools, are of this namespace (RFC 4122, version 5).
_IDS = uuid.UUID("6c1d8f4e-0f6b-4d3c-9a55-6f0c6c2f9b11")
_IMAGE = re.compile(r"volume-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")

# What librados itself waits for one operation; the engine waits a little longer.
TIMEOUT_S = 20.0
REQUEST_TIMEOUT_S = 60.0
# Ceph removes an image object by object; each has its own time.
REMOVAL_TIMEOUT_S = 3600.0
# So many are looked at by one request.
BATCH = 200


class PoolVolumes:
    """VolumeService of a Ceph pool."""

    def __init__(
        self, address: PoolAddress, user: str, key: Secret | None, timeout_s: float = TIMEOUT_S
    ) -> None:
        if not user or not key:
            raise Incomplete(
                f"Pool {address.pool} needs a Ceph user as the user, without 'client.', and its "
                "CEPHX key as the password."
            )
        self._address = address
        self._user = user.removeprefix("client.")
        self._tasks = Tasks(f"pool {address.pool}")
        self._worker = Worker(address, self._user, key, timeout_s, self._tasks)

    async def check(self) -> None:
        await self._ask("check", "writing")

    async def types(self) -> Sequence[VolumeType]:
        pool = self._address.pool
        return [
            VolumeType(
                str(uuid.uuid5(_IDS, f"{self._address.mon_host}/{pool}")),
                pool,
                f"Images of Ceph pool {pool}",
                {"features": FEATURES},
            )
        ]

    async def limits(self) -> Limits:
        return Limits()

    async def room(self) -> Room:
        told = await self._ask("room", "reading its room")
        return Room(told["used"], told["available"])

    async def create(
        self, key: str, name: str, size_bytes: int, type_name: str = "", description: str = ""
    ) -> Volume:
        if type_name not in ("", self._address.pool):
            raise Invalid(
                f"There is no volume type {type_name} in a pool: leave it out, or give "
                f"{self._address.pool}."
            )
        image, size = image_of(id_of(key)), -(-max(1, size_bytes) // MIB) * MIB
        metadata = {KEY: key, NAME: name, DESCRIPTION: description}
        made = await self._ask("create", f"image {image}", name=image, size=size, metadata=metadata)
        if made is None:
            raise of_pool(PoolFault("no_image"), self._address, self._user, f"image {image}")
        volume = self._volume(made)
        assert volume is not None
        return volume

    async def find(self, key: str) -> Volume | None:
        return await self.get(id_of(key))

    async def volumes(self) -> Sequence[Volume]:
        names = [n for n in await self._ask("names", "listing images") if _IMAGE.fullmatch(n)]
        found: list[Volume] = []
        for at in range(0, len(names), BATCH):
            found += await self._described(names[at : at + BATCH])
        return found

    async def get(self, volume_id: str) -> Volume | None:
        if not _IMAGE.fullmatch(image_of(volume_id)):
            return None
        return next(iter(await self._described([image_of(volume_id)])), None)

    async def settled(self, volume_id: str) -> Volume | None:
        return await self.get(volume_id)

    async def rename(self, volume_id: str, name: str, description: str) -> None:
        image = image_of(volume_id)
        metadata = {NAME: name, DESCRIPTION: description}
        await self._ask("mark", f"image {image}", name=image, metadata=metadata)

    async def extend(self, volume_id: str, size_bytes: int) -> None:
        image, size = image_of(volume_id), -(-size_bytes // MIB) * MIB
        await self._ask("extend", f"image {image}", name=image, size=size)

    async def delete(self, volume_id: str) -> None:
        image = image_of(volume_id)
        await self._ask("remove", f"image {image}", REMOVAL_TIMEOUT_S, name=image)

    async def close(self) -> None:
        await self._worker.close()
        await self._tasks.close()

    async def _described(self, names: Sequence[str]) -> list[Volume]:
        told = await self._ask("describe", "reading images", names=names)
        return [volume for image in told for volume in (self._volume(image),) if volume]

    async def _ask(
        self, op: str, what: str, timeout_s: float = REQUEST_TIMEOUT_S, **args: Any
    ) -> Any:
        try:
            return await self._worker.ask(op, timeout_s, **args)
        except PoolFault as e:
            raise of_pool(e, self._address, self._user, what) from e

    def _volume(self, image: Mapping[str, Any]) -> Volume | None:
        found = _IMAGE.fullmatch(image["name"])
        if found is None:
            return None
        metadata, watchers = image["metadata"], image["watchers"]
        return Volume(
            id=found[1],
            name=metadata.get(NAME, image["name"]),
            size_bytes=image["size"],
            status=VolumeStatus.IN_USE if watchers else VolumeStatus.READY,
            words=f"open at {', '.join(watchers)}" if watchers else "available",
            type_name=self._address.pool,
            description=metadata.get(DESCRIPTION, ""),
            key=metadata.get(KEY),
        )


def id_of(key: str) -> str:
    """The id of the volume that is made for a key: always the same."""
    return str(uuid.uuid5(_IDS, key))


def image_of(volume_id: str) -> str:
    """The name of a volume's image."""
    return f"volume-{volume_id}"
