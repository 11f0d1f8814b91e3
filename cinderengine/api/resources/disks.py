# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks: all, those of a storage domain, and volumes that are no disks yet.

What kind of disk it becomes is decided by its storage domain, whatever kind and format are sent:
oVirt's clients name none, or those of other domains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, select

from cinderengine.api.request import Waits
from cinderengine.api.resources.empty import PERMISSIONS, STATISTICS, empty
from cinderengine.api.resources.sent import given, referred
from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.search.selection import Selection
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import Entity, entity
from cinderengine.errors import Conflict, Incomplete, Invalid, NotFound
from cinderengine.flows.disks import NewDisk
from cinderengine.model.disks import Disk, DiskStatus
from cinderengine.model.domains import StorageDomain
from cinderengine.model.jobs import JobStatus
from cinderengine.store import tables
from cinderengine.store.entities import disks, storage_domains

# How long a request waits until a disk is gone; it goes on after that.
GONE_WITHIN_S = 60.0
_CHANGES = {
    "alias": "alias",
    "description": "description",
    "provisioned_size": "size_bytes",
    "shareable": "shareable",
    "wipe_after_delete": "wipe_after_delete",
    "propagate_errors": "propagate_errors",
}


@dataclass(frozen=True)
class DiskRow:
    """A disk, and the name of its storage domain."""

    disk: Disk
    domain: str = ""


def _in(conn: Connection, domain_id: str | None, selection: Selection) -> Sequence[DiskRow]:
    names = {domain.id: domain.name for domain in storage_domains.all(conn)}
    query = select(tables.disks).order_by(tables.disks.c.id)
    if domain_id is not None:
        query = query.where(tables.disks.c.domain_id == domain_id)
    found = [disks.of(row) for row in conn.execute(selection.of(query))]
    return [DiskRow(disk, names.get(disk.domain_id, "")) for disk in found]


async def _selected(call: Call, selection: Selection) -> Sequence[DiskRow] | None:
    domain_id = call.ids.get("storagedomains")
    if domain_id is not None and call.request.flag("unregistered"):
        return None
    return await call.parts.store.read(_in, domain_id, selection)


async def _rows(call: Call) -> Sequence[DiskRow]:
    return await call.parts.store.read(_in, call.ids.get("storagedomains"), Selection())


async def _row(call: Call) -> DiskRow | None:
    disk = await call.parts.store.read(disks.get, call.id("disks"))
    domain_id = call.ids.get("storagedomains")
    return DiskRow(disk) if disk and domain_id in {None, disk.domain_id} else None


def _show(call: Call, row: DiskRow) -> Entity:
    disk = row.disk
    domain = made.reference("storage_domain", disk.domain_id, "/storagedomains")
    kind = disk.volume_type
    return entity(
        "disk",
        id=disk.id,
        href=made.below("/disks", disk.id),
        alias=disk.alias,
        name=disk.alias,
        description=disk.description,
        image_id=disk.image_id,
        provisioned_size=disk.size_bytes,
        actual_size=disk.size_bytes,
        total_size=disk.size_bytes,
        status=disk.status.value,
        status_detail=disk.reason or None,
        format="raw",
        sparse=True,
        storage_type="cinder",
        content_type="data",
        backup="none",
        shareable=disk.shareable,
        wipe_after_delete=disk.wipe_after_delete,
        propagate_errors=disk.propagate_errors,
        openstack_volume_type=entity("openstack_volume_type", name=kind) if kind else None,
        storage_domains=(domain,) if domain else (),
    )


# Changes


def _domain_of(sent: Entity) -> Entity:
    named = [*(sent.many("storage_domains") or ()), sent.one("storage_domain")]
    found = [one for one in named if one is not None and (one.id or one.text("name"))]
    if not found:
        raise Incomplete("the disk has no storage_domains; give the id or the name of one")
    if len(found) > 1:
        raise Invalid("the disk has several storage_domains; give the one that it is to be in")
    return found[0]


async def _volume_type(call: Call, kind: Entity | None, domain_id: str) -> str:
    """The name of the volume type that is asked for; empty for the default. Raises NotFound."""
    if kind is None or not kind.id:
        return (kind.text("name") if kind else None) or ""
    domain = await call.parts.store.read(storage_domains.get, domain_id)
    known = await call.parts.providers.volume_types(domain.provider_id) if domain else ()
    for one in known:
        if one.id == kind.id:
            return one.name
    names = ", ".join(one.name for one in known)
    raise NotFound(f"no volume type has the id {kind.id}; give one by its name: {names}")


async def _add(call: Call, sent: Entity) -> DiskRow:
    size_bytes = sent.number("provisioned_size")
    if size_bytes is None:
        raise Incomplete("the disk has no provisioned_size; give its size in bytes")
    alias = sent.text("alias") or sent.text("name")
    if not alias:
        raise Incomplete("the disk has no alias; give it one")
    if call.ids.get("storagedomains"):
        domain_id = call.id("storagedomains")
    else:
        domain_id = (await call.parts.store.read(referred, storage_domains, _domain_of(sent))).id
    new = NewDisk(
        alias=alias,
        domain_id=domain_id,
        size_bytes=size_bytes,
        volume_type=await _volume_type(call, sent.one("openstack_volume_type"), domain_id),
        description=sent.text("description") or "",
        shareable=sent.flag("shareable") or False,
        wipe_after_delete=sent.flag("wipe_after_delete") or False,
        propagate_errors=sent.flag("propagate_errors") or False,
    )
    waits = call.request.waits is Waits.TILL_DONE
    return DiskRow(await call.parts.disks.add(new, call.caller, wait=waits))


async def _edit(call: Call, sent: Entity) -> DiskRow:
    changes = given(sent, {"name": "alias", **_CHANGES})
    return DiskRow(await call.parts.disks.edit(call.id("disks"), call.caller, **changes))


async def _remove(call: Call) -> None:
    waits = not (call.request.accepted or call.request.flag("async"))
    removing = call.parts.disks.remove(call.id("disks"), call.caller, wait=waits)
    try:
        async with asyncio.timeout(GONE_WITHIN_S):
            job = await removing
    except TimeoutError:
        return
    if job.status is JobStatus.FAILED:
        raise Conflict(job.reason)


# Volumes that are no disks yet


async def _rows_of_domain(call: Call) -> Sequence[DiskRow]:
    if not call.request.flag("unregistered"):
        return await _rows(call)
    domain_id = call.id("storagedomains")
    domain = await call.parts.store.read(storage_domains.get, domain_id)
    found = await call.parts.domains.unregistered(domain_id)
    return [_unregistered(domain, volume) for volume in found]


class _Volume(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def type_name(self) -> str: ...
    @property
    def description(self) -> str: ...


def _unregistered(domain: StorageDomain | None, volume: _Volume) -> DiskRow:
    disk = Disk(
        id=volume.id,
        alias=volume.name or volume.id,
        domain_id=domain.id if domain else "",
        size_bytes=volume.size_bytes,
        image_id=volume.id,
        description=volume.description,
        status=DiskStatus.OK,
        volume_type=volume.type_name,
    )
    return DiskRow(disk, domain.name if domain else "")


async def _add_to_domain(call: Call, sent: Entity) -> DiskRow:
    if not call.request.flag("unregistered"):
        return await _add(call, sent)
    if not sent.id:
        raise Incomplete("the disk to register has no id; give that of an unregistered one")
    return await _registered(call, sent.id)


async def _register(call: Call, sent: Entity) -> None:
    await _registered(call, call.id("disks"))


async def _registered(call: Call, volume_id: str) -> DiskRow:
    disk = await call.parts.domains.register(call.id("storagedomains"), volume_id, call.caller)
    return DiskRow(disk)


FIELDS = {
    "alias": lambda row: row.disk.alias,
    "name": lambda row: row.disk.alias,
    "disk_alias": lambda row: row.disk.alias,
    "id": lambda row: row.disk.id,
    "disk_id": lambda row: row.disk.id,
    "description": lambda row: row.disk.description,
    "status": lambda row: row.disk.status.value,
    "provisioned_size": lambda row: row.disk.size_bytes,
    "size": lambda row: row.disk.size_bytes,
    "shareable": lambda row: row.disk.shareable,
    "storage": lambda row: row.domain,
    "storage.name": lambda row: row.domain,
    "storages.name": lambda row: row.domain,
    "disk_type": lambda row: "cinder",
    # Of no VM yet.
    "vm_names": lambda row: (),
}
_TABLE = tables.disks.c
COLUMNS = {
    "alias": _TABLE.alias,
    "name": _TABLE.alias,
    "disk_alias": _TABLE.alias,
    "id": _TABLE.id,
    "disk_id": _TABLE.id,
    "description": _TABLE.description,
    "provisioned_size": _TABLE.size_bytes,
    "size": _TABLE.size_bytes,
}
UNDER = (
    PERMISSIONS,
    STATISTICS,
    empty("vms", "vm"),
    empty("disksnapshots", "disk_snapshot"),
)

DISKS = Collection(
    "disks",
    "disk",
    rows=_rows,
    row=_row,
    show=_show,
    add=_add,
    edit=_edit,
    remove=_remove,
    fields=FIELDS,
    selected=_selected,
    columns=COLUMNS,
    under=UNDER,
)
DOMAIN_DISKS = Collection(
    "disks",
    "disk",
    rows=_rows_of_domain,
    row=_row,
    show=_show,
    add=_add_to_domain,
    edit=_edit,
    remove=_remove,
    actions={"register": _register},
    fields=FIELDS,
    selected=_selected,
    columns=COLUMNS,
    under=UNDER,
)
