# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage domains: attached to data centers, activated, deactivated, detached; their volumes.

A host that does not take the keys of a domain fails it for nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from cinderengine.errors import Conflict, NotFound
from cinderengine.flows.caller import Caller
from cinderengine.flows.finding import idle, needed
from cinderengine.flows.keys import deliveries_of
from cinderengine.flows.services import Services
from cinderengine.flows.told import Code, tell
from cinderengine.jobs import book
from cinderengine.jobs.actions import Action, AfterFailure, Flow, Planned, Result, Work
from cinderengine.jobs.runner import Runner
from cinderengine.model.disks import Disk, DiskStatus
from cinderengine.model.domains import NEXT, DomainStatus, StorageDomain
from cinderengine.model.events import Severity
from cinderengine.model.ids import now_ms
from cinderengine.model.jobs import Job, JobStatus
from cinderengine.store import tables
from cinderengine.store.database import Store
from cinderengine.store.entities import data_centers, disks, storage_domains
from cinderengine.volumes.service import Volume
from cinderengine.volumes.sizes import offered

_KIND = "storage domain"


class Check(Action):
    """Whether a domain's provider answers as it should. params: domain_id."""

    name = "domain.check"
    after_failure = AfterFailure.KEEP
    patience_s = 0.0

    def __init__(self, services: Services) -> None:
        self._services = services

    async def do(self, work: Work) -> Result:
        service = await self._services.of_domain(work.params["domain_id"])
        await service.check()
        room = await service.room()
        return {"used_bytes": room.used_bytes, "available_bytes": room.available_bytes}

    def done(self, conn: Connection, work: Work, result: Result) -> None:
        storage_domains.update(conn, work.params["domain_id"], checked_ms=now_ms(), **result)


class Activating(Flow):
    """params: domain_id; attaching, if it was unattached before."""

    name = "domains.activate"

    def finished(self, conn: Connection, job: Job, results: Any) -> None:
        domain = move(conn, job.params["domain_id"], DomainStatus.ACTIVE)
        tell(
            conn,
            Code.DOMAIN_ATTACHED if job.params["attaching"] else Code.DOMAIN_ACTIVATED,
            f"Storage domain {domain.name} is active.",
            job,
            domain_id=domain.id,
            data_center_id=domain.data_center_id,
        )

    def failed(self, conn: Connection, job: Job, reason: str, results: Any) -> None:
        domain = move(conn, job.params["domain_id"], DomainStatus.MAINTENANCE, reason)
        tell(
            conn,
            Code.DOMAIN_NOT_ATTACHED if job.params["attaching"] else Code.DOMAIN_NOT_ACTIVATED,
            f"Storage domain {domain.name} stays in maintenance: {reason}.",
            job,
            severity=Severity.ERROR,
            domain_id=domain.id,
            data_center_id=domain.data_center_id,
        )


class Deactivating(Flow):
    """params: domain_id."""

    name = "domains.deactivate"

    def finished(self, conn: Connection, job: Job, results: Any) -> None:
        domain = move(conn, job.params["domain_id"], DomainStatus.MAINTENANCE)
        tell(
            conn,
            Code.DOMAIN_DEACTIVATED,
            f"Storage domain {domain.name} is in maintenance.",
            job,
            domain_id=domain.id,
            data_center_id=domain.data_center_id,
        )


class Domains:
    """Each method raises EngineError, and then nothing is changed."""

    def __init__(self, store: Store, services: Services, jobs: Runner) -> None:
        self._store = store
        self._services = services
        self._jobs = jobs

    async def attach(self, center_id: str, domain_id: str, caller: Caller) -> StorageDomain:
        """Attach one to a data center and activate it; as it is while that goes on, or after."""
        job = await self._jobs.begin(self._attach, center_id, domain_id, caller)
        await self._jobs.reached(job.id, 0)
        await self._jobs.ended(job.id)
        return await self._store.read(needed, storage_domains, domain_id, _KIND)

    async def activate(self, domain_id: str, caller: Caller, center_id: str = "") -> Job:
        """Activate one once its provider answers. center_id: where it must be; empty for any."""
        job = await self._jobs.begin(self._activate, domain_id, center_id, caller)
        await self._jobs.reached(job.id, 0)
        return await self._jobs.ended(job.id)

    async def deactivate(self, domain_id: str, caller: Caller, center_id: str = "") -> Job:
        """Put one into maintenance; hosts lose its keys. center_id: as above."""
        job = await self._jobs.begin(self._deactivate, domain_id, center_id, caller)
        return await self._jobs.ended(job.id)

    async def detach(self, center_id: str, domain_id: str, caller: Caller) -> None:
        """Take one that is in maintenance and has no disks out of its data center."""
        await self._store.write(self._detach, center_id, domain_id, caller)

    async def edit(self, domain_id: str, caller: Caller, **changes: Any) -> StorageDomain:
        """Give its description or comment another value; its name is its provider's."""
        await self._store.read(needed, storage_domains, domain_id, _KIND)
        if changes:
            await self._store.write(storage_domains.update, domain_id, **changes)
        return await self._store.read(needed, storage_domains, domain_id, _KIND)

    async def unregistered(self, domain_id: str) -> Sequence[Volume]:
        """The volumes of one that are nobody's, and could become disks."""
        await self._store.read(_attached, domain_id)
        service = await self._services.of_domain(domain_id)
        # What is made meanwhile is in the second list of what is known.
        before = await self._store.read(_known_volumes)
        found = await service.volumes()
        return offered(found, before | await self._store.read(_known_volumes))

    async def register(self, domain_id: str, volume_id: str, caller: Caller) -> Disk:
        """Make a disk of a volume that is nobody's."""
        await self._store.read(_attached, domain_id)
        await self._store.read(_not_known, volume_id)
        service = await self._services.of_domain(domain_id)
        volume = await service.get(volume_id)
        if volume is None:
            raise NotFound(
                f"no volume of the storage domain has the id {volume_id}; "
                "list those that are unregistered"
            )
        if volume not in offered([volume], ()):
            raise Conflict(
                f"volume {volume_id} is {volume.words}; see that it is available and nobody's"
            )
        disk = Disk(
            volume.id,
            volume.name or volume.id,
            domain_id,
            volume.size_bytes,
            volume.id,
            volume.description,
            DiskStatus.OK,
            volume_type=volume.type_name,
            created_ms=now_ms(),
        )
        return await self._store.write(self._register, disk, caller)

    def _attach(self, conn: Connection, center_id: str, domain_id: str, caller: Caller) -> Job:
        domain = needed(conn, storage_domains, domain_id, _KIND)
        center = needed(conn, data_centers, center_id, "data center")
        if domain.status is not DomainStatus.UNATTACHED:
            raise Conflict(
                f"storage domain {domain.name} is attached to a data center already; "
                "detach it there first"
            )
        storage_domains.update(conn, domain_id, data_center_id=center_id)
        what = f"Attaching storage domain {domain.name} to data center {center.name}"
        return self._begin_activation(conn, domain_id, what, caller, attaching=True)

    def _activate(self, conn: Connection, domain_id: str, center_id: str, caller: Caller) -> Job:
        domain = _within(conn, domain_id, center_id)
        if domain.status not in (DomainStatus.MAINTENANCE, DomainStatus.INACTIVE):
            raise Conflict(
                f"storage domain {domain.name} is {domain.status}; one that is in maintenance or "
                "inactive can be activated"
            )
        what = f"Activating storage domain {domain.name}"
        return self._begin_activation(conn, domain_id, what, caller, attaching=False)

    def _begin_activation(
        self, conn: Connection, domain_id: str, what: str, caller: Caller, *, attaching: bool
    ) -> Job:
        domain = move(conn, domain_id, DomainStatus.LOCKED)
        plan = [
            Planned(Check.name, f"Asking the provider of storage domain {domain.name}"),
            *deliveries_of(conn, domain.data_center_id),
        ]
        params = {"domain_id": domain_id, "attaching": attaching}
        return book.begin(conn, caller.job(self._jobs, Activating, what, params), plan)

    def _deactivate(self, conn: Connection, domain_id: str, center_id: str, caller: Caller) -> Job:
        domain = _within(conn, domain_id, center_id)
        if domain.status not in (DomainStatus.ACTIVE, DomainStatus.INACTIVE):
            raise Conflict(
                f"storage domain {domain.name} is {domain.status}; one that is active can be "
                "deactivated"
            )
        idle(conn, domain)
        move(conn, domain_id, DomainStatus.PREPARING_FOR_MAINTENANCE)
        plan = deliveries_of(conn, domain.data_center_id)
        what = f"Deactivating storage domain {domain.name}"
        job = caller.job(self._jobs, Deactivating, what, {"domain_id": domain_id})
        return book.begin(conn, job, plan)

    @staticmethod
    def _detach(conn: Connection, center_id: str, domain_id: str, caller: Caller) -> None:
        domain = _within(conn, domain_id, center_id)
        if domain.status is not DomainStatus.MAINTENANCE:
            raise Conflict(
                f"storage domain {domain.name} is {domain.status}; deactivate it before it is "
                "detached"
            )
        idle(conn, domain)
        count = disks.count(conn, domain_id=domain_id)
        if count:
            raise Conflict(
                f"storage domain {domain.name} has {count} disks; remove them before it is detached"
            )
        move(conn, domain_id, DomainStatus.UNATTACHED)
        storage_domains.update(conn, domain_id, data_center_id=None)
        tell(
            conn,
            Code.DOMAIN_DETACHED,
            f"Storage domain {domain.name} was detached by {caller.user.principal}.",
            caller,
            domain_id=domain_id,
            data_center_id=center_id,
        )

    @staticmethod
    def _register(conn: Connection, disk: Disk, caller: Caller) -> Disk:
        _attached(conn, disk.domain_id)
        _not_known(conn, disk.id)
        disks.insert(conn, disk)
        tell(
            conn,
            Code.DISK_REGISTERED,
            f"Disk {disk.alias} was registered by {caller.user.principal}.",
            caller,
            disk_id=disk.id,
            domain_id=disk.domain_id,
        )
        return disk


def move(conn: Connection, domain_id: str, status: DomainStatus, reason: str = "") -> StorageDomain:
    """Give a domain another status, which the table of model.domains allows; it as it was."""
    domain = needed(conn, storage_domains, domain_id, _KIND)
    assert status in NEXT[domain.status], (domain.status, status)
    storage_domains.update(conn, domain_id, status=status, reason=reason)
    return domain


def active(conn: Connection, domain_id: str) -> StorageDomain:
    """A domain on which disks can be made and changed. Raises NotFound, Conflict."""
    domain = needed(conn, storage_domains, domain_id, _KIND)
    if domain.status is not DomainStatus.ACTIVE:
        raise Conflict(
            f"storage domain {domain.name} is {domain.status}; activate it before its disks are "
            "changed"
        )
    return domain


def _attached(conn: Connection, domain_id: str) -> StorageDomain:
    domain = needed(conn, storage_domains, domain_id, _KIND)
    if domain.data_center_id is None:
        raise Conflict(f"storage domain {domain.name} is in no data center; attach it to one first")
    return domain


def _within(conn: Connection, domain_id: str, center_id: str) -> StorageDomain:
    if center_id:
        return needed(conn, storage_domains, domain_id, _KIND, data_center_id=center_id)
    return needed(conn, storage_domains, domain_id, _KIND)


def _known_volumes(conn: Connection) -> frozenset[str]:
    """The ids of all volumes that are disks, and the keys of those that are being made."""
    known = {
        *conn.scalars(select(tables.disks.c.id)),
        *conn.scalars(select(tables.disks.c.image_id)),
    }
    making = (
        select(tables.steps.c.id).join(tables.jobs).where(tables.jobs.c.status == JobStatus.STARTED)
    )
    return frozenset(known | {*conn.scalars(making)})


def _not_known(conn: Connection, volume_id: str) -> None:
    table = tables.disks
    query = select(table.c.alias).where((table.c.id == volume_id) | (table.c.image_id == volume_id))
    alias = conn.execute(query).scalar()
    if alias is not None:
        raise Conflict(f"volume {volume_id} is disk {alias} already; use that one")
