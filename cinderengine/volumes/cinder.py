# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes of an OpenStack Cinder, by version 3 of the Block Storage API.

Verbs and fields: https://docs.openstack.org/api-ref/block-storage/v3/. Each request is made in a
thread; what is asked for at a time by many is waited for by one (waiting.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote

from cinderengine.errors import Conflict, NotFound, OutsideError, Unavailable
from cinderengine.volumes.cinder_client import CinderClient
from cinderengine.volumes.service import (
    CINDER_STATUSES,
    GIB,
    KEY,
    Allowance,
    Bound,
    Limits,
    Room,
    Volume,
    VolumeStatus,
    VolumeType,
    status_of,
)
from cinderengine.volumes.sizes import gib_of
from cinderengine.volumes.waiting import Listing, Watch
from vdsmcinder.tasks import Tasks, within

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = 8
# Cinder's own limit unless it is configured otherwise (osapi_max_limit).
PAGE = 1000
# Of all that one call comes to: finding Cinder and logging in takes several requests.
CALL_TIMEOUT_S = 150.0
# How often a list is begun again whose next page begins behind a volume that has gone.
TRIES = 3
# Those from which on a volume in use can be extended, and that tell what went wrong with one.
EXTEND_IN_USE = (3, 42)
MESSAGES = (3, 5)


class CinderVolumes:
    """VolumeService of a Cinder."""

    def __init__(self, client: CinderClient) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="cinder")
        self._tasks = Tasks(f"Cinder at {client.url}")
        self._listing = Listing(self._list, self._tasks)
        self._watch = Watch(self.get, self._listing, self._tasks, f"Cinder at {client.url}")
        self._told: set[str] = set()

    async def check(self) -> None:
        self._client.forget()
        await self._call("GET", "/volumes", "volumes", query={"limit": 1})

    async def types(self) -> Sequence[VolumeType]:
        answer = await self._call("GET", "/types", "volume types", query={"is_public": "None"})
        return [
            VolumeType(
                kind["id"], kind["name"], kind.get("description") or "", kind.get("extra_specs", {})
            )
            for kind in answer["volume_types"]
        ]

    async def limits(self) -> Limits:
        absolute = (await self._call("GET", "/limits", "limits"))["limits"]["absolute"]
        whole = Allowance(
            _bound(absolute.get("maxTotalVolumes"), absolute.get("totalVolumesUsed")),
            _bound(absolute.get("maxTotalVolumeGigabytes"), absolute.get("totalGigabytesUsed")),
        )
        project_id = await self._do(lambda: self._client.project_id)
        try:
            quotas = await self._call(
                "GET", f"/os-quota-sets/{project_id}", "quotas", query={"usage": "True"}
            )
        except Unavailable:
            raise
        except (OutsideError, NotFound) as e:
            # Cinder's policy may keep them to administrators.
            log.info("quotas of volume types are not known: %s", e)
            return Limits(whole)
        return limits_of(whole, quotas["quota_set"])

    async def room(self) -> Room:
        absolute = (await self._call("GET", "/limits", "limits"))["limits"]["absolute"]
        size = _bound(absolute.get("maxTotalVolumeGigabytes"), absolute.get("totalGigabytesUsed"))
        return Room(size.used * GIB, None if size.left is None else size.left * GIB)

    async def create(
        self, key: str, name: str, size_bytes: int, type_name: str = "", description: str = ""
    ) -> Volume:
        found = await self.find(key)
        if found is not None:
            return found
        volume: dict[str, Any] = {
            "name": name,
            "size": gib_of(size_bytes),
            "description": description,
            "metadata": {KEY: key},
        }
        if type_name:
            volume["volume_type"] = type_name
        what = f"volume {name} of {volume['size']} GiB"
        made = await self._call("POST", "/volumes", what, body={"volume": volume})
        return self._volume(made["volume"])

    async def find(self, key: str) -> Volume | None:
        if self._listing.take_turn():
            volumes = await self._of_key(key)
        else:
            volumes = await self._listing.fresh()
        return next((volume for volume in volumes if volume.key == key), None)

    async def volumes(self) -> Sequence[Volume]:
        return await self._listing.fresh()

    async def get(self, volume_id: str) -> Volume | None:
        try:
            answer = await self._call("GET", _path(volume_id), f"volume {volume_id}")
        except NotFound:
            return None
        reason = ""
        if status_of(answer["volume"]["status"]) is VolumeStatus.FAILED:
            reason = await self._reason(volume_id)
        return self._volume(answer["volume"], reason)

    async def settled(self, volume_id: str) -> Volume | None:
        return await self._watch.settled(volume_id)

    async def rename(self, volume_id: str, name: str, description: str) -> None:
        body = {"volume": {"name": name, "description": description}}
        await self._call("PUT", _path(volume_id), f"volume {volume_id}", body=body)

    async def extend(self, volume_id: str, size_bytes: int) -> None:
        what, size = f"volume {volume_id}", gib_of(size_bytes)
        volume = (await self._call("GET", _path(volume_id), what))["volume"]
        if volume["size"] >= size:
            return
        version = None
        if await self._do(lambda: self._client.has(*EXTEND_IN_USE)):
            version = "{}.{}".format(*EXTEND_IN_USE)
        await self._call(
            "POST",
            f"{_path(volume_id)}/action",
            f"{what}, which is {volume['status']}, with {size} GiB",
            body={"os-extend": {"new_size": size}},
            version=version,
        )

    async def delete(self, volume_id: str) -> None:
        found = await self.get(volume_id)
        if found is not None and found.status is VolumeStatus.BUSY and found.words != "deleting":
            found = await self.settled(volume_id)
        if found is None or found.words == "deleting":
            return
        if found.status is VolumeStatus.IN_USE:
            raise Conflict(
                f"Volume {volume_id} is not deleted while Cinder at {self._client.url} has it as "
                f"{found.words}: have it detached first."
            )
        try:
            what = f"to delete volume {volume_id}, which is {found.words}"
            await self._call("DELETE", _path(volume_id), what)
        except NotFound:
            return

    async def close(self) -> None:
        await self._tasks.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def _list(self) -> tuple[Sequence[Volume], int]:
        return await self._pages({})

    async def _of_key(self, key: str) -> Sequence[Volume]:
        """Those with this key in their metadata, and maybe others.

        Cinder lets out what its resource_filters.json does not list, for all but administrators.
        """
        try:
            volumes, _ = await self._pages({"metadata": repr({KEY: key})})
        except Unavailable:
            raise
        except OutsideError as e:
            log.info("volumes are looked for in the list of all: %s", e)
            volumes, _ = await self._pages({})
        return volumes

    async def _pages(self, query: Mapping[str, str]) -> tuple[Sequence[Volume], int]:
        """What a list comes to, page by page, and the number of requests."""
        count = 0
        for tries_left in reversed(range(TRIES)):
            found: dict[str, Volume] = {}
            marker: dict[str, str] = {}
            try:
                while True:
                    count += 1
                    page = await self._call(
                        "GET",
                        "/volumes/detail",
                        "volumes",
                        query={**query, "limit": PAGE, **marker},
                    )
                    found.update((raw["id"], self._volume(raw)) for raw in page["volumes"])
                    # Told only where there is more; Cinder may give less than we ask for.
                    if not page["volumes"] or not page.get("volumes_links"):
                        return list(found.values()), count
                    marker = {"marker": page["volumes"][-1]["id"]}
            except NotFound:
                if not marker or not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _reason(self, volume_id: str) -> str:
        """What Cinder tells its users about a volume that failed; empty for nothing."""
        try:
            if not await self._do(lambda: self._client.has(*MESSAGES)):
                return ""
            answer = await self._call(
                "GET",
                "/messages",
                "messages",
                query={"resource_uuid": volume_id, "sort": "created_at:desc", "limit": 1},
                version="{}.{}".format(*MESSAGES),
            )
        except (OutsideError, NotFound) as e:
            log.info("why volume %s failed is not known: %s", volume_id, e)
            return ""
        return next((str(told["user_message"]) for told in answer["messages"]), "")

    def _volume(self, raw: Mapping[str, Any], reason: str = "") -> Volume:
        status = str(raw["status"])
        if status not in CINDER_STATUSES and status not in self._told:
            self._told.add(status)
            log.warning(
                "Cinder at %s has volume %s in status %r, which is not known: it is waited for "
                "another one",
                self._client.url,
                raw["id"],
                status,
            )
        return Volume(
            id=raw["id"],
            name=raw.get("name") or "",
            size_bytes=int(raw["size"]) * GIB,
            status=status_of(status),
            words=status,
            type_name=raw.get("volume_type") or "",
            description=raw.get("description") or "",
            key=(raw.get("metadata") or {}).get(KEY),
            reason=reason,
        )

    async def _call(self, method: str, path: str, what: str, **more: Any) -> dict[str, Any]:
        return await self._do(lambda: self._client.call(method, path, what, **more))

    async def _do(self, call: Callable[[], T]) -> T:
        """Something that blocks, in a thread; not waited for longer than CALL_TIMEOUT_S."""
        loop = asyncio.get_running_loop()
        try:
            return await within(loop.run_in_executor(self._threads, call), CALL_TIMEOUT_S)
        except TimeoutError:
            raise Unavailable(
                f"Cinder at {self._client.url} was not done within {CALL_TIMEOUT_S:g} s: see "
                "whether it works, and try again."
            ) from None


def _path(volume_id: str) -> str:
    return f"/volumes/{quote(volume_id, safe='')}"


def _bound(limit: int | None, used: int | None) -> Bound:
    """Of Cinder's numbers, where -1 is no limit."""
    return Bound(None if limit is None or limit < 0 else int(limit), int(used or 0))


def limits_of(whole: Allowance, quotas: Mapping[str, Any]) -> Limits:
    """Limits out of a quota set with usage: volumes_TYPE, gigabytes_TYPE, per_volume_gigabytes."""
    bounds = {
        name: _bound(told.get("limit"), told.get("in_use", 0) + told.get("reserved", 0))
        for name, told in quotas.items()
        if isinstance(told, Mapping)
    }
    names = {
        name.partition("_")[2] for name in bounds if name.startswith(("volumes_", "gigabytes_"))
    }
    types = {
        name: Allowance(
            bounds.get(f"volumes_{name}", Bound()), bounds.get(f"gigabytes_{name}", Bound())
        )
        for name in names
    }
    return Limits(
        Allowance(bounds.get("volumes", whole.volumes), bounds.get("gigabytes", whole.gib)),
        types,
        bounds.get("per_volume_gigabytes", Bound()).limit,
    )
