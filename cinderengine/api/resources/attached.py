# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage domains in a data center: attached, activated, put into maintenance, detached."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cinderengine.api.resources.domains import FIELDS, UNDER, DomainRow, all_in, show
from cinderengine.api.resources.sent import referred
from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import Entity
from cinderengine.errors import Conflict, Incomplete
from cinderengine.model.jobs import Job, JobStatus
from cinderengine.store.entities import storage_domains


async def _rows(call: Call) -> Sequence[DomainRow]:
    return await call.parts.store.read(all_in, call.id("datacenters"))


async def _row(call: Call) -> DomainRow | None:
    found = await call.parts.store.read(storage_domains.get, call.id("storagedomains"))
    inside = found is not None and found.data_center_id == call.id("datacenters")
    return DomainRow(found) if found is not None and inside else None


def _show(call: Call, row: DomainRow) -> Entity:
    center_id = call.id("datacenters")
    href = made.below(f"{made.below('/datacenters', center_id)}/storagedomains", row.domain.id)
    shown = show(call, row)
    center = made.reference("data_center", center_id, "/datacenters")
    assert center is not None
    return dataclasses.replace(shown, href=href, values={**shown.values, "data_center": center})


async def _attach(call: Call, sent: Entity) -> DomainRow:
    if not (sent.id or sent.text("name")):
        raise Incomplete("the storage domain is not named; give its id or its name")
    domain = await call.parts.store.read(referred, storage_domains, sent)
    center_id = call.id("datacenters")
    return DomainRow(await call.parts.domains.attach(center_id, domain.id, call.caller))


async def _detach(call: Call) -> None:
    await call.parts.domains.detach(call.id("datacenters"), call.id("storagedomains"), call.caller)


async def _activate(call: Call, sent: Entity) -> None:
    job = await call.parts.domains.activate(
        call.id("storagedomains"), call.caller, call.id("datacenters")
    )
    _raise_failed(job)


async def _deactivate(call: Call, sent: Entity) -> None:
    job = await call.parts.domains.deactivate(
        call.id("storagedomains"), call.caller, call.id("datacenters")
    )
    _raise_failed(job)


def _raise_failed(job: Job) -> None:
    if job.status is JobStatus.FAILED:
        raise Conflict(job.reason)


ATTACHED_DOMAINS = Collection(
    "storagedomains",
    "storage_domain",
    rows=_rows,
    row=_row,
    show=_show,
    add=_attach,
    remove=_detach,
    actions={"activate": _activate, "deactivate": _deactivate},
    fields=FIELDS,
    under=UNDER,
)
