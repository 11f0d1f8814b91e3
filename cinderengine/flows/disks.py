# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks: added, edited, extended, removed; each volume is as its disk says, whatever happens.

A request is answered when the provider has taken on what it asks, so that a refusal is the answer;
how it goes on is the disk's status and the job's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from cinderengine.errors import Conflict, Invalid, OutsideError
from cinderengine.flows import domains
from cinderengine.flows.caller import Caller
from cinderengine.flows.finding import named, needed
from cinderengine.flows.services import Services
from cinderengine.flows.told import Code, tell
from cinderengine.jobs import book
from cinderengine.jobs.actions import Action, AfterFailure, Flow, Planned, Result, Work
from cinderengine.jobs.runner import Runner
from cinderengine.model.disks import NEXT, Disk, DiskStatus
from cinderengine.model.events import Severity
from cinderengine.model.ids import now_ms
from cinderengine.model.jobs import Job
from cinderengine.store.database import Store
from cinderengine.store.entities import disks
from cinderengine.volumes.service import VolumeService, VolumeStatus
from cinderengine.volumes.sizes import check_growth, check_room

_KIND = "disk"
_CREATE, _EXTEND, _DELETE = "volume.create", "volume.extend", "volume.delete"


@dataclass(frozen=True)
class NewDisk:
    """A disk as it is asked for. volume_type: by name; empty for the provider's default."""

    alias: str
    domain_id: str
    size_bytes: int
    volume_type: str = ""
    description: str = ""
    shareable: bool = False
    wipe_after_delete: bool = False
    propagate_errors: bool = False


# Actions


class _OnVolume(Action):
    """params: domain_id, disk_id but for one that is being made."""

    # Who waits for an answer is told at once; what was begun is looked after all the same.
    patience_s = 0.0

    def __init__(self, services: Services) -> None:
        self._services = services

    async def _service(self, work: Work) -> VolumeService:
        return await self._services.of_domain(work.params["domain_id"])


class Create(_OnVolume):
    """Makes a volume, and its disk. params: domain_id, disk, the fields of NewDisk."""

    name = _CREATE

    async def do(self, work: Work) -> Result:
        new, service = NewDisk(**work.params["disk"]), await self._service(work)
        volume = await service.create(
            work.key, new.alias, new.size_bytes, new.volume_type, new.description
        )
        return {
            "disk_id": volume.id,
            "size_bytes": volume.size_bytes,
            "volume_type": volume.type_name,
        }

    def done(self, conn: Connection, work: Work, result: Result) -> None:
        disk_id = result["disk_id"]
        made = {"size_bytes": result["size_bytes"], "volume_type": result["volume_type"]}
        fields = {**work.params["disk"], **made}
        disks.insert(conn, Disk(id=disk_id, image_id=disk_id, created_ms=now_ms(), **fields))

    async def undo(self, work: Work) -> None:
        service = await self._service(work)
        volume = await service.find(work.key)
        if volume is None:
            return
        await service.delete(volume.id)
        left = await service.settled(volume.id)
        if left is not None:
            raise OutsideError(f"volume {left.id} could not be deleted ({left.words}); delete it")


class Settle(_OnVolume):
    """Waits until a volume is as it was asked to be."""

    name = "volume.settle"
    after_failure = AfterFailure.KEEP

    async def do(self, work: Work) -> Result:
        disk_id = _disk_id(work.params, work.results)
        volume = await (await self._service(work)).settled(disk_id)
        if volume is None:
            raise OutsideError(f"volume {disk_id} was deleted by somebody else; remove its disk")
        if volume.status is VolumeStatus.FAILED:
            why = f" ({volume.reason})" if volume.reason else ""
            raise OutsideError(
                f"volume {disk_id} is in status {volume.words}{why}; mend it in the provider, or "
                "remove its disk"
            )
        return {"size_bytes": volume.size_bytes}

    def done(self, conn: Connection, work: Work, result: Result) -> None:
        disk_id = _disk_id(work.params, work.results)
        size_bytes = result["size_bytes"]
        move(conn, disk_id, DiskStatus.OK, size_bytes=size_bytes)


class Extend(_OnVolume):
    """Has a volume made larger. params: disk_id, size_bytes."""

    name = _EXTEND
    after_failure = AfterFailure.KEEP

    async def do(self, work: Work) -> Result:
        service = await self._service(work)
        await service.extend(work.params["disk_id"], work.params["size_bytes"])
        return {}


class Delete(_OnVolume):
    """Has a volume deleted."""

    name = _DELETE
    after_failure = AfterFailure.KEEP

    async def do(self, work: Work) -> Result:
        await (await self._service(work)).delete(work.params["disk_id"])
        return {}


class Vanish(_OnVolume):
    """Waits until a volume is gone."""

    name = "volume.vanish"
    after_failure = AfterFailure.KEEP

    async def do(self, work: Work) -> Result:
        disk_id = work.params["disk_id"]
        left = await (await self._service(work)).settled(disk_id)
        if left is not None:
            why = f" ({left.reason})" if left.reason else ""
            raise OutsideError(
                f"volume {disk_id} was not deleted and is in status {left.words}{why}; mend that "
                "in the provider, and remove the disk again"
            )
        return {}


# Flows


class Adding(Flow):
    """params: domain_id, disk."""

    name = "disks.add"

    def finished(self, conn: Connection, job: Job, results: Any) -> None:
        disk_id = _disk_id(job.params, results)
        _tell(conn, Code.DISK_ADDED, f"Disk {_alias(job)} was added.", job, disk_id)

    def failed(self, conn: Connection, job: Job, reason: str, results: Any) -> None:
        disk_id = results.get(_CREATE, {}).get("disk_id")
        if disk_id is not None and disks.get(conn, disk_id) is not None:
            move(conn, disk_id, DiskStatus.ILLEGAL, reason)
        text = f"Disk {_alias(job)} was not added: {reason}."
        _tell(conn, Code.DISK_NOT_ADDED, text, job, disk_id, severity=Severity.ERROR)


class Extending(Flow):
    """params: domain_id, disk_id, size_bytes, status: the disk's before."""

    name = "disks.extend"

    def finished(self, conn: Connection, job: Job, results: Any) -> None:
        disk = needed(conn, disks, job.params["disk_id"], _KIND)
        text = f"Disk {disk.alias} was extended to {disk.size_bytes} bytes."
        _tell(conn, Code.DISK_EXTENDED, text, job, disk.id)

    def failed(self, conn: Connection, job: Job, reason: str, results: Any) -> None:
        disk = _give_back(conn, job, reason, begun=_EXTEND in results)
        text = f"Disk {disk.alias} was not extended: {reason}."
        _tell(conn, Code.DISK_NOT_EXTENDED, text, job, disk.id, severity=Severity.ERROR)


class Removing(Flow):
    """params: domain_id, disk_id, status: the disk's before, reason: the disk's before."""

    name = "disks.remove"

    def finished(self, conn: Connection, job: Job, results: Any) -> None:
        disk = needed(conn, disks, job.params["disk_id"], _KIND)
        disks.delete(conn, disk.id)
        _tell(conn, Code.DISK_REMOVED, f"Disk {disk.alias} was removed.", job, disk.id)

    def failed(self, conn: Connection, job: Job, reason: str, results: Any) -> None:
        disk = _give_back(conn, job, reason, begun=_DELETE in results)
        text = f"Disk {disk.alias} was not removed: {reason}."
        _tell(conn, Code.DISK_NOT_REMOVED, text, job, disk.id, severity=Severity.ERROR)


FLOWS = (Adding, Extending, Removing)
ACTIONS = (Create, Settle, Extend, Delete, Vanish)


class Disks:
    """Each method raises EngineError, and then nothing is changed."""

    def __init__(self, store: Store, services: Services, jobs: Runner) -> None:
        self._store = store
        self._services = services
        self._jobs = jobs

    async def add(self, new: NewDisk, caller: Caller, *, wait: bool = False) -> Disk:
        """Add one; it is locked until its volume is ready. size_bytes is rounded up, if at all.

        wait: until it is ready; what it fails of is raised then, and the disk is illegal.
        """
        named(new.alias, _KIND)
        _sized(new.alias, new.size_bytes)
        await self._store.read(domains.active, new.domain_id)
        service = await self._services.of_domain(new.domain_id)
        if new.volume_type:
            known = [kind.name for kind in await service.types()]
            if new.volume_type not in known:
                raise Invalid(
                    f"disk {new.alias} cannot have the volume type {new.volume_type}, which its "
                    f"provider does not have; give it one of: {', '.join(known)}"
                )
        check_room(await service.limits(), new.size_bytes, new.volume_type)
        job = await self._jobs.begin(self._add, new, caller)
        await self._jobs.reached(job.id, 1 if wait else 0)
        _, steps = await self._store.read(book.read, job.id)
        return await self._store.read(needed, disks, steps[0].result["disk_id"], _KIND)

    async def edit(self, disk_id: str, caller: Caller, **changes: Any) -> Disk:
        """Give some of its fields other values; a larger size_bytes extends it."""
        disk = await self._store.read(_free, disk_id)
        size_bytes = changes.pop("size_bytes", disk.size_bytes)
        if size_bytes < disk.size_bytes:
            raise Invalid(
                f"disk {disk.alias} has {disk.size_bytes} bytes and cannot become smaller; give it "
                "at least that size"
            )
        if disk.status is DiskStatus.ILLEGAL:
            disk = await self._mended(disk)
        if any(getattr(disk, name) != value for name, value in changes.items()):
            disk = await self._edit(disk, changes, caller)
        if size_bytes > disk.size_bytes:
            disk = await self._extend(disk, size_bytes, caller)
        return disk

    async def remove(self, disk_id: str, caller: Caller, *, wait: bool = False) -> Job:
        """Remove one, and its volume. wait: until both are gone, or are known to stay."""
        job = await self._jobs.begin(self._remove, disk_id, caller)
        await self._jobs.reached(job.id, 1 if wait else 0)
        return await self._jobs.ended(job.id) if wait else job

    async def _mended(self, disk: Disk) -> Disk:
        """An illegal disk whose volume is as it should be again. Raises Conflict."""
        service = await self._services.of_domain(disk.domain_id)
        volume = await service.get(disk.image_id)
        if volume is None or volume.status not in (VolumeStatus.READY, VolumeStatus.IN_USE):
            raise Conflict(f"disk {disk.alias} is illegal: {disk.reason}")

        def mend(conn: Connection) -> Disk:
            if _free(conn, disk.id).status is DiskStatus.ILLEGAL:
                move(conn, disk.id, DiskStatus.LOCKED)
                move(conn, disk.id, DiskStatus.OK, size_bytes=volume.size_bytes)
            return needed(conn, disks, disk.id, _KIND)

        return await self._store.write(mend)

    async def _edit(self, disk: Disk, changes: dict[str, Any], caller: Caller) -> Disk:
        after = replace(disk, **changes)
        named(after.alias, _KIND)
        if (after.alias, after.description) != (disk.alias, disk.description):
            service = await self._services.of_domain(disk.domain_id)
            await service.rename(disk.image_id, after.alias, after.description)

        def change(conn: Connection) -> Disk:
            _free(conn, disk.id)
            disks.update(conn, disk.id, **changes)
            text = f"Disk {after.alias} was edited by {caller.user.principal}."
            _tell(conn, Code.DISK_EDITED, text, caller, disk.id)
            return needed(conn, disks, disk.id, _KIND)

        return await self._store.write(change)

    async def _extend(self, disk: Disk, size_bytes: int, caller: Caller) -> Disk:
        _sized(disk.alias, size_bytes)
        await self._store.read(domains.active, disk.domain_id)
        service = await self._services.of_domain(disk.domain_id)
        limits = await service.limits()
        check_growth(limits, disk.size_bytes, size_bytes, disk.volume_type)
        job = await self._jobs.begin(self._begin_extension, disk.id, size_bytes, caller)
        await self._jobs.reached(job.id, 0)
        return await self._store.read(needed, disks, disk.id, _KIND)

    def _add(self, conn: Connection, new: NewDisk, caller: Caller) -> Job:
        domain = domains.active(conn, new.domain_id)
        text = f"Disk {new.alias} is being added to storage domain {domain.name} by"
        tell(
            conn,
            Code.DISK_BEING_ADDED,
            f"{text} {caller.user.principal}.",
            caller,
            domain_id=domain.id,
            data_center_id=domain.data_center_id,
        )
        params = {"domain_id": new.domain_id, "disk": vars(new)}
        job = caller.job(self._jobs, Adding, f"Adding disk {new.alias}", params)
        plan = [
            Planned(_CREATE, f"Creating the volume of disk {new.alias}"),
            Planned(Settle.name, "Waiting until the volume is ready"),
        ]
        return book.begin(conn, job, plan)

    def _begin_extension(
        self, conn: Connection, disk_id: str, size_bytes: int, caller: Caller
    ) -> Job:
        disk = _free(conn, disk_id)
        move(conn, disk_id, DiskStatus.LOCKED)
        params = {**_before(disk), "size_bytes": size_bytes}
        job = caller.job(self._jobs, Extending, f"Extending disk {disk.alias}", params)
        plan = [
            Planned(_EXTEND, f"Extending the volume to {size_bytes} bytes"),
            Planned(Settle.name, "Waiting until the volume is ready"),
        ]
        return book.begin(conn, job, plan)

    def _remove(self, conn: Connection, disk_id: str, caller: Caller) -> Job:
        disk = _free(conn, disk_id)
        domains.active(conn, disk.domain_id)
        move(conn, disk_id, DiskStatus.LOCKED)
        text = f"Disk {disk.alias} is being removed by {caller.user.principal}."
        _tell(conn, Code.DISK_BEING_REMOVED, text, caller, disk_id)
        job = caller.job(self._jobs, Removing, f"Removing disk {disk.alias}", _before(disk))
        plan = [
            Planned(_DELETE, f"Deleting the volume of disk {disk.alias}"),
            Planned(Vanish.name, "Waiting until the volume is gone"),
        ]
        return book.begin(conn, job, plan)


def move(
    conn: Connection, disk_id: str, status: DiskStatus, reason: str = "", **changes: Any
) -> None:
    """Give a disk another status, which the table of model.disks allows."""
    disk = needed(conn, disks, disk_id, _KIND)
    assert status in NEXT[disk.status], (disk.status, status)
    disks.update(conn, disk_id, status=status, reason=reason, **changes)


def _before(disk: Disk) -> dict[str, Any]:
    """What a job has to know of the disk that it has locked."""
    return {
        "domain_id": disk.domain_id,
        "disk_id": disk.id,
        "status": str(disk.status),
        "reason": disk.reason,
    }


def _give_back(conn: Connection, job: Job, reason: str, *, begun: bool) -> Disk:
    """Unlock a disk: illegal if something was begun with its volume, else as it was before."""
    disk = needed(conn, disks, job.params["disk_id"], _KIND)
    if begun:
        move(conn, disk.id, DiskStatus.ILLEGAL, reason)
    else:
        move(conn, disk.id, DiskStatus(job.params["status"]), job.params["reason"])
    return disk


def _free(conn: Connection, disk_id: str) -> Disk:
    """A disk of which no job goes on. Raises NotFound, Conflict."""
    disk = needed(conn, disks, disk_id, _KIND)
    if disk.status is DiskStatus.LOCKED:
        raise Conflict(f"disk {disk.alias} is locked by a job; wait until the job is over")
    return disk


def _sized(alias: str, size_bytes: int) -> None:
    if size_bytes <= 0:
        raise Invalid(f"disk {alias} cannot have a size of {size_bytes} bytes; give it one above 0")


def _disk_id(params: Any, results: Any) -> str:
    """Of the disk that a job is about; one that is being made has an id once its volume has."""
    disk_id: str = params.get("disk_id") or results[_CREATE]["disk_id"]
    return disk_id


def _alias(job: Job) -> str:
    alias: str = job.params["disk"]["alias"]
    return alias


def _tell(
    conn: Connection,
    code: Code,
    text: str,
    by: Caller | Job,
    disk_id: str | None,
    *,
    severity: Severity = Severity.NORMAL,
) -> None:
    tell(conn, code, text, by, severity=severity, disk_id=disk_id)
