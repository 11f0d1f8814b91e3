# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage domains: each is made, named and removed with its provider, or apart from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from cinderengine.api.resources.disks import DOMAIN_DISKS
from cinderengine.api.resources.empty import PERMISSIONS, empty
from cinderengine.api.resources.sent import given
from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.search.evaluate import Fields
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import Entity, entity
from cinderengine.errors import Conflict, Invalid
from cinderengine.model.domains import StorageDomain
from cinderengine.store.entities import data_centers, storage_domains


@dataclass(frozen=True)
class DomainRow:
    """A storage domain, and the name of its data center."""

    domain: StorageDomain
    center: str = ""


FIELDS: Fields[DomainRow] = {
    "name": lambda row: row.domain.name,
    "id": lambda row: row.domain.id,
    "description": lambda row: row.domain.description,
    "comment": lambda row: row.domain.comment,
    "status": lambda row: row.domain.status.value,
    "type": lambda row: "volume",
    "datacenter": lambda row: row.center,
    "datacenter.name": lambda row: row.center,
    "size": lambda row: row.domain.available_bytes,
    "used": lambda row: row.domain.used_bytes,
}
UNDER = (
    DOMAIN_DISKS,
    PERMISSIONS,
    empty("diskprofiles", "disk_profile"),
    empty("disksnapshots", "disk_snapshot"),
    empty("storageconnections", "storage_connection"),
    empty("templates", "template"),
    empty("vms", "vm"),
    empty("files", "file"),
    empty("images", "image"),
)


def show(call: Call, row: DomainRow) -> Entity:
    """A storage domain as the API has it, wherever it is asked for."""
    domain = row.domain
    center = made.reference("data_center", domain.data_center_id, "/datacenters")
    return entity(
        "storage_domain",
        id=domain.id,
        href=made.below("/storagedomains", domain.id),
        name=domain.name,
        description=domain.description,
        comment=domain.comment,
        type="volume",
        status=domain.status.value,
        status_detail=domain.reason or None,
        external_status="ok",
        master=False,
        available=domain.available_bytes,
        used=domain.used_bytes,
        committed=0,
        storage=entity("host_storage", type="cinder"),
        wipe_after_delete=False,
        discard_after_delete=False,
        supports_discard=True,
        supports_discard_zeroes_data=False,
        backup=False,
        data_centers=(center,) if center else (),
    )


def all_in(conn: Connection, center_id: str | None) -> Sequence[DomainRow]:
    """Those of a data center; of all if it is None, those in none of them as well."""
    names = {center.id: center.name for center in data_centers.all(conn)}
    conditions = {"data_center_id": center_id} if center_id is not None else {}
    found = storage_domains.all(conn, **conditions)
    return [DomainRow(domain, names.get(domain.data_center_id or "", "")) for domain in found]


async def _rows(call: Call) -> Sequence[DomainRow]:
    return await call.parts.store.read(all_in, None)


async def _row(call: Call) -> DomainRow | None:
    found = await call.parts.store.read(storage_domains.get, call.id("storagedomains"))
    return DomainRow(found) if found else None


async def _add(call: Call, sent: Entity) -> DomainRow:
    raise Invalid(
        "storage domains are made with their providers; add one to openstackvolumeproviders, and "
        "the domain has its name"
    )


async def _edit(call: Call, sent: Entity) -> DomainRow:
    changes = given(sent, {"description": "description", "comment": "comment"})
    return DomainRow(
        await call.parts.domains.edit(call.id("storagedomains"), call.caller, **changes)
    )


async def _remove(call: Call) -> None:
    raise Conflict(
        "storage domains are removed with their providers; remove the one in "
        "openstackvolumeproviders that has the name of the domain"
    )


STORAGE_DOMAINS = Collection(
    "storagedomains",
    "storage_domain",
    rows=_rows,
    row=_row,
    show=show,
    add=_add,
    edit=_edit,
    remove=_remove,
    fields=FIELDS,
    under=UNDER,
)
