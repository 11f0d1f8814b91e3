# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage domains: each is made, named and removed with its provider, or apart from it."""

from __future__ import annotations

from collections.abc import Sequence

from cinderengine.api.resources.disks import DOMAIN_DISKS
from cinderengine.api.resources.empty import PERMISSIONS, empty
from cinderengine.api.resources.sent import given
from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import Entity, entity
from cinderengine.model.domains import StorageDomain
from cinderengine.store.entities import storage_domains

FIELDS = {
    "name": lambda domain: domain.name,
    "id": lambda domain: domain.id,
    "description": lambda domain: domain.description,
    "comment": lambda domain: domain.comment,
    "status": lambda domain: domain.status.value,
    "type": lambda domain: "volume",
    "datacenter": lambda domain: domain.data_center_id or "",
    "size": lambda domain: domain.available_bytes,
    "used": lambda domain: domain.used_bytes,
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


def show(call: Call, domain: StorageDomain) -> Entity:
    """A storage domain as the API has it, wherever it is asked for."""
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


async def _rows(call: Call) -> Sequence[StorageDomain]:
    return await call.parts.store.read(storage_domains.all)


async def _row(call: Call) -> StorageDomain | None:
    return await call.parts.store.read(storage_domains.get, call.id("storagedomains"))


async def _edit(call: Call, sent: Entity) -> StorageDomain:
    changes = given(sent, {"description": "description", "comment": "comment"})
    return await call.parts.domains.edit(call.id("storagedomains"), call.caller, **changes)


STORAGE_DOMAINS = Collection(
    "storagedomains",
    "storage_domain",
    rows=_rows,
    row=_row,
    show=show,
    edit=_edit,
    fields=FIELDS,
    under=UNDER,
)
